// A network between the client and the proxy that goes wrong on demand: bytes are relayed, late, never, or not at all.
import { connect, createServer } from 'node:net';

export class Network {
  #lines = new Set();
  /** The next attempts that are refused, and those that live for a moment only. */
  #refused = 0;
  #shortLived = 0;
  accepted = 0;

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

  /** New connections live. What is half open stays so: nothing but a probe tells. */
  heal() {
    this.#refused = this.#shortLived = 0;
  }

  #carry(socket, host, port) {
    this.accepted += 1;
    if (this.#refused > 0) {
      this.#refused -= 1;
      socket.on('error', () => {});
      socket.resetAndDestroy();
      return;
    }
    const line = new Line(socket, connect({ host, port, noDelay: true }), () => this.#lines.delete(line));
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

  constructor(client, server, gone) {
    client.setNoDelay();
    this.#sides = { up: [client, server], down: [server, client] };
    this.#gone = gone;
    for (const [way, [from, to]] of Object.entries(this.#sides)) {
      from.on('data', (bytes) => this.swallows || this.lost === way || to.write(bytes));
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
