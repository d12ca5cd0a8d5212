'use strict'
// A session of JavaScript, or with --typescript of TypeScript: cells that share what they declare.
//
// There are three threads, so that one of them always listens, whatever a cell does:
//
// - The main thread is the user's. Cells run here as V8's own REPL runs them, and the event loop goes on
//   between them. Of our code it has only this file, which turns values and errors into text, with
//   functions that call nothing a program could have replaced.
// - The driver (node_session_driver.cjs) owns descriptor 3. It evaluates cells in the main thread
//   through an inspector session inside the process, without a port, and does everything that need not
//   happen in the main thread. It also has the TypeScript compiler.
// - The watch (node_session_watch.cjs) sees SIGINT, even while the main thread is in an endless loop.
//
// This file calls no methods that programs can replace: it keeps what node calls "primordials".

const fs = require('fs')
const path = require('path')
const util = require('util')
const Module = require('module')
const { EventEmitter } = require('events')
const { Writable } = require('stream')
const { Worker, MessageChannel, MessagePort, receiveMessageOnPort } = require('worker_threads')

const TYPESCRIPT = '--typescript'
const WARM = Symbol.for('codeforge.session.warm')
const HOOKS = Symbol.for('codeforge.session.hooks')
const DISPLAY = Symbol.for('Jupyter.display')

const STEP_LIMIT_MS = 60_000
const LEAVE_LIMIT_MS = 1000
const EAGAIN_PAUSE_MS = 2
const TEXT_LIMIT = 1 << 20 // characters of text/plain
const JSON_LIMIT = 1 << 16 // characters of application/json, and as many values
const DEPTH_LIMIT = 64
const MESSAGE_LIMIT = (32 << 20) - (1 << 16) // bytes of what a message has for data

const { stringify } = JSON
const {
  inspect,
  types: { isNativeError, isProxy },
} = util
const { isArray } = Array
const { is, keys, getOwnPropertyDescriptor, getPrototypeOf } = Object
const { apply } = Reflect
const { wait, store } = Atomics
const { byteLength } = Buffer
const { isFinite } = Number
const plainObject = Object.prototype
const hasInstance = Function.prototype[Symbol.hasInstance]
const { slice, replaceAll, startsWith } = String.prototype
const { postMessage } = MessagePort.prototype
const { listeners, on } = EventEmitter.prototype
const { writeSync } = fs
const PlainError = Error
const PlainPromise = Promise
const nextTurn = setImmediate

// --- The other threads

// They may be started while the process waits.
function startThreads() {
  const flag = new Int32Array(new SharedArrayBuffer(4))
  const talk = new MessageChannel()
  const signals = new MessageChannel()
  const threads = [
    startThread('node_session_driver.cjs', { flag, talk: talk.port2, signals: signals.port2 }),
    startThread(
      'node_session_watch.cjs',
      { signals: signals.port1 },
      { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 1 },
    ),
  ]
  // A session cannot go on without either; init reports that it ended.
  for (const thread of threads)
    thread.on('exit', () => process.reallyExit(1)).on('error', (error) => write(2, `${inspect(error)}\n`))
  return { flag, port: talk.port1 }
}

function startThread(file, workerData, resourceLimits) {
  const transferList = Object.values(workerData).filter((value) => value instanceof MessagePort)
  return new Worker(path.join(__dirname, file), { workerData, transferList, resourceLimits, execArgv: [] })
}

// Ask the driver, and block until it answers.
function ask({ flag, port }, question, limitMs) {
  store(flag, 0, 0)
  apply(postMessage, port, [question])
  wait(flag, 0, 0, limitMs)
}

function warmed() {
  return (process[WARM] ??= startThreads())
}

exports.console = function () {
  require('./node_preload.cjs').console()
  delete require.cache[require.resolve('./node_preload.cjs')]
  ask(warmed(), { step: 'console' }, STEP_LIMIT_MS)
}

for (const step of ['typescript', 'libraries', 'types', 'check']) {
  exports[step] = () => ask(warmed(), { step }, STEP_LIMIT_MS)
}

// --- Output: it is in the pipe when write() returns, however slowly the pipe is read

function write(descriptor, data) {
  const bytes = typeof data === 'string' ? Buffer.from(data) : data
  for (let done = 0; done < bytes.length;) {
    try {
      done += writeSync(descriptor, bytes, done)
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error // a child that shares the pipe made it non-blocking
      wait(pause, 0, 0, EAGAIN_PAUSE_MS)
    }
  }
}

const pause = new Int32Array(new SharedArrayBuffer(4))

class PipeStream extends Writable {
  constructor(fd) {
    super({ decodeStrings: true })
    this.fd = fd
    this._type = 'pipe'
    this._isStdio = true
    this.destroySoon = this.destroy
  }

  _write(bytes, _encoding, done) {
    let failed = null
    try {
      write(this.fd, bytes)
    } catch (error) {
      failed = error
    }
    done(failed)
  }

  _destroy(error, done) {
    done(error) // like node, never close the descriptor
  }
}

