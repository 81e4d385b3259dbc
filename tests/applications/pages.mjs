// Pages in a browser that both sides share: Vite's own client hears of edits, Streamlit's own client sends clicks. What the
// user has is the page's own reconnect. Chromium is the user's.
import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { heard, later, need, talk, told, role, argument, directory } from './talk.mjs'

// Whole or not at all, as editors do it: a server that reads half a module would give its page one that cannot run.
function edit(file, text) {
  const draft = `${file}.${process.pid}`
  writeFileSync(draft, text)
  renameSync(draft, file)
}

// A page that shows what its only module says. Both workers serve the same files, as two of a kind do.
function site(root) {
  mkdirSync(root, { recursive: true })
  edit(join(root, 'index.html'), '<body><script type="module" src="/page.js"></script>')
  edit(join(root, 'page.js'), "import { n } from './said.js'\nconst show = (n) => { document.title = String(n); console.log('said', n) }\nshow(n)\nimport.meta.hot.accept('./said.js', (edited) => show(edited.n))\n")
  edit(join(root, 'said.js'), 'export const n = 0\n')
}

async function vite(port) {
  const root = join(directory, '..', 'site')
  site(root)
  const { createServer } = await import(need.resolve('vite'))
  const server = await createServer({
    root, configFile: false, logLevel: 'warn', cacheDir: join(directory, 'cache'),
    server: { host: '127.0.0.1', port: Number(port), strictPort: true, watch: { usePolling: true, interval: 50 } },
  })
  await server.listen()
}

export async function open(port, path) {
  const browser = await need('puppeteer-core').launch({
    executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'], userDataDir: join(directory, 'profile'),
  })
  const page = await browser.newPage()
  page.on('console', (message) => listen(message.text()))
  // What a run that fails is understood by.
  page.on('console', (message) => console.error(Date.now(), message.text()))
  page.on('requestfailed', (request) => console.error(Date.now(), request.url(), request.failure().errorText))
  page.on('response', (response) => console.error(Date.now(), response.status(), response.url()))
  await page.goto(`http://127.0.0.1:${port}${path}`)
  return page
}

let newest = 0

function listen(text) {
  const n = text.startsWith('said ') ? Number(text.slice(5)) : 0
  if (n > newest) heard(newest = n)
  if (/connection lost|disconnected|Disconnected/i.test(text)) told(text)
}

async function edits(port) {
  await open(port, '/')
  await later(500)
  talk((n) => { edit(join(directory, 'site', 'said.js'), `export const n = ${n}\n`) })
}

async function typing(port) {
  const page = await open(port, '/')
  const field = await page.waitForSelector('input[type=number]')
  await page.evaluate(() => new MutationObserver(() => {
    const shown = document.body.innerText.match(/said (\d+)\./)
    if (shown && shown[1] !== window.shown) console.log('said', window.shown = shown[1])
  }).observe(document.body, { subtree: true, childList: true, characterData: true }))
  // A person types the next number when the last one is shown, or when nothing has come of it for a second.
  let typed = 0
  const type = async (n) => {
    await field.click({ clickCount: 3 })
    await field.type(String(n))
    await field.press('Enter')
  }
  talk((n) => {
    if (newest < n - 1 && Date.now() - typed < 1000) return false
    typed = Date.now()
    type(n).catch((error) => console.error(error))
  })
}

const roles = { vite, edits, typing }
await roles[role](argument)
