// What an application sees, against a Holdline of the tests' own and against a server that is none.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { connect, next, until } from './support/client.mjs';
import { Stub } from './support/stub.mjs';

let stub;
let socket;

beforeEach(async () => {
  stub = await Stub.start();
});

afterEach(async () => {
  if (socket && socket.readyState !== socket.CLOSED) {
    const closed = next(socket, 'close');
    socket.close();
    await closed;
  }
  await stub.stop();
});

const types = () => socket.log.map(({ type }) => type);

async function opened(options) {
  socket = connect(stub.url, options);
  await next(socket, 'open');
  return socket;
}

test('messages go and come with their numbers, text as text and bytes as bytes', async () => {
  await opened();
  socket.send('eins;!zwei');
  socket.send(Uint8Array.of(0, 1, 2, 255));
  socket.send(new Blob(['of a blob']));
  socket.send('after the blob');
  const { journal } = stub.pipe;
  await until(() => journal.length === 4);
  assert.equal(journal[0], 'eins;!zwei');
  assert.deepEqual([...journal[1]], [0, 1, 2, 255]);
  assert.equal(journal[2].toString(), 'of a blob');
  assert.equal(journal[3], 'after the blob');
  for (let i = 0; i < 200; i += 1) stub.pipe.say(`m${i}`);
  stub.pipe.say(Buffer.from([9, 8]));
  await until(() => socket.received.length === 201);
  assert.equal(socket.received[199], 'm199');
  assert.deepEqual([...new Uint8Array(socket.received[200])], [9, 8]);
  await until(() => !stub.pipe.kept.length, 'everything is acknowledged');
});

test('the protocol is the application\'s own, and a pipe is named on a resume only', async () => {
  await opened({ protocols: ['chat', 'talk'] });
  assert.equal(socket.protocol, 'chat');
  const { id } = stub.pipe;
  stub.pipe.cut();
  await next(socket, 'resumed');
  assert.deepEqual(stub.offers, [
    'holdline.v1+chat,holdline.v1+talk,chat,talk',
    `holdline.v1+chat,holdline.v1+talk,holdline.pipe.${id},chat,talk`,
  ]);
});

test('a cut connection is resumed without loss and without a double, both ways', async () => {
  stub.acks = false;
  await opened();
  const { pipe } = stub;
  for (let round = 0; round < 5; round += 1) {
    socket.send(`up ${round}`);
    pipe.say(`down ${round}`);
    if (round % 2) await until(() => pipe.journal.length === 2 * round + 1);
    pipe.cut();
    socket.send(`up ${round} while it was cut`);
    pipe.say(`down ${round} while it was cut`);
    await next(socket, 'resumed');
    await until(() => pipe.journal.length === 2 * round + 2 && socket.received.length === 2 * round + 2);
  }
  const expected = (way) => [0, 1, 2, 3, 4].flatMap((round) => [`${way} ${round}`, `${way} ${round} while it was cut`]);
  assert.deepEqual(pipe.journal, expected('up'));
  assert.deepEqual(socket.received, expected('down'));
  assert.deepEqual(types(), ['open', ...Array(5).fill(['interrupted', 'resumed']).flat()]);
  assert.equal(socket.log[2].resumed, 'ok');
});

test('readyState stays OPEN and messages wait while there is no connection', async () => {
  await opened();
  stub.refuse = 3;
  stub.pipe.cut();
  await next(socket, 'interrupted');
  assert.equal(socket.readyState, socket.OPEN);
  assert.equal(socket.connected, false);
  socket.send('later');
  assert.equal(socket.bufferedAmount, 5);
  await socket.drained();
  assert.deepEqual(stub.pipe.journal, ['later']);
});

test('what the proxy no longer has is told as a gap, and what follows arrives', async () => {
  await opened();
  const { pipe } = stub;
  pipe.say('1');
  await until(() => !pipe.kept.length);
  stub.refuse = 1;
  pipe.cut();
  for (const text of ['2', '3', '4']) pipe.say(text);
  pipe.forget(3);
  await next(socket, 'resumed');
  await until(() => socket.received.length === 2);
  assert.deepEqual(socket.received, ['1', '4']);
  const gap = socket.log.find(({ type }) => type === 'gap');
  assert.deepEqual([gap.lane, gap.from, gap.count, gap.why], ['down', 2, 2, 'overflow']);
});

