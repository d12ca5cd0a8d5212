'use strict'
// Sees SIGINT, in a thread of its own. Node delivers signals through the main thread's event loop, which
// an endless loop blocks. `breakOnSigint` of vm scripts does not need that loop: the signal ends the
// innermost script that asked for it, in whichever thread. The scripts here do nothing but wait.
//
// They are nested so that there is always one: without any, node would restore the signal's default,
// which ends the process.

const vm = require('vm')
const {
  workerData: { signals },
} = require('worker_threads')

const NESTED = 3
const never = new Int32Array(new SharedArrayBuffer(4))
const script = new vm.Script('globalThis.inside()')

function interrupted(work) {
  globalThis.inside = work
  try {
    script.runInThisContext({ breakOnSigint: true })
  } catch {
    signals.postMessage(process.hrtime.bigint())
  }
}

function watch(depth) {
  for (;;) interrupted(depth === 0 ? () => Atomics.wait(never, 0, 0) : () => watch(depth - 1))
}

// The first message says that signals are seen from now on.
interrupted(() => {
  signals.postMessage('watching')
  watch(NESTED - 1)
})
