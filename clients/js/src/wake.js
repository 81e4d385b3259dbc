/**
 * Tells when the machine or the page may have slept: then a socket that looks open may have been dead for hours.
 *
 * iOS fires no `close` for such a socket, and a page out of the back-forward cache no `visibilitychange`; so several signs
 * are listened to, and a timer that is late by more than {@link JUMP_MS} is one of them.
 */
const TICK_MS = 2000;
const JUMP_MS = 5000;

/**
 * @param {{wake: () => void, hide: () => void, leave: () => void, comeBack: () => void, tick: () => void}} on
 *   `hide`: the page may not get another chance to save; `leave`: it goes, and `comeBack`: it is back, out of the cache
 * @returns {() => void} to stop
 */
export function watch(on) {
  const { document, addEventListener, removeEventListener } = /** @type {any} */ (globalThis);
  /** @type {[string, (event: any) => void][]} all of them reach the window */
  const listeners = document
    ? [
        ['visibilitychange', () => (document.hidden ? on.hide() : on.wake())],
        ['online', on.wake],
        ['pagehide', on.leave],
        ['pageshow', ({ persisted }) => persisted && on.comeBack()],
      ]
    : [];
  let last = Date.now();
  const timer = setInterval(() => {
    const late = Date.now() - last - TICK_MS;
    last = Date.now();
    on.tick();
    // The timers of a hidden page are throttled by the minute, and that is no sleep.
    if (late > JUMP_MS && !document?.hidden) on.wake();
  }, TICK_MS);
  /** @type {any} */ (timer).unref?.(); // a Node process may end although we watch
  for (const listener of listeners) addEventListener(...listener);
  return () => {
    clearInterval(timer);
    for (const listener of listeners) removeEventListener(...listener);
  };
}
