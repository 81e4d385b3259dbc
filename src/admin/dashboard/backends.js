// Backends by pool: what was said about each, what was found out, and what can be done to it.
const DEEDS = [['Drain', 'ready'], ['Maint', 'ready'], ['Ready', 'drain', 'maint'], ['Remove', 'ready', 'drain', 'maint']];

function setState(id, state) {
  return api('PUT', at('backends', id, '/state'), { state });
}

// What an operator is asked before pipes leave a backend.
async function leave(backend, others, state) {
  const where = others ? 'move to other backends; nothing is lost' : 'wait until another backend is eligible, and are closed if none comes in time';
  const pipes = backend.pipes ? `Its ${plural(backend.pipes, 'pipe')} ${where}.` : 'It has no pipe.';
  const meant = await sure(`${state === 'drain' ? 'Drain' : 'Take out'} ${backend.id}?`, `It takes no new pipes. ${pipes}`,
    state === 'drain' ? 'Drain it' : 'Take it out');
  if (meant === undefined) return;
  await setState(backend.id, state);
  toast(`${backend.id} is in ${state}`, () => setState(backend.id, 'ready'));
}

// What it takes to register a backend as it was.
function registration({ url, pool, weight, max_pipes, serves, labels, instance, lease }) {
  const said = { url, pool, weight, max_pipes, serves, labels, instance, lease };
  return Object.fromEntries(Object.entries(said).filter(([, value]) => value != null));
}

async function remove(backend) {
  const meant = await sure(`Remove ${backend.id}?`, `It drains, and is forgotten once its ${plural(backend.pipes, 'pipe')} have left. ` +
    'A worker that renews its lease registers again by itself.', 'Remove it');
  if (meant === undefined) return;
  await api('DELETE', at('backends', backend.id));
  toast(`${backend.id} is removed`, () => api('PUT', at('backends', backend.id), registration(backend)));
}

function backendDeeds(made) {
  const others = () => made.pool.eligible - (made.now.eligible ? 1 : 0) > 0;
  return [
    deed('Drain', 'Take no new pipes, and move those it has', () => leave(made.now, others(), 'drain')),
    deed('Maint', 'Out of service: no new pipes, no probes that count', () => leave(made.now, others(), 'maint')),
    deed('Ready', 'Let it take pipes again', async () => {
      await setState(made.now.id, 'ready');
      toast(`${made.now.id} takes pipes`);
    }),
    deed('Remove', 'Drain it, then forget it', () => remove(made.now), 'danger'),
  ];
}

const COLUMNS = [['Backend', 'id'], ['State', 'wide'], ['Pipes', 'number'], ['Weight', 'number'], ['Serves', 'one'], ['Lease', 'one'], ['Last probe'], ['', 'wide']];

function newBackend(backend) {
  const made = element('tr');
  const [id, states, pipes, weight, serves, lease, probe, deeds] = cells(made, COLUMNS);
  const name = element('b', backend.id);
  const url = element('small');
  const labels = element('small');
  id.append(name, url, labels);
  const chips = element('div', undefined, 'chips');
  chips.append(...[0, 1, 2, 3].map(() => element('span')));
  states.append(chips);
  const meter = element('meter');
  const number = link('', `#tab=pipes&backend=${encodeURIComponent(backend.id)}`);
  number.title = 'Show its pipes';
  pipes.append(number, ' ', meter);
  const box = element('div', undefined, 'deeds');
  box.append(...backendDeeds(made));
  deeds.append(box);
  made.parts = { url, labels, chips: [...chips.children], number, meter, weight, serves, lease, probe, buttons: [...box.children] };
  return made;
}

// What the worker says about itself, in short.
function reported(backend) {
  const { memory_bytes: used, memory_limit_bytes: limit, cpu_percent: cpu } = backend.reported ?? {};
  const said = [];
  if (used != null) said.push(limit == null ? bytes(used) : `${bytes(used)} of ${bytes(limit)}`);
  if (cpu != null) said.push(`CPU ${cpu} %`);
  return said;
}

function leaseOf(backend) {
  if (!backend.lease) return ['none', ''];
  if (backend.lease_state === 'expired') return ['expired', 'bad'];
  const left = (new Date(backend.lease_expires_at) - Date.now()) / 1000;
  return [`ends in ${span(left)}`, left < 2 ? 'wait' : ''];
}

function healthOf(backend) {
  if (backend.ejected_until) return `ejected, back in ${span((new Date(backend.ejected_until) - Date.now()) / 1000)}`;
  return backend.health === 'up' ? 'up' : `${backend.health} for ${since(backend.health_since)}`;
}

