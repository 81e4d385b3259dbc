// A Holdline of the tests' own, written from the protocol's text and sharing no code with the client: one worker that
// journals what it is told and says what a test wants said.
import { createServer } from 'node:http';
import { randomBytes } from 'node:crypto';
import { WebSocketServer } from 'ws';

export class Stub {
  pipes = new Map();
  /** The subprotocols that each attempt offered. */
  offers = [];
  /** How many of the next attempts are refused before they open. */
  refuse = 0;
  /** Whether the server knows `holdline.v1`. */
  aware = true;
  /** What the next hello is answered with, instead of a greeting. */
  reject = null;
  acks = true;
  welcome = {};

  static async start() {
    const stub = new this();
    stub.http = createServer((request, response) => stub.answer(request, response));
    stub.http.on('upgrade', (request, socket, head) => stub.upgrade(request, socket, head));
    await new Promise((resolve) => stub.http.listen(0, '127.0.0.1', resolve));
    stub.port = stub.http.address().port;
    stub.url = `ws://127.0.0.1:${stub.port}/`;
    return stub;
  }

  async stop() {
    for (const socket of this.sockets.clients) socket.terminate();
    this.http.closeAllConnections();
    await new Promise((resolve) => this.http.close(resolve));
  }

  answer(_, response) {
    response.writeHead(404).end();
  }

  sockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    handleProtocols: (offered) => this.choose([...offered]),
  });

  choose(offered) {
    const ours = offered.find((name) => /^holdline\.v1(\+|$)/.test(name));
    if (this.aware && ours) return ours;
    return offered.find((name) => !name.startsWith('holdline.')) ?? false;
  }

  upgrade(request, socket, head) {
    this.offers.push((request.headers['sec-websocket-protocol'] ?? '').replaceAll(', ', ','));
    if (this.refuse > 0) {
      this.refuse -= 1;
      socket.end('HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
      return;
    }
    this.sockets.handleUpgrade(request, socket, head, (link) => {
      this.last = link;
      link.on('error', () => {});
      if (/^holdline\.v1/.test(link.protocol)) link.on('message', (data, binary) => this.hear(link, data, binary));
      else this.plain?.(link);
    });
  }

  hear(link, data, isBinary) {
    const text = isBinary ? null : data.toString();
    if (!link.pipe) return this.greet(link, JSON.parse(text.slice(1)));
    if (text?.startsWith('!')) return this.control(link, JSON.parse(text.slice(1)));
    const { number, body } = isBinary ? readBinary(data) : readText(text);
    link.pipe.hear(number, body);
    if (this.acks) link.pipe.acknowledge();
  }

  greet(link, hello) {
    this.hello = hello;
    if (this.reject) {
      const why = this.reject;
      this.reject = null;
      say(link, { t: 'reject', ...why });
      return link.close(4900, 'resume rejected');
    }
    const { resume } = hello;
    const pipe = resume ? this.pipes.get(resume.id) : new Pipe(this);
    if (!pipe || (resume && pipe.token !== resume.token)) {
      say(link, { t: 'reject', why: 'unknown' });
      return link.close(4900, 'resume rejected');
    }
    pipe.attach(link, resume, this.welcome);
  }

  control(link, control) {
    const { pipe } = link;
    pipe.controls.push(control);
    if (control.t === 'ack') pipe.forget(control.n);
    if (control.t === 'gap') pipe.rx = control.from + control.count - 1;
    if (control.t === 'hb' && !this.silent) say(link, control);
    if (control.t === 'fin') {
      pipe.fin = control;
      this.pipes.delete(pipe.id);
    }
  }

  /** The pipe that was opened last. */
  get pipe() {
    return [...this.pipes.values()].at(-1);
  }
}

class Pipe {
  id = randomBytes(16).toString('base64url');
  gen = 0;
  /** What the worker was told, in order. */
  journal = [];
  controls = [];
  rx = 0;
  next = 1;
  kept = [];

  constructor(stub) {
    this.stub = stub;
    stub.pipes.set(this.id, this);
  }

  attach(link, resume, more) {
    this.link?.terminate();
    this.link = link;
    link.pipe = this;
    this.gen += 1;
    this.token = `hl1.k.${this.gen}.${randomBytes(8).toString('base64url')}`;
    const shared = { token: this.token, epoch: 1, gen: this.gen, custody: 'proxy', ...more };
    const first = this.kept[0]?.number ?? this.next;
    if (!resume) {
      return say(link, { t: 'welcome', id: this.id, ttl_ms: 60_000, window_bytes: 262_144, heartbeat_ms: 25_000, ...shared });
    }
    say(link, { t: 'resumed', rx: this.rx, tx: [first, this.next], ...shared });
    const lost = first - 1 - resume.rx;
    if (lost > 0) say(link, { t: 'gap', lane: 'down', from: resume.rx + 1, count: lost, bytes: null, why: 'overflow' });
    for (const { number, body } of this.kept) if (number > resume.rx) link.send(frame(number, body));
    say(link, { t: 'live' });
  }

  hear(number, body) {
    if (number <= this.rx) return;
    if (number !== this.rx + 1) throw new Error(`a hole before ${number}`);
    this.rx = number;
    this.journal.push(body);
    this.stub.heard?.(this, body);
  }

  acknowledge(d = this.rx) {
    say(this.link, { t: 'ack', n: this.rx, d });
  }

  say(body) {
    this.kept.push({ number: this.next, body });
    this.link?.send(frame(this.next, body));
    this.next += 1;
  }

  /** @param {number} upTo the client has these, or `overflow` took them */
  forget(upTo) {
    this.kept = this.kept.filter(({ number }) => number > upTo);
  }

  control(control) {
    say(this.link, control);
  }

  cut() {
    this.link.terminate();
  }
}

const say = (link, control) => link.send(`!${JSON.stringify(control)}`);

function frame(number, body) {
  if (typeof body === 'string') return `${number};${body}`;
  const digits = [];
  let rest = BigInt(number);
  for (; rest > 127n; rest >>= 7n) digits.push(Number(rest & 127n) | 128);
  return Buffer.from([0, ...digits, Number(rest), ...body]);
}

function readText(text) {
  const [, number, body] = text.match(/^([1-9][0-9]*);([^]*)$/);
  return { number: Number(number), body };
}

function readBinary(data) {
  if (data[0] !== 0) throw new Error('not a message');
  let number = 0n;
  let at = 1;
  for (; ; at += 1) {
    number |= BigInt(data[at] & 127) << BigInt(7 * (at - 1));
    if (data[at] < 128) break;
  }
  return { number: Number(number), body: data.subarray(at + 1) };
}
