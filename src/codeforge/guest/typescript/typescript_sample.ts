// Warms up the type checker with the language's common constructs and node's common modules.
import * as fs from 'fs'
import * as path from 'path'
import { EventEmitter } from 'events'
import { createHash } from 'crypto'
import http from 'http'
import { readFile } from 'fs/promises'
import { promisify } from 'util'

interface Item<T = unknown> {
  readonly name: string
  size: number
  tags?: string[]
  value?: T
}

type Shape = { kind: 'circle'; radius: number } | { kind: 'square'; side: number }
type Keys<T> = { [K in keyof T]-?: T[K] extends string ? K : never }[keyof T]

enum Level {
  Low = 1,
  High,
}

abstract class Store<T extends Item> extends EventEmitter implements Iterable<T> {
  static count = 0
  protected items = new Map<string, T>()

  constructor(private readonly level: Level = Level.Low) {
    super()
    Store.count++
  }

  add(item: T): this {
    this.items.set(item.name, item)
    this.emit('added', item, this.level)
    return this
  }

  get total(): number {
    return [...this.items.values()].reduce((sum, { size }) => sum + size, 0)
  }

  *[Symbol.iterator](): Iterator<T> {
    yield* this.items.values()
  }

  abstract load(directory: string): Promise<number>
}

class Files extends Store<Item<Buffer>> {
  async load(directory: string): Promise<number> {
    const names = await fs.promises.readdir(directory)
    await Promise.all(
      names.map(async (name) => {
        const file = path.join(directory, name)
        const value = await readFile(file)
        this.add({ name, size: fs.statSync(file).size, tags: [path.extname(name)], value })
      }),
    )
    return names.length
  }
}

function area(shape: Shape): number {
  switch (shape.kind) {
    case 'circle':
      return Math.PI * shape.radius ** 2
    case 'square':
      return shape.side ** 2
  }
}

function pick<T extends object, K extends keyof T>(from: T, ...keys: K[]): Pick<T, K> {
  return Object.fromEntries(keys.map((key) => [key, from[key]])) as Pick<T, K>
}

function isItem(value: unknown): value is Item {
  return typeof value === 'object' && value !== null && 'name' in value
}

const named: Keys<Item> = 'name'
const later = promisify(setTimeout)
const fibonacci = (n: number): number => (n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2))
const groups: Record<string, number[]> = {}
for (const n of Array.from({ length: 10 }, (_, i) => i)) (groups[n % 2 ? 'odd' : 'even'] ??= []).push(n)

const store = new Files(Level.High)
store.on('added', (item: Item) => console.log(`added ${item.name}`))
const server = http.createServer((request, response) => response.end(JSON.stringify({ url: request.url })))

export async function main(): Promise<void> {
  try {
    const count = await store.load(process.argv[2] ?? '.')
    const digest = createHash('sha256').update(String(count)).digest('hex').slice(0, 8)
    console.log(count, digest, store.total, [...store].filter(isItem).length, Object.entries(groups))
    console.log(pick({ a: 1, b: 'two' }, 'a').a, area({ kind: 'circle', radius: 1 }), named.length)
    console.log(fibonacci(10), new Set([1, 2, 2]).size, Buffer.from('text').toString('base64'))
    await later(1)
  } catch (error) {
    console.error(error instanceof Error ? error.message : error)
    process.exitCode = 1
  } finally {
    server.close()
  }
}
