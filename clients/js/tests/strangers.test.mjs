// Other people's clients, as they are, behind the real proxy: reconnecting-websocket and partysocket, which connect again
// whenever they are closed, and know nothing of Holdline but an id of their own in the address (`routes.client_id`).
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { WebSocket as PartySocket } from 'partysocket';
import ReconnectingWebSocket from 'reconnecting-websocket';
import { WebSocket, next, until } from './support/client.mjs';
import { Holdline, program } from './support/holdline.mjs';
import { Network } from './support/network.mjs';

const KINDS = { 'reconnecting-websocket': ReconnectingWebSocket.default ?? ReconnectingWebSocket, partysocket: PartySocket };
/** How a client is told that another has taken its place, by route. */
const ROUTES = { named: 1000, told: 4901 };
const QUICK = { WebSocket, minReconnectionDelay: 20, maxReconnectionDelay: 100, minUptime: 0 };
const skip = existsSync(program) ? false : `no ${program}: cargo build --bin holdline`;
let holdline;
let network;

before(async () => {
  if (skip) return;
  const route = (name, more) => `[[routes]]\nname = "${name}"\npath = "/${name}"\npool = "default"\nclient_id = "{query.id}"\n${more}`;
  const rest = '[[routes]]\nname = "rest"\npath = "/{*rest}"\npool = "default"\n';
  holdline = await Holdline.start(`[[pools]]\nname = "default"\n${route('named', '')}${route('told', 'replaced_code = 4901\n')}${rest}`);
  network = await Network.start(holdline.host, holdline.port);
});

after(async () => {
  await network?.stop();
  await holdline?.stop();
});

/** A client of this kind, with all that it heard. */
function client(Kind, path, id) {
  const socket = new Kind(`ws://127.0.0.1:${network.port}${path}?id=${id}`, [], QUICK);
  Object.assign(socket, { opens: 0, closes: [], heard: [] });
  socket.addEventListener('open', () => (socket.opens += 1));
  socket.addEventListener('close', ({ code, reason }) => socket.closes.push(`${code} ${reason}`));
  // Attach, how many its worker has said, and what it answers.
  socket.addEventListener('message', ({ data }) => socket.heard.push(data.split(' ', 3).join(' ')));
  return socket;
}

/** How often a client of this route was refused as one of two that replace each other. */
async function taken(route) {
  const metrics = await (await fetch(`${holdline.admin}/metrics`)).text();
  const lines = metrics.split('\n').filter((it) => it.startsWith('holdline_client_resumes_total{result="taken"') && it.includes(`route="${route}"`));
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

for (const [name, Kind] of Object.entries(KINDS)) {
  test(`${name}: one that is cut off comes back to its conversation`, { skip }, async () => {
    const socket = client(Kind, '/named', randomUUID());
    await next(socket, 'open');
    socket.send('1 1 before');
    await until(() => socket.heard.length === 1);
    network.cut();
    await until(() => socket.opens === 2);
    socket.send('2 1 behind');
    await until(() => socket.heard.includes('1 2 2'), 'what its worker says next');
    // What came just before the cut may come again: such a client cannot say that it has it.
    assert.deepEqual([...new Set(socket.heard)], ['1 1 1', '1 2 2'], 'its worker saw one connection all along');
    socket.close();
  });

  for (const [route, code] of Object.entries(ROUTES)) test(`${name}: of two tabs that come back on ${code}, one stays`, { skip }, async () => {
    const id = randomUUID();
    const before = await taken(route);
    const first = client(Kind, `/${route}`, id);
    await next(first, 'open');
    const tabs = [first, client(Kind, `/${route}`, id)];
    while ((await taken(route)) === before);
    const there = await until(() => tabs.find((tab) => tab.readyState === 1), 'one is there');
    there.send('1 1 untouched');
    await until(() => there.heard.length > 0);
    assert.ok(tabs.flatMap((tab) => tab.closes).includes(`${code} replaced`));
    tabs.forEach((tab) => tab.close());
  });
}
