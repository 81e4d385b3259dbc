"""Two device bridges with private session ids behind `device-bridge.toml`, and the bridge presets of other sizes.

What has to hold: every socket and every request of a session is on its worker; 4004 of a wrong worker is never what a client
gets; sockets outlive SIGTERM, SIGKILL and a drain; taps arrive in order; signalling ends with its worker; the worker never
sees what is over its limits.
"""

import asyncio
import collections
import time

from rig import Socket, ask, eventually, refusal

KINDS = ("control", "video", "screenshot", "logs", "webrtc")
SIZES = ("development", "high-concurrency", "low-latency", "small-memory")
TAPS = 40


async def run(run):
    a = (await run.start("bridge", "a", session="session-of-a"))[0]
    b = (await run.start("bridge", "b", session="session-of-b"))[0]
    holdline = await run.holdline("device-bridge")
    await unowned(run, holdline, a, b)
    await owned(run, holdline, a, b)
    await reports(run, holdline, a, b)
    await loss(run, holdline, a, b)
    await moves(run, holdline, a, b)
    await limits(run, holdline, a)
    for size in SIZES:
        await other_size(run, size, a, b)


async def session_sockets(holdline, session):
    return {kind: await Socket.open(holdline, f"/ws/{session}/{kind}") for kind in KINDS}


async def served_by(sockets):
    """Which workers answer on the sockets of a session."""
    await sockets["screenshot"].say({"type": "screenshot"})
    await sockets["logs"].say({"filter": "all"})
    await sockets["webrtc"].say({"type": "offer", "sdp": "o"})
    talking = [sockets[kind] for kind in KINDS[1:]]
    since = [len(socket.heard) for socket in talking]
    heard = [await socket.hear("an answer", lambda said: said.get("worker"), max(0, count - 1)) for socket, count in zip(talking, since)]
    return {message["worker"] for message in heard}


async def close_all(*sockets):
    await asyncio.gather(*(socket.close() for group in sockets for socket in group.values()))


async def unowned(run, holdline, a, b):
    """No worker registers its sessions: the workers' own 4004 says who has which."""
    await holdline.register(a)
    await holdline.register(b)
    of_a, of_b = await session_sockets(holdline, "session-of-a"), await session_sockets(holdline, "session-of-b")
    run.same("without owners, each socket of a session finds its worker", [await served_by(of_a), await served_by(of_b)], [{"a"}, {"b"}])
    statuses = [(await public(holdline, f"/api/sessions/session-of-{name}")).status for name in "ab" * 6]
    run.same("and so do the requests of a session whose sockets are open", set(statuses), {200})
    closed = {kind: socket.closed for kind, socket in [*of_a.items(), *of_b.items()] if socket.closed}
    run.same("no client is told a wrong worker's 4004", closed, {})
    stranger = await Socket.open(holdline, "/ws/session-of-nobody/logs")
    run.same("a session that no worker has is 4004", await stranger.end(), (4004, "Session not found"))
    await close_all(of_a, of_b)


async def public(holdline, path, method="GET", body=None):
    return await ask(holdline.public, method, path, body)


async def owned(run, holdline, a, b):
    """A registrar says who has which session."""
    await holdline.register(a, serves=["session-of-a"])
    await holdline.register(b, serves=["session-of-b"])
    pages = ["/", "/web", "/static/app.js", "/health", "/api/sessions/"]
    found = {path: (await public(holdline, path)).status for path in pages}
    run.same("what belongs to no session is answered by any worker", found, {"/": 301, **dict.fromkeys(pages[1:], 200)})
    owners = [(await public(holdline, f"/api/sessions/session-of-{name}")).json().get("worker") for name in "ab" * 6]
    run.same("requests of a session are on its worker before any socket is", owners, list("ab" * 6))
    posted = await public(holdline, "/api/sessions/session-of-b/location/set", "POST", {"lat": 1, "lon": 2})
    run.same("and so is a POST", (posted.status, posted.json().get("worker")), (200, "b"))
    made = (await public(holdline, "/api/sessions/create", "POST", {"device": "phone"})).json()
    owner = {"a": a, "b": b}[made["worker"]]
    await holdline.register(owner, serves=[f"session-of-{owner.name}", made["session_id"]])
    fresh = await session_sockets(holdline, made["session_id"])
    run.same("a session that was made through the proxy works", await served_by(fresh), {owner.name})
    await close_all(fresh)


