type DeepReadonly<T> = { readonly [K in keyof T]: T[K] extends object ? DeepReadonly<T[K]> : T[K] }
type Path<T> = T extends object ? { [K in keyof T & string]: K | `${K}.${Path<T[K]> & string}` }[keyof T & string] : never
type ElementOf<T> = T extends readonly (infer U)[] ? U : never

interface Config { server: { host: string; ports: number[] }; debug: boolean }

function get<C extends object>(config: C, path: Path<C>): unknown {
  return path.split('.').reduce<unknown>((value, key) => (value as Record<string, unknown>)[key], config)
}

function logged<This, Args extends unknown[], Out>(
  method: (this: This, ...args: Args) => Out,
  context: ClassMethodDecoratorContext<This, (this: This, ...args: Args) => Out>,
) {
  return function (this: This, ...args: Args): Out {
    console.log('call', String(context.name), args)
    return method.apply(this, args)
  }
}

class Stack<T> implements Iterable<T> {
  private items: T[] = []
  @logged
  push(item: T): this { this.items.push(item); return this }
  *[Symbol.iterator](): Iterator<T> { for (let n = this.items.length - 1; n >= 0; n--) yield this.items[n]! }
  static of<U>(...items: U[]): Stack<U> { return items.reduce((stack, item) => stack.push(item), new Stack<U>()) }
}

const config: DeepReadonly<Config> = { server: { host: 'h', ports: [1, 2] }, debug: true }
const port: ElementOf<Config['server']['ports']> = 3
console.log(get<Config>({ server: { host: 'h', ports: [] }, debug: false }, 'server.host'), config, port)
console.log([...Stack.of(1, 2, 3)], Math.max(...Stack.of(4, 5)))
function exhaustive(value: never): never { throw new Error(`unexpected ${JSON.stringify(value)}`) }
const kind = JSON.parse('"other"') as 'a' | 'b'
switch (kind) {
  case 'a': break
  case 'b': break
  default: exhaustive(kind)
}
