#!/usr/bin/env python3
"""Workers of other people's making that Holdline runs itself ([[workers]]), under 200 clients with traffic.

  uvicorn  FastAPI by `uvicorn --fd`: rolling restarts
  uds      the same by a socket file (`uvicorn --uds`)
  ws       Node `ws` on a port: rolling restarts
  leak     FastAPI that leaks memory: recycled by its resident memory, again and again
  gunicorn, hypercorn  the same application by them, with a descriptor: where asked for by --only

Every message has to be executed once and in order, and acknowledged once; no client's socket may close; no process may be
left. The last line is `N passed, N failed`; the exit is 1 when anything failed.

Run it as: .cache/py/bin/python tests/thirdparty/supervised.py [--rounds 10] [--leak-seconds 60] [--only uvicorn]
"""

import argparse
import asyncio
import json
import os
import pathlib
import sys
import tempfile
import time

from rolling import CLIENTS, Client, judge
from run import HERE, PATIENCE_SECONDS, PYTHON, ROOT, Failure, Proxy

WORKERS = 2
PARTS = ("uvicorn", "uds", "ws", "leak")
# How other servers take a socket that listens already; gunicorn looks for it by itself.
OTHERS = {
    "gunicorn": ["-m", "gunicorn", "--chdir", str(HERE), "-k", "uvicorn_worker.UvicornWorker", "-w", "1", "supervised_app:app"],
    "hypercorn": ["-m", "hypercorn", "--bind", "fd://{fd}", "--log-level", "WARNING", str(HERE / "supervised_app") + ":app"],
}
# From one state of rest to the next at most; each of two workers may take its whole drain_timeout.
HANG_SECONDS = 300
# 20 MB a minute for ten minutes, in so many seconds.
LEAK_MB = 200
UVICORN = ["-m", "uvicorn", "supervised_app:app", "--app-dir", str(HERE), "--log-level", "warning", "--no-access-log"]
UVICORN += ["--ws-per-message-deflate", "false", "--timeout-graceful-shutdown", "5"]


