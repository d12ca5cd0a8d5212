// Neither import nor export says that it is a module.
const text = await Promise.resolve('top-level await')
console.log(text, this)
const { setTimeout: wait } = await import('timers/promises')
await wait(10)
process.exitCode = 3
