// Browsers as workers: Chromium's DevTools with puppeteer-core, chromedriver's BiDi, a server of Playwright, Appium's BiDi.
// A conversation is a browser with its page, which is gone with the worker: the user's program begins anew when its client
// says so. A number that the page keeps tells its own page from another one.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { converse, directory, later, need, told, role, argument } from './talk.mjs'

const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage']
const CHROMIUM = '/usr/bin/chromium'
const KEEP = 'window.mine = 0, "kept"'

// Each opens a conversation: a function that has the page add one to its number, and a promise of its end.
const open = {
  async devtools(port) {
    const browser = await need('puppeteer-core').connect({ browserURL: `http://127.0.0.1:${port}`, protocolTimeout: 60_000 })
    const page = await browser.newPage()
    await page.evaluate(KEEP)
    const ended = new Promise((done) => browser.once('disconnected', () => done('disconnected')))
    return { add: () => page.evaluate('window.mine += 1'), ended }
  },

  async playwright(port) {
    const browser = await need('playwright-core').chromium.connect(`ws://127.0.0.1:${port}/playwright`)
    const page = await browser.newPage()
    await page.evaluate(KEEP)
    const ended = new Promise((done) => browser.once('disconnected', () => done('disconnected')))
    return { add: () => page.evaluate('window.mine += 1'), ended }
  },

  async bidi(port) {
    const capabilities = { alwaysMatch: { webSocketUrl: true, 'goog:chromeOptions': { binary: CHROMIUM, args: FLAGS } } }
    const session = await post(port, '/session', { capabilities })
    const { ask, ended } = await socket(`ws://127.0.0.1:${port}/session/${session.sessionId}`)
    const { contexts } = await ask('browsingContext.getTree', {})
    const run = (expression) => ask('script.evaluate', { expression, target: { context: contexts[0].context }, awaitPromise: true })
    await run(KEEP)
    return { add: async () => (await run('window.mine += 1')).result.value, ended }
  },

  async appium(port) {
    const alwaysMatch = { platformName: 'Fake', 'appium:automationName': 'Fake', 'appium:deviceName': 'Fake',
      'appium:app': join(directory, 'app.xml'), webSocketUrl: true }
    writeFileSync(alwaysMatch['appium:app'], '<app><title>holdline</title></app>')
    const session = await post(port, '/session', { capabilities: { alwaysMatch, firstMatch: [{}] } })
    const { ask, ended } = await socket(`ws://127.0.0.1:${port}/bidi/${session.sessionId}`)
    let n = 0
    return { add: async () => { await ask('session.status', {}); return (n += 1) }, ended }
  },
}

async function post(port, path, body) {
  const answer = await fetch(`http://127.0.0.1:${port}${path}`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body),
  })
  const { value } = await answer.json()
  if (!answer.ok) throw new Error(`${answer.status} ${JSON.stringify(value)}`.slice(0, 300))
  return value
}

async function socket(url) {
  const WebSocket = need('ws')
  const link = new WebSocket(url)
  const waiting = new Map()
  let last = 0
  await new Promise((done, fail) => { link.once('open', done); link.once('error', fail) })
  const ended = new Promise((done) => link.once('close', (code, reason) => {
    waiting.forEach(({ fail }) => fail(new Error(`closed ${code}`)))
    done(`closed ${code} ${reason}`)
  }))
  link.on('message', (text) => {
    const { id, result, error, message } = JSON.parse(text)
    waiting.get(id)?.[error ? 'fail' : 'done'](error ? new Error(message ?? error) : result)
    waiting.delete(id)
  })
  const ask = (method, params) => new Promise((done, fail) => {
    waiting.set(last += 1, { done, fail })
    link.send(JSON.stringify({ id: last, method, params }))
  })
  return { ask, ended }
}

async function user(port) {
  let mine
  const begin = async () => {
    const next = await open[role](port)
    next.said = 0
    next.ended.then((why) => { if (mine === next) { mine = undefined; told(why) } })
    mine = next
  }
  await converse(async (n) => {
    while (!mine) await begin().catch(async (error) => { told(error.message); await later(100) })
    const own = mine
    const answer = await Promise.race([own.add(), own.ended.then((why) => { throw new Error(why) })])
    own.said += 1
    return answer === own.said ? n : answer
  })
}

// A server of Playwright with one browser, which has a path of the server's choice.
const playwrightServer = (port) => need('playwright-core').chromium.launchServer({
  executablePath: CHROMIUM, args: FLAGS, host: '127.0.0.1', port: Number(port), wsPath: '/playwright',
})

role === 'playwright-server' ? await playwrightServer(argument) : await user(argument)
