const http = require('node:http')
const express = require('express')

const app = express()
app.use(express.json())
app.get('/items/:number', (request, response) => response.json({ number: Number(request.params.number) }))
app.post('/sum', (request, response) => response.json(request.body.reduce((a, b) => a + b, 0)))
app.use((request, response) => response.status(404).send(`no ${request.path}`))

const server = app.listen(0, '127.0.0.1', async () => {
  const url = `http://127.0.0.1:${server.address().port}`
  console.log(await (await fetch(`${url}/items/7`)).json())
  const headers = { 'content-type': 'application/json' }
  console.log(await (await fetch(`${url}/sum`, { method: 'POST', headers, body: '[1,2,3]' })).json())
  http.get(`${url}/none`, (response) => {
    console.log(response.statusCode, response.headers['x-powered-by'])
    server.close()
    server.closeAllConnections()
  })
})
