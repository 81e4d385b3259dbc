#!/usr/bin/env python3
"""Runs what docs/worker-guide.md and the READMEs of the helpers show: each program as a worker of a real Holdline, each
request, each route. A block is taken as it is written, but for the port, the id and the address of the admin API.

Run it as: .cache/py/bin/python tests/thirdparty/guide.py --python PYTHON --modules DIRECTORY (with holdline and ws in it),
which scripts/workers does. The last line is `N passed, N failed`; the exit is 1 when anything failed.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import sqlite3
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from patience import Failure, until  # noqa: E402
from serving import BINARY, ROOT, Holdline, Verdict  # noqa: E402
from websockets.asyncio.client import connect  # noqa: E402
from websockets.asyncio.server import serve  # noqa: E402
from websockets.exceptions import ConnectionClosed  # noqa: E402

GUIDE, PYTHON_README, NODE_README = "docs/worker-guide.md", "clients/python/README.md", "clients/js/README.md"
CONFIG = """
[server]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
[log]
format = "json"
[limits]
key_connections = 0
key_rate = 0
[[pools]]
name = "default"
health = { interval = "200ms", timeout = "5s" }
[[routes]]
name = "all"
path = "/{*rest}"
"""
# What takes longer hangs; an application may need a minute to start on a machine with other things to do.
PATIENCE_SECONDS = 240
# Messages of one client; the worker dies after each part of them.
MESSAGES, PARTS = 240, 4
SAID_TIMES = 40
HASTY = "for (const socket of server.clients) socket.terminate();\nserver.close();\nawait place.leave();"


async def eventually(what, look):
    return await until(what, look, PATIENCE_SECONDS)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def blocks(document):
    """The fenced blocks of a page: (language, text), by the heading that they stand under."""
    found, heading = collections.defaultdict(list), ""
    for level, fence, text in re.findall(r"^(#+ [^\n]*)$|^```(\w+)\n(.*?)^```$", (ROOT / document).read_text(), re.M | re.S):
        heading = level or heading
        if fence:
            found[heading.lstrip("# ")].append((fence, text))
    return found


def of(page, heading, language, number=0):
    return [text for fence, text in page[heading] if fence == language][number]


class Program:
    """A block of a page as a process, in a directory of its own or of others."""

    def __init__(self, run, name, text, directory=None):
        self.run, self.name, self.port = run, name, free_port()
        self.text = text.replace("9001", str(self.port)).replace("w1", name)
        self.directory = pathlib.Path(directory or tempfile.mkdtemp(dir=run.directory))
        self.process = None

    def command(self):
        if "import asyncio" in self.text or "import contextlib" in self.text:
            file = self.directory / f"{self.name}.py"
            file.write_text(self.text)
            if "FastAPI(" in self.text:
                where = ["--app-dir", str(self.directory), "--port", str(self.port), "--log-level", "warning"]
                return [self.run.python, "-m", "uvicorn", f"{self.name}:app", *where]
            return [self.run.python, str(file)]
        ending = "cjs" if "require(" in self.text else "mjs"
        file = self.directory / f"{self.name}.{ending}"
        file.write_text(self.text)
        modules = self.directory / "node_modules"
        if not modules.exists():
            modules.symlink_to(self.run.modules / "node_modules")
        return ["node", str(file)]

    async def start(self):
        env = {**os.environ, "HOLDLINE_ADMIN": f"http://{self.run.holdline.address['admin']}"}
        self.process = await asyncio.create_subprocess_exec(*self.command(), cwd=self.directory, env=env)
        self.run.programs.append(self)
        await eventually(f"{self.name} listens", self.listens)
        return self

    async def listens(self):
        if self.process.returncode is not None:
            raise Failure(f"{self.name} ended with {self.process.returncode}")
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            return True

    async def end(self, number):
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), PATIENCE_SECONDS)

    async def eligible(self):
        async def look():
            return any(item["id"] == self.name and item["eligible"] for item in await self.run.backends())
        await eventually(f"{self.name} is eligible", look)


class Run:
    def __init__(self, options, holdline, verdict, directory):
        self.python, self.modules = options.python, pathlib.Path(options.modules).resolve()
        self.holdline, self.verdict, self.directory = holdline, verdict, directory
        self.binary, self.programs = options.holdline, []

    async def backends(self):
        return (await self.holdline.call("GET", "/v1/backends"))["items"]

    async def backend_of(self, pipe):
        return (await self.holdline.call("GET", f"/v1/pipes/{pipe}"))["backend"]

    async def doubts(self):
        return await self.holdline.metric("in_doubt_messages_total") + await self.holdline.metric("replayed_messages_total")

    async def moved(self):
        return await self.holdline.metric("moves_total", 'result="moved"')

    async def pipe(self):
        return (await self.holdline.call("GET", "/v1/pipes"))["items"][0]["id"]

    def connect(self, path):
        url = f"ws://{self.holdline.address['public']}{path}"
        return connect(url, ping_interval=None, open_timeout=PATIENCE_SECONDS, proxy=None)

    async def clean(self):
        """Nothing of the case before is left."""
        for program in self.programs:
            if program.process.returncode is None:
                program.process.kill()
                await program.process.wait()
        self.programs = []
        for item in await self.backends():
            await self.holdline.forget(item["id"])

        async def empty():
            return not (await self.holdline.call("GET", "/v1/pipes"))["items"]
        await eventually("no pipe is left", empty)

    async def case(self, text, case, *arguments):
        try:
            self.verdict.told(await case(self, *arguments) in (None, True), text)
        except (Failure, ConnectionClosed, TimeoutError, OSError) as failure:
            self.verdict.told(False, f"{text}: {failure!r}")
        await self.clean()


async def hear(client, wanted):
    heard = await asyncio.wait_for(client.recv(), PATIENCE_SECONDS)
    if heard != wanted:
        raise Failure(f"{heard!r} instead of {wanted!r}")


async def nothing(run, text, command):
    """A worker that knows nothing, added by hand: killed and started again, it goes on with its client."""
    worker = await Program(run, "w1", text).start()
    words = command.replace("9001", str(worker.port)).split()
    env = {**os.environ, "HOLDLINE_ADMIN": run.holdline.address["admin"]}
    added = await asyncio.create_subprocess_exec(run.binary, *words[1:], env=env, stdout=asyncio.subprocess.DEVNULL)
    if await added.wait():
        raise Failure(f"{command}: {added.returncode}")
    await worker.eligible()
    async with run.connect("/chat") as client:
        await client.send("before")
        await hear(client, "before")
        await worker.end(signal.SIGKILL)
        await client.send("while it is away")
        await worker.start()
        while await asyncio.wait_for(client.recv(), PATIENCE_SECONDS) != "while it is away":
            pass  # "before" may come again: a library's word comes with a pong, and there was no time for one


async def trap(run, text):
    """`http` finds no worker that speaks nothing but WebSocket, and `ws` does."""
    worker = await Program(run, "w1", text).start()
    path, body = "/v1/backends/w1", {"url": f"ws://127.0.0.1:{worker.port}", "health": {"type": "http", "path": "/"}}
    await run.holdline.call("PUT", path, body)

    async def down():
        return (await run.holdline.call("GET", path))["health"] == "down"
    await eventually("it is down by a plain GET", down)
    events = (await run.holdline.call("GET", "/v1/events?limit=1000"))["items"]
    reasons = [event.get("reason", "") for event in events if event["type"] == "backend.down" and event["backend"] == "w1"]
    if not reasons or "426" not in reasons[-1]:
        raise Failure(f"the event does not say 426: {reasons}")
    await run.holdline.call("PUT", path, {**body, "health": {"type": "ws", "path": "/"}})
    await worker.eligible()


async def registered(run, text):
    """Two workers that register themselves; the one with the client is told to end."""
    before, moved = await run.doubts(), await run.moved()
    workers = {name: await Program(run, name, text).start() for name in ("w1", "w2")}
    for worker in workers.values():
        await worker.eligible()
    async with run.connect("/chat") as client:
        await client.send("0")
        await hear(client, "0")
        pipe = await run.pipe()
        first = workers[await run.backend_of(pipe)]
        ending = asyncio.create_task(first.end(signal.SIGTERM))
        for number in range(1, SAID_TIMES):
            await client.send(str(number))
            await hear(client, str(number))
        code = await ending
        # uvicorn ends by the signal once it has done what it wanted to do.
        if code not in (0, -signal.SIGTERM):
            raise Failure(f"it ended with {code}")
        view = await run.holdline.call("GET", f"/v1/pipes/{pipe}")
        if view["backend"] == first.name or first.name in [item["id"] for item in await run.backends()]:
            raise Failure(f"{first.name} is still there: {view}")
        if await run.doubts() != before or await run.moved() != moved + 1:
            raise Failure("the pipe was interrupted instead of moved")


async def once(run, text, done):
    """Two workers with one store; the one with the client is killed again and again."""
    directory = tempfile.mkdtemp(dir=run.directory)
    workers = {name: await Program(run, name, text, directory).start() for name in ("w1", "w2")}
    for worker in workers.values():
        await worker.eligible()
    async with run.connect("/orders/1") as client:
        pipe = None
        for part in range(PARTS):
            for number in range(part * MESSAGES // PARTS, (part + 1) * MESSAGES // PARTS):
                await client.send(f"order {number + 1}")
            pipe = pipe or await run.pipe()
            worker = workers[await attached(run, pipe)]
            await worker.end(signal.SIGKILL)
            await worker.start()

        async def confirmed():
            return (await run.holdline.call("GET", f"/v1/pipes/{pipe}"))["up"]["confirmed"] == MESSAGES
        await eventually("all is committed", confirmed)
    found = done(pathlib.Path(directory), pipe)
    wrong = [entry for entry in found if entry[1] != f"order {entry[0]}"]
    if wrong or [number for number, _ in found] != list(range(1, MESSAGES + 1)):
        raise Failure(f"done: {len(found)} of {MESSAGES}, with the wrong number: {wrong[:5]}")


async def attached(run, pipe):
    async def look():
        return await run.backend_of(pipe)
    return await eventually("the pipe has a worker", look)


def in_sqlite(directory, pipe):
    with contextlib.closing(sqlite3.connect(directory / "done.db")) as store:
        return store.execute("SELECT seq, message FROM done WHERE pipe = ? ORDER BY seq", (pipe,)).fetchall()


def in_files(directory, pipe):
    files = [file for file in (directory / "done").iterdir() if file.name.startswith(f"{pipe}-")]
    return sorted((int(file.name[len(pipe) + 1 :]), file.read_text()) for file in files)


async def requests(run, page):
    """The requests as they are written, of a worker that says which path it was asked for."""
    async def tell(client):
        await client.send(client.request.path)
        await client.wait_closed()
    async with serve(tell, "127.0.0.1", 0) as server:
        port = str(server.sockets[0].getsockname()[1])
        said = [await ask(run, text.replace("9001", port)) for text in texts(page, "Register", "http")]
        if (said[1]["renew_after"], said[1]["directives"]) != ("5s", []) or "expires_at" not in said[1]:
            raise Failure(f"the lease: {said[1]}")

        async def eligible():
            return (await run.backends())[0]["eligible"]
        await eventually("it is eligible", eligible)
        async with run.connect("/phones/phone-1/control") as client:
            await hear(client, "/devices/7f3a")
        last = [await ask(run, text.replace("9001", port)) for text in texts(page, "The order of a SIGTERM", "http")]
        if not {"pipes", "requests"} <= set(last[0]) or await run.backends():
            raise Failure(f"the end: {last}")


def texts(page, heading, language):
    return [text for fence, text in page[heading] if fence == language]


async def ask(run, text):
    first, _, body = text.partition("\n")
    return await run.holdline.call(*first.split(), json.loads(body) if body.strip() else None)


async def aliases(run, text):
    """The worker of the README that owns a key says under which path it was asked for."""
    worker = await Program(run, "w1", text).start()
    await worker.eligible()
    async with run.connect("/phones/phone-1/control") as client:
        await hear(client, "/devices/7f3a")
    if await worker.end(signal.SIGTERM):
        raise Failure("it did not end in good order")


def resuming(page):
    """The programs that resume, put together as the page says: by pongs alone, and with `Holdline-Resume`."""
    heading, answer = "Resume: each message once", "What the worker has already"
    base, work, knows = of(page, "Register", "python"), of(page, heading, "python"), of(page, answer, "python")
    python = re.sub(r"async def echo.*?\n\n", work + "\n", base, flags=re.S).replace("serve(echo,", "serve(work,")
    also = python.replace("async def work", knows + "\nasync def work").replace("numbers()", "numbers(socket.rx)")
    also = also.replace('9001), holdline', '9001, process_response=resumed), holdline')
    base, work, knows = of(page, "Register", "js"), of(page, heading, "js"), of(page, answer, "js")
    node = re.sub(r"server\.on\('connection'.*?\n}\);\n", lambda _: work, base, flags=re.S)
    node_also = node.replace("const place", knows + "const place").replace("numbers()", "numbers(request.rx)")
    return {"Python": (python, also, in_sqlite), "Node": (node, node_also, in_files)}


async def all_of_it(run, guide, python, node):
    for language, name in (("python", "Python"), ("js", "Node")):
        await run.case(f"nothing, in {name}", nothing, of(guide, "Nothing", language), of(guide, "Nothing", "sh"))
        await run.case(f"the trap of http, in {name}", trap, of(guide, "Nothing", language))
        await run.case(f"register, in {name}", registered, of(guide, "Register", language))
    for name, (pongs, resumes, done) in resuming(guide).items():
        await run.case(f"resume: each message once, in {name}", once, pongs, done)
        await run.case(f"resume: what the worker has already, in {name}", once, resumes, done)
    await run.case("the requests of other languages, and aliases", requests, guide)
    heading = "holdline for Python workers"
    await run.case("README for Python: websockets", registered, of(python, heading, "python"))
    await run.case("README for Python: FastAPI under uvicorn", registered, of(python, heading, "python", 1))
    heading = "Workers in Node"
    await run.case("README for Node: register", registered, of(node, heading, "js"))
    await run.case("README for Node: each message once, by HTTP", once, of(node, heading, "js", 1), in_files)
    await run.case("README for Node: keys of its own", aliases, of(node, heading, "js", 2))


async def planted(run, guide):
    """Workers that do what the page warns of, which has to be found."""
    hasty = of(guide, "Register", "js").replace("await place.leave();", HASTY)
    await run.case("a worker that closes its sockets before it has left", registered, hasty)
    forgetful = resuming(guide)["Python"][0].replace("store.execute(\"INSERT", "seq % 7 and store.execute(\"INSERT")
    await run.case("a worker that commits what it has not stored", once, forgetful, in_sqlite)


async def main():
    parser = argparse.ArgumentParser(description="Runs what the worker's guide shows.")
    parser.add_argument("--holdline", default=BINARY)
    parser.add_argument("--python", default=sys.executable, help="has the package holdline")
    parser.add_argument("--modules", required=True, help="has holdline and ws in its node_modules")
    parser.add_argument("--self-check", action="store_true", help="that it can fail: two bad workers")
    options = parser.parse_args()
    guide, python, node = (blocks(page) for page in (GUIDE, PYTHON_README, NODE_README))
    routes = "".join(of(guide, heading, "toml") for heading in ("Aliases", "Resume: each message once"))
    verdict = Verdict()
    with tempfile.TemporaryDirectory(prefix="holdline-guide-") as directory:
        holdline = await Holdline().start(options.holdline, CONFIG + routes, directory)
        run = Run(options, holdline, verdict, directory)
        await (planted(run, guide) if options.self_check else all_of_it(run, guide, python, node))
        failed = verdict.failed
        await holdline.stop(verdict)
    if options.self_check:
        print(f"guide: {failed} of 2 bad workers were found")
        return failed != 2
    return verdict.end()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
