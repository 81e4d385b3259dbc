// Whole conversations through a real proxy and a network that goes wrong, one for each seed. HOLDLINE_CLIENT_SEEDS is how
// many, or `N..M` which ones.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { HoldlineSocket, WebSocket } from './support/client.mjs';
import { HASTE, drill } from './support/drill.mjs';
import { Holdline, program } from './support/holdline.mjs';
import { peer } from './support/peer.mjs';

const [first, last] = seeds(process.env.HOLDLINE_CLIENT_SEEDS ?? '20');
const skip = existsSync(program) ? false : `no ${program}: cargo build --bin holdline`;
const seen = new Set();
let holdline;

function seeds(text) {
  const [from, to] = text.split('..').map(Number);
  return to === undefined ? [0, from - 1] : [from, to];
}

before(async () => {
  if (!skip) holdline = await Holdline.start();
});

after(() => holdline?.stop());

for (let seed = first; seed <= last; seed += 1) {
  test(`what is sent arrives, or a gap tells that it does not: seed ${seed}`, { skip }, async () => {
    const open = (url) => peer(HoldlineSocket, url, { WebSocket, ...HASTE });
    const { faults } = await drill(seed, { holdline, open });
    faults.forEach((fault) => seen.add(fault));
  });
}

test('every kind of fault has struck', { skip: skip || last - first < 19 }, () => {
  assert.equal(seen.size, 9, [...seen].join(', '));
});
