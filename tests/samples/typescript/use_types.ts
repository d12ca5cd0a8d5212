import { EventEmitter } from 'node:events'
import * as fs from 'fs'
import path from 'path'
import { Stack } from './suite/stack'

interface Shape { kind: 'circle' | 'square'; size: number }
enum Colour { Red, Green }
const area = ({ kind, size }: Shape): number => (kind === 'square' ? size ** 2 : Math.PI * size ** 2)
const first = <T>(items: readonly T[]): T | undefined => items[0]

class Bell extends EventEmitter {
  constructor(private readonly sound: string) { super() }
  ring(): void { this.emit('ring', this.sound) }
}

const bell = new Bell('ding')
bell.on('ring', (sound: string) => console.log(sound, Colour[Colour.Green]))
bell.ring()
const stack = new Stack<number>()
stack.push(area({ kind: 'square', size: 3 }))
const buffer: Buffer = fs.readFileSync(path.join(__dirname, 'script.ts'))
console.log(stack.pop(), first(['a'])?.toUpperCase(), buffer.length > 0)
