// Nothing is registered, open or added before the program asks for it.
const events = ['exit', 'beforeExit', 'uncaughtException', 'unhandledRejection', 'uncaughtExceptionMonitor', 'warning',
  'message', 'disconnect', 'SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1', 'rejectionHandled', 'newListener']
console.log(events.map(name => process.listenerCount(name)).join(), process.eventNames())
console.log(process.getActiveResourcesInfo(), process._getActiveHandles().length, process._getActiveRequests().length)
console.log(Object.getOwnPropertyNames(globalThis).sort().join())
console.log(Object.getOwnPropertyNames(process).sort().join())
console.log(Object.keys(process.env).sort().join())
console.log(require('module')._extensions['.js'].name, Object.keys(require('module')._cache))
console.log(Object.keys(require('module')._pathCache).length > 0, require('module').globalPaths)
console.log(process.hasUncaughtExceptionCaptureCallback(), process.domain, process.report?.signal)
console.log(require('fs').readdirSync('/proc/self/fd').length, process.umask().toString(8))
console.log(require('async_hooks').executionAsyncId(), require('async_hooks').triggerAsyncId())
console.log(require('fs').readdirSync('.'), process.stdin.constructor.name, process.stdout.constructor.name)
