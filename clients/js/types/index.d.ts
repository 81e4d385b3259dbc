/** Options of a {@link HoldlineSocket}; all of them may be left out. Times are in milliseconds. */
export interface HoldlineOptions {
  /**
   * `true`: the server is a Holdline. `false`: a plain WebSocket that reconnects. `'auto'` (default): Holdline is asked
   * first; without subprotocols, a server that does not know it is asked again without.
   */
  aware?: boolean | 'auto';
  /** The transports that may be used, in this order. Default: `['ws', 'sse', 'poll']`. */
  transports?: Array<'ws' | 'sse' | 'poll'>;
  /** `send` throws when more than so many bytes wait. Default: 4 MiB. */
  maxBuffered?: number;
  /** Whether the pipe is kept over a page reload. Default: `true`. */
  persist?: boolean;
  backoff?: { min?: number; max?: number };
  timeouts?: {
    /** To open and to greet. Default: 10 s. */
    open?: number;
    /** For the answer to a probe, before the link is given up. Default: 5 s. */
    probe?: number;
    /** Of silence while something is unacknowledged, before the proxy is probed. Default: 3 s. */
    silence?: number;
    /** For `close` to deliver what waits. Default: 5 s. */
    close?: number;
  };
  /** The WebSocket to use where there is no global one (Node before 22: that of the package `ws`). */
  WebSocket?: unknown;
  /** The `fetch` to use over HTTP. */
  fetch?: typeof fetch;
}

/** Messages that did not arrive, or may not have. */
export interface Gap {
  /** `up`: messages of ours; `down`: messages for us. */
  readonly lane: 'up' | 'down';
  /** The number of the first one; `null` when the pipe itself was lost. */
  readonly from: number | null;
  /** How many; `null` when that is unknown: none, some or many. */
  readonly count: number | null;
  readonly bytes: number | null;
  /**
   * What the proxy says (`overflow`, `ttl`, `policy`, `backend-lost`, `node-lost`); `pipe-lost`: a new pipe took the
   * place of the old one; `no-resume`: the server is no Holdline, so a reconnect may always have lost something.
   */
  readonly why: string;
}

export interface Interruption {
  readonly code: number;
  readonly reason: string;
}

export interface Resumption {
  /** `ok`: nothing was lost but what `gap` told; `new`: a new pipe; `none`: the server is no Holdline. */
  readonly resumed: 'ok' | 'new' | 'none';
  /** Whether the pipe is that of the page before. */
  readonly reloaded: boolean;
}

export interface BackendNews {
  readonly state: 'lost' | 'attached';
  readonly attach?: number;
  readonly cause?: string;
  readonly resumed?: 'ok' | 'new' | 'unknown';
}

export interface DetailEvent<T> extends Event {
  readonly detail: T;
}

export interface HoldlineEventMap extends WebSocketEventMap {
  interrupted: DetailEvent<Interruption>;
  resumed: DetailEvent<Resumption>;
  gap: DetailEvent<Gap>;
  backend: DetailEvent<BackendNews>;
}

export type HoldlineData = string | ArrayBufferLike | ArrayBufferView | Blob;

/** A `WebSocket` that outlives its network, its page, its transport, and the workers behind Holdline. */
export class HoldlineSocket extends EventTarget implements WebSocket {
  static readonly CONNECTING: 0;
  static readonly OPEN: 1;
  static readonly CLOSING: 2;
  static readonly CLOSED: 3;
  readonly CONNECTING: 0;
  readonly OPEN: 1;
  readonly CLOSING: 2;
  readonly CLOSED: 3;
  constructor(url: string | URL, protocols?: string | string[], options?: HoldlineOptions);
  readonly url: string;
  readonly protocol: string;
  readonly extensions: string;
  /** Stays OPEN while the socket is interrupted; see {@link HoldlineSocket.connected}. */
  readonly readyState: 0 | 1 | 2 | 3;
  /** Whether there is a link just now. */
  readonly connected: boolean;
  /** The pipe's id; `null` if the server is no Holdline. */
  readonly pipe: string | null;
  /** Bytes that are not in safe hands yet: never sent, or not acknowledged. */
  readonly bufferedAmount: number;
  binaryType: BinaryType;
  /** Throws a `QuotaExceededError` past `maxBuffered`. May be called before `open`. */
  send(data: HoldlineData): void;
  /** Resolves when the worker has the message, or with `by: 'proxy'` the proxy; rejects when that can't be known. */
  sendAcked(data: HoldlineData, options?: { by?: 'proxy' | 'worker' }): Promise<void>;
  /** Resolves when nothing is buffered any more. */
  drained(): Promise<void>;
  close(code?: number, reason?: string): void;
  onopen: ((this: WebSocket, event: Event) => any) | null;
  onmessage: ((this: WebSocket, event: MessageEvent) => any) | null;
  onerror: ((this: WebSocket, event: Event) => any) | null;
  onclose: ((this: WebSocket, event: CloseEvent) => any) | null;
  oninterrupted: ((this: HoldlineSocket, event: DetailEvent<Interruption>) => any) | null;
  onresumed: ((this: HoldlineSocket, event: DetailEvent<Resumption>) => any) | null;
  ongap: ((this: HoldlineSocket, event: DetailEvent<Gap>) => any) | null;
  onbackend: ((this: HoldlineSocket, event: DetailEvent<BackendNews>) => any) | null;
  addEventListener<K extends keyof HoldlineEventMap>(
    type: K,
    listener: (this: HoldlineSocket, event: HoldlineEventMap[K]) => any,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<K extends keyof HoldlineEventMap>(
    type: K,
    listener: (this: HoldlineSocket, event: HoldlineEventMap[K]) => any,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | EventListenerOptions,
  ): void;
}

export default HoldlineSocket;
