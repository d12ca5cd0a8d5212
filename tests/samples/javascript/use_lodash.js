const _ = require('lodash')
const fp = require('lodash/fp')

const people = [{ name: 'ann', age: 31 }, { name: 'bob', age: 17 }, { name: 'cyd', age: 40 }]
console.log(JSON.stringify(_.groupBy(people, (person) => (person.age < 18 ? 'minor' : 'adult'))))
console.log(JSON.stringify(_.merge({ a: { b: 1 } }, { a: { c: 2 } })), _.chunk([1, 2, 3], 2).length)
console.log(fp.flow(fp.map('age'), fp.sum)(people), _.template('<%= x %>!')({ x: 1 }))
