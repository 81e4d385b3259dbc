// Headless Chromium over DevTools on pipes, and a server of pages with the built client.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--remote-debugging-pipe',
];

/** Chromium's program, or nothing. */
export const chromium = ['chromium', 'chromium-browser', 'google-chrome'].find(
  (name) => !spawnSync(name, ['--version'], { stdio: 'ignore' }).error,
);

/** Serves files of the package under their paths, and a page for any other. */
export async function serveFiles(page) {
  const server = createServer((request, response) => {
    const path = new URL(request.url, 'http://files').pathname;
    if (!/\.m?js$/.test(path)) return response.writeHead(200, { 'Content-Type': 'text/html' }).end(page);
    response.writeHead(200, { 'Content-Type': 'text/javascript' }).end(readFileSync(new URL(`../..${path}`, import.meta.url)));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${server.address().port}/`, stop: () => (server.closeAllConnections(), server.close()) };
}

export class Browser {
  #asked = new Map();
  #last = 0;
  #rest = '';
  /** Called with each page that another one opened. */
  onPage = () => {};

  constructor() {
    this.profile = mkdtempSync(join(tmpdir(), 'holdline-page-'));
    const stdio = ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'];
    // In a group of its own, so that what it starts ends with it.
    const options = { stdio, detached: true };
    this.process = spawn(chromium, [...FLAGS, `--user-data-dir=${this.profile}`, 'about:blank'], options);
    this.process.stdio[4].on('data', (bytes) => this.#hear(bytes));
  }

  async open(url, script = '') {
    const { targetId } = await this.ask('Target.createTarget', { url: 'about:blank' });
    const page = await this.attach(targetId);
    if (script) await page.ask('Page.addScriptToEvaluateOnNewDocument', { source: script });
    await page.go(url);
    return page;
  }

  async attach(targetId) {
    const { sessionId } = await this.ask('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page(this, sessionId);
    await page.ask('Page.enable');
    return page;
  }

  ask(method, params = {}, sessionId = undefined) {
    const id = (this.#last += 1);
    this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.#asked.set(id, { method, resolve, reject }));
  }

  async stop() {
    const gone = new Promise((resolve) => this.process.once('exit', resolve));
    process.kill(-this.process.pid, 'SIGKILL');
    await gone;
    // A helper of the browser's may still write there: what it leaves behind is no failure.
    await rm(this.profile, { recursive: true, force: true, maxRetries: 50, retryDelay: 100 }).catch(() => {});
  }

  #hear(bytes) {
    const parts = (this.#rest + bytes).split('\0');
    this.#rest = parts.pop();
    for (const part of parts) {
      const { id, result, error } = JSON.parse(part);
      const asked = this.#asked.get(id);
      this.#asked.delete(id);
      if (error) asked?.reject(new Error(`${asked.method}: ${error.message}`));
      else asked?.resolve(result);
    }
  }
}

class Page {
  constructor(browser, session) {
    this.browser = browser;
    this.session = session;
  }

  ask(method, params) {
    return this.browser.ask(method, params, this.session);
  }

  /** What a promise of the page resolves to, as JSON. */
  async evaluate(expression) {
    const asked = { expression, awaitPromise: true, returnByValue: true, userGesture: true };
    const { result, exceptionDetails } = await this.ask('Runtime.evaluate', asked);
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  async go(url) {
    await this.ask('Page.navigate', { url });
    await this.#loaded();
  }

  async reload() {
    await this.evaluate('globalThis.old = true');
    await this.ask('Page.reload');
    await this.#loaded();
  }

  /** The new document is there: the old one's mark is gone. */
  async #loaded() {
    for (;;) {
      // A document that goes takes the question with it.
      const state = await this.evaluate('globalThis.old ? "" : document.readyState').catch(() => '');
      if (state === 'complete') return;
    }
  }
}
