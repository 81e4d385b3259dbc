// The drills again, for clients that have other ways than a WebSocket: networks that let through only some of them, and
// changes from one to another amid all that goes wrong. A quarter of the seeds is in Chromium, on a page of another origin.
// HOLDLINE_CLIENT_SEEDS is how many, or `N..M` which ones.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { Browser, chromium, serveFiles } from './support/browser.mjs';
import { BLOCKS, FAULTS, HASTE, TRAVELS, WAYS, drill } from './support/drill.mjs';
import { Holdline, program } from './support/holdline.mjs';
import { inNode, inPage, seeds } from './support/open.mjs';

const [first, last] = seeds(process.env.HOLDLINE_CLIENT_SEEDS ?? '16');
const skip = existsSync(program) ? false : `no ${program}: cargo build --bin holdline`;
const seen = { faults: new Set(), ways: new Set() };
let holdline;
let browser;
let files;

/** One client looks for a way that is open by itself; the other is sent from one to the next. */
const KINDS = [
  { faults: { ...FAULTS, ...BLOCKS }, options: { ...HASTE, transports: [...WAYS] } },
  { faults: { ...FAULTS, ...TRAVELS }, options: { ...HASTE, transports: ['ws'] } },
];

before(async () => {
  if (skip) return;
  files = await serveFiles('<!doctype html><title>a page</title>');
  const route = '[[pools]]\nname = "default"\n[[routes]]\nname = "default"\npath = "/{*path}"\npool = "default"\nhttp_fallback = true\n';
  holdline = await Holdline.start(`${route}origins = [${JSON.stringify(new URL(files.url).origin)}]\n`);
  if (chromium) browser = new Browser();
});

after(async () => {
  await holdline?.stop();
  await browser?.stop();
  files?.stop();
});

for (let seed = first; seed <= last; seed += 1) {
  const { faults, options } = KINDS[seed % 2];
  test(`what is sent arrives, by whichever way: seed ${seed}`, { skip }, async () => {
    const open = browser && seed % 8 > 5 ? inPage(browser, files, options) : inNode(options);
    const came = await drill(seed, { holdline, open, faults });
    came.faults.forEach((fault) => seen.faults.add(fault));
    came.ways.forEach((way) => seen.ways.add(way));
  });
}

test('every kind of fault has struck, and every way was taken', { skip: skip || last - first < 15 }, () => {
  assert.deepEqual([...seen.faults].sort(), Object.keys({ ...FAULTS, ...BLOCKS, ...TRAVELS }).sort());
  assert.deepEqual([...seen.ways].sort(), [...WAYS].sort());
});
