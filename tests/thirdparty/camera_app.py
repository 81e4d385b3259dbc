"""A camera's server on FastAPI, for `uvicorn --fd`: parked polls, a picture as MJPEG, and viewers on WebSockets who move it.

Users ask for the camera's logs (`GET /logs/`, Basic auth) and are parked; the camera parks at `GET /updates/` until one asks, and
answers all of them by `POST /dump/`. `GET /video` is the picture; a viewer on `/ws/{name}` gets it in binary messages and sends
moves, each of which is done once: it is in the journal with its number before it is committed, and a worker that gets
a pipe of another says by `Holdline-Resume` what is in the journal already.

Settings come from the environment: JOURNAL, LEAK_MB_PER_SECOND.
"""

import asyncio
import base64
import contextlib
import os
import pathlib
import time

from fastapi import FastAPI, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import PlainTextResponse, StreamingResponse

import holdline

PASSWORD = "Basic " + base64.b64encode(b"user:pass").decode()
JOURNAL = pathlib.Path(os.environ["JOURNAL"])
LEAK_BYTES = int(float(os.environ.get("LEAK_MB_PER_SECOND", "0")) * 1_000_000 / 10)
FRAME_SECONDS = 0.1
FRAME_BYTES = 2000
POLL_LOOK_SECONDS = 0.05
journal = os.open(JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
asked, users, leaked = asyncio.Event(), set(), []


async def leak():
    while LEAK_BYTES:
        leaked.append(os.urandom(64) * (LEAK_BYTES // 64))
        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def life(_app):
    leaking = asyncio.create_task(leak())
    yield
    leaking.cancel()


app = FastAPI(lifespan=life)


def frame():
    """Numbered by the clock, as the device counts."""
    return f"{int(time.time() / FRAME_SECONDS)} {os.getpid()} ".encode().ljust(FRAME_BYTES, b".")


async def parked(request, waited_for):
    """What is waited for, unless the one who waits goes first."""
    while not waited_for.done():
        if await request.is_disconnected():
            waited_for.cancel()
            raise HTTPException(499)
        await asyncio.wait([waited_for], timeout=POLL_LOOK_SECONDS)
    return waited_for.result()


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.get("/logs/")
async def logs(request: Request):
    if request.headers.get("authorization") != PASSWORD:
        raise HTTPException(401, headers={"WWW-Authenticate": 'Basic realm="Login!"'})
    answer = asyncio.get_running_loop().create_future()
    users.add(answer)
    asked.set()
    try:
        return await parked(request, answer)
    finally:
        users.discard(answer)


@app.get("/updates/")
async def updates(request: Request):
    await parked(request, asyncio.ensure_future(asked.wait()))
    asked.clear()
    return PlainTextResponse("updated")


@app.post("/dump/")
async def dump(request: Request):
    said = await request.json()
    for answer in users:
        answer.done() or answer.set_result({**said, "worker": os.getpid()})
    return {"waiting": len(users)}


@app.get("/video")
async def video():
    async def pictures():
        while True:
            yield b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + frame() + b"\r\n"
            await asyncio.sleep(FRAME_SECONDS)
    return StreamingResponse(pictures(), media_type="multipart/x-mixed-replace; boundary=frame")


@app.websocket("/ws/{name}")
async def view(ws: WebSocket, name: str):
    resume = holdline.Resume.of(ws)
    done = last_done(resume.pipe)
    known = f"ok; rx={done}" if done else "new"
    await ws.accept(headers=[(b"holdline-resume", known.encode())])
    showing = asyncio.create_task(show(ws))
    try:
        numbers = resume.numbers(done or None)
        async for move in ws.iter_text():
            seq = next(numbers)
            os.write(journal, f"{resume.pipe} {seq} {name} {move}\n".encode())
            await ws.send_text(f"moved {move}")
            with contextlib.suppress(holdline.Refused, OSError):
                await resume.commit(seq)
    except (WebSocketDisconnect, RuntimeError):
        pass  # RuntimeError: an answer after uvicorn has closed the socket
    finally:
        showing.cancel()


def last_done(pipe):
    lines = (line.split() for line in JOURNAL.read_text().splitlines())
    return max((int(seq) for of, seq, *_ in lines if of == pipe), default=0)


async def show(ws):
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            await ws.send_bytes(frame())
            await asyncio.sleep(FRAME_SECONDS)
