const readline = require('readline')
const rl = readline.createInterface({ input: process.stdin, output: process.stdout })
rl.question('Name? ', async name => {
  console.log(`hello ${name}`)
  for await (const line of rl) console.log(JSON.stringify(line))
  console.log('closed')
})
