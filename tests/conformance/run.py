#!/usr/bin/env python3
"""The Autobahn cases against Holdline: what a peer of ours would notice, beside what it would notice without us.

Four runs of every case but 12.* and 13.* (compression, which tungstenite does not speak):
  direct   the suite's client against the demo worker's echo endpoint (tokio-tungstenite), nothing in between
  proxied  the same through Holdline: no case may be worse than direct
  killed   the same through Holdline while a worker is killed every 200 ms: every case passes or closes cleanly
  backend  the suite's server behind Holdline, a tokio-tungstenite client before it, compared with the client alone
And of every case of 12.* and 13.*, with Node's `ws` as the worker, which compresses:
  compressed         through Holdline: no case may be worse than directly
  compressed-killed  the same while a worker is killed every 200 ms: every case passes or closes cleanly
Each of these echoes a thousand messages one after the other, half an hour for all of them; unless --messages says otherwise,
it is twenty.
The last line is `N passed, N failed`; the exit is 1 when a case got worse.
"""

import argparse
import asyncio
import collections
import pathlib
import random
import sys
import tempfile

from kosoku import FailureError, _caseindex, run_fuzzingserver

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from autobahn_cases import COMPRESSED, say_less, suite  # noqa: E402
from serving import BINARY, ROOT, Holdline, Verdict, listening  # noqa: E402

EXCLUDED = ["12.*", "13.*"]
WORKERS = 3
KILL_EVERY_SECONDS = 0.2
CONFIG = """
[server]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
[log]
format = "json"
[message]
max_bytes = "32MiB"
[[routes]]
name = "echo"
path = "/ws/{*path}"
pool = "default"
[[routes]]
name = "cases"
path = "/{*path}"
pool = "cases"
on_backend_loss = "close"
[[pools]]
name = "default"
[[pools]]
name = "cases"
"""


async def start_worker(binary):
    return await listening(binary, "worker", "--until-stdin-closes", stdin=asyncio.subprocess.PIPE)


def let_the_client_ping():
    """The cases expect no pings from a client and take any for the end of the case; ours legally ask after each worker."""
    _caseindex.initialize_shims()
    import case

    case.Case.onPing = lambda self, payload: None


async def suite_as_server(client, cases, before=None):
    async with run_fuzzingserver(cases, EXCLUDED, port=0) as server:
        address = f"{server.address}:{server.port}"
        if before is not None:
            await before.register(address, "cases")
            address = before.address["public"]
        run = await asyncio.create_subprocess_exec(client, f"ws://{address}", "tungstenite")
        await run.wait()
        try:
            results = await asyncio.wait_for(server.get_result(), 30)
        except FailureError as failure:
            results = failure.results
    return {result.case_id: result for result in results}


class Killer:
    """Kills a worker every 200 ms and brings up another one."""

    def __init__(self, start, holdline):
        self.start, self.holdline = start, holdline
        self.workers, self.kills = [], 0

    async def add(self):
        process, address = await self.start()
        self.workers.append((process, await self.holdline.register(address)))

    async def run(self):
        while True:
            # The rhythm is the test; who takes longer to start delays it.
            await asyncio.gather(asyncio.sleep(KILL_EVERY_SECONDS), self.add())
            process, identity = self.workers.pop(random.randrange(len(self.workers) - 1))
            process.kill()
            await process.wait()
            await self.holdline.forget(identity)
            self.kills += 1


def describe(result):
    said = f"{result.behavior.value}/{result.behavior_close.value}"
    why = result.result.strip() if not result.passed else ""
    if result.behavior.value == "FAILED":
        why += f" received {short(result.received)}, expected one of {short(result.expected)}"
    return f"{said} {why} {result.result_close.strip()} {result.was_not_clean_reason or ''}".strip()


def short(value):
    text = repr(value)
    return text if len(text) <= 300 else text[:300] + "…"


def closes_cleanly(result):
    """Passed, or its socket ended by a closing handshake and not by our breaking it."""
    return result is None or result.passed or result.was_clean or result.remote_close_code is not None


class CasesVerdict(Verdict):
    def compare(self, name, direct, proxied):
        """One verdict per case; a case that fails without us as well is not ours to judge."""
        own = {case for case, result in direct.items() if not result.passed}
        for case, result in proxied.items():
            if case in own and not result.passed:
                print(f"     {name} {case}: fails without Holdline too ({describe(direct[case])})")
            else:
                self.case(result.passed, f"{name} {case}: {describe(result)}")
        missing = direct.keys() - proxied.keys()
        self.case(not missing and len(direct) > 0, f"{name}: every case has its verdict; missing {sorted(missing)}")
        self.show(name, proxied)

    def clean(self, name, results):
        for case, result in results.items():
            self.case(closes_cleanly(result), f"{name} {case}: {describe(result)}")
        self.show(name, results)

    def show(self, name, results):
        counts = collections.Counter(f"{r.behavior.value}/{r.behavior_close.value}" for r in results.values())
        print(f"{name}: {len(results)} cases: " + ", ".join(f"{n} {what}" for what, n in counts.most_common()), flush=True)


