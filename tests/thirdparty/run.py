#!/usr/bin/env python3
"""Other people's WebSocket servers behind Holdline, killed under traffic; the verdict counts every message.

For each library: 20 SIGKILLs, 20 SIGTERMs, and 20 SIGKILLs with `replay.tail` on. Clients send numbered messages, workers
journal each one before they acknowledge it, and a wire tap per worker notes what the library itself had confirmed by a pong.
The last line is `N passed, N failed`; the exit is 1 when anything failed.

Run it as: .cache/py/bin/python tests/thirdparty/run.py [--holdline PATH] [--kinds ws,websockets] [--outages 20]
"""

import argparse
import asyncio
import collections
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zlib

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tap import Tap

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PYTHON = str(ROOT / ".cache/py/bin/python")
WORK_MS = "4"
KINDS = {
    "fastapi": [PYTHON, str(HERE / "fastapi_worker.py"), "{journal}", WORK_MS],
    "fastapi-wsproto": [PYTHON, str(HERE / "fastapi_worker.py"), "{journal}", WORK_MS, "wsproto"],
    "websockets": [PYTHON, str(HERE / "websockets_worker.py"), "{journal}", WORK_MS],
    "ws": ["node", str(HERE / "ws_worker.mjs"), "{journal}"],
}
CLIENTS = 6
WORKERS = 3
BURST = 12
# A worker that is further behind than this is not sent more: past 10 s without a pong, Holdline counts on `written`.
UNACKNOWLEDGED_MAX = 60
# What takes longer hangs.
PATIENCE_SECONDS = 120
TAIL = 'tail.messages = 256\ntail.bytes = "1MiB"\ntail.age = "30s"\n'
CONFIG = """
[server]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
[log]
format = "json"
[replay]
policy = "unconfirmed"
"""


class Failure(Exception):
    """The run could not go on."""


class Proxy:
    """A real `holdline serve` with its admin API."""

    def __init__(self, binary, directory, tail, more=""):
        config = pathlib.Path(directory) / "proxy.toml"
        config.write_text(CONFIG + (TAIL if tail else "") + more)
        self.log_path = pathlib.Path(directory) / "holdline.log"
        self.process = subprocess.Popen([binary, "serve", "-c", config], stderr=subprocess.PIPE, text=True)
        self.address = {}
        log = open(self.log_path, "w")
        while not {"public", "admin"} <= self.address.keys():
            line = self.process.stderr.readline()
            if not line:
                raise Failure("holdline did not start: " + self.log_path.read_text())
            log.write(line)
            entry = json.loads(line)
            if entry.get("message") == "listening":
                self.address[entry["listener"]] = entry["address"]
        # What it logs from here on goes to the file; a full pipe would stop it.
        self.copier = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=log)

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://{self.address['admin']}{path}", method=method, data=data, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return answer.read().decode()

    def metric(self, name):
        lines = self.call("GET", "/metrics").splitlines()
        return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"holdline_{name}{{")))

    def errors(self):
        levels = [json.loads(line) for line in self.log_path.read_text().splitlines() if line.startswith("{")]
        return [entry for entry in levels if entry.get("level") == "ERROR"]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return f"no exit in {PATIENCE_SECONDS} s"
        finally:
            self.copier.wait(5)


class Worker:
    """A worker process with its tap, registered with Holdline."""

    def __init__(self, run):
        self.run = run
        self.process = None
        self.tap = None
        self.id = None

    async def start(self):
        run = self.run
        command = [part.format(journal=run.journal) for part in KINDS[run.kind]]
        environment = dict(os.environ, NODE_MODULES_OF=str(ROOT / ".cache/node/"))
        environment["NODE_MODULES_OF"] += "/"
        self.process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=run.worker_log, env=environment
        )
        line = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE_SECONDS)
        if not line:
            raise Failure(f"a {run.kind} worker did not start; see {run.worker_log.name}")
        host, port = json.loads(line)["listening"].rsplit(":", 1)
        self.tap = Tap(host, int(port), run.changed)
        front = await self.tap.start()
        answer = await asyncio.to_thread(run.proxy.call, "POST", "/v1/backends", {"url": f"ws://127.0.0.1:{front}"})
        self.id = json.loads(answer)["id"]
        run.workers.append(self)
        run.taps.append(self.tap)
        run.changed.set()

    async def end(self, sig):
        self.run.workers.remove(self)
        self.process.send_signal(sig)
        try:
            await asyncio.wait_for(self.process.wait(), PATIENCE_SECONDS)
        except TimeoutError:
            self.run.notes.append("a worker did not exit on its signal")
            self.process.kill()
        self.tap.stop()
        # Already gone by itself is as good.
        try:
            await asyncio.to_thread(self.run.proxy.call, "DELETE", f"/v1/backends/{self.id}")
        except urllib.error.HTTPError as error:
            self.run.notes.append(f"DELETE of a backend: {error.code}")


