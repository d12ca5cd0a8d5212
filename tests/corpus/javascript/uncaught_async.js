const wait = ms => new Promise(resolve => setTimeout(resolve, ms))

async function inner(name) {
  await wait(5)
  throw new RangeError(`from ${name}`)
}

async function outer() {
  await inner('inner')
}

process.on('exit', code => console.log('exit', code))
outer().catch(error => {
  console.log(error.stack)
  setTimeout(function later() { JSON.parse('{"bad": }') }, 5)
})
console.log('main ends')
