/**
 * A link over a WebSocket: frames in and out, and its end. It decides nothing.
 *
 * Invariant: after {@link Link.drop} nothing is heard of it any more; nobody waits until the old socket has closed.
 *
 * @typedef {import('./protocol.js').Frame} Frame
 * @typedef {{
 *   open: (protocol: string) => void, frame: (read: () => Frame) => void,
 *   close: (code: number, reason: string, clean: boolean) => void,
 * }} Events   `frame` gets a function that reads the frame, which may throw a `ProtocolError`
 * @typedef {{
 *   send: (frame: Frame) => void, close: (code: number, reason: string) => void, drop: () => void,
 *   readonly bufferedAmount: number,
 * }} Link
 */
import { CLOSE, agreed, decode, encode } from './protocol.js';

/**
 * @param {typeof WebSocket} WebSocket @param {string} url @param {string[]} protocols @param {Events} on
 * @returns {Link}
 */
export function socketLink(WebSocket, url, protocols, on) {
  const socket = protocols.length ? new WebSocket(url, protocols) : new WebSocket(url);
  let aware = false;
  let wasOpen = false;
  socket.binaryType = 'arraybuffer';
  socket.onopen = () => {
    wasOpen = true;
    aware = agreed(socket.protocol).aware;
    on.open(socket.protocol);
  };
  socket.onmessage = ({ data }) => on.frame(() => (aware ? decode(data) : plain(data)));
  socket.onclose = ({ code, reason, wasClean }) => on.close(code, reason, wasClean);
  // Node's own WebSocket fires no close when it does not open.
  socket.onerror = () => wasOpen || on.close(CLOSE.LOST, '', false);
  return {
    get bufferedAmount() {
      return socket.bufferedAmount;
    },
    send: (frame) => socket.readyState === WebSocket.OPEN && socket.send(/** @type {any} */ (encode(frame))),
    close: (code, reason) => close(socket, code, reason),
    drop() {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.onerror = () => {};
      close(socket, CLOSE.NORMAL, '');
    },
  };
}

/** @param {string | ArrayBuffer} data @returns {Frame} */
const plain = (data) => ({ seq: 0, data: typeof data === 'string' ? data : new Uint8Array(data) });

/** An application may only say 1000 and its own codes. @param {WebSocket} socket @param {number} code @param {string} reason */
function close(socket, code, reason) {
  try {
    socket.close(code === CLOSE.NORMAL || code >= 3000 ? code : CLOSE.NORMAL, reason);
  } catch {
    socket.close();
  }
}