async def reports(run, holdline, a, b):
    async def known():
        said = [await holdline.metric("backend_reported_memory_bytes", backend=worker.name) for worker in (a, b)]
        return all(said) and said
    run.check("what the workers say of their memory is exported", await eventually("a report", known))
    limit = await holdline.metric("backend_reported_memory_limit_bytes", backend="a")
    run.same("and so is its limit", limit, 2048 * 1024 * 1024)


async def loss(run, holdline, a, b):
    """SIGTERM with a queue and a freeze, then SIGKILL; the worker comes back where it was, with its sessions."""
    sockets = await session_sockets(holdline, "session-of-a")
    await served_by(sockets)
    await a.ask("POST", "/__block?ms=1000")
    await tap(sockets["control"], 0, TAPS)
    code = await a.terminate()
    run.same("SIGTERM ends the worker in good order", code, 0)
    finished = [record for record in a.journal() if record["did"] == "finished"]
    run.same("and lets it finish its queue", len(finished), 1)
    await tap(sockets["control"], TAPS, 2 * TAPS)
    run.same("signalling is closed with its worker", (await sockets["webrtc"].end())[0], 1012)
    await a.start()
    await executed(run, a, 2 * TAPS)
    signalling = await Socket.open(holdline, "/ws/session-of-a/webrtc")
    sockets["webrtc"] = signalling
    await served_by(sockets)
    await a.kill()
    killed = time.monotonic()
    run.same("at SIGKILL too", (await signalling.end())[0], 1012)
    run.check("within a second", time.monotonic() - killed < 1, time.monotonic() - killed)
    await tap(sockets["control"], 2 * TAPS, 3 * TAPS)
    await a.start()
    await executed(run, a, 3 * TAPS)
    sockets["webrtc"] = await Socket.open(holdline, "/ws/session-of-a/webrtc")
    run.same("after both, all five kinds go on with their worker", await served_by(sockets), {"a"})
    closed = {kind: socket.closed for kind, socket in sockets.items() if socket.closed}
    run.same("and none of the other sockets was closed", closed, {})
    frames = [frame["frame"] for frame in sockets["video"].heard]
    run.check("video went on", len(frames) > 5, frames[-3:])
    run.check("the other worker was never asked for it while it had an owner", "session-of-a" not in after_owned(b), after_owned(b))
    await close_all(sockets)


def after_owned(worker):
    """The sessions that were asked of a worker from the first POST on, when owners were known."""
    records = worker.journal()
    first = next((number for number, record in enumerate(records) if record["did"] == "location"), 0)
    return {record["session"] for record in records[first:] if record["did"] == "open"}


def taps_of(worker):
    return [record["n"] for record in worker.journal() if record["did"] == "tap"]


async def tap(control, first, end):
    for n in range(first, end):
        await control.say({"t": "tap", "x": 1, "y": 2, "n": n})


async def executed(run, worker, count):
    """Every tap was executed, in its order; what came twice was in doubt."""
    async def all_there():
        return set(taps_of(worker)) >= set(range(count))
    await eventually(f"{count} taps", all_there)
    numbers = taps_of(worker)
    first = list(dict.fromkeys(numbers))
    run.same(f"{count} taps are executed in their order, and none is missing", first, list(range(count)))
    doubled = {n: times for n, times in collections.Counter(numbers).items() if times > 1}
    doubt = await run.holdlines[0].metric("in_doubt_messages_total", lane="up", route="session")
    run.check("none comes twice that was not in doubt", len(doubled) <= doubt, (doubled, doubt))


