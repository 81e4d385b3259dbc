// Clients for drills: in this process, or in a page of a browser, and told and asked alike.
import { HoldlineSocket, WebSocket } from './client.mjs';
import { peer } from './peer.mjs';

/** `20` is that many seeds, and `7..9` those. */
export function seeds(text) {
  const [from, to] = text.split('..').map(Number);
  return to === undefined ? [0, from - 1] : [from, to];
}

/** Opens clients with these options in this process. */
export const inNode = (options) => (url) => peer(HoldlineSocket, url, { ...options, transports: [...options.transports], WebSocket });

/** Opens them in a page each, told and asked over DevTools. */
export const inPage = (browser, files, options) => async (url) => {
  const page = await browser.open(files.url);
  await page.evaluate(`Promise.all([import('/dist/index.js'), import('/tests/support/peer.mjs')]).then(([client, support]) => {
    globalThis.client = support.peer(client.HoldlineSocket, ${JSON.stringify(url)}, ${JSON.stringify(options)});
  })`);
  const call = (method) => (...values) => page.evaluate(`client.${method}(${values.map((value) => JSON.stringify(value)).join()})`);
  const close = () => call('close')().then(() => page.ask('Page.close'));
  return { opened: call('opened'), state: call('state'), say: call('say'), lastWords: call('lastWords'), travel: call('travel'), close };
};
