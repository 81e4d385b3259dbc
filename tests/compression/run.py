#!/usr/bin/env python3
"""Other people's libraries agree on compression through Holdline, and what that saves.

Workers: websockets, aiohttp, uvicorn (three implementations), Node ws. Clients: websockets, aiohttp, Node ws, Chromium.
  bytes     each client with each worker: bytes on the client's wire through Holdline, at most 10 % over those of a direct
            connection without context takeover; those of a direct connection as the libraries like it stand beside them
  reattach  each worker's connection dies, and each other worker goes on: every message is echoed, the pipe is compressed
  http2     Chromium, and websockets over Node's HTTP/2, on streams: the same for each worker and the next one
The last line is `N passed, N failed`.

Run it as: .cache/py/bin/python tests/compression/run.py [--holdline PATH] [--runs bytes,reattach,http2]
"""

import argparse
import asyncio
import json
import pathlib
import random
import shutil
import sys
import tempfile

import aiohttp
from websockets.asyncio.client import connect

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent / "scripts")]
from browser import Browser  # noqa: E402
from patience import until  # noqa: E402
from secured import make_certificate, pair  # noqa: E402
from serving import BINARY, NODE_ENV, PATIENCE_SECONDS, PYTHON, Holdline, Verdict, listening  # noqa: E402

PYTHON_KINDS = ["websockets", "aiohttp", "uvicorn-websockets", "uvicorn-sansio", "uvicorn-wsproto"]
KINDS = [*PYTHON_KINDS, "ws"]
CLIENTS = ["websockets", "aiohttp", "ws", "chromium"]
BOTH = b"server_no_context_takeover; client_no_context_takeover"
OVER_DIRECT_MAX = 1.10
CONFIG = """
[server]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
[log]
format = "json"
"""
HTTP2_CONFIG = """
[server]
listen = ["127.0.0.1:0"]
http2 = true
tls.listen = ["127.0.0.1:0"]
tls.certificates = [{pair}]
[admin]
listen = "127.0.0.1:0"
[log]
format = "json"
[[pools]]
name = "default"
[[pools]]
name = "pages"
[[routes]]
name = "ws"
path = "/ws"
pool = "default"
[[routes]]
name = "page"
path = "/health"
pool = "pages"
"""
WORDS = "session device screen frame tap swipe status ready battery network update user message channel value".split()


def texts(count=80):
    """What a talkative application says: records that resemble each other."""
    draw = random.Random(7)

    def record(number):
        names = [draw.choice(WORDS) for _ in range(draw.randint(15, 120))]
        return json.dumps({"id": number, "type": "update", "items": [{"name": it, "value": draw.random()} for it in names]})

    return [record(number) for number in range(count)]


