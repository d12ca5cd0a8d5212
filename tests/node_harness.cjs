'use strict'
// Plays init inside a Node image: runs a program once as a plain process, and once in a worker that
// preloads and then gets "go". Reads a JSON object from stdin:
//
//   plain    command line of the plain process, or null for no plain run
//   worker   command line of the worker
//   preload  steps, in order
//   go       whether to send "go" then, or to close the socket
//   args     arguments of the program
//   env      variables of the program
//   files    path below /code -> text
//   plainFiles
//            further files, for the plain process only
//   stdin    text
//
// and writes the outcomes as JSON, {plain, worker}, each {stdout, stderr, status, signal}. That of the
// worker also has stepCpuMs for each step, and cpuMs and pssMib just before "go".

const fs = require('fs')
const path = require('path')
const { spawn } = require('child_process')
const { once } = require('events')

const CODE = '/code'
const GUEST = '/opt/codeforge'
const HEAD_BYTES = 5

function frame(type, text = '') {
  const payload = Buffer.from(text)
  const head = Buffer.alloc(HEAD_BYTES)
  head.writeUInt32LE(payload.length)
  head.write(type, 4)
  return Buffer.concat([head, payload])
}

function layOut(files) {
  for (const name of fs.readdirSync(CODE)) fs.rmSync(path.join(CODE, name), { recursive: true })
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(CODE, name)), { recursive: true })
    fs.writeFileSync(path.join(CODE, name), text)
  }
}

function gather(stream) {
  const pieces = []
  stream.on('data', (piece) => pieces.push(piece))
  return () => Buffer.concat(pieces).toString()
}

async function outcome(child) {
  const stdout = gather(child.stdout)
  const stderr = gather(child.stderr)
  const [closed, exited] = [once(child, 'close'), once(child, 'exit')]
  const [status, signal] = await exited
  await closed
  return { stdout: stdout(), stderr: stderr(), status, signal }
}

function runPlain(spec) {
  layOut({ ...spec.files, ...spec.plainFiles })
  const [program, ...args] = [...spec.plain, ...spec.args]
  const child = spawn(program, args, { cwd: CODE, env: { ...process.env, ...spec.env } })
  child.stdin.on('error', () => {}) // it may have ended
  child.stdin.end(spec.stdin)
  return outcome(child)
}

async function runInWorker(spec) {
  layOut({})
  const env = { ...process.env, CODEFORGE_CONTROL_FD: '3' }
  const [program, ...args] = spec.worker
  const child = spawn(program, args, { cwd: GUEST, env, stdio: ['pipe', 'pipe', 'pipe', 'pipe'] })
  const control = child.stdio[3]
  const ended = outcome(child)
  const stepCpuMs = {}
  for (const step of spec.preload) {
    const before = cpuMsOf(child.pid)
    await preload(control, step)
    stepCpuMs[step] = cpuMsOf(child.pid) - before
  }
  const pssMib = Number(/^Pss: +(\d+)/m.exec(fs.readFileSync(`/proc/${child.pid}/smaps_rollup`))[1]) >> 10
  layOut(spec.files)
  const argv = [...spec.worker, ...spec.args]
  const variables = Object.entries(spec.env).map(([key, value]) => `${key}=${value}`)
  const cpuMs = cpuMsOf(child.pid)
  if (spec.go) control.write(frame('g', [argv.length, ...argv, ...variables, ''].join('\0')))
  else control.destroy()
  child.stdin.on('error', () => {}) // it may have ended
  child.stdin.end(spec.stdin)
  return { ...(await ended), stepCpuMs, cpuMs, pssMib }
}

async function preload(control, step) {
  control.write(frame('p', step))
  const [reply] = await once(control, 'data')
  if (!reply.equals(frame('P'))) throw new Error(`the worker answered ${reply.toString('hex')} to ${step}`)
}

// User and system time, in hundredths of a second: the fields utime and stime of /proc/PID/stat.
function cpuMsOf(pid) {
  const fields = fs.readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').pop().split(' ')
  return 10 * (Number(fields[11]) + Number(fields[12]))
}

async function main() {
  const spec = JSON.parse(fs.readFileSync(0))
  const plain = spec.plain ? await runPlain(spec) : null
  const worker = await runInWorker(spec)
  console.log(JSON.stringify({ plain, worker }))
}

main()
