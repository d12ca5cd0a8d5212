enum Colour { Red, Green = 1 << 4, Blue }
const enum Fixed { One = 1, Two }
enum Words { Yes = 'YES', No = 'NO' }

interface Shape { readonly kind: string; area(): number; scale?: (factor: number) => Shape }

abstract class Base implements Shape {
  static made = 0
  #secret = 42
  protected constructor(public readonly kind: string, private tags: string[] = []) { Base.made++ }
  abstract area(): number
  get secret(): number { return this.#secret }
  describe(): string { return `${this.kind}:${this.area().toFixed(2)}:${this.tags.join('|')}` }
}

class Circle extends Base {
  constructor(private radius: number) { super('circle', ['round']) }
  override area(): number { return Math.PI * this.radius ** 2 }
}

namespace Geometry {
  export const unit = 'cm'
  export namespace Deep { export function label(shape: Shape): string { return `${shape.kind} in ${unit}` } }
}

type Result<T> = { ok: true; value: T } | { ok: false; error: string }
function unwrap<T>(result: Result<T>): T {
  if (result.ok) return result.value
  throw new Error(result.error)
}
function first<T, K extends keyof T>(items: readonly T[], key: K): T[K] | undefined { return items[0]?.[key] }
function overloaded(value: string): string
function overloaded(value: number): number
function overloaded(value: string | number): string | number { return value }
function isText(value: unknown): value is string { return typeof value === 'string' }

const settings = { port: 80, hosts: ['a', 'b'] } as const satisfies { port: number; hosts: readonly string[] }
type Names = Uppercase<(typeof settings.hosts)[number]>
const names: Record<Names, Partial<Shape>> = { A: {}, B: { kind: 'b' } }
const tuple: [string, ...number[]] = ['t', 1, 2]
const circle: Shape = new Circle(2)

console.log(Colour, Colour[0], Colour.Blue, Fixed.Two, Words.No, circle, Base.made)
console.log((circle as Circle).describe(), (circle as Circle).secret, Geometry.Deep.label(circle), circle.scale?.(2))
console.log(unwrap({ ok: true, value: 3 }), first([{ a: 1 }], 'a'), overloaded('x'), isText(1), names, tuple, settings)
const bag: Map<string, Set<bigint>> = new Map([['k', new Set([1n])]])
console.log(bag, [...bag.keys()].at(-1), Object.entries({ x: 1 })!.length, <unknown>null, (settings.hosts.at(5) ?? 'default') satisfies string)
for (const [index, letter] of Array.from('ab').entries()) console.log(index, letter)
declare const never: string
console.log(typeof never)
