import { readFile, readFiel } from 'fs/promises'
console.log(readFile, readFiel)
