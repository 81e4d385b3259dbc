// The built client, as the tests use it: quick, and with what it told written down.
import { WebSocket as ws } from 'ws';

/** What was built, here or by a run that plants a bug in it. */
const built = process.env.HOLDLINE_CLIENT ?? new URL('../../dist/index.js', import.meta.url).href;
export const { HoldlineSocket } = await import(built);
/** Node before 22 has none of its own. */
export const WebSocket = globalThis.WebSocket ?? ws;

const QUICK = {
  WebSocket,
  aware: true,
  persist: false,
  transports: ['ws'],
  backoff: { min: 20, max: 200 },
  timeouts: { open: 2000, probe: 300, silence: 300, close: 2000 },
};

/** A socket with a log of all its events. */
export function connect(url, { protocols = [], ...options } = {}) {
  const socket = new HoldlineSocket(url, protocols, { ...QUICK, ...options });
  socket.binaryType = 'arraybuffer';
  socket.log = [];
  socket.received = [];
  for (const type of ['open', 'error', 'close', 'interrupted', 'resumed', 'gap', 'backend']) {
    socket.addEventListener(type, (event) => socket.log.push({ type, ...event.detail, code: event.code ?? event.detail?.code }));
  }
  socket.addEventListener('message', ({ data }) => socket.received.push(data));
  return socket;
}

/** The next event of this type. */
export function next(target, type, ms = 5000) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`no ${type} within ${ms} ms`)), ms);
    const heard = (event) => (clearTimeout(late), resolve(event));
    target.addEventListener(type, heard, { once: true });
  });
}

/** Waits until `condition` is true; there is no other way to see into a server of the test's own. */
export async function until(condition, what = condition.toString(), ms = 5000) {
  const deadline = Date.now() + ms;
  for (;;) {
    const found = condition();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
