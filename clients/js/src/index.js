/**
 * Holdline's client: a `WebSocket` whose conversation outlives its network, its page and its transport.
 *
 * In reading order: `socket` (what an application sees), `session` (what a pipe is), `outbox` and `protocol`, `transport`
 * and `http` (links), `route` and `backoff` (which link next, and when), `wake`, `storage`.
 */
export { HoldlineSocket, HoldlineSocket as default } from './socket.js';
