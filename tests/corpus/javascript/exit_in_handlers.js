process.on('exit', code => {
  console.log('exit handler', code)
  process.exit(9)
})
setTimeout(() => {
  try {
    process.exit(300)
  } finally {
    console.log('never')
  }
}, 10)
process.stdout.write('no newline at the end')
