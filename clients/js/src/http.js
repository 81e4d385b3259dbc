/**
 * A link over plain HTTP, for networks that let no WebSocket through: what goes is POSTed as lines of JSON, what comes is
 * read from a stream of server-sent events, or polled for.
 *
 * It speaks the same frames as a WebSocket. The token travels in a header, never in an address. An answer that is lost
 * costs nothing: the link is lost with it, and the next one resumes.
 *
 * @typedef {import('./protocol.js').Frame} Frame
 * @typedef {import('./transport.js').Events} Events
 * @typedef {import('./transport.js').Link} Link
 * @typedef {{fetch: typeof fetch, url: string, protocols: string[], sse: boolean, received: () => number}} Way
 *   `received` gives the number up to which everything was given out and saved
 */
import { CLOSE, offers } from './protocol.js';
import { fromBase64, toBase64 } from './storage.js';

const CONTENT_TYPE = 'application/vnd.holdline+json';
const POLL_WAIT_S = 25;
/** Asks for no more than an answer. */
const ASK = { t: 'hb', n: 0 };
/** What a refusal means: the pipe is unknown, or we are. @type {Record<number, string>} */
const REFUSALS = { 404: 'unknown', 410: 'expired', 401: 'auth', 403: 'auth' };

/** @param {Way} way @param {Events} on @returns {Link} */
export function httpLink(way, on) {
  const link = new HttpLink(way, on);
  queueMicrotask(() => on.open(offers(way.protocols)[0]));
  return link;
}

class HttpLink {
  bufferedAmount = 0;
  #way;
  #on;
  #abort = new AbortController();
  /** @type {Record<string, string>} */
  #headers = {};
  #pipe = '';
  /** The place of the last control word: they have no numbers. */
  #line = 0;
  /** @type {string[]} */
  #lines = [];
  #posting = Promise.resolve();

  /** @param {Way} way @param {Events} on */
  constructor(way, on) {
    this.#way = { ...way, url: way.url.replace(/^ws/, 'http') };
    this.#on = on;
  }

  /** @param {Frame} frame */
  send(frame) {
    if ('t' in frame && frame.t === 'hello') return void this.#run(() => this.#greet(frame));
    // A poll says with each question how far it has come.
    if ('t' in frame && frame.t === 'ack' && !this.#way.sse) return;
    this.#lines.push(line(frame));
    void this.#run(() => this.#post());
  }

  /** @param {number} code @param {string} reason */
  close(code, reason) {
    // The end goes behind what is said already, and is over when that is answered.
    void this.#run(async () => {
      await this.#post();
      this.#on.close(code, reason, true);
    });
  }

  drop() {
    this.#on = { open() {}, frame() {}, close() {} };
    this.#abort.abort();
  }

  /** @param {() => Promise<void>} work whose failure is the end of the link */
  async #run(work) {
    try {
      await work();
    } catch {
      this.#on.close(CLOSE.LOST, '', false);
    }
  }

  /** @param {Frame} hello */
  async #greet(hello) {
    const { protocols } = this.#way;
    const answer = await this.#fetch(this.#way.url, {
      method: 'POST',
      headers: { 'Content-Type': CONTENT_TYPE },
      body: JSON.stringify({ ...hello, protocols }),
    });
    const why = REFUSALS[answer.status];
    if (!why && !answer.ok) throw new Error();
    // A refusal that is the proxy's own says why; one of something in between does not.
    const greeting = await answer.json().catch(() => ({ t: 'reject', why }));
    this.#pipe = greeting.id ?? /** @type {any} */ (hello).resume?.id;
    this.#headers = { 'Holdline-Pipe': this.#pipe, Authorization: `Holdline ${greeting.token}` };
    this.#on.frame(() => greeting);
    if (greeting.t === 'reject') return;
    if (greeting.t === 'resumed') this.send(ASK);
    void this.#run(() => (this.#way.sse ? this.#stream() : this.#poll()));
  }

  /** One request at a time; over when all that was said by then is answered. */
  #post() {
    return (this.#posting = this.#posting.then(async () => {
      const body = this.#lines.splice(0).join('');
      if (!body) return;
      const headers = { ...this.#headers, 'Content-Type': CONTENT_TYPE };
      const answer = await this.#fetch(this.#way.url, { method: 'POST', headers, body });
      if (!answer.ok) throw new Error();
      const { ack, d } = await answer.json();
      this.#on.frame(() => ({ t: 'ack', n: ack, d }));
      // What a worker has, the answer to a POST alone tells: it is asked for until it is all of it.
      if (d < ack) setTimeout(() => this.send(ASK), 1000);
    }));
  }

  async #poll() {
    for (;;) {
      const answer = await this.#get({ wait: `${POLL_WAIT_S}s` }, CONTENT_TYPE);
      if (answer.status !== 204) for (const text of (await answer.text()).split('\n')) this.#read(text);
    }
  }

  async #stream() {
    const answer = await this.#get({}, 'text/event-stream');
    const reader = /** @type {any} */ (answer.body).pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Error();
      const lines = (rest + value).split('\n');
      rest = lines.pop() ?? '';
      // Each event is one line of data; comments keep the stream alive, and an id repeats the message's number.
      for (const text of lines) if (text.startsWith('data:')) this.#read(text.slice(5));
    }
  }

  /** @param {Record<string, string>} query @param {string} accept */
  async #get(query, accept) {
    const url = new URL(this.#way.url);
    const all = { pipe: this.#pipe, after: `${this.#way.received()}.${this.#line}`, ...query };
    for (const [name, value] of Object.entries(all)) url.searchParams.set(name, value);
    const answer = await this.#fetch(url.href, { headers: { ...this.#headers, Accept: accept } });
    if (!answer.ok) throw new Error();
    return answer;
  }

  /** @param {string} text one frame as JSON */
  #read(text) {
    if (!text.trim()) return;
    const { line = this.#line, ...value } = JSON.parse(text);
    this.#line = line;
    // There is no close frame here: its line is the end of the link.
    if (value.t === 'close') this.#on.close(value.code, value.reason, true);
    else this.#on.frame(() => (value.t ? value : { seq: value.seq, data: value.text ?? fromBase64(value.base64) }));
  }

  /** @param {string} url @param {RequestInit} request */
  #fetch(url, request) {
    const { signal } = this.#abort;
    return this.#way.fetch(url, { ...request, signal, credentials: 'include', cache: 'no-store' });
  }
}

/** @param {Frame} frame */
function line(frame) {
  const { seq, data } = /** @type {any} */ (frame);
  const value = 't' in frame ? frame : typeof data === 'string' ? { seq, text: data } : { seq, base64: toBase64(data) };
  return `${JSON.stringify(value)}\n`;
}
