// Pipes as the process finds and sorts them, and the drawer of one.
const PAGE = 50;
const PAGE_MAX = 1000;
const STATES = ['attached', 'leaving', 'detached', 'client_detached', 'closing'];
let wantedPipes = PAGE;

function pipesPath(place) {
  const query = new URLSearchParams({ limit: wantedPipes });
  for (const name of ['q', 'sort', 'state', 'backend', 'pool', 'route', 'key', 'label']) {
    if (place.get(name)) query.set(name, place.get(name));
  }
  return `/v1/pipes?${query}`;
}

function newPipe(pipe) {
  const made = element('tr', undefined, 'open');
  const parts = cells(made, [['Pipe', 'id'], ['Route'], ['Key', 'key'], ['Client', 'extra'], ['Backend'], ['State'], ['Rate', 'number'],
    ['Held', 'number'], ['Interrupted', 'number'], ['Memory', 'number'], ['Age', 'number extra']]);
  const [id, route, key, , , state] = parts;
  id.append(link(pipe.id, `#${changed({ pipe: pipe.id })}`));
  route.textContent = pipe.route;
  key.textContent = pipe.key ?? '–';
  state.append(element('span'));
  made.addEventListener('click', () => { location.hash = changed({ pipe: pipe.id }); });
  made.parts = parts;
  return made;
}

function pipeRow(pipe) {
  const row = keep($('rows'), pipe.id, () => newPipe(pipe));
  const [, , , client, backend, state, rate, held, interrupted, memory, age] = row.parts;
  put(client, pipe.client);
  put(backend, pipe.backend ?? '–');
  chip(state.firstChild, pipe.held ? `${pipe.state}, ${pipe.held}` : pipe.state, moodOf[pipe.state] ?? 'wait');
  put(rate, `${bytes(pipe.bytes_per_second ?? 0)}/s`);
  put(held, bytes(pipe.buffered_bytes ?? pipe.up.buffered_bytes + pipe.down.buffered_bytes));
  put(interrupted, count(pipe.interruptions));
  put(memory, bytes(pipe.memory_bytes));
  put(age, since(pipe.opened_at));
}

function pipes(list, place) {
  for (const pipe of list.items) pipeRow(pipe);
  sweep($('rows'), list.items.map((pipe) => pipe.id));
  const matched = list.matched ?? list.items.length;
  const total = list.total ?? matched;
  put($('pipecount'), matched === total ? plural(total, 'pipe') : `${count(matched)} of ${plural(total, 'pipe')} fit`);
  $('more').classList.toggle('hidden', !list.next_cursor || wantedPipes >= PAGE_MAX);
  $('nopipes').classList.toggle('hidden', list.items.length > 0);
  $('rows').parentNode.classList.toggle('hidden', !list.items.length);
  const isFiltered = ['q', 'state', 'backend', 'pool', 'route', 'key', 'label'].some((name) => place.get(name));
  put($('nopipes'), isFiltered ? 'No pipe fits. Clear the search, or the filters beside it.'
    : 'No client is connected. Point one at a public listener (server.listen), on a path of a route; holdline ctl info names the listeners.');
}

// Chips of what the list is narrowed to, each with a way out.
function chosen(place) {
  const names = ['backend', 'pool', 'route', 'key', 'label'].filter((name) => place.get(name));
  const text = names.map((name) => `${name}=${place.get(name)}`).join();
  if ($('chosen').dataset.text === text) return;
  $('chosen').dataset.text = text;
  $('chosen').replaceChildren(...names.map((name) => {
    const out = link(`${name} ${place.get(name)} ✕`, `#${changed({ [name]: '' })}`);
    out.className = 'chip';
    out.title = 'Show the others again';
    return out;
  }));
}

// The drawer: everything about one pipe, and what happened to it.
let shownPipe = '';
let pipeEvents = [];

function facts(pipe) {
  const labels = Object.entries(pipe.labels ?? {}).map(([name, value]) => (value ? `${name}=${value}` : name)).join(', ');
  return [
    ['Route', pipe.route], ['Key', pipe.key ?? '–'], ['Client', pipe.client], ['Backend', pipe.backend ?? 'none'],
    ['Held back', pipe.held], ['Since', `${clock(pipe.opened_at)}, ${since(pipe.opened_at)} ago`],
    ['Attachment', `${pipe.attachment}, interrupted ${pipe.interruptions}×`], ['Client came', `${pipe.generation}×`],
    ['Labels', labels], ['Conversation', pipe.conversation && [pipe.conversation.kind, pipe.conversation.profile, pipe.conversation.why].filter(Boolean).join(', ')],
    ['Compression', pipe.compression], ['Numbered', pipe.aware ? 'yes' : undefined],
    ['Shared', pipe.shared && `${pipe.shared.role}${pipe.shared.viewers == null ? '' : `, ${plural(pipe.shared.viewers, 'viewer')}`}`],
    ['Rate', pipe.bytes_per_second == null ? undefined : `${bytes(pipe.bytes_per_second)}/s`], ['Memory', bytes(pipe.memory_bytes)],
  ].filter(([, value]) => value);
}

