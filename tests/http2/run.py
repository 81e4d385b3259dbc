#!/usr/bin/env python3
"""Other people's clients speak HTTP/2 with Holdline, while its workers die.

  chromium  a page over https, and six WebSockets of it: all on the page's one connection, and none is closed while workers
            are killed
  python    the library h2: sockets and requests on one connection; a reset, an end and a refused handshake
  node      the library websockets over a bridge by Node's own HTTP/2
  autobahn  the suite's cases over that bridge: no case may be worse than over HTTP/1.1
  compressed  its cases of compression, with Node's `ws` as the worker: likewise, and most of them agree on it
The last line is `N passed, N failed`; `--self-check` has HTTP/2 switched off, with which each run must fail.

Run it as: .cache/py/bin/python tests/http2/run.py [--runs chromium,python] [--case '7.*'] [--holdline PATH]
"""

import argparse
import asyncio
import collections
import json
import pathlib
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.request

import h2.config
import h2.connection
import h2.events
import h2.settings
from websockets.asyncio.client import connect

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]
from autobahn_cases import COMPRESSED, say_less, suite  # noqa: E402
from browser import Browser  # noqa: E402
from serving import listening  # noqa: E402

RUNS = ["chromium", "python", "node", "autobahn", "compressed"]
# Quick ones of each kind; all of them by --case '*'. Compression is a run of its own, of so many messages each.
CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.1.*", "6.4.*", "7.*", "9.1.1", "9.2.1", "9.7.1", "10.*"]
QUICK_COMPRESSED = ["12.1.1", "12.2.5", "12.5.9", "13.1.3", "13.3.5", "13.7.7"]
MESSAGES = 20
SOCKETS = 6
ROUNDS = 300
KILLS = 3
PATIENCE_SECONDS = 90
CONFIG = """
[server]
listen = ["127.0.0.1:0"]
http2 = {http2}
tls.listen = ["127.0.0.1:0"]
tls.certificates = [{{ cert = "{cert}", key = "{key}" }}]
[admin]
listen = "127.0.0.1:0"
[limits]
address_rate = 0
key_connections = 0
key_rate = 0
[log]
format = "json"
[message]
max_bytes = "32MiB"
[[pools]]
name = "default"
"""


class Verdict:
    def __init__(self):
        self.passed = self.failed = 0

    def case(self, good, text):
        self.passed, self.failed = self.passed + bool(good), self.failed + (not good)
        print(f"{'ok  ' if good else 'FAIL'} {text}", flush=True)


class Holdline:
    """A real `holdline serve`."""

    async def start(self, binary, directory, http2):
        cert, key = directory / "cert.pem", directory / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
             "-keyout", key, "-out", cert],
            check=True, stderr=subprocess.DEVNULL,
        )
        key.chmod(0o600)
        config = directory / "proxy.toml"
        config.write_text(CONFIG.format(http2="true" if http2 else "false", cert=cert, key=key))
        self.binary, self.address, self.errors, self.workers = binary, {}, [], []
        self.process = await asyncio.create_subprocess_exec(
            binary, "serve", "-c", config, stderr=asyncio.subprocess.PIPE
        )
        while len(self.address) < 3:
            entry = json.loads(await self.process.stderr.readline())
            if entry.get("message") == "listening":
                self.address["tls" if entry.get("tls") else entry["listener"]] = entry["address"]
        self.reading = asyncio.create_task(self.read())
        return self

    async def read(self):
        async for line in self.process.stderr:
            if b'"ERROR"' in line:
                self.errors.append(line.decode())

    def port(self):
        return int(self.address["tls"].rsplit(":", 1)[1])

    async def call(self, method, path, body=None):
        def ask():
            data = None if body is None else json.dumps(body).encode()
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"http://{self.address['admin']}{path}", data, headers, method=method)
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                return answer.read().decode()

        return await asyncio.to_thread(ask)

    async def metric(self, name):
        lines = (await self.call("GET", "/metrics")).splitlines()
        found = [line for line in lines if line.rsplit(" ", 1)[0] == f"holdline_{name}"]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    async def add_worker(self):
        process = await asyncio.create_subprocess_exec(
            self.binary, "worker", "--until-stdin-closes",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )
        address = json.loads(await process.stdout.readline())["listening"]
        body = {"url": f"ws://{address}", "pool": "default"}
        self.workers.append((process, json.loads(await self.call("POST", "/v1/backends", body))["id"]))

    async def replace_worker(self):
        """Brings up another worker, and kills the one that there is."""
        process, identity = self.workers.pop(0)
        await self.add_worker()
        process.kill()
        await process.wait()
        await self.call("DELETE", f"/v1/backends/{identity}")

    async def stop(self):
        for process, _ in self.workers:
            process.kill()
            await process.wait()
        self.process.terminate()
        code = await asyncio.wait_for(self.process.wait(), PATIENCE_SECONDS)
        await self.reading
        return code


