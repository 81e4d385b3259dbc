// The real proxy with two workers of the tests' own, which are killed and started again on their ports.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { WebSocket as ws } from 'ws';

const WORKER = fileURLToPath(new URL('worker.mjs', import.meta.url));

/** The proxy's program, where it was built. */
export const program = process.env.HOLDLINE_BIN ?? fileURLToPath(new URL('../../../../target/debug/holdline', import.meta.url));

export class Holdline {
  workers = [];

  static async start(settings = '') {
    const holdline = new Holdline();
    holdline.directory = mkdtempSync(join(tmpdir(), 'holdline-client-'));
    const config = join(holdline.directory, 'proxy.toml');
    writeFileSync(config, `[server]\nlisten = ["127.0.0.1:0"]\n[admin]\nlisten = "127.0.0.1:0"\n[log]\nformat = "json"\n${settings}`);
    holdline.log = '';
    holdline.process = spawn(program, ['serve', '-c', config], { stdio: ['ignore', 'ignore', 'pipe'] });
    holdline.process.stderr.on('data', (bytes) => (holdline.log += bytes));
    const address = async (name) => (await holdline.#said(new RegExp(`"listener":"${name}","address":"([^"]+)"`)))[1];
    holdline.host = '127.0.0.1';
    holdline.port = Number((await address('public')).split(':')[1]);
    holdline.admin = `http://${await address('admin')}`;
    for (const name of ['a', 'b']) await holdline.#register(new Worker(name, holdline.directory));
    await holdline.#servesPipes();
    return holdline;
  }

  async stop() {
    this.process.kill('SIGTERM');
    for (const worker of this.workers) worker.kill();
    await new Promise((resolve) => this.process.exitCode === null ? this.process.once('exit', resolve) : resolve());
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** Lines of the proxy's log that no run may have. */
  get errors() {
    return this.log.split('\n').filter((line) => line.includes('"level":"ERROR"'));
  }

  /** What all workers saw of a pipe, attach by attach. */
  seen(pipe) {
    const lines = this.workers.flatMap(({ journal }) => readFileSync(journal, 'utf8').split('\n').slice(0, -1));
    return lines.map((line) => JSON.parse(line)).filter((line) => line.pipe === pipe);
  }

  /** What the proxy knows of a pipe, for the report of a failure. */
  async view(pipe) {
    const answer = await fetch(`${this.admin}/v1/pipes/${pipe}`);
    return answer.json();
  }

  async #said(pattern) {
    for (;;) {
      const found = this.log.match(pattern);
      if (found) return found;
      if (this.process.exitCode !== null) throw new Error(`the proxy ended: ${this.log}`);
      await new Promise((resolve) => this.process.stderr.once('data', resolve));
    }
  }

  async #register(worker) {
    this.workers.push(worker);
    await worker.start();
    const answer = await fetch(`${this.admin}/v1/backends/${worker.name}`, {
      method: 'PUT',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ url: `ws://127.0.0.1:${worker.port}` }),
    });
    if (!answer.ok) throw new Error(`registering: ${answer.status} ${await answer.text()}`);
  }

  /** Waits until the proxy lets a pipe through to a worker. */
  async #servesPipes() {
    for (;;) {
      const opened = await new Promise((resolve) => {
        const socket = new ws(`ws://127.0.0.1:${this.port}/`);
        socket.on('open', () => (socket.close(), resolve(true)));
        socket.on('error', () => resolve(false));
      });
      if (opened) return;
    }
  }
}

class Worker {
  port = 0;

  constructor(name, directory) {
    this.name = name;
    this.journal = join(directory, `${name}.journal`);
    writeFileSync(this.journal, '');
  }

  async start() {
    this.process = spawn(process.execPath, [WORKER, this.port, this.journal], { stdio: ['ignore', 'pipe', 'inherit'] });
    const line = await new Promise((resolve) => this.process.stdout.once('data', resolve));
    this.port = Number(String(line).split(' ')[1]);
  }

  kill() {
    this.process.kill('SIGKILL');
  }

  /** Killed as the kernel kills, and there again. */
  async restart() {
    const gone = new Promise((resolve) => this.process.once('exit', resolve));
    this.kill();
    await gone;
    await this.start();
  }
}
