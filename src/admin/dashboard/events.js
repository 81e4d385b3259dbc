// What happened, the newest first, and a thousand moves in one line.
const CATCH_UP = '10m';
const GROUPS_MAX = 400;
const FOLD_MS = 15_000; // what is further apart is another story
const LEVELS = ['info', 'warn', 'error'];
const PLANNED = ['drain', 'admin', 'handover'];

// One event in words. What is not known here is said as it came.
function sentence(event) {
  const { type, seq, at: time, level, ...rest } = event;
  const said = {
    'pipe.interrupted': () => (PLANNED.includes(rest.reason) ? `left ${rest.backend} (${rest.reason})` : `lost ${rest.backend} (${rest.reason})`),
    'pipe.reattached': () => `at ${rest.backend} after ${millis(rest.took_ms)}, ${plural(rest.replayed, 'message')} replayed`,
    'backend.down': () => `${rest.backend} is down: ${rest.reason}`,
    'backend.up': () => `${rest.backend} is up`,
    'backend.registered': () => `${rest.backend} came: ${rest.url}`,
    'backend.removed': () => `${rest.backend} left: ${rest.reason}`,
    'backend.state_changed': () => `${rest.backend} is in ${rest.state}`,
    'backend.drain_started': () => `${rest.backend} drains ${plural(rest.pipes, 'pipe')}`,
    'backend.drained': () => `${rest.backend} is empty`,
    'backend.ejected': () => `${rest.backend} is ejected for ${millis(rest.for_ms)}: ${rest.reason}`,
    'backend.readmitted': () => `${rest.backend} is readmitted`,
    'backend.lease_expired': () => `the lease of ${rest.backend} has expired`,
  }[type];
  const told = Object.entries(rest).filter(([name, value]) => name !== 'pipe' && value != null && String(value) !== '');
  return said ? said() : [type, ...told.map(([name, value]) => `${name}=${value}`)].join(' ');
}

// Stories: moves of one backend's pipes are one, repeated facts about one backend are one, the rest stand alone.
class Fold {
  constructor() {
    this.groups = [];
    this.open = new Map();
    this.byPipe = new Map();
  }

  add(event) {
    const time = new Date(event.at).getTime();
    const found = event.type === 'pipe.reattached' ? this.byPipe.get(event.pipe) : undefined;
    if (found && time - found.to < FOLD_MS) {
      found.back += 1;
      found.slowest = Math.max(found.slowest, event.took_ms);
      found.replayed += event.replayed;
      found.targets.add(event.backend);
      this.byPipe.delete(event.pipe);
      return this.touch(found, event, time);
    }
    const isLoss = event.type === 'pipe.interrupted';
    const key = isLoss ? `${event.backend} ${event.reason}` : `${event.type} ${event.backend ?? event.worker ?? event.pipe ?? ''}`;
    let group = this.open.get(key);
    if (!group || time - group.to > FOLD_MS) {
      group = { key, event, first: event.seq, from: time, to: time, number: 0, back: 0, slowest: 0, replayed: 0, targets: new Set(), isLoss, level: 0 };
      this.open.set(key, group);
      this.groups.push(group);
      if (this.groups.length > GROUPS_MAX) this.forget(this.groups.shift());
    }
    group.number += 1;
    if (isLoss) this.byPipe.set(event.pipe, group);
    return this.touch(group, event, time);
  }

  touch(group, event, time) {
    // a planned move is no warning
    const level = PLANNED.includes(group.event.reason) ? 0 : LEVELS.indexOf(event.level ?? 'info');
    group.level = Math.max(group.level, level);
    group.to = Math.max(group.to, time);
    group.last = event;
    group.changed = true;
  }

  forget(group) {
    if (this.open.get(group.key) === group) this.open.delete(group.key);
    for (const [pipe, mine] of this.byPipe) if (mine === group) this.byPipe.delete(pipe);
  }
}

function story(group) {
  if (!group.isLoss) return [sentence(group.last), group.number > 1 ? `${count(group.number)} times` : group.event.route ?? group.event.pool ?? ''];
  const { backend, reason } = group.event;
  const pipes = plural(group.number, 'pipe');
  const waiting = group.number - group.back;
  const more = [group.back ? `max ${millis(group.slowest)}` : '', waiting > 0 ? `${count(waiting)} still without a worker` : ''].filter(Boolean);
  const what = PLANNED.includes(reason) ? `${pipes} of ${backend} moved` : `${pipes} lost ${backend} (${reason})${group.back ? `, ${count(group.back)} back` : ''}`;
  const targets = [...group.targets].slice(0, 3).join(', ');
  return [[what, ...more].join(', '), group.back ? `to ${targets}${group.targets.size > 3 ? ' …' : ''}` : reason];
}

const log = {
  fold: new Fold(),
  after: 0,
  begin: CATCH_UP,
  total: 0,
  running: false,

  wants(group) {
    const kinds = $('kinds').value.split(',').filter(Boolean);
    return group.level >= LEVELS.indexOf($('level').value) && (!kinds.length || kinds.some((kind) => group.event.type.startsWith(kind)));
  },

  draw(list, most) {
    const groups = this.fold.groups.filter((group) => list.id === 'latest' || this.wants(group)).slice(-most).reverse();
    for (const group of groups) {
      const item = keep(list, String(group.first), () => {
        const made = element('li');
        made.append(element('time'), element('span'), element('small'));
        if (group.event.pipe && !group.isLoss) {
          made.classList.add('open');
          made.addEventListener('click', () => { location.hash = changed({ pipe: group.event.pipe }); });
        }
        return made;
      });
      const [time, text, more] = item.children;
      const [what, rest] = story(group);
      put(time, clock(group.to));
      put(text, what);
      put(more, rest);
      item.classList.remove(...LEVELS);
      item.classList.add(LEVELS[group.level]);
      item.title = group.number > 1 ? `${count(group.number)} events from ${clock(group.from)} to ${clock(group.to)}` : JSON.stringify(group.event);
    }
    sweep(list, groups.map((group) => String(group.first)));
    if (!list.children.length) keep(list, 'none', () => element('li', 'Nothing to tell: no backend came or went, no pipe lost its worker.', 'alone'));
  },

  show() {
    put($('eventcount'), plural(this.total, 'event'));
    this.draw($('latest'), 8);
    this.draw($('log'), GROUPS_MAX);
  },

  async page() {
    const from = this.after ? `after=${this.after}&wait=20s` : `since=${this.begin}`;
    const { items, last } = await read(`/v1/events?limit=1000&${from}`);
    for (const event of items) {
      this.fold.add(event);
      if (event.pipe === shownPipe) pipeEvents.push(event);
    }
    this.total += items.length;
    this.after = Math.max(last ?? 0, this.after);
    if (items.length) tellStory();
    return items.length;
  },

  // Reads on for as long as the page is there; what it fell behind of, it leaves out.
  async run() {
    if (this.running) return;
    this.running = true;
    try {
      for (;;) {
        const began = performance.now();
        const found = await this.page();
        this.show();
        // nothing yet to wait behind, so the answer came at once
        if (!found && performance.now() - began < 500) await new Promise((done) => { setTimeout(done, 1000); });
      }
    } catch (error) {
      // what was missed has left the ring; go on with what happens from now on
      if (error.status === 410) [this.after, this.begin] = [0, 'now'];
    } finally {
      this.running = false;
    }
  },
};
