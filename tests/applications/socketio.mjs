// Socket.IO: answers to what is emitted, counted in the socket's own data; the library's own reconnect.
// `rooms` hears itself over a room that it joins; `polling` begins with the transport that clients begin with by default.
import { heard, need, told, talk, wrong, role, argument } from './talk.mjs'

const [, , , , kind] = process.argv

function worker(port) {
  const http = need('node:http').createServer()
  const { Server } = need('socket.io')
  new Server(http).of('/chat').on('connection', (socket) => {
    socket.on('join', (room) => socket.join(room))
    socket.on('say', (n) => socket.nsp.to(kind === 'rooms' ? 'all' : socket.id).emit('said', n))
  })
  http.listen(Number(port), '127.0.0.1')
}

function user(port) {
  const { io } = need('socket.io-client')
  const transports = kind === 'polling' ? ['polling', 'websocket'] : ['websocket']
  const socket = io(`http://127.0.0.1:${port}/chat`, { transports, upgrade: true })
  socket.on('connect', () => { if (kind === 'rooms') socket.emit('join', 'all') })
  socket.on('disconnect', (why) => told(why))
  socket.on('said', (n) => heard(n))
  socket.on('connect_error', (error) => told(error.message))
  talk((n) => socket.connected && (socket.emit('say', n), true))
}

role === 'worker' ? worker(argument) : user(argument)
