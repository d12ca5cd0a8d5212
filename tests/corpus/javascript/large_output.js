for (let n = 0; n < 7000; n++) process.stdout.write(`${n} ${'x'.repeat(70)}\n`)
process.stderr.write('e'.repeat(300000))
console.log('y'.repeat(200000))
process.exitCode = 3 // process.exit() would drop what the pipe has not taken yet
