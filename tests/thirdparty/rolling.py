#!/usr/bin/env python3
"""A rolling restart of four FastAPI workers under uvicorn, under 200 clients with traffic (PX-03).

Each worker is drained, waited for, stopped with SIGTERM, and replaced by a new process. Every message has to be executed
once, in order, and acknowledged once; no client's socket may close. The last line is `N passed, N failed`; the exit is 1
when anything failed.

Run it as: .cache/py/bin/python tests/thirdparty/rolling.py [--holdline PATH] [--kind fastapi|fastapi-wsproto]
"""

import argparse
import asyncio
import collections
import json
import pathlib
import random
import signal
import sys
import tempfile

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from run import HERE, PATIENCE_SECONDS, PYTHON, ROOT, Failure, Proxy

KINDS = {"fastapi": "auto", "fastapi-wsproto": "wsproto"}
WORKERS = 4
CLIENTS = 200
WORK_MS = "40"
PUSH_MS = "2000"
# Each client's own rhythm: a burst, then a pause.
BURST = 3
PAUSE_SECONDS = (0.6, 1.4)


class Client:
    """Sends numbered messages and checks that each is acknowledged once and in order, and no push is missing."""

    def __init__(self, name):
        self.name = name
        self.sent = self.acknowledged = self.pushes_seen = 0
        self.pushes, self.faults = {}, []
        self.closed = None
        self.changed = asyncio.Event()

    async def talk(self, url, connected, quit_sending):
        async with connect(url + self.name, compression=None, ping_interval=None, open_timeout=PATIENCE_SECONDS) as socket:
            connected.set()
            reading = asyncio.create_task(self.read(socket))
            try:
                while not quit_sending.is_set():
                    for _ in range(BURST):
                        await socket.send(f"{self.name} {self.sent}")
                        self.sent += 1
                    await asyncio.sleep(random.uniform(*PAUSE_SECONDS))  # the traffic's own rhythm
                await asyncio.wait_for(self.answered(), PATIENCE_SECONDS)
            except ConnectionClosed as closed:
                self.closed = str(closed)
            except TimeoutError:
                self.faults.append(f"{self.acknowledged} of {self.sent} were acknowledged")
            finally:
                reading.cancel()

    async def answered(self):
        while self.acknowledged < self.sent:
            self.changed.clear()
            await self.changed.wait()

    async def read(self, socket):
        try:
            async for message in socket:
                self.see(message)
        except ConnectionClosed as closed:
            self.closed = str(closed)

    def see(self, message):
        if isinstance(message, str):
            if message != f"ack {self.name} {self.acknowledged}":
                self.faults.append(f"{message!r} came as answer {self.acknowledged}")
            self.acknowledged += 1
            self.changed.set()
            return
        _, attachment, number, _, _ = message.split(b" ", 4)
        attachment, number = int(attachment), int(number)
        if attachment < max(self.pushes, default=0):
            self.faults.append(f"a push of attachment {attachment} came after a newer attachment's")
        if number != self.pushes.get(attachment, -1) + 1:
            self.faults.append(f"push {number} of attachment {attachment} came after {self.pushes.get(attachment, -1)}")
        self.pushes[attachment] = number
        self.pushes_seen += 1


class Restarts:
    """Four workers and the proxy in front of them."""

    def __init__(self, options, directory):
        self.proxy = Proxy(options.holdline, directory, False)
        self.ws = KINDS[options.kind]
        self.journal = pathlib.Path(directory) / "journal"
        self.worker_log = open(pathlib.Path(directory) / "workers.log", "w")
        self.processes = {}

    async def call(self, method, path, body=None):
        return json.loads(await asyncio.to_thread(self.proxy.call, method, path, body))

    async def start(self):
        """A new process, and where it listens."""
        command = [PYTHON, str(HERE / "fastapi_worker.py"), str(self.journal), WORK_MS, self.ws, PUSH_MS]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=self.worker_log
        )
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_SECONDS)
        if not line:
            raise Failure(f"a worker did not start: {pathlib.Path(self.worker_log.name).read_text()}")
        return process, json.loads(line)["listening"]

    async def register(self, number, process, address):
        self.processes[number] = process
        await self.call("PUT", f"/v1/backends/w{number}", {"url": f"ws://{address}", "state": "ready"})

    async def restart(self, number):
        replacement = asyncio.create_task(self.start())
        await self.call("PUT", f"/v1/backends/w{number}/state", {"state": "drain"})
        await asyncio.wait_for(self.empty(number), PATIENCE_SECONDS)
        old = self.processes[number]
        old.send_signal(signal.SIGTERM)
        await asyncio.wait_for(old.wait(), PATIENCE_SECONDS)
        await self.register(number, *await replacement)

    async def empty(self, number):
        while True:
            listed = await self.call("GET", "/v1/backends")
            pipes = next(item["pipes"] for item in listed["items"] if item["id"] == f"w{number}")
            if pipes == 0:
                return
            # until the list changes
            await asyncio.sleep(0.02)

    def stop(self):
        for process in self.processes.values():
            process.kill()
        return self.proxy.stop()


