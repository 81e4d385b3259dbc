/**
 * Which way the next attempt goes: WebSocket, server-sent events or long poll, and whether `holdline.v1` is offered.
 *
 * ```text
 *   ws -- 3 unheard, and the server answers HTTP, and 1 more unheard --> sse -- unheard --> poll -- unheard --> ws
 * ```
 *
 * Invariant: a transport over which something was heard is kept. A server that is down or restarts answers no HTTP either,
 * so it pushes no client off WebSocket.
 *
 * @typedef {'ws' | 'sse' | 'poll'} Transport
 * @typedef {{transport: Transport, aware: boolean}} Attempt
 */
const UNHEARD_MAX = 3;
const REMEMBER_MS = 10 * 60 * 1000;

export class Route {
  /** @type {Transport[]} */
  #ladder;
  #aware;
  #step = 0;
  #unheard = 0;
  #mayBePlain;
  #guesses;
  #isStranger = false;
  #memory;
  #origin;

  /**
   * @param {{transports: Transport[], aware: boolean | 'auto', protocols: string[], origin: string}} wishes
   * @param {Map<string, {attempt: Attempt, until: number}>} memory for all sockets of the page
   */
  constructor({ transports, aware, protocols, origin }, memory) {
    this.#ladder = transports;
    this.#aware = aware !== false;
    this.#mayBePlain = aware === 'auto';
    this.#guesses = !protocols.length;
    this.#memory = memory;
    this.#origin = origin;
  }

  /** Whether it should first be seen if the server answers HTTP at all. */
  get asksForHttp() {
    return this.#transport() === 'ws' && this.#ladder.length > 1 && this.#unheard === UNHEARD_MAX;
  }

  /** @returns {Attempt} */
  next() {
    const known = this.#known();
    if (known && !this.#unheard) {
      this.#step = this.#ladder.indexOf(known.transport);
      return { ...known, aware: this.#aware && (known.aware || !this.#mayBePlain) };
    }
    // A browser refuses an answer without a subprotocol when it offered one: a plain server then never opens.
    const guess = this.#guesses && this.#unheard >= 2 && this.#unheard % 2 === 0;
    const plain = this.#mayBePlain && this.#transport() === 'ws' && (this.#isStranger || guess);
    return { transport: this.#transport(), aware: this.#aware && !plain };
  }

  /** The server did not answer HTTP: it is down, and says nothing about WebSockets. */
  down() {
    this.#unheard = 1;
  }

  /** It opened, and then did not speak our protocol. */
  stranger() {
    this.#isStranger = true;
  }

  /** Something came over it, or it opened to a server that is no Holdline. @param {Attempt} attempt */
  heard(attempt) {
    this.#unheard = 0;
    if (attempt.aware) this.#mayBePlain = false;
    if (attempt.transport === 'ws' && attempt.aware) this.#memory.delete(this.#origin);
    else if (!this.#memory.has(this.#origin)) this.#memory.set(this.#origin, { attempt, until: Date.now() + REMEMBER_MS });
  }

  /** It did not open, or closed before anything came over it. */
  unheard() {
    this.#unheard += 1;
    const patience = this.#transport() === 'ws' ? UNHEARD_MAX + 1 : 1;
    if (this.#unheard < patience || this.#ladder.length < 2) return;
    this.#step = (this.#step + 1) % this.#ladder.length;
    this.#unheard = this.#step ? 1 : 0;
  }

  /** What worked last, for as long as that is remembered. @returns {Attempt | undefined} */
  #known() {
    const known = this.#memory.get(this.#origin);
    if (!known) return undefined;
    if (known.until > Date.now()) return this.#ladder.includes(known.attempt.transport) ? known.attempt : undefined;
    this.#memory.delete(this.#origin);
    this.#step = 0;
    return undefined;
  }

  #transport() {
    return this.#ladder[this.#step];
  }
}
