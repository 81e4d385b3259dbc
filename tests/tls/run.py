#!/usr/bin/env python3
"""TLS of Holdline under what a public listener meets: a flood of handshakes, and certificates that change all the time.

  flood  10,000 clients begin their handshakes at once; each has its session in the end, those who have conversed before
         notice nothing, and the next flood needs no more memory
  swap   1,000 conversations by TLS, while the certificate is swapped every 200 ms and every tenth set is broken: none ends,
         and each new handshake is shown a certificate with its own key
The last line is `N passed, N failed`.

Run it as: .cache/py/bin/python tests/tls/run.py [--holdline PATH] [--runs flood,swap] [--seconds 60] [--pipes 1000]
"""

import argparse
import asyncio
import pathlib
import sys
import tempfile
import time

from websockets.asyncio.client import connect

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from patience import until  # noqa: E402
from secured import first_of, make_certificate, pair, shown, unsuspecting  # noqa: E402
from serving import BINARY, Holdline, Verdict, listening  # noqa: E402

NAME = "example.test"
SWAP_EVERY_SECONDS = 0.2
SPEAK_EVERY_SECONDS = 0.5
LOOK_EVERY_SECONDS = 0.05
OPENED_AT_ONCE = 50
PATIENCE_SECONDS = 300
# The flood that follows the first one, and what it may add for each of its clients, in KiB. What the first one leaves is
# the allocator's.
NEXT_FLOOD = 2000
ADDED_KIB_MAX = 2
CONFIG = """
[server]
listen = ["127.0.0.1:0"]
tls.listen = ["127.0.0.1:0"]
tls.certificates = [{pair}]
tls.reload_interval = "50ms"
handshake_timeout = "10m"
[admin]
listen = "127.0.0.1:0"
[log]
format = "json"
"""


