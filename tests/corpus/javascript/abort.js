const vm = require('vm')
try {
  vm.runInThisContext('throw new Error("in vm")', 'virtual.js')
} catch (error) {
  console.log(error.stack.split('\n').slice(0, 2))
}
process.on('exit', () => console.log('never'))
process.stdout.end('ended by hand\n', () => process.kill(process.pid, 'SIGABRT'))
setTimeout(() => {}, 1000)
