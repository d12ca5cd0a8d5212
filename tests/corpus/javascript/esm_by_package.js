import { value } from './lib/value.js'
console.log(value, import.meta.url, typeof require)
try {
  __dirname
} catch (error) {
  console.log(error.message)
}
console.log(require)
