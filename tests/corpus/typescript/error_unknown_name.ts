import { readFile } from 'fs'
import { nothing } from './helper'
import missing from './absent'

function greet(name) {
  return `hello ${nmae} ${undefinedThing}`
}

greet('x')
document.title = 'no DOM here'
readFile