class Client:
    """One unmodified client: sends numbered messages in bursts, checks everything that comes down."""

    def __init__(self, run, name):
        self.run, self.name = run, name
        self.sent = 0
        self.newest_ack = 0
        self.faults = []
        self.closed = None
        self.finished = asyncio.Event()
        self.pushes = {}
        self.pushes_seen = 0

    async def talk(self, quit_sending):
        url = f"ws://{self.run.proxy.address['public']}/ws/{self.name}"
        async with connect(url, compression=None, max_size=None, ping_interval=None) as socket:
            reading = asyncio.create_task(self.read(socket))
            try:
                while not quit_sending.is_set():
                    for _ in range(BURST if self.sent - self.newest_ack <= UNACKNOWLEDGED_MAX else 0):
                        await self.send(socket)
                    await asyncio.sleep(random.uniform(0.05, 0.15))  # the traffic's own rhythm
                await socket.send(f"{self.name} fin")
                await asyncio.wait_for(self.finished.wait(), PATIENCE_SECONDS)
            except ConnectionClosed as closed:
                self.closed = str(closed)
            except TimeoutError:
                self.faults.append("the last message was not acknowledged in time")
            finally:
                self.run.quit.set() if self.closed else None
                reading.cancel()

    async def send(self, socket):
        await socket.send(f"{self.name} {self.sent}")
        self.sent += 1

    async def read(self, socket):
        try:
            async for message in socket:
                self.see(message)
        except ConnectionClosed as closed:
            self.closed = str(closed)

    def see(self, message):
        if isinstance(message, str):
            word, _, number = message.split(" ")
            if number == "fin":
                self.finished.set()
            else:
                self.newest_ack = max(self.newest_ack, int(number))
            if word != "ack":
                self.faults.append(f"unknown text {message[:40]!r}")
            return
        word, attachment, number, checksum, body = message.split(b" ", 4)
        attachment, number = int(attachment), int(number)
        if zlib.crc32(body) != int(checksum):
            self.faults.append(f"push {number} of attachment {attachment} is damaged")
        if attachment < max(self.pushes, default=0):
            self.faults.append(f"a push of attachment {attachment} came after a newer attachment's")
        if number != self.pushes.get(attachment, -1) + 1:
            self.faults.append(f"push {number} of attachment {attachment} came after {self.pushes.get(attachment, -1)}")
        self.pushes[attachment] = number
        self.pushes_seen += 1


class Run:
    """One library under one signal."""

    def __init__(self, kind, sig, tail, outages, binary, directory):
        self.kind, self.sig, self.tail, self.outages = kind, sig, tail, outages
        self.proxy = Proxy(binary, directory, tail)
        self.journal = str(pathlib.Path(directory) / "journal")
        self.worker_log = open(pathlib.Path(directory) / "workers.log", "w")
        self.changed = asyncio.Event()
        self.quit = asyncio.Event()
        self.workers, self.taps, self.notes, self.done = [], [], [], 0

    async def go(self):
        await asyncio.gather(*(Worker(self).start() for _ in range(WORKERS)))
        clients = [Client(self, f"c{number}") for number in range(CLIENTS)]
        talks = [asyncio.create_task(client.talk(self.quit)) for client in clients]
        try:
            await self.attached()
            for _ in range(self.outages):
                if self.quit.is_set():
                    break
                await self.outage()
                self.done += 1
        finally:
            self.quit.set()
            await asyncio.gather(*talks)
        return clients

    async def outage(self):
        await asyncio.sleep(random.uniform(0.1, 0.4))  # traffic between two outages
        victim = max(self.workers, key=lambda worker: worker.tap.live)
        replacement = asyncio.create_task(Worker(self).start())
        await victim.end(self.sig)
        await self.attached()
        await replacement

    async def attached(self):
        """Every client's pipe is on some worker."""

        async def all_there():
            while sum(worker.tap.live for worker in self.workers) < CLIENTS and not self.quit.is_set():
                self.changed.clear()
                await self.changed.wait()

        try:
            await asyncio.wait_for(all_there(), PATIENCE_SECONDS)
        except TimeoutError:
            live = [worker.tap.live for worker in self.workers]
            raise Failure(f"not all pipes reattached: {live}; {self.proxy.call('GET', '/v1/pipes')[:2000]}") from None

    def close(self):
        for worker in self.workers:
            worker.process.kill()
            worker.tap.stop()
        return self.proxy.stop()


