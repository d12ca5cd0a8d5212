const { execSync, spawn, fork, spawnSync } = require('child_process')

if (process.argv[2] === 'child') {
  process.on('message', message => {
    process.send({ doubled: message.value * 2, execArgv: process.execArgv, main: require.main === module, argv: process.argv.slice(2) })
    process.exit(4)
  })
} else {
  console.log(execSync('echo shell; pwd; id -un; ls').toString(), spawnSync('cat', { input: 'piped' }).stdout.toString())
  console.log(spawnSync('sh', ['-c', 'kill -9 $$']).signal, spawnSync('/absent').error.code)
  const inherited = spawn('sh', ['-c', 'echo inherited; cat; echo err >&2; exit 3'], { stdio: 'inherit' })
  inherited.on('exit', (code, signal) => {
    console.log('exit', code, signal)
    const child = fork(__filename, ['child', 'x'])
    child.on('message', message => console.log('from child', message))
    child.on('exit', second => {
      console.log('exit', second)
      const slow = spawn('sleep', ['60'])
      slow.on('exit', (third, how) => { console.log(third, how); try { execSync('exit 9', { stdio: 'ignore' }) } catch (error) { console.log(error.message, error.status) } })
      slow.kill()
    })
    child.send({ value: 21 })
  })
}
