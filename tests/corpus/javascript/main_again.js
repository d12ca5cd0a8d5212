// Loads itself: the cache gives the unfinished module.
exports.early = true
const self = require('./main')
console.log(self === exports, self.early, module.loaded)
exports.late = true
process.nextTick(() => console.log('tick', module.loaded))
delete require.cache[__filename]
if (!globalThis.twice) {
  globalThis.twice = true
  console.log(require('./main.js') === exports, require.main === module)
}
module.exports = { replaced: true }
return