test('a pipe that is lost is told as gaps both ways, and a new one carries what was never sent', async () => {
  stub.acks = false;
  await opened();
  socket.send('in doubt');
  const lost = socket.sendAcked('in doubt as well');
  await until(() => stub.pipe.journal.length === 2);
  const old = stub.pipe;
  stub.pipes.clear();
  stub.refuse = 1;
  old.cut();
  await next(socket, 'interrupted');
  socket.send('never sent');
  stub.acks = true;
  await assert.rejects(lost);
  await until(() => stub.pipe?.journal.length);
  assert.deepEqual(stub.pipe.journal, ['never sent']);
  const gaps = socket.log.filter(({ type }) => type === 'gap').map(({ lane, count }) => [lane, count]);
  assert.deepEqual(gaps, [['up', 2], ['down', null]]);
  assert.equal(socket.log.at(-1).resumed, 'new');
});

test('sendAcked resolves by the worker\'s word, or by the proxy\'s if that is enough', async () => {
  stub.acks = false;
  await opened();
  const settled = [];
  const worker = socket.sendAcked('a').then(() => settled.push('worker'));
  const proxy = socket.sendAcked('b', { by: 'proxy' }).then(() => settled.push('proxy'));
  await until(() => stub.pipe.journal.length === 2);
  stub.pipe.acknowledge(0);
  await proxy;
  assert.deepEqual(settled, ['proxy']);
  stub.pipe.acknowledge(2);
  await worker;
});

test('send past maxBuffered throws, and the message before is not hurt', async () => {
  stub.acks = false;
  await opened({ maxBuffered: 10 });
  socket.send('0123456789');
  assert.throws(() => socket.send('x'), { name: 'QuotaExceededError' });
  await until(() => stub.pipe.journal.length);
  stub.pipe.acknowledge();
  await socket.drained();
  socket.send('0123456789');
});

test('no more than the window is sent unacknowledged', async () => {
  stub.acks = false;
  stub.welcome = { window_bytes: 100 };
  await opened();
  for (let i = 0; i < 10; i += 1) socket.send('x'.repeat(40));
  await until(() => stub.pipe.journal.length === 2);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(stub.pipe.journal.length, 2);
  stub.acks = true;
  stub.pipe.acknowledge();
  await socket.drained();
  assert.equal(stub.pipe.journal.length, 10);
});

test('close says what waits, then the end with its code', async () => {
  await opened();
  const { pipe } = stub;
  socket.send('last words');
  socket.close(3001, 'done');
  assert.equal(socket.readyState, socket.CLOSING);
  socket.send('too late');
  const { code, reason, wasClean } = await next(socket, 'close');
  assert.deepEqual([code, reason, wasClean], [3001, 'done', true]);
  assert.deepEqual(pipe.journal, ['last words']);
  assert.equal(pipe.fin.code, 3001);
});

test('close without a connection takes one more to say what waits', async () => {
  await opened();
  const { pipe } = stub;
  stub.refuse = 2;
  pipe.cut();
  await next(socket, 'interrupted');
  socket.send('last words');
  socket.close(1000);
  await next(socket, 'close');
  assert.deepEqual(pipe.journal, ['last words']);
  assert.ok(pipe.fin);
});

test('a fin is the end, and everything before it is acknowledged', async () => {
  await opened();
  const { pipe } = stub;
  pipe.say('bye');
  pipe.control({ t: 'fin', code: 4000, reason: 'over', n: 1 });
  const { code, reason, wasClean } = await next(socket, 'close');
  assert.deepEqual([code, reason, wasClean], [4000, 'over', true]);
  await until(() => pipe.controls.some(({ t, n }) => t === 'ack' && n === 1));
  assert.deepEqual(types(), ['open', 'close']);
});

test('a client that was superseded does not come back', async () => {
  await opened();
  stub.pipe.link.close(4901, 'superseded');
  const { code } = await next(socket, 'close');
  assert.equal(code, 4901);
  assert.equal(stub.offers.length, 1);
});

for (const [what, wrong] of Object.entries({
  'a hole': '2;x',
  'a number with a leading zero': '01;x',
  'no number': 'x',
  'an unknown control': '!{"t":"what"}',
  'a control that is not JSON': '!{',
  'a binary message of another form': Buffer.from([1, 1]),
  'a number that is not minimal': Buffer.from([0, 129, 0]),
  'an ack from the future': '!{"t":"ack","n":1}',
})) {
  test(`${what} is answered with 4905, and is the end`, async () => {
    await opened();
    const said = new Promise((resolve) => stub.last.on('close', resolve));
    stub.last.send(wrong);
    const { code, wasClean } = await next(socket, 'close');
    assert.deepEqual([code, wasClean], [4905, false]);
    assert.equal(await said, 4905);
    assert.deepEqual(socket.received, []);
  });
}

