// What a program that is compiled first could do while it is compiled, and after.
import * as dns from 'node:dns'
import * as fs from 'node:fs'
import * as net from 'node:net'

const CONNECT_MS = 1000
const UNREACHABLE = ['ENETUNREACH', 'EHOSTUNREACH']
const SIGNALS: NodeJS.Signals[] = ['SIGKILL', 'SIGTERM', 'SIGINT', 'SIGSTOP', 'SIGUSR1', 'SIGSEGV']
const INIT_FILES = ['mem', 'environ', 'maps', 'fd/0', 'fd/1', 'root/etc/passwd']
const OWN = ['/code', '/dev/shm', '/tmp']
const PASSED = ['/proc', '/sys', '/node_modules']
const MARK = 'codeforge-audit-was-here'

const attempt = (action: () => unknown): string => {
  try {
    action()
    return 'allowed'
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error)
  }
}

// The distinct answers among these, as one text.
const distinct = (answers: string[]): string => [...new Set(answers)].sort().join(', ')

const connect = (host: string, port: number): Promise<string> =>
  new Promise((resolve) => {
    const client = net.connect({ host, port, timeout: CONNECT_MS })
    const done = (answer: string): void => {
      client.destroy()
      resolve(answer)
    }
    client.on('connect', () => done('allowed'))
    client.on('timeout', () => done('timeout'))
    client.on('error', (error: NodeJS.ErrnoException) =>
      done(UNREACHABLE.includes(error.code ?? '') ? 'unreachable' : String(error.code)),
    )
  })

const lookup = (name: string): Promise<string> =>
  new Promise((resolve) => dns.lookup(name, (error) => resolve(error ? 'unresolved' : 'allowed')))

const writable = (folder = '/'): string[] => {
  const found: string[] = []
  const at = `${folder === '/' ? '' : folder}/${MARK}`
  if (attempt(() => (fs.mkdirSync(at), fs.rmdirSync(at))) === 'allowed') found.push(folder)
  let entries: fs.Dirent[] = []
  try {
    entries = fs.readdirSync(folder, { withFileTypes: true })
  } catch {
    return found
  }
  for (const entry of entries) {
    const inner = `${folder === '/' ? '' : folder}/${entry.name}`
    if (entry.isDirectory() && !PASSED.includes(inner)) found.push(...writable(inner))
  }
  return found
}

const becomeAnother = (): string =>
  distinct([() => process.setuid?.(0), () => process.setgid?.(0), () => process.setgroups?.([0])].map(attempt))

const openShared = (): string => {
  const shared = [process.execPath, '/usr/bin/env', '/opt/codeforge/init', '/opt/codeforge/node_worker.cjs']
  return distinct(shared.map((name) => attempt(() => fs.openSync(name, 'r+'))))
}

const main = async (): Promise<void> => {
  const status = fs.readFileSync('/proc/self/status', 'utf8')
  const sets = status.match(/^Cap\w+:\t\w+$/gm) ?? []
  const places = writable()
  const observed: Record<string, string> = {
    capabilities: sets.filter((line) => !/:\t0+$/.test(line)).join(' ') || 'none',
    setuid: becomeAnother(),
    'signals to init': distinct(SIGNALS.map((name) => attempt(() => process.kill(1, name)))),
    "init's files": distinct(INIT_FILES.map((name) => attempt(() => fs.openSync(`/proc/1/${name}`, 'r')))),
    'compiler written': attempt(() => fs.writeFileSync('/node_modules/typescript/package.json', '')),
    'settings written': attempt(() => fs.writeFileSync('/tsconfig.json', '')),
    'files of the image': openShared(),
    writable: places.filter((at) => !OWN.some((own) => at === own || at.startsWith(`${own}/`))).join(', ') || 'none else',
    'own places': OWN.filter((own) => places.includes(own)).join(', '),
    'metadata services': await connect('169.254.169.254', 80),
    internet: await connect('1.1.1.1', 443),
    names: await lookup('metadata.google.internal'),
  }
  console.log(JSON.stringify(observed))
}

void main()
