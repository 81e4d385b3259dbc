"""What every run stands on: Holdline with a preset of its own, worker processes, sockets, requests, and the verdicts.

Refuses to wait without a bound: each wait here fails after PATIENCE_SECONDS.
"""

import asyncio
import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import sys
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from patience import Failure, until  # noqa: E402

ROOT = HERE.parent.parent
PYTHON = str(ROOT / ".cache/py/bin/python")
PATIENCE_SECONDS = 40


async def eventually(what, look, seconds=PATIENCE_SECONDS):
    """What `look` answers, as soon as that is true."""
    return await until(what, look, seconds)


@dataclasses.dataclass
class Answer:
    """A whole HTTP answer."""

    status: int
    headers: dict
    body: bytes

    def json(self):
        return json.loads(self.body)

    def text(self):
        return self.body.decode()


class Request:
    """One HTTP request on a connection of its own, which its sender may give up."""

    def __init__(self, address, method, path, body=None, headers=None):
        self.address, self.method, self.path = address, method, path
        self.body = b"" if body is None else json.dumps(body).encode()
        self.headers = dict(headers or {})
        self.writer = None

    async def send(self):
        host, port = self.address.rsplit(":", 1)
        reader, self.writer = await asyncio.open_connection(host, int(port))
        head = {"Host": self.address, "Connection": "close", "Content-Length": str(len(self.body)), **self.headers}
        if self.body:
            head.setdefault("Content-Type", "application/json")
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        self.writer.write("\r\n".join(lines).encode() + self.body)
        await self.writer.drain()
        return reader

    async def answer(self):
        reader = await self.send()
        try:
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            self.writer.close()
        if not head:
            raise Failure(f"{self.method} {self.path}: the connection ended without an answer")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body = dechunked(body)
        return Answer(int(first.split(" ")[1]), headers, body)

    def give_up(self):
        self.writer.transport.abort()


def dechunked(body):
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        if length == 0:
            break
        whole, body = whole + body[:length], body[length + 2:]
    return whole


async def ask(address, method, path, body=None, headers=None):
    return await asyncio.wait_for(Request(address, method, path, body, headers).answer(), PATIENCE_SECONDS)


class Worker:
    """A worker process: one of tests/seeds/workers, which says where it listens and journals what it does."""

    def __init__(self, kind, directory, name, **settings):
        self.kind, self.name = kind, name
        self.directory = pathlib.Path(directory)
        self.settings = {"name": name, "state": str(self.directory / f"{name}.state"), **settings}
        self.process = self.address = None

    async def start(self):
        log = open(self.directory / f"{self.name}.log", "a")
        command = [PYTHON, str(HERE / "workers" / f"{self.kind}.py"), json.dumps(self.settings)]
        self.process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=log)
        line = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE_SECONDS)
        if not line:
            raise Failure(f"worker {self.name} did not start: {pathlib.Path(log.name).read_text()[-2000:]}")
        self.address = json.loads(line)["listening"]
        # It comes back where it was, as a service does.
        self.settings["port"] = int(self.address.rsplit(":", 1)[1])
        return self

    async def end(self, sig):
        """Its exit status, after `sig`."""
        self.process.send_signal(sig)
        return await asyncio.wait_for(self.process.wait(), PATIENCE_SECONDS)

    async def kill(self):
        await self.end(signal.SIGKILL)

    async def terminate(self):
        return await self.end(signal.SIGTERM)

    async def ask(self, method, path, body=None):
        return await ask(self.address, method, path, body)

    def journal(self):
        """What it did, over all its lives: a list of records."""
        path = pathlib.Path(self.settings["state"] + ".journal")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def stop(self):
        if self.process and self.process.returncode is None:
            self.process.kill()


