// graphql-ws: a subscription that hears what mutations say, both on one socket; the library's own retry.
import { heard, need, told, talk, role, argument } from './talk.mjs'

function worker(port) {
  const { buildSchema } = need('graphql')
  const { useServer } = need('graphql-ws/use/ws')
  const { WebSocketServer } = need('ws')
  const listeners = new Set()
  async function* saidSince() {
    const queue = []
    let wake = () => {}
    const listener = (n) => { queue.push(n); wake() }
    listeners.add(listener)
    try {
      for (;;) {
        while (queue.length) yield { said: queue.shift() }
        await new Promise((done) => { wake = done })
      }
    } finally { listeners.delete(listener) }
  }
  const schema = buildSchema('type Query { x: Int } type Mutation { say(n: Int!): Int } type Subscription { said: Int }')
  const roots = {
    query: {},
    mutation: { say: ({ n }) => { listeners.forEach((listener) => listener(n)); return n } },
    subscription: { said: saidSince },
  }
  const server = new WebSocketServer({ host: '127.0.0.1', port: Number(port), path: '/graphql' })
  useServer({ schema, roots, onConnect: async ({ connectionParams }) => connectionParams?.token === 'secret' }, server)
}

function user(port) {
  const { createClient } = need('graphql-ws')
  const client = createClient({
    url: `ws://127.0.0.1:${port}/graphql`,
    webSocketImpl: need('ws'),
    lazy: false,
    connectionParams: { token: 'secret' },
    retryAttempts: 100,
    shouldRetry: () => true,
    on: {
      closed: (event) => { up = false; told(`closed ${event.code} ${event.reason}`) },
      connected: () => { up = true },
    },
  })
  let up = false
  client.subscribe({ query: 'subscription { said }' }, {
    next: ({ data, errors }) => data ? heard(data.said) : told(JSON.stringify(errors)),
    error: (error) => told(`subscription: ${JSON.stringify(error)}`),
    complete: () => told('subscription completed'),
  })
  talk((n) => {
    if (!up) return false
    const query = `mutation { say(n: ${n}) }`
    client.subscribe({ query }, { next: () => {}, error: () => {}, complete: () => {} })
  })
}

role === 'worker' ? worker(argument) : user(argument)
