// Not an ES module, whatever a glance at it says:
// import fs from 'fs'
/*
import { readFile } from 'fs'
export default 1
*/
const template = `
import os from 'os'
export const x = ${JSON.stringify('export default 2')}
`
const pattern = /^import .* from '.*'$/m
var await = 1, exported = "export { y }", async = 2
import('./helper.mjs').then(helper => console.log(helper.default, helper.named))
with ({ inside: 'sloppy mode only' }) console.log(inside)
console.log(typeof require, template.trim().split('\n').length, pattern.test(template), 010, await, async, exported)
exports.done = arguments.length
