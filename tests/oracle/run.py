#!/usr/bin/env python3
"""Holdline beside haproxy and nginx: the same malformed and odd things to all three, in front of the same worker.

Fails when Holdline answers other than its contract says, or lets something through that one of the others refuses and
that has no reason in `cases.LAXER`. The last line is `N passed, N failed`.
"""

import argparse
import asyncio
import base64
import hashlib
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import cases

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# How long a proxy may keep us waiting; what has not come by then does not come.
PATIENCE_SECONDS = 3
# How long a worker looks whether more comes behind a request, and a client behind an answer.
QUIET_SECONDS = 0.05
NAMES = ["Holdline", "haproxy", "nginx"]

HOLDLINE = """
[server]
listen = ["unix:{directory}/Holdline.sock"]
threads = 1
handshake_timeout = "2s"
response_header_timeout = "2s"
[admin]
listen = "unix:{directory}/admin.sock"
[[pools]]
name = "default"
[[pools.backends]]
id = "recorder"
url = "ws://127.0.0.1:{port}"
"""

HAPROXY = """
defaults
    mode http
    timeout connect 2s
    timeout client 2s
    timeout server 2s
    timeout tunnel 2s
    timeout http-request 2s
frontend front
    bind unix@{directory}/haproxy.sock
    default_backend workers
backend workers
    server recorder 127.0.0.1:{port}
"""

