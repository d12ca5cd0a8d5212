import { once, EventEmitter } from 'events'

process.on('exit', code => console.log('exit', code))
console.log('waiting for nothing')
await once(new EventEmitter(), 'never')
console.log('never')
