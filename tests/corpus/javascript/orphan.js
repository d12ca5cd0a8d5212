// A child that outlives the program, and holds its stdout open, is not waited for.
require('child_process').spawn('sh', ['-c', 'sleep 30; echo too late'], { stdio: 'inherit', detached: true }).unref()
console.log('main is done')
process.exit(8)
