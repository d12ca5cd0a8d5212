function descend(n) { return descend(n + 1) + 1 }
try {
  descend(0)
} catch (error) {
  console.log(error.name, error.message, error.stack.split('\n').length)
}
const nested = JSON.parse('['.repeat(5000) + ']'.repeat(5000))
console.log(nested.length)
Error.stackTraceLimit = 3
descend(0)
