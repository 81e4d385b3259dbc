// STOMP: one client sends to a topic, another one has subscribed to it (the broker spares a sender its own messages);
// @stomp/stompjs with its own reconnect.
import { heard, need, told, talk, role, argument } from './talk.mjs'

function worker(port) {
  const http = need('node:http').createServer()
  const StompServer = need('stomp-broker-js')
  new StompServer({ server: http, path: '/ws', heartbeat: [0, 0] })
  http.listen(Number(port), '127.0.0.1')
}

function client(port, onConnect) {
  const { Client } = need('@stomp/stompjs')
  const own = new Client({
    brokerURL: `ws://127.0.0.1:${port}/ws`,
    reconnectDelay: 1000,
    heartbeatIncoming: 0,
    heartbeatOutgoing: 0,
    onConnect: () => onConnect(own),
    onWebSocketClose: ({ code, reason }) => told(`closed ${code} ${reason}`),
    onStompError: (frame) => told(`error ${frame.headers.message}`),
  })
  own.activate()
  return own
}

function user(port) {
  global.WebSocket = need('ws')
  let listening
  const reader = client(port, () => { listening = reader.subscribe('/topic/said', (message) => heard(Number(message.body))) })
  const writer = client(port, () => {})
  const say = (n) => writer.publish({ destination: '/topic/said', body: String(n) })
  talk((n) => writer.connected && reader.connected && listening !== undefined && (say(n), true))
}

role === 'worker' ? worker(argument) : user(argument)
