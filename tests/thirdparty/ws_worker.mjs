// A Node worker on the library `ws`: journals each message, acknowledges it, and pushes numbered frames.
// Knows nothing about Holdline but the header that names the attachment. Usage: ws_worker.mjs JOURNAL [PORT]
import { openSync, writeSync } from 'node:fs'
import { createRequire } from 'node:module'
import { crc32 } from 'node:zlib'

// `ws` is installed outside of this directory, where an import would not look for it.
const { WebSocketServer } = createRequire(process.env.NODE_MODULES_OF)('ws')
const journal = openSync(process.argv[2], 'a')
const PUSH_MS = Number(process.env.PUSH_MS ?? 20)
const server = new WebSocketServer({ host: '127.0.0.1', port: Number(process.argv[3] ?? 0), perMessageDeflate: false })

server.on('listening', () => console.log(JSON.stringify({ listening: `127.0.0.1:${server.address().port}` })))

server.on('connection', (socket, request) => {
  const attachment = request.headers['holdline-attach'] ?? '0'
  let number = 0
  const pushing = setInterval(() => {
    if (socket.readyState !== socket.OPEN) return
    const body = Buffer.alloc(number % 40 === 39 ? 60_000 : 60, number % 251)
    socket.send(Buffer.concat([Buffer.from(`push ${attachment} ${number} ${crc32(body)} `), body]))
    number += 1
  }, PUSH_MS)
  socket.on('message', (data) => {
    writeSync(journal, `${data} ${attachment} ${process.pid}\n`)
    socket.send(`ack ${data}`)
  })
  socket.on('close', () => clearInterval(pushing))
  socket.on('error', () => {})
})

process.on('SIGTERM', () => {
  for (const socket of server.clients) socket.close(1012, 'Service Restart')
  server.close(() => process.exit(0))
})
