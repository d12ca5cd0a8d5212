import os from 'os'
for (const name of ['require', 'module', 'exports', '__filename', '__dirname']) {
  try {
    eval(name)
  } catch (error) {
    console.log(error.message.split('. ')[0]) // advice that names a package.json may follow
  }
}
console.log(JSON.stringify(os.EOL))
