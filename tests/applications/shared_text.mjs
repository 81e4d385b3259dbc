// Documents that are edited together: y-websocket and Hocuspocus. One user writes into a map, another one hears it; both have
// their provider's own reconnect. A document is its users' as well: each side is synchronised after a break.
import { heard, need, told, talk, role, argument } from './talk.mjs'

const kind = process.argv[4]

function hocuspocus(port) {
  const { Server } = need('@hocuspocus/server')
  new Server({ port: Number(port), address: '127.0.0.1', quiet: true, onAuthenticate: async ({ token }) => {
    if (token !== 'secret') throw new Error('no')
  } }).listen()
}

function provider(port) {
  const WebSocket = need('ws')
  const Y = need('yjs')
  const document = new Y.Doc()
  if (kind === 'hocuspocus') {
    const { HocuspocusProvider, HocuspocusProviderWebsocket } = need('@hocuspocus/provider')
    const socket = new HocuspocusProviderWebsocket({ url: `ws://127.0.0.1:${port}/`, WebSocketPolyfill: WebSocket })
    const own = new HocuspocusProvider({ websocketProvider: socket, name: 'all', document, token: 'secret' })
    own.attach?.()
    let synced = false
    own.on('synced', () => { synced = true })
    own.on('disconnect', () => { synced = false; told('disconnect') })
    return { document, up: () => synced }
  }
  const { WebsocketProvider } = need('y-websocket')
  const own = new WebsocketProvider(`ws://127.0.0.1:${port}`, 'all', document, { WebSocketPolyfill: WebSocket, disableBc: true })
  own.on('status', ({ status }) => { if (status === 'disconnected') told(status) })
  return { document, up: () => own.wsconnected && own.synced }
}

function user(port) {
  const [writer, reader] = [provider(port), provider(port)]
  let newest = 0
  reader.document.getMap('said').observe(() => {
    const n = reader.document.getMap('said').get('n')
    if (n > newest) heard(newest = n)
  })
  talk((n) => writer.up() && (writer.document.getMap('said').set('n', n), true))
}

role === 'worker' ? hocuspocus(argument) : user(argument)
