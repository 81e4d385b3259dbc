#!/usr/bin/env python3
"""Real applications behind Holdline, two workers of a kind, each in normal use, at SIGKILL of the worker in use and at a drain
of it; and at SIGKILL behind a plain TCP forwarder, which is what there is without Holdline.

What counts is the user's conversation: the longest silence from the deed on, what was lost and what came twice, what was heard
that belongs to another conversation, and whether the client noticed. The verdicts: with `conversation = "auto"` no
application is worse off than without Holdline, and one with a profile goes on within a second without noticing.

Run it as: .cache/applications/py/bin/python tests/applications/run.py [--short] [--only NAME,NAME] [--write]
"""

import argparse
import asyncio
import collections
import dataclasses
import pathlib
import shutil
import signal
import sys
import tempfile
import time

from catalogue import APPLICATIONS
from frames import Frames
from rig import ROOT, Failure, Forwarder, Holdline, User, Worker, end_what_is_left
from table import cell, markdown, write
from talk import RHYTHM_SECONDS

WAYS = ("without", "normal", "kill", "drain")
# A conversation that goes on has been heard so often since the deed, over at least so long.
HEARD_ENOUGH, LOOKED_SECONDS = 10, 2.0
# Who has heard nothing for so long sits before a zombie.
ZOMBIE_SECONDS = 20
# Clients wait at random before they connect again, and the machine is busy: so much longer is not worse.
ALIKE_SECONDS = 1.0
PROFILED_SECONDS = 1.0
# What was on its way when a client was told that its conversation is over, which it may know and say again.
ON_ITS_WAY_MAX = 3
# What still comes to a user who has stopped talking.
LATE_SECONDS = 0.7


@dataclasses.dataclass
class Found:
    """What one run showed."""

    silence: float = 0.0
    goes_on: bool = False
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    told: int = 0
    detail: str = ""
    decided: list = dataclasses.field(default_factory=list)
    errors: list = dataclasses.field(default_factory=list)


def short(detail):
    """A verdict's detail on one line."""
    founds = detail if isinstance(detail, tuple) else (detail,)
    shown = [f"{cell(found)} {found.detail}".strip() if isinstance(found, Found) else str(found) for found in founds]
    return "; without Holdline ".join(shown)[:400]


class Run:
    """One application in one way."""

    def __init__(self, application, way, options, directory):
        self.application, self.way, self.options = application, way, options
        self.directory = pathlib.Path(directory) / f"{application.name}-{way}".replace(" ", "_").replace(",", "")
        self.directory.mkdir()
        self.workers = [Worker(name, application.worker, self.directory / name) for name in ("w1", "w2")]
        self.frames = []
        if way == "without":
            self.front = Forwarder(self.workers)
        else:
            route = f'conversation = "{options.conversation}"\n{application.route}'
            self.frames = [Frames(worker, self.directory / "frames.log") for worker in self.workers if options.frames]
            self.front = Holdline(options.holdline, self.frames or self.workers, self.directory, route)
        self.user = None

    async def go(self):
        try:
            await asyncio.gather(*(worker.start() for worker in self.workers))
            await asyncio.gather(*(worker.listening() for worker in self.workers))
            await asyncio.gather(*(frames.start() for frames in self.frames))
            await self.front.ready()
            self.user = User(self.application.user, self.front.port, self.directory)
            await self.user.begin()
            await self.user.hears(HEARD_ENOUGH, 60)
            found = Found(decided=await self.front.decided())
            began = time.time()
            await self.deed()
            await self.watch(time.time())
            self.user.quiet()
            await asyncio.sleep(LATE_SECONDS)  # late answers are not lost
            self.measure(found, began)
            return found
        finally:
            if self.user:
                await self.user.end()
            errors = await self.front.stop() if self.front.port else []
            await asyncio.gather(*(worker.end() for worker in self.workers))
            for frames in self.frames:
                frames.stop()
            end_what_is_left(self.directory)
            if errors:
                print(f"     {self.application.name}, {self.way}: logged {errors[:3]}", flush=True)

    async def deed(self):
        if self.way == "normal":
            return
        victim = await self.front.in_use()
        if self.way == "drain":
            await self.front.drain(victim)
            await self.named(victim).end(signal.SIGTERM)
        else:
            await self.named(victim).end(signal.SIGKILL)
        if victim in self.frames:
            victim.stop()

    def named(self, victim):
        return next(worker for worker in self.workers if worker.name == victim.name)

    async def watch(self, done):
        """Until the conversation goes on, or hangs."""
        while time.time() - max(done, self.user.last()) < ZOMBIE_SECONDS:
            since = [record.at for record in self.user.of("hear") if record.at > done + 0.2]
            if len(since) >= HEARD_ENOUGH and time.time() - since[0] > LOOKED_SECONDS:
                return
            await asyncio.sleep(0.05)  # a conversation is looked at, it does not tell

    def measure(self, found, began):
        heard, said, now = self.user.of("hear"), self.user.of("say"), time.time() - LATE_SECONDS
        before = [record.at for record in heard if record.at <= began]
        after = [record.at for record in heard if record.at > began]
        moments = [*before[-1:], *after]
        found.silence = max([b - a for a, b in zip(moments, moments[1:] + [max(now, moments[-1])])])
        found.goes_on = now - moments[-1] < max(2 * ALIKE_SECONDS, 2)
        times = collections.Counter(record.n for record in heard)
        found.doubled = sum(count - 1 for count in times.values())
        if not self.application.state:
            # What was said first may have come before its own subscription, and what was said last may be on its way.
            settled = [record for record in said if heard[0].at < record.at < now - ALIKE_SECONDS]
            found.lost = sum(1 for record in settled if record.n not in times)
        found.wrong = len(self.user.of("wrong"))
        told = [record for record in self.user.of("told") if record.at > began]
        found.told = len(told)
        first = (self.user.of("wrong") + told)[:1]
        found.detail = "; ".join(dict.fromkeys(record.text for record in first))


