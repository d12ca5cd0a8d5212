#!/usr/bin/env node
import { EOL } from "os"
export {}
console.log(JSON.stringify(EOL), import.meta.url)
throw new Error("line five")
