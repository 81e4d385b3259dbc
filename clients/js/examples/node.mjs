// Talks to a Holdline from Node: `node examples/node.mjs ws://127.0.0.1:8000/ws/s1/echo`. Kill the worker, or the network.
import { createInterface } from 'node:readline';
import { HoldlineSocket } from 'holdline';

const url = process.argv[2] ?? 'ws://127.0.0.1:8000/ws/s1/echo';
const WebSocket = globalThis.WebSocket ?? (await import('ws')).WebSocket; // Node before 22 has none of its own
const socket = new HoldlineSocket(url, [], { aware: true, WebSocket });

for (const type of ['open', 'interrupted', 'resumed', 'gap', 'backend', 'close']) {
  socket.addEventListener(type, (event) => console.log(`[${type}]`, event.detail ?? event.code ?? ''));
}
socket.addEventListener('message', ({ data }) => console.log('<', data));

const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => {
  socket.sendAcked(line).then(() => console.log('  the worker has:', line), (error) => console.log('  in doubt:', line, error.message));
});
lines.on('close', async () => {
  await socket.drained();
  socket.close();
});
