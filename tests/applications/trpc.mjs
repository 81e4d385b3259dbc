// tRPC: a tracked subscription that hears what mutations say, both on one socket; wsLink with its own reconnect.
import { heard, need, told, talk, role, argument } from './talk.mjs'

function worker(port) {
  const { initTRPC, tracked } = need('@trpc/server')
  const { applyWSSHandler } = need('@trpc/server/adapters/ws')
  const { EventEmitter, on } = need('node:events')
  const { WebSocketServer } = need('ws')
  const said = new EventEmitter()
  const t = initTRPC.create()
  const router = t.router({
    say: t.procedure.input((n) => n).mutation(({ input }) => { said.emit('said', input); return input }),
    said: t.procedure.input((input) => input).subscription(async function* ({ signal }) {
      for await (const [n] of on(said, 'said', { signal })) yield tracked(String(n), n)
    }),
  })
  applyWSSHandler({ wss: new WebSocketServer({ host: '127.0.0.1', port: Number(port) }), router })
}

function user(port) {
  const { createTRPCClient, createWSClient, wsLink } = need('@trpc/client')
  let up = false
  const socket = createWSClient({
    url: `ws://127.0.0.1:${port}/trpc`,
    WebSocket: need('ws'),
    onOpen: () => { up = true },
    onClose: (cause) => { up = false; told(`closed ${cause?.code}`) },
  })
  const client = createTRPCClient({ links: [wsLink({ client: socket })] })
  client.said.subscribe({}, { onData: ({ data }) => heard(data), onError: (error) => told(`subscription: ${error.message}`) })
  talk((n) => up && (client.say.mutate(n).catch(() => {}), true))
}

role === 'worker' ? worker(argument) : user(argument)
