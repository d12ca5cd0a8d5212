console.log('the main file is right, its helper is not')
import { compute } from './lib/compute'
console.log(compute(2))
