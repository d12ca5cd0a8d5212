console.log('never printed')
const count: number = 'five'
const user: { name: string; age: number } = { name: 'Ada' }
console.log(count, user)
