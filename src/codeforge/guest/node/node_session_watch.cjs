'use strict'
// Sees SIGINT, in a thread of its own: node tells of signals through the main thread's event loop, which
// a cell that never returns does not let run. V8's interruption of vm scripts does not need it: the
// signal ends the innermost script that asked for that, in whatever thread it is. Here such a script
// does nothing but wait.
//
// They are nested, so that from the first to the last moment one is there: without any, node would put
// back the signal's default, which is to end the process.

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

// The first thing that is said is that from now on signals are seen.
interrupted(() => {
  signals.postMessage('watching')
  watch(NESTED - 1)
})
