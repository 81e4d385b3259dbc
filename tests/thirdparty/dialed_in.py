#!/usr/bin/env python3
"""Workers of other people's making behind `holdline agent`, under 200 clients with traffic.

  uvicorn  FastAPI on a port: its agents are drained and started anew, in turn
  ws       Node `ws`: the same
  kill     Node `ws`: its agents are killed without a word, in turn, with messages on their way
  camera   FastAPI that answers long polls: 200 at once, with and without its password, and an upload

Under a drain every message has to be executed once and in order, and acknowledged once; under a kill none may be lost, and only
what Holdline counts as in doubt may come twice. No client's socket may close. The last line is `N passed, N failed`; the exit is 1
when anything failed.

Run it as: .cache/py/bin/python tests/thirdparty/dialed_in.py [--rounds 10] [--only uvicorn]
"""

import argparse
import asyncio
import base64
import collections
import json
import os
import pathlib
import signal
import socket
import sys
import tempfile
import time

from rolling import CLIENTS, Client, judge
from run import HERE, PATIENCE_SECONDS, PYTHON, ROOT, Failure, Proxy

WORKERS = 2
POLLS = 200
UPLOAD_BYTES = 8_000_000
PARTS = ("uvicorn", "ws", "kill", "camera")
CONFIG = """[limits]
key_connections = 0
key_rate = 0
[attach]
listen = ["127.0.0.1:0"]
[[pools]]
name = "default"
"""


class DialedIn:
    """The proxy, two workers, and an agent before each."""

    def __init__(self, options, part, directory):
        self.options, self.part, self.directory = options, part, pathlib.Path(directory)
        self.journal = self.directory / "journal"
        self.journal.touch()
        self.log = open(self.directory / "others.log", "w")
        self.proxy = Proxy(options.holdline, directory, False, CONFIG)
        self.workers, self.agents = {}, {}

    async def call(self, method, path, body=None):
        return json.loads(await asyncio.to_thread(self.proxy.call, method, path, body))

    async def start(self, number):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        env = dict(os.environ, JOURNAL=str(self.journal), WORK_MS="20", NODE_MODULES_OF=str(ROOT / ".cache/node") + "/")
        if self.part in ("ws", "kill"):
            command = ["node", str(HERE / "ws_worker.mjs"), str(self.journal), str(port)]
        else:
            app = "nat_camera_app:app" if self.part == "camera" else "supervised_app:app"
            command = [PYTHON, "-m", "uvicorn", app, "--app-dir", str(HERE), "--log-level", "warning"]
            command += ["--port", str(port), "--ws-per-message-deflate", "false"]
        streams = {"stdout": self.log, "stderr": self.log}
        self.workers[number] = await asyncio.create_subprocess_exec(*command, env=env, **streams), port

    async def dial_in(self, number):
        """A new agent before worker `number`, once it is eligible."""
        command = [self.options.holdline, "agent", "--to", f"http://{self.proxy.address['attach']}"]
        command += ["--forward", f"127.0.0.1:{self.workers[number][1]}", "--id", f"w{number}"]
        self.agents[number] = await asyncio.create_subprocess_exec(*command, stderr=self.log)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            listed = (await self.call("GET", "/v1/backends"))["items"]
            if any(it["id"] == f"w{number}" and it["eligible"] and it["parked"] >= 8 for it in listed):
                return
            await asyncio.sleep(0.05)  # until the list changes
        raise Failure(f"w{number} does not dial in: {listed}")

    async def end(self, number):
        agent = self.agents[number]
        agent.send_signal(signal.SIGKILL if self.part == "kill" else signal.SIGTERM)
        code = await asyncio.wait_for(agent.wait(), 2 * PATIENCE_SECONDS)
        if self.part != "kill" and code != 0:
            raise Failure(f"an agent that was drained ended with {code}")

    async def rounds(self):
        for _ in range(self.options.rounds):
            for number in range(WORKERS):
                await self.end(number)
                await self.dial_in(number)

    def stop(self):
        for process in [*self.agents.values(), *(worker for worker, _ in self.workers.values())]:
            if process.returncode is None:
                process.kill()
        return self.proxy.stop()


