/**
 * `HoldlineSocket`: what an application sees of a pipe, in the shape of a `WebSocket`.
 *
 * It owns the link in use, the timers and the events; what a frame or a loss means, the session decides.
 *
 * Invariant: there is one link at most; one that was dropped says nothing any more.
 *
 * @typedef {import('./transport.js').Link} Link
 * @typedef {import('./session.js').Output} Output
 */
import { Backoff } from './backoff.js';
import { httpLink } from './http.js';
import { sizeOf } from './outbox.js';
import { CLOSE, offers } from './protocol.js';
import { Route } from './route.js';
import { Session } from './session.js';
import { Shelf, surroundings } from './storage.js';
import { socketLink } from './transport.js';
import { watch } from './wake.js';

const DEFAULTS = {
  /** @type {boolean | 'auto'} */
  aware: 'auto',
  transports: /** @type {import('./route.js').Transport[]} */ (['ws', 'sse', 'poll']),
  maxBuffered: 4 * 1024 * 1024,
  persist: true,
  backoff: { min: 500, max: 15_000 },
  /** Milliseconds: to open and greet, for the answer to a probe, of silence while something is unacknowledged, to close. */
  timeouts: { open: 10_000, probe: 5000, silence: 3000, close: 5000 },
};
const ACK_DELAY_MS = 200;
/** A link that lasts this long was no failure, even if nothing came. */
const STABLE_MS = 5000;
const EVENTS = 'open message error close interrupted resumed gap backend'.split(' ');
/** What worked for which origin. */
const memory = new Map();

const [CONNECTING, OPEN, CLOSING, CLOSED] = [0, 1, 2, 3];

export class HoldlineSocket extends EventTarget {
  extensions = '';
  /** @type {'blob' | 'arraybuffer'} */
  binaryType = 'blob';

  #options;
  #url;
  #origin;
  #protocols;
  #readyState = CONNECTING;
  #session = new Session();
  #backoff;
  #route;
  #shelf;
  /** @type {Link | null} */
  #link = null;
  /** @type {import('./route.js').Attempt | null} what the link in use is, until something was heard of it */
  #unproven = null;
  #linkedAt = 0;
  #heardAt = 0;
  /** @type {Record<string, any>} the timers that run, by name */
  #timers = {};
  #isActing = false;
  /** @type {{resolve: () => void, reject: (error: unknown) => void}[]} */
  #draining = [];
  #unwatch = () => {};

