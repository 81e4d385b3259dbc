// Compiled and never run: the package as an application's types see it.
import { HoldlineSocket } from 'holdline';
import { useHoldline } from 'holdline/react';
import { register, Resume } from 'holdline/worker';
import type { IncomingMessage } from 'node:http';

const socket: WebSocket = new HoldlineSocket('wss://example.test/live', ['chat'], { aware: true, timeouts: { probe: 1000 } });
socket.onmessage = ({ data }) => console.log(data);

const own = new HoldlineSocket('/live');
own.addEventListener('gap', ({ detail }) => console.log(detail.lane, detail.count?.toFixed()));
own.onresumed = ({ detail }) => console.log(detail.resumed === 'ok', detail.reloaded);
own.onbackend = ({ detail }) => console.log(detail.state);
own.addEventListener('close', ({ code }) => console.log(code));
void own.sendAcked(new Uint8Array(3), { by: 'proxy' }).then(() => own.drained());

// @ts-expect-error: not a place that acknowledges
void own.sendAcked('x', { by: 'nobody' });
// @ts-expect-error: not a transport
new HoldlineSocket('/live', [], { transports: ['carrier-pigeon'] });

export function useChat() {
  const { socket: current, status, send } = useHoldline('/live', { protocols: 'chat', onGap: ({ detail }) => console.log(detail.why) });
  send(status === 'open' ? 'hello' : new Uint8Array(1));
  return current?.pipe;
}

export async function worker(request: IncomingMessage): Promise<number | undefined> {
  const place = register('ws://127.0.0.1:9001', { id: 'w1', serves: { k: 'alias' }, health: { type: 'ws' }, drainMs: 1000 });
  await place.toldToStop();
  await place.leave();
  const resume = Resume.of(request);
  const seq: number | undefined = resume?.numbers(resume.gap?.to).next().value;
  // @ts-expect-error: not an option
  register('ws://127.0.0.1:9001', { pools: 'default' });
  return resume?.commit(seq ?? 1);
}
