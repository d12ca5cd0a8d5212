try {
  require('./bad.json')
} catch (error) {
  console.log(error.message)
}
require('./cycle_a')
require('./absent/thing')
