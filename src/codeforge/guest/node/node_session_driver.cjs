'use strict'
// The driver, a thread of its own (see node_session.cjs): talks to init, and has cells evaluated.
//
// How a cell runs: V8's REPL mode (Runtime.evaluate) turns it into a function that may await, and keeps
// its declarations. The text begins with `await` of a gate, which the next message opens. So no cell runs
// inside the inspector's own call: an interruption, which comes through the inspector, would have to wait
// for the end of that call. It also keeps frames of ours out of the cell's stacks.

const fs = require('fs')
const net = require('net')
const { inspect } = require('util')
const { Session } = require('inspector')
const {
  workerData: { flag, talk, signals },
  receiveMessageOnPort,
} = require('worker_threads')
const cellText = require('./node_session_text.cjs')

const CONTROL = 3
const HEAD_BYTES = 5
const TYPE_AT = 4
const PART = 'j'.charCodeAt(0)
const GATE = 'await this.import.gate;'
const HOOKS = `(() => {
  const key = Symbol.for('codeforge.session.hooks')
  const hooks = globalThis[key]
  delete globalThis[key]
  return hooks
})()`

const EARLY_NS = 5_000_000n // a signal this early was meant for the cell before
const BEGUN_MS = 6
const TURN_MS = 50 // for the main thread's event loop to turn
const LEAVE_MS = 200
const COMPLETE_MS = 2000
const LONG_STRING = 1 << 16 // longer ones are shown here, not sent back to the main thread
const MATCHES = 200
const REDECLARED = /^SyntaxError: Identifier '(.*)' has already been declared/
const REDECLARATIONS = 50

const session = new Session()
let hooks // the object of that name in the main thread, by its id
let typescript // typescript_session.cjs, once it is loaded
let isTypescript = false
let leaving = false
let running // {number, since, interrupted, give()}
const sources = new Map() // number of a cell -> {lines, shift}: its text, and the length of what precedes it

