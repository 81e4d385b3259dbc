/**
 * The messages of the application that the proxy may still need, oldest first; those that were never sent have no number.
 *
 * Invariant: numbers rise by one from item to item and are never given twice within a pipe. What was not acknowledged is
 * kept, so a resume can send it again under the number that it has.
 *
 * @typedef {{
 *   seq: number, data: string | Uint8Array | null, bytes: number, received: boolean, waits: Waits | null,
 * }} Item   `data` is null while a Blob is read
 * @typedef {{by: 'proxy' | 'worker', resolve: () => void, reject: (error: unknown) => void}} Waits
 */

const utf8 = new TextEncoder();

/** The bytes of a message on the wire. @param {string | Uint8Array} data */
export const sizeOf = (data) => (typeof data === 'string' ? utf8.encode(data) : data).length;

/** See above. */
export class Outbox {
  /** Bytes that are held. */
  bytes = 0;
  /** The number that the next message gets. */
  next = 1;
  /** @type {Item[]} */
  #items = [];
  /** Those of the items that have gone over the present link. */
  #sent = 0;
  /** Bytes of them that the proxy has not acknowledged. */
  #flying = 0;
  /** @type {(Waits & {seq: number})[]} what was sent and is waited for */
  #waiting = [];

  /** The oldest number that can be sent again. */
  get first() {
    return this.#items[0]?.seq || this.next;
  }

  /** Whether all of it has gone over the present link. */
  get allSent() {
    return this.#sent === this.#items.length;
  }

  /** Whether something is on its way, unacknowledged. */
  get isFlying() {
    return this.#flying > 0;
  }

  /** @param {string | Uint8Array | null} data @param {number} bytes @param {Waits | null} waits @returns {Item} */
  push(data, bytes, waits) {
    const item = { seq: 0, data, bytes, received: false, waits };
    this.#items.push(item);
    this.bytes += bytes;
    return item;
  }

  /**
   * The next one to send, if the unacknowledged bytes stay within `window` with it; one alone may be larger.
   * @param {number} window
   */
  take(window) {
    const item = this.#items[this.#sent];
    if (!item || item.data === null || (this.#flying && this.#flying + item.bytes > window)) return undefined;
    if (!item.seq) {
      item.seq = this.next++;
      if (item.waits) this.#waiting.push({ ...item.waits, seq: item.seq });
    }
    this.#sent += 1;
    this.#flying += item.bytes;
    return item;
  }

  /** The next one for a plain WebSocket: it has no number and is forgotten. */
  takePlain() {
    const item = this.#items[0];
    if (!item || item.data === null) return undefined;
    this.#items.shift();
    this.bytes -= item.bytes;
    return item;
  }

  /**
   * The proxy has everything up to `received`, and the worker everything up to `confirmed`.
   * @param {number} received @param {number} confirmed @param {boolean} untilConfirmed keep until the worker has it
   */
  acknowledge(received, confirmed, untilConfirmed) {
    for (const item of this.#items.slice(0, this.#sent)) {
      if (item.received || item.seq > received) continue;
      item.received = true;
      this.#flying -= item.bytes;
    }
    const kept = this.#items.findIndex((item) => !item.seq || item.seq > (untilConfirmed ? confirmed : received));
    this.#forget(kept < 0 ? this.#items.length : kept);
    this.#settle((wait) => wait.seq <= (wait.by === 'proxy' ? Math.max(received, confirmed) : confirmed));
  }

  /** A new link: what the proxy does not have goes again. @param {number} received */
  rewind(received) {
    this.#sent = this.#items.findIndex((item) => !item.seq || item.seq > received);
    if (this.#sent < 0) this.#sent = this.#items.length;
    this.#flying = 0;
    for (const item of this.#items) item.received = item.seq > 0 && item.seq <= received;
  }

  /**
   * The numbers `from` to `to` will not arrive.
   * @param {number} from @param {number} to @param {unknown} error
   */
  missing(from, to, error) {
    this.#settle((wait) => wait.seq >= from && wait.seq <= to, error);
  }

  /** The pipe is gone: what has a number may have arrived or not, and goes with it. Returns how many. */
  renew() {
    const numbered = this.#items.filter((item) => item.seq).length;
    this.#forget(numbered);
    this.#sent = this.#flying = 0;
    this.next = 1;
    return numbered;
  }

  /** @param {unknown} error for all that is still waited for */
  fail(error) {
    for (const item of this.#items) if (!item.seq) item.waits?.reject(error);
    this.#settle(() => true, error);
    this.#forget(this.#items.length);
  }

  /** What can be said again by another page: all of it, if it is at most `bytesMax`. @param {number} bytesMax */
  frozen(bytesMax) {
    if (this.bytes > bytesMax || this.#items.some((item) => item.data === null)) return [];
    return this.#items.map(({ seq, data }) => ({ seq, data: /** @type {string | Uint8Array} */ (data) }));
  }

  /** @param {{seq: number, data: string | Uint8Array}[]} items @param {number} next */
  thaw(items, next) {
    this.next = next;
    for (const { seq, data } of items) this.push(data, sizeOf(data), null).seq = seq;
  }

  /** @param {number} items */
  #forget(items) {
    for (const { bytes } of this.#items.splice(0, items)) this.bytes -= bytes;
    this.#sent = Math.max(0, this.#sent - items);
  }

  /** @param {(wait: {seq: number, by: string}) => boolean} which @param {unknown} [error] */
  #settle(which, error) {
    const settled = this.#waiting.filter(which);
    this.#waiting = this.#waiting.filter((wait) => !settled.includes(wait));
    for (const wait of settled) error ? wait.reject(error) : wait.resolve();
  }
}
