/// <reference types="node" />
import type { IncomingMessage } from 'node:http';

/** The admin API said no. */
export class Refused extends Error {
  constructor(status: number, detail: string);
  readonly status: number;
}

export interface Where {
  /** `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`; `HOLDLINE_ADMIN` if not given, else `http://127.0.0.1:9000`. */
  admin?: string;
  /** A token with the role `worker`; `HOLDLINE_TOKEN` if not given. */
  token?: string;
}

export interface RegisterOptions extends Where {
  /** `default` if not given. */
  pool?: string;
  /** How long Holdline may go without hearing of it; `15s` if not given. */
  lease?: string;
  /** What the backend is called; made up if not given. */
  id?: string;
  /** The route keys that it takes, or a map from key to what it calls that key itself; every key if not given. */
  serves?: string[] | Record<string, string>;
  labels?: Record<string, string>;
  /** How it is probed, instead of what its pool says. */
  health?: { type?: 'tcp' | 'http' | 'ws'; path?: string; interval?: string; timeout?: string };
  weight?: number;
  maxPipes?: number;
  /** How long its pipes have to move when it leaves; 60,000 if not given. */
  drainMs?: number;
  /** Whether SIGTERM and SIGINT end `toldToStop`; they do if not given. */
  signals?: boolean;
  /** Where it is said what goes wrong; `console.error` if not given. */
  log?: (what: string) => void;
}

/** Registers the worker at `url`, renews its lease, and registers again when it was forgotten, until it leaves. */
export function register(url: string, options?: RegisterOptions): Registration;

export class Registration implements AsyncDisposable {
  constructor(url: string, options?: RegisterOptions);
  readonly id: string;
  /** What an operator wishes: `drain`, `maint`. */
  readonly directives: string[];
  /** Resolves once Holdline knows the worker. */
  registered(): Promise<void>;
  /** Resolves at SIGTERM, at SIGINT, and when an operator wishes that the worker drains. */
  toldToStop(): Promise<void>;
  /** Ends `toldToStop`; a second time, the pipes that are left are not waited for. */
  stop(): void;
  /** Drains for `drainMs` at most, and withdraws. */
  leave(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** What the headers of an attach say. */
export class Resume {
  /** Reads a request of `http`, a Fetch `Request`, or their headers; nothing if it did not come through Holdline. */
  static of(request: IncomingMessage | Request | Headers | Record<string, string | string[] | undefined>): Resume | null;
  private constructor();
  /** The conversation, the same on every worker. */
  readonly pipe: string;
  /** 1 for the first worker of the pipe, and one more for each later one. */
  readonly attach: number;
  /** Why the worker before was left. */
  readonly cause: string | null;
  /** The backend that had the pipe before. */
  readonly previous: string | null;
  /** The number of the first message that comes now. */
  readonly firstSeq: number;
  /** Messages that come again first, because they were not confirmed. */
  readonly replayed: number;
  readonly replayedBytes: number;
  /** Up to there the workers before had confirmed. */
  readonly confirmed: number;
  /** How sure that is: `written`, `pong` or `app`. */
  readonly level: string | null;
  /** Messages that were given up. */
  readonly gap: { from: number; to: number } | null;
  /** Messages that say the beginning again; they come before all others, and have no number. */
  readonly prologue: number;
  /** The number of each message that comes on this attach, in order; 0 for those that say the beginning again. */
  numbers(rx?: number): Generator<number, never, void>;
  /** As `commit`, for this attach. */
  commit(seq: number, where?: Where): Promise<number>;
}

/** Says that the application has done with all messages of the pipe up to `seq`; the number that is confirmed now. */
export function commit(pipe: string, attach: number, seq: number, where?: Where): Promise<number>;
