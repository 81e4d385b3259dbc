#!/usr/bin/env python3
"""Other people's libraries agree on compression through Holdline, and what that saves.

Workers: websockets, aiohttp, uvicorn (three implementations), Node ws. Clients: websockets, aiohttp, Node ws, Chromium.
  bytes     each client with each worker: bytes on the client's wire through Holdline, at most 10 % over those of a direct
            connection without context takeover; those of a direct connection as the libraries like it stand beside them
  reattach  each worker's connection dies, and each other worker goes on: every message is echoed, the pipe is compressed
The last line is `N passed, N failed`.

Run it as: .cache/py/bin/python tests/compression/run.py [--holdline PATH] [--runs bytes,reattach]
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


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--holdline", default=BINARY)
    parser.add_argument("--runs", default="bytes,reattach")
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
    for process in processes:
        process.kill()
        await process.wait()
    return verdict.end()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
