/**
 * The lasting conversation: which pipe it is, what has come and gone, and what a link's news mean for it.
 *
 * ```text
 *   detached -- open --> greeting -- welcome, resumed --> live -- fin, close --> ended
 *      ^  |                 |                              |
 *      |  +-- open (the server is no Holdline) --> plain   |
 *      +------------------- lose --------------------------+
 * ```
 *
 * It does no I/O and has no clock: calls change it, and {@link Session.take} gives what is to be done, in order.
 *
 * Invariants: a message is given out once, and its number is the one after the last; what may be missing is told by `gap`;
 * what is acknowledged was given out and saved before.
 *
 * @typedef {import('./protocol.js').Frame} Frame
 * @typedef {import('./protocol.js').Control} Control
 * @typedef {import('./outbox.js').Waits} Waits
 * @typedef {{id: string, token: string, epoch: any}} Pipe
 * @typedef {{pipe: Pipe, rx: number, next: number, items: {seq: number, data: string | Uint8Array}[]}} Saved
 * @typedef {{code: number, reason: string}} Close
 * @typedef {['send', Frame] | ['deliver', string | Uint8Array] | ['tell', string, object] | ['opened'] | ['attached']
 *   | ['stranger'] | ['save'] | ['forget'] | ['shut', number, string] | ['reconnect', number | null] | ['move', number]
 *   | ['end', number, string, boolean]} Output   what is to be done, and with what
 *   `shut` closes the link in good order; `reconnect` drops it, and waits so many ms, or as the back-off says; `move`
 *   keeps it until then
 */
import { CLOSE, ProtocolError, agreed, count } from './protocol.js';
import { Outbox } from './outbox.js';

const ACK_MESSAGES = 16;
/** Bytes of unacknowledged messages that are carried over a page reload. */
export const SAVED_BYTES_MAX = 256 * 1024;
const WINDOW_DEFAULT = 256 * 1024;
/** Until when a pipe that another client took over and over is left alone. */
const TAKEN_MS = 10_000;
/** Closes without a `fin` that are an interruption; every other code of an unknown server is its last word. */
const INTERRUPTIONS = [1001, CLOSE.LOST, 1011, 1012, 1013, 1014];
/** Closes after which a client of Holdline must not come back with its pipe. */
const FINAL = [CLOSE.SUPERSEDED, 4902, 4903, CLOSE.AUTH, CLOSE.PROTOCOL];

export class Session {
  outbox = new Outbox();
  /** @type {Pipe | null} */
  pipe = null;
  /** The application's own subprotocol. */
  protocol = '';
  /** How often the proxy is heard of, and over how long it spreads those who come back. */
  heartbeatMs = 0;
  jitterMs = 0;
  /** @type {'detached' | 'greeting' | 'live' | 'plain' | 'ended'} */
  #phase = 'detached';
  #wasOpen = false;
  #restored = false;
  #finSaid = false;
  /** @type {Close | null} */
  #closing = null;
  #rx = 0;
  #unacked = 0;
  #unackedBytes = 0;
  #window = WINDOW_DEFAULT;
  #untilConfirmed = false;
  /** @type {Output[]} */
  #outputs = [];

  /** The number of the last message that was given out. */
  get rx() {
    return this.#rx;
  }

  get isLive() {
    return this.#phase === 'live' || this.#phase === 'plain';
  }

  /** Whether the link in use speaks `holdline.v1`, as far as is known. */
  get isAware() {
    return this.#phase === 'live' || this.#phase === 'greeting';
  }

  /** Whether an acknowledgement waits for more to acknowledge. */
  get owesAck() {
    return this.#phase === 'live' && this.#unacked > 0;
  }

  /** @returns {Output | undefined} */
  take() {
    return this.#outputs.shift();
  }

  /** Takes up what another page of this tab left. @param {Saved} saved */
  restore(saved) {
    this.pipe = saved.pipe;
    this.#rx = saved.rx;
    this.outbox.thaw(saved.items, saved.next);
    this.#restored = true;
  }

