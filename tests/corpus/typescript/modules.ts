import * as path from 'node:path'
import { readFileSync } from 'fs'
import data from './data/settings.json'
import helper, { Point, type Distance, twice } from './helper'
import { area } from './shapes'
import legacy = require('./legacy')

const distance: Distance = new Point(3, 4).length()
console.log(helper('x'), distance, twice(21), area(2), data.deep.list, data.name.toUpperCase())
console.log(path.relative('/code', __filename), readFileSync('data/settings.json', 'utf8').length, legacy.kind)
import('./helper').then(module => {
  console.log(Object.keys(module))
  module.fail(new Point(1, 2))
})