test('a dead connection that looks open is found by a probe and left', async () => {
  await opened({ timeouts: { silence: 1, probe: 50 } });
  const { pipe } = stub;
  stub.acks = false;
  stub.silent = true;
  socket.send('into the void');
  await next(socket, 'interrupted');
  await next(socket, 'resumed');
  assert.deepEqual(pipe.journal, ['into the void']);
  // The end of the old one comes late, and is no news.
  [stub.acks, stub.silent] = [true, false];
  await socket.sendAcked('on the new connection');
  assert.deepEqual(types(), ['open', 'interrupted', 'resumed']);
});

test('goaway is followed to a new connection', async () => {
  await opened();
  const { pipe } = stub;
  pipe.control({ t: 'goaway', after_ms: 1, jitter_ms: 1, why: 'drain' });
  await next(socket, 'resumed');
  assert.equal(pipe.gen, 2);
});

test('a heartbeat is answered, and news of the worker are told', async () => {
  await opened();
  stub.silent = true;
  stub.pipe.control({ t: 'hb', n: 77 });
  stub.pipe.control({ t: 'backend', state: 'lost', attach: 1, cause: 'crash' });
  const { detail } = await next(socket, 'backend');
  assert.equal(detail.state, 'lost');
  await until(() => stub.pipe.controls.some(({ t, n }) => t === 'hb' && n === 77));
});

test('a pipe that is busy is asked for again', async () => {
  await opened();
  stub.reject = { why: 'busy', retry_ms: 5 };
  stub.pipe.cut();
  await next(socket, 'resumed');
  assert.deepEqual(types(), ['open', 'interrupted', 'resumed']);
});

test('a listener may send and close, and the on-attributes are called like listeners', async () => {
  socket = connect(stub.url);
  const seen = [];
  socket.onopen = () => seen.push('replaced');
  socket.onopen = function onopen(event) {
    seen.push(event.type, this === socket);
    this.send('from a listener');
  };
  socket.onmessage = ({ data }) => {
    seen.push(data);
    socket.close();
  };
  stub.heard = (pipe, body) => pipe.say(`re: ${body}`);
  await next(socket, 'close');
  assert.deepEqual(seen, ['open', true, 're: from a listener']);
  socket.onopen = null;
  assert.equal(socket.onopen, null);
});

// A server that is no Holdline.

test('a plain server is spoken to plainly, with subprotocols at once', async () => {
  stub.aware = false;
  stub.plain = (link) => link.on('message', (data, binary) => link.send(data, { binary }));
  await opened({ protocols: 'chat', aware: 'auto' });
  assert.equal(socket.protocol, 'chat');
  socket.send('hello');
  await until(() => socket.received.length);
  assert.deepEqual(socket.received, ['hello']);
  assert.equal(socket.pipe, null);
  await assert.rejects(socket.sendAcked('x'), { name: 'NotSupportedError' });
});

test('a plain server without subprotocols is found after two attempts, and known the next time', async () => {
  stub.aware = false;
  await opened({ aware: 'auto' });
  assert.deepEqual(stub.offers, ['holdline.v1', 'holdline.v1', '']);
  const second = connect(stub.url, { aware: 'auto' });
  await next(second, 'open');
  assert.equal(stub.offers.length, 4);
  second.close();
  await next(second, 'close');
});

test('a plain server that picks any subprotocol, and echoes, is found out at once', async () => {
  stub.choose = (offered) => offered[0];
  stub.greet = (link, hello) => {
    link.removeAllListeners('message');
    link.send(`!${JSON.stringify(hello)}`);
  };
  stub.plain = (link) => link.on('message', (data) => link.send(data.toString()));
  await opened({ protocols: 'chat', aware: 'auto' });
  assert.deepEqual(stub.offers, ['holdline.v1+chat,chat', 'chat']);
  assert.equal(socket.pipe, null);
  socket.send('hello');
  await until(() => socket.received.length);
});

test('a plain server that is lost is connected to again, and what may be missing is told', async () => {
  stub.aware = false;
  await opened({ aware: false });
  stub.last.terminate();
  await next(socket, 'resumed');
  const told = socket.log.map(({ type, lane, resumed, count }) => lane ?? resumed ?? (count === null ? count : type));
  assert.deepEqual(told, ['open', 'interrupted', 'up', 'down', 'none']);
  stub.last.close(1000, 'bye');
  const { code } = await next(socket, 'close');
  assert.equal(code, 1000);
});

test('the wait between attempts grows until something was delivered', async () => {
  const attempts = [];
  stub.refuse = 6;
  stub.http.on('upgrade', () => attempts.push(Date.now()));
  await opened();
  assert.equal(attempts.length, 7);
  const waits = attempts.slice(1).map((at, i) => at - attempts[i]);
  assert.ok(waits.at(-1) > 90, `${waits}`);
});
