// Frames of `holdline.v1`, to the byte, and how the wait between attempts grows.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Backoff } from '../src/backoff.js';
import { ProtocolError, agreed, count, decode, encode, offers } from '../src/protocol.js';

const bytes = (...values) => Uint8Array.from(values).buffer;

test('numbers of every length are read as they were written', () => {
  for (const seq of [1, 9, 127, 128, 16_383, 16_384, 2 ** 31, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER]) {
    for (const data of ['', ';!', Uint8Array.of(), Uint8Array.of(0, 128, 255)]) {
      const frame = encode({ seq, data });
      assert.deepEqual(decode(typeof frame === 'string' ? frame : frame.slice().buffer), { seq, data });
    }
  }
});

test('frames are what the protocol says', () => {
  assert.equal(encode({ seq: 7, data: 'x' }), '7;x');
  assert.deepEqual([...encode({ seq: 300, data: Uint8Array.of(9) })], [0, 0xac, 2, 9]);
  assert.equal(encode({ t: 'ack', n: 3 }), '!{"t":"ack","n":3}');
  assert.equal(encode({ seq: 0, data: '!plain' }), '!plain');
});

test('anything else is refused', () => {
  const texts = ['', 'x', ';x', '0;x', '01;x', '-1;x', '1.5;x', '9007199254740992;x', '12345678901234567890;x', '1', '!', '![]'];
  const more = ['!null', '!{}', '!{"t":"hello"}', '!{"t":"what"}', '! {"t":1}'];
  const binaries = [bytes(), bytes(1), bytes(0), bytes(0, 0), bytes(0, 128, 0), bytes(0, 128), bytes(0, ...Array(8).fill(255), 1)];
  for (const raw of [...texts, ...more, ...binaries]) assert.throws(() => decode(raw), ProtocolError, String(raw));
  for (const value of [-1, 1.5, '1', null, undefined, 2 ** 53]) assert.throws(() => count(value), ProtocolError);
});

test('what is offered is ours first, then the pipe, then the application\'s own', () => {
  assert.deepEqual(offers([]), ['holdline.v1']);
  assert.deepEqual(offers(['a', 'b'], 'P'), ['holdline.v1+a', 'holdline.v1+b', 'holdline.pipe.P', 'a', 'b']);
});

test('what was agreed on is told apart from a name that only begins like ours', () => {
  assert.deepEqual(agreed('holdline.v1'), { aware: true, protocol: '' });
  assert.deepEqual(agreed('holdline.v1+chat'), { aware: true, protocol: 'chat' });
  assert.deepEqual(agreed('holdline.v11'), { aware: false, protocol: 'holdline.v11' });
  assert.deepEqual(agreed(''), { aware: false, protocol: '' });
});

test('waits double from the least to the most, with jitter, and progress ends them', () => {
  const longest = new Backoff({ min: 100, max: 1000 }, () => 1);
  assert.deepEqual(Array.from({ length: 7 }, () => longest.next(50)), [50, 100, 200, 400, 800, 1000, 1000]);
  longest.progress();
  assert.equal(longest.next(50), 50);
  const shortest = new Backoff({ min: 100, max: 1000 }, () => 0);
  assert.deepEqual(Array.from({ length: 4 }, () => shortest.next(50)), [0, 50, 100, 200]);
});
