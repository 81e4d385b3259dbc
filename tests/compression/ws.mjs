// The library `ws`, as a worker that sends back what it hears, or as a client.
//   ws.mjs worker [always]        says where it listens; compresses short messages too, if told so
//   ws.mjs client URL             reads a list of texts from its input, sends each and awaits its echo, says what was agreed on
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'

// `ws` is installed outside of this directory, where an import would not look for it.
const WebSocket = createRequire(process.env.NODE_MODULES_OF)('ws')

if (process.argv[2] === 'worker') {
  const perMessageDeflate = process.argv[3] === 'always' ? { threshold: 0 } : true
  const server = new WebSocket.WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate })
  server.on('listening', () => console.log(JSON.stringify({ listening: `127.0.0.1:${server.address().port}` })))
  server.on('connection', (socket) => {
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
    socket.on('error', () => {})
  })
} else {
  const texts = JSON.parse(readFileSync(0))
  const socket = new WebSocket(process.argv[3])
  let next = 0
  socket.on('open', () => socket.send(texts[0]))
  socket.on('message', (data) => {
    if (data.toString() !== texts[next]) throw new Error(`echo ${next} differs`)
    next += 1
    if (next < texts.length) return socket.send(texts[next])
    console.log(JSON.stringify({ extensions: socket.extensions }))
    socket.close(1000)
  })
}