  /** @returns {Saved | null} */
  saved() {
    const { pipe, outbox } = this;
    return pipe && { pipe, rx: this.#rx, next: outbox.next, items: outbox.frozen(SAVED_BYTES_MAX) };
  }

  // What the application wants.

  /** @param {string | Uint8Array | null} data @param {number} bytes @param {Waits | null} waits */
  send(data, bytes, waits) {
    const item = this.outbox.push(data, bytes, waits);
    this.pump();
    return item;
  }

  /** Sends what may be sent, and the end behind it. */
  pump() {
    if (this.#phase === 'plain') this.#pumpPlain();
    if (this.#phase === 'live') {
      for (let item; (item = this.outbox.take(this.#window)); ) {
        this.#do('send', { seq: item.seq, data: /** @type {any} */ (item.data) });
      }
    }
    if (this.isLive && this.#closing && !this.#finSaid && this.outbox.allSent) this.#sayFin(this.#closing);
  }

  /** @param {number} code @param {string} reason */
  close(code, reason) {
    if (this.#closing || this.#phase === 'ended') return;
    this.#closing = { code, reason };
    // There is nothing to come back for.
    if (!this.isLive && !(this.pipe && this.#wasOpen) && !(this.#wasOpen && this.outbox.bytes)) this.end(CLOSE.LOST, '', false);
    this.pump();
  }

  // What happens to the link.

  /** The link is open, and the server chose `protocol`. @param {string} protocol */
  open(protocol) {
    const chosen = agreed(protocol);
    this.protocol = chosen.protocol;
    if (!chosen.aware) return this.#openPlain();
    this.#phase = 'greeting';
    const { pipe, outbox } = this;
    const resume = pipe && { ...pipe, rx: this.#rx, tx: [outbox.first, outbox.next] };
    this.#do('send', { t: 'hello', v: 1, ...(resume && { resume }) });
  }

  /** Whether it was a frame of the protocol. @param {() => Frame} read */
  receive(read) {
    try {
      const frame = read();
      if ('t' in frame) this.#control(/** @type {Control} */ (frame));
      else this.#message(/** @type {import('./protocol.js').Message} */ (frame));
      return true;
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      // A server that picks any subprotocol, and then says what it always says.
      if (this.#phase === 'greeting' && !this.pipe) return this.#do('stranger');
      this.#do('shut', CLOSE.PROTOCOL, error.message);
      this.end(CLOSE.PROTOCOL, error.message, false);
    }
  }

  /** The link is gone. @param {number} code @param {string} reason @param {boolean} clean */
  lose(code, reason, clean) {
    const phase = this.#phase;
    if (phase === 'ended') return;
    const final = phase === 'plain' ? !INTERRUPTIONS.includes(code) : FINAL.includes(code);
    if (final || this.#finSaid) return this.end(code, reason, clean);
    this.#phase = 'detached';
    if (phase === 'live' || phase === 'plain') this.#do('tell', 'interrupted', { code, reason });
    this.#do('reconnect', null);
  }

  /** Acknowledges what has come. */
  acknowledge() {
    if (!this.owesAck) return;
    this.#unacked = this.#unackedBytes = 0;
    this.#do('save');
    this.#do('send', { t: 'ack', n: this.#rx });
  }

  /** Asks the proxy to say something, if it can be asked. */
  probe() {
    if (this.#phase !== 'live') return false;
    this.#do('send', { t: 'hb', n: 0 });
    return true;
  }

  /** @param {number} code @param {string} reason @param {boolean} clean */
  end(code, reason, clean) {
    if (this.#phase === 'ended') return;
    this.#phase = 'ended';
    this.pipe = null;
    this.outbox.fail(new Error('closed'));
    this.#do('forget');
    this.#do('end', code, reason, clean);
  }

  // The frames of `holdline.v1`.

  /** @param {import('./protocol.js').Message} message */
  #message({ seq, data }) {
    if (seq) {
      if (this.#phase !== 'live') throw new ProtocolError('bad number');
      if (seq <= this.#rx) return; // it came before
      if (seq !== this.#rx + 1) throw new ProtocolError(`hole before ${seq}`);
      this.#rx = seq;
    }
    this.#do('deliver', data);
    if (seq) this.#owe(data.length);
  }

  /** @param {Control} frame */
  #control(frame) {
    const { t } = frame;
    const greets = t === 'welcome' || t === 'resumed' || t === 'reject';
    if (t === 'hb') return frame.n && this.#do('send', frame); // 0 is the answer to our own
    if (this.#phase !== (greets ? 'greeting' : 'live')) throw new ProtocolError(`early ${t}`);
    if (t === 'welcome') this.#welcome(frame);
    if (t === 'resumed') this.#resumed(frame);
    if (t === 'reject') this.#reject(frame);
    if (t === 'ack') this.#ack(frame);
    if (t === 'gap') this.#gap(frame);
    if (t === 'backend') this.#do('tell', 'backend', frame);
    if (t === 'goaway') this.#goaway(frame);
    if (t === 'fin') this.#fin(frame);
  }

  /** @param {Control} frame */
  #welcome(frame) {
    if (this.pipe) throw new ProtocolError('bad greeting');
    this.heartbeatMs = frame.heartbeat_ms || 0;
    this.jitterMs = frame.jitter_ms || 0;
    this.#window = frame.window_bytes || WINDOW_DEFAULT;
    this.#attached({ ...frame, resumed: 'new' });
    this.pump();
  }

  /** @param {Control} frame */
  #resumed(frame) {
    const { pipe, outbox } = this;
    if (!pipe) throw new ProtocolError('bad greeting');
    const received = count(frame.rx);
    const { first, next } = outbox;
    // A page that crashed had sent more than it could save.
    if (received >= next) {
      if (!this.#restored) throw new ProtocolError('bad ack');
      outbox.next = received + 1;
    }
    outbox.rewind(received);
    this.#attached({ ...frame, id: pipe.id, resumed: 'ok' });
    outbox.acknowledge(received, 0, this.#untilConfirmed);
    // What neither of us has any more: a page that was reloaded could not save it, or a node was lost.
    if (received + 1 < first) this.#giveUp(received + 1, first - 1 - received);
    this.pump();
  }

  /** @param {Control} frame */
  #attached({ id, token, epoch, custody, resumed }) {
    if (typeof id !== 'string' || typeof token !== 'string') throw new ProtocolError('bad greeting');
    this.pipe = { id, token, epoch };
    this.#phase = 'live';
    this.#untilConfirmed = custody === 'backend';
    this.#do('attached');
    this.#do('save');
    this.#opened(resumed);
  }

  /** @param {Control} frame */
  #reject({ why, retry_ms: retryMs }) {
    if (why === 'busy' || why === 'taken') {
      this.#phase = 'detached';
      return this.#do('reconnect', retryMs ?? (why === 'taken' ? TAKEN_MS : null));
    }
    if (!this.pipe) {
      const code = why === 'auth' ? CLOSE.AUTH : CLOSE.REJECTED;
      return this.end(code, String(why), false);
    }
    this.#renew(retryMs ?? 0);
  }

  /** @param {Control} frame */
  #ack({ n, d = 0 }) {
    if (count(n) >= this.outbox.next || count(d) >= this.outbox.next) throw new ProtocolError('bad ack');
    this.outbox.acknowledge(n, d, this.#untilConfirmed);
    this.pump();
  }

  /** @param {Control} frame */
  #gap(frame) {
    const { lane, from } = frame;
    const to = frame.count === null ? count(from) - 1 : count(from) + count(frame.count) - 1;
    if (lane === 'up') this.outbox.missing(frame.count === null ? 1 : from, to, new Error('gap'));
    else {
      if (frame.count !== null && from > this.#rx + 1) throw new ProtocolError('bad gap');
      if (to <= this.#rx && frame.count !== null) return;
      this.#rx = Math.max(this.#rx, to);
      this.#owe(0);
    }
    this.#tellGap(frame);
  }

  /** @param {Control} frame */
  #goaway({ after_ms: afterMs = 0, jitter_ms: jitterMs = 0 }) {
    this.#do('move', afterMs + Math.random() * jitterMs);
  }

  /** @param {Control} frame */
  #fin({ code, reason = '' }) {
    this.#unacked ||= 1;
    this.acknowledge();
    this.#do('shut', code, reason);
    if (this.#closing || !INTERRUPTIONS.includes(code)) return this.end(code, reason, true);
    // The server's trouble, and not the end of what was to be said: another pipe takes this one's place.
    this.#do('tell', 'interrupted', { code, reason });
    this.#renew(null);
  }

  /** @param {Close} close */
  #sayFin({ code, reason }) {
    this.#finSaid = true;
    if (this.#phase === 'live') {
      this.acknowledge();
      this.#do('send', { t: 'fin', code, reason, n: this.outbox.next - 1 });
    }
    this.#do('shut', code, reason);
  }

  // A server that is no Holdline.

  #openPlain() {
    // A server that spoke `holdline.v1` and does so no longer has lost the pipe.
    if (this.pipe) this.#forgetPipe();
    else if (this.#wasOpen) this.#tellLoss('no-resume', null);
    this.#phase = 'plain';
    this.#do('attached');
    this.#opened('none');
    this.pump();
  }

  #pumpPlain() {
    for (let item; (item = this.outbox.takePlain()); ) {
      // Nothing would ever tell that it arrived, so it is not sent at all.
      if (item.waits) item.waits.reject(new DOMException('no acks here', 'NotSupportedError'));
      else this.#do('send', { seq: 0, data: /** @type {any} */ (item.data) });
    }
  }

  // Steps that several of them share.

  /** @param {string} resumed */
  #opened(resumed) {
    const first = !this.#wasOpen;
    this.#wasOpen = true;
    if (first) this.#do('opened');
    if (!first || resumed === 'ok') this.#do('tell', 'resumed', { resumed, reloaded: first });
  }

  /** The pipe is gone, and another one follows. @param {number | null} inMs */
  #renew(inMs) {
    this.#forgetPipe();
    this.#phase = 'detached';
    this.#do('reconnect', inMs);
  }

  #forgetPipe() {
    this.outbox.missing(1, Infinity, new Error('gap'));
    const inDoubt = this.outbox.renew();
    this.pipe = null;
    this.#rx = this.#unacked = this.#unackedBytes = 0;
    this.#restored = false;
    this.#do('forget');
    this.#tellLoss('pipe-lost', inDoubt);
  }

  /** @param {string} why @param {number | null} upCount */
  #tellLoss(why, upCount) {
    if (upCount !== 0) this.#tellGap({ t: 'gap', lane: 'up', from: null, count: upCount, bytes: null, why });
    this.#tellGap({ t: 'gap', lane: 'down', from: null, count: null, bytes: null, why });
  }

  /** Messages of ours that nobody has any more. @param {number} from @param {number} missing */
  #giveUp(from, missing) {
    const gap = { t: 'gap', lane: 'up', from, count: missing, bytes: null, why: 'policy' };
    this.outbox.missing(from, from + missing - 1, new Error('gap'));
    this.#do('send', gap);
    this.#tellGap(gap);
  }

  /** @param {Control} gap */
  #tellGap({ lane, from, count: missing, bytes, why }) {
    this.#do('tell', 'gap', { lane, from, count: missing, bytes, why });
  }

  /** A message of so many bytes is to be acknowledged, soon or at once. @param {number} bytes */
  #owe(bytes) {
    this.#unacked += 1;
    this.#unackedBytes += bytes;
    if (this.#unacked >= ACK_MESSAGES || this.#unackedBytes >= this.#window / 4) this.acknowledge();
  }

  /** @param {Output} output */
  #do(...output) {
    this.#outputs.push(output);
  }
}
