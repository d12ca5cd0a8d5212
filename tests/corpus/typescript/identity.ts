// What the program is, as it sees it.
import fs from 'fs'

console.log(require.main === module, module.id, module.filename, module.parent, module.children.length)
console.log(__filename, __dirname, module.paths, process.cwd(), process.title)
console.log(process.argv, process.argv0, process.execArgv, process.execPath)
console.log(fs.readdirSync('.'), process.env.NODE_OPTIONS, process.env.TS_NODE_PROJECT)
console.log(Object.keys(process.env).sort().join())
console.log(new Error('whole stack').stack)
console.log(Object.keys(require.extensions), process.eventNames(), process.exitCode)
const names: string[] = []
for (const key of Object.getOwnPropertyNames(globalThis)) names.push(key)
console.log(names.sort().join())
console.log(Object.keys(require.cache).length, Object.keys(require.cache)[0])
