const log = []
const say = text => { console.log(text) }
setTimeout(say, 0, 'timeout 0')
setTimeout(() => { say('timeout'); process.nextTick(say, 'tick in timeout'); Promise.resolve().then(() => say('micro in timeout')) }, 0)
setImmediate(() => { say('immediate'); setImmediate(say, 'immediate in immediate'); process.nextTick(say, 'tick in immediate') })
process.nextTick(say, 'tick')
queueMicrotask(() => { say('microtask'); process.nextTick(say, 'tick in microtask') })
Promise.resolve().then(() => say('promise')).then(() => say('promise 2')).finally(() => say('finally'))
;(async () => { say('async body'); await null; say('after await') })()
const busyUntil = Date.now() + 5
while (Date.now() < busyUntil);
say('main ends')
setTimeout(() => {
  const interval = setInterval(() => { say('interval'); if (log.push(0) === 3) clearInterval(interval) }, 2)
}, 60)
setTimeout(say, 2 ** 20, 'never').unref()
