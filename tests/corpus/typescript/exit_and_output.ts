import { EventEmitter } from 'events'
import { writeFileSync, readFileSync } from 'node:fs'

interface Events { tick: [number] }
class Clock extends EventEmitter {
  fire(...args: Events['tick']): boolean { return this.emit('tick', ...args) }
}

const clock = new Clock()
clock.on('tick', (n: number) => process.stderr.write(`tick ${n}\n`))
console.log(clock.fire(1), typeof Buffer.from('x').readUInt8(0), process.env.GREETING)
writeFileSync('out.bin', Buffer.from([0, 255, 10]))
process.stdout.write(readFileSync('out.bin'))
process.stdout.write('x'.repeat(10_000) + '\n')
process.on('exit', (code: number): void => {
  console.error('exit', code)
  process.exit(code + 1)
})
process.exit(40)