PAGE = """
window.echoes = 0;
window.codes = [];
window.failure = null;
for (let at = 0; at < %(sockets)d; at += 1) {
  const socket = new WebSocket(`wss://${location.host}/ws/s${at}/echo`);
  let next = 0;
  socket.onopen = () => socket.send("0");
  socket.onclose = ({ code }) => window.codes.push(code);
  socket.onmessage = ({ data }) => {
    if (+data < next) return;  // The worker died before it had confirmed it.
    if (data !== String(next)) window.failure ??= `${data} instead of ${next}`;
    next += 1;
    window.echoes += 1;
    if (next < %(rounds)d) setTimeout(() => socket.send(String(next)), 10);
  };
}
"""


async def chromium(holdline, _, verdict):
    def opened(profile):
        browser = Browser(shutil.which("chromium"), f"https://localhost:{holdline.port()}/health", profile,
                          "--ignore-certificate-errors")
        while browser.evaluate("document.readyState") != "complete" or not browser.evaluate("location.host"):
            pass
        return browser

    with tempfile.TemporaryDirectory(prefix="holdline-http2-", ignore_cleanup_errors=True) as profile:
        browser = await asyncio.to_thread(opened, profile)
        try:
            protocol = 'performance.getEntriesByType("navigation")[0].nextHopProtocol'
            spoken = await asyncio.to_thread(browser.evaluate, protocol)
            verdict.case(spoken == "h2", f"chromium: the page came over {spoken}")
            await asyncio.to_thread(browser.evaluate, PAGE % {"sockets": SOCKETS, "rounds": ROUNDS} + "; 0")

            async def echoes(at_least):
                while True:
                    count = await asyncio.to_thread(browser.evaluate, "window.echoes")
                    if count >= at_least or await asyncio.to_thread(browser.evaluate, "window.codes.length"):
                        return count

            await echoes(SOCKETS)
            streams = await holdline.metric('http2_streams{kind="websocket"}')
            connections = await holdline.metric("http2_connections")
            verdict.case((streams, connections) == (SOCKETS, 1), f"chromium: {streams} sockets on {connections} connections")
            for kill in range(KILLS):
                await echoes((kill + 1) * SOCKETS * ROUNDS // (KILLS + 1))
                await holdline.replace_worker()
            count = await echoes(SOCKETS * ROUNDS)
            closed, failure = [await asyncio.to_thread(browser.evaluate, it) for it in ("window.codes", "window.failure")]
            verdict.case(count == SOCKETS * ROUNDS, f"chromium: {count} echoes while {KILLS} workers were killed")
            verdict.case(closed == [] and failure is None, f"chromium: closed {closed}, failure {failure}")
        finally:
            await asyncio.to_thread(browser.close)


class Connection:
    """One connection of the library h2, on asyncio."""

    async def start(self, port):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        self.authority = f"localhost:{port}"
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.streams, self.rest, self.settled = {}, {}, asyncio.Event()
        self.flush()
        self.task = asyncio.create_task(self.read())
        await asyncio.wait_for(self.settled.wait(), PATIENCE_SECONDS)
        return self

    def flush(self):
        self.writer.write(self.h2.data_to_send())

    async def read(self):
        while data := await self.reader.read(65536):
            for event in self.h2.receive_data(data):
                self.take(event)
            self.flush()
        for queue in self.streams.values():
            queue.put_nowait(("end", None))

    def take(self, event):
        queue = self.streams.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self.settled.set()
        elif isinstance(event, h2.events.ResponseReceived):
            queue.put_nowait(("head", dict(event.headers)))
        elif isinstance(event, h2.events.DataReceived):
            queue.put_nowait(("data", event.data))
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            queue.put_nowait(("end", None))
        elif isinstance(event, h2.events.StreamReset):
            queue.put_nowait(("reset", event.error_code))

    def send_head(self, fields, end=False):
        stream = self.h2.get_next_available_stream_id()
        self.streams[stream] = asyncio.Queue()
        self.h2.send_headers(stream, fields, end_stream=end)
        self.flush()
        return stream

    async def next(self, stream):
        return await asyncio.wait_for(self.streams[stream].get(), PATIENCE_SECONDS)

    async def ask(self, path):
        stream = self.send_head(
            [(":method", "GET"), (":scheme", "https"), (":authority", self.authority), (":path", path)], end=True)
        (_, head), body = await self.next(stream), b""
        while (said := await self.next(stream))[0] == "data":
            body += said[1]
        return int(head[":status"]), body

    async def open(self, path, protocol="websocket", version="13"):
        stream = self.send_head([
            (":method", "CONNECT"), (":protocol", protocol), (":scheme", "https"), (":authority", self.authority),
            (":path", path), ("sec-websocket-version", version),
        ])
        return stream, int((await self.next(stream))[1][":status"])

    def text(self, stream, text):
        payload = text.encode()
        assert len(payload) < 126
        self.h2.send_data(stream, bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload)
        self.flush()

    async def hear(self, stream):
        """The next short text. Several frames may come in one piece, and one in several."""
        said = self.rest.pop(stream, b"")
        while True:
            if len(said) >= 2 and len(said) >= 2 + said[1]:
                kind, payload, said = said[0], said[2:2 + said[1]], said[2 + said[1]:]
                if kind == 0x89:  # a ping
                    continue
                self.rest[stream] = said
                return payload.decode()
            kind, data = await self.next(stream)
            assert kind == "data", kind
            said += data

    async def close(self):
        self.writer.close()
        await self.task


async def python(holdline, _, verdict):
    connection = await Connection().start(holdline.port())
    enabled = connection.h2.remote_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL)
    verdict.case(enabled == 1, f"python: SETTINGS_ENABLE_CONNECT_PROTOCOL is {enabled}")
    status, body = await connection.ask("/api/sessions/s1/download")
    verdict.case((status, len(body)) == (200, 2_700_000), f"python: a download is {status} with {len(body)} bytes")
    for arguments, expected in [({"protocol": "connect-udp"}, 501), ({"version": "8"}, 426)]:
        _, status = await connection.open("/ws/s1/echo", **arguments)
        verdict.case(status == expected, f"python: {arguments} is answered {status}")
    opened = [await connection.open(f"/ws/s{at}/echo") for at in range(SOCKETS)]
    verdict.case(all(status == 200 for _, status in opened), f"python: {SOCKETS} sockets on one connection")
    wrong = []
    for number in range(ROUNDS // 5):
        for stream, _ in opened:
            connection.text(stream, f"{number}")
        for stream, _ in opened:
            # The worker may have died before it had confirmed those before.
            while (heard := await connection.hear(stream)) != f"{number}":
                if int(heard) > number:
                    wrong.append((stream, number, heard))
                    break
        if number % 20 == 10:
            await holdline.replace_worker()
    verdict.case(not wrong, f"python: every echo came while workers were killed: {wrong[:3]}")
    connection.h2.reset_stream(opened[0][0], error_code=8)
    connection.h2.end_stream(opened[1][0])
    connection.flush()
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while await holdline.metric('http2_streams{kind="websocket"}') > SOCKETS - 2:
        if asyncio.get_running_loop().time() > deadline:
            break
    left = await holdline.metric('http2_streams{kind="websocket"}')
    verdict.case(left == SOCKETS - 2, f"python: {left} sockets are left when one was reset and one ended")
    await connection.close()


async def start_bridge(holdline):
    process = await asyncio.create_subprocess_exec(
        "node", str(HERE / "bridge.mjs"), f"https://localhost:{holdline.port()}", stdout=asyncio.subprocess.PIPE
    )
    return process, json.loads(await process.stdout.readline())["listening"]


async def node(holdline, _, verdict):
    process, bridge = await start_bridge(holdline)
    try:
        echoed = await asyncio.gather(*(talk(f"ws://{bridge}/ws/n{at}/echo") for at in range(SOCKETS)), kill(holdline))
        verdict.case(echoed[:-1] == [ROUNDS] * SOCKETS, f"node: echoes while a worker was killed: {echoed[:-1]}")
        total = await holdline.metric('http2_streams_total{result="websocket"}')
        verdict.case(total >= SOCKETS, f"node: {total} WebSockets were on streams")
    finally:
        process.kill()
        await process.wait()


async def talk(url):
    async with connect(url, max_size=None, compression=None) as ws:
        count = 0
        while count < ROUNDS:
            text = f"{count} " + "x" * (count * 97 % 5000)
            await ws.send(text)
            while await ws.recv() != text:
                pass
            count += 1
    return count


async def kill(holdline):
    for _ in range(2):
        await asyncio.sleep(0.2)  # amid what is said
        await holdline.replace_worker()


async def autobahn(holdline, options, verdict):
    await on_both("autobahn", holdline, options.case or CASES, COMPRESSED, verdict)


async def compressed(holdline, options, verdict):
    for _, identity in holdline.workers:
        await holdline.call("DELETE", f"/v1/backends/{identity}")
    worker, address = await listening("node", ROOT / "tests/compression/ws.mjs", "worker", "always")
    try:
        await holdline.call("POST", "/v1/backends", {"url": f"ws://{address}", "pool": "default"})
        say_less(MESSAGES)
        await on_both("compressed", holdline, options.case or QUICK_COMPRESSED, [], verdict)
    finally:
        worker.kill()
        await worker.wait()


async def on_both(name, holdline, cases, excluded, verdict):
    """The suite's cases over HTTP/1.1 and over streams."""
    process, bridge = await start_bridge(holdline)
    try:
        plain = await suite(holdline.address["public"], cases, excluded)
        streams = await suite(bridge, cases, excluded)
    finally:
        process.kill()
        await process.wait()
    worse = [case for case, result in streams.items() if not result.passed and plain[case].passed]
    counts = collections.Counter(result.behavior.value for result in streams.values())
    verdict.case(len(streams) == len(plain) > 0, f"{name}: {len(streams)} cases over streams: {dict(counts)}")
    verdict.case(not worse, f"{name}: none is worse than over HTTP/1.1: {worse[:5]}")


async def tried(run, holdline, options, verdict):
    try:
        await asyncio.wait_for(run(holdline, options, verdict), 600)
    except Exception as error:  # one run that breaks off must not hide the others
        verdict.case(False, f"{run.__name__}: {error!r}")


async def one(options, run, http2, verdict):
    with tempfile.TemporaryDirectory(prefix="holdline-http2-") as directory:
        holdline = await Holdline().start(options.holdline, pathlib.Path(directory), http2)
        await holdline.add_worker()
        await tried(run, holdline, options, verdict)
        code = await holdline.stop()
        verdict.case(code == 0 and not holdline.errors, f"{run.__name__}: Holdline ended with {code}, errors {holdline.errors[:3]}")


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--holdline", default=str(ROOT / "target/debug/holdline"))
    parser.add_argument("--runs", default=",".join(RUNS))
    parser.add_argument("--case", action="append", help="a case or a glob such as 7.*; quick ones of each kind without it")
    parser.add_argument("--self-check", action="store_true")
    options = parser.parse_args()
    known = {run.__name__: run for run in (chromium, python, node, autobahn, compressed)}
    runs, verdict = [known[name] for name in options.runs.split(",")], Verdict()
    for run in runs:
        if not options.self_check:
            await one(options, run, True, verdict)
            continue
        without = Verdict()
        await one(options, run, False, without)
        verdict.case(without.failed > 0, f"{run.__name__} fails where HTTP/2 is off")
    print(f"{verdict.passed} passed, {verdict.failed} failed")
    return 1 if verdict.failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
