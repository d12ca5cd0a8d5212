import { setTimeout as wait } from 'timers/promises'

await wait(1)
console.log('a CommonJS module has no top-level await')
