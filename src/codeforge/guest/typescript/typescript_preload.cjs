'use strict'
// Prepares ts-node while the worker waits: loads its modules and the compiler, parses and binds the
// declaration files of the standard library and of node, and makes V8 compile what checking types
// takes. When the program arrives, node starts ts-node itself, unmodified.
//
// It gets two things from here. Loaded modules return to node's cache when ts-node asks for the first
// one. And the compiler's language service, which ts-node makes with a host of its own, is the one that
// has the declaration files already, now with that host: editors do the same whenever a file changes.
// If ts-node gets other compiler options than the image's, it makes a new service, as usual.
//
// Node must not look anything up in /code here: it would remember what it did not find.

const fs = require('fs')
const path = require('path')
const Module = require('module')

const PROGRAM = '/code/main.ts'
const PACKAGES = '/node_modules/' // of the image; these files do not change
const SAMPLE = path.join(__dirname, 'typescript_sample.ts')
const TS_NODE_HAS_STARTED = Symbol.for('ts-node.register.instance')

const loadedBefore = new Set(Object.keys(require.cache))
// Requires modules as ts-node's main module does. It is not run, and not the one that node will load.
const tsNode = new Module(fs.realpathSync(process.argv[1]))
let ts // the compiler
let createService // the compiler's own function
let compile // of a ts-node that did everything except register itself
let warm // the service of that ts-node, until the real one takes it

exports.typescript = function () {
  tsNode.load(tsNode.id)
  tsNode.require('arg')
  // Else ts-node writes a code cache of the compiler to /tmp.
  process.env.DISABLE_V8_COMPILE_CACHE = '1'
  try {
    const { compiler } = tsNode.require('./configuration').resolveAndLoadCompiler(undefined, '/')
    ts = withReplaceable(require.cache[compiler], 'createLanguageService')
    createService = ts.createLanguageService
  } finally {
    delete process.env.DISABLE_V8_COMPILE_CACHE
  }
}

exports.libraries = function () {
  ts.createLanguageService = (host, registry) => {
    warm = new WarmService(host, registry)
    return warm.service
  }
  try {
    const options = { cwd: path.dirname(PROGRAM), projectSearchDir: '/', pretty: false }
    compile = withoutSourceMaps(() => tsNode.require('./index').create(options)).compile
  } finally {
    ts.createLanguageService = handOver
  }
  warm.withoutTypes(() => compile('', PROGRAM))
}

exports.types = function () {
  compile('export {}', PROGRAM)
}

exports.check = function () {
  compile(fs.readFileSync(SAMPLE, 'utf8'), PROGRAM)
}

exports.go = function () {
  compile = undefined
  // Then ts-node makes no service, and this one would only take memory.
  if (process.argv.includes('--transpile-only')) forget()
  putAsideModules()
}

function handOver(host, registry, mode) {
  const ready = warm
  forget()
  if (TS_NODE_HAS_STARTED in process || !ready?.suits(host)) return createService(host, registry, mode)
  return ready.moveTo(host)
}

function forget() {
  warm = undefined
  if (ts) ts.createLanguageService = createService
}

class WarmService {
  constructor(host, registry) {
    this.first = host
    // Versions that no later host has: to the compiler, the program changes when the host does.
    this.host = {
      __proto__: host,
      getProjectVersion: () => `preload ${host.getProjectVersion()}`,
      getScriptVersion: (name) => (isOfImage(name) ? '' : 'preload ') + host.getScriptVersion(name),
    }
    const behind = new Proxy({}, { get: (_, name) => this.host[name] })
    this.service = createService(behind, registry)
  }

  // Without "types" the compiler leaves out node's declarations, two thirds of the work.
  withoutTypes(work) {
    const settings = { ...this.first.getCompilationSettings(), types: [] }
    this.host.getCompilationSettings = () => settings
    try {
      work()
    } finally {
      delete this.host.getCompilationSettings
    }
  }

  suits(host) {
    const known = (host) => JSON.stringify([host.getCurrentDirectory(), host.getCompilationSettings()])
    return known(host) === known(this.first)
  }

  moveTo(host) {
    const reader = (name) => (isOfImage(name) ? this.first : host)
    this.host = {
      __proto__: host,
      getScriptSnapshot: (name) => reader(name).getScriptSnapshot(name),
      getScriptVersion: (name) => reader(name).getScriptVersion(name),
    }
    return this.service
  }
}

function isOfImage(name) {
  return name.startsWith(PACKAGES)
}

// The compiler exports getters, which cannot be replaced.
function withReplaceable(module, name) {
  const exported = Object.getOwnPropertyDescriptors(module.exports)
  exported[name] = { value: module.exports[name], writable: true, enumerable: true, configurable: true }
  module.exports = Object.defineProperties({}, exported)
  return module.exports
}

// ts-node installs its source maps for the whole process when it is made. That happens later, once.
function withoutSourceMaps(make) {
  const index = require.cache[path.join(path.dirname(tsNode.id), 'index.js')]
  const support = index.require('@cspotcode/source-map-support')
  const { install } = support
  support.install = () => {}
  try {
    return make()
  } finally {
    support.install = install
  }
}

// Hides the loaded modules until ts-node asks for the first; then all appear, as if it had loaded them.
function putAsideModules() {
  const names = Object.keys(require.cache).filter((name) => !loadedBefore.has(name))
  const modules = names.map((name) => require.cache[name])
  if (modules.length === 0) return
  for (const name of names) delete require.cache[name]
  const [first] = modules
  const get = () => {
    delete require.cache[first.id]
    for (const module of modules) putBack(module)
    return first
  }
  Object.defineProperty(require.cache, first.id, { get, configurable: true })
}

function putBack(module) {
  require.cache[module.id] = module
  if (module.parent === tsNode) module.parent = process.mainModule
}
