#!/usr/bin/env python3
"""Workers after each seed's published behaviour behind the preset for that seed, two of each, through kills and drains.

The runs go side by side, each with a Holdline of its own. The last line is `N passed, N failed`; the exit is 1 when a
promise was broken.

Run it as: .cache/py/bin/python tests/seeds/run.py [--holdline PATH] [--seeds device_bridge,ancestor]
"""

import argparse
import asyncio
import importlib
import sys
import tempfile

from rig import ROOT, Run

# Far more than any run takes; what hangs is a failure.
RUN_SECONDS_MAX = 150
SEEDS = ("device_bridge", "ancestor", "long_poll", "screenshots", "stabilizer")


async def one(seed, options, directory):
    run = Run(seed, options.holdline, directory)
    async with run.ended():
        await asyncio.wait_for(importlib.import_module(seed).run(run), RUN_SECONDS_MAX)
    return run.verdicts


async def main():
    parser = argparse.ArgumentParser(description="Each seed's kind of worker behind the preset for it.")
    parser.add_argument("--holdline", default=str(ROOT / "target/debug/holdline"))
    parser.add_argument("--seeds", default=",".join(SEEDS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="holdline-seeds-") as directory:
        runs = await asyncio.gather(*(one(seed, options, directory) for seed in options.seeds.split(",")))
    verdicts = [kept for run in runs for _, kept, _ in run]
    print(f"{sum(verdicts)} passed, {len(verdicts) - sum(verdicts)} failed")
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
