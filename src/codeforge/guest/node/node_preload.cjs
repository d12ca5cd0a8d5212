'use strict'
// Loads and compiles, while the worker waits, what nearly every program makes node load on first use.
// Loading this file is half of it: it compiles node's module loader.

const { Writable } = require('stream')

// Streams of pipes are node's `net`. Do not touch process.stdout and process.stderr: creating them makes
// the descriptor non-blocking, for the program and for every child that inherits it. With colorMode
// "auto" a console would ask stderr.
exports.console = function () {
  require('net')
  const sink = new Writable({ write() {} })
  new console.Console({ stdout: sink, colorMode: false }).log('%s %d %o', 'text', 1, [{ key: 'value' }, new Error('none')])
}