def may_be_lost(application, found):
    """Messages that the protocol allows to be lost at an interruption."""
    missed = int(found.silence / RHYTHM_SECONDS) + 1 if application.misses else 0
    on_its_way = ON_ITS_WAY_MAX if found.told else 0
    return max(application.lost_max, missed, on_its_way)


def judge(application, ways):
    """(promise, kept, detail) of one application."""
    baseline = ways.get("without")
    for way, found in ways.items():
        if way == "without":
            continue
        yield f"{way}: the conversation goes on", found.goes_on or (baseline and not baseline.goes_on), found
        yield f"{way}: no error in Holdline's log", not found.errors, found.errors[:3]
        if way == "normal":
            calm = not (found.lost or found.doubled or found.wrong or found.told)
            yield "normal: nothing is lost, doubled or noticed", calm, found
            continue
        if baseline:
            quick = found.silence <= max(baseline.silence + ALIKE_SECONDS, 2 * ALIKE_SECONDS)
            yield f"{way}: no longer silence than without Holdline", quick, (found, baseline)
            whole = found.lost <= max(may_be_lost(application, found), baseline.lost) and found.wrong <= baseline.wrong
            yield f"{way}: no more lost or wrong than without Holdline", whole, (found, baseline)
        yield f"{way}: no more doubled than the protocol allows", found.doubled <= application.doubled_max, found
        if application.profile:
            kinds = [known and (known["profile"] or known["kind"]) for known in found.decided]
            yield f"{way}: it is taken for {application.profile}", set(kinds) == {application.profile}, kinds
            slow = baseline.silence if baseline and application.slow_start else 0
            quick = found.silence <= max(PROFILED_SECONDS, slow)
            unseen = not found.told and quick and found.lost <= may_be_lost(application, found)
            yield f"{way}: {application.profile} goes on within a second, unnoticed", unseen, found


async def every_way(application, options, directory, turns):
    ways, verdicts = {}, []
    for way in options.ways.split(","):
        async with turns["heavy" if application.heavy else "light"]:
            try:
                ways[way] = await asyncio.wait_for(Run(application, way, options, directory).go(), 240)
            except (Failure, OSError, TimeoutError, ValueError) as failure:
                verdicts.append((f"{way}: the run reaches its end", False, repr(failure)))
                continue
        found = ways[way]
        print(f"     {application.name}, {way}: silent {found.silence:.2f} s, goes on {found.goes_on}, lost {found.lost}, "
              f"doubled {found.doubled}, wrong {found.wrong}, told {found.told} ({found.detail}) {found.decided}", flush=True)
    verdicts += judge(application, ways)
    for promise, kept, detail in verdicts:
        if not kept:
            print(f"FAIL {application.name}, {promise}: {short(detail)}", flush=True)
    return application, ways, verdicts


def chosen(options):
    if options.only:
        names = options.only.split("/")
        return [a for a in APPLICATIONS if any(name.lower() in a.name.lower() for name in names)]
    return [a for a in APPLICATIONS if a.short or not options.short]


async def main():
    parser = argparse.ArgumentParser(description="Real applications behind Holdline.")
    parser.add_argument("--holdline", default=str(ROOT / "target/debug/holdline"))
    parser.add_argument("--short", action="store_true", help="the set of CI")
    parser.add_argument("--only", help="applications whose names contain one of these, divided by slashes")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--conversation", default="auto", help="what the route says of its conversations")
    parser.add_argument("--beside", type=int, default=2, help="how many run at a time, beside one with a browser")
    parser.add_argument("--write", action="store_true", help="writes the table into docs/conversations.md")
    parser.add_argument("--keep", help="a directory for the logs of every process")
    parser.add_argument("--frames", action="store_true", help="with --keep: what passes between Holdline and the workers")
    options = parser.parse_args()
    directory = options.keep or tempfile.mkdtemp(prefix="holdline-applications-")
    pathlib.Path(directory).mkdir(exist_ok=True)
    turns = {"light": asyncio.Semaphore(options.beside), "heavy": asyncio.Semaphore(1)}
    began = time.monotonic()
    results = await asyncio.gather(*(every_way(a, options, directory, turns) for a in chosen(options)))
    if not options.keep:
        shutil.rmtree(directory, ignore_errors=True)
    text = markdown(results)
    print(text)
    if options.write:
        write(text)
    kept = [bool(kept) for _, _, verdicts in results for _, kept, _ in verdicts]
    print(f"{time.monotonic() - began:.0f} s")
    print(f"{sum(kept)} passed, {len(kept) - sum(kept)} failed")
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