function showBackend(row, backend, busiest) {
  const { url, labels, chips, number, meter, weight, serves, lease, probe, buttons } = row.parts;
  put(url, backend.parked == null ? backend.url : `dials in, ${count(backend.parked)} parked`);
  put(labels, Object.entries(backend.labels).map(([name, value]) => (value ? `${name}=${value}` : name)).join(' '));
  chip(chips[0], backend.state, moodOf[backend.state] ?? 'bad');
  chip(chips[1], healthOf(backend), moodOf[backend.health] ?? 'bad');
  chips[2].className = backend.removing ? 'chip wait' : 'hidden';
  put(chips[2], 'being removed');
  chips[3].className = backend.fixed || backend.static ? 'chip' : 'hidden';
  put(chips[3], 'configured');
  put(number, backend.max_pipes ? `${count(backend.pipes)} of ${count(backend.max_pipes)}` : count(backend.pipes));
  meter.max = Math.max(1, backend.max_pipes || busiest);
  meter.value = backend.pipes;
  put(weight, backend.weight_percent < 100 ? `${backend.weight}, ${backend.weight_percent} % of it` : String(backend.weight));
  const keys = Object.entries(backend.serves);
  put(serves, keys.length ? plural(keys.length, 'key') : 'any key');
  serves.title = keys.slice(0, 50).map(([key, alias]) => (alias ? `${key} as ${alias}` : key)).join(', ');
  const [until, mood] = leaseOf(backend);
  put(lease, until);
  lease.className = `one ${mood}`;
  lease.title = backend.lease ? `renewed for ${backend.lease} each time` : '';
  put(probe, backend.last_probe ? (backend.last_probe.problem ?? [`${backend.last_probe.took_ms} ms`, ...reported(backend)].join(', ')) : 'none yet');
  probe.className = backend.last_probe?.problem ? 'bad' : '';
  buttons.forEach((button, index) => {
    const hidden = !DEEDS[index].includes(backend.state) || (index === 3 && (backend.static || backend.removing));
    button.classList.toggle('hidden', hidden);
  });
}

function newPool(facts) {
  const made = element('section', undefined, 'card');
  const head = element('div', undefined, 'head');
  const summary = element('span');
  const box = element('div', undefined, 'deeds');
  box.append(...poolDeeds(facts));
  head.append(element('h2', `Pool ${facts.name}`), summary, element('span', undefined, 'grow'), box);
  const table = element('table');
  const names = element('tr');
  names.append(...COLUMNS.map(([name, className]) => element('th', name, className === 'number' ? 'number' : '')));
  const top = element('thead');
  const body = element('tbody');
  top.append(names);
  table.append(top, body);
  const empty = element('p', 'No backend yet, so clients of this pool wait. Register one: ', 'soft empty');
  empty.append(element('code', `holdline ctl backends add ws://HOST:PORT --pool ${facts.name}`));
  const none = element('p', 'No backend of this pool fits.', 'soft empty');
  made.append(head, table, empty, none);
  made.parts = { summary, table, body, empty, none };
  return made;
}

function backendsOf(pools, all) {
  const wanted = $('find').value.trim().toLowerCase();
  const words = (b) => [b.id, b.url, b.state, b.health, b.instance, ...Object.keys(b.serves), ...Object.entries(b.labels).flat()];
  const fits = (backend) => words(backend).some((text) => text?.toLowerCase().includes(wanted));
  let shown = 0;
  for (const facts of pools) {
    const card = keep($('pools'), facts.name, () => newPool(facts));
    const { summary, table, body, empty, none } = card.parts;
    // w2 before w10
    const mine = all.filter((backend) => backend.pool === facts.name)
      .sort((a, b) => a.id.localeCompare(b.id, 'en', { numeric: true }));
    const found = wanted ? mine.filter(fits) : mine;
    shown += found.length;
    table.classList.toggle('hidden', !found.length);
    empty.classList.toggle('hidden', mine.length > 0);
    none.classList.toggle('hidden', !mine.length || found.length > 0);
    put(summary, `${facts.eligible} of ${facts.backends} eligible, ${plural(facts.pipes, 'pipe')}${facts.waiting ? `, ${count(facts.waiting)} wait` : ''}`);
    summary.className = facts.eligible ? 'soft' : 'bad';
    const busiest = most(mine.map((backend) => backend.pipes));
    for (const backend of found) {
      const row = keep(body, backend.id, () => newBackend(backend));
      row.now = backend;
      row.pool = facts;
      showBackend(row, backend, busiest);
    }
    sweep(body, found.map((backend) => backend.id));
  }
  sweep($('pools'), pools.map((pool) => pool.name));
  put($('backendcount'), wanted ? `${shown} of ${all.length}` : '');
}

// Workers that Holdline runs itself.
function newWorker(worker) {
  const made = element('tr');
  const parts = cells(made, [['Worker', 'id'], ['State', 'wide'], ['Process', 'number'], ['Pipes', 'number'], ['Had', 'number'],
    ['Memory', 'number'], ['Runs for'], ['', 'wide']]);
  parts[0].textContent = worker.id;
  parts[1].append(element('span'));
  const box = element('div', undefined, 'deeds');
  box.append(deed('Recycle', 'Replace it by a new process; its pipes move', async () => {
    const meant = await sure(`Recycle ${worker.id}?`, 'A new process takes its place, and its pipes move. Nothing is lost.', 'Recycle it');
    if (meant === undefined) return;
    await api('POST', at('workers', worker.id, '/recycle'), {});
    toast(`${worker.id} is being replaced`);
  }));
  parts[7].append(box);
  made.parts = parts;
  return made;
}

function crew(items) {
  put($('workercount'), `${items.filter((worker) => worker.state === 'serving').length} of ${items.length} serve`);
  for (const worker of items) {
    const [, state, pid, pipes, had, memory, age, deeds] = keep($('crew'), worker.id, () => newWorker(worker)).parts;
    chip(state.firstChild, worker.due ? `${worker.state}, due: ${worker.due}` : worker.state, moodOf[worker.state] ?? 'wait');
    put(pid, worker.pid == null ? '–' : String(worker.pid));
    put(pipes, count(worker.pipes));
    put(had, count(worker.pipes_total));
    put(memory, worker.rss_bytes == null ? '–' : bytes(worker.rss_bytes));
    put(age, worker.started_at ? since(worker.started_at) : `failed ${worker.failures} times in a row`);
    deeds.firstChild.classList.toggle('hidden', worker.state !== 'serving' || worker.due != null);
  }
  sweep($('crew'), items.map((worker) => worker.id));
}
