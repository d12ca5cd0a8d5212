'use strict'
const attempts = {
  call: () => undefined.foo(),
  notFunction: () => ({}).missing(),
  constant: () => { const fixed = 1; fixed = 2 },
  undeclared: () => { leaked = 1 },
  bigint: () => 1n + 1,
  circular: () => { const self = { a: {} }; self.a.self = self; return JSON.stringify(self) },
  iterate: () => { const [x] = {} },
  frozen: () => { Object.freeze({ a: 1 }).a = 2 },
  json: () => JSON.parse('not json'),
  regexp: () => new RegExp('('),
  date: () => new Date(NaN).toISOString(),
  precision: () => (1).toFixed(101),
  symbol: () => `${Symbol('s')}`,
  privateField: () => { class A { #x; static read(o) { return o.#x } } return A.read({}) },
  tdz: () => { use; let use },
  proxy: () => { const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); return proxy.x },
  require: () => require('./absent'),
  fs: () => require('fs').readFileSync('/absent'),
  url: () => new URL('not a url'),
  argument: () => Buffer.alloc('x'),
  assertion: () => require('assert').deepStrictEqual({ a: 1, b: [1, 2] }, { a: 1, b: [1, 3] }),
}
for (const [name, attempt] of Object.entries(attempts)) {
  try {
    attempt()
    console.log(name, 'passed')
  } catch (error) {
    console.log(name, error.name, error.code, error.message)
  }
}
require('assert').strictEqual(1 + 1, 3)