function putStream(name, fd) {
  let stream
  const get = () => (stream ??= new PipeStream(fd))
  Object.defineProperty(process, name, { get, configurable: true, enumerable: true })
}

// --- Values and errors as text

function textOf(value) {
  let text
  try {
    text = inspect(value)
  } catch (error) {
    text = `[a value that cannot be shown: ${reasonOf(error)}]`
  }
  return withCells(text)
}

function cut(text) {
  const over = text.length - TEXT_LIMIT
  return over > 0 ? `${apply(slice, text, [0, TEXT_LIMIT])}\n... ${over} more characters` : text
}

// V8 takes no space in the name of a script.
function withCells(text) {
  return apply(replaceAll, text, ['<cell-', '<cell '])
}

function reasonOf(error) {
  try {
    return `${error}`
  } catch {
    return 'what was thrown cannot be shown either'
  }
}

function property(value, name) {
  try {
    return `${value[name]}`
  } catch {
    return ''
  }
}

function isError(value) {
  try {
    return isNativeError(value) || apply(hasInstance, PlainError, [value])
  } catch {
    return false
  }
}

function errorOf(value) {
  const text = cut(textOf(value))
  if (!isError(value))
    return asJson(['name', '"Uncaught"', 'value', stringify(text), 'stack', stringify(`Uncaught ${text}`)])
  const name = property(value, 'name') || 'Error'
  const message = withCells(cut(property(value, 'message')))
  return asJson(['name', stringify(name), 'value', stringify(message), 'stack', stringify(text)])
}

function asJson(pairs) {
  let text = ''
  for (let i = 0; i < pairs.length; i += 2) text += `${text && ','}"${pairs[i]}":${pairs[i + 1]}`
  return `{${text}}`
}

// The value as JSON if it is plain data, else undefined. Runs none of the program's code.
function plainJson(value) {
  let room = JSON_LIMIT
  const parents = []
  function json(value, depth) {
    if (--room < 0 || depth > DEPTH_LIMIT) return undefined
    if (value === null || typeof value === 'boolean') return `${value}`
    if (typeof value === 'number') return isFinite(value) && !is(value, -0) ? `${value}` : undefined
    if (typeof value === 'string') return (room -= value.length) < 0 ? undefined : stringify(value)
    if (typeof value !== 'object' || isProxy(value)) return undefined
    const list = isArray(value)
    const prototype = getPrototypeOf(value)
    if (!list && prototype !== plainObject && prototype !== null) return undefined
    for (let i = 0; i < depth; i++) if (parents[i] === value) return undefined
    parents[depth] = value
    const names = keys(value)
    if (list && names.length !== value.length) return undefined
    let text = ''
    for (let i = 0; i < names.length; i++) {
      const item = getOwnPropertyDescriptor(value, names[i])
      const part = 'value' in item ? json(item.value, depth + 1) : undefined
      if (part === undefined) return undefined
      room -= names[i].length
      text += `${text && ','}${list ? '' : `${stringify(names[i])}:`}${part}`
    }
    return list ? `[${text}]` : `{${text}}`
  }
  const text = json(value, 0)
  return room < 0 ? undefined : text
}

// A value as the JSON of {"data": ..., "metadata": {}}. As in Deno, an object may supply its own data.
function bundleOf(value, own) {
  const data = { __proto__: null }
  if (own !== undefined && own !== null) {
    const types = keys(own)
    for (let i = 0; i < types.length; i++) {
      const json = stringify(own[types[i]])
      if (json !== undefined) data[types[i]] = json
    }
  } else {
    const json = plainJson(value)
    if (json !== undefined) data['application/json'] = json
  }
  data['text/plain'] ??= stringify(cut(textOf(value)))
  const types = keys(data)
  const pairs = []
  let room = MESSAGE_LIMIT
  let tooMuch = ''
  for (let i = 0; i < types.length; i++) {
    const size = byteLength(data[types[i]])
    if (size > room) {
      tooMuch += `${tooMuch && '\n'}<${types[i]} of ${size} bytes: too much to send>`
      continue
    }
    room -= size
    const name = stringify(types[i])
    pairs[pairs.length] = apply(slice, name, [1, name.length - 1])
    pairs[pairs.length] = data[types[i]]
  }
  return asJson([
    'data',
    tooMuch ? asJson(['text/plain', stringify(tooMuch)]) : asJson(pairs),
    'metadata',
    '{}',
  ])
}

function bringsOwn(value) {
  if (value === null || (typeof value !== 'object' && typeof value !== 'function') || isProxy(value))
    return undefined
  if (typeof value[DISPLAY] === 'function') return value[DISPLAY]()
  if (typeof value.toMimeBundle === 'function') return value.toMimeBundle()
  return undefined
}

// --- What the driver calls, and cells may

let driver
let gate, open

const hooks = {
  __proto__: null,
  // Let the cell, which was compiled and waits, pass the gate. It then does not run inside the
  // inspector's own call: until that ends, the inspector would handle nothing else.
  begin() {
    const passed = open
    closeGate()
    listen()
    passed()
  },
  async value(value) {
    await undefined // leave the inspector's call, because code of the value may run
    try {
      return bundleOf(value, await bringsOwn(value))
    } catch (error) {
      return errorOf(error)
    }
  },
  async error(error) {
    await undefined
    return errorOf(error)
  },
  turn: () => new PlainPromise((resolve) => apply(nextTurn, undefined, [resolve])),
}

