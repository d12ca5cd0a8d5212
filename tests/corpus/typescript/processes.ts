import { execFileSync, fork } from 'child_process'
import { Worker, isMainThread, parentPort } from 'worker_threads'

if (process.argv[2] === 'child') {
  process.send?.({ argv: process.argv.slice(1), extensions: Object.keys(require.extensions) })
  process.disconnect()
} else if (isMainThread) {
  console.log(execFileSync('sh', ['-c', 'echo shell; ls']).toString())
  const child = fork(__filename, ['child'])
  child.on('message', (message) => console.log(message))
  child.on('exit', (code) => {
    console.log('exit', code)
    const worker = new Worker(`const { parentPort } = require('worker_threads'); parentPort.postMessage(1 + 1)`, { eval: true })
    worker.on('message', (value: number) => console.log('worker', value))
    worker.on('exit', () => { throw new SyntaxError('at the end') })
  })
} else {
  parentPort?.postMessage('never')
}
