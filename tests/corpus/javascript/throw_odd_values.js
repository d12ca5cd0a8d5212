const { runInNewContext } = require('vm')
for (const value of [1, 'text', null, undefined, Symbol('s'), [1, 2]]) {
  try {
    throw value
  } catch (caught) {
    console.log(typeof caught, caught === value)
  }
}
try {
  runInNewContext('throw new TypeError("other realm")')
} catch (error) {
  console.log(error instanceof Error, error.name)
}
throw { message: 'an object, not an Error', toString() { return 'custom' } }
