"""A long-polling server after the seed's published behaviour: users ask for a camera's logs and are parked until it answers.

`GET /logs/` (Basic auth) wakes the camera and waits for its answer, `GET /updates/` parks the camera until a user asks, `POST
/dump/` is its answer, which every waiting user gets. All of it lives in the process: two workers share nothing.
"""

import asyncio
import base64

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from base import NAME, journal, serve

PASSWORD = "Basic " + base64.b64encode(b"user:pass").decode()
asked = asyncio.Event()
users = set()


class GaveUp(Exception):
    """The one who waited has gone."""


async def parked(request, wait):
    """What is waited for, unless the one who waits goes first."""
    waiting = asyncio.ensure_future(wait)
    gone = asyncio.ensure_future(left(request))
    try:
        await asyncio.wait([waiting, gone], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise GaveUp
        return waiting.result()
    finally:
        waiting.cancel()
        gone.cancel()


async def left(request):
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def logs(request):
    if request.headers.get("authorization") != PASSWORD:
        return Response("Unauthorized.", 401, {"WWW-Authenticate": 'Basic realm="Login!"'})
    answer = asyncio.get_running_loop().create_future()
    users.add(answer)
    asked.set()
    journal(did="parked", who="user")
    try:
        return JSONResponse({"worker": NAME, **await parked(request, answer)})
    except (GaveUp, ClientDisconnect):
        journal(did="gave up", who="user")
        return Response(status_code=499)
    finally:
        users.discard(answer)


async def updates(request):
    journal(did="parked", who="camera")
    try:
        await parked(request, asked.wait())
    except (GaveUp, ClientDisconnect):
        journal(did="gave up", who="camera")
        return Response(status_code=499)
    asked.clear()
    journal(did="woken", who="camera")
    return PlainTextResponse("updated")


async def dump(request):
    body = await request.json()
    journal(did="dump", logs=body["logs"], users=len(users))
    for answer in users:
        answer.done() or answer.set_result(body)
    return JSONResponse({"waiting": len(users)})


serve(Starlette(routes=[Route("/logs/", logs), Route("/updates/", updates), Route("/dump/", dump, methods=["POST"])]))
