const fs = require('fs')
function read() {
  const text = await fs.promises.readFile('x')
  return text
}
read()
