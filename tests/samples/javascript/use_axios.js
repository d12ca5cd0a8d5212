const http = require('node:http')
const axios = require('axios')

const server = http.createServer((request, response) => {
  response.statusCode = request.url.startsWith('/teapot') ? 418 : 200
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify({ method: request.method, url: request.url, agent: request.headers['x-agent'] }))
})
server.listen(0, '127.0.0.1', async () => {
  const client = axios.create({
    baseURL: `http://127.0.0.1:${server.address().port}`,
    headers: { 'x-agent': 'sample' },
  })
  console.log((await client.post('/orders', { a: 1 }, { params: { page: 2 } })).data)
  await client.get('/teapot').catch((error) => console.log(error.response.status, error.code))
  await axios.get('http://192.0.2.1/', { timeout: 2000 }).catch((error) => console.log('no network', error.code))
  server.close()
})
