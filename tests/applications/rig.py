"""What every run stands on: two workers, the way to them (Holdline, or a forwarder that knows nothing), and a user.

A worker is a program told a port; a user is a program told an address, which says on its standard output what it said and
heard, a JSON record a line (`talk.mjs`, `talk.py`). Refuses to wait without a bound, and to end what it did not start.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import socket
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from patience import Failure, until  # noqa: E402

ROOT = HERE.parent.parent
CACHE = ROOT / ".cache/applications"
PYTHON = str(CACHE / "py/bin/python")
MOSQUITTO = str(CACHE / "debian/usr/sbin/mosquitto")
CHROMEDRIVER = str(CACHE / "debian/usr/bin/chromedriver")
ENVIRONMENT = dict(
    os.environ,
    NODE_MODULES_OF=f"{CACHE}/node/",
    PATH=f"{CACHE / 'py/bin'}:{os.environ['PATH']}",
    LD_LIBRARY_PATH=str(CACHE / "debian/usr/lib/x86_64-linux-gnu"),
    APPIUM_HOME=str(CACHE / "node"),
    PYTHONUNBUFFERED="1",
)
# Names the run in the environment of each of its processes.
MARK = "HOLDLINE_APPLICATION_RUN"
# Some of these programs take long to start on a busy machine.
PATIENCE_SECONDS = 90
# A planned stop: who is still there after so long is told to go.
DRAIN_SECONDS = 3


async def eventually(what, look, seconds=PATIENCE_SECONDS):
    """What `look` answers, as soon as that is true."""
    return await until(what, look, seconds)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def ask(port, method, path, body=None):
    """The JSON that an HTTP server on this machine answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
    try:
        answer = await asyncio.wait_for(reader.read(), PATIENCE_SECONDS)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    if status >= 300:
        raise Failure(f"{method} {path}: {status} {body[:300]!r}")
    return json.loads(body) if body else None


def end_what_is_left(run):
    """Ends what the programs of a run started in sessions of its own: browsers, kernels, shells."""
    mine = f"{MARK}={run}\0".encode()
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mine in (process / "environ").read_bytes() + b"\0":
                os.kill(int(process.name), signal.SIGKILL)


