'use strict'
// Loaded (node --require) before every JavaScript and TypeScript program. It does two things:
//
// 1. If init started this process as a worker, it waits: it does the preload steps that init asks for,
//    takes over argv and environment, and returns. Node then loads the main program as if it had just
//    started. Reads are synchronous, so the event loop has not run by then. A session gets "start"
//    instead of "go": its program keeps descriptor 3.
// 2. If the main program is a .js file written as an ES module, it makes node load it as one. Node 18
//    decides by the nearest package.json alone, so this writes one that says "module" next to the
//    program, unless the program brought its own. Newer versions of node detect ES modules themselves.
//
// init starts it in this file's directory: with --require, node reads and remembers the package.json
// of the directory that it starts in, which for /code would be too early.

const fs = require('fs')
const path = require('path')
const vm = require('vm')

const HEAD_BYTES = 5
const TYPE_AT = 4
const PRELOAD = 'p'.charCodeAt(0)
const START = 's'.charCodeAt(0)
const PRELOADED = Buffer.from([0, 0, 0, 0, 'P'.charCodeAt(0)])

const SESSION = path.join(__dirname, 'node_session.cjs')

// Step -> the file that exports a function of that name. If a file is not in this image, or a step
// fails, the program only starts later. A session exports a function for each step itself.
const PRELOADS = {
  console: './node_preload.cjs',
  typescript: './typescript_preload.cjs',
  libraries: './typescript_preload.cjs',
  types: './typescript_preload.cjs',
  check: './typescript_preload.cjs',
}

function waitForGo(control) {
  delete process.env.CODEFORGE_CONTROL_FD
  for (;;) {
    const head = readExactly(control, HEAD_BYTES)
    const payload = readExactly(control, head.readUInt32LE(0)).toString()
    if (head[TYPE_AT] !== PRELOAD) {
      if (head[TYPE_AT] !== START) fs.closeSync(control)
      return takeOver(payload)
    }
    preload(payload)
    fs.writeSync(control, PRELOADED)
  }
}

function readExactly(control, size) {
  const bytes = Buffer.allocUnsafeSlow(size)
  for (let have = 0; have < size; ) {
    const count = fs.readSync(control, bytes, have, size - have)
    if (count === 0) process.exit(0) // init is gone
    have += count
  }
  return bytes
}

function preload(step) {
  try {
    require(process.argv[1] === SESSION ? SESSION : PRELOADS[step])[step]()
  } catch {}
}

function takeOver(message) {
  const strings = message.split('\0')
  const count = Number(strings[0])
  const argv = strings.slice(1, 1 + count)
  // argv is: node --require THIS main.js ...; process.argv[1] stays as node set it.
  const program = argv.slice(argv.indexOf(__filename) + 1)
  process.argv.splice(1, process.argv.length, ...program)
  for (const variable of strings.slice(1 + count, -1)) {
    const at = variable.indexOf('=')
    process.env[variable.slice(0, at)] = variable.slice(at + 1)
  }
  for (const { id, exports } of module.children) {
    delete require.cache[id]
    exports.go?.()
  }
}

const ONLY_IN_MODULES = [
  'Cannot use import statement outside a module',
  "Unexpected token 'export'",
  "Cannot use 'import.meta' outside a module",
]
const MISPLACED_AWAIT = 'await is only valid in async functions and the top level bodies of modules'

function isModuleSource(source) {
  if (!/\b(?:import|export|await)\b/.test(source)) return false
  // Compile it as node's CommonJS loader does, without running it.
  const why = syntaxError(source)
  // The message is the same for "await" in an ordinary function, which a module does not allow either.
  if (why.startsWith(MISPLACED_AWAIT)) return syntaxError(`async () => {${source}\n}`) === ''
  return ONLY_IN_MODULES.some((text) => why.startsWith(text))
}

function syntaxError(source) {
  try {
    vm.compileFunction(source, ['exports', 'require', 'module', '__filename', '__dirname'])
    return ''
  } catch (error) {
    return error.message
  }
}

function detectsModulesItself() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  return major > 22 || (major === 22 && minor >= 7) || (major === 20 && minor >= 19)
}

function readOrNull(file) {
  try {
    return fs.readFileSync(file, 'utf8')
  } catch {
    return null
  }
}

const control = process.env.CODEFORGE_CONTROL_FD
if (control !== undefined) waitForGo(Number(control))

if (process.cwd() === __dirname) process.chdir('/code')

const main = process.argv[1]
if (main && main.endsWith('.js') && !detectsModulesItself()) {
  const settings = path.join(path.dirname(main), 'package.json')
  const source = readOrNull(main)
  if (source !== null && !fs.existsSync(settings) && isModuleSource(source)) {
    fs.writeFileSync(settings, '{"type": "module"}\n')
  }
}
// As with plain `node main.js`.
process.execArgv.length = 0
delete require.cache[__filename]