function closeGate() {
  gate = new PlainPromise((resolve) => {
    open = resolve
  })
}

function display(value) {
  const own = bringsOwn(value)
  if (own === undefined || typeof own?.then !== 'function') return tellDisplay(value, own)
  return (async () => tellDisplay(value, await own))()
}

function tellDisplay(value, own) {
  apply(postMessage, driver.port, [{ display: bundleOf(value, own) }])
}

// Called for each cell, because a program may remove listeners.
function listen() {
  const there = apply(listeners, process, ['uncaughtException'])
  for (let i = 0; i < there.length; i++) if (there[i] === lateError) return
  apply(on, process, ['uncaughtException', lateError])
}

// For errors that no code waits for: of a timer, or a promise that was dropped.
function lateError(error) {
  if (apply(listeners, process, ['uncaughtException']).length > 1) return // the program has its own listener
  const text = textOf(error)
  write(2, `${apply(startsWith, text, ['Uncaught']) ? '' : 'Uncaught '}${text}\n`)
}

// An interruption ends callbacks of the event loop halfway. Node would take the state that this leaves
// for a bug of its own, and abort.
function takeInterruptions() {
  process.noDeprecation = true // process.binding is deprecated
  const { async_hook_fields: fields, constants } = process.binding('async_wrap')
  delete process.noDeprecation
  fields[constants.kCheck] = 0
}

// Else the inspector writes to stderr that it waits for the debugger to disconnect.
function leaveQuietly() {
  const { reallyExit } = process
  driver.port.on('message', ({ exit }) => apply(reallyExit, process, [exit]))
  process.reallyExit = (code) => {
    ask(driver, { leave: true }, LEAVE_LIMIT_MS)
    apply(reallyExit, process, [code])
  }
}

// --- The namespace

// What a program in that file would have: require() and import() resolve from there, and
// `if (require.main === module)` is true.
function putNamespace(file) {
  const module = new Module('.', null)
  module.filename = file
  module.paths = Module._nodeModulePaths(path.dirname(file))
  module.loaded = true
  process.mainModule = module
  const own = { require: Module.createRequire(file), module, exports: module.exports }
  own.__filename = file
  own.__dirname = path.dirname(file)
  own.display = display
  for (const [name, value] of Object.entries(own)) {
    Object.defineProperty(globalThis, name, { value, writable: true, configurable: true })
  }
  return own.require
}

// V8 compiles import() in a cell, but has no file to resolve from. So cells call this function instead,
// whose name no variable can have. Cells begin by awaiting its gate.
function putImport(load) {
  Object.defineProperty(load, 'gate', { get: () => gate })
  load.meta = { __proto__: null, url: String(require('url').pathToFileURL(process.mainModule.filename)) }
  Object.defineProperty(globalThis, 'import', { value: load })
}

function importerIn(file) {
  const module = new Module(file, null)
  module.filename = file
  module._compile('module.exports = (name, options) => import(name, options)', file)
  return module.exports
}

// TypeScript's modules are CommonJS (tsconfig.json), and types are checked for that.
function requirerFrom(require, load) {
  return async (name, options) => {
    let found
    try {
      found = require(name)
    } catch (error) {
      if (error?.code !== 'ERR_REQUIRE_ESM') throw error
      return load(name, options)
    }
    if (found?.__esModule) return found
    const hasNames = typeof found === 'function' || (typeof found === 'object' && found !== null)
    const names = hasNames ? Object.getOwnPropertyDescriptors(found) : {}
    return Object.defineProperties({}, { ...names, default: { value: found, enumerable: true } })
  }
}

// For require() of the program's own TypeScript files. The driver has the compiler.
function takeTypescript() {
  Module._extensions['.ts'] = (module, file) => {
    ask(driver, { file }, STEP_LIMIT_MS)
    const { message } = receiveMessageOnPort(driver.port) ?? {
      message: { error: `${file} could not be compiled` },
    }
    if (message.error !== undefined) throw Object.assign(new Error(message.error), { name: 'TSError' })
    module._compile(message.code, file)
  }
}

function start() {
  driver = warmed()
  delete process[WARM]
  const typescript = process.argv[2] === TYPESCRIPT
  process.argv.splice(1, typescript ? 2 : 1)
  const file = path.join(process.cwd(), typescript ? 'main.ts' : 'main.js')
  putStream('stdout', 1)
  putStream('stderr', 2)
  const require = putNamespace(file)
  const load = importerIn(file)
  putImport(typescript ? requirerFrom(require, load) : load)
  if (typescript) takeTypescript()
  closeGate()
  listen()
  takeInterruptions()
  leaveQuietly()
  Object.defineProperty(globalThis, HOOKS, { value: hooks, configurable: true })
  delete require.cache[__filename]
  apply(postMessage, driver.port, [{ start: { typescript, directory: process.cwd() } }])
}

if (require.main === module) start()
