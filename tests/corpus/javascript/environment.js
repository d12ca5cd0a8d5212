const { execFileSync } = require('child_process')
console.log(process.env.GREETING, [process.env.EMPTY, process.env.ABSENT])
for (const [key, value] of Object.entries(process.env).sort()) if (key !== 'HOSTNAME') console.log(key, value)
console.log(new Date(0).toString(), new Date(2024, 6, 1).toISOString(), Intl.DateTimeFormat().resolvedOptions().timeZone)
console.log(execFileSync('sh', ['-c', 'echo "$GREETING:$TZ"']).toString())
process.env.TZ = 'UTC'
console.log(new Date(0).getHours(), process.env.DEBUG)
