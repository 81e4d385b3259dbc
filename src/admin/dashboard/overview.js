// Tiles with their lines, the pools in short, and an upgrade that is under way.
let last = null; // the reading before, for rates until the history has a step
const sum = (numbers) => numbers.reduce((total, number) => total + (number ?? 0), 0);
const most = (numbers) => Math.max(0, ...numbers.map((number) => number ?? 0));

function rates(stats, history) {
  const newest = (name) => history[name].at(-1);
  const seconds = last ? (stats.at - last.at) / 1000 : 0;
  const grown = (lane, field) => (seconds > 0 ? (stats.counters[lane][field] - last.counters[lane][field]) / seconds : 0);
  return (lane) => ({
    messages: newest(`${lane}_messages_per_second`) ?? grown(lane, 'messages_total'),
    bytes: newest(`${lane}_bytes_per_second`) ?? grown(lane, 'message_bytes_total'),
  });
}

// Name, value, what more there is to say, mood, lines.
function tilesOf(stats, pools, history) {
  const { counters, memory } = stats;
  const live = Object.values(stats.pipes).reduce((total, number) => total + number, 0);
  const rate = rates(stats, history);
  const lane = (name, of) => {
    const { messages, bytes: size } = rate(of);
    return [name, `${count(Math.round(messages))}/s`, `${bytes(size)}/s, ${bytes(counters[of].message_bytes_total)} in all`, '',
      [[history[`${of}_messages_per_second`]]]];
  };
  const planned = counters.planned_interruptions_total;
  const unplanned = counters.interruptions_total - planned;
  const lost = counters.up.lost_messages_total + counters.down.lost_messages_total;
  const eligible = sum(pools.map((pool) => pool.eligible));
  const backends = sum(pools.map((pool) => pool.backends));
  const slowest = most(history.reattach_p99_ms);
  return [
    ['Pipes', count(live), stats.pipes.detached ? `${count(stats.pipes.detached)} wait for a worker` : live ? 'all of them have a worker' : 'no client is connected',
      stats.pipes.detached ? 'wait' : '', [[history.pipes], ...(most(history.detached) ? [[history.detached, 'bad']] : [])]],
    ['Eligible backends', `${eligible} of ${backends}`, backends ? plural(pools.length, 'pool') : 'none yet; see Backends',
      eligible ? '' : 'bad', [[history.eligible]]],
    lane('From clients', 'up'),
    lane('From workers', 'down'),
    ['Workers lost under a pipe', count(unplanned), `${count(sum(history.unplanned_interruptions))} in ten minutes`,
      sum(history.unplanned_interruptions.slice(-12)) ? 'wait' : '', [[history.unplanned_interruptions]]],
    ['Moved on purpose', count(planned), `${count(sum(history.planned_interruptions))} in ten minutes`, '',
      [[history.planned_interruptions]]],
    ['Back at a worker, p99', slowest ? millis(history.reattach_p99_ms.findLast((value) => value != null)) : '–',
      slowest ? `${millis(slowest)} at most in ten minutes` : 'no pipe lost its worker', '', [[history.reattach_p99_ms]]],
    ['Messages lost', count(lost), `${count(counters.up.replayed_messages_total + counters.down.replayed_messages_total)} replayed, ` +
      `${count(counters.up.in_doubt_messages_total + counters.down.in_doubt_messages_total)} in doubt`, lost ? 'bad' : 'good',
      [[history.lost_messages, most(history.lost_messages) ? 'bad' : '']]],
    ['Held for replay', bytes(memory.replay_bytes), `${bytes(memory.per_pipe_average_bytes)} a pipe`, '', [[history.held_bytes]]],
    ['Memory', bytes(memory.rss_bytes), memory.limit_bytes ? `of ${bytes(memory.limit_bytes)}` : 'no limit known',
      memory.limit_bytes && memory.rss_bytes > 0.8 * memory.limit_bytes ? 'bad' : '', [[history.resident_bytes]]],
  ];
}

function tiles(stats, pools, history) {
  for (const [name, value, more, mood, lines] of tilesOf(stats, pools, history)) {
    const tile = keep($('tiles'), name, () => {
      const made = element('div');
      const number = element('dd');
      made.parts = { value: element('b'), more: element('small'), svg: $('spark').content.firstChild.cloneNode() };
      number.append(...Object.values(made.parts));
      made.append(element('dt', name), number);
      made.title = 'the last ten minutes';
      return made;
    });
    const { value: shown, more: rest, svg } = tile.parts;
    put(shown, value);
    shown.className = mood;
    put(rest, more);
    spark(svg, lines);
  }
  sweep($('tiles'));
}

function summary(pools) {
  for (const pool of pools) {
    const row = keep($('summary'), pool.name, () => {
      const made = element('tr');
      const parts = cells(made, [['Pool', 'id'], ['Balance'], ['Eligible', 'number'], ['Pipes', 'number'], ['Wait', 'number'], ['', 'wide']]);
      parts[0].append(link(pool.name, '#tab=backends'));
      const box = element('div', undefined, 'deeds');
      box.append(...poolDeeds(pool));
      parts[5].append(box);
      made.parts = parts;
      return made;
    });
    const [, balance, eligible, pipes, waiting] = row.parts;
    put(balance, pool.balance);
    put(eligible, `${pool.eligible} of ${pool.backends}`);
    eligible.classList.toggle('bad', !pool.eligible);
    put(pipes, count(pool.pipes));
    put(waiting, count(pool.waiting));
    waiting.classList.toggle('wait', pool.waiting > 0);
  }
  sweep($('summary'), pools.map((pool) => pool.name));
}

function poolDeeds({ name, balance }) {
  const say = deed('Say…', 'Say something to every client of this pool', async () => {
    const text = await sure(`Say to all clients of ${name}`, 'Each of them gets this text as one message.', 'Say it', true);
    if (!text) return;
    const told = await (await api('POST', '/v1/broadcast', { text, pool: name })).json();
    toast(`Said to ${plural(told.reached, 'client')} of ${name}`);
  });
  if (balance === 'hash') return [say];
  return [deed('Rebalance', 'Move pipes off backends that have more than their share', async () => {
    const meant = await sure(`Rebalance ${name}?`, 'Pipes move from backends that have too many to those that have too few. Nothing is lost.', 'Rebalance');
    if (meant === undefined) return;
    const { moves } = await (await api('POST', at('pools', name, '/rebalance'), {})).json();
    toast(moves ? `${plural(moves, 'pipe')} of ${name} will move` : `${name} is even already`);
  }), say];
}

// The process may have no such endpoint; then it is asked rarely.
let upgradeAskAt = 0;
async function upgrade() {
  if (Date.now() < upgradeAskAt) return;
  upgradeAskAt = Date.now() + 3_000;
  const state = await read('/v1/upgrade').catch(() => null);
  // one that this process has taken over in is over
  const isUnderWay = state && !['none', 'taken'].includes(state.phase);
  $('upgrade').classList.toggle('hidden', !isUnderWay);
  if (!state) upgradeAskAt = Date.now() + 60_000;
  if (!isUnderWay) return;
  const rest = Object.entries(state.not_movable ?? {}).filter(([, number]) => number).map(([why, number]) => `${number} ${why}`);
  $('upgrade').classList.toggle('bad', state.phase === 'failed');
  put($('upgrade'), [`Upgrade: ${state.phase}`, state.reason, `${count(state.moved)} pipes moved, ${count(state.left)} left`,
    rest.length && `not movable: ${rest.join(', ')}`, state.pause_ms?.p99 != null && `pause p99 ${millis(state.pause_ms.p99)}`]
    .filter(Boolean).join('; '));
}
