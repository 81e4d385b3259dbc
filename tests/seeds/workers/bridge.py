"""A device bridge after ios-bridge's published behaviour.

Session ids are made by a worker and known to no other: a stranger's gets 101 and then 4004. A tap is executed serially and
blocks everything meanwhile, pings too. Over its own limits it accepts and then stays silent for ever. SIGTERM finishes the
queue, and then closes with 1012. The state of a WebRTC negotiation lives in the connection.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import time
import uuid

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from base import NAME, SETTINGS, journal, resident_mb, serve

TAP_SECONDS = SETTINGS.get("tap_ms", 20) / 1000
CONNECTIONS_MAX = 10
FRAME_SECONDS = 0.1
FRAME_BYTES = 24_000
STATE = pathlib.Path(SETTINGS["state"])
# Sessions outlive the process, as simulators do.
sessions = set(json.loads(STATE.read_text())) if STATE.exists() else set()
connections = {}
queues = set()
blocks = []


def known(session):
    sessions.add(session)
    STATE.write_text(json.dumps(sorted(sessions)))
    return session


known(SETTINGS["session"]) if "session" in SETTINGS else None


@contextlib.asynccontextmanager
async def admitted(ws, kind):
    """The session of an accepted socket; nothing if it is a stranger's, and silence over the limit."""
    await ws.accept()
    session = ws.path_params["session"]
    journal(did="open", session=session, kind=kind)
    if session not in sessions:
        await ws.close(4004, "Session not found")
        yield None
        return
    mine = connections.setdefault(session, set())
    if len(mine) >= CONNECTIONS_MAX:
        journal(did="silence", session=session, kind=kind)
        await asyncio.Event().wait()
    mine.add(ws)
    try:
        yield session
    finally:
        mine.discard(ws)


async def control(ws):
    """Taps are read ahead into a queue and executed one by one, each blocking the whole worker."""
    async with admitted(ws, "control") as session:
        if session is None:
            return
        queue = asyncio.Queue()
        queues.add(queue)
        executing = asyncio.create_task(execute(queue, session))
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                queue.put_nowait(json.loads(await ws.receive_text()))
        await queue.join()
        executing.cancel()
        queues.discard(queue)


async def execute(queue, session):
    while True:
        tap = await queue.get()
        time.sleep(blocks.pop() if blocks else TAP_SECONDS)
        journal(did="tap", session=session, n=tap["n"])
        queue.task_done()
        await asyncio.sleep(0)


async def video(ws):
    async with admitted(ws, "video") as session:
        number = 0
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            while session:
                number += 1
                await ws.send_text(json.dumps({"worker": NAME, "session": session, "frame": number, "data": "x" * FRAME_BYTES}))
                await asyncio.sleep(FRAME_SECONDS)


async def asked(ws, kind, answer):
    async with admitted(ws, kind) as session:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            while session:
                await ws.send_text(json.dumps(answer(session, json.loads(await ws.receive_text()))))


async def screenshot(ws):
    await asked(ws, "screenshot", lambda session, _: {"worker": NAME, "session": session, "data": "y" * FRAME_BYTES})


async def logs(ws):
    await asked(ws, "logs", lambda session, wish: {"worker": NAME, "session": session, "filter": wish.get("filter")})


async def webrtc(ws):
    offered = []

    def answer(session, said):
        if said["type"] == "offer":
            offered.append(said["sdp"])
            return {"type": "answer", "worker": NAME, "session": session, "sdp": f"answer to {said['sdp']}"}
        if not offered:
            return {"type": "error", "message": "no peer connection"}
        return {"type": "candidate-added", "worker": NAME}

    await asked(ws, "webrtc", answer)


def missing(session):
    return JSONResponse({"detail": f"Session {session} not found"}, 404)


async def create(_):
    return JSONResponse({"success": True, "session_id": known(str(uuid.uuid4())), "worker": NAME})


async def listed(_):
    return JSONResponse({"success": True, "worker": NAME, "sessions": [{"session_id": session} for session in sorted(sessions)]})


async def session_info(request):
    session = request.path_params["session"]
    if session not in sessions:
        return missing(session)
    return JSONResponse({"success": True, "worker": NAME, "session": {"session_id": session}})


async def locate(request):
    session = request.path_params["session"]
    if session not in sessions:
        return missing(session)
    journal(did="location", session=session, body=await request.json())
    return JSONResponse({"success": True, "worker": NAME})


async def page(request):
    session = request.path_params["session"]
    if session not in sessions:
        return HTMLResponse("Session not found", 404)
    return HTMLResponse(f"<title>{session} on {NAME}</title>")


async def health(_):
    memory = {"rss_mb": resident_mb(), "vms_mb": 2 * resident_mb(), "percent": 1.0, "available_mb": 1000.0, "limit_mb": 2048}
    return JSONResponse({"status": "healthy", "service": "iOS Remote Control", "total_sessions": len(sessions),
                         "resources": {"video_services": 0, "webrtc_services": 0, "total_clients": 0, "memory": memory}})


async def block(request):
    """The next tap takes so long."""
    blocks.append(int(request.query_params["ms"]) / 1000)
    return JSONResponse({})


async def finish():
    await asyncio.gather(*(queue.join() for queue in queues))
    journal(did="finished")


def get(path, endpoint):
    return Route(path, endpoint, methods=["GET"])


app = Starlette(routes=[
    *(WebSocketRoute(f"/ws/{{session}}/{kind.__name__}", kind) for kind in (control, video, screenshot, logs, webrtc)),
    get("/", lambda _: RedirectResponse("/web", 301)),
    get("/web", lambda _: HTMLResponse(f"<title>Sessions of {NAME}</title><script src=/static/app.js></script>")),
    get("/static/app.js", lambda _: PlainTextResponse("connect()", media_type="text/javascript")),
    get("/health", health),
    get("/control/{session}", page),
    get("/status/{session}", session_info),
    get("/api/sessions/", listed),
    Route("/api/sessions/create", create, methods=["POST"]),
    get("/api/sessions/{session}", session_info),
    Route("/api/sessions/{session}/location/set", locate, methods=["POST"]),
    Route("/__block", block, methods=["POST"]),
])
journal(did="start")
serve(app, finish)
