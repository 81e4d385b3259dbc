// NATS: nats.ws subscribes to a subject that it publishes to; the library's own reconnect (2 s).
import { heard, need, told, talk, role, argument } from './talk.mjs'

async function user(port) {
  global.WebSocket = need('ws')
  const { connect } = need('nats.ws')
  const connection = await connect({ servers: `ws://127.0.0.1:${port}`, maxReconnectAttempts: -1 })
  let up = true
  connection.subscribe('said', { callback: (_, message) => heard(Number(message.string())) })
  talk((n) => up && (connection.publish('said', String(n)), true))
  for await (const { type } of connection.status()) {
    if (type === 'disconnect') { up = false; told(type) }
    if (type === 'reconnect') up = true
  }
}

if (role === 'user') await user(argument)
