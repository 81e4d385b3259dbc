// Shows one phone of this worker: pictures come over one WebSocket, taps go over another.
const session = new URLSearchParams(location.search).get('session') || 'demo';
const base = new URL('.', location.href).href.replace(/^http/, 'ws') + `ws/${encodeURIComponent(session)}/`;
const screen = document.getElementById('screen');
const state = document.getElementById('state');
const control = new WebSocket(base + 'control');
const video = new WebSocket(base + 'video');
let taps = 0;
video.onmessage = (event) => {
  const frame = JSON.parse(event.data);
  screen.src = 'data:image/jpeg;base64,' + frame.data;
  state.textContent = `${frame.worker} · ${frame.session} · frame ${frame.seq}`;
};
video.onclose = (event) => { state.textContent = `closed (${event.code} ${event.reason})`; };
screen.onclick = (event) => {
  const x = Math.round(event.offsetX * screen.naturalWidth / screen.clientWidth);
  const y = Math.round(event.offsetY * screen.naturalHeight / screen.clientHeight);
  taps += 1;
  control.send(JSON.stringify({ t: 'tap', x, y, n: taps }));
};
