// Whole conversations through a real proxy and a network that goes wrong, one for each seed; a quarter of them in Chromium.
// HOLDLINE_CLIENT_SEEDS is how many, or `N..M` which ones; with HOLDLINE_CLIENT_UNTIL_RED the first failure is the last
// seed, and all of them are in Node.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { Browser, chromium, serveFiles } from './support/browser.mjs';
import { FAULTS, HASTE, drill } from './support/drill.mjs';
import { Holdline, program } from './support/holdline.mjs';
import { inNode, inPage, seeds } from './support/open.mjs';

const [first, last] = seeds(process.env.HOLDLINE_CLIENT_SEEDS ?? '20');
const skip = existsSync(program) ? false : `no ${program}: cargo build --bin holdline`;
const untilRed = !!process.env.HOLDLINE_CLIENT_UNTIL_RED;
const seen = new Set();
let isRed = false;
let holdline;
let browser;
let files;

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

for (let seed = first; seed <= last; seed += 1) {
  test(`what is sent arrives, or a gap tells that it does not: seed ${seed}`, { skip }, async (context) => {
    if (isRed && untilRed) return context.skip('another one is red');
    isRed = true;
    const open = browser && seed % 4 === 3 ? inPage(browser, files, HASTE) : inNode(HASTE);
    const { faults } = await drill(seed, { holdline, open });
    faults.forEach((fault) => seen.add(fault));
    isRed = false;
  });
}

test('every kind of fault has struck', { skip: skip || untilRed || last - first < 19 }, () => {
  assert.deepEqual([...seen].sort(), Object.keys(FAULTS).sort());
});
