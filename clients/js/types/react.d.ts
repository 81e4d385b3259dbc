import type { BackendNews, DetailEvent, Gap, HoldlineData, HoldlineOptions, HoldlineSocket } from 'holdline';

export interface UseHoldlineOptions extends HoldlineOptions {
  protocols?: string | string[];
  onMessage?: (event: MessageEvent) => void;
  onGap?: (event: DetailEvent<Gap>) => void;
  onBackend?: (event: DetailEvent<BackendNews>) => void;
}

/** One socket for each `url`, closed with the component; `null`: no connection yet. */
export function useHoldline(
  url: string | URL | null,
  options?: UseHoldlineOptions,
): {
  socket: HoldlineSocket | null;
  status: 'connecting' | 'open' | 'interrupted' | 'closed';
  send: (data: HoldlineData) => void;
};
