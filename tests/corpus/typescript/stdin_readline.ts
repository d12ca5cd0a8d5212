import * as readline from 'readline'

const rl = readline.createInterface({ input: process.stdin })
const sums = new Map<string, number>()

rl.on('line', (line: string): void => {
  const [key = '', amount = '0'] = line.trim().split(/\s+/)
  sums.set(key, (sums.get(key) ?? 0) + Number(amount))
})
rl.on('close', () => {
  console.log([...sums].sort(([a], [b]) => a.localeCompare(b)))
  process.exitCode = sums.size
})
