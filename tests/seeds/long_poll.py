"""Two long-polling servers behind `long-poll.toml`, a camera that dials and answers, and users who wait.

What has to hold: all of one host name meet on one worker; a held GET passes untouched; one that gives up is cancelled; a
worker that dies fails its polls at once; camera and users find each other again on the other worker.
"""

import asyncio
import base64
import time

from rig import Failure, Request, ask, eventually

AUTH = {"Authorization": "Basic " + base64.b64encode(b"user:pass").decode()}
CAMERA_TIMEOUT_SECONDS = 10
AT_ONCE_SECONDS = 0.5


class Camera:
    """Asks whether its logs are wanted, gives them, and asks again; an error or a timeout is another reason to ask."""

    def __init__(self, address, *workers):
        self.workers = workers
        self.address, self.answers, self.errors, self.filming = address, 0, 0, None

    def start(self):
        self.filming = asyncio.create_task(self.run())

    async def stop(self):
        """Off, and its poll is given up: who asks now waits."""
        # Again and again: before Python 3.12, wait_for may swallow a cancellation that comes with its result.
        while not self.filming.done():
            self.filming.cancel()
            await asyncio.wait([self.filming], timeout=0.1)

        async def noticed():
            return all(polls(worker, "parked", "camera") == polls(worker, "woken", "camera") + polls(worker, "gave up", "camera")
                       for worker in self.workers)
        await eventually("the worker hears that the camera is off", noticed)

    async def run(self):
        while True:
            try:
                polled = await asyncio.wait_for(Request(self.address, "GET", "/updates/").answer(), CAMERA_TIMEOUT_SECONDS)
                if polled.status == 200:
                    self.answers += 1
                    await ask(self.address, "POST", "/dump/", {"logs": [f"Move Left {self.answers}"]})
                    continue
            except (OSError, Failure, TimeoutError):
                pass
            self.errors += 1
            await asyncio.sleep(0.05)  # the camera's own pause


async def run(run):
    a, b = await run.start("long_poll", "a", "b")
    holdline = await run.holdline("long-poll")
    await holdline.register(a)
    await holdline.register(b)
    camera = Camera(holdline.public, a, b)
    camera.start()
    try:
        await answered(run, holdline, camera, a, b)
        busy = a if polls(a) else b
        await given_up(run, holdline, camera, busy)
        await died(run, holdline, camera, busy, a if busy is b else b)
    finally:
        camera.filming.cancel()


def polls(worker, did="parked", who="user"):
    return len([record for record in worker.journal() if record["did"] == did and record.get("who") == who])


def user(holdline, headers=None):
    return Request(holdline.public, "GET", "/logs/", headers=AUTH if headers is None else headers)


async def answered(run, holdline, camera, a, b):
    run.same("a user without a password is told so", (await user(holdline, {}).answer()).headers.get("www-authenticate"),
             'Basic realm="Login!"')
    first = await asyncio.wait_for(user(holdline).answer(), CAMERA_TIMEOUT_SECONDS)
    run.check("a user is answered by the camera", first.status == 200 and first.json()["logs"], first)
    await camera.stop()
    two = [asyncio.create_task(user(holdline).answer()) for _ in range(2)]
    before = polls(a) + polls(b)

    async def both():
        return polls(a) + polls(b) >= before + 2
    await eventually("two users wait", both)
    camera.start()
    answers = [answer.json()["logs"] for answer in await asyncio.wait_for(asyncio.gather(*two), 2 * CAMERA_TIMEOUT_SECONDS)]
    run.check("two users of one camera are both answered, with the same", answers[0] == answers[1], answers)
    run.check("all of one host name meet on one worker", (polls(a) == 0) != (polls(b) == 0), (polls(a), polls(b)))


async def parked_user(worker, holdline):
    """A user who waits at the worker, because the camera is off."""
    request = user(holdline)
    waiting = asyncio.create_task(request.answer())
    count = polls(worker)

    async def parked():
        return polls(worker) > count
    await eventually("a user is parked", parked)
    return request, waiting


async def given_up(run, holdline, camera, busy):
    """A poll that is not wanted any more is not left to the worker."""
    await camera.stop()
    request, waiting = await parked_user(busy, holdline)
    count = polls(busy, "gave up")
    request.give_up()
    gone = time.monotonic()

    async def noticed():
        return polls(busy, "gave up") > count
    await eventually("the worker hears of it", noticed)
    run.check("a user who gives up is cancelled at the worker", time.monotonic() - gone < AT_ONCE_SECONDS, time.monotonic() - gone)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def died(run, holdline, camera, busy, other):
    """The worker is killed while it holds a poll."""
    _, waiting = await parked_user(busy, holdline)
    before = polls(other)
    killed = time.monotonic()
    await busy.kill()

    async def known():
        return waiting.done() or polls(other) > before
    await eventually("what becomes of the poll", known)
    took = time.monotonic() - killed
    # A GET on a connection that was used before may be sent once more: that it was idle too long is the likelier reason.
    fate = waiting.result().status if waiting.done() else "waits at the other worker"
    run.check("a poll of a dead worker fails at once, or waits at the other worker",
              fate in (502, 504, "waits at the other worker") and took < AT_ONCE_SECONDS, (fate, took))
    camera.start()
    run.check("and is answered there then", (await waiting).status in (200, 502, 504), waiting)
    answer = await asyncio.wait_for(user(holdline).answer(), CAMERA_TIMEOUT_SECONDS)
    run.same("camera and users meet on the other worker", (answer.status, answer.json()["worker"]), (200, other.name))
    await busy.start()
    await holdline.up(busy)
    answers = [(await asyncio.wait_for(user(holdline).answer(), CAMERA_TIMEOUT_SECONDS)).json()["worker"] for _ in range(4)]
    run.same("and stay there when the first is back", set(answers), {other.name})
