"""Two workers of the Go ancestor's kind behind `ancestor.toml`: one client each, whom the path names.

What has to hold is what the ancestor promised and did not keep: nothing is lost or doubled over an outage, messages come
whole and in order while the client is idle, 5 MiB are kept and not a byte more, and the wait has no end.
"""

import asyncio
import time

from rig import Socket, ask, eventually, refusal

# Beyond the grace that a configuration without `grace = "none"` has.
LONGER_THAN_GRACE_SECONDS = 31
KEPT_BYTES = 5 * 1024 * 1024
CHUNK_BYTES = 60_000
PICK_UP_SECONDS = 1


async def run(run):
    first, second = await run.start("ancestor", "first", "second")
    holdline = await run.holdline("ancestor")
    await holdline.register(first)
    await holdline.register(second)
    alice, bob = [await Socket.open(holdline, f"/{name}") for name in ("alice", "bob")]
    await crowd(run, holdline)
    worker = {serving(first): first, serving(second): second}
    await crash(run, holdline, alice, worker["alice"])
    await overflow(run, holdline, bob, worker["bob"])
    await alice.close()


def serving(worker):
    return [record["client"] for record in worker.journal() if record["did"] == "serve"][-1]


def messages(worker, client):
    return [record for record in worker.journal() if record["did"] == "message" and record["client"] == client]


async def crowd(run, holdline):
    run.same("a third client is refused while two workers serve two", (await refusal(holdline, "/carol"))[0], 503)
    run.same("a second connection of one client is refused", (await refusal(holdline, "/alice"))[0], 409)
    run.same("a plain request is told to upgrade", (await ask(holdline.public, "GET", "/alice")).status, 426)


async def confirmed(holdline):
    """Nothing is in doubt: what was said will not be said again."""
    async def all_confirmed():
        return all(pipe["up"]["confirmed"] == pipe["up"]["accepted"] for pipe in await holdline.pipes())
    await eventually("everything is confirmed", all_confirmed)


async def crash(run, holdline, alice, worker):
    """SIGKILL without a spare: the client waits, speaks, and is served again long after a usual grace."""
    await alice.say("before")
    await alice.hear("an answer", lambda said: said.get("got") == 6)
    await confirmed(holdline)
    await worker.kill()
    said = [f"{n} " + "é" * n for n in range(50)]
    for message in said:
        await alice.say(message)
    await alice.say(b"\x00\x01binary")
    await asyncio.sleep(LONGER_THAN_GRACE_SECONDS)  # the wait is what is promised
    run.same("a client waits for longer than the usual grace", alice.closed, None)
    await worker.start()
    await holdline.register(worker)
    back = time.monotonic()

    async def arrived():
        return len(messages(worker, "alice")) == len(said) + 2
    await eventually("what was said meanwhile", arrived, 10)
    run.check("a worker that is back is used at once, the client idle", time.monotonic() - back < PICK_UP_SECONDS, time.monotonic() - back)
    heads = [(record["text"], record["head"]) for record in messages(worker, "alice")]
    wanted = [(True, repr("before"))] + [(True, repr(message[:40])) for message in said] + [(False, repr(b"\x00\x01binary"))]
    run.same("each message comes once, whole, in order, and as what it was", heads, wanted)
    await alice.say("after")
    await alice.hear("an answer of the next worker", lambda said: said.get("got") == 5)


async def overflow(run, holdline, bob, worker):
    """5 MiB are kept, and no more."""
    await bob.say("x")
    await bob.hear("an answer", lambda said: said.get("got") == 1)
    await confirmed(holdline)
    await worker.kill()
    chunks = KEPT_BYTES // CHUNK_BYTES - 1
    for _ in range(chunks):
        await bob.say(b"z" * CHUNK_BYTES)

    async def held():
        return any(pipe["up"]["buffered_bytes"] >= chunks * CHUNK_BYTES for pipe in await holdline.pipes())
    await eventually("5 MiB are held", held)
    run.same("5 MiB are kept for a client without a worker", bob.closed, None)
    for _ in range(2):
        await bob.say(b"z" * CHUNK_BYTES)
    run.same("and no more: 1013", await bob.end(), (1013, "replay buffer overflow"))
    await worker.start()
    await holdline.up(worker)
    again = await Socket.open(holdline, "/bob")
    await again.say("again")
    await again.hear("an answer", lambda said: said.get("got") == 5)
    run.check("its id and its worker are free again", True)
    await again.close()