class Process:
    """A program with a process group and a log of its own. Its environment names the run, so that what it leaves is found."""

    def __init__(self, command, log, run):
        self.command, self.log, self.environment = command, pathlib.Path(log), {**ENVIRONMENT, MARK: str(run)}
        self.process = None

    async def start(self, **pipes):
        with open(self.log, "wb") as log:
            pipes.setdefault("stdout", log)
            self.process = await asyncio.create_subprocess_exec(
                *self.command, stderr=log, env=self.environment, cwd=self.log.parent, start_new_session=True, **pipes
            )
        return self

    def alive(self):
        return self.process is not None and self.process.returncode is None

    async def end(self, sig=signal.SIGKILL, seconds=5):
        """Ends the whole group, at the latest with SIGKILL."""
        if self.process is None:
            return
        for number in (sig, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), seconds)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def said(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Worker(Process):
    """One instance of the application."""

    def __init__(self, name, command, directory):
        self.name, self.port = name, free_port()
        directory.mkdir()
        filled = [part.format(port=self.port, directory=directory, name=name) for part in command]
        super().__init__(filled, directory / "worker.log", directory.parent)

    async def listening(self):
        async def look():
            if not self.alive():
                raise Failure(f"{self.name} ended: {self.said()[-1500:]}")
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return True

        await eventually(f"{self.name} listens: {self.command}", look)


class Holdline(Process):
    """`holdline serve` before two workers, with one route. The user's host name keys it, so a user has one worker."""

    def __init__(self, binary, workers, directory, route):
        self.workers, self.route = workers, route
        self.config = directory / "holdline.toml"
        super().__init__([binary, "serve", "-c", str(self.config)], directory / "holdline.log", directory)
        self.port = self.admin = None

    def configure(self):
        backends = "".join(
            f'[[pools.backends]]\nid = "{worker.name}"\nurl = "ws://127.0.0.1:{worker.port}"\n' for worker in self.workers
        )
        self.config.write_text(
            '[server]\nlisten = ["127.0.0.1:0"]\n[admin]\nlisten = "127.0.0.1:0"\n[log]\nformat = "json"\nlevel = "debug"\naccess = "json"\n'
            "[limits]\nkey_connections = 0\nkey_rate = 0\n"
            f'[[pools]]\nname = "default"\nbalance = "hash"\nhealth.interval = "1s"\n{backends}'
            f'[[routes]]\nname = "default"\npath = "/{{*path}}"\nkey = "{{header.host}}"\n{self.route}\n'
        )

    async def ready(self):
        self.configure()
        await self.start()
        self.port, self.admin = [
            await eventually(f"a {name} listener", lambda name=name: self.listener(name)) for name in ("public", "admin")
        ]

    async def listener(self, name):
        if not self.alive():
            raise Failure(f"holdline ended: {self.said()[-1500:]}")
        found = re.search(rf'"listener":"{name}","address":"[^"]*:(\d+)"', self.said())
        return found and int(found.group(1))

    async def in_use(self):
        """The worker that serves the user: the one with pipes."""
        pipes = await ask(self.admin, "GET", "/v1/pipes?limit=100")
        names = {pipe["backend"] for pipe in pipes["items"] if pipe["backend"]}
        if len(names) != 1:
            raise Failure(f"the user is on {sorted(names)} and not on one worker")
        return next(worker for worker in self.workers if worker.name in names)

    async def drain(self, worker):
        """Until nothing of it is left, or its deadline is long over."""
        wish = {"state": "drain", "deadline": f"{DRAIN_SECONDS}s"}
        await ask(self.admin, "PUT", f"/v1/backends/{worker.name}/state", wish)

        async def empty():
            return (await ask(self.admin, "GET", f"/v1/backends/{worker.name}"))["pipes"] == 0

        await eventually(f"{worker.name} has no pipes", empty, DRAIN_SECONDS + 10)

    async def decided(self):
        """What kind of conversation each pipe was taken for, and why."""
        pipes = await ask(self.admin, "GET", "/v1/pipes?limit=100")
        return [pipe.get("conversation") for pipe in pipes["items"]]

    async def stop(self):
        """What it logged as an error."""
        await self.end(signal.SIGTERM, 40)
        lines = [json.loads(line) for line in self.said().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("level") == "ERROR"]


class Forwarder:
    """A TCP forwarder to the first worker that takes a connection: what there is without Holdline."""

    def __init__(self, workers):
        self.workers, self.server, self.port, self.tasks = workers, None, None, set()

    async def ready(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def serve(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        asyncio.current_task().add_done_callback(self.tasks.discard)
        for worker in self.workers:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                onward = await asyncio.open_connection("127.0.0.1", worker.port)
                await asyncio.gather(self.pour(reader, onward[1]), self.pour(onward[0], writer))
                return
        writer.transport.abort()

    async def pour(self, reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except OSError:
            writer.transport.abort()

    async def in_use(self):
        return self.workers[0]

    async def decided(self):
        return []

    async def stop(self):
        self.server.close()
        for task in list(self.tasks):
            task.cancel()
        return []


@dataclasses.dataclass
class Record:
    """One line of a user. `at` is in seconds of the wall clock."""

    at: float
    what: str
    n: object = None
    text: str = ""


class User(Process):
    """The application's client as its user runs it, with the reconnect logic that it has."""

    def __init__(self, command, port, directory):
        filled = [part.format(port=port, directory=directory) for part in command]
        super().__init__(filled, directory / "user.log", directory)
        self.records, self.reading = [], None

    async def begin(self):
        await self.start(stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        self.reading = asyncio.create_task(self.read())

    async def read(self):
        while line := await self.process.stdout.readline():
            if line.startswith(b'{"at"'):
                fields = json.loads(line)
                fields["at"] /= 1000
                self.records.append(Record(**fields))

    def of(self, what):
        return [record for record in self.records if record.what == what]

    def last(self):
        """When it last heard something, 0 before that."""
        heard = self.of("hear")
        return heard[-1].at if heard else 0

    async def hears(self, count, seconds):
        """As soon as it has heard so much."""
        async def look():
            if not self.alive():
                raise Failure(f"the user ended: {self.said()[-1500:]}")
            return len(self.of("hear")) >= count

        try:
            await eventually(f"the user hears {count} times", look, seconds)
        except Failure as failure:
            raise Failure(f"{failure}; its records {self.records[-5:]}; it said {self.said()[-1500:]}") from None

    def quiet(self):
        """It says nothing more, and still hears."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()
