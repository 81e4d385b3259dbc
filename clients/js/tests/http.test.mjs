// The pipe over HTTP, where no WebSocket gets through.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { connect, next, until } from './support/client.mjs';
import { HttpStub } from './support/http_stub.mjs';

let stub;
let socket;

beforeEach(async () => {
  stub = await HttpStub.start();
});

afterEach(async () => {
  const closed = socket.readyState === socket.CLOSED ? null : next(socket, 'close');
  socket.close();
  await closed;
  await stub.stop();
});

async function opened(transports) {
  socket = connect(stub.url, { transports });
  await next(socket, 'open');
}

for (const transport of ['sse', 'poll']) {
  test(`${transport}: messages go and come, text and bytes, and are acknowledged`, async () => {
    await opened([transport]);
    const { pipe } = stub;
    await Promise.all([socket.sendAcked('up', { by: 'proxy' }), socket.sendAcked(Uint8Array.of(0, 255), { by: 'proxy' })]);
    assert.equal(pipe.journal[0], 'up');
    assert.deepEqual([...pipe.journal[1]], [0, 255]);
    pipe.say('down');
    pipe.say(Buffer.from([1, 2]));
    await until(() => socket.received.length === 2);
    assert.equal(socket.received[0], 'down');
    assert.deepEqual([...new Uint8Array(socket.received[1])], [1, 2]);
    await until(() => !pipe.kept.length, 'it is acknowledged');
  });

  test(`${transport}: close says its end behind what waits`, async () => {
    await opened([transport]);
    const { pipe } = stub;
    socket.send('last words');
    socket.close(3000, 'done');
    const { code, wasClean } = await next(socket, 'close');
    assert.deepEqual([code, wasClean, pipe.journal, pipe.fin?.code], [3000, true, ['last words'], 3000]);
  });

  test(`${transport}: the end comes as a line, and a close as another`, async () => {
    await opened([transport]);
    stub.pipe.say('bye');
    stub.end(stub.pipe, [{ t: 'fin', code: 4321, reason: 'over', n: 1 }, { t: 'close', code: 4321, reason: 'over' }]);
    const { code, reason, wasClean } = await next(socket, 'close');
    assert.deepEqual([code, reason, wasClean, socket.received], [4321, 'over', true, ['bye']]);
  });

  test(`${transport}: a close without an end is an interruption`, async () => {
    await opened([transport]);
    const { pipe } = stub;
    stub.end(pipe, [{ t: 'close', code: 1001, reason: 'restart' }]);
    const { detail } = await next(socket, 'interrupted');
    pipe.kept = [];
    assert.equal(detail.code, 1001);
    await next(socket, 'resumed');
  });

  test(`${transport}: a pipe that is unknown by now is told as lost`, async () => {
    await opened([transport]);
    const { pipe } = stub;
    stub.pipes.clear();
    pipe.link.terminate();
    socket.send('in doubt');
    await next(socket, 'resumed');
    const gaps = socket.log.filter(({ type }) => type === 'gap').map(({ lane, count }) => [lane, count]);
    assert.deepEqual(gaps, [['up', 1], ['down', null]]);
  });
}

test('an answer that is lost is given again, and its messages come once', async () => {
  await opened(['poll']);
  stub.loseAnswers = 2;
  stub.pipe.say('1');
  await next(socket, 'resumed');
  stub.pipe.say('2');
  await until(() => socket.received.length === 2);
  assert.deepEqual(socket.received, ['1', '2']);
});

test('a word is acknowledged by its line', async () => {
  await opened(['poll']);
  const { pipe } = stub;
  pipe.kept.push({ number: 1, body: { t: 'backend', state: 'lost', attach: 1, cause: 'outage', line: 7 } });
  pipe.link.news.emit('news');
  await until(() => stub.after === '0.7');
  pipe.kept = [];
  const told = socket.log.find(({ type }) => type === 'backend');
  assert.deepEqual([told.state, told.line], ['lost', undefined]);
});

test('sockets that never open are left for server-sent events, after HTTP was seen to work', async () => {
  stub.refuse = Infinity;
  await opened(['ws', 'sse', 'poll']);
  assert.equal(stub.offers.length, 4);
  await until(() => stub.requests.length === 3);
  assert.deepEqual(stub.requests, ['HEAD', 'POST hello', 'sse']);
});

test('from one transport to the next, every time, nothing is lost', async () => {
  const ladder = ['ws'];
  socket = connect(stub.url, { transports: ladder });
  await next(socket, 'open');
  const { pipe } = stub;
  for (let round = 1; round <= 9; round += 1) {
    ladder[0] = ['ws', 'sse', 'poll'][round % 3]; // the socket looks at it for each attempt
    socket.send(`up ${round}`);
    pipe.say(`down ${round}`);
    pipe.link.terminate();
    await next(socket, 'resumed');
    await until(() => socket.received.length === round && pipe.journal.length === round);
  }
  const expected = (way) => Array.from({ length: 9 }, (_, i) => `${way} ${i + 1}`);
  assert.deepEqual([pipe.journal, socket.received], [expected('up'), expected('down')]);
});
