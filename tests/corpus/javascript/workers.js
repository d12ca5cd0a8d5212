const { Worker, isMainThread, parentPort, workerData, threadId } = require('worker_threads')

if (isMainThread) {
  const shared = new SharedArrayBuffer(8)
  const counts = new Int32Array(shared)
  const worker = new Worker(__filename, { workerData: { shared, values: [1, 2, 3] }, argv: ['w'], env: { ONLY: 'this' } })
  worker.on('message', message => console.log('message', message))
  worker.on('exit', code => {
    console.log('exit', code, Atomics.load(counts, 0))
    const failing = new Worker('throw new TypeError("in a worker")', { eval: true })
    failing.on('error', error => console.log('error event', error.message))
    failing.on('exit', second => {
      console.log('exit', second)
      new Worker('process.exit(3)', { eval: true }).on('exit', third => console.log('exit', third))
    })
  })
  console.log(threadId, typeof require('worker_threads').parentPort)
} else {
  const counts = new Int32Array(workerData.shared)
  for (let n = 0; n < 1000; n++) Atomics.add(counts, 0, 1)
  parentPort.postMessage({ threadId, main: require.main === module, sum: workerData.values.reduce((a, b) => a + b), argv: process.argv.slice(1), env: process.env })
  parentPort.postMessage({ id: module.id, cached: Object.keys(require.cache) })
}
