process.on('exit', code => console.log('exit', code))
async function load(path) {
  return (await require('fs').promises.readFile(path, 'utf8')).trim()
}
async function main() {
  const text = await load('/code/absent.txt')
  console.log('never', text)
}
main()
setTimeout(() => console.log('never, the process is gone'), 1000)