function post(method, parameters) {
  return new Promise((resolve, reject) => {
    session.post(method, parameters, (error, result) => {
      if (!error) resolve(result)
      // A promise that an interruption left unsettled may be collected: go on waiting all the same.
      else if (!/Promise was collected/.test(error.message)) reject(Object.assign(new Error(error.message), error))
    })
  })
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

// Call a hook; the argument is a value as the inspector describes it.
function call(name, { objectId, unserializableValue, value } = {}) {
  const argument = objectId ? { objectId } : unserializableValue ? { unserializableValue } : { value }
  return post('Runtime.callFunctionOn', {
    objectId: hooks,
    functionDeclaration: `function (value) { return this.${name}(value) }`,
    arguments: [argument],
    awaitPromise: true,
    returnByValue: true,
  })
}

// --- Messages

let socket
let held = Buffer.alloc(0)
const parts = []
let work = Promise.resolve()

async function start({ typescript, directory }) {
  isTypescript = typescript
  session.connectToMainThread()
  hooks = (await post('Runtime.evaluate', { expression: HOOKS })).result.objectId
  await new Promise((resolve) => signals.once('message', resolve)) // until then, a signal would end the process
  signals.on('message', interrupt)
  socket = new net.Socket({ fd: CONTROL, readable: true, writable: true })
  for (const end of ['end', 'error', 'close']) socket.on(end, () => leave())
  socket.on('data', take)
  send('{"is":"ready"}')
  // What the steps before did not load.
  if (isTypescript) setImmediate(() => compiler(directory))
}

function compiler(directory) {
  typescript ??= require('./typescript_session.cjs')
  if (directory) typescript.moveTo(directory)
  return typescript
}

function take(bytes) {
  held = held.length ? Buffer.concat([held, bytes]) : bytes
  for (;;) {
    if (held.length < HEAD_BYTES) return
    const end = HEAD_BYTES + held.readUInt32LE(0)
    if (held.length < end) return
    parts.push(held.subarray(HEAD_BYTES, end))
    const last = held[TYPE_AT] !== PART
    held = held.subarray(end)
    if (!last) continue
    const message = JSON.parse(Buffer.concat(parts.splice(0)))
    const since = process.hrtime.bigint()
    work = work.then(() => answer(message, since)).catch((error) => leave(error))
  }
}

function answer(message, since) {
  switch (message.do) {
    case 'run':
      return run(message.cell, message.code, since)
    case 'complete':
      return complete(message)
    case 'is_complete': {
      let found = { status: 'invalid', indent: '' }
      try {
        found = (isTypescript ? compiler() : cellText).completeness(message.code)
      } catch {} // too long or too deeply nested for the parser
      return send(JSON.stringify({ is: 'completeness', request: message.request, ...found }))
    }
  }
}

function send(json) {
  const payload = Buffer.from(json)
  const head = Buffer.alloc(HEAD_BYTES)
  head.writeUInt32LE(payload.length)
  head.write('J', TYPE_AT)
  if (leaving) return
  if (!isOurs()) return leave()
  socket.write(Buffer.concat([head, payload]))
}

// A program may have closed the descriptor, and opened a file that got its number.
let identity
function isOurs() {
  try {
    const { dev, ino } = fs.fstatSync(CONTROL)
    identity ??= `${dev} ${ino}`
    return identity === `${dev} ${ino}`
  } catch {
    return false
  }
}

// init is gone or cannot be reached. The main thread may be too busy to notice.
function leave(error) {
  if (leaving) return
  leaving = true
  if (error) fs.writeSync(2, `${error.stack}\n`)
  session.disconnect()
  talk.postMessage({ exit: error ? 1 : 0 })
  setTimeout(() => process.kill(process.pid, 'SIGKILL'), LEAVE_MS)
}

// --- Messages of the main thread

talk.on('message', hear)

function hear(message) {
  if (message.display !== undefined) send(`{"is":"display","cell":${lastCell},${message.display.slice(1)}`)
  else if (message.start) start(message.start).catch(leave)
  else if (message.file) {
    talk.postMessage(compiler().helper(message.file))
    goOn()
  } else if (message.step) {
    if (message.step === 'console') cellText.warm()
    else compiler().prepare(message.step)
    goOn()
  } else if (message.leave) {
    leaving = true
    session.disconnect()
    setImmediate(goOn)
  }
}

function goOn() {
  Atomics.store(flag, 0, 1)
  Atomics.notify(flag, 0)
}

// Forward what the main thread sent before the cell ended, ahead of the message about the end.
function hearAll() {
  for (let next; (next = receiveMessageOnPort(talk));) hear(next.message)
}

// --- Cells

let lastCell = 0

async function run(number, code, since) {
  lastCell = number
  sources.set(number, { lines: code.split(/\r\n|[\n\r\u2028\u2029]/), shift: 0 })
  running = { number, since, interrupted: false }
  const mine = running
  const over = new Promise((resolve) => (mine.give = resolve))
  // From then on a signal is meant for this cell. Most cells have ended by then.
  setTimeout(() => running === mine && send(`{"is":"begun","cell":${number}}`), BEGUN_MS).unref()
  const ended = await Promise.race([evaluate(number, code).catch((error) => unread(number, error)), over])
  running = undefined
  hearAll()
  post('Runtime.releaseObjectGroup', { objectGroup: `cell-${number}` }).catch(() => {})
  post('Runtime.discardConsoleEntries').catch(() => {}) // else V8 keeps everything that was logged
  send(`{"is":"done","cell":${number},${ended}}`)
}

// The text is too long or too deeply nested for the parser or the compiler.
function unread(number, { name, message }) {
  typescript?.forget(number)
  return failed({ name, value: message, traceback: [`${name}: ${message}`] })
}

const INTERRUPTED =
  '"value":null,"error":{"name":"KeyboardInterrupt","value":"","traceback":["KeyboardInterrupt"]}'

async function evaluate(number, code) {
  const mine = running
  let text = code
  if (isTypescript) {
    const compiled = compiler().compile(number, code)
    if (compiled.error) return failed(compiled.error)
    text = compiled.code
    await new Promise(setImmediate) // for an interruption that came meanwhile
  } else {
    text = cellText.withObject(text)
  }
  if (mine.interrupted) {
    typescript?.forget(number)
    return INTERRUPTED
  }
  const { result, exceptionDetails } = await evaluateCell(number, cellText.forRepl(text), mine)
  if (isNotCompiled(exceptionDetails)) {
    typescript?.forget(number)
    return failed(syntaxError(number, exceptionDetails))
  }
  if (mine.interrupted) return INTERRUPTED
  if (exceptionDetails) return failedWith(number, await call('error', exceptionDetails.exception))
  if (result.type === 'undefined') return '"value":null,"error":null'
  if (result.type === 'string' && result.value.length > LONG_STRING) {
    const data = JSON.stringify({ 'text/plain': inspect(result.value) })
    return `"value":{"data":${data},"metadata":{}},"error":null`
  }
  const shown = await call('value', result)
  if (shown.result.value?.startsWith('{"data"')) return `"value":${shown.result.value},"error":null`
  return failedWith(number, shown)
}

// True if nothing of the cell ran: then V8 reports where in the script the error is, not only what was thrown.
function isNotCompiled(details) {
  return details?.scriptId !== undefined
}

function failedWith(number, { result, exceptionDetails }) {
  if (exceptionDetails)
    return failed({ name: 'Error', value: exceptionDetails.text, traceback: [exceptionDetails.text] })
  const { name, value, stack } = JSON.parse(result.value)
  return failed({ name, value, traceback: traceback(number, stack) })
}

function failed(error) {
  return `"value":null,"error":${JSON.stringify(error)}`
}

async function evaluateCell(number, text, mine) {
  const strict = isTypescript || /^\s*(['"])use strict\1/.test(text)
  const before = (strict ? '"use strict";' : '') + GATE
  sources.get(number).shift = before.length
  for (let tries = 0; ; tries++) {
    const evaluation = post('Runtime.evaluate', {
      expression: `${before}${text}\n//# sourceURL=<cell-${number}>`,
      replMode: true,
      objectGroup: `cell-${number}`,
    })
    call('begin').catch(leave)
    const outcome = await evaluation
    const { exceptionDetails } = outcome
    const name =
      isNotCompiled(exceptionDetails) && REDECLARED.exec(exceptionDetails.exception?.description)?.[1]
    const other =
      name && tries < REDECLARATIONS && cellText.isValid(text) ? cellText.redeclared(text, name) : null
    if (other === null || mine.interrupted) return outcome
    text = other
  }
}

// --- Errors, with the cell's own lines

function syntaxError(number, { lineNumber, columnNumber, exception, text }) {
  const [first] = (exception?.description ?? text).split('\n')
  const [, name, value] = /^(\w+): ([^]*)$/.exec(first) ?? [null, 'SyntaxError', first]
  const { lines, shift } = sources.get(number)
  const line = Math.min(lineNumber, lines.length - 1)
  const column = lineNumber > line ? lines[line].length : columnNumber - (line === 0 ? shift : 0)
  return { name, value, traceback: [...excerpt(number, line, Math.max(column, 0)), first] }
}

function excerpt(number, line, column) {
  const text = sources.get(number)?.lines[line]
  if (text === undefined) return []
  return [`<cell ${number}>:${line + 1}`, text, `${text.slice(0, column).replace(/[^\t]/g, ' ')}^`, '']
}

const PLACE = /<cell (\d+)>:(\d+):(\d+)/
const NOT_THE_CELLS = new RegExp(
  `${__dirname.replace(/\W/g, '\\$&')}/node_session|\\b(?:processTicksAndRejections|node:inspector)`,
)

function traceback(number, stack) {
  let where
  const lines = []
  for (const line of stack.split('\n')) {
    if (/^\s+at /.test(line) && NOT_THE_CELLS.test(line)) continue
    lines.push(
      line.replace(PLACE, (_, cell, row, column) => {
        const right =
          row === '1' ? Math.max(column - (sources.get(Number(cell))?.shift ?? 0), 1) : Number(column)
        where ??= [Number(cell), row - 1, right - 1]
        return `<cell ${cell}>:${row}:${right}`
      }),
    )
  }
  return [...(where ? excerpt(...where) : []), ...lines]
}

// --- Interruption

async function interrupt(at) {
  const mine = running
  if (!mine || at < mine.since + EARLY_NS || mine.interrupted) return
  mine.interrupted = true
  // Terminate what runs in the main thread until its event loop turns. Meanwhile ask for nothing else:
  // V8 would terminate that instead.
  while (!(await turns())) await post('Runtime.terminateExecution').catch(() => sleep(TURN_MS))
  await new Promise(setImmediate) // in case the cell ended by itself, with a result
  mine.give(INTERRUPTED)
}

function turns() {
  return Promise.race([
    call('turn').then(
      () => true,
      () => false,
    ),
    sleep(TURN_MS).then(() => false),
  ])
}

// --- Completions

const IDENTIFIER = '[\\p{ID_Start}$_][\\p{ID_Continue}$]*'
const NAME = new RegExp(`${IDENTIFIER}$`, 'u')
const WHOLE_NAME = new RegExp(`^${IDENTIFIER}$`, 'u')
const DOT = '\\s*\\??\\.\\s*'
// A name or a string, and the properties after it, up to the last dot.
const CHAIN = new RegExp(
  `(?:^|[^\\w$.\\])])((?:${IDENTIFIER}|'[^'\\n]*'|"[^"\\n]*")(?:${DOT}${IDENTIFIER}|\\[\\d+\\])*)${DOT}$`,
  'u',
)
const WORDS = (
  'async await break case catch class const continue debugger default delete do else export extends false ' +
  'finally for function if import in instanceof let new null of return static super switch this throw true ' +
  'try typeof var void while yield'
).split(' ')

async function complete({ request, code, at }) {
  const before = Array.from(code).slice(0, at).join('')
  const name = NAME.exec(before)?.[0] ?? ''
  const start = at - Array.from(name).length
  let matches = []
  try {
    const found = isTypescript
      ? compiler().completions(code, before.length)
      : await Promise.race([
          namesAt(before.slice(0, before.length - name.length)),
          sleep(COMPLETE_MS).then(() => []),
        ])
    matches = [...new Set(found)]
      .filter((found) => found.startsWith(name))
      .sort()
      .slice(0, MATCHES)
  } catch {}
  send(JSON.stringify({ is: 'completions', request, start, end: at, matches }))
}

async function namesAt(before) {
  if (!/\.\s*$/.test(before)) {
    const { names } = await post('Runtime.globalLexicalScopeNames', {})
    return [...names, ...WORDS, ...(await namesOf('globalThis'))]
  }
  const chain = CHAIN.exec(before)?.[1]
  return chain ? namesOf(chain) : []
}

// V8 makes sure that this runs no code of the program.
async function namesOf(expression) {
  const { result, exceptionDetails } = await post('Runtime.evaluate', {
    expression: `Object(${expression})`,
    throwOnSideEffect: true,
    silent: true,
    timeout: COMPLETE_MS,
    objectGroup: 'completions',
  })
  try {
    if (exceptionDetails || !result.objectId) return []
    const { result: properties } = await post('Runtime.getProperties', {
      objectId: result.objectId,
      ownProperties: false,
      nonIndexedPropertiesOnly: true,
    })
    return properties
      .filter(({ name, symbol }) => !symbol && WHOLE_NAME.test(name))
      .map(({ name }) => name)
  } finally {
    post('Runtime.releaseObjectGroup', { objectGroup: 'completions' }).catch(() => {})
  }
}
