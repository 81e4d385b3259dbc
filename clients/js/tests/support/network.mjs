// A network between the client and the proxy that goes wrong on demand: bytes are relayed, late, never, or not at all.
import { connect, createServer } from 'node:net';

export class Network {
  #lines = new Set();
  /** The next attempts that are refused, and those that live for a moment only. */
  #refused = 0;
  #shortLived = 0;
  #blocked = new Set();
  accepted = 0;
  /** The ways that something went: `ws`, `sse` and `poll`. */
  ways = new Set();

  static async start(host, port) {
    const network = new Network();
    network.server = createServer((socket) => network.#carry(socket, host, port));
    await new Promise((resolve) => network.server.listen(0, '127.0.0.1', resolve));
    network.port = network.server.address().port;
    return network;
  }

  async stop() {
    this.cut();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** All connections are reset. */
  cut() {
    for (const line of this.#lines) line.end();
  }

  /** Nothing is carried for so long, and then all of it. */
  stall(ms) {
    for (const line of this.#lines) line.stall(ms);
  }

  /** The connections look open, and carry nothing any more. */
  halfOpen() {
    for (const line of this.#lines) line.swallows = true;
  }

  /** What one side says is lost from now on, and a little later the connection. */
  drop(way, ms) {
    for (const line of this.#lines) {
      line.lost = way;
      line.later(() => line.end(), ms);
    }
  }

  refuse(attempts) {
    this.#refused = attempts;
    this.cut();
  }

  /** The next connections end after 200 ms each. */
  dieYoung(attempts) {
    this.#shortLived = attempts;
    this.cut();
  }

  /** From now on these ways are closed, whatever was open is too, and every other way is free. */
  block(...ways) {
    this.#blocked = new Set(ways);
    this.cut();
  }

  /** Whether the request that begins here may pass; what is no request's head belongs to one that may. */
  passes(bytes) {
    const way = wayOf(bytes);
    if (this.#blocked.has(way)) return false;
    if (way) this.ways.add(way);
    return true;
  }

  /** New connections live. What is half open stays so: nothing but a probe tells. */
  heal() {
    this.#refused = this.#shortLived = 0;
    this.#blocked = new Set();
  }

  #carry(socket, host, port) {
    this.accepted += 1;
    if (this.#refused > 0) {
      this.#refused -= 1;
      socket.on('error', () => {});
      socket.resetAndDestroy();
      return;
    }
    const line = new Line(socket, connect({ host, port, noDelay: true }), {
      passes: (bytes) => this.passes(bytes),
      gone: () => this.#lines.delete(line),
    });
    this.#lines.add(line);
    if (this.#shortLived > 0) {
      this.#shortLived -= 1;
      line.later(() => line.end(), 200);
    }
  }
}

class Line {
  swallows = false;
  lost = null;
  #timers = new Set();
  #sides;
  #gone;

  constructor(client, server, { passes, gone }) {
    client.setNoDelay();
    this.#sides = { up: [client, server], down: [server, client] };
    this.#gone = gone;
    for (const [way, [from, to]] of Object.entries(this.#sides)) {
      from.on('data', (bytes) => {
        if (this.swallows || this.lost === way) return;
        if (way === 'down' || passes(bytes)) to.write(bytes);
        else this.end();
      });
      from.on('end', () => this.swallows || this.end());
      from.on('error', () => this.swallows || this.end());
    }
  }

  stall(ms) {
    for (const [from] of Object.values(this.#sides)) from.pause();
    this.later(() => {
      for (const [from] of Object.values(this.#sides)) from.resume();
    }, ms);
  }

  later(act, ms) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, ms);
    this.#timers.add(timer);
  }

  end() {
    for (const timer of this.#timers) clearTimeout(timer);
    for (const [from] of Object.values(this.#sides)) from.destroy();
    this.#gone();
  }
}

/** By which way the request goes whose head begins here: a client writes a head at once. */
function wayOf(bytes) {
  if (!/^(GET|POST|HEAD|OPTIONS) /.test(bytes.toString('latin1', 0, 8))) return null;
  const head = bytes.toString('latin1').split('\r\n\r\n', 1)[0].toLowerCase();
  if (/\r\nupgrade: *websocket/.test(head)) return 'ws';
  return /\r\naccept: *text\/event-stream/.test(head) ? 'sse' : 'poll';
}
