console.log('before')
process.kill(process.pid, 'SIGKILL')
setTimeout(() => console.log('never'), 1000)
