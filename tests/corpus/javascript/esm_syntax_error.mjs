import fs from 'fs'

export const names = fs.readdirSync('.').map(name => {
  return { name, size: 1, }}
)
const total = names.reduce((a, b) => a + b.size 0)