class Holdline:
    """`holdline serve` with a preset as it is, but for where it listens and what it logs."""

    def __init__(self, binary, preset, directory, **settings):
        self.binary, self.log = binary, pathlib.Path(directory) / "holdline.log"
        self.command = [binary, "serve", "-c", str(ROOT / "deploy/presets" / f"{preset}.toml")]
        own = {"SERVER__LISTEN": '["127.0.0.1:0"]', "ADMIN__LISTEN": "127.0.0.1:0", "LOG__FORMAT": "json", "LOG__LEVEL": "info"}
        own.update(settings)
        self.environment = {**os.environ, **{f"HOLDLINE_{name}": value for name, value in own.items()}}
        self.process = self.public = self.admin = None

    async def start(self):
        with open(self.log, "w") as log:
            self.process = await asyncio.create_subprocess_exec(*self.command, stderr=log, env=self.environment)
        self.public, self.admin = [await eventually(f"a {name} listener", lambda name=name: self.listener(name))
                                   for name in ("public", "admin")]
        return self

    async def listener(self, name):
        if self.process.returncode is not None:
            raise Failure(f"holdline ended: {self.log.read_text()[-2000:]}")
        found = re.search(rf'"listener":"{name}","address":"([^"]+)"', self.log.read_text())
        return found and found.group(1)

    async def api(self, method, path, body=None):
        answer = await ask(self.admin, method, path, body)
        if answer.status >= 300:
            raise Failure(f"{method} {path}: {answer.status} {answer.text()}")
        return answer.json() if answer.body else None

    async def register(self, worker, **fields):
        await self.api("PUT", f"/v1/backends/{worker.name}", {"url": f"ws://{worker.address}", **fields})

    async def up(self, worker):
        """As soon as Holdline knows that the worker is there again."""
        async def look():
            return (await self.api("GET", f"/v1/backends/{worker.name}"))["health"] == "up"
        await eventually(f"{worker.name} is up", look)

    async def drain(self, worker, **fields):
        """Drains a worker and waits until nothing of it is left."""
        await self.api("PUT", f"/v1/backends/{worker.name}/state", {"state": "drain", **fields})
        async def empty():
            return (await self.api("GET", f"/v1/backends/{worker.name}"))["pipes"] == 0
        await eventually(f"{worker.name} has no pipes", empty)

    async def ready(self, worker):
        await self.api("PUT", f"/v1/backends/{worker.name}/state", {"state": "ready"})

    async def pipes(self):
        return (await self.api("GET", "/v1/pipes?limit=1000"))["items"]

    async def metric(self, name, **labels):
        text = (await ask(self.admin, "GET", "/metrics")).text()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in text.splitlines() if re.match(rf"(holdline_)?{name}[ {{]", line)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(label in line for label in wanted))

    async def stop(self):
        """Its exit status, and what it logged as an error."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(self.process.wait(), PATIENCE_SECONDS)
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return code, [line for line in lines if line.get("level") == "ERROR"]

    def kill(self):
        if self.process and self.process.returncode is None:
            self.process.kill()


class Socket:
    """A client's WebSocket, whose messages are kept as they come."""

    def __init__(self, stream):
        self.stream = stream
        self.heard, self.closed = [], None
        self.changed = asyncio.Event()
        self.reading = asyncio.create_task(self.read())

    @classmethod
    async def open(cls, holdline, path, headers=None):
        url = f"ws://{holdline.public}{path}"
        stream = await connect(url, compression=None, max_size=None, ping_interval=None, open_timeout=PATIENCE_SECONDS,
                               additional_headers=headers, proxy=None)
        return cls(stream)

    async def read(self):
        try:
            async for message in self.stream:
                self.heard.append(json.loads(message) if isinstance(message, str) else message)
                self.changed.set()
            self.closed = self.stream.close_code, self.stream.close_reason
        except ConnectionClosed:
            self.closed = self.stream.close_code, self.stream.close_reason
        self.changed.set()

    async def say(self, message):
        await self.stream.send(message if isinstance(message, (str, bytes)) else json.dumps(message))

    async def hear(self, what, fits, since=0, seconds=PATIENCE_SECONDS):
        """The first message from number `since` on that fits."""
        async def look():
            while True:
                for message in self.heard[since:]:
                    if fits(message):
                        return message
                if self.closed:
                    raise Failure(f"closed with {self.closed} instead of: {what}")
                self.changed.clear()
                await self.changed.wait()
        try:
            return await asyncio.wait_for(look(), seconds)
        except TimeoutError:
            raise Failure(f"not within {seconds} s: {what}; heard {self.heard[-3:]}") from None

    async def end(self, seconds=PATIENCE_SECONDS):
        """What it was closed with."""
        async def look():
            while not self.closed:
                self.changed.clear()
                await self.changed.wait()
            return self.closed
        try:
            return await asyncio.wait_for(look(), seconds)
        except TimeoutError:
            raise Failure(f"not closed within {seconds} s; heard {self.heard[-3:]}") from None

    async def close(self):
        await self.stream.close()
        await self.reading


async def refusal(holdline, path, headers=None):
    """The status of a handshake that has to be refused, and its headers."""
    try:
        socket = await Socket.open(holdline, path, headers)
    except InvalidStatus as refused:
        return refused.response.status_code, refused.response.headers
    await socket.close()
    return 101, {}


class Run:
    """One seed: its Holdline, its workers, and what was found."""

    def __init__(self, name, binary, directory):
        self.name, self.binary = name, binary
        self.directory = pathlib.Path(directory) / name
        self.directory.mkdir()
        self.verdicts, self.workers, self.holdlines = [], [], []
        self.notes = collections.OrderedDict()
        self.began = time.monotonic()

    def check(self, promise, kept, detail=""):
        self.verdicts.append((promise, bool(kept), detail))
        mark = "ok  " if kept else "FAIL"
        print(f"{mark} {self.name}: {promise}" + ("" if kept else f": {detail!r}"[:600]), flush=True)

    def same(self, promise, found, wanted):
        self.check(promise, found == wanted, f"{found} instead of {wanted}")

    async def holdline(self, preset, **settings):
        self.holdlines.append(Holdline(self.binary, preset, self.directory, **settings))
        return await self.holdlines[-1].start()

    async def start(self, kind, *names, **settings):
        workers = [Worker(kind, self.directory, name, **settings) for name in names]
        self.workers += workers
        return await asyncio.gather(*(worker.start() for worker in workers))

    @contextlib.asynccontextmanager
    async def ended(self):
        """However the inside ends: processes end, and the end is judged too."""
        try:
            yield self
            for holdline in self.holdlines:
                code, errors = await holdline.stop()
                self.same("Holdline stops in good order", code, 0)
                self.same("no error in Holdline's log", errors, [])
        except (Failure, OSError, TimeoutError, ConnectionClosed, InvalidStatus) as failure:
            self.check("the run reaches its end", False, repr(failure))
        finally:
            for process in [*self.workers, *self.holdlines]:
                process.kill() if isinstance(process, Holdline) else process.stop()
            print(f"     {self.name}: {time.monotonic() - self.began:.1f} s", flush=True)