def judge(restarts, clients):
    """The verdicts, and the numbers for people."""
    executed = collections.defaultdict(list)
    for line in open(restarts.journal):
        client, number, attachment, _pid = line.split()
        executed[client].append((int(attachment), int(number)))
    wrong = [
        f"{client.name}: {sorted(executed[client.name])[:3]}… {len(executed[client.name])} of {client.sent}"
        for client in clients
        # An attachment's own order is the file's, and sorting keeps it.
        if [number for _, number in sorted(executed[client.name], key=lambda entry: entry[0])] != list(range(client.sent))
    ]
    counters = {name: restarts.proxy.metric(name) for name in ("in_doubt_messages_total", "lost_messages_total")}
    faults = [f"{client.name}: {fault}" for client in clients for fault in client.faults]
    closed = [f"{client.name}: {client.closed}" for client in clients if client.closed]
    moved = restarts.proxy.metric("moves_total")
    print(
        f"{sum(client.sent for client in clients)} messages, {sum(client.pushes_seen for client in clients)} pushes, "
        f"{moved} moves of {len(clients)} pipes over {WORKERS} restarts"
    )
    return [
        ("no client's socket closes", not closed, closed[:5]),
        ("every pipe has moved", moved >= CLIENTS, moved),
        ("each message is executed once and in order", not wrong, wrong[:5]),
        ("each is answered once and in order, and no push is missing", not faults, (len(faults), faults[:5])),
        ("Holdline counts nothing as lost or in doubt", not any(counters.values()), counters),
        ("no error in Holdline's log", not restarts.proxy.errors(), restarts.proxy.errors()[:3]),
    ]


async def go(restarts):
    started = await asyncio.gather(*(restarts.start() for _ in range(WORKERS)))
    for number, (process, address) in enumerate(started):
        await restarts.register(number, process, address)
    clients = [Client(f"c{number}") for number in range(CLIENTS)]
    url = f"ws://{restarts.proxy.address['public']}/ws/"
    quit_sending, talks = asyncio.Event(), []
    try:
        for client in clients:
            connected = asyncio.Event()
            talks.append(asyncio.create_task(client.talk(url, connected, quit_sending)))
            await asyncio.wait_for(connected.wait(), PATIENCE_SECONDS)
        for number in range(WORKERS):
            await restarts.restart(number)
    finally:
        quit_sending.set()
        await asyncio.gather(*talks)
    return clients


async def main():
    parser = argparse.ArgumentParser(description="A rolling restart of uvicorn workers under 200 clients.")
    parser.add_argument("--holdline", default=str(ROOT / "target/debug/holdline"))
    parser.add_argument("--kind", choices=KINDS, default="fastapi")
    options = parser.parse_args()
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="holdline-rolling-") as directory:
        restarts = Restarts(options, directory)
        try:
            verdicts = judge(restarts, await go(restarts))
        except (Failure, TimeoutError) as failure:
            verdicts = [("the run reaches its end", False, repr(failure))]
        finally:
            code = restarts.stop()
        verdicts.append(("Holdline stops in good order", code == 0, code))
    for what, good, detail in verdicts:
        passed, failed = passed + bool(good), failed + (not good)
        print(f"{'ok  ' if good else 'FAIL'} {what}" + ("" if good else f": {detail}"), flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
