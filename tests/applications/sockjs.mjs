// SockJS over its WebSocket transport, answers to what is sent. The library has no reconnect: the page's own, after 100 ms.
import { heard, need, told, talk, role, argument } from './talk.mjs'

function worker(port) {
  const http = need('node:http').createServer()
  const service = need('sockjs').createServer({ log: () => {} })
  service.on('connection', (socket) => socket.on('data', (text) => socket.write(text)))
  service.installHandlers(http, { prefix: '/echo' })
  http.listen(Number(port), '127.0.0.1')
}

function user(port) {
  const SockJS = need('sockjs-client')
  let socket
  const open = () => {
    socket = new SockJS(`http://127.0.0.1:${port}/echo`, null, { transports: ['websocket'] })
    socket.onmessage = ({ data }) => heard(Number(data))
    socket.onclose = ({ code, reason }) => { told(`closed ${code} ${reason}`); setTimeout(open, 100) }
  }
  open()
  talk((n) => socket.readyState === 1 && (socket.send(String(n)), true))
}

role === 'worker' ? worker(argument) : user(argument)
