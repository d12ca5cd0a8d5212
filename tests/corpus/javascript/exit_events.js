let rounds = 0
process.on('beforeExit', code => {
  console.log('beforeExit', code)
  if (rounds++ < 2) setImmediate(() => console.log('more work', rounds))
})
process.on('exit', code => {
  console.log('exit', code, process.exitCode)
  process.exitCode = 42
  setTimeout(() => console.log('never'), 0)
  Promise.resolve().then(() => console.log('never either'))
})
process.on('exit', code => console.log('second exit handler', code))
process.exitCode = 5
console.log('main ends')
