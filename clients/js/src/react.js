/**
 * A React hook over {@link HoldlineSocket}: one socket for each address, closed with the component.
 *
 * Handlers may change with every rendering; the socket is made anew only when the address or the subprotocols change.
 */
import { useCallback, useEffect, useRef, useState } from 'react';
import { HoldlineSocket } from 'holdline';

/**
 * @param {string | URL | null} url `null`: no connection yet
 * @param {import('../types/react.d.ts').UseHoldlineOptions} [options]
 */
export function useHoldline(url, options = {}) {
  const latest = useRef(options);
  latest.current = options;
  const [socket, setSocket] = useState(/** @type {HoldlineSocket | null} */ (null));
  const [status, setStatus] = useState('connecting');
  const address = url && String(url);
  const protocols = String(options.protocols ?? '');

  useEffect(() => {
    if (!address) return undefined;
    const { protocols: offered, onMessage, onGap, onBackend, ...rest } = latest.current;
    const made = new HoldlineSocket(address, offered, rest);
    /** @param {string} type @param {(event: any) => void} listener */
    const on = (type, listener) => made.addEventListener(type, listener);
    on('message', (event) => latest.current.onMessage?.(event));
    on('gap', (event) => latest.current.onGap?.(event));
    on('backend', (event) => latest.current.onBackend?.(event));
    on('open', () => setStatus('open'));
    on('interrupted', () => setStatus('interrupted'));
    on('resumed', () => setStatus('open'));
    on('close', () => setStatus('closed'));
    setSocket(made);
    setStatus('connecting');
    return () => made.close();
  }, [address, protocols]);

  const send = useCallback((/** @type {any} */ data) => socket?.send(data), [socket]);
  return { socket, status, send };
}
