class Counter {
  static #made = 0
  #count = 0
  static { Counter.ready = true }
  constructor() { Counter.#made++ }
  get #next() { return ++this.#count }
  step() { return this.#next }
  static get made() { return Counter.#made }
  static has(o) { return #count in o }
}
const counter = new Counter()
console.log(counter.step(), counter.step(), Counter.made, Counter.ready, Counter.has(counter), Counter.has({}), counter)
function* spiral() { try { const got = yield 1; console.log('got', got); yield* [2, 3] } finally { console.log('closed') } }
const walk = spiral()
console.log(walk.next(), walk.next('in'), walk.return(9), [...spiral()])
console.log([3, 1, 2].at(-1), Object.fromEntries(new Map([['a', 1]])), 'a-b-c'.replaceAll('-', '+'), structuredClone({ d: new Date(0) }))
const { a = 1, ...rest } = { b: 2, c: 3 }
console.log(a, rest, null ?? 'default', rest?.x?.y, 2n ** 64n, 0.1 + 0.2, [10, 9, 1].sort(), typeof null, [] + {}, [1, 2, 3].findLast(n => n < 3))
console.log(Symbol.for('k').description, Reflect.ownKeys({ 2: 0, 1: 0, b: 0, [Symbol.iterator]: 0 }), new WeakRef(counter).deref() === counter)
console.log(new Intl.NumberFormat('de-DE', { style: 'currency', currency: 'EUR' }).format(1234567.891), (1e6).toLocaleString())
console.log(new Intl.DateTimeFormat('uk', { dateStyle: 'full', timeZone: 'Europe/Kyiv' }).format(0), new Intl.PluralRules('pl').select(3))
console.log(['ä', 'a', 'z'].sort(new Intl.Collator('sv').compare), new Date(2024, 0, 31).toString(), new Date(0).toLocaleString())
label: for (const x of [1, 2]) for (const y of [1, 2]) { if (y === 2) continue label; console.log(x, y) }
console.log(/(?<year>\d{4})/u.exec('in 2024').groups.year, 'x'.padStart(3, 'ab'), [..."a1b2".matchAll(/\d/g)].map(m => m.index))
console.log((function () { return typeof this })(), (function () { 'use strict'; return typeof this })(), eval('1;;;'), new Function('a', 'return a * 2')(4))
