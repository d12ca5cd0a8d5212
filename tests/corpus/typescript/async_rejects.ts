import { setTimeout as wait } from 'timers/promises'

class HttpError extends Error {
  constructor(readonly status: number, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'HttpError'
  }
}

async function request(path: string): Promise<string> {
  await wait(5)
  if (path.startsWith('/bad')) throw new HttpError(404, `no ${path}`, { cause: new TypeError('low level') })
  return `body of ${path}`
}

async function* pages(): AsyncGenerator<string> {
  for (const path of ['/a', '/b', '/bad/c']) yield await request(path)
}

async function main(): Promise<void> {
  console.log(await Promise.allSettled([request('/x'), Promise.reject('plain text')]))
  for await (const page of pages()) console.log(page)
}

process.on('exit', (code) => console.log('exit', code))
void main()
