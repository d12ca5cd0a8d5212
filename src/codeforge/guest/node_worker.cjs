'use strict'
// Preloaded (node --require) before every JavaScript and TypeScript program. Two jobs:
//
// 1. Wait, if init started this process as a worker: read argv and environment from the control
//    pipe, then return; node goes on to load the main program by itself, as if just started.
// 2. If the main program is a .js file written as an ES module, have node load it as one. Node 18
//    decides by the nearest package.json alone and reads each package.json once: so one with
//    "type": "module" is put beside the program, node is made to read it, and it is taken away
//    again before the program starts. Newer versions of node detect ES modules themselves.

const fs = require('fs')
const path = require('path')
const vm = require('vm')
const Module = require('module')

function waitForGo(control) {
  delete process.env.CODEFORGE_CONTROL_FD
  const message = fs.readFileSync(control).toString()
  fs.closeSync(control)
  if (message === '') process.exit(0) // init is gone
  const strings = message.split('\0')
  const count = Number(strings[0])
  const argv = strings.slice(1, 1 + count)
  // argv is: node --require THIS main.js ...; process.argv[1] stays what node made of it.
  const program = argv.slice(argv.indexOf(__filename) + 1)
  process.argv.splice(1, process.argv.length, ...program)
  for (const variable of strings.slice(1 + count, -1)) {
    const at = variable.indexOf('=')
    process.env[variable.slice(0, at)] = variable.slice(at + 1)
  }
}

const ONLY_IN_MODULES = [
  'Cannot use import statement outside a module',
  "Unexpected token 'export'",
  "Cannot use 'import.meta' outside a module",
  'await is only valid in async functions and the top level bodies of modules',
]

function isModuleSource(source) {
  if (!/\b(?:import|export|await)\b/.test(source)) return false
  try {
    // What node's own CommonJS loader does, without running it.
    vm.compileFunction(source, ['exports', 'require', 'module', '__filename', '__dirname'])
    return false
  } catch (error) {
    return error instanceof SyntaxError && ONLY_IN_MODULES.some((text) => error.message.startsWith(text))
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

function loadAsModule(main) {
  const file = path.join(path.dirname(main), 'package.json')
  const kept = file + '.codeforge'
  const theirs = readOrNull(file)
  const settings = theirs === null ? {} : JSON.parse(theirs)
  if ('type' in settings) return
  if (theirs !== null) fs.renameSync(file, kept)
  try {
    fs.writeFileSync(file, JSON.stringify({ ...settings, type: 'module' }))
    Module.createRequire(main).resolve('./' + path.basename(main)) // node reads package.json, and keeps it
  } finally {
    if (theirs !== null) fs.renameSync(kept, file)
    else fs.unlinkSync(file)
  }
}

const control = process.env.CODEFORGE_CONTROL_FD
if (control !== undefined) waitForGo(Number(control))

const main = process.argv[1]
let asModule = false
if (main && main.endsWith('.js') && !detectsModulesItself()) {
  const source = readOrNull(main)
  asModule = source !== null && isModuleSource(source)
  if (asModule) loadAsModule(main)
}
// What plain `node main.js` shows. An ES module keeps the flag: processes it forks need this file too.
if (!asModule) process.execArgv.length = 0
