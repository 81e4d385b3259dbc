// The helper for workers in Node against a real Holdline: places that are kept, lost and given back, and what headers say.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { commit, Refused, register, Resume } from 'holdline/worker';
import { WebSocket, WebSocketServer } from 'ws';
import { program } from './support/holdline.mjs';

const LOOK_MS = 20;
const SAID_TIMES = 50;
let holdline, admin, url, directory;

before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'holdline-worker-'));
  const config = join(directory, 'proxy.toml');
  const pool = '[[pools]]\nname = "default"\nhealth = { interval = "100ms", timeout = "5s" }\n';
  writeFileSync(config, `[server]\nlisten = ["127.0.0.1:0"]\n[admin]\nlisten = "127.0.0.1:0"\n[log]\nformat = "json"\n${pool}`);
  holdline = spawn(program, ['serve', '-c', config], { stdio: ['ignore', 'ignore', 'pipe'] });
  const addresses = await listening(holdline.stderr);
  admin = `http://${addresses.admin}`;
  url = `ws://${addresses.public}/`;
});

after(async () => {
  holdline.kill('SIGTERM');
  await new Promise((resolve) => holdline.once('exit', resolve));
  rmSync(directory, { recursive: true, force: true });
});

/** Where Holdline listens, as soon as it says so; what it says then is let go. */
function listening(stream) {
  return new Promise((resolve) => {
    const addresses = {};
    let text = '';
    stream.setEncoding('utf8').on('data', (part) => {
      if ('admin' in addresses && 'public' in addresses) return;
      text += part;
      for (const [, name, address] of text.matchAll(/"listener":"(\w+)","address":"([^"]+)"/g)) addresses[name] = address;
      if ('admin' in addresses && 'public' in addresses) resolve(addresses);
    });
  });
}

const ask = async (method, path, body) => {
  const headers = { 'Content-Type': 'application/json' };
  const answer = await fetch(`${admin}${path}`, { method, headers, body: body && JSON.stringify(body) });
  const text = await answer.text();
  return text ? JSON.parse(text) : undefined;
};
const backends = async () => (await ask('GET', '/v1/backends')).items;

async function eventually(look) {
  for (;;) {
    const found = await look();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

const quiet = { lease: '1s', signals: false };
const nowhere = 'ws://127.0.0.1:9';

test('a worker is registered until it leaves, and again when it was forgotten', async () => {
  const place = register(nowhere, { ...quiet, id: 'n1', admin, serves: { k: 'alias' }, health: { type: 'ws', path: '/x' }, maxPipes: 7 });
  await place.registered();
  const [backend] = await backends();
  assert.deepEqual([backend.id, backend.url, backend.serves, backend.max_pipes], ['n1', nowhere, { k: 'alias' }, 7]);
  await ask('DELETE', '/v1/backends/n1');
  await eventually(async () => (await backends()).length === 1);
  await place.leave();
  assert.deepEqual(await backends(), []);
});

test("an operator's drain tells the worker to stop", async () => {
  const place = register(nowhere, { ...quiet, id: 'n1', admin });
  await place.registered();
  await ask('PUT', '/v1/backends/n1/state', { state: 'drain' });
  await place.toldToStop();
  assert.deepEqual(place.directives, ['drain']);
  await place.leave();
});

test('an id that another worker has is told once, and left to that one', async () => {
  const server = await listen();
  const first = register(server.url, { ...quiet, id: 'n1', admin });
  await first.registered();
  await eventually(async () => (await backends())[0].eligible);
  const said = [];
  const second = register(nowhere, { ...quiet, id: 'n1', admin, log: (what) => said.push(what) });
  await eventually(() => said.length);
  await second.leave();
  assert.match(said[0], /^holdline: n1 is not registered with http:\S+: 409: /);
  assert.equal(said.length, 1);
  assert.deepEqual((await backends()).map((backend) => backend.url), [server.url]);
  await first.leave();
  server.close();
});

/** A worker that gives back what it hears. */
async function listen() {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  server.on('connection', (socket) => socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary })));
  await new Promise((resolve) => server.once('listening', resolve));
  return Object.assign(server, { url: `ws://127.0.0.1:${server.address().port}` });
}

