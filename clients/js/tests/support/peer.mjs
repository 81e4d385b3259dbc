// The client's side of a drill. It runs in Node and in a page alike, and is told and asked in JSON.
export function peer(HoldlineSocket, url, options) {
  const socket = new HoldlineSocket(url, [], options);
  const log = [];
  const heard = [];
  const text = (data) => (typeof data === 'string' ? data : new TextDecoder().decode(data));
  socket.binaryType = 'arraybuffer';
  for (const type of ['open', 'error', 'close', 'interrupted', 'resumed', 'gap', 'backend']) {
    socket.addEventListener(type, ({ detail, code }) => log.push({ type, code, ...detail }));
  }
  // Attach, number and what it answers: all that is judged of a message.
  socket.addEventListener('message', ({ data }) => heard.push(text(data).split(' ', 3).map(Number)));
  const once = (type) => new Promise((resolve) => socket.addEventListener(type, () => resolve(), { once: true }));

  return {
    socket,
    opened: () => (socket.readyState === 1 ? undefined : once('open')),
    state: () => ({ pipe: socket.pipe, connected: socket.connected, buffered: socket.bufferedAmount, log, heard }),
    say(messages) {
      for (const { number, wanted, fill, binary } of messages) {
        const message = `${number} ${wanted} ${'.'.repeat(fill)}`;
        socket.send(binary ? new TextEncoder().encode(message) : message);
      }
    },
    /** Goes by this way alone, from the next connection on. */
    travel: (way) => void options.transports.splice(0, Infinity, way),
    /** Resolves when a worker has this one, and its answer has come. */
    async lastWords(number) {
      await socket.sendAcked(`${number} 1 the last one`);
      while (!heard.some(([, , answers]) => answers === number)) await once('message');
    },
    async close() {
      if (socket.readyState === 3) return;
      const closed = once('close');
      socket.close();
      await closed;
    },
  };
}
