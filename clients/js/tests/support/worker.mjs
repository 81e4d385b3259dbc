// A worker that knows nothing of Holdline but the headers that name pipe and attach. Each message begins with its number and
// how many it wants back; both ways are in the journal before anything else happens. Usage: worker.mjs PORT JOURNAL
import { openSync, writeSync } from 'node:fs';
import { WebSocketServer } from 'ws';

const [port, path] = process.argv.slice(2);
const journal = openSync(path, 'a');
const note = (line) => writeSync(journal, `${JSON.stringify(line)}\n`);
const server = new WebSocketServer({ host: '127.0.0.1', port: Number(port), perMessageDeflate: false, handleProtocols: () => false });
server.on('listening', () => console.log(`listening ${server.address().port}`));

server.on('connection', (socket, request) => {
  const { 'holdline-pipe': pipe, 'holdline-attach': attach } = request.headers;
  let pushed = 0;
  socket.on('error', () => {});
  socket.on('message', (data, isBinary) => {
    const [number, wanted] = data.toString('latin1').split(' ', 2).map(Number);
    note({ way: 'up', pipe, attach: Number(attach), number, bytes: data.length, isBinary });
    for (let i = 0; i < wanted; i += 1) {
      pushed += 1;
      const text = `${attach} ${pushed} ${number} ${'.'.repeat((number * 37 + i * 101) % (i % 7 === 6 ? 60_000 : 200))}`;
      note({ way: 'down', pipe, attach: Number(attach), number: pushed, bytes: text.length });
      socket.send(i % 3 === 1 ? Buffer.from(text) : text);
    }
  });
});