def toml(value):
    """Strings, lists and tables of them are written in TOML as in JSON, but for the colon."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value)


def config(part, journal, leak_seconds):
    env = {"JOURNAL": str(journal), "WORK_MS": "20"}
    keys = {"count": WORKERS, "start_timeout": "2m", "drain_timeout": "60s", "recycle_jitter": 0}
    if part == "ws":
        command = ["node", str(HERE / "ws_worker.mjs"), str(journal), "{port}"]
        # 200 clients are pushed a thousand messages a second together, so that a slow machine keeps up.
        env |= {"NODE_MODULES_OF": str(ROOT / ".cache/node") + "/", "PUSH_MS": "200"}
        health = {"kind": "tcp", "interval": "1s"}
        first = 20_000 + os.getpid() % 1000 * 10
        keys["ports"] = f"{first}-{first + 9}"
    else:
        where = ["--uds", "{socket}"] if part == "uds" else ["--fd", "{fd}"]
        command = [PYTHON, *OTHERS.get(part, [*UVICORN, *where])]
        health = {"kind": "http", "path": "/health", "interval": "1s"}
        keys["listen"] = "unix" if part == "uds" else "fd"
    if part == "leak":
        env["LEAK_MB_PER_SECOND"] = str(LEAK_MB / leak_seconds)
        keys["recycle_rss"] = "120MiB"
    group = {"name": "w", "command": command, "env": env, **keys}
    lines = "\n".join(f"{key} = {toml(value)}" for key, value in group.items())
    limits = "[limits]\nkey_connections = 0\nkey_rate = 0\n"
    return f'{limits}[[pools]]\nname = "default"\nhealth = {toml(health)}\n[[workers]]\n{lines}\n'


class Supervised:
    """The proxy with its workers."""

    def __init__(self, options, part, directory):
        self.part = part
        self.journal = pathlib.Path(directory) / "journal"
        self.proxy = Proxy(options.holdline, directory, False, config(part, self.journal, options.leak_seconds))
        self.pids = set()

    async def call(self, method, path, body=None):
        return json.loads(await asyncio.to_thread(self.proxy.call, method, path, body))

    async def settled(self):
        """Waits until as many serve as should, and none is to be replaced."""
        deadline = time.monotonic() + HANG_SECONDS
        while time.monotonic() < deadline:
            workers = (await self.call("GET", "/v1/workers"))["items"]
            self.pids |= {worker["pid"] for worker in workers if worker["pid"]}
            if len(workers) == WORKERS and all(w["state"] == "serving" and not w["due"] for w in workers):
                return
            await asyncio.sleep(0.05)  # until the list changes
        raise Failure(f"the workers do not come to rest: {workers}")

    async def rounds(self, options):
        if self.part != "leak":
            for _ in range(options.rounds):
                await self.call("POST", "/v1/workers/w/restart", {})
                await self.settled()
            return
        end = time.monotonic() + options.leak_seconds
        while time.monotonic() < end:
            await self.settled_or_not()

    async def settled_or_not(self):
        workers = (await self.call("GET", "/v1/workers"))["items"]
        self.pids |= {worker["pid"] for worker in workers if worker["pid"]}
        await asyncio.sleep(0.5)  # the drill's own rhythm

    def recycled(self):
        """How many workers were replaced, by reason."""
        reasons = {}
        for line in self.proxy.call("GET", "/metrics").splitlines():
            if line.startswith("holdline_worker_recycles_total{") and not line.endswith(" 0"):
                reason = line.split('reason="')[1].split('"')[0]
                reasons[reason] = int(float(line.rsplit(" ", 1)[1]))
        return reasons


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return state != "Z"


async def go(supervised, options):
    await supervised.settled()
    clients = [Client(f"c{number}") for number in range(CLIENTS)]
    url = f"ws://{supervised.proxy.address['public']}/ws/"
    quit_sending, talks = asyncio.Event(), []
    try:
        for client in clients:
            connected = asyncio.Event()
            talks.append(asyncio.create_task(client.talk(url, connected, quit_sending)))
            await asyncio.wait_for(connected.wait(), PATIENCE_SECONDS)
        await supervised.rounds(options)
    finally:
        quit_sending.set()
        await asyncio.gather(*talks)
    return clients


async def run(options, part):
    with tempfile.TemporaryDirectory(prefix="holdline-supervised-") as directory:
        supervised = Supervised(options, part, directory)
        try:
            clients = await go(supervised, options)
            recycled = supervised.recycled()
            print(f"{part}: replaced {recycled}")
            verdicts = judge(supervised, clients)
            enough = recycled.get("rss", 0) >= 2 if part == "leak" else recycled.get("restart") == options.rounds * WORKERS
            verdicts.append(("workers were replaced as often as they should", enough, recycled))
        except (Failure, TimeoutError) as failure:
            verdicts = [("the run reaches its end", False, repr(failure))]
        finally:
            code = supervised.proxy.stop()
        verdicts.append(("Holdline stops in good order", code == 0, code))
        left = [pid for pid in supervised.pids if is_alive(pid)]
        verdicts.append(("no process is left", not left, left))
        return verdicts


async def main():
    parser = argparse.ArgumentParser(description="Workers that Holdline runs, restarted under 200 clients.")
    parser.add_argument("--holdline", default=str(ROOT / "target/debug/holdline"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--leak-seconds", type=int, default=60)
    parser.add_argument("--only", choices=[*PARTS, *OTHERS], action="append")
    options = parser.parse_args()
    passed = failed = 0
    for part in options.only or PARTS:
        for what, good, detail in await run(options, part):
            passed, failed = passed + bool(good), failed + (not good)
            print(f"{'ok  ' if good else 'FAIL'} {part}: {what}" + ("" if good else f": {detail}"), flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