test('pipes move before a worker has left, and their clients notice nothing', async () => {
  const servers = [await listen(), await listen()];
  const places = servers.map((server, n) => register(server.url, { ...quiet, id: `n${n}`, admin }));
  await eventually(async () => (await backends()).filter((backend) => backend.eligible).length === 2);
  const client = new WebSocket(url);
  await new Promise((resolve) => client.once('open', resolve));
  const heard = () => new Promise((resolve) => client.once('message', (data) => resolve(String(data))));
  const say = (text) => (client.send(text), heard());
  assert.equal(await say('first'), 'first');
  const [pipe] = (await ask('GET', '/v1/pipes')).items;
  const at = Number(pipe.backend.slice(1));
  const left = places[at].leave().then(() => servers[at].close());
  for (let n = 0; n < SAID_TIMES; n += 1) assert.equal(await say(`${n}`), `${n}`);
  await left;
  assert.equal(await say('last'), 'last');
  assert.equal((await ask('GET', `/v1/pipes/${pipe.id}`)).backend, `n${1 - at}`);
  client.terminate();
  await places[1 - at].leave();
  servers[1 - at].close();
});

test('told twice to stop, it does not wait for its pipes', async () => {
  const server = await listen();
  const place = register(server.url, { ...quiet, id: 'n1', admin });
  await eventually(async () => (await backends())[0]?.eligible);
  const client = new WebSocket(url);
  await new Promise((resolve) => client.once('open', resolve));
  place.stop();
  const left = place.leave();
  await eventually(async () => (await backends())[0].state === 'drain');
  place.stop();
  await left;
  // It goes with its last pipe, which has nowhere to move.
  assert.deepEqual((await backends()).map((backend) => backend.removing), [true]);
  client.terminate();
  for (const socket of server.clients) socket.terminate();
  server.close();
});

test('what is refused is told', async () => {
  await assert.rejects(commit('AAAAAAAAAAAAAAAAAAAAAA', 1, 1, { admin }), (error) => error instanceof Refused && error.status === 404);
  assert.throws(() => register(nowhere, { pools: 'x' }), /there is no option "pools"/);
  assert.throws(() => register(nowhere, { lease: 'soon', admin }), /"soon" is not a duration such as "15s"/);
  assert.throws(() => register(nowhere, { admin: 'localhost' }), /"localhost" is no admin API; write it like http:/);
});

test('an admin API on a socket file is asked as well', async () => {
  const file = `unix:${join(directory, 'admin.sock')}`;
  const config = join(directory, 'second.toml');
  writeFileSync(config, `[server]\nlisten = ["127.0.0.1:0"]\n[admin]\nlisten = "${file}"\n[log]\nformat = "json"\n`);
  const second = spawn(program, ['serve', '-c', config], { stdio: ['ignore', 'ignore', 'pipe'] });
  await listening(second.stderr);
  await assert.rejects(commit('AAAAAAAAAAAAAAAAAAAAAA', 1, 1, { admin: file }), /404: there is no pipe/);
  second.kill('SIGTERM');
  await new Promise((resolve) => second.once('exit', resolve));
});

test('the headers of an attach are read, from whatever holds them', () => {
  assert.equal(Resume.of({ host: 'x' }), null);
  const first = Resume.of({ headers: { 'holdline-pipe': 'p', 'holdline-attach': '1' } });
  assert.deepEqual([first.pipe, first.attach, first.cause, first.firstSeq, first.gap, first.prologue], ['p', 1, null, 1, null, 0]);
  const headers = { 'Holdline-Pipe': 'p', 'Holdline-Attach': '3', 'Holdline-Cause': 'crash', 'Holdline-Previous': 'w1' };
  Object.assign(headers, { 'Holdline-First-Seq': '42', 'Holdline-Replay': '7; bytes=90', 'Holdline-Prologue': '2' });
  Object.assign(headers, { 'Holdline-Confirmed': '41; level=pong', 'Holdline-Gap': '38-41' });
  for (const holder of [headers, new Headers(headers), new Request('http://x/', { headers })]) {
    const { pipe, attach, cause, previous, firstSeq, replayed, replayedBytes, confirmed, level, gap, prologue } = Resume.of(holder);
    assert.deepEqual([pipe, attach, cause, previous, firstSeq], ['p', 3, 'crash', 'w1', 42]);
    assert.deepEqual([replayed, replayedBytes, confirmed, level, gap, prologue], [7, 90, 41, 'pong', { from: 38, to: 41 }, 2]);
  }
  const taken = (numbers) => [1, 2, 3].map(() => numbers.next().value);
  assert.deepEqual(taken(Resume.of(headers).numbers()), [0, 0, 42]);
  assert.deepEqual(taken(Resume.of(headers).numbers(50)), [51, 52, 53]);
  assert.deepEqual(taken(Resume.of(headers).numbers(10)), [42, 43, 44]);
});

test('it is loaded by require as well', () => {
  const required = createRequire(import.meta.url)('../dist/worker.cjs');
  assert.deepEqual(Object.keys(required).sort(), ['Refused', 'Registration', 'Resume', 'commit', 'register']);
});
