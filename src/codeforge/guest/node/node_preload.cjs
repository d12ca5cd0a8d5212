'use strict'
// What nearly every program makes node load or compile on first use, done while the worker waits.
// Loading this very file is half of it: node's loader of modules is then compiled.

const { Writable } = require('stream')

// The stream of a pipe is node's `net`. process.stdout and process.stderr themselves must be left alone:
// making one turns its descriptor non-blocking, for the program and for every child that inherits it.
// A console that is to find out about colours asks stderr.
exports.console = function () {
  require('net')
  const sink = new Writable({ write() {} })
  new console.Console({ stdout: sink, colorMode: false }).log('%s %d %o', 'text', 1, [{ key: 'value' }, new Error('none')])
}
