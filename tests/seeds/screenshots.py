"""Two screenshot services behind `screenshots.toml`: browsers that leak, are drained and started anew under load.

What has to hold: no capture fails in a rolling restart; a kill fails at most what was under way, and no POST is done twice;
a client that gives up frees its page; the rate of captures is limited, health pages are not; what leaks is seen.
"""

import asyncio
import collections

from rig import Request, ask, eventually

CAPTURES = 24


async def run(run):
    a, b = await run.start("screenshots", "a", "b", leak_kib=2048)
    holdline = await run.holdline("screenshots", ROUTES__0__LIMITS__ADDRESS_RATE="0")
    await holdline.register(a)
    await holdline.register(b)
    await rolling(run, holdline, a, b)
    await killed(run, holdline, a, b)
    await given_up(run, holdline, a, b)
    await leaks(run, holdline, a, b)
    await rate(run, a, b)


def done(did, *workers):
    return [record["n"] for worker in workers for record in worker.journal() if record["did"] == did]


async def capture(holdline, n, method="POST", times=1):
    if method == "GET":
        return await ask(holdline.public, "GET", f"/capture?n={n}&times={times}")
    return await ask(holdline.public, "POST", "/capture", {"n": n, "times": times})


async def rolling(run, holdline, a, b):
    """Each worker is drained, stopped and started while captures go on."""
    quit_asking, answers = asyncio.Event(), []

    async def client(name):
        while not quit_asking.is_set():
            n = f"{name}-{len(answers)}"
            answers.append((n, await capture(holdline, n)))
    clients = [asyncio.create_task(client(name)) for name in range(4)]
    for worker in (a, b):
        began = len(answers)

        async def some(began=began):
            return len(answers) >= began + 4
        await eventually("captures go on", some)
        await holdline.drain(worker)
        await worker.terminate()
        await worker.start()
        await holdline.register(worker, state="ready")
        await holdline.up(worker)
    quit_asking.set()
    await asyncio.gather(*clients)
    run.same("no capture fails while workers are restarted one by one", {answer.status for _, answer in answers}, {200})
    run.check("every picture is whole", all(len(answer.body) == 40_008 for _, answer in answers), len(answers))
    twice = [n for n, times in collections.Counter(done("captured", a, b)).items() if times > 1]
    run.same("none is taken twice", twice, [])
    run.check("both workers take pictures", all(done("captured", worker) for worker in (a, b)), [len(done("captured", w)) for w in (a, b)])


async def killed(run, holdline, a, b):
    posts = [asyncio.create_task(capture(holdline, f"kill-{n}", times=20)) for n in range(4)]

    async def under_way():
        return len([n for n in done("began", a, b) if n.startswith("kill-")]) == 4
    await eventually("four captures are under way", under_way)
    await a.kill()
    on_a = set(done("began", a)) - set(done("captured", a)) - set(done("gave up", a))
    answers = [answer.status for answer in await asyncio.gather(*posts)]
    failed = [status for status in answers if status != 200]
    run.check("a kill fails at most what was under way there", len(failed) == len(on_a) and set(failed) <= {502, 504}, (answers, on_a))
    began = collections.Counter(n for n in done("began", a, b) if n.startswith("kill-"))
    run.same("no POST is tried twice", [n for n, times in began.items() if times > 1], [])
    later = [(await capture(holdline, f"later-{n}", "GET")).status for n in range(4)]
    run.same("the other goes on", set(later), {200})
    await a.start()
    await holdline.up(a)


async def given_up(run, holdline, a, b):
    request = Request(holdline.public, "POST", "/capture", {"n": "gone", "times": 100})
    waiting = asyncio.create_task(request.answer())

    async def began():
        return "gone" in done("began", a, b)
    await eventually("it is under way", began)
    request.give_up()

    async def freed():
        return "gone" in done("gave up", a, b)
    await eventually("the worker hears of it", freed, 2)
    run.check("a client that gives up frees its page", True)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def leaks(run, holdline, a, b):
    """What a worker leaks is exported, and leads its captures elsewhere."""
    said = (await ask(holdline.public, "GET", "/health")).json()
    run.check("the worker's health page comes through as it is", said["checks"]["memory_usage_mb"] > 1, said)

    async def grown():
        seen = [await holdline.metric("backend_reported_memory_bytes", backend=worker.name) for worker in (a, b)]
        return all(seen) and seen
    seen = await eventually("both reports", grown)
    run.check("what each worker uses is exported", all(value > 10_000_000 for value in seen), seen)


async def rate(run, a, b):
    """The preset's own rate, on a Holdline of its own: the clients above came from one address."""
    holdline = await run.holdline("screenshots")
    await holdline.register(a)
    await holdline.register(b)
    answers = await asyncio.gather(*(capture(holdline, f"rate-{n}", "GET", times=0.1) for n in range(70)))
    statuses = collections.Counter(answer.status for answer in answers)
    run.same("captures beyond the rate are refused", statuses, {200: 60, 429: 10})
    refused = next(answer for answer in answers if answer.status == 429)
    run.check("and told when to come back", "retry-after" in refused.headers and "ratelimit" in refused.headers, refused.headers)
    told = [answer.headers.get("ratelimit") for answer in answers if answer.status == 200]
    run.check("every picture says how much of the rate is left", all(told), told[:3])
    health = [(await ask(holdline.public, "GET", "/health/live")).status for _ in range(5)]
    run.same("health pages are not limited", set(health), {200})