async def moves(run, holdline, a, b):
    """One device known to both, under each one's own session id: a drain moves what can be moved."""
    await holdline.register(a, serves={"phone": "session-of-a"})
    await holdline.register(b, serves={"other": "session-of-b"})
    sockets = await session_sockets(holdline, "phone")
    run.same("an alias takes the key's place in the path", await served_by(sockets), {"a"})
    await holdline.register(b, serves={"phone": "session-of-b"})
    first, end = 1000, 1000 + 2 * TAPS
    await tap(sockets["control"], first, first + TAPS)
    draining = asyncio.create_task(holdline.drain(a, deadline="4s"))
    await tap(sockets["control"], first + TAPS, end)
    await asyncio.sleep(0.5)  # signalling is looked at amid the drain
    run.same("signalling stays where it is during a drain", sockets["webrtc"].closed, None)
    await draining
    run.same("until the deadline, and is closed with 1012 then", (await sockets["webrtc"].end())[0], 1012)
    moved = {kind: socket for kind, socket in sockets.items() if kind != "webrtc"}
    await moved["logs"].say({"filter": "moved"})
    said = await moved["logs"].hear("an answer of the other", lambda message: message.get("filter") == "moved")
    run.same("what moved is on the other worker, under its own session id", said["session"], "session-of-b")
    await tap(sockets["control"], end, end + TAPS)
    run.same("and was not closed", {kind: socket.closed for kind, socket in moved.items() if socket.closed}, {})

    async def done():
        taps = {worker.name: [n for n in taps_of(worker) if n >= first] for worker in (a, b)}
        return len(set(taps["a"] + taps["b"])) == end + TAPS - first and taps
    taps = await eventually("the taps of the drain", done)
    run.same("a drain loses no tap and doubles none", taps["a"] + taps["b"], list(range(first, end + TAPS)))
    run.check("and what came after it is the other worker's", set(taps["b"]) >= set(range(end, end + TAPS)), taps["b"])
    await holdline.ready(a)
    await close_all(moved)


async def limits(run, holdline, a):
    """Ten at once for one session, and twenty a minute; the worker, which would fall silent, never sees the excess."""
    session = (await a.ask("POST", "/api/sessions/create")).json()["session_id"]
    await holdline.register(a, serves=[session])
    path = f"/ws/{session}/logs"
    sockets = [await Socket.open(holdline, path) for _ in range(10)]
    status, headers = await refusal(holdline, path)
    run.same("the eleventh socket of a session is refused", (status, "retry-after" in headers), (429, True))
    for again in range(10):
        await sockets[again].close()

        async def comes_back():
            status, _ = await refusal(holdline, path)
            return status == 101
        await eventually("a place is free again", comes_back)
    status, headers = await refusal(holdline, path)
    run.same("and so is the twenty-first of a minute", (status, "retry-after" in headers), (429, True))
    seen = [record["did"] for record in a.journal() if record.get("session") == session]
    run.same("the worker saw no more, and was never silent", (seen.count("open"), seen.count("silence")), (20, 0))


async def other_size(run, size, a, b):
    """The presets of other sizes are for the same workers."""
    holdline = await run.holdline(size)
    await holdline.register(a, serves=["session-of-a"])
    await holdline.register(b, serves=["session-of-b"])
    of_b = await session_sockets(holdline, "session-of-b")
    run.same(f"{size}: sockets of a session are on its worker", await served_by(of_b), {"b"})
    requests = [await public(holdline, f"/api/sessions/session-of-{name}") for name in "abab"]
    run.same(f"{size}: requests too", [answer.json().get("worker") for answer in requests], list("abab"))
    run.same(f"{size}: its pages come from any", (await public(holdline, "/web")).status, 200)
    await close_all(of_b)
    holdline.kill()
    run.holdlines.remove(holdline)
