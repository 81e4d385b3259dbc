// Whole conversations through a real proxy and a network that goes wrong, one for each seed; a quarter of them in Chromium.
// HOLDLINE_CLIENT_SEEDS is how many, or `N..M` which ones; with HOLDLINE_CLIENT_UNTIL_RED the first failure is the last
// seed, and all of them are in Node.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { Browser, chromium, serveFiles } from './support/browser.mjs';
import { HoldlineSocket, WebSocket } from './support/client.mjs';
import { FAULTS, HASTE, drill } from './support/drill.mjs';
import { Holdline, program } from './support/holdline.mjs';
import { peer } from './support/peer.mjs';

const [first, last] = seeds(process.env.HOLDLINE_CLIENT_SEEDS ?? '20');
const skip = existsSync(program) ? false : `no ${program}: cargo build --bin holdline`;
const untilRed = !!process.env.HOLDLINE_CLIENT_UNTIL_RED;
const seen = new Set();
let isRed = false;
let holdline;
let browser;
let files;

function seeds(text) {
  const [from, to] = text.split('..').map(Number);
  return to === undefined ? [0, from - 1] : [from, to];
}

before(async () => {
  if (skip) return;
  holdline = await Holdline.start();
  files = await serveFiles('<!doctype html><title>a page</title>');
  if (chromium && !untilRed) browser = new Browser();
});

after(async () => {
  await holdline?.stop();
  await browser?.stop();
  files?.stop();
});

const inNode = (url) => peer(HoldlineSocket, url, { WebSocket, ...HASTE });

/** The same in a page, which is told and asked over DevTools. */
async function inPage(url) {
  const page = await browser.open(files.url);
  await page.evaluate(`Promise.all([import('/dist/index.js'), import('/tests/support/peer.mjs')]).then(([client, support]) => {
    globalThis.client = support.peer(client.HoldlineSocket, ${JSON.stringify(url)}, ${JSON.stringify(HASTE)});
  })`);
  const call = (method) => (...values) => page.evaluate(`client.${method}(${values.map((value) => JSON.stringify(value)).join()})`);
  const close = () => call('close')().then(() => page.ask('Page.close'));
  return { opened: call('opened'), state: call('state'), say: call('say'), lastWords: call('lastWords'), close };
}

for (let seed = first; seed <= last; seed += 1) {
  test(`what is sent arrives, or a gap tells that it does not: seed ${seed}`, { skip }, async (context) => {
    if (isRed && untilRed) return context.skip('another one is red');
    isRed = true;
    const open = browser && seed % 4 === 3 ? inPage : inNode;
    const { faults } = await drill(seed, { holdline, open });
    faults.forEach((fault) => seen.add(fault));
    isRed = false;
  });
}

test('every kind of fault has struck', { skip: skip || untilRed || last - first < 19 }, () => {
  assert.deepEqual([...seen].sort(), Object.keys(FAULTS).sort());
});
