// Variables that only a node that is starting reads.
console.log(process.execArgv, process.allowedNodeEnvironmentFlags.has('--require'), process.env.NODE_OPTIONS)
console.log(new Error('short').stack.split('\n').length, Error.stackTraceLimit)
console.log(Buffer.from('x').toString(), process.env.NO_COLOR, require('util').inspect.defaultOptions.colors)
Promise.reject(new Error('only a warning'))
setTimeout(() => console.log('still alive'), 20)
process.on('warning', () => {})
