// Ethereum JSON-RPC: ethers subscribes to new blocks of a ganache and mines them. ethers has no reconnect: the page's own,
// after 100 ms, with a provider anew.
import { heard, need, told, talk, role, argument } from './talk.mjs'

function worker(port) {
  const server = need('ganache').server({ logging: { quiet: true }, wallet: { totalAccounts: 1 } })
  server.listen(Number(port), '127.0.0.1')
}

function user(port) {
  const { WebSocketProvider, Network } = need('ethers')
  const WebSocket = need('ws')
  let provider, awaited = [], up = false
  // A call that was under way may have been made: its caller is told so, and its block is not waited for.
  const fails = (error) => JSON.stringify(error).includes('may have run') ? awaited.pop() : told(error.message)
  const open = () => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/`)
    socket.on('error', () => {})
    socket.on('open', () => { up = true })
    socket.on('close', (code) => { up = false; awaited = []; told(`closed ${code}`); setTimeout(open, 100) })
    const own = new WebSocketProvider(socket, Network.from(1337), { staticNetwork: true })
    own.on('block', () => { if (own === provider) heard(awaited.shift() ?? 'a block that was not mined') })
    provider = own
  }
  open()
  talk((n) => up && (provider.send('evm_mine', []).catch(fails), awaited.push(n), true))
}

role === 'worker' ? worker(argument) : user(argument)