def judge(run, clients):
    """Counts what happened to every message: a row of the table, and the verdicts."""
    executed, orders = collections.Counter(), collections.defaultdict(list)
    for line in open(run.journal):
        client, number, attachment, _pid = line.split()
        if number != "fin":
            executed[f"{client} {number}"] += 1
            orders[client, attachment].append(int(number))
    confirmed, carried = set(), collections.Counter()
    for tap in run.taps:
        for tapped in tap.tapped:
            confirmed.update(tapped.messages[: tapped.confirmed])
            carried.update(tapped.messages)
    sent = [f"{client.name} {number}" for client in clients for number in range(client.sent)]
    lost = [message for message in sent if not executed[message]]
    lost_by_library = [message for message in lost if message in confirmed]
    row = {
        "library": run.kind,
        "signal": signal.Signals(run.sig).name + (" + tail" if run.tail else ""),
        "outages": run.done,
        "sent": len(sent),
        "lost by library": len(lost_by_library),
        "lost by Holdline": len(lost) - len(lost_by_library),
        "executed twice": sum(count > 1 for count in executed.values()),
        "carried again": sum(count > 1 for message, count in carried.items()),
        "in doubt": run.proxy.metric("in_doubt_messages_total"),
        "pushes": sum(client.pushes_seen for client in clients),
        "closed": sum(client.closed is not None for client in clients),
    }
    lost_by_us = [message for message in lost if message not in confirmed]
    unordered = [key for key, numbers in orders.items() if any(b - a != 1 for a, b in zip(numbers, numbers[1:]))]
    faults = [f"{client.name}: {fault}" for client in clients for fault in client.faults]
    closed = [f"{client.name}: {client.closed}" for client in clients if client.closed]
    verdicts = [
        ("client sockets stay open", not closed, closed),
        ("all outages happened", run.done == run.outages, run.done),
        ("nothing is lost that the library had not confirmed", not lost_by_us, explain(run, lost_by_us)),
        ("each attachment executes in order, gap-free", not unordered, unordered[:5]),
        ("each client sees whole pushes, in order, gap-free", not faults, faults[:5]),
        ("no error in Holdline's log", not run.proxy.errors(), run.proxy.errors()[:3]),
    ]
    if run.tail:
        verdicts.append(("the replay tail closes the library's gap", not lost, lost[:5]))
    return row, verdicts


def explain(run, lost):
    """Where on the wire the first lost message was seen, to find the bug by."""
    seen = []
    for tap in run.taps:
        for tapped in tap.tapped:
            for at, message in enumerate(tapped.messages):
                if message in lost[:1]:
                    seen.append(
                        f"attachment {tapped.attachment}: place {at} of {len(tapped.messages)}, {tapped.confirmed} confirmed, "
                        f"pings open {len(tapped.pings)}, closed {tapped.closed_with}"
                    )
    return {"first": lost[:3], "count": len(lost), "wire": seen}


async def one(kind, sig, tail, options):
    with tempfile.TemporaryDirectory(prefix="holdline-thirdparty-") as directory:
        run = Run(kind, sig, tail, options.outages, options.holdline, directory)
        try:
            clients = await run.go()
            row, verdicts = judge(run, clients)
        finally:
            code = run.close()
            await asyncio.gather(*(tap.drop() for tap in run.taps))
        verdicts.append(("Holdline stops in good order", code == 0, code))
        for note in sorted(set(run.notes)):
            print(f"     note: {note}")
        return row, verdicts


def table(rows):
    heads = list(rows[0])
    widths = [max(len(str(value)) for value in [head] + [row[head] for row in rows]) for head in heads]
    for values in [heads] + [[row[head] for head in heads] for row in rows]:
        print("  ".join(str(value).ljust(width) for value, width in zip(values, widths)).rstrip())


async def every_way(kind, options):
    """One kind of worker, killed, stopped, and killed with a replay tail: a row and the verdicts of each."""
    results = []
    for sig, tail in [(signal.SIGKILL, False), (signal.SIGTERM, False), (signal.SIGKILL, True)]:
        name = f"{kind}, {signal.Signals(sig).name}{', tail' if tail else ''}"
        try:
            row, verdicts = await one(kind, sig, tail, options)
        except Failure as failure:
            row, verdicts = None, [("the run reaches its end", False, failure)]
        for what, good, detail in verdicts:
            print(f"{'ok  ' if good else 'FAIL'} {name}: {what}" + ("" if good else f": {detail}"), flush=True)
        results.append((row, verdicts))
    return results


async def main():
    parser = argparse.ArgumentParser(description="Other people's WebSocket servers behind Holdline, killed under traffic.")
    parser.add_argument("--holdline", default=str(ROOT / "target/debug/holdline"))
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--outages", type=int, default=20)
    options = parser.parse_args()
    # They mostly wait for workers to start, so the kinds run beside each other.
    every = await asyncio.gather(*(every_way(kind, options) for kind in options.kinds.split(",")))
    results = [result for kind in every for result in kind]
    rows = [row for row, _ in results if row is not None]
    goods = [bool(good) for _, verdicts in results for _, good, _ in verdicts]
    if rows:
        table(rows)
    passed, failed = goods.count(True), goods.count(False)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