function lanes(pipe) {
  const table = element('table');
  const head = element('tr');
  head.append(...['', 'From client', 'From worker'].map((name, place) => element('th', name, place ? 'number' : '')));
  const rows = [['accepted'], ['sent'], ['confirmed'], ['level'], ['buffered_bytes', 'held'], ['in_doubt', 'in doubt'], ['lost'], ['dropped']];
  const body = element('tbody');
  body.append(...rows.map(([field, name]) => {
    const row = element('tr');
    row.append(element('td', name ?? field, 'soft'), ...[pipe.up, pipe.down].map((lane) => {
      const value = lane[field];
      return element('td', field === 'buffered_bytes' ? bytes(value) : typeof value === 'number' ? count(value) : value,
        `number ${field === 'lost' && value ? 'bad' : ''}`);
    }));
    return row;
  }));
  const top = element('thead');
  top.append(head);
  table.append(top, body);
  return table;
}

function pipeDeeds(id) {
  return [
    deed('Move', 'Move it to another worker, with nothing lost', async () => {
      await api('POST', at('pipes', id, '/reattach'), {});
      toast('The pipe is asked to move');
    }),
    deed('Say…', 'Say something to its client', async () => {
      const text = await sure('Say to this client', 'It gets this text as one message.', 'Say it', true);
      if (!text) return;
      await api('POST', at('pipes', id, '/messages'), { text });
      toast('Said');
    }),
    deed('Close…', 'Close its client', async () => {
      const meant = await sure('Close this client?', 'It is closed with code 1000, and its pipe ends. This cannot be undone.', 'Close it');
      if (meant === undefined) return;
      await api('DELETE', at('pipes', id));
      toast('The client was closed');
    }, 'danger'),
  ];
}

// Every event of the pipe that is kept: the process has no list by pipe, so all of pipes are read once.
const EVENT_PAGES_MAX = 12;
async function eventsOf(id) {
  let after = '';
  let found = [];
  for (let page = 0; page < EVENT_PAGES_MAX; page += 1) {
    const { items, last } = await read(`/v1/events?limit=1000&type=pipe${after ? `&after=${after}` : '&since=1h'}`);
    found = found.concat(items.filter((event) => event.pipe === id));
    if (items.length < 1000) break;
    after = last;
  }
  return found;
}

function openDrawer(id) {
  shownPipe = id;
  pipeEvents = [];
  const drawer = $('drawer');
  drawer.classList.toggle('hidden', !id);
  if (!id) return;
  const close = element('button', '✕');
  close.title = 'Back to the list (Esc)';
  close.setAttribute('aria-label', 'Back to the list');
  close.addEventListener('click', () => { location.hash = changed({ pipe: '' }); });
  const head = element('div', undefined, 'head');
  const name = element('h2', id);
  const state = element('span');
  head.append(name, state, element('span', undefined, 'grow'), close);
  const deeds = element('div', undefined, 'deeds');
  deeds.append(...pipeDeeds(id));
  const list = element('dl');
  const flow = element('div');
  const story = element('ol', undefined, 'events');
  drawer.replaceChildren(head, deeds, list, element('h3', 'Lanes'), flow, element('h3', 'What happened to it'), story);
  drawer.parts = { state, list, flow, story, deeds };
  eventsOf(id).then((found) => {
    if (shownPipe === id) pipeEvents = found.concat(pipeEvents.filter((event) => event.seq > (found.at(-1)?.seq ?? 0)));
    tellStory();
  }, () => tellStory());
}

function tellStory() {
  if (!shownPipe) return;
  const told = pipeEvents.slice(-200).reverse().map((event) => {
    const item = element('li', undefined, event.level ?? '');
    item.append(element('time', clock(event.at)), element('span', sentence(event)));
    return item;
  });
  $('drawer').parts.story.replaceChildren(...(told.length ? told : [element('li', 'It has had one worker all the time.', 'alone')]));
}

async function drawer() {
  if (!shownPipe) return;
  const { state, list, flow, deeds } = $('drawer').parts;
  const pipe = await read(at('pipes', shownPipe)).catch((error) => {
    if (error.status === 404) return null;
    throw error;
  });
  deeds.classList.toggle('hidden', !pipe);
  if (!pipe) return chip(state, 'it has ended', 'wait');
  chip(state, pipe.state, moodOf[pipe.state] ?? 'wait');
  list.replaceChildren(...facts(pipe).flatMap(([name, value]) => [element('dt', name), element('dd', value)]));
  flow.replaceChildren(lanes(pipe));
}