async def talk(dialed_in):
    clients = [Client(f"c{number}") for number in range(CLIENTS)]
    url = f"ws://{dialed_in.proxy.address['public']}/ws/"
    quit_sending, talks = asyncio.Event(), []
    try:
        for client in clients:
            connected = asyncio.Event()
            talks.append(asyncio.create_task(client.talk(url, connected, quit_sending)))
            await asyncio.wait_for(connected.wait(), PATIENCE_SECONDS)
        await dialed_in.rounds()
    finally:
        quit_sending.set()
        await asyncio.gather(*talks)
    return clients


def judge_kills(dialed_in, clients):
    """Nothing is lost, and what comes twice was in doubt."""
    executed = collections.Counter()
    for line in open(dialed_in.journal):
        client, number, _attachment, _pid = line.split()
        executed[client, int(number)] += 1
    lost = [(client.name, n) for client in clients for n in range(client.sent) if not executed[client.name, n]]
    doubled = sum(count - 1 for count in executed.values())
    in_doubt, counted = (dialed_in.proxy.metric(f"{name}_messages_total") for name in ("in_doubt", "lost"))
    closed = [f"{client.name}: {client.closed}" for client in clients if client.closed]
    print(f"{sum(executed.values())} executed, {doubled} twice, {in_doubt} were in doubt")
    return [
        ("no client's socket closes", not closed, closed[:5]),
        ("no message is lost", not lost and not counted, (len(lost), lost[:5], counted)),
        ("what is executed twice was in doubt", doubled <= in_doubt, (doubled, in_doubt)),
        ("no error in Holdline's log", not dialed_in.proxy.errors(), dialed_in.proxy.errors()[:3]),
    ]


async def ask(address, request):
    """The status and the body of an answer."""
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(-1), PATIENCE_SECONDS)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


async def camera(dialed_in):
    address = dialed_in.proxy.address["public"]
    password = base64.b64encode(b"viewer:secret").decode()
    end = "Host: camera\r\nConnection: close\r\n"
    polls = [
        ask(address, f"GET /cam/c{n}/next HTTP/1.1\r\nAuthorization: Basic {password}\r\n{end}\r\n".encode())
        for n in range(POLLS)
    ]
    began = time.monotonic()
    answers = await asyncio.gather(*polls)
    seconds = time.monotonic() - began
    good = [body for status, body in answers if status == 200 and body.startswith(b"\xff\xd8") and body.endswith(b"\xff\xd9")]
    stranger, _ = await ask(address, f"GET /cam/c0/next HTTP/1.1\r\n{end}\r\n".encode())
    head = f"POST /cam/c0/firmware HTTP/1.1\r\nContent-Length: {UPLOAD_BYTES}\r\n{end}\r\n".encode()
    uploaded, told = await ask(address, head + bytes(UPLOAD_BYTES))
    parked = (await dialed_in.call("GET", "/v1/backends"))["items"]
    print(f"{POLLS} polls in {seconds:.1f} s, parked now: {[it['parked'] for it in parked]}")
    return [
        ("every poll is answered with a picture", len(good) == POLLS, len(good)),
        ("a stranger is asked for a password", stranger == 401, stranger),
        ("an upload arrives whole", uploaded == 200 and json.loads(told)["bytes"] == UPLOAD_BYTES, (uploaded, told[:200])),
        ("no error in Holdline's log", not dialed_in.proxy.errors(), dialed_in.proxy.errors()[:3]),
    ]


async def run(options, part):
    with tempfile.TemporaryDirectory(prefix="holdline-dial-in-") as directory:
        dialed_in = DialedIn(options, part, directory)
        try:
            for number in range(WORKERS):
                await dialed_in.start(number)
                await dialed_in.dial_in(number)
            if part == "camera":
                verdicts = await camera(dialed_in)
            else:
                clients = await talk(dialed_in)
                verdicts = (judge_kills if part == "kill" else judge)(dialed_in, clients)
        except (Failure, TimeoutError) as failure:
            others = (pathlib.Path(directory) / "others.log").read_text()[-2000:]
            verdicts = [("the run reaches its end", False, f"{failure!r} {others}")]
        finally:
            code = dialed_in.stop()
        return [*verdicts, ("Holdline stops in good order", code == 0, code)]


async def main():
    parser = argparse.ArgumentParser(description="Workers behind agents that dial in, under 200 clients.")
    parser.add_argument("--holdline", default=str(ROOT / "target/debug/holdline"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", choices=PARTS, action="append")
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
