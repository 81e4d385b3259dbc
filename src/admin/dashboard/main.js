// Which section is shown, and one look after another at what it needs.
const POLL_MS = 1000;
const HISTORY_MS = 5000;
const TABS = [['overview', 'Overview'], ['backends', 'Backends'], ['pipes', 'Pipes'], ['workers', 'Workers'], ['events', 'Events']];
let busy = false;
let past = { ...Object.fromEntries(['pipes', 'detached', 'eligible', 'held_bytes', 'resident_bytes', 'up_messages_per_second',
  'down_messages_per_second', 'up_bytes_per_second', 'down_bytes_per_second', 'planned_interruptions', 'unplanned_interruptions',
  'lost_messages', 'reattach_p50_ms', 'reattach_p99_ms'].map((name) => [name, []])) };
let historyAt = -HISTORY_MS;

const here = () => new URLSearchParams(location.hash.slice(1));
const tab = () => (TABS.some(([name]) => name === here().get('tab')) ? here().get('tab') : 'overview');

// Where we are, with some of it changed; what is empty goes.
function changed(some) {
  const place = here();
  for (const [name, value] of Object.entries(some)) {
    if (value) place.set(name, value);
    else place.delete(name);
  }
  return place.toString();
}

function arrive() {
  for (const [name] of TABS) {
    $(name).classList.toggle('shown', name === tab());
    const at = $('tabs').querySelector(`[data-tab=${name}]`);
    if (name === tab()) at.setAttribute('aria-current', 'page');
    else at.removeAttribute('aria-current');
  }
  const place = here();
  for (const name of ['q', 'sort', 'state']) if ($(name) !== document.activeElement) $(name).value = place.get(name) ?? '';
  chosen(place);
  if ((place.get('pipe') ?? '') !== shownPipe) openDrawer(place.get('pipe') ?? '');
  turn();
}

function about(health) {
  chip($('phase'), health.phase === 'serving' ? health.status : health.phase, moodOf[health.status] ?? 'bad');
  put($('about'), `${health.version}, up ${span(health.uptime_s)}, CPU ${health.cpu_percent} %`);
  put($('reasons'), (health.reasons ?? []).join('; '));
  number('pipes', health.pipes);
}

function number(name, value) {
  const at = $('tabs').querySelector(`[data-tab=${name}]`);
  put(at.lastChild, value == null ? '' : count(value));
}

async function look() {
  const [pools, supervised] = await Promise.all([read('/v1/pools'), read('/v1/workers?limit=1000')]);
  number('backends', sum(pools.items.map((pool) => pool.backends)));
  number('workers', supervised.items.length);
  $('tabs').querySelector('[data-tab=workers]').classList.toggle('hidden', !supervised.items.length && tab() !== 'workers');
  const looks = {
    async overview() {
      if (performance.now() - historyAt >= HISTORY_MS - POLL_MS / 2) {
        historyAt = performance.now();
        past = await read('/v1/history');
      }
      const stats = await read('/v1/stats');
      stats.at = performance.now();
      tiles(stats, pools.items, past);
      summary(pools.items);
      last = stats;
    },
    async backends() { backendsOf(pools.items, (await read('/v1/backends?limit=1000')).items); },
    async pipes() { pipes(await read(pipesPath(here())), here()); },
    async workers() { crew(supervised.items); },
    async events() { log.show(); },
  };
  await Promise.all([looks[tab()](), drawer(), upgrade()]);
}

async function turn() {
  if (busy || document.hidden) return;
  busy = true;
  try {
    about(await (await fetch('/health', { cache: 'no-store' })).json());
    await look();
    put($('trouble'), refusal);
    log.run();
  } catch (error) {
    if (error.status === 401) {
      askForToken(token ? 'The process does not know this token.' : undefined);
      put($('trouble'), token ? 'The process does not know this token.' : '');
    } else {
      put($('trouble'), error instanceof TypeError && error.message.includes('fetch') ? 'Holdline does not answer.' : error.message);
    }
  } finally {
    busy = false;
  }
}

for (const [name, title] of TABS) {
  const at = link(title, `#tab=${name}`);
  at.dataset.tab = name;
  at.append(element('small'));
  $('tabs').append(at);
}
for (const name of STATES) {
  const option = element('option', name.replace('_', ' '));
  option.value = name;
  $('state').append(option);
}

$('signin').addEventListener('click', () => askForToken());
$('ask').addEventListener('close', () => {
  if ($('ask').returnValue !== 'use') return;
  token = $('token').value.trim();
  sessionStorage.setItem('holdline-token', token);
  $('token').value = '';
  refusal = '';
  turn();
});
let typed;
$('q').addEventListener('input', () => {
  clearTimeout(typed);
  typed = setTimeout(() => { wantedPipes = PAGE; location.replace(`#${changed({ q: $('q').value.trim() })}`); }, 200);
});
for (const name of ['sort', 'state']) {
  $(name).addEventListener('change', () => { wantedPipes = PAGE; location.replace(`#${changed({ [name]: $(name).value })}`); });
}
$('find').addEventListener('input', turn);
for (const name of ['kinds', 'level']) $(name).addEventListener('change', () => log.show());
$('more').addEventListener('click', () => {
  wantedPipes = Math.min(wantedPipes * 4, PAGE_MAX);
  turn();
});
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && shownPipe && !document.querySelector('dialog[open]')) location.hash = changed({ pipe: '' });
});
document.addEventListener('visibilitychange', turn);
window.addEventListener('hashchange', arrive);
setInterval(turn, POLL_MS);
arrive();
