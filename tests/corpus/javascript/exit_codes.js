const { spawnSync } = require('child_process')
const run = (...args) => spawnSync(process.execPath, args, { encoding: 'utf8' })
for (const code of ['process.exit(-1)', 'process.exitCode = "7"', 'process.exitCode = 3; process.exit()', 'Promise.reject(1)',
  'process.kill(process.pid, "SIGKILL")']) {
  const { status, signal } = run('-e', code)
  console.log(code, status, signal)
}
console.log(run('--check', __filename).status, run('--input-type=module', '-e', 'await 1').status)
process.exitCode = -1
