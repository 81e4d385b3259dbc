// The session alone: what it is told, and what it wants done.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Session } from '../src/session.js';

const WELCOME = { t: 'welcome', id: 'P', token: 'T1', epoch: 1, gen: 1, window_bytes: 1000, custody: 'proxy' };
const resumed = (more) => ({ t: 'resumed', epoch: 1, gen: 2, token: 'T2', rx: 0, tx: [1, 1], custody: 'proxy', ...more });

/** All that is to be done, without what only the page's storage is told. */
function outputs(session) {
  const all = [];
  for (let output; (output = session.take()); ) if (!['save', 'forget', 'attached'].includes(output[0])) all.push(output);
  return all;
}

const sent = (session) => outputs(session).filter(([what]) => what === 'send').map(([, frame]) => frame);
const told = (list, type) => list.filter(([what, which]) => what === 'tell' && which === type).map(([, , detail]) => detail);
const hear = (session, frame) => session.receive(() => frame);

function live(more) {
  const session = new Session();
  session.open('holdline.v1');
  hear(session, { ...WELCOME, ...more });
  outputs(session);
  return session;
}

function cutAndOpen(session) {
  session.lose(1006, '', false);
  session.open('holdline.v1');
  return sent(session)[0];
}

test('a new pipe is greeted, and nothing is sent before the welcome', () => {
  const session = new Session();
  session.send('early', 5, null);
  session.open('holdline.v1+chat');
  assert.deepEqual(sent(session), [{ t: 'hello', v: 1 }]);
  hear(session, WELCOME);
  assert.deepEqual(outputs(session), [['opened'], ['send', { seq: 1, data: 'early' }]]);
  assert.equal(session.protocol, 'chat');
});

test('a resume says where both lanes stand, and sends again what the proxy does not have, under its number', () => {
  const session = live();
  for (const text of ['a', 'b', 'c']) session.send(text, 1, null);
  hear(session, { t: 'ack', n: 1 });
  hear(session, { seq: 1, data: 'x' });
  outputs(session);
  const hello = cutAndOpen(session);
  assert.deepEqual(hello.resume, { id: 'P', token: 'T1', epoch: 1, rx: 1, tx: [2, 4] });
  hear(session, resumed({ rx: 2 }));
  assert.deepEqual(sent(session), [{ seq: 3, data: 'c' }]);
  assert.deepEqual(cutAndOpen(session).resume.token, 'T2');
});

test('a message that comes twice is given out once', () => {
  const session = live();
  for (const seq of [1, 2, 1, 2, 3]) hear(session, { seq, data: `${seq}` });
  assert.deepEqual(outputs(session).map(([, data]) => data), ['1', '2', '3']);
});

test('sixteen messages or a quarter of the window are acknowledged at once, and given out before', () => {
  const session = live();
  for (let seq = 1; seq <= 16; seq += 1) hear(session, { seq, data: '' });
  const all = outputs(session);
  assert.deepEqual(all.at(-1), ['send', { t: 'ack', n: 16 }]);
  assert.equal(all.length, 17);
  hear(session, { seq: 17, data: 'x'.repeat(250) });
  assert.deepEqual(sent(session), [{ t: 'ack', n: 17 }]);
  assert.equal(session.owesAck, false);
});

test('gaps move the lane on, once, by a count or up to a number', () => {
  const session = live();
  const gap = (from, count) => hear(session, { t: 'gap', lane: 'down', from, count, bytes: null, why: 'policy' });
  gap(1, 2);
  gap(1, 2); // again, after a resume
  hear(session, { seq: 3, data: 'three' });
  gap(10, null);
  hear(session, { seq: 10, data: 'ten' });
  const all = outputs(session);
  assert.deepEqual(told(all, 'gap').map(({ from, count }) => [from, count]), [[1, 2], [10, null]]);
  assert.deepEqual(all.filter(([what]) => what === 'deliver').map(([, data]) => data), ['three', 'ten']);
  gap(12, 1);
  assert.equal(outputs(session).at(-1)[1], 4905, 'a gap that leaves a hole before it');
});

test('a gap of ours rejects those who wait for just these messages', async () => {
  const session = live();
  const results = [];
  for (const text of ['a', 'b', 'c']) {
    const note = (what) => () => results.push(text + what);
    session.send(text, 1, { by: 'worker', resolve: note('+'), reject: note('-') });
  }
  hear(session, { t: 'ack', n: 3, d: 1 });
  hear(session, { t: 'gap', lane: 'up', from: 2, count: 1, bytes: null, why: 'backend-lost' });
  hear(session, { t: 'ack', n: 3, d: 3 });
  assert.deepEqual(results, ['a+', 'b-', 'c+']);
});

test('with custody at the worker, a message is kept until the worker has it', () => {
  const session = live({ custody: 'backend' });
  session.send('a', 1, null);
  hear(session, { t: 'ack', n: 1, d: 0 });
  assert.equal(session.outbox.bytes, 1);
  cutAndOpen(session);
  hear(session, resumed({ rx: 0, custody: 'backend' }));
  assert.deepEqual(sent(session), [{ seq: 1, data: 'a' }]);
  hear(session, { t: 'ack', n: 1, d: 1 });
  assert.equal(session.outbox.bytes, 0);
});

