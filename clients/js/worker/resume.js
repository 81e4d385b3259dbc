// What the headers of an attach say, and how the application says what it has done.
import { Admin } from './admin.js';

/** What the headers of an attach say. */
export class Resume {
  /**
   * Reads a request of `http`, a Fetch `Request`, or their headers; nothing if it did not come through Holdline.
   *
   * @param {any} request @returns {Resume | null}
   */
  static of(request) {
    const headers = request.headers ?? request;
    /** @type {[string, unknown][]} */
    const entries = typeof headers.entries === 'function' ? [...headers.entries()] : Object.entries(headers);
    const found = Object.fromEntries(entries.map(([name, value]) => [name.toLowerCase(), String(value)]));
    return 'holdline-pipe' in found ? new Resume(found) : null;
  }

  /** @param {Record<string, string>} headers with names in lower case */
  constructor(headers) {
    /** @template T @param {string} name @param {T} otherwise */
    const header = (name, otherwise) => headers[`holdline-${name}`] ?? otherwise;
    const [, replayed = 0, replayedBytes = 0] = /^(\d+)(?:; *bytes=(\d+))?/.exec(header('replay', '0')) ?? [];
    const [, confirmed = 0, level = null] = /^(\d+)(?:; *level=(\w+))?/.exec(header('confirmed', '0')) ?? [];
    const [, from, to] = /^(\d+)-(\d+)$/.exec(header('gap', 'none')) ?? [];
    this.pipe = header('pipe', '');
    this.attach = Number(header('attach', 1));
    this.cause = header('cause', null);
    this.previous = header('previous', null);
    this.firstSeq = Number(header('first-seq', 1));
    this.replayed = Number(replayed);
    this.replayedBytes = Number(replayedBytes);
    this.confirmed = Number(confirmed);
    this.level = level;
    this.gap = from === undefined ? null : { from: Number(from), to: Number(to) };
    this.prologue = Number(header('prologue', 0));
    Object.freeze(this);
  }

  /**
   * The number of each message that comes on this attach, in order; 0 for those that say the beginning again.
   *
   * @param {number} [rx] what the worker's answer said, if it was `Holdline-Resume: ok; rx=…`
   * @returns {Generator<number, never, void>}
   */
  *numbers(rx) {
    if (rx === undefined) for (let n = 0; n < this.prologue; n += 1) yield 0;
    for (let seq = Math.max(this.firstSeq, (rx ?? 0) + 1); ; seq += 1) yield seq;
  }

  /** As `commit`, for this attach. @param {number} seq @param {import('../types/worker.d.ts').Where} [where] */
  commit(seq, where) {
    return commit(this.pipe, this.attach, seq, where);
  }
}

/**
 * Says that the application has done with all messages of the pipe up to `seq`; the number that is confirmed now.
 *
 * @param {string} pipe @param {number} attach @param {number} seq @param {import('../types/worker.d.ts').Where} [where]
 * @returns {Promise<number>}
 */
export async function commit(pipe, attach, seq, { admin, token } = {}) {
  const path = `/v1/pipes/${encodeURIComponent(pipe)}/commit`;
  const { confirmed } = await new Admin(admin, token).ask('POST', path, { attachment: attach, seq });
  return confirmed;
}
