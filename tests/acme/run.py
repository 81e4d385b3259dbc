#!/usr/bin/env python3
"""certbot and lego have certificates renewed through a running Holdline, by the challenge over HTTP.

The authority is pebble, with a name server of its own that sends each name to this machine. For each of the two clients:
  - a first certificate is issued, with the challenge answered from the client's webroot by Holdline's plain listener;
  - the configuration names it, and a reload shows it;
  - it is renewed, and Holdline shows the new one by itself, while a conversation over TLS goes on.
The last line is `N passed, N failed`.

Run it as: .cache/py/bin/python tests/acme/run.py [--holdline PATH]
"""

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import socket
import sys
import tempfile

from websockets.asyncio.client import connect

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from patience import until  # noqa: E402
from secured import first_of, make_certificate, pair, shown, unsuspecting  # noqa: E402
from serving import BINARY, ROOT, Holdline, Verdict, listening  # noqa: E402

TOOLS = {
    "pebble": ROOT / ".cache/acme/usr/bin/pebble",
    "pebble-challtestsrv": ROOT / ".cache/acme/usr/bin/pebble-challtestsrv",
    "lego": ROOT / ".cache/acme/usr/bin/lego",
    "certbot": ROOT / ".cache/acme/py/bin/certbot",
}
NAMES = {"certbot": "one.example.test", "lego": "two.example.test"}
PATIENCE_SECONDS = 60
CONFIG = """
[server]
listen = ["127.0.0.1:0"]
tls.listen = ["127.0.0.1:0"]
tls.certificates = [{certificates}]
tls.acme_challenges = "{webroot}/.well-known/acme-challenge"
tls.reload_interval = "200ms"
[admin]
listen = "127.0.0.1:0"
[log]
format = "json"
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Authority:
    """pebble, which asks the port `challenged` of each name."""

    def __init__(self, home, challenged):
        self.home, self.challenged, self.processes = home, challenged, []

    async def __aenter__(self):
        names, port, management = free_port(), free_port(), free_port()
        self.cert, key = make_certificate(self.home, "pebble", "IP:127.0.0.1")
        config = {"pebble": {
            "listenAddress": f"127.0.0.1:{port}", "managementListenAddress": f"127.0.0.1:{management}",
            "certificate": str(self.cert), "privateKey": str(key), "httpPort": self.challenged, "tlsPort": free_port(),
        }}
        (self.home / "pebble.json").write_text(json.dumps(config))
        await self.run(
            "pebble-challtestsrv", "-dns01", f"127.0.0.1:{names}", "-management", f"127.0.0.1:{free_port()}",
            "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", "",
        )
        await self.run("pebble", "-config", self.home / "pebble.json", "-dnsserver", f"127.0.0.1:{names}")
        self.directory = f"https://127.0.0.1:{port}/dir"

        async def answers():
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return True

        await until("pebble listens", answers, PATIENCE_SECONDS)
        return self

    async def run(self, tool, *arguments):
        # Each challenge is asked for anew, and without delay.
        env = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
        with open(self.home / f"{tool}.log", "wb") as log:
            process = await asyncio.create_subprocess_exec(TOOLS[tool], *arguments, stdout=log, stderr=log, env=env)
        self.processes.append(process)

    async def __aexit__(self, *_):
        for process in self.processes:
            process.kill()
            await process.wait()


class Certbot:
    def __init__(self, home, webroot, authority):
        self.name, own = NAMES["certbot"], home / "certbot"
        live = own / "config/live" / self.name
        self.pair = live / "fullchain.pem", live / "privkey.pem"
        self.env = {**os.environ, "REQUESTS_CA_BUNDLE": str(authority.cert)}
        self.common = [
            TOOLS["certbot"], "--config-dir", own / "config", "--work-dir", own / "work", "--logs-dir", own / "logs",
            "--server", authority.directory, "--non-interactive",
        ]
        self.first = ["certonly", "--webroot", "-w", webroot, "-d", self.name, "--agree-tos",
                      "--register-unsafely-without-email"]
        self.again = ["renew", "--force-renewal", "--no-random-sleep-on-renew"]


class Lego:
    def __init__(self, home, webroot, authority):
        self.name, own = NAMES["lego"], home / "lego"
        made = own / "certificates"
        self.pair = made / f"{self.name}.crt", made / f"{self.name}.key"
        self.env = {**os.environ, "LEGO_CA_CERTIFICATES": str(authority.cert)}
        self.common = [
            TOOLS["lego"], "--server", authority.directory, "--path", own, "--email", "a@example.test", "--accept-tos",
            "--domains", self.name, "--http", "--http.webroot", webroot,
        ]
        self.first = ["run"]
        self.again = ["renew", "--days", "10000", "--no-random-sleep"]


async def done(client, arguments):
    """Whether a command of an ACME client ended well, and what it said."""
    process = await asyncio.create_subprocess_exec(
        *client.common, *arguments, env=client.env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    return process.returncode == 0, said.decode(errors="replace")[-2000:]


async def shows(holdline, client):
    """Waits until new clients are shown what the ACME client has written."""
    wanted = first_of(client.pair[0])

    async def look():
        return await shown(holdline.address["tls"], client.name, unsuspecting()) == wanted

    await until(f"{client.name}: the certificate that is on disk is shown", look, PATIENCE_SECONDS)
    return wanted


async def renews(kind, client, holdline, config, verdict):
    good, said = await done(client, client.first)
    verdict.told(good, f"{kind}: a first certificate is issued" + ("" if good else f": {said}"))
    if not good:
        return
    holdline.file.write_text(config(pair(*client.pair)))
    await holdline.call("POST", "/v1/config/reload", {})
    before = await shows(holdline, client)
    url = f"wss://{holdline.address['tls']}/ws/s1/echo"
    async with connect(url, ssl=unsuspecting(), server_hostname=client.name) as conversation:
        await conversation.send("before")
        verdict.case(await conversation.recv() == "before", f"{kind}: an echo")
        good, said = await done(client, client.again)
        verdict.told(good, f"{kind}: it is renewed" + ("" if good else f": {said}"))
        after = await shows(holdline, client)
        verdict.told(before != after, f"{kind}: the new certificate is shown, without a signal or a hook")
        await conversation.send("after")
        verdict.told(await conversation.recv() == "after", f"{kind}: the conversation went on")


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--holdline", default=BINARY)
    options = parser.parse_args()
    missing = [name for name, path in TOOLS.items() if not os.access(path, os.X_OK)]
    if missing:
        print(f"acme: missing {', '.join(missing)}; scripts/setup-tests installs them", file=sys.stderr)
        return 1
    verdict = Verdict()
    with tempfile.TemporaryDirectory(prefix="holdline-acme-") as directory:
        home = pathlib.Path(directory)
        webroot = home / "webroot"
        (webroot / ".well-known/acme-challenge").mkdir(parents=True)
        stand_in = pair(*make_certificate(home, "stand-in", "DNS:stand-in.test"))

        def config(*pairs):
            return CONFIG.format(certificates=", ".join([*pairs, stand_in]), webroot=webroot)

        holdline = await Holdline().start(options.holdline, config(), directory, listeners=3)
        worker, address = await listening(options.holdline, "worker", "--until-stdin-closes", stdin=asyncio.subprocess.PIPE)
        await holdline.register(address)
        challenged = int(holdline.address["public"].rsplit(":", 1)[1])
        async with Authority(home, challenged) as authority:
            clients = {"certbot": Certbot(home, webroot, authority), "lego": Lego(home, webroot, authority)}
            for kind, client in clients.items():
                await renews(kind, client, holdline, config, verdict)
        worker.kill()
        await worker.wait()
        await holdline.kill(verdict)
    return verdict.end()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
