// How the admin API is asked: by TCP, by TLS or on a socket file, one connection for each request. HOLDLINE_ADMIN says where it
// is, HOLDLINE_TOKEN with which token, and HOLDLINE_ADMIN_CA, HOLDLINE_ADMIN_CERT and HOLDLINE_ADMIN_KEY what TLS goes by,
// as for `holdline ctl`.
import { readFileSync } from 'node:fs';
import { request as askByTcp } from 'node:http';
import { request as askByTls } from 'node:https';

const DEFAULT = 'http://127.0.0.1:9000';
const REQUEST_MS = 5000;
/** Of an answer that is no problem document. */
const SAID_CHARACTERS_MAX = 200;
const FORMS = 'http://127.0.0.1:9000, https://10.0.0.1:9000 or unix:/run/holdline/admin.sock';

/** The admin API said no: its status and what it said. */
export class Refused extends Error {
  /** @param {number} status @param {string} detail */
  constructor(status, detail) {
    super(`${status}: ${detail}`);
    this.name = 'Refused';
    this.status = status;
  }
}

/** Where the admin API is, and with which token it is asked. */
export class Admin {
  #target;
  #token;

  /** @param {string} [address] @param {string} [token] */
  constructor(address = process.env.HOLDLINE_ADMIN || DEFAULT, token = process.env.HOLDLINE_TOKEN) {
    this.address = address;
    this.#token = token;
    this.#target = target(address);
  }

  /**
   * What it answers; rejects with `Refused`, or with what went wrong on the way.
   *
   * @param {string} method @param {string} path @param {unknown} [body] @returns {Promise<any>}
   */
  async ask(method, path, body) {
    const text = body === undefined ? '' : JSON.stringify(body);
    /** @type {import('node:http').OutgoingHttpHeaders} */
    const headers = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) };
    if (this.#token) headers.Authorization = `Bearer ${this.#token}`;
    const { status, said } = await this.#send({ method, path, headers, agent: false, timeout: REQUEST_MS }, text);
    const answer = parsed(said);
    if (said && answer === undefined) throw new Refused(status, `no answer of an admin API: ${said.slice(0, SAID_CHARACTERS_MAX)}`);
    if (status >= 400) throw new Refused(status, detail(answer));
    return answer;
  }

  /**
   * @param {import('node:https').RequestOptions} options @param {string} text
   * @returns {Promise<{status: number, said: string}>}
   */
  #send(options, text) {
    const send = this.#target.protocol === 'https:' ? askByTls : askByTcp;
    return new Promise((resolve, reject) => {
      const sent = send({ ...this.#target, ...options }, async (answer) => {
        try {
          let said = '';
          for await (const part of answer.setEncoding('utf8')) said += part;
          resolve({ status: answer.statusCode ?? 0, said });
        } catch (error) {
          reject(error);
        }
      });
      sent.on('timeout', () => sent.destroy(new Error(`no answer within ${REQUEST_MS} ms`)));
      sent.on('error', reject);
      sent.end(text);
    });
  }
}

/** @param {string} address @returns {import('node:https').RequestOptions} */
function target(address) {
  if (address.startsWith('unix:')) return { protocol: 'http:', socketPath: address.slice('unix:'.length), host: 'localhost' };
  const text = address.includes('://') ? address : `http://${address}`;
  if (!/^https?:\/\/.+:\d+\/?$/.test(text) || !URL.canParse(text)) {
    throw new TypeError(`${JSON.stringify(address)} is no admin API; write it like ${FORMS}`);
  }
  const { protocol, hostname, port } = new URL(text);
  /** @param {string} name */
  const read = (name) => (process.env[name] ? readFileSync(String(process.env[name])) : undefined);
  const tls = { ca: read('HOLDLINE_ADMIN_CA'), cert: read('HOLDLINE_ADMIN_CERT'), key: read('HOLDLINE_ADMIN_KEY') };
  const host = hostname.replace(/^\[(.*)\]$/, '$1');
  return { protocol, host, port: port || (protocol === 'https:' ? 443 : 80), ...(protocol === 'https:' && tls) };
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * What a problem document says, with each field of which it says another thing.
 *
 * @param {{detail?: string, errors?: {pointer?: string, message?: string}[]}} [problem]
 */
function detail(problem) {
  const other = (problem?.errors ?? []).filter(({ message }) => message !== problem?.detail);
  const fields = other.map(({ pointer = '', message = '' }) => `${pointer}: ${message}`);
  return [problem?.detail ?? 'no reason', ...fields].join('; ');
}