class Tap:
    """Stands before a server and counts what goes over a client's wire behind the heads.

    `stateless` has the two ends agree on no context takeover, as Holdline does, and is the measure for it.
    """

    def __init__(self, target, stateless=False):
        self.host, port = target.rsplit(":", 1)
        self.port, self.stateless, self.count, self.live, self.server = int(port), stateless, 0, set(), None
        # The loop itself holds tasks weakly.
        self.tasks = set()

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return "127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]

    async def die(self):
        """No new connection, and an end without a word for those there are."""
        self.server.close()
        for writer in self.live:
            writer.transport.abort()

    async def serve(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        try:
            to_server = await asyncio.open_connection(self.host, self.port)
        except OSError:
            return writer.transport.abort()
        self.live |= {writer, to_server[1]}
        pumps = [self.pump(reader, to_server[1], self.asks), self.pump(to_server[0], writer, self.answers)]
        try:
            await asyncio.gather(*pumps)
        finally:
            for end in (writer, to_server[1]):
                end.close()
                self.live.discard(end)

    async def pump(self, reader, writer, change):
        try:
            writer.write(change(await reader.readuntil(b"\r\n\r\n")))
            while data := await reader.read(65536):
                self.count += len(data)
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except (OSError, asyncio.IncompleteReadError):
            pass

    def asks(self, head):
        return changed(head, lambda _: b"permessage-deflate; " + BOTH) if self.stateless else head

    def answers(self, head):
        def told(value):
            missing = [it for it in BOTH.split(b"; ") if it not in value]
            return b"; ".join([value, *missing])

        return changed(head, told) if self.stateless else head


def changed(head, change):
    lines = head.split(b"\r\n")
    for at, line in enumerate(lines):
        name, _, value = line.partition(b": ")
        if name.lower() == b"sec-websocket-extensions":
            lines[at] = name + b": " + change(value)
    return b"\r\n".join(lines)


async def by_websockets(address, said):
    async with connect(f"ws://{address}/ws", max_size=None) as ws:
        for text in said:
            await ws.send(text)
            assert await ws.recv() == text
        return ws.response.headers.get("Sec-WebSocket-Extensions", "")


async def by_aiohttp(address, said):
    async with aiohttp.ClientSession() as session, session.ws_connect(f"ws://{address}/ws", compress=15) as ws:
        for text in said:
            await ws.send_str(text)
            assert await ws.receive_str() == text
        return ws._response.headers.get("Sec-WebSocket-Extensions", "")


async def by_ws(address, said):
    process = await asyncio.create_subprocess_exec(
        "node", str(HERE / "ws.mjs"), "client", f"ws://{address}/ws", env=NODE_ENV,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate(json.dumps(said).encode())
    assert process.returncode == 0
    return json.loads(out)["extensions"]


PAGE = """
const said = %s, socket = new WebSocket("ws://%s/ws");
let next = 0;
window.result = null;
socket.onopen = () => socket.send(said[0]);
socket.onclose = () => { window.result ??= "closed"; };
socket.onmessage = ({ data }) => {
  if (data !== said[next]) window.result = "differs";
  next += 1;
  if (next < said.length) return socket.send(said[next]);
  window.result ??= socket.extensions;
  socket.close(1000);
};
"""


async def by_chromium(address, said):
    def talk():
        # What Chromium still writes as it ends is in the way of removing its directory.
        with tempfile.TemporaryDirectory(prefix="holdline-compression-", ignore_cleanup_errors=True) as profile:
            browser = Browser(shutil.which("chromium"), "about:blank", profile)
            try:
                browser.evaluate(PAGE % (json.dumps(said), address) + "; 0")
                while (result := browser.evaluate("window.result")) is None:
                    pass
                return result
            finally:
                browser.close()

    result = await asyncio.to_thread(talk)
    assert result not in ("closed", "differs"), result
    return result


TALK = {"websockets": by_websockets, "aiohttp": by_aiohttp, "ws": by_ws, "chromium": by_chromium}


async def bytes_of(client, address, said, stateless=False):
    """What was agreed on, and the bytes on the client's wire."""
    tap = Tap(address, stateless)
    at = await tap.start()
    try:
        agreed = await asyncio.wait_for(TALK[client](at, said), PATIENCE_SECONDS)
    finally:
        tap.server.close()
    return agreed, tap.count


async def measure(holdline, workers, clients, verdict):
    said = texts()
    plain = 2 * sum(len(text) for text in said)
    print(f"bytes of {len(said)} texts and their echoes ({plain} uncompressed)")
    print(f"{'client':<12}{'worker':<20}{'takeover':>10}{'without':>10}{'Holdline':>10}{'ratio':>8}")
    for kind, address in workers.items():
        identity = await holdline.register(address)
        for client in clients:
            name = f"{client} with {kind}"
            _, liked = await bytes_of(client, address, said)
            _, direct = await bytes_of(client, address, said, stateless=True)
            agreed, through = await bytes_of(client, holdline.address["public"], said)
            print(f"{client:<12}{kind:<20}{liked:>10}{direct:>10}{through:>10}{through / direct:>8.3f}", flush=True)
            verdict.case("permessage-deflate" in agreed, f"{name}: compression is agreed on: {agreed!r}")
            verdict.case(through <= direct * OVER_DIRECT_MAX, f"{name}: {through} bytes, {direct} directly")
            verdict.case(direct < plain / 2, f"{name}: a direct connection is compressed")
        await holdline.forget(identity)


async def reattach(holdline, workers, verdict):
    said = texts(6)
    for first in workers:
        for second in workers:
            if first == second:
                continue
            name = f"{first}, then {second}"
            try:
                await asyncio.wait_for(goes_on(holdline, workers[first], workers[second], said, name, verdict), 30)
            except Exception as error:
                verdict.case(False, f"{name}: {error!r}")


async def goes_on(holdline, first, second, said, name, verdict):
    tap = Tap(first)
    before = await holdline.register(await tap.start())
    async with connect(f"ws://{holdline.address['public']}/ws") as ws:
        await ws.send(said[0])
        verdict.case(await ws.recv() == said[0], f"{name}: echoed by the first")
        after = await holdline.register(second)
        await tap.die()
        for text in said[1:]:
            await ws.send(text)
            heard = await ws.recv()
            # The first worker died before it had confirmed the first text, which is said to the second again.
            while heard == said[0]:
                heard = await ws.recv()
            verdict.case(heard == text, f"{name}: echoed by the second")
        pipe = (await holdline.call("GET", "/v1/pipes"))["items"][0]
        seen = (pipe["compression"], pipe["backend"], pipe["interruptions"])
        verdict.case(seen == ("pass", after, 1), f"{name}: {seen}")
    for identity in (before, after):
        await holdline.forget(identity)


STREAM_PAGE = """
window.said = %s;
window.next = 0;
window.limit = 0;
window.failure = null;
window.socket = new WebSocket(`wss://${location.host}/ws`);
window.say = () => { if (next < limit) socket.send(said[next]); };
socket.onopen = say;
socket.onclose = ({ code, target }) => {
  if (target === window.socket) window.failure ??= `closed with ${code}`;
};
socket.onmessage = ({ data }) => {
  if (said.indexOf(data) < next) return;  // The worker died before it had confirmed it.
  if (data !== said[next]) window.failure ??= `differs at ${next}`;
  next += 1;
  say();
};
"""


class InPage:
    """Chromium, whose page came over HTTP/2 before, so that its sockets do."""

    name = "chromium"

    async def start(self, port):
        # What Chromium still writes as it ends is in the way of removing its directory.
        self.profile = tempfile.TemporaryDirectory(prefix="holdline-compression-", ignore_cleanup_errors=True)
        command = (shutil.which("chromium"), f"https://localhost:{port}/health", self.profile.name)
        self.browser = await asyncio.to_thread(Browser, *command, "--ignore-certificate-errors")

        async def is_there():
            return await self.ask('document.readyState == "complete" && location.host != ""')

        await until("a page", is_there, PATIENCE_SECONDS)

    async def ask(self, expression):
        return await asyncio.to_thread(self.browser.evaluate, expression)

    async def begin(self, said):
        await self.ask(STREAM_PAGE % json.dumps(said) + "; 0")

    async def reach(self, count):
        """Says so many texts in all, each behind the echo of the last."""
        await self.ask(f"limit = {count}; if (socket.readyState === 1) say(); 0")

        async def echoed():
            failure = await self.ask("window.failure")
            assert failure is None, failure
            return await self.ask("next") == count

        await until(f"{count} echoes", echoed, PATIENCE_SECONDS)

    async def extensions(self):
        return await self.ask("socket.extensions")

    async def end(self):
        await self.ask("var ended = socket; window.socket = null; ended.close(1000); 0")

    async def stop(self):
        await asyncio.to_thread(self.browser.close)
        self.profile.cleanup()


class OverNode:
    """The library websockets, whose HTTP/2 is Node's."""

    name = "websockets over Node"

    async def start(self, port):
        bridge = HERE.parent / "http2/bridge.mjs"
        self.process, self.address = await listening("node", str(bridge), f"https://localhost:{port}")

    async def begin(self, said):
        self.said, self.next = said, 0
        self.ws = await connect(f"ws://{self.address}/ws")

    async def reach(self, count):
        """Says so many texts in all, each behind the echo of the last."""
        for text in self.said[self.next:count]:
            await self.ws.send(text)
            # The worker may have died before it had confirmed those before.
            while (heard := await self.ws.recv()) != text:
                assert heard in self.said[:self.next], f"differs at {self.next}"
            self.next += 1

    async def extensions(self):
        return self.ws.response.headers.get("Sec-WebSocket-Extensions", "")

    async def end(self):
        await self.ws.close()

    async def stop(self):
        self.process.kill()
        await self.process.wait()


async def http2(options, workers, verdict):
    kinds = list(workers)
    with tempfile.TemporaryDirectory(prefix="holdline-compression-") as directory:
        home = pathlib.Path(directory)
        config = HTTP2_CONFIG.format(pair=pair(*make_certificate(home, "own", "DNS:localhost")))
        holdline = await Holdline().start(options.holdline, config, home, listeners=3)
        command = (options.holdline, "worker", "--until-stdin-closes")
        page, address = await listening(*command, stdin=asyncio.subprocess.PIPE)
        await holdline.register(address, pool="pages")
        port = int(holdline.address["tls"].rsplit(":", 1)[1])
        for client in (InPage(), OverNode()):
            await client.start(port)
            for first, second in zip(kinds, kinds[1:] + kinds[:1]):
                name = f"{client.name} by HTTP/2, {first}, then {second}"
                going_on = on_a_stream(holdline, client, workers[first], workers[second], name, verdict)
                try:
                    await asyncio.wait_for(going_on, PATIENCE_SECONDS)
                except Exception as error:  # one pair that breaks off must not hide the others
                    verdict.case(False, f"{name}: {error!r}")
            await client.stop()
        page.kill()
        await page.wait()
        await holdline.stop(verdict)


async def on_a_stream(holdline, client, first, second, name, verdict):
    said, tap = texts(40), Tap(first)
    before = await holdline.register(await tap.start())
    after = None
    await client.begin(said)
    try:
        # What a worker has read, and not answered, dies with it: so it dies behind an answer.
        await client.reach(len(said) // 2)
        agreed, streams = await client.extensions(), await holdline.metric("http2_streams", 'kind="websocket"')
        verdict.case("permessage-deflate" in agreed and streams == 1, f"{name}: {agreed!r} on {streams} streams")
        plain = sum(len(text) for text in said[:len(said) // 2]) * 2
        verdict.case(tap.count < plain / 2, f"{name}: {tap.count} bytes of {plain} to the first worker and back")
        after = await holdline.register(second)
        await tap.die()
        await client.reach(len(said))
        pipe = (await holdline.call("GET", "/v1/pipes"))["items"][0]
        seen = (pipe["compression"], pipe["backend"], pipe["interruptions"])
        verdict.told(seen == ("pass", after, 1), f"{name}: {seen}")
    finally:
        await client.end()
        await until("no pipe", lambda: is_empty(holdline), PATIENCE_SECONDS)
        for identity in filter(None, (before, after)):
            await holdline.forget(identity)


async def is_empty(holdline):
    return not (await holdline.call("GET", "/v1/pipes"))["items"]


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--holdline", default=BINARY)
    parser.add_argument("--runs", default="bytes,reattach,http2")
    parser.add_argument("--clients", default=",".join(CLIENTS))
    parser.add_argument("--kinds", default=",".join(KINDS))
    options = parser.parse_args()
    verdict, processes, workers = Verdict(), [], {}
    for kind in options.kinds.split(","):
        node = ["node", str(HERE / "ws.mjs"), "worker"]
        command = node if kind == "ws" else [PYTHON, str(HERE / "echo_worker.py"), kind]
        process, workers[kind] = await listening(*command)
        processes.append(process)
    with tempfile.TemporaryDirectory(prefix="holdline-compression-") as directory:
        holdline = await Holdline().start(options.holdline, CONFIG, directory)
        if "bytes" in options.runs:
            await measure(holdline, workers, options.clients.split(","), verdict)
        if "reattach" in options.runs:
            await reattach(holdline, workers, verdict)
        await holdline.stop(verdict)
    if "http2" in options.runs:
        await http2(options, workers, verdict)
    for process in processes:
        process.kill()
        await process.wait()
    return verdict.end()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
