class DatabaseError extends Error {
  constructor(message, options) {
    super(message, options)
    this.name = 'DatabaseError'
    this.code = 'E_DB'
    this.query = { table: 'users', limit: 1 }
  }
}
const low = new TypeError('socket closed')
console.error(new DatabaseError('query failed', { cause: low }))
console.log(String(new DatabaseError('x')), Object.keys(new DatabaseError('y')))
const frozen = Object.freeze([1])
try {
  'use strict'
  frozen.push(2)
} catch (error) {
  console.log(error.message)
}
throw new AggregateError([new Error('one', { cause: low }), 'two'], 'several failed')
