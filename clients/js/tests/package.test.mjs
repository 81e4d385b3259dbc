// What is shipped: how much it weighs, how it is loaded, and that its types are right.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { runInNewContext } from 'node:vm';
import { gzipSync } from 'node:zlib';

const root = new URL('..', import.meta.url);
const shipped = (name) => readFileSync(new URL(`dist/${name}`, root));
const GZIP_BYTES_MAX = 8 * 1024;

for (const name of ['index.js', 'index.cjs', 'holdline.min.js']) {
  test(`${name} is at most 8 KiB, packed`, () => {
    const bytes = gzipSync(shipped(name), { level: 9 }).length;
    assert.ok(bytes <= GZIP_BYTES_MAX, `${bytes} bytes`);
  });
}

test('there are no dependencies, and none is asked for', () => {
  const { dependencies, peerDependenciesMeta } = JSON.parse(readFileSync(new URL('package.json', root)));
  assert.equal(dependencies, undefined);
  assert.equal(peerDependenciesMeta.react.optional, true);
  assert.doesNotMatch(String(shipped('index.js')), /\bimport\b|\brequire\(/);
});

test('it is loaded as a module, by require, and by a script tag', async () => {
  const required = createRequire(import.meta.url)('../dist/index.cjs');
  const imported = await import('../dist/index.js');
  const page = { EventTarget, TextEncoder, WeakMap, Object, Map, Set };
  runInNewContext(String(shipped('holdline.min.js')), page);
  for (const HoldlineSocket of [required.HoldlineSocket, required.default, imported.default, page.HoldlineSocket]) {
    assert.equal(HoldlineSocket.OPEN, 1);
    assert.equal(HoldlineSocket.prototype.onmessage, null);
  }
});

test('it names itself as the package does', async () => {
  assert.equal(typeof (await import('holdline')).HoldlineSocket, 'function');
  assert.equal(typeof (await import('holdline/react')).useHoldline, 'function');
});

test('the types hold, in the source and for those who use them', () => {
  execFileSync('node_modules/.bin/tsc', ['--project', 'tsconfig.json'], { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
});
