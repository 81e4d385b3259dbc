/**
 * The frames of `holdline.v1`: what is offered in the handshake, and how messages and controls are written and read.
 *
 * Text data is `<number>;<payload>`, binary data `0x00 varint(number) <payload>`, a control `!` and one JSON object with
 * a `t`. Anything else is a {@link ProtocolError}. Nothing here knows a socket or a state.
 *
 * @typedef {{seq: number, data: string | Uint8Array}} Message   number 0: a message of a plain WebSocket
 * @typedef {{t: string, [field: string]: any}} Control
 * @typedef {Message | Control} Frame
 */

const PROTOCOL = 'holdline.v1';
const CONTROLS = 'welcome resumed reject ack gap live backend goaway fin hb'.split(' ');

/** Close codes of Holdline's own, and the ones that we say. */
export const CLOSE = { NORMAL: 1000, LOST: 1006, REJECTED: 4900, SUPERSEDED: 4901, AUTH: 4904, PROTOCOL: 4905 };

/** The peer said what `holdline.v1` does not know. Its messages are short: they are close reasons, and weigh in the build. */
export class ProtocolError extends Error {}

/**
 * The subprotocols to offer: ours over the application's, the pipe that is to be resumed, then the application's alone.
 * @param {string[]} protocols @param {string} [pipe]
 */
export function offers(protocols, pipe) {
  const ours = protocols.length ? protocols.map((name) => `${PROTOCOL}+${name}`) : [PROTOCOL];
  return [...ours, ...(pipe ? [`holdline.pipe.${pipe}`] : []), ...protocols];
}

/**
 * What the server chose: whether it speaks `holdline.v1`, and the application's own subprotocol.
 * @param {string} chosen
 */
export function agreed(chosen) {
  const aware = chosen === PROTOCOL || chosen.startsWith(`${PROTOCOL}+`);
  return { aware, protocol: aware ? chosen.slice(PROTOCOL.length + 1) : chosen };
}

/** @param {Frame} frame @returns {string | Uint8Array} */
export function encode(frame) {
  if ('t' in frame) return `!${JSON.stringify(frame)}`;
  const { seq, data } = frame;
  if (!seq) return data;
  if (typeof data === 'string') return `${seq};${data}`;
  const number = varint(seq);
  const bytes = new Uint8Array(1 + number.length + data.length);
  bytes.set(number, 1);
  bytes.set(data, 1 + number.length);
  return bytes;
}

/** @param {string | ArrayBuffer} raw @returns {Frame} */
export function decode(raw) {
  if (typeof raw !== 'string') return decodeBinary(new Uint8Array(raw));
  if (raw[0] === '!') return control(raw.slice(1));
  const end = raw.slice(0, 17).indexOf(';');
  return { seq: decimal(raw.slice(0, Math.max(end, 0))), data: raw.slice(end + 1) };
}

/** @param {any} value @returns {number} a number that counts messages, 0 for none yet */
export function count(value) {
  if (!Number.isSafeInteger(value) || value < 0) throw new ProtocolError('bad number');
  return value;
}

/** @param {string} json @returns {Control} */
function control(json) {
  let value;
  try {
    value = JSON.parse(json);
  } catch {
    throw new ProtocolError('bad control');
  }
  if (!CONTROLS.includes(value?.t)) throw new ProtocolError('bad control');
  return value;
}

/** @param {string} text */
function decimal(text) {
  if (!/^[1-9]\d*$/.test(text)) throw new ProtocolError('bad number');
  return count(Number(text));
}

/** @param {Uint8Array} bytes @returns {Message} */
function decodeBinary(bytes) {
  if (bytes[0] !== 0) throw new ProtocolError('bad number');
  let seq = 0;
  let at = 1;
  // A number has at most 53 bits: bit operators would cut it to 32, so the sevens are added up.
  for (let unit = 1; ; unit *= 128) {
    const byte = bytes[at++];
    if (byte === undefined || at > 9) throw new ProtocolError('bad number');
    seq += (byte & 127) * unit;
    if (byte < 128) {
      if (!byte) throw new ProtocolError('bad number');
      break;
    }
  }
  return { seq: count(seq), data: bytes.subarray(at) };
}

/** @param {number} seq */
function varint(seq) {
  const bytes = [];
  for (; seq > 127; seq = Math.floor(seq / 128)) bytes.push((seq % 128) | 128);
  return [...bytes, seq];
}