class Stage:
    """Holdline with an echo worker, and certificates to show in turn."""

    def __init__(self, options, directory):
        self.options, self.home = options, pathlib.Path(directory)

    async def __aenter__(self):
        self.made = [make_certificate(self.home, f"made-{at}", f"DNS:{NAME}") for at in range(5)]
        self.cert, self.key = self.home / "own.pem", self.home / "own.key"
        self.put(0, 0)
        config = CONFIG.format(pair=pair(self.cert, self.key))
        self.holdline = await Holdline().start(self.options.holdline, config, self.home, listeners=3)
        self.worker, address = await listening(
            self.options.holdline, "worker", "--until-stdin-closes", stdin=asyncio.subprocess.PIPE
        )
        await self.holdline.register(address)
        return self

    async def __aexit__(self, *_):
        self.worker.kill()
        await self.worker.wait()

    def put(self, cert, key):
        """Writes one certificate and one key over those in force, as who renews them would."""
        for file, number, part in ((self.cert, cert, 0), (self.key, key, 1)):
            file.write_text(self.made[number % len(self.made)][part].read_text())
            file.chmod(0o600)

    def converse(self):
        return connect(
            f"wss://{self.holdline.address['tls']}/ws/s1/echo", ssl=unsuspecting(), server_hostname=NAME,
            compression=None, ping_interval=None, open_timeout=PATIENCE_SECONDS,
        )

    def resident_kib(self):
        status = pathlib.Path(f"/proc/{self.holdline.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])


async def echoes(socket, number):
    await socket.send(f"{number}")
    return await socket.recv() == f"{number}"


async def flood(stage, verdict):
    conversations = [await stage.converse() for _ in range(10)]
    await handshakes(stage, stage.options.handshakes, conversations, verdict)
    before = stage.resident_kib()
    await handshakes(stage, NEXT_FLOOD, conversations, verdict)
    added = (stage.resident_kib() - before) / NEXT_FLOOD
    verdict.told(added < ADDED_KIB_MAX, f"the next flood adds {added:.2f} KiB for each handshake to the process")
    for socket in conversations:
        await socket.close()


async def handshakes(stage, count, conversations, verdict):
    """So many at once, while conversations go on."""
    tls, context = stage.holdline.address["tls"], unsuspecting()
    full_before = await stage.holdline.metric("tls_handshakes_total", 'result="full"')
    began = time.monotonic()

    async def one():
        try:
            return await shown(tls, NAME, context)
        except (OSError, asyncio.TimeoutError) as error:
            return repr(error)

    clients = asyncio.gather(*(one() for _ in range(count)))
    rounds = 0
    while not clients.done():
        for socket in conversations:
            verdict.case(await echoes(socket, rounds), "an echo amid the flood")
        rounds += 1
    seen = await clients
    took = time.monotonic() - began
    good = sum(it == first_of(stage.cert) for it in seen)
    wrong = next((it for it in seen if isinstance(it, str)), "")
    verdict.told(good == count, f"{good} of {count} handshakes at once came to an end in {took:.1f} s {wrong}")
    # Some clients go before what was counted of them is told.
    full = await stage.holdline.metric("tls_handshakes_total", 'result="full"') - full_before
    verdict.told(full == count, f"{full} are counted as full")
    verdict.told(rounds > 0, f"{rounds} rounds of echoes meanwhile")

    async def alone():
        return await stage.holdline.metric("connections", 'listener="public"') == len(conversations)

    await until("the flood has gone", alone, PATIENCE_SECONDS)


async def opened(stage, count):
    """So many conversations, a few at a time."""
    gate = asyncio.Semaphore(OPENED_AT_ONCE)

    async def one():
        async with gate:
            return await stage.converse()

    return await asyncio.gather(*(one() for _ in range(count)))


async def swap(stage, verdict):
    conversations = await opened(stage, stage.options.pipes)
    known = {first_of(cert) for cert, _ in stage.made}
    until_then = time.monotonic() + stage.options.seconds
    counts = {"echoes": 0, "swaps": 0, "broken sets": 0, "handshakes": 0, "wrong": 0}

    async def speak(socket):
        while time.monotonic() < until_then:
            counts["wrong"] += not await echoes(socket, counts["echoes"])
            counts["echoes"] += 1
            await asyncio.sleep(SPEAK_EVERY_SECONDS)  # a load, not a race

    async def renew():
        while time.monotonic() < until_then:
            await asyncio.sleep(SWAP_EVERY_SECONDS)  # the rhythm is the test
            counts["swaps"] += 1
            broken = counts["swaps"] % 10 == 0
            counts["broken sets"] += broken
            stage.put(counts["swaps"], counts["swaps"] + broken)

    async def arrive():
        context = unsuspecting()
        while time.monotonic() < until_then:
            counts["wrong"] += await shown(stage.holdline.address["tls"], NAME, context) not in known
            counts["handshakes"] += 1
            await asyncio.sleep(LOOK_EVERY_SECONDS)  # a load, not a race

    done = await asyncio.gather(renew(), arrive(), *(speak(it) for it in conversations), return_exceptions=True)
    failed = [repr(it) for it in done if it is not None]
    print(f"swap: {len(conversations)} conversations, " + ", ".join(f"{number} {what}" for what, number in counts.items()))
    verdict.told(not failed and counts["wrong"] == 0, f"no conversation ended, each handshake had its pair {failed[:3]}")
    loaded, refused = [await stage.holdline.metric("tls_reloads_total", f'result="{it}"') for it in ("loaded", "failed")]
    verdict.told(loaded > 1 and refused > 0, f"{loaded} sets were taken, {refused} looks found a broken one")
    pipes = await stage.holdline.metric("pipes", 'state=')
    verdict.told(pipes == len(conversations), f"{pipes} pipes live")
    await asyncio.gather(*(socket.close() for socket in conversations))


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--holdline", default=BINARY)
    parser.add_argument("--runs", default="flood,swap")
    parser.add_argument("--handshakes", type=int, default=10_000)
    parser.add_argument("--pipes", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    verdict = Verdict()
    with tempfile.TemporaryDirectory(prefix="holdline-tls-") as directory:
        async with Stage(options, directory) as stage:
            for name in options.runs.split(","):
                await {"flood": flood, "swap": swap}[name](stage, verdict)
            await stage.holdline.stop(verdict)
    return verdict.end()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
