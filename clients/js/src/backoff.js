/**
 * How long to wait before the next attempt: at once for the first, then doubling up to a bound, with jitter, so that the
 * clients of a proxy that was lost do not all come back in one instant.
 *
 * Invariant: only {@link Backoff.progress} makes it patient again. A connection that opens and dies at once is a failure.
 */
export class Backoff {
  #failures = 0;
  #min;
  #max;
  #random;

  /** @param {{min: number, max: number}} bounds milliseconds @param {() => number} [random] */
  constructor({ min, max }, random = Math.random) {
    this.#min = min;
    this.#max = max;
    this.#random = random;
  }

  /** Milliseconds until the next attempt; the first is spread over `jitter`, so that it is quick for one client alone. */
  next(jitter = 0) {
    const ceiling = Math.min(this.#max, this.#failures ? this.#min * 2 ** (this.#failures - 1) : jitter);
    const floor = this.#failures ? ceiling / 2 : 0;
    this.#failures += 1;
    return Math.round(floor + this.#random() * (ceiling - floor));
  }

  /** Something was delivered. */
  progress() {
    this.#failures = 0;
  }
}
