// One conversation through disaster, decided by a seed, and what must be true of it afterwards.
import assert from 'node:assert/strict';
import { Network } from './network.mjs';
import { random } from './random.mjs';

const PATIENCE_MS = Number(process.env.HOLDLINE_CLIENT_PATIENCE_MS ?? 30_000);

/** What may happen to the network, and for how long the conversation then goes on before the next. */
export const FAULTS = {
  none: () => {},
  cut: ({ network }) => network.cut(),
  stall: ({ network, draw }) => network.stall(20 + draw.below(300)),
  'half-open': ({ network }) => network.halfOpen(),
  'drop what goes up': ({ network, draw }) => network.drop('up', draw.below(100)),
  'drop what comes down': ({ network, draw }) => network.drop('down', draw.below(100)),
  refuse: ({ network, draw }) => network.refuse(1 + draw.below(4)),
  'die young': ({ network, draw }) => network.dieYoung(1 + draw.below(3)),
  'kill a worker': ({ holdline, draw }) => draw.among(holdline.workers).restart(),
};

/** The ways that there are. */
export const WAYS = ['ws', 'sse', 'poll'];

/** Networks that let only some of them through; a client that has them all finds the one that is open. */
export const BLOCKS = {
  'no sockets': ({ network }) => network.block('ws'),
  'short requests alone': ({ network }) => network.block('ws', 'sse'),
  'sockets alone': ({ network }) => network.block('sse', 'poll'),
  'all is let through': ({ network }) => network.block(),
};

/** A client is sent on by another way, at once or with its next loss. */
export const TRAVELS = {
  'another way': async ({ network, client, draw }) => {
    await client.travel(draw.among(WAYS));
    network.cut();
  },
  'another way next time': ({ client, draw }) => client.travel(draw.among(WAYS)),
};

/** What the client is to be quicker at than in life. */
export const HASTE = {
  aware: true,
  persist: false,
  transports: ['ws'],
  backoff: { min: 20, max: 200 },
  timeouts: { open: 2000, probe: 200, silence: 100, close: 5000 },
};

/** A client in this process, or elsewhere: `open` is given the address, and gives what `peer` has. */
export async function drill(seed, { holdline, open, faults = FAULTS }) {
  const draw = random(seed);
  const network = await Network.start(holdline.host, holdline.port);
  const client = await open(`ws://127.0.0.1:${network.port}/`);
  const world = { network, holdline, draw, client, kinds: faults, number: 0, faults: [] };
  try {
    await inTime(client.opened(), 'no connection');
    const { pipe } = await client.state();
    for (let step = 4 + draw.below(6); step > 0; step -= 1) await disaster(world);
    network.heal();
    world.number += 1;
    await inTime(client.lastWords(world.number), 'the last words did not arrive');
    const state = await client.state();
    judge(holdline.seen(pipe), state, world.number);
    assert.equal(state.pipe, pipe, 'one pipe all along');
    assert.deepEqual(holdline.errors, []);
    return { faults: world.faults, ways: network.ways };
  } catch (error) {
    const { pipe, connected, buffered, log, heard } = await client.state();
    const where = { said: world.number, ways: [...network.ways], heard: heard.length, connected, buffered, log, proxy: await holdline.view(pipe) };
    throw new Error(`seed ${seed} (${world.faults.join(', ')}): ${error.message}\n${JSON.stringify(where)}`);
  } finally {
    await inTime(client.close(), 'no end').finally(() => network.stop());
  }
}

async function disaster(world) {
  const { draw, faults, kinds } = world;
  await say(world, 1 + draw.below(30));
  const fault = draw.among(Object.keys(kinds));
  faults.push(fault);
  // Now and then the fault strikes amid what is being said, and not behind it.
  if (draw.chance(0.5)) await pause(draw.below(30));
  const over = kinds[fault](world);
  await say(world, draw.below(30));
  await over;
  await pause(draw.below(400));
}

function say(world, messages) {
  const { draw, client } = world;
  const message = () => {
    const fill = draw.chance(0.05) ? draw.below(100_000) : draw.below(300);
    return { number: (world.number += 1), wanted: draw.below(4), fill, binary: draw.chance(0.3) };
  };
  return client.say(Array.from({ length: messages }, message));
}

/** What does not end is a failure that says its seed. */
function inTime(promise, what) {
  let late;
  const ending = new Promise((_, reject) => {
    late = setTimeout(() => reject(new Error(`${what} within ${PATIENCE_MS} ms`)), PATIENCE_MS);
  });
  return Promise.race([promise, ending]).finally(() => clearTimeout(late));
}

function judge(seen, { log, heard }, number) {
  const gaps = (lane) => log.filter((entry) => entry.type === 'gap' && entry.lane === lane);
  const upwards = seen.filter(({ way }) => way === 'up');
  const attaches = [...new Set(upwards.map(({ attach }) => attach))].sort((a, b) => a - b);
  judgeUp(upwards, attaches, number, gaps('up'));
  judgeDown(seen.filter(({ way }) => way === 'down'), attaches, heard, gaps('down'));
}

/** Each attach hears whole runs, and only a lost worker's successor hears again what that one had. */
function judgeUp(seen, attaches, last, gaps) {
  const missing = new Set(gaps.flatMap(({ from, count }) => Array.from({ length: count }, (_, i) => from + i)));
  let reached = 0;
  for (const attach of attaches) {
    const numbers = seen.filter((entry) => entry.attach === attach).map((entry) => entry.number);
    let expected = numbers[0];
    assert.ok(expected <= reached + 1 || missing.has(reached + 1), `attach ${attach} begins at ${expected} behind ${reached}`);
    for (const number of numbers) {
      while (missing.has(expected) && expected !== number) expected += 1;
      assert.equal(number, expected, `attach ${attach} heard ${number} instead of ${expected}`);
      expected += 1;
    }
    reached = Math.max(reached, expected - 1);
  }
  assert.equal(reached, last, 'the last message');
}

/** Of each attach comes what the worker pushed, in order, but for what a gap tells, and the end of what a dead one had pushed. */
function judgeDown(pushed, attaches, heard, gaps) {
  const told = gaps.reduce((sum, { count }) => sum + count, 0);
  let skipped = 0;
  for (const attach of attaches) {
    const said = pushed.filter((entry) => entry.attach === attach).length;
    const numbers = heard.filter(([of]) => of === attach).map(([, number]) => number);
    let reached = 0;
    for (const number of numbers) {
      assert.ok(number > reached, `${number} of attach ${attach} behind ${reached}`);
      skipped += number - reached - 1;
      reached = number;
    }
    assert.ok(reached <= said);
    if (attach === attaches.at(-1)) assert.equal(reached, said, `all that attach ${attach} pushed`);
  }
  assert.equal(skipped, told, 'what is missing from above, and what the gaps tell');
}

/** The rhythm of the disaster; nothing is waited for. */
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
