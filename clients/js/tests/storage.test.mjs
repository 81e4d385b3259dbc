// Which page of a tab may have the pipe that was left, with locks, with a channel, and with neither.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Shelf } from '../src/storage.js';

const SAVED = { pipe: { id: 'P', token: 'T', epoch: 1 }, rx: 3, next: 5, items: [{ seq: 4, data: 'a' }, { seq: 0, data: Uint8Array.of(0, 255) }] };

/** sessionStorage of one tab; a duplicated tab starts with a copy. */
function tab(copied = {}) {
  const values = { ...copied };
  return {
    values,
    getItem: (key) => values[key] ?? null,
    setItem: (key, value) => (values[key] = value),
    removeItem: (key) => delete values[key],
  };
}

/** Web Locks as far as they are used: one holder for each name, others wait until their signal gives up. */
function lockManager() {
  const held = new Map();
  return {
    held,
    async request(name, { signal }, callback) {
      while (held.has(name)) {
        const awake = setTimeout(() => {}, 10_000); // the signal's own timer lets a Node process end
        await Promise.race([
          held.get(name),
          new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
        ]).finally(() => clearTimeout(awake));
      }
      const holding = callback();
      held.set(name, holding);
      await holding;
      held.delete(name);
    },
  };
}

async function left(around, address = 'ws://a/') {
  const shelf = new Shelf(address, around);
  await shelf.holdAgain('P');
  shelf.save(SAVED);
  return shelf;
}

/** A page that is unloaded: its shelf's place goes with it. */
const unload = (shelf) => shelf.leave();

for (const [name, around] of [
  ['with Web Locks', () => ({ locks: lockManager() })],
  ['with a BroadcastChannel', () => ({ BroadcastChannel })],
]) {
  test(`${name}, the next page takes up what was left, bytes as bytes`, async () => {
    const surroundings = { ...around(), sessionStorage: tab() };
    const first = await left(surroundings);
    unload(first);
    const second = new Shelf('ws://a/', surroundings);
    assert.deepEqual(await second.takeUp(), SAVED);
    unload(second);
  });

  test(`${name}, a duplicated tab does not get the pipe of the one that lives`, async () => {
    const shared = around();
    const sessionStorage = tab();
    const first = await left({ ...shared, sessionStorage });
    const copy = { ...shared, sessionStorage: tab(sessionStorage.values) };
    // In a page of its own the copy would have the same place.
    const place = Object.keys(sessionStorage.values)[0];
    copy.sessionStorage.values[place.replace('#0', '#1')] = sessionStorage.values[place];
    const second = new Shelf('ws://a/', copy);
    assert.equal(await second.takeUp(), null);
    unload(first);
    unload(second);
  });
}

test('without locks and channels, or without sessionStorage, nothing is kept', async () => {
  for (const surroundings of [{ sessionStorage: tab() }, { locks: lockManager() }, {}]) {
    const shelf = new Shelf('ws://a/', surroundings);
    shelf.save(SAVED);
    assert.deepEqual(surroundings.sessionStorage?.values ?? {}, {});
    assert.equal(await shelf.takeUp(), null);
  }
});

test('two sockets to one address have a place each, and what is broken is not taken up', async () => {
  const surroundings = { locks: lockManager(), sessionStorage: tab() };
  const [first, second] = [new Shelf('ws://a/', surroundings), new Shelf('ws://a/', surroundings)];
  first.save(SAVED);
  second.save({ ...SAVED, pipe: { ...SAVED.pipe, id: 'Q' } });
  assert.equal(Object.keys(surroundings.sessionStorage.values).length, 2);
  first.clear();
  assert.equal(Object.keys(surroundings.sessionStorage.values).length, 1);
  unload(first);
  unload(second);
  surroundings.sessionStorage.setItem('holdline:ws://a/#0', '{');
  assert.equal(await new Shelf('ws://a/', surroundings).takeUp(), null);
});
