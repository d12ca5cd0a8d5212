console.log('did not read')
setTimeout(() => process.exit(6), 30)
