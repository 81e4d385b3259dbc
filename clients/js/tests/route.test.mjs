// Which way the next attempt goes.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Route } from '../src/route.js';

const route = (wishes, memory = new Map()) =>
  new Route({ transports: ['ws', 'sse', 'poll'], aware: true, protocols: [], origin: 'o', ...wishes }, memory);

function attempts(given, how) {
  return Array.from({ length: how }, () => {
    const { transport, aware } = given.next();
    given.unheard();
    return aware ? transport : `plain ${transport}`;
  });
}

test('three silent sockets, one more once HTTP was answered, then server-sent events, then polling, then sockets again', () => {
  const way = route();
  assert.deepEqual(attempts(way, 3), ['ws', 'ws', 'ws']);
  assert.ok(way.asksForHttp);
  assert.deepEqual(attempts(way, 4), ['ws', 'sse', 'poll', 'ws']);
});

test('a server that is down pushes no client off WebSocket', () => {
  const way = route();
  for (let outage = 0; outage < 20; outage += 1) {
    if (way.asksForHttp) way.down();
    assert.equal(way.next().transport, 'ws');
    way.unheard();
  }
});

test('a socket over which something came is never fallen back from', () => {
  const way = route();
  for (let restart = 0; restart < 20; restart += 1) {
    attempts(way, 2);
    way.heard(way.next());
    assert.ok(!way.asksForHttp);
  }
});

test('the transport that worked is remembered for ten minutes, for every socket of the page', (context) => {
  context.mock.timers.enable({ apis: ['Date'] });
  const memory = new Map();
  const way = route({}, memory);
  attempts(way, 4);
  way.heard(way.next());
  assert.equal(route({}, memory).next().transport, 'sse');
  assert.equal(route({ origin: 'another' }, memory).next().transport, 'ws');
  context.mock.timers.tick(10 * 60 * 1000 + 1);
  assert.equal(way.next().transport, 'ws');
});

test('a server that may be no Holdline is asked plainly every other time', () => {
  assert.deepEqual(attempts(route({ aware: 'auto', transports: ['ws'] }), 6), ['ws', 'ws', 'plain ws', 'ws', 'plain ws', 'ws']);
  assert.deepEqual(attempts(route({ aware: 'auto', transports: ['ws'], protocols: ['a'] }), 4), ['ws', 'ws', 'ws', 'ws']);
  assert.deepEqual(attempts(route({ aware: false, transports: ['ws'] }), 2), ['plain ws', 'plain ws']);
});

test('a server that proved to be a Holdline is never asked plainly', () => {
  const way = route({ aware: 'auto', transports: ['ws'] });
  way.heard(way.next());
  assert.deepEqual(attempts(way, 6), Array(6).fill('ws'));
});
