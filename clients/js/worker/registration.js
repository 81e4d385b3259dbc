// A worker's place among Holdline's backends: taken, renewed, taken again when it was forgotten, drained and given back.
// Once the worker leaves, no earlier request of it is on its way any more, so that none takes the place again.
import { randomBytes } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import { Admin, Refused } from './admin.js';

const PAUSE_MS = { min: 100, max: 2000 };
const DRAIN_LOOK_MS = 200;
/** @type {Record<string, number>} */
const UNITS = { ms: 1, s: 1000, m: 60_000, min: 60_000, h: 3_600_000 };
const HEARD = ['SIGTERM', 'SIGINT'];

/**
 * Registers the worker at `url`, and keeps its place until it leaves.
 *
 * @param {string} url @param {import('../types/worker.d.ts').RegisterOptions} [options]
 */
export function register(url, options) {
  return new Registration(url, options);
}

/** What can be waited for, once or again and again. */
class Mark {
  #controller = new AbortController();
  #resolve = () => {};
  /** @type {Promise<void>} */
  wait = new Promise((resolve) => (this.#resolve = resolve));

  get isSet() {
    return this.#controller.signal.aborted;
  }

  set() {
    this.#controller.abort();
    this.#resolve();
  }

  /** Waits so long, unless it is set before. @param {number} ms */
  async pause(ms) {
    await setTimeout(ms, undefined, { signal: this.#controller.signal }).catch(() => {});
  }
}

/** A worker's place. */
export class Registration {
  #admin;
  #path;
  #body;
  #drainMs;
  #renewMs;
  #log;
  #registered = new Mark();
  #stop = new Mark();
  #leaving = new Mark();
  #hurry = new Mark();
  #complaint = '';
  #keeping;
  /** @type {Promise<void> | undefined} */
  #left;
  #signals;
  #heard = () => this.stop();
  /** @type {string[]} */
  directives = [];

  /** @param {string} url @param {import('../types/worker.d.ts').RegisterOptions} [options] */
  constructor(url, { pool = 'default', lease = '15s', id, admin, token, drainMs = 60_000, signals = true, log = console.error, ...more } = {}) {
    const { serves = [], labels = {}, health, weight = 1, maxPipes, ...unknown } = more;
    const [odd] = Object.keys(unknown);
    if (odd) throw new TypeError(`register: there is no option ${JSON.stringify(odd)}`);
    this.#renewMs = milliseconds(lease) / 3;
    this.#body = { url, pool, lease, instance: randomBytes(8).toString('hex'), weight, serves, labels };
    Object.assign(this.#body, { health: health ?? null, max_pipes: maxPipes ?? null });
    this.#admin = new Admin(admin, token);
    this.id = id ?? `node-${randomBytes(4).toString('hex')}`;
    this.#path = `/v1/backends/${encodeURIComponent(this.id)}`;
    this.#drainMs = drainMs;
    this.#log = log;
    this.#signals = signals ? HEARD : [];
    for (const signal of this.#signals) process.on(signal, this.#heard);
    this.#keeping = this.#keep();
  }

  /** Resolves once Holdline knows the worker. */
  registered() {
    return this.#registered.wait;
  }

  /** Resolves at SIGTERM, at SIGINT, and when an operator wishes that the worker drains. */
  toldToStop() {
    return this.#stop.wait;
  }

  /** Ends `toldToStop`; a second time, the pipes that are left are not waited for. */
  stop() {
    if (this.#stop.isSet) this.#hurry.set();
    this.#stop.set();
  }

  /** Drains for `drainMs` at most, and withdraws. */
  leave() {
    this.#left ??= this.#leave();
    return this.#left;
  }

  /** `await using place = register(…)` leaves at the end of the block. */
  [Symbol.asyncDispose]() {
    return this.leave();
  }

  async #keep() {
    let pauseMs = PAUSE_MS.min;
    while (!this.#leaving.isSet) {
      try {
        await this.#admin.ask('PUT', this.#path, this.#body);
        this.#registered.set();
        this.#complaint = '';
        pauseMs = PAUSE_MS.min;
        await this.#renew();
      } catch (error) {
        // It is tried again: Holdline may be restarting, or the id still be another's.
        this.#complain(`${this.id} is not registered with ${this.#admin.address}: ${reason(error)}`);
      }
      await this.#leaving.pause(pauseMs);
      pauseMs = Math.min(pauseMs * 2, PAUSE_MS.max);
    }
  }

  /** Until the worker leaves, or Holdline does not know it. */
  async #renew() {
    let afterMs = this.#renewMs;
    for (;;) {
      await this.#leaving.pause(afterMs);
      if (this.#leaving.isSet) return;
      try {
        const answer = await this.#admin.ask('PUT', `${this.#path}/lease`, {});
        this.directives = answer.directives;
        afterMs = milliseconds(answer.renew_after);
        this.#complaint = '';
        if (this.directives.length) this.#stop.set();
      } catch (error) {
        if (error instanceof Refused && error.status === 404) return;
        this.#complain(`the lease of ${this.id} was not renewed: ${reason(error)}`);
        afterMs = Math.min(this.#renewMs, PAUSE_MS.max);
      }
    }
  }

  /** Once, until it is another thing. @param {string} what */
  #complain(what) {
    if (what !== this.#complaint) this.#log(`holdline: ${what}`);
    this.#complaint = what;
  }

  async #leave() {
    this.#leaving.set();
    await this.#keeping;
    // If it was never registered, the id may be another worker's.
    if (this.#registered.isSet) {
      await this.#drain().catch((error) => this.#complain(`${this.id} is not drained: ${reason(error)}`));
      await this.#admin.ask('DELETE', this.#path).catch(() => {}); // gone, or with the lease
    }
    for (const signal of this.#signals) process.off(signal, this.#heard);
  }

  /** Takes no more pipes, and waits until the last one has moved. */
  async #drain() {
    const end = performance.now() + this.#drainMs;
    while (performance.now() < end && !this.#hurry.isSet) {
      // Saying it again renews the lease.
      const { pipes, requests } = await this.#admin.ask('PUT', this.#path, { ...this.#body, state: 'drain' });
      if (!pipes && !requests) return;
      await this.#hurry.pause(DRAIN_LOOK_MS);
    }
  }
}

/** A refused connection may have a code and no message. @param {any} error */
function reason(error) {
  return error.message || error.code;
}

/** `15s`, `500ms`, `1m`. @param {string} text */
function milliseconds(text) {
  const [, number, unit] = /^(\d+)(ms|s|min|m|h)$/.exec(text) ?? [];
  if (!unit) throw new TypeError(`${JSON.stringify(text)} is not a duration such as "15s"`);
  return Number(number) * UNITS[unit];
}
