import fs, { readFileSync } from 'node:fs'
import * as path from 'path'
import _ from 'lodash'
import helper, { twice, counter, bump } from './helper.mjs'
import cjs from './legacy.cjs'
import { createRequire } from 'module'

const require = createRequire(import.meta.url)
console.log(import.meta.url, Object.keys(import.meta), typeof module, typeof __filename, this)
console.log(helper, twice(4), cjs.kind, require('./data.json'), fs.readFileSync === readFileSync, path.dirname(process.argv[1]))
bump()
console.log(counter, _.chunk([1, 2, 3], 2), (() => arguments === undefined)?.name)
const { default: again } = await import('./helper.mjs')
console.log(again === helper, await import.meta.resolve?.('./x'), require.main, process.mainModule)
for await (const value of (async function* () { yield 1; yield 2 })()) console.log(value)
console.log(process.argv.slice(1), process.execArgv)
export const exported = await Promise.resolve('exported')
export default exported