async def outside_in(options, runs, verdict, directory):
    """The suite is the client; the demo worker's echo answers it."""
    worker, address = await start_worker(options.holdline)
    direct = await suite(address, options.case, EXCLUDED, options.parallel)
    verdict.show("direct", direct)
    holdline = await Holdline().start(options.holdline, CONFIG, directory)
    if "proxied" in runs:
        await holdline.register(address)
        proxied = await suite(holdline.address["public"], options.case, EXCLUDED, options.parallel)
        verdict.compare("proxied", direct, proxied)
    worker.kill()
    await worker.wait()
    await holdline.kill(verdict)
    if "killed" in runs:
        await under_fire(options, verdict, directory)


async def under_fire(options, verdict, directory):
    holdline = await Holdline().start(options.holdline, CONFIG, directory)
    cases = suite(holdline.address["public"], options.case, EXCLUDED, options.parallel)
    await while_workers_die("killed", lambda: start_worker(options.holdline), cases, holdline, verdict)
    await holdline.kill(verdict)


async def while_workers_die(name, start, cases, holdline, verdict):
    killer = Killer(start, holdline)
    for _ in range(WORKERS):
        await killer.add()
    killing = asyncio.create_task(killer.run())
    results = await cases
    verdict.case(not killing.done(), f"{name}: the killer was at work until the end")
    killing.cancel()
    verdict.clean(name, results)
    interrupted = await holdline.metric("interruptions_total")
    print(f"{name}: {killer.kills} workers killed, {interrupted} pipes interrupted")
    for process, _ in killer.workers:
        process.kill()


async def inside_out(options, verdict, directory):
    """The suite is the worker; a tokio-tungstenite client comes to it."""
    let_the_client_ping()
    direct = await suite_as_server(options.client, options.case)
    verdict.show("client alone", direct)
    holdline = await Holdline().start(options.holdline, CONFIG, directory)
    verdict.compare("backend", direct, await suite_as_server(options.client, options.case, holdline))
    await holdline.kill(verdict)


async def start_compressing_worker():
    # The suite mistakes a plain text among compressed ones for a failure of its own.
    return await listening("node", ROOT / "tests/compression/ws.mjs", "worker", "always")


async def suite_compressed(address, options):
    return await suite(address, options.case or COMPRESSED, concurrency=options.parallel)


async def compressed(options, runs, verdict, directory):
    """The suite is the client and compresses; a worker on Node's `ws` does too."""
    say_less(options.messages)
    holdline = await Holdline().start(options.holdline, CONFIG, directory)
    if "compressed" in runs:
        worker, address = await start_compressing_worker()
        direct = await suite_compressed(address, options)
        verdict.show("compressed, direct", direct)
        identity = await holdline.register(address)
        verdict.compare("compressed", direct, await suite_compressed(holdline.address["public"], options))
        await holdline.forget(identity)
        worker.kill()
        await worker.wait()
    if "compressed-killed" in runs:
        cases = suite_compressed(holdline.address["public"], options)
        await while_workers_die("compressed-killed", start_compressing_worker, cases, holdline, verdict)
    await holdline.kill(verdict)


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--holdline", default=BINARY)
    parser.add_argument("--client", default=str(ROOT / "target/debug/examples/autobahn_client"))
    parser.add_argument("--case", action="append", help="a case or a glob such as 7.*; all without it")
    parser.add_argument("--runs", default="proxied,killed,backend,compressed,compressed-killed")
    parser.add_argument("--messages", type=int, default=20, help="of each case of 12.* and 13.*; they define 1000")
    parser.add_argument("--parallel", type=int, default=4)
    options = parser.parse_args()
    runs, verdict = options.runs.split(","), CasesVerdict()
    with tempfile.TemporaryDirectory(prefix="holdline-conformance-") as directory:
        if "proxied" in runs or "killed" in runs:
            await outside_in(options, runs, verdict, directory)
        if "backend" in runs:
            await inside_out(options, verdict, directory)
        if {"compressed", "compressed-killed"} & set(runs):
            await compressed(options, runs, verdict, directory)
    return verdict.end()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
