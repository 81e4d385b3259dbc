// Bugs to plant in the client, one at a time: the seeds must notice each, or where it is said the tests of the socket.
// `node tests/planted.mjs` builds a client with each of them; it fails if one goes unnoticed, or no longer fits the source.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = new URL('..', import.meta.url);
const PLANTED = [
  ['ack_one_too_far', 'session.js', "{ t: 'ack', n: this.#rx }", "{ t: 'ack', n: this.#rx + 1 }"],
  ['resume_says_too_much', 'session.js', 'rx: this.#rx, tx: [', 'rx: this.#rx + (this.#rx > 9 ? 1 : 0), tx: ['],
  ['resume_forgets_one', 'outbox.js', '!item.seq || item.seq > received);', '!item.seq || item.seq > received + 1);'],
  ['number_given_twice', 'outbox.js', 'item.seq = this.next++', 'item.seq = this.next; if (this.next % 50) this.next += 1'],
  ['acknowledged_ahead_is_forgotten', 'outbox.js', 'untilConfirmed ? confirmed : received', 'received + 1'],
  ['token_not_renewed', 'session.js', 'this.pipe = { id, token, epoch };', 'this.pipe ??= { id, token, epoch };'],
  ['renumbered_on_resume', 'session.js', 'outbox.rewind(received);', 'outbox.rewind(received); outbox.next = received + 1;'],
  ['half_open_never_noticed', 'session.js', "if (this.#phase !== 'live') return false;", 'return false;'],
  ['old_link_still_heard', 'transport.js', 'socket.onopen = socket.onmessage = socket.onclose = null;', '', 'socket'],
  ['window_never_opens', 'outbox.js', 'this.#flying -= item.bytes;', ''],
  ['backoff_for_ever', 'socket.js', "output[1] ?? this.#backoff.next(this.#session.jitterMs)", '10_000_000'],
];

/** The client with one bug in it, as one module. */
async function planted(directory, [name, file, right, wrong]) {
  const path = fileURLToPath(new URL(`src/${file}`, root));
  const source = readFileSync(path, 'utf8');
  if (source.split(right).length !== 2) throw new Error(`${name} does not fit src/${file} any more`);
  const plant = {
    name,
    setup: ({ onLoad }) => onLoad({ filter: new RegExp(`/src/${file}$`) }, () => ({ contents: source.replace(right, () => wrong) })),
  };
  const outfile = join(directory, `${name}.mjs`);
  await build({ entryPoints: [fileURLToPath(new URL('src/index.js', root))], bundle: true, format: 'esm', outfile, plugins: [plant] });
  return outfile;
}

const directory = mkdtempSync(join(tmpdir(), 'holdline-planted-'));
const unnoticed = [];
const only = process.argv.slice(2);
for (const bug of PLANTED.filter(([name]) => !only.length || only.includes(name))) {
  const client = await planted(directory, bug);
  const env = { ...process.env, HOLDLINE_CLIENT: client, HOLDLINE_CLIENT_PATIENCE_MS: '5000', HOLDLINE_CLIENT_UNTIL_RED: '1' };
  const [name, , , , tests = 'drill'] = bug;
  const { status } = spawnSync(process.execPath, ['--test', `tests/${tests}.test.mjs`], { cwd: root, env, stdio: 'ignore' });
  console.log(`${name}: ${status ? 'noticed' : 'UNNOTICED'}`);
  if (!status) unnoticed.push(name);
}
rmSync(directory, { recursive: true });
process.exit(unnoticed.length ? 1 : 0);