# As nginx's own page on WebSocket proxying has it.
NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    client_header_timeout 2s;
    client_body_timeout 2s;
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        '' close;
    }}
    server {{
        listen unix:{directory}/nginx.sock;
        location / {{
            proxy_pass http://127.0.0.1:{port};
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_read_timeout 2s;
        }}
    }}
}}
"""


class Worker:
    """Records what reaches it, and answers as it is told, or properly."""

    def __init__(self):
        self.seen = []
        self.answer = None

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def serve(self, reader, writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.seen.append(head)
            reply = self.reply(head)
            writer.write(reply)
            await writer.drain()
            # A worker that left its pipe would be replaced, by itself. Elsewhere there may be the rest of a body.
            quiet = PATIENCE_SECONDS if b" 101 " in reply else QUIET_SECONDS
            while await asyncio.wait_for(reader.read(65536), quiet):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a health check, or a peer that has had enough
        except (TimeoutError, asyncio.CancelledError):
            pass  # nothing more comes, or the client is gone
        finally:
            writer.close()

    def reply(self, head):
        key = re.search(rb"(?im)^sec-websocket-key: *(\S+)", head)
        accept = base64.b64encode(hashlib.sha1((key.group(1) if key else b"") + GUID).digest())
        if self.answer is not None:
            return self.answer.replace(b"{accept}", accept)
        if re.search(rb"(?im)^upgrade:", head):
            return cases.switching().replace(b"{accept}", accept)
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class Peer:
    """A proxy, with a worker of its own."""

    def __init__(self, name, directory):
        self.name, self.directory = name, directory

    async def start(self, command, config):
        self.worker = await Worker().start()
        file = self.directory / f"{self.name}.conf"
        file.write_text(config.format(directory=self.directory, port=self.worker.port))
        log = (self.directory / f"{self.name}.out").open("wb")
        command = [str(part).replace("CONFIG", str(file)) for part in command]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        for _ in range(500):
            try:
                _, writer = await asyncio.open_unix_connection(self.socket())
                writer.close()
                return self
            except OSError:
                if self.process.poll() is not None:
                    break
                await asyncio.sleep(0.02)
        raise SystemExit(f"{self.name} did not start:\n{pathlib.Path(log.name).read_text()}")

    def socket(self):
        return str(self.directory / f"{self.name}.sock")

    def stop(self):
        self.process.terminate()
        self.process.wait()

    async def ask(self, data):
        """Everything that comes back for `data`, until the end or until nothing more comes."""
        reader, writer = await asyncio.open_unix_connection(self.socket())
        answer = b""
        try:
            writer.write(data)
            wait = PATIENCE_SECONDS
            while True:
                more = await asyncio.wait_for(reader.read(65536), wait)
                if not more:
                    break
                answer += more
                wait = QUIET_SECONDS if b"\r\n\r\n" in answer else PATIENCE_SECONDS
        except (OSError, TimeoutError):
            pass  # as much as came
        finally:
            writer.close()
        return answer

    async def request(self, case):
        self.worker.seen, self.worker.answer = [], None
        return Outcome(await self.ask(case.bytes), list(self.worker.seen), case.forged, self.worker.seen)

    async def respond(self, case):
        self.worker.seen, self.worker.answer = [], case.head
        data = cases.handshake() if case.asks == "websocket" else cases.plain("", "", "GET /x HTTP/1.1")
        answer = await self.ask(data)
        return Outcome(answer, list(self.worker.seen), case.forged, [answer])


class Outcome:
    """What a proxy made of one case."""

    def __init__(self, answer, seen, forged, where):
        status = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
        self.status = int(status.group(1)) if status else None
        self.reached = bool(seen)
        self.forged = forged is not None and any(forged.encode() in text.lower() for text in where)

    def __str__(self):
        text = str(self.status) if self.status else "closed"
        return ("→ " if self.reached else "") + text + (" forged" if self.forged else "")


def request_passed(outcome):
    """How far a request got: not at all, cleaned, or with what it forged."""
    return outcome.reached + (outcome.reached and outcome.forged)


def answer_passed(outcome):
    """The same for a worker's answer: anything but a 5xx is the worker's."""
    passed = outcome.status is not None and outcome.status < 500
    return passed + (passed and outcome.forged)


class Judge:
    def __init__(self):
        self.passed, self.failures, self.used = 0, [], set()

    def judge(self, table, case, outcomes, how_far):
        ours, others = outcomes[0], outcomes[1:]
        wrong = []
        if case.spec is not None and ours.status != case.spec:
            wrong.append(f"the contract says {case.spec}")
        if ours.forged:
            wrong.append(f"`{case.forged}` came through")
        name = f"{table}: {case.name}"
        if any(how_far(ours) > how_far(other) for other in others):
            self.used.add(name)
            if name not in cases.LAXER:
                wrong.append("laxer than a peer, without a reason")
        if wrong:
            cells = ", ".join(f"{who} {what}" for who, what in zip(NAMES, outcomes))
            self.failures.append(f"{name}: {'; '.join(wrong)} ({cells})")
        else:
            self.passed += 1

    def remark(self, table, case, outcomes, how_far):
        reason = cases.LAXER.get(f"{table}: {case.name}")
        if reason:
            return f"laxer: {reason}"
        if all(how_far(outcomes[0]) < how_far(other) for other in outcomes[1:]):
            return "stricter than both"
        if any(how_far(outcomes[0]) < how_far(other) for other in outcomes[1:]):
            return "stricter than one"
        return ""


def versions(haproxy, nginx):
    said = subprocess.run([haproxy, "-v"], capture_output=True, text=True, check=True).stdout
    also = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr
    return re.search(r"version ([\d.]+)", said).group(1), re.search(r"nginx/([\d.]+)", also).group(1)


def find(program):
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    return found or sys.exit(f"oracle: {program} is missing; scripts/setup-tests installs it")


async def run(options, directory):
    haproxy, nginx = find("haproxy"), find("nginx")
    commands = [
        ([options.holdline, "serve", "-c", "CONFIG"], HOLDLINE),
        ([haproxy, "-db", "-f", "CONFIG"], HAPROXY),
        ([nginx, "-p", directory, "-c", "CONFIG"], NGINX),
    ]
    peers = [Peer(name, directory) for name in NAMES]
    judge, tables = Judge(), []
    try:
        for peer, (command, config) in zip(peers, commands):
            await peer.start(command, config)
        for table, items, ask, how_far in [
            ("handshake", cases.HANDSHAKES, Peer.request, request_passed),
            ("plain", cases.PLAIN, Peer.request, request_passed),
            ("answer", cases.ANSWERS, Peer.respond, answer_passed),
        ]:
            rows = []
            for case in items:
                outcomes = await asyncio.gather(*(ask(peer, case) for peer in peers))
                judge.judge(table, case, outcomes, how_far)
                rows.append([case.name, *map(str, outcomes), judge.remark(table, case, outcomes, how_far)])
            tables.append((table, rows))
    finally:
        for peer in peers:
            if hasattr(peer, "process"):
                peer.stop()
    judge.failures += [f"{name}: no longer laxer; remove its reason" for name in cases.LAXER.keys() - judge.used]
    return judge, tables, versions(haproxy, nginx)


def show(tables, seen_versions, markdown):
    titles = {"handshake": "a handshake", "plain": "a plain request", "answer": "a worker's answer to us"}
    header = ["Holdline", f"haproxy {seen_versions[0]}", f"nginx {seen_versions[1]}", ""]
    for table, rows in tables:
        rows = [[titles[table], *header]] + rows
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        for number, row in enumerate(rows):
            if markdown:
                print("| " + " | ".join(row).rstrip() + " |")
                if number == 0:
                    print("|---" * 5 + "|")
            else:
                print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
        print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--holdline", default="target/debug/holdline", help="the program under test")
    parser.add_argument("--markdown", action="store_true", help="tables for docs/testing.md")
    parser.add_argument("--quiet", action="store_true", help="failures only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="holdline-oracle-") as directory:
        judge, tables, seen_versions = asyncio.run(run(options, pathlib.Path(directory)))
    if not options.quiet:
        show(tables, seen_versions, options.markdown)
    for failure in judge.failures:
        print(f"FAIL  {failure}")
    print(f"{judge.passed} passed, {len(judge.failures)} failed")
    sys.exit(1 if judge.failures else 0)


if __name__ == "__main__":
    main()
