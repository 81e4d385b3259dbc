#!/usr/bin/env python3
"""A camera's server on FastAPI (camera_app.py) that Holdline runs, killed and recycled under users, viewers and a camera.

  kill   its process is killed again and again; one stands by
  pipes, age, rss   it is recycled by that limit

A viewer's WebSocket never closes, each process's picture goes forward, and each of its moves is done once and in order, killed or
not. A poll that a dying worker held may fail as polls do, by 500 (uvicorn ends it), 502, 503, 504 or a lost connection, and
the next one is answered; so is the picture by MJPEG asked for again. The last line is `N passed, N failed`; the exit is 1 when
anything failed.

Run it as: .cache/py/bin/python tests/thirdparty/camera.py [--only kill] [--rounds 4]
"""

import argparse
import asyncio
import base64
import collections
import contextlib
import os
import pathlib
import signal
import sys
import tempfile

import aiohttp
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from supervised import HERE, PYTHON, ROOT, is_alive, toml

sys.path.insert(0, str(HERE.parent))
from patience import Failure, until  # noqa: E402
from serving import BINARY, PATIENCE_SECONDS, Holdline, Verdict  # noqa: E402

PARTS = ("kill", "pipes", "age", "rss")
LIMITS = {"kill": {}, "pipes": {"recycle_pipes": 12}, "age": {"recycle_age": "10s"}, "rss": {"recycle_rss": "90MiB"}}
VIEWERS, USERS = 8, 3
HANG_SECONDS = 300
MOVE_SECONDS = 0.1
AUTH = {"Authorization": "Basic " + base64.b64encode(b"user:pass").decode()}
# As a poll fails that was held by a worker which is gone, or by uvicorn when its patience with it ends.
POLL_FAILURES = {500, 502, 503, 504}
UVICORN = ["-m", "uvicorn", "camera_app:app", "--app-dir", str(HERE), "--fd", "{fd}", "--log-level", "warning"]
UVICORN += ["--no-access-log", "--timeout-graceful-shutdown", "2"]


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
health = { kind = "http", path = "/health", interval = "200ms", timeout = "5s" }
[[routes]]
name = "all"
path = "/{*rest}"
confirm = "commit"
"""


def workers(part, journal, admin):
    env = {"JOURNAL": str(journal), "PYTHONPATH": str(ROOT / "clients/python"), "HOLDLINE_ADMIN": f"http://{admin}"}
    env |= {"LEAK_MB_PER_SECOND": "15"} if part == "rss" else {}
    group = {"name": "camera", "command": [PYTHON, *UVICORN], "env": env, "listen": "fd", "standby": 1, "drain_timeout": "1s",
             "recycle_jitter": 0, "restart_backoff": "50ms..1s", "start_timeout": "2m", **LIMITS[part]}
    return "[[workers]]\n" + "\n".join(f"{key} = {toml(value)}" for key, value in group.items())


class Viewer:
    """Moves the camera by numbered moves, and looks at what it shows."""

    def __init__(self, name):
        self.name, self.sent, self.frames = name, 0, 0
        # The last picture of each process, in the order in which they were first seen.
        self.faults, self.last = [], {}

    async def run(self, public, quit_moving):
        url = f"ws://{public}/ws/{self.name}"
        async with connect(url, compression=None, ping_interval=None, open_timeout=PATIENCE_SECONDS, proxy=None) as socket:
            reading = asyncio.create_task(self.read(socket))
            try:
                while not quit_moving.is_set():
                    self.sent += 1
                    await socket.send(f"left-{self.sent}")
                    await asyncio.sleep(MOVE_SECONDS)  # the viewer's own rhythm
                await quit_moving.done.wait()
            except ConnectionClosed as closed:
                self.faults.append(f"closed: {closed}")
            finally:
                reading.cancel()

    async def read(self, socket):
        with contextlib.suppress(ConnectionClosed):
            async for message in socket:
                if isinstance(message, bytes):
                    self.see(*(int(word) for word in message.split(b" ", 2)[:2]))

    def see(self, number, pid):
        """A process that moves away may be seen no more once the next one was."""
        if pid in self.last and (pid != [*self.last][-1] or number < self.last[pid]):
            self.faults.append(f"picture {number} of {pid} after {self.last}")
        self.last[pid], self.frames = number, self.frames + 1


class Quit(asyncio.Event):
    """Set when no more moves are made; `done` when all of them were looked for."""

    def __init__(self):
        super().__init__()
        self.done = asyncio.Event()


class Polls:
    """The camera, the users who wait for its logs, and one who looks at MJPEG."""

    def __init__(self, public):
        self.base = f"http://{public}"
        self.answered, self.failed, self.strange = collections.Counter(), collections.Counter(), []
        self.pictures = 0

    async def ask(self, session, who, method, path, **more):
        """The answer, or nothing if it failed as polls do."""
        try:
            async with session.request(method, self.base + path, **more) as answer:
                if answer.status == 200:
                    self.answered[who] += 1
                    return await answer.read()
                self.failed[answer.status] += 1
                if answer.status not in POLL_FAILURES:
                    self.strange.append((who, answer.status))
        except (aiohttp.ClientError, TimeoutError) as lost:
            self.failed[type(lost).__name__] += 1
        await asyncio.sleep(0.05)  # its own pause
        return None

    async def camera(self):
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            number = 0
            while True:
                if await self.ask(session, "camera", "GET", "/updates/"):
                    number += 1
                    await self.ask(session, "dump", "POST", "/dump/", json={"logs": [number]})

    async def user(self, number):
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while True:
                await self.ask(session, f"user {number}", "GET", "/logs/", headers=AUTH)

    async def mjpeg(self):
        async with aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, asyncio.IncompleteReadError):
                    async with session.get(f"{self.base}/video") as answer:
                        async for line in answer.content:
                            self.pictures += line.startswith(b"--frame")
                await asyncio.sleep(0.05)  # its own pause


class Drill:
    def __init__(self, part, rounds, holdline, journal):
        self.part, self.rounds, self.holdline, self.journal = part, rounds, holdline, journal
        self.pids = set()

    async def workers(self):
        items = (await self.holdline.call("GET", "/v1/workers"))["items"]
        self.pids |= {worker["pid"] for worker in items if worker["pid"]}
        return items

    async def eventually(self, what, look):
        return await until(what, look, HANG_SECONDS)

    async def serving(self):
        """The process that serves; before it is killed, another has to stand by."""
        async def look():
            by_state = {worker["state"]: worker["pid"] for worker in await self.workers()}
            return (self.part != "kill" or "standby" in by_state) and by_state.get("serving")
        return await self.eventually("one serves", look)

    async def disturb(self, polls, viewers):
        async def all_see():
            return all(viewer.last for viewer in viewers)
        await self.eventually("every viewer sees a picture", all_see)
        for _ in range(self.rounds):
            before = await self.serving()
            seen, pictures = dict(polls.answered), polls.pictures
            if self.part == "kill":
                os.kill(before, signal.SIGKILL)
            passing = [asyncio.create_task(self.pass_by(before))] if self.part == "pipes" else []

            async def replaced(before=before):
                return await self.serving() != before
            await self.eventually("another process serves", replaced)
            await asyncio.gather(*passing)

            async def all_go_on(before=before, seen=seen, pictures=pictures):
                await self.workers()
                if any([*viewer.last][-1:] in ([], [before]) for viewer in viewers):
                    return False
                users = (f"user {number}" for number in range(USERS))
                return polls.pictures > pictures and all(polls.answered[user] > seen.get(user, 0) for user in users)
            await self.eventually("every user is answered again, and every picture goes on", all_go_on)

    async def pass_by(self, before):
        """Clients who come and go until the worker is replaced."""
        while before in {worker["pid"] for worker in await self.workers() if not worker["due"]}:
            url = f"ws://{self.holdline.address['public']}/ws/guest"
            async with connect(url, ping_interval=None, open_timeout=PATIENCE_SECONDS, proxy=None) as socket:
                await socket.recv()

    async def done(self, viewers):
        """Waits until each move is in the journal."""
        async def look():
            moves = self.moves()
            return all(len(moves[viewer.name]) >= viewer.sent for viewer in viewers)
        await self.eventually("every move is done", look)

    def moves(self):
        moves = collections.defaultdict(list)
        for line in self.journal.read_text().splitlines():
            _pipe, _seq, name, move = line.split()
            moves[name].append(int(move.removeprefix("left-")))
        return moves


async def run(options, part, verdict):
    with tempfile.TemporaryDirectory(prefix="holdline-camera-") as directory:
        journal = pathlib.Path(directory) / "journal"
        journal.touch()
        holdline = await Holdline().start(options.holdline, CONFIG, directory)
        # The camera commits by the admin API, whose address is known by now.
        holdline.file.write_text(CONFIG + workers(part, journal, holdline.address["admin"]))
        await holdline.call("POST", "/v1/config/reload", {})
        drill = Drill(part, options.rounds, holdline, journal)
        viewers, quit_moving = [Viewer(f"v{number}") for number in range(VIEWERS)], Quit()
        polls = Polls(holdline.address["public"])
        moving, others, reached = [], [], False
        try:
            await drill.serving()
            moving = [asyncio.create_task(viewer.run(holdline.address["public"], quit_moving)) for viewer in viewers]
            others = [asyncio.create_task(work) for work in (polls.camera(), polls.mjpeg(), *map(polls.user, range(USERS)))]
            await drill.disturb(polls, viewers)
            quit_moving.set()
            await drill.done(viewers)
            reached = True
        except (Failure, TimeoutError, OSError, ConnectionClosed) as failure:
            print(f"     {part}: {failure!r}", flush=True)
        finally:
            quit_moving.set()
            quit_moving.done.set()
            for work in others:
                work.cancel()
            await asyncio.gather(*moving, *others, return_exceptions=True)
        await judge(drill, viewers, polls, verdict, reached)
        await holdline.stop(verdict)
        left = [pid for pid in drill.pids if is_alive(pid)]
        verdict.told(not left, f"{part}: no process is left {left or ''}")


async def judge(drill, viewers, polls, verdict, reached):
    part, moves = drill.part, drill.moves()
    wrong = [viewer.name for viewer in viewers if moves[viewer.name] != list(range(1, viewer.sent + 1))]
    faults = [f"{viewer.name}: {fault}" for viewer in viewers for fault in viewer.faults]
    still = [viewer.name for viewer in viewers if len(viewer.last) < 2]
    verdict.told(reached, f"{part}: the run reaches its end, over {len(drill.pids)} processes")
    verdict.told(not wrong, f"{part}: {sum(viewer.sent for viewer in viewers)} moves, each done once and in order {wrong or ''}")
    verdict.told(not faults, f"{part}: no viewer's socket closes, and no picture goes back {faults[:3] or ''}")
    verdict.told(not still, f"{part}: each viewer sees the picture of more than one process {still or ''}")
    verdict.told(not polls.strange, f"{part}: polls fail as polls do {polls.strange[:3] or ''}")
    if part != "kill":
        count = await drill.holdline.metric("worker_recycles_total", f'reason="{part}"')
        verdict.told(count >= drill.rounds, f"{part}: recycled {count} times by it")
    answered = sum(count for who, count in polls.answered.items() if who.startswith("user"))
    print(f"{part}: {sum(viewer.frames for viewer in viewers)} pictures by WebSocket, {polls.pictures} by MJPEG, "
          f"{answered} polls of users answered, failed {dict(polls.failed)}", flush=True)


async def main():
    parser = argparse.ArgumentParser(description="A camera that Holdline runs, killed and recycled.")
    parser.add_argument("--holdline", default=BINARY)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=PARTS, action="append")
    options = parser.parse_args()
    verdict = Verdict()
    for part in options.only or PARTS:
        await run(options, part, verdict)
    return verdict.end()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
