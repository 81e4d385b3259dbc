/**
 * The shelf on which a page leaves its pipe for the page that follows it in the same tab.
 *
 * A duplicated tab copies sessionStorage, so who takes a pipe off the shelf holds a Web Lock on its id; where there are no
 * Web Locks, the other pages are asked over a BroadcastChannel. Without both, or without sessionStorage, nothing is kept.
 *
 * Invariant: of all live pages, one at most uses a pipe that was left.
 *
 * @typedef {import('./session.js').Saved} Saved
 * @typedef {{sessionStorage?: Storage, locks?: LockManager, BroadcastChannel?: typeof BroadcastChannel}} Surroundings
 */

/** A page that is reloaded may be there before the old one's lock is gone. */
const LOCK_WAIT_MS = 1000;
const PROBE_MS = 200;
/** Names in use in this page: the second socket to one address has a place of its own, which the next page finds again. */
const taken = new Set();

/** @returns {Surroundings} */
export function surroundings() {
  try {
    const { sessionStorage, navigator, BroadcastChannel } = /** @type {any} */ (globalThis);
    return { sessionStorage, locks: navigator?.locks, BroadcastChannel };
  } catch {
    return {}; // a sandboxed frame may not even look at sessionStorage
  }
}

export class Shelf {
  #around;
  #name = '';
  /** Gives the pipe free for another page. @type {(() => void) | null} */
  #release = null;
  #held = '';

  /** @param {string} address @param {Surroundings} around */
  constructor(address, around) {
    this.#around = around;
    if (!around.sessionStorage || !(around.locks || around.BroadcastChannel)) return;
    let place = 0;
    do this.#name = `holdline:${address}#${place++}`;
    while (taken.has(this.#name));
    taken.add(this.#name);
  }

  /** What the page before left, if no other page uses it. @returns {Promise<Saved | null>} */
  async takeUp() {
    const saved = this.#read();
    if (!saved) return null;
    return (await this.#hold(saved.pipe.id)) ? saved : null;
  }

  /** @param {Saved | null} saved */
  save(saved) {
    if (!this.#name || !saved) return;
    if (this.#held !== saved.pipe.id) void this.#hold(saved.pipe.id);
    try {
      this.#around.sessionStorage?.setItem(this.#name, JSON.stringify({ ...saved, items: saved.items.map(pack) }));
    } catch {
      // It is full: a reload then begins anew, and the proxy tells what was missed.
    }
  }

  /** The pipe is over. */
  clear() {
    if (this.#name) this.#around.sessionStorage?.removeItem(this.#name);
    this.letGo();
  }

  /** The page goes: the next one may have the pipe. */
  letGo() {
    this.#release?.();
    this.#release = null;
    this.#held = '';
  }

  /** The place itself is free for another socket of this page. */
  leave() {
    this.letGo();
    taken.delete(this.#name);
  }

  /** Whether the pipe is ours, after a page came back that had let it go. @param {string} id */
  async holdAgain(id) {
    return !this.#name || this.#held === id || this.#hold(id);
  }

  /** @returns {Saved | null} */
  #read() {
    try {
      const saved = JSON.parse(this.#around.sessionStorage?.getItem(this.#name) ?? 'null');
      return saved && { ...saved, items: saved.items.map(unpack) };
    } catch {
      return null;
    }
  }

  /** @param {string} id @returns {Promise<boolean>} */
  async #hold(id) {
    this.letGo();
    this.#held = id;
    const { locks, BroadcastChannel } = this.#around;
    const release = locks ? await lock(locks, id) : BroadcastChannel && (await announce(BroadcastChannel, id));
    if (release && this.#held === id) this.#release = release;
    else release?.();
    if (!release && this.#held === id) this.#held = '';
    return !!release;
  }
}

/** @param {LockManager} locks @param {string} id @returns {Promise<(() => void) | undefined>} */
function lock(locks, id) {
  return new Promise((resolve) => {
    const signal = AbortSignal.timeout(LOCK_WAIT_MS);
    const held = () => new Promise((/** @type {(value?: any) => void} */ release) => resolve(release));
    locks.request(`holdline:${id}`, { signal }, held).catch(() => resolve(undefined));
  });
}

/** @param {typeof BroadcastChannel} Channel @param {string} id @returns {Promise<(() => void) | undefined>} */
function announce(Channel, id) {
  const channel = new Channel(`holdline:${id}`);
  return new Promise((resolve) => {
    const free = setTimeout(() => {
      channel.onmessage = ({ data }) => data === 'whose' && channel.postMessage('mine');
      resolve(() => channel.close());
    }, PROBE_MS);
    // Two that ask at once both yield: better a new pipe for each than one pipe for both.
    channel.onmessage = () => {
      clearTimeout(free);
      channel.postMessage('mine');
      channel.close();
      resolve(undefined);
    };
    channel.postMessage('whose');
  });
}

/** @param {{seq: number, data: string | Uint8Array}} item */
const pack = ({ seq, data }) => (typeof data === 'string' ? { seq, data } : { seq, base64: toBase64(data) });

/** @param {any} item */
const unpack = ({ seq, data, base64 }) => ({ seq, data: data ?? fromBase64(base64) });

/** @param {Uint8Array} bytes */
export const toBase64 = (bytes) => btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ''));

/** @param {string} text */
export const fromBase64 = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