  /** @param {string | URL} url @param {string | string[]} [protocols] @param {object} [options] see the types */
  constructor(url, protocols = [], options = {}) {
    super();
    /** @type {any} */
    const given = options;
    this.#options = {
      WebSocket: globalThis.WebSocket,
      fetch: globalThis.fetch?.bind(globalThis),
      ...DEFAULTS,
      ...given,
      backoff: { ...DEFAULTS.backoff, ...given.backoff },
      timeouts: { ...DEFAULTS.timeouts, ...given.timeouts },
    };
    if (!this.#options.WebSocket) throw new TypeError('options.WebSocket');
    this.#url = absolute(url);
    this.#protocols = [protocols].flat();
    this.#backoff = new Backoff(this.#options.backoff);
    const { aware, transports } = this.#options;
    this.#origin = new URL(this.#url).origin;
    this.#route = new Route({ aware, transports, protocols: this.#protocols, origin: this.#origin }, memory);
    const keeps = this.#options.persist && aware !== false;
    this.#shelf = new Shelf(`${this.#url} ${this.#protocols}`, keeps ? (given.surroundings ?? surroundings()) : {});
    this.#unwatch = watch({
      wake: () => this.#wake(),
      tick: () => this.#tick(),
      hide: () => this.#save(),
      leave: () => this.#leave(),
      comeBack: () => this.#comeBack(),
    });
    void this.#begin();
  }

  get url() {
    return this.#url;
  }

  get readyState() {
    return this.#readyState;
  }

  get protocol() {
    return this.#session.protocol;
  }

  /** Whether there is a link just now; `readyState` stays OPEN while there is none. */
  get connected() {
    return this.#session.isLive;
  }

  /** The pipe's id, for support requests and logs; `null` if the server is no Holdline. */
  get pipe() {
    return this.#session.pipe?.id ?? null;
  }

  /** Bytes that are not in safe hands yet: never sent, or not acknowledged. */
  get bufferedAmount() {
    const { outbox, isAware } = this.#session;
    return outbox.bytes + (isAware ? 0 : (this.#link?.bufferedAmount ?? 0)); // an aware link's bytes are in the outbox, too
  }

  /** @param {string | ArrayBufferLike | ArrayBufferView | Blob} data */
  send(data) {
    this.#enqueue(data, null);
  }

  /**
   * Sends, and resolves when the message has arrived: at the worker, or with `by: 'proxy'` in the proxy's custody.
   * @param {string | ArrayBufferLike | ArrayBufferView | Blob} data @param {{by?: 'proxy' | 'worker'}} [options]
   * @returns {Promise<void>}
   */
  sendAcked(data, { by = 'worker' } = {}) {
    return new Promise((resolve, reject) => {
      if (this.#readyState > 1) reject(new DOMException('closed', 'InvalidStateError'));
      else this.#enqueue(data, { by, resolve, reject });
    });
  }

  /** Resolves when nothing is buffered any more. @returns {Promise<void>} */
  drained() {
    return new Promise((resolve, reject) => {
      this.#draining.push({ resolve, reject });
      this.#settleDrained();
    });
  }

  /** @param {number} [code] @param {string} [reason] */
  close(code = CLOSE.NORMAL, reason = '') {
    if (code !== CLOSE.NORMAL && !(code >= 3000 && code <= 4999)) {
      throw new DOMException('bad code', 'InvalidAccessError');
    }
    if (sizeOf(reason) > 123) throw new DOMException('long reason', 'SyntaxError');
    if (this.#readyState > 1) return;
    this.#readyState = CLOSING;
    this.#after('close', this.#options.timeouts.close, () => this.#session.end(CLOSE.LOST, '', false));
    this.#session.close(code, reason);
    queueMicrotask(() => this.#act()); // no event is fired before this returns
  }

  // Messages on their way out.

  /** @param {any} data @param {import('./outbox.js').Waits | null} waits */
  #enqueue(data, waits) {
    if (this.#readyState > 1) return;
    const isBlob = globalThis.Blob && data instanceof Blob;
    const body = isBlob ? null : bodyOf(data);
    const bytes = body === null ? data.size : sizeOf(body);
    if (this.bufferedAmount + bytes > this.#options.maxBuffered) {
      throw new DOMException('maxBuffered', 'QuotaExceededError');
    }
    const item = this.#session.send(body, bytes, waits);
    if (isBlob) void this.#fill(item, data);
    this.#act();
  }

  /** A Blob keeps its place in the order while it is read. @param {import('./outbox.js').Item} item @param {Blob} blob */
  async #fill(item, blob) {
    item.data = new Uint8Array(await blob.arrayBuffer());
    this.#session.pump();
    this.#act();
  }

  #settleDrained() {
    if (!this.#draining.length) return;
    if (!this.bufferedAmount) for (const { resolve } of this.#draining.splice(0)) resolve();
    // A plain socket has no event for what it has written.
    else if (this.#session.isLive && !this.#session.isAware) this.#after('drained', 50, () => this.#settleDrained());
  }

  // The link and its timers.

  async #begin() {
    const saved = await this.#shelf.takeUp();
    if (this.#readyState > 1) return;
    if (saved) this.#session.restore(saved);
    this.#connect();
  }

  async #connect() {
    const { timeouts } = this.#options;
    this.#stop('connect');
    this.#drop();
    if (this.#route.asksForHttp && !(await this.#answersHttp())) this.#route.down();
    if (this.#link || this.#readyState === CLOSED) return;
    const attempt = this.#route.next();
    this.#unproven = attempt;
    this.#linkedAt = this.#heardAt = Date.now();
    this.#after('open', timeouts.open, () => this.#estranged());
    try {
      this.#link = this.#openLink(attempt);
    } catch {
      this.#lose(CLOSE.LOST, '', false); // a browser that forbids it, for instance ws: from an https: page
    }
  }

  /** @param {import('./route.js').Attempt} attempt @returns {Link} */
  #openLink({ transport, aware }) {
    const { WebSocket, fetch } = this.#options;
    /** @type {import('./transport.js').Events} */
    const on = {
      open: (protocol) => this.#opened(protocol),
      frame: (read) => this.#received(read),
      close: (code, reason, clean) => this.#lose(code, reason, clean),
    };
    const url = this.#url;
    const protocols = this.#protocols;
    return transport === 'ws'
      ? socketLink(WebSocket, url, aware ? offers(protocols, this.#session.pipe?.id) : protocols, on)
      : httpLink({ fetch, url, protocols, sse: transport === 'sse', received: () => this.#settled() }, on);
  }

  /** @param {string} protocol */
  #opened(protocol) {
    this.#session.open(protocol);
    if (!this.#session.isAware) this.#heard();
    this.#act();
  }

  /** @param {() => import('./protocol.js').Frame} read */
  #received(read) {
    this.#heardAt = Date.now();
    this.#stop('probe');
    const { outbox } = this.#session;
    const before = outbox.bytes;
    if (this.#session.receive(read)) this.#heard();
    if (outbox.bytes < before) this.#backoff.progress();
    this.#act();
  }

  /** It did not open, or not in our protocol. */
  #estranged() {
    if (this.#session.isAware) this.#route.stranger();
    this.#lose(CLOSE.LOST, '', false);
  }

  #heard() {
    if (this.#unproven) this.#route.heard(this.#unproven);
    this.#unproven = null;
  }

  /** @param {number} code @param {string} reason @param {boolean} clean */
  #lose(code, reason, clean) {
    if (this.#unproven) this.#route.unheard();
    if (this.#session.isLive && Date.now() - this.#linkedAt > STABLE_MS) this.#backoff.progress();
    this.#drop();
    this.#session.lose(code, reason, clean);
    this.#act();
  }

  #drop() {
    this.#stop('open', 'probe', 'ack', 'move');
    this.#unproven = null;
    this.#link?.drop();
    this.#link = null;
  }

  /** How far everything was given out, saved and acknowledged. */
  #settled() {
    this.#session.acknowledge();
    this.#act();
    return this.#session.rx;
  }

  async #answersHttp() {
    try {
      const url = this.#url.replace(/^ws/, 'http');
      await this.#options.fetch(url, { method: 'HEAD', mode: 'no-cors', signal: AbortSignal.timeout(5000) });
      return true;
    } catch {
      return false;
    }
  }

  // What the session wants done.

  #act() {
    if (this.#isActing) return; // a listener called us: what it wants comes behind what is under way
    this.#isActing = true;
    for (let output; (output = this.#session.take()); ) this.#do(output);
    this.#isActing = false;
    if (this.#session.owesAck) this.#timers.ack ??= setTimeout(() => this.#settled(), ACK_DELAY_MS);
    else this.#stop('ack');
    this.#settleDrained();
  }

  /** @param {Output} output */
  #do(output) {
    switch (output[0]) {
      case 'send':
        return this.#link?.send(output[1]);
      case 'deliver':
        this.#backoff.progress();
        return this.#tell('message', { data: this.#shaped(output[1]), origin: this.#origin });
      case 'tell':
        return this.#tell(output[1], { detail: output[2] });
      case 'opened':
        if (this.#readyState === CONNECTING) this.#readyState = OPEN;
        return this.#tell('open', {});
      case 'attached':
        return this.#stop('open');
      case 'stranger':
        return this.#estranged();
      case 'save':
        return this.#save();
      case 'forget':
        return this.#shelf.clear();
      case 'shut':
        return this.#link?.close(output[1], output[2]);
      case 'reconnect':
        this.#drop();
        return this.#after('connect', output[1] ?? this.#backoff.next(this.#session.jitterMs), () => this.#connect());
      case 'move':
        return this.#after('move', output[1], () => this.#relink(1001, 'goaway'));
      case 'end':
        return this.#end(output[1], output[2], output[3]);
    }
  }

  /** @param {number} code @param {string} reason @param {boolean} clean */
  #end(code, reason, clean) {
    this.#readyState = CLOSED;
    this.#drop();
    this.#stop(...Object.keys(this.#timers));
    this.#shelf.leave();
    this.#unwatch();
    for (const { reject } of this.#draining.splice(0)) reject(new Error('closed'));
    if (!clean) this.#tell('error', {});
    this.#tell('close', { code, reason, wasClean: clean });
  }

  /** @param {string} type @param {Record<string, any>} fields */
  #tell(type, fields) {
    const Kind = { message: MessageEvent, close: /** @type {any} */ (globalThis).CloseEvent }[type];
    this.dispatchEvent(Kind ? new Kind(type, fields) : Object.assign(new Event(type), fields));
  }

  /** @param {string | Uint8Array} data */
  #shaped(data) {
    if (typeof data === 'string') return data;
    // A view into the frame would give away the bytes before it.
    return this.binaryType === 'blob' ? new Blob([/** @type {any} */ (data)]) : data.slice().buffer;
  }

  #save() {
    this.#shelf.save(this.#session.saved());
  }

  // Sleep, silence and reload.

  /** The machine may have slept: whether the link lives is asked, or the wait for the next one is cut short. */
  #wake() {
    if (this.#readyState === CLOSED) return;
    if (!this.#link) return this.#timers.connect && void this.#connect();
    if (this.#session.isLive) return this.#probe();
    if (Date.now() - this.#linkedAt > this.#options.timeouts.probe) this.#relink(CLOSE.LOST, 'no answer');
  }

  #probe() {
    if (this.#timers.probe || !this.#session.probe()) return;
    this.#act();
    this.#after('probe', this.#options.timeouts.probe, () => this.#relink(CLOSE.LOST, 'no answer'));
  }

  #tick() {
    const silence = Date.now() - this.#heardAt;
    const { heartbeatMs, outbox } = this.#session;
    if (outbox.isFlying && silence > this.#options.timeouts.silence) this.#probe();
    if (heartbeatMs && silence > 2 * heartbeatMs) this.#probe();
  }

  /** Leaves the link without waiting for it, and takes another at once. @param {number} code @param {string} reason */
  #relink(code, reason) {
    this.#lose(code, reason, false);
    if (this.#timers.connect) void this.#connect();
  }

  #leave() {
    this.#save();
    this.#shelf.letGo();
  }

  async #comeBack() {
    const pipe = this.#session.pipe;
    if (pipe && !(await this.#shelf.holdAgain(pipe.id))) {
      this.#session.end(CLOSE.SUPERSEDED, 'taken', false);
      return this.#act();
    }
    this.#wake();
  }

  /** @param {string} name @param {number} ms @param {() => void} then */
  #after(name, ms, then) {
    this.#stop(name);
    this.#timers[name] = setTimeout(() => {
      delete this.#timers[name];
      then();
      this.#act();
    }, ms);
  }

  /** @param {string[]} names */
  #stop(...names) {
    for (const name of names) {
      clearTimeout(this.#timers[name]);
      delete this.#timers[name];
    }
  }
}

/** @param {string | URL} url as `new WebSocket` takes it: http: is ws:, and relative is to the page */
function absolute(url) {
  const base = globalThis.document?.baseURI;
  const parsed = new URL(url, base);
  parsed.protocol = parsed.protocol.replace(/^http/, 'ws');
  if (!/^wss?:$/.test(parsed.protocol) || parsed.hash) throw new DOMException('bad URL', 'SyntaxError');
  return parsed.href;
}

/** A copy of what the application may go on to change. @param {any} data @returns {string | Uint8Array} */
function bodyOf(data) {
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice();
  return data instanceof ArrayBuffer ? new Uint8Array(data.slice(0)) : String(data);
}

for (const owner of [HoldlineSocket, HoldlineSocket.prototype]) Object.assign(owner, { CONNECTING, OPEN, CLOSING, CLOSED });

// The `on…` attributes: one listener each, which keeps its place when it is replaced.
for (const type of EVENTS) {
  const handlers = new WeakMap();
  Object.defineProperty(HoldlineSocket.prototype, `on${type}`, {
    configurable: true,
    enumerable: true,
    get() {
      return handlers.get(this) ?? null;
    },
    set(handler) {
      const fresh = !handlers.has(this);
      handlers.set(this, typeof handler === 'function' ? handler : null);
      if (fresh) this.addEventListener(type, (/** @type {Event} */ event) => handlers.get(this)?.call(this, event));
    },
  });
}
