// Carries WebSockets of HTTP/1.1 clients to a server that speaks HTTP/2, each on a stream of one connection (RFC 8441), by
// Node's own HTTP/2: for clients that do not speak it. Says where it listens.
//   bridge.mjs https://HOST:PORT
import { createHash } from 'node:crypto'
import { connect, constants } from 'node:http2'
import { createServer } from 'node:net'

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
const OF_ONE_CONNECTION = ['host', 'connection', 'upgrade', 'sec-websocket-key']
const authority = process.argv[2]

let session = null
/** A connection that has said that WebSockets are served on it; a new one when the last has ended. */
function connected() {
  session ??= new Promise((resolve, reject) => {
    const opened = connect(authority, { rejectUnauthorized: false })
    opened.once('remoteSettings', (settings) =>
      settings.enableConnectProtocol ? resolve(opened) : reject(new Error('no WebSockets are served here')))
    opened.on('error', reject)
    opened.once('close', () => { session = null })
  })
  return session
}

function read(head) {
  const [line, ...lines] = head.split('\r\n')
  const headers = {}
  for (const line of lines) {
    const colon = line.indexOf(':')
    const [name, value] = [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()]
    headers[name] = headers[name] === undefined ? value : `${headers[name]}, ${value}`
  }
  return { path: line.split(' ')[1], headers }
}

async function carry(socket, head, rest) {
  const { path, headers } = read(head)
  const key = headers['sec-websocket-key']
  for (const name of OF_ONE_CONNECTION) delete headers[name]
  const stream = (await connected()).request({
    ...headers, ':method': 'CONNECT', ':protocol': 'websocket', ':scheme': 'https', ':path': path,
  })
  stream.on('error', () => socket.destroy())
  socket.on('error', () => stream.close(constants.NGHTTP2_CANCEL))
  stream.once('response', (answer) => {
    const status = answer[':status']
    const lines = Object.entries(answer).filter(([name]) => !name.startsWith(':')).map(([name, value]) => `${name}: ${value}`)
    if (status === 200) {
      const accept = createHash('sha1').update(key + GUID).digest('base64')
      lines.unshift('HTTP/1.1 101 Switching Protocols', 'upgrade: websocket', 'connection: upgrade', `sec-websocket-accept: ${accept}`)
    } else {
      lines.unshift(`HTTP/1.1 ${status} Refused`, 'connection: close')
    }
    socket.write(`${lines.join('\r\n')}\r\n\r\n`)
    stream.pipe(socket)
  })
  if (rest.length) stream.write(rest)
  socket.pipe(stream)
}

const server = createServer((socket) => {
  let read = Buffer.alloc(0)
  socket.setNoDelay(true)
  socket.on('error', () => {})
  socket.on('data', function first(data) {
    read = Buffer.concat([read, data])
    const end = read.indexOf('\r\n\r\n')
    if (end < 0) return
    socket.off('data', first)
    socket.pause()
    carry(socket, read.subarray(0, end).toString('latin1'), read.subarray(end + 4)).catch((error) => {
      console.error(error.message)
      socket.destroy()
    })
  })
})
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ listening: `127.0.0.1:${server.address().port}` })))
