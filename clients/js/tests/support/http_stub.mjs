// The stub's other two transports: a pipe over POST and long poll, or POST and server-sent events.
import { EventEmitter, once } from 'node:events';
import { Stub } from './stub.mjs';

const LINES = 'application/vnd.holdline+json';

export class HttpStub extends Stub {
  /** What came in, as `POST hello`, `POST`, `poll`, `sse` or `HEAD`. */
  requests = [];
  /** Where the last poll or stream went on. */
  after = '';
  /** Answers of polls that are lost on the way, once each. */
  loseAnswers = 0;

  async answer(request, response) {
    const url = new URL(request.url, 'http://stub');
    if (request.method === 'HEAD') {
      this.requests.push('HEAD');
      return response.writeHead(204).end();
    }
    if (request.method === 'POST') return this.post(request, response);
    const pipe = this.owned(request, url.searchParams.get('pipe'));
    if (!pipe) return response.writeHead(404).end();
    this.after = url.searchParams.get('after');
    pipe.forget(parseInt(this.after, 10));
    const isStream = request.headers.accept === 'text/event-stream';
    this.requests.push(isStream ? 'sse' : 'poll');
    if (isStream) this.stream(pipe, response);
    else await this.poll(pipe, request, response);
  }

  async post(request, response) {
    let body = '';
    for await (const bytes of request) body += bytes;
    const lines = body.split('\n').filter(Boolean).map((line) => JSON.parse(line));
    if (lines[0].t === 'hello') {
      this.requests.push('POST hello');
      const said = [];
      const link = new HttpLink((control) => said.push(JSON.parse(control.slice(1))));
      this.greet(link, lines[0]);
      return response.writeHead(200, { 'Content-Type': LINES }).end(JSON.stringify(said[0]));
    }
    this.requests.push('POST');
    const pipe = this.owned(request, request.headers['holdline-pipe']);
    if (!pipe) return response.writeHead(410).end();
    for (const line of lines) {
      if (line.t) this.control(pipe.link, line);
      else pipe.hear(line.seq, line.text ?? Buffer.from(line.base64, 'base64'));
    }
    response.writeHead(200).end(JSON.stringify({ ack: pipe.rx }));
  }

  /** The end of a pipe is a line behind its messages. */
  end(pipe, words) {
    for (const body of words) pipe.kept.push({ number: pipe.next, body });
    pipe.link.news.emit('news');
  }

  owned(request, id) {
    const pipe = this.pipes.get(id);
    return pipe && request.headers.authorization === `Holdline ${pipe.token}` ? pipe : null;
  }

  async poll(pipe, request, response) {
    const { link } = pipe;
    if (!pipe.kept.length && !link.isGone) await Promise.race([once(link.news, 'news'), once(request.socket, 'close')]);
    if (this.loseAnswers > 0 || link.isGone) {
      this.loseAnswers -= 1;
      return response.destroy();
    }
    response.writeHead(200, { 'Content-Type': LINES }).end(pipe.kept.map(asLine).join(''));
  }

  stream(pipe, response) {
    if (pipe.link.isGone) return response.destroy();
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write(': alive\n\n');
    let told = 0;
    const tell = () => {
      for (const item of pipe.kept) {
        if (item.number > told) response.write(`id: 1-${item.number}\ndata: ${asLine(item)}\n`);
        told = Math.max(told, item.number);
      }
    };
    pipe.link.news.on('news', tell);
    pipe.link.stream = response;
    tell();
  }
}

/** A link whose other end asks, rather than being written to. */
class HttpLink {
  news = new EventEmitter();

  constructor(say) {
    this.say = say;
  }

  send(frame) {
    if (typeof frame === 'string' && frame.startsWith('!')) this.say(frame);
    else this.news.emit('news');
  }

  terminate() {
    this.isGone = true;
    this.stream?.destroy();
    this.news.emit('news');
  }

  close() {}
}

const asLine = ({ number, body }) => {
  if (body.t) return `${JSON.stringify(body)}\n`;
  const data = typeof body === 'string' ? { text: body } : { base64: body.toString('base64') };
  return `${JSON.stringify({ seq: number, ...data })}\n`;
};
