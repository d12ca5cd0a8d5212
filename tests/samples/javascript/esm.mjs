import { strict as assert } from 'node:assert'
import axios from 'axios'
import express from 'express'
import lodash from 'lodash'

assert.equal(typeof express, 'function')
assert.equal(typeof axios.get, 'function')
console.log('sum', lodash.sum([1, 2, 3]))
