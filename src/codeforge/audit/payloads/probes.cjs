'use strict'
// What Node itself offers to a hostile program; the programs in Python make the system calls.
const dns = require('node:dns')
const fs = require('node:fs')
const net = require('node:net')
const os = require('node:os')
const path = require('node:path')
const { spawnSync } = require('node:child_process')
const { Worker } = require('node:worker_threads')

const CONNECT_MS = 1000
const REFUSED_WITHIN_MS = 2000
const SIGNALS = ['SIGKILL', 'SIGTERM', 'SIGINT', 'SIGSTOP', 'SIGUSR1', 'SIGSEGV']
const UNREACHABLE = new Set(['ENETUNREACH', 'EHOSTUNREACH', 'EADDRNOTAVAIL'])

const attempt = (action) => {
  try {
    action()
    return 'allowed'
  } catch (error) {
    return error.code ?? error.name
  }
}

// The distinct answers among these, as one text.
const distinct = (answers) => [...new Set(answers)].sort().join(', ')

const connect = (host, port) =>
  new Promise((resolve) => {
    const client = net.connect({ host, port, timeout: CONNECT_MS })
    const done = (answer) => {
      client.destroy()
      resolve(answer)
    }
    client.on('connect', () => done('allowed'))
    client.on('timeout', () => done('timeout'))
    client.on('error', (error) => done(UNREACHABLE.has(error.code) ? 'unreachable' : error.code))
  })

const lookup = (name) =>
  new Promise((resolve) => dns.lookup(name, (error) => resolve(error ? 'unresolved' : 'allowed')))

// What the network answers, and 'slow' before it if the refusals did not come at once.
const network = async () => {
  const started = Date.now()
  const observed = {
    'metadata services': await connect('169.254.169.254', 80),
    internet: await connect('1.1.1.1', 443),
    host: await connect('172.17.0.1', 22),
    names: distinct([await lookup('example.com'), await lookup('metadata.google.internal')]),
  }
  return { ...observed, refusals: Date.now() - started < REFUSED_WITHIN_MS ? 'at once' : 'slow' }
}

const listInterfaces = () => {
  try {
    return Object.keys(os.networkInterfaces()).sort().join(', ')
  } catch (error) {
    return error.code // it asks by netlink, which is refused
  }
}

const walk = function* (folder) {
  let entries = []
  try {
    entries = fs.readdirSync(folder, { withFileTypes: true })
  } catch {
    return
  }
  for (const entry of entries) {
    const at = path.join(folder, entry.name)
    yield [at, entry]
    if (entry.isDirectory() && at !== '/proc' && at !== '/sys') yield* walk(at)
  }
}

const MARK = 'codeforge-audit-was-here'

const makeFile = (folder) => {
  const file = path.join(folder, MARK)
  fs.closeSync(fs.openSync(file, 'wx'))
  fs.unlinkSync(file)
}

const makeFolder = (folder) => {
  fs.mkdirSync(path.join(folder, MARK))
  fs.rmdirSync(path.join(folder, MARK))
}

const isWritable = (folder) => [makeFile, makeFolder].some((make) => attempt(() => make(folder)) === 'allowed')

const mounts = fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n').filter(Boolean).map((line) => line.split(' '))

// Whether the kernel ignores set-user-id bits there: the last mount of the longest path counts.
const isWithoutSetuid = (at) => {
  const around = mounts.filter(([, , , , point]) => point === '/' || at === point || at.startsWith(`${point}/`))
  const longest = Math.max(...around.map(([, , , , point]) => point.length))
  const options = around.filter(([, , , , point]) => point.length === longest).at(-1)?.[5] ?? ''
  return options.split(',').includes('nosuid')
}

const files = () => {
  const written = []
  const privileged = []
  for (const [at, entry] of walk('/')) {
    if (entry.isDirectory()) {
      if (isWritable(at)) written.push(at)
    } else if (entry.isFile() && attempt(() => fs.lstatSync(at)) === 'allowed') {
      if (fs.lstatSync(at).mode & 0o6000 && !isWithoutSetuid(at)) privileged.push(at)
    }
  }
  if (isWritable('/')) written.push('/')
  const own = ['/code', '/dev/shm', '/tmp'].filter((place) => written.includes(place))
  const others = written.filter((at) => !/^\/(code|tmp|dev\/shm|dev\/mqueue)(\/|$)/.test(at))
  return {
    writable: others.join(', ') || 'none else',
    'own places': own.join(', '),
    'setuid files': privileged.join(', ') || 'none',
  }
}

const INIT_FILES = ['mem', 'environ', 'maps', 'fd/0', 'fd/1', 'root/etc/passwd', 'cwd/main.js']

const openOfInit = () => distinct(INIT_FILES.map((name) => attempt(() => fs.openSync(`/proc/1/${name}`))))

const signalInit = () => distinct(SIGNALS.map((name) => attempt(() => process.kill(1, name))))

const becomeAnother = () =>
  distinct([() => process.setuid(0), () => process.setgid(0), () => process.setgroups([0])].map(attempt))

// Files of the image that every run executes.
const SHARED = [process.execPath, '/usr/bin/env', '/opt/codeforge/init', '/opt/codeforge/node_worker.cjs']

const openShared = () => distinct(SHARED.map((name) => attempt(() => fs.openSync(name, 'r+'))))

const program = () => {
  fs.writeFileSync('/tmp/program', '#!/bin/sh\n', { mode: 0o700 })
  const { error } = spawnSync('/tmp/program')
  if (error) throw error
}

const status = fs.readFileSync('/proc/self/status', 'utf8')
const kept = [...status.matchAll(/^(Cap\w+):\t(\w+)$/gm)].filter(([, , bits]) => BigInt(`0x${bits}`) !== 0n)

const fewer = status.includes('Seccomp_filters') ? 'fewer than 2' : 'not reported'

const main = async () => {
  const observed = {
    capabilities: kept.map(([, name]) => name).join(' ') || 'none',
    'no_new_privs': /^NoNewPrivs:\t(\d)/m.exec(status)?.[1] ?? 'not reported', // by gVisor
    filters: Number(/^Seccomp_filters:\t(\d+)/m.exec(status)?.[1] ?? NaN) >= 2 ? '2 or more' : fewer,
    setuid: becomeAnother(),
    'signals to init': signalInit(),
    "init's files": openOfInit(),
    'oom score of init': attempt(() => fs.writeFileSync('/proc/1/oom_score_adj', '1000')),
    'priority of init': attempt(() => os.setPriority(1, 19)).replace('ERR_SYSTEM_ERROR', 'EPERM'),
    executed: attempt(program),
    'worker thread': attempt(() => new Worker('', { eval: true }).unref()),
    interfaces: fs.readFileSync('/proc/net/dev', 'utf8').match(/[^:\s]+(?=:)/g).sort().join(', '),
    'interfaces listed': listInterfaces(),
    ...(await network()),
    'files of the image': openShared(),
    secrets: Object.keys(process.env).filter((name) => /canary|secret|token/i.test(name)).join(', ') || 'none',
    ...files(),
  }
  console.log(JSON.stringify(observed))
}

main()
