// A chat in React: what is missing is fetched anew, what was sent while the network was away arrives later.
import { useState } from 'react';
import { useHoldline } from 'holdline/react';

export function Chat({ fetchHistory }) {
  const [lines, setLines] = useState([]);
  const { status, send } = useHoldline('/chat', {
    aware: true,
    onMessage: ({ data }) => setLines((known) => [...known, data]),
    onGap: async ({ detail }) => detail.lane === 'down' && setLines(await fetchHistory()),
  });
  const submit = (form) => send(form.get('line'));
  return (
    <form action={submit}>
      <ol>{lines.map((line, index) => <li key={index}>{line}</li>)}</ol>
      <input name="line" /> <small>{status}</small>
    </form>
  );
}
