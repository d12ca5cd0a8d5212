// A descriptor that is non-blocking makes writeSync fail where the reader is slow.
const fs = require("fs")
const flags = [0, 1, 2].map((fd) => fs.readFileSync(`/proc/self/fdinfo/${fd}`, "utf8").match(/flags:\s*(\d+)/)[1])
fs.writeSync(1, flags.map((octal) => (parseInt(octal, 8) & 0o4000 ? "non-blocking" : "blocking")).join("\n") + "\n")
