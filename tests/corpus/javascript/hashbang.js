#!/usr/bin/env node
console.log('hashbang and crlf')
throw new Error('line three')
