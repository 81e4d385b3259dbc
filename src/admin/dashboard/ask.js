'use strict';
// Everything shown comes from the admin API that this page was loaded from, sorted and searched there. Text is only ever
// set as text. The token lives in this tab and goes with it.
const $ = (id) => document.getElementById(id);
let token = sessionStorage.getItem('holdline-token') ?? '';
let refusal = ''; // why the last button did nothing; stays until another one does something

class Refused extends Error {
  constructor(status, detail) { super(detail); this.status = status; }
}

async function api(method, path, body) {
  const headers = { accept: 'application/json' };
  if (token) headers.authorization = `Bearer ${token}`;
  if (method !== 'GET') headers['content-type'] = 'application/json';
  const text = body === undefined ? undefined : JSON.stringify(body);
  const response = await fetch(path, { method, headers, body: text, cache: 'no-store' });
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Refused(response.status, problem.detail ?? problem.title ?? `${method} ${path}: ${response.status}`);
}

const read = async (path) => (await api('GET', path)).json();
const at = (kind, id, below = '') => `/v1/${kind}/${encodeURIComponent(id)}${below}`;

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function link(text, hash) {
  const made = element('a', text);
  made.href = hash;
  return made;
}

const count = (number) => (number ?? 0).toLocaleString('en');

function bytes(number) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) { number /= 1024; unit += 1; }
  return `${unit && number < 100 ? number.toFixed(1) : Math.round(number)} ${units[unit]}`;
}

function span(seconds) {
  if (!(seconds >= 1)) return '0 s';
  const parts = [[86400, 'd'], [3600, 'h'], [60, 'm'], [1, 's']];
  const [size, name] = parts.find(([size]) => seconds >= size);
  return `${Math.floor(seconds / size)} ${name}`;
}

const since = (time) => span((Date.now() - new Date(time)) / 1000);
const millis = (value) => (value == null ? '–' : `${value < 10 ? value.toFixed(1) : count(Math.round(value))} ms`);
const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
const clock = (time) => new Date(time).toLocaleTimeString('en-GB');

// Rows are kept and changed in place, so that a button does not vanish under a finger.
function keep(parent, key, make) {
  parent.known ??= new Map();
  let row = parent.known.get(key);
  if (!row) {
    row = make();
    row.dataset.key = key;
    parent.known.set(key, row);
    parent.append(row);
  }
  row.seen = true;
  return row;
}

// What was not kept goes, and what was kept stands in the order of its keys.
function sweep(parent, order) {
  for (const [key, row] of parent.known ?? []) {
    if (row.seen) { row.seen = false; continue; }
    row.remove();
    parent.known.delete(key);
  }
  (order ?? []).forEach((key, place) => {
    const row = parent.known.get(key);
    if (parent.children[place] !== row) parent.insertBefore(row, parent.children[place] ?? null);
  });
}

function cells(row, columns) {
  return columns.map(([name, className]) => {
    const cell = element('td', '', className);
    cell.dataset.name = name;
    row.append(cell);
    return cell;
  });
}

function put(node, text) { if (node.textContent !== text) node.textContent = text; }

const moodOf = {
  ready: 'good', up: 'good', live: 'good', attached: 'good', serving: 'good', standby: 'good', ok: 'good',
  none: '', drain: 'wait', maint: 'wait', unknown: 'wait', degraded: 'wait', detached: 'wait', connecting: 'wait',
  down: 'bad', ejected: 'bad', expired: 'bad', killed: 'bad', waiting: 'bad',
};
const chip = (node, text, mood = '') => { put(node, text); node.className = `chip ${mood}`; };

// A button that asks the process for something; `after` says what came of it.
function deed(text, title, act, className) {
  const button = element('button', text, className);
  button.title = title;
  button.addEventListener('click', (event) => {
    event.stopPropagation();
    doing(button, act);
  });
  return button;
}

async function doing(button, act) {
  button.disabled = true;
  try {
    await act();
    refusal = '';
  } catch (error) {
    if (error.status === 401 || error.status === 403) askForToken(error.message);
    refusal = error.message;
  } finally {
    button.disabled = false;
    turn();
  }
}

// Asks whether it is meant; the words, or '' where none are wanted, or undefined.
function sure(question, consequence, yes, wantsWords = false) {
  put($('question'), question);
  put($('consequence'), consequence);
  put($('yes'), yes);
  $('words').value = '';
  $('words').classList.toggle('hidden', !wantsWords);
  $('words').required = wantsWords;
  $('sure').returnValue = '';
  $('sure').showModal();
  return new Promise((resolve) => {
    $('sure').addEventListener('close', () => resolve($('sure').returnValue === 'yes' ? $('words').value : undefined), { once: true });
  });
}

// Says what was done, and for a while how to take it back.
const TOAST_MS = 12_000;
let toastEnds;
function toast(text, undo) {
  const parts = [element('span', text)];
  if (undo) {
    parts.push(deed('Undo', 'Take it back', async () => {
      $('toast').classList.add('hidden');
      await undo();
    }));
  }
  $('toast').replaceChildren(...parts);
  $('toast').classList.remove('hidden');
  clearTimeout(toastEnds);
  toastEnds = setTimeout(() => $('toast').classList.add('hidden'), TOAST_MS);
}

function askForToken(why) {
  if ($('ask').open) return;
  if (why) put($('why'), why);
  $('ask').showModal();
}

// The line that a list of numbers draws, the newest at the right; a gap where there is none.
const STEPS = 120;
function line(numbers, className, top, isArea) {
  const x = (index) => (STEPS - numbers.length + index).toFixed(0);
  const y = (value) => (30 - 28 * value / top).toFixed(1);
  let path = '';
  let from = null;
  numbers.forEach((value, index) => {
    if (value == null) { from = null; return; }
    path += from == null ? `M${x(index)} ${y(value)}h.01` : `L${x(index)} ${y(value)}`;
    from ??= index;
  });
  if (isArea) path = numbers.length ? `M${x(0)} 30${numbers.map((value, index) => `L${x(index)} ${y(value ?? 0)}`).join('')}V30Z` : '';
  const made = document.createElementNS($('spark').content.firstChild.namespaceURI, 'path');
  made.setAttribute('d', path);
  made.setAttribute('class', className);
  return made;
}

function spark(svg, lines) {
  const top = Math.max(...lines.flatMap(([numbers]) => numbers.map((value) => value ?? 0)), 1e-9);
  const paths = lines.flatMap(([numbers, className], index) =>
    (index === 0 && !className ? [line(numbers, 'area', top, true), line(numbers, '', top)] : [line(numbers, className, top)]));
  svg.replaceChildren(...paths);
}
