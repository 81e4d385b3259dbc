"""How runs of many processes wait: for a state that can only be looked at, and never without a bound."""

import asyncio
import time

# How often a state is looked at.
LOOK_SECONDS = 0.02


class Failure(Exception):
    """The run could not go on."""


async def until(what, look, seconds):
    """What `look` answers, as soon as that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = await look()
        if found:
            return found
        await asyncio.sleep(LOOK_SECONDS)
    raise Failure(f"not within {seconds} s: {what}")