test('what a page could not save is told to both ends, and its numbers are not given again', () => {
  const session = new Session();
  session.restore({ pipe: { id: 'P', token: 'T1', epoch: 1 }, rx: 4, next: 8, items: [] });
  session.send('new', 3, null);
  session.open('holdline.v1');
  assert.deepEqual(sent(session)[0].resume, { id: 'P', token: 'T1', epoch: 1, rx: 4, tx: [8, 8] });
  hear(session, resumed({ rx: 5, tx: [5, 9] }));
  const all = outputs(session);
  assert.deepEqual(told(all, 'gap').map(({ lane, from, count }) => [lane, from, count]), [['up', 6, 2]]);
  const frames = all.filter(([what]) => what === 'send').map(([, frame]) => frame);
  assert.deepEqual([frames[0].t, frames[0].from, frames[0].count], ['gap', 6, 2]);
  assert.deepEqual(frames[1], { seq: 8, data: 'new' });
  assert.deepEqual(told(all, 'resumed'), [{ resumed: 'ok', reloaded: true }]);
});

test('what a page did save is sent again by the next one', () => {
  const first = live();
  first.send('a', 1, null);
  first.send(Uint8Array.of(1), 1, null);
  const second = new Session();
  second.restore(JSON.parse(JSON.stringify(first.saved())));
  assert.deepEqual(second.saved().items.map(({ seq }) => seq), [1, 2]);
  second.open('holdline.v1');
  hear(second, resumed({ rx: 1 }));
  assert.equal(sent(second).at(-1).seq, 2);
});

test('a page that crashed may have sent more than it saved', () => {
  const session = new Session();
  session.restore({ pipe: { id: 'P', token: 'T1', epoch: 1 }, rx: 0, next: 2, items: [] });
  session.open('holdline.v1');
  hear(session, resumed({ rx: 9 }));
  session.send('ten', 3, null);
  assert.deepEqual(sent(session).at(-1), { seq: 10, data: 'ten' });
  const other = live();
  cutAndOpen(other);
  hear(other, resumed({ rx: 1 }));
  assert.equal(outputs(other).at(-1)[1], 4905, 'no other client can be told of what it did not send');
});

for (const why of ['unknown', 'expired', 'epoch', 'auth', 'version']) {
  test(`a resume that is rejected with ${why} begins a new pipe and says so`, () => {
    const session = live();
    session.send('a', 1, null);
    cutAndOpen(session);
    session.send('b', 1, null);
    hear(session, { t: 'reject', why });
    const all = outputs(session);
    assert.deepEqual(told(all, 'gap').map(({ lane, count }) => [lane, count]), [['up', 1], ['down', null]]);
    assert.deepEqual(all.at(-1), ['reconnect', 0]);
    session.open('holdline.v1');
    assert.deepEqual(sent(session), [{ t: 'hello', v: 1 }]);
    hear(session, { ...WELCOME, id: 'Q' });
    const news = outputs(session);
    assert.deepEqual(told(news, 'resumed'), [{ resumed: 'new', reloaded: false }]);
    assert.deepEqual(news.at(-1), ['send', { seq: 1, data: 'b' }]);
  });
}

test('a fin for the server\'s own trouble begins a new pipe, unless we said goodbye, and any other one is the end', () => {
  for (const code of [1001, 1011, 1012, 1013]) {
    const session = live();
    hear(session, { t: 'fin', code, reason: 'trouble', n: 0 });
    const all = outputs(session);
    assert.deepEqual(told(all, 'interrupted'), [{ code, reason: 'trouble' }]);
    assert.deepEqual(told(all, 'gap').map(({ lane }) => lane), ['down']);
    assert.deepEqual(all.at(-1), ['reconnect', null]);
    session.open('holdline.v1');
    assert.deepEqual(sent(session), [{ t: 'hello', v: 1 }]);
  }
  for (const [code, says] of [[1000, false], [1008, false], [4321, false], [1012, true]]) {
    const session = live();
    if (says) session.close(1000, '');
    hear(session, { t: 'fin', code, reason: '', n: 0 });
    assert.deepEqual(outputs(session).at(-1), ['end', code, '', true]);
  }
});

test('a pipe that others take over and over is left alone for a while, and not given up', () => {
  const session = live();
  cutAndOpen(session);
  hear(session, { t: 'reject', why: 'taken' });
  assert.deepEqual(outputs(session), [['reconnect', 10_000]]);
  session.open('holdline.v1');
  assert.equal(sent(session)[0].resume.id, 'P');
});

test('an interruption is told once, however many attempts fail', () => {
  const session = live();
  for (let attempt = 0; attempt < 3; attempt += 1) session.lose(1006, '', false);
  session.open('holdline.v1');
  session.lose(1006, '', false);
  assert.equal(told(outputs(session), 'interrupted').length, 1);
});

test('codes that end a plain connection interrupt one of Holdline, and its own end it', () => {
  for (const [protocol, code, ends] of [
    ['', 1000, true], ['', 1006, false], ['', 1012, false], ['', 4000, true],
    ['holdline.v1', 1000, false], ['holdline.v1', 1012, false], ['holdline.v1', 4900, false],
    ['holdline.v1', 4901, true], ['holdline.v1', 4903, true], ['holdline.v1', 4905, true],
  ]) {
    const session = new Session();
    session.open(protocol);
    if (protocol) hear(session, WELCOME);
    session.lose(code, '', true);
    assert.equal(outputs(session).at(-1)[0], ends ? 'end' : 'reconnect', `${protocol} ${code}`);
  }
});

test('words at the wrong time are refused', () => {
  for (const frame of [WELCOME, resumed(), { t: 'reject', why: 'x' }]) {
    const session = live();
    hear(session, frame);
    assert.equal(outputs(session).at(-1)[1], 4905, frame.t);
  }
  for (const frame of [{ t: 'ack', n: 0 }, { t: 'live' }, { seq: 1, data: '' }, resumed(), { ...WELCOME, id: 1 }]) {
    const session = new Session();
    session.open('holdline.v1');
    hear(session, frame);
    assert.deepEqual(outputs(session).at(-1), ['stranger'], 'who speaks so is no Holdline');
  }
});
