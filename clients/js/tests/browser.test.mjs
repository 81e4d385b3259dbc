// The built client in headless Chromium: reload, two tabs, sleep, plain servers, the script tag and React.
import assert from 'node:assert/strict';
import { build } from 'esbuild';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { Browser, chromium, serveFiles } from './support/browser.mjs';
import { until } from './support/client.mjs';
import { Stub } from './support/stub.mjs';

const PAGE = `<!doctype html><title>a page</title><body><script src="/dist/holdline.min.js"></script><script>
  const log = [], received = [];
  function connect(url, protocols, options) {
    globalThis.socket = new HoldlineSocket(url, protocols, { aware: true, backoff: { min: 20, max: 200 }, ...options });
    for (const type of ['open', 'close', 'interrupted', 'resumed', 'gap']) {
      socket.addEventListener(type, ({ detail }) => log.push({ type, ...detail }));
    }
    socket.onmessage = ({ data }) => received.push(data);
    return new Promise((resolve) => socket.addEventListener('open', () => resolve(socket.pipe), { once: true }));
  }
</script>`;

describe('in Chromium', { skip: chromium ? false : 'no Chromium here; on Debian: apt-get install chromium' }, () => {
  let browser;
  let files;
  let stub;
  let page;

  before(async () => {
    files = await serveFiles(PAGE);
    browser = new Browser();
  });

  after(async () => {
    await browser.stop();
    files.stop();
  });

  beforeEach(async () => {
    stub = await Stub.start();
  });

  afterEach(async () => {
    await page.ask('Page.close');
    await stub.stop();
  });

  const connect = (...more) => page.evaluate(`connect(${[stub.url, ...more].map((value) => JSON.stringify(value)).join()})`);
  const open = async (script) => (page = await browser.open(files.url, script));

  for (const [name, script] of [
    ['with Web Locks', ''],
    ['with a BroadcastChannel', 'Object.defineProperty(Navigator.prototype, "locks", { value: undefined })'],
  ]) {
    test(`${name}, a page that is reloaded goes on with its pipe, and what came in between arrives`, async () => {
      await open(script);
      const pipe = await connect();
      await page.evaluate('socket.send("from the first page")');
      const { pipe: held } = stub;
      held.say('to the first page');
      await until(() => held.journal.length && !held.kept.length);
      stub.refuse = 1; // the reload may find the proxy away, too
      await page.reload();
      held.say('in between');
      assert.equal(await connect(), pipe);
      await page.evaluate('socket.send("from the second page")');
      await until(() => held.journal.length === 2);
      assert.deepEqual(held.journal, ['from the first page', 'from the second page']);
      assert.deepEqual(await page.evaluate('received'), ['in between']);
      const resumed = (await page.evaluate('log')).filter(({ type }) => type !== 'open');
      assert.deepEqual(resumed, [{ type: 'resumed', resumed: 'ok', reloaded: true }]);
    });

    test(`${name}, a duplicated tab gets a pipe of its own, and the first one keeps its`, async () => {
      await open(script);
      const pipe = await connect();
      const { targetInfos: known } = await browser.ask('Target.getTargets');
      // Like "duplicate tab", it copies sessionStorage.
      await page.evaluate('void open(location.href)');
      const isNew = ({ targetId, type }) => type === 'page' && !known.some((other) => other.targetId === targetId);
      let found;
      while (!found) found = (await browser.ask('Target.getTargets')).targetInfos.find(isNew);
      const copy = await browser.attach(found.targetId);
      while ((await copy.evaluate('document.readyState + typeof connect')) !== 'completefunction');
      await copy.evaluate(`${script}; undefined`);
      const copied = await copy.evaluate(`connect(${JSON.stringify(stub.url)})`);
      assert.equal(await copy.evaluate('Object.keys(sessionStorage).length > 0'), true);
      assert.notEqual(copied, pipe);
      assert.deepEqual(await page.evaluate('log'), [{ type: 'open' }]);
      await copy.ask('Page.close');
    });
  }

  test('without locks and channels, a reload begins anew', async () => {
    await open('Object.defineProperty(Navigator.prototype, "locks", { value: undefined }); globalThis.BroadcastChannel = undefined');
    const pipe = await connect();
    await page.reload();
    assert.notEqual(await connect(), pipe);
  });

  test('what was not acknowledged when the page went is sent by the next one', async () => {
    stub.acks = false;
    await open();
    await connect();
    const { pipe } = stub;
    await until(() => pipe.link);
    stub.refuse = 1;
    pipe.cut();
    await page.evaluate('socket.send("text"); socket.send(Uint8Array.of(0, 255))');
    await page.reload();
    await connect();
    await until(() => pipe.journal.length === 2);
    assert.equal(pipe.journal[0], 'text');
    assert.deepEqual([...pipe.journal[1]], [0, 255]);
  });

  for (const event of ['online', 'pageshow', 'visibilitychange']) {
    test(`${event} asks whether the connection lives, and leaves a dead one`, async () => {
      await open();
      await connect([], { timeouts: { probe: 100 } });
      const { pipe } = stub;
      const isAsked = () => pipe.controls.some(({ t }) => t === 'hb');
      stub.silent = true;
      const made = event === 'pageshow' ? 'new PageTransitionEvent("pageshow", { persisted: true })' : `new Event("${event}", { bubbles: true })`;
      await page.evaluate(`void (${event === 'visibilitychange' ? 'document' : 'window'}.dispatchEvent(${made}))`);
      await until(isAsked);
      await until(() => pipe.gen === 2, 'a new connection');
    });
  }

  test('a plain server that picks no subprotocol is reached all the same', async () => {
    stub.aware = false;
    stub.plain = (link) => link.send('welcome');
    await open();
    await connect([], { aware: 'auto' });
    assert.equal(await page.evaluate('socket.pipe'), null);
    while (!(await page.evaluate('received.length')));
    assert.deepEqual(stub.offers, ['holdline.v1', 'holdline.v1', '']);
  });

  test('bytes are Blobs or buffers, as the page wishes', async () => {
    await open();
    await connect();
    stub.pipe.say(Buffer.from([1]));
    while (!(await page.evaluate('received.length')));
    await page.evaluate('socket.binaryType = "arraybuffer"');
    stub.pipe.say(Buffer.from([2]));
    while ((await page.evaluate('received.length')) < 2);
    assert.deepEqual(await page.evaluate('received.map((data) => data.constructor.name)'), ['Blob', 'ArrayBuffer']);
  });

  test('the React hook shows the status, passes messages on, and closes with its component', async () => {
    await open();
    await page.evaluate(`globalThis.url = ${JSON.stringify(stub.url)}`);
    await page.evaluate(`${await hookPage()}; undefined`);
    const shown = () => page.evaluate('document.querySelector("main")?.textContent ?? ""');
    while ((await shown()) !== 'open:');
    stub.pipe.say('hello');
    while ((await shown()) !== 'open:hello');
    stub.refuse = 1;
    const { pipe } = stub;
    pipe.cut();
    while (pipe.gen < 2) await shown();
    while ((await shown()) !== 'open:hello');
    await page.evaluate('unmount()');
    await until(() => pipe.fin);
  });
});

/** A component with the hook, under strict mode, as one script. */
async function hookPage() {
  const contents = `
    import { StrictMode, createElement, useState } from 'react';
    import { createRoot } from 'react-dom/client';
    import { useHoldline } from 'holdline/react';
    function Shown() {
      const [last, setLast] = useState('');
      const { status } = useHoldline(url, { aware: true, persist: false, backoff: { min: 20 }, onMessage: ({ data }) => setLast(data) });
      return createElement('main', null, status, ':', last);
    }
    const root = createRoot(document.body.appendChild(document.createElement('div')));
    root.render(createElement(StrictMode, null, createElement(Shown)));
    globalThis.unmount = () => root.unmount();`;
  const stdin = { contents, resolveDir: new URL('..', import.meta.url).pathname };
  const { outputFiles } = await build({ stdin, bundle: true, write: false, format: 'iife', define: { 'process.env.NODE_ENV': '"development"' } });
  return outputFiles[0].text;
}
