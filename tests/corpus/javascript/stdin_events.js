let size = 0
process.stdin.setEncoding('utf8')
process.stdin.on('data', chunk => { size += chunk.length })
process.stdin.on('end', () => console.log('end', size))
process.stdin.on('close', () => console.log('close'))
console.log('waiting', process.stdin.isTTY, process.stdin.fd)
