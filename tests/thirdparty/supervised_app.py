"""A FastAPI application for `uvicorn --fd`: journals each message, acknowledges it, and may leak memory on purpose.

Settings come from the environment: JOURNAL, WORK_MS, LEAK_MB_PER_SECOND.
"""

import asyncio
import contextlib
import os

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

JOURNAL = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
WORK_SECONDS = float(os.environ.get("WORK_MS", "20")) / 1000
LEAK_BYTES = int(float(os.environ.get("LEAK_MB_PER_SECOND", "0")) * 1_000_000 / 10)
leaked = []


async def leak():
    while True:
        leaked.append(os.urandom(64) * (LEAK_BYTES // 64))
        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def life(_app):
    leaking = asyncio.create_task(leak()) if LEAK_BYTES else None
    yield
    if leaking:
        leaking.cancel()


app = FastAPI(lifespan=life)


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.websocket("/ws/{client}")
async def talk(ws: WebSocket, client: str):
    await ws.accept()
    attachment = ws.headers.get("holdline-attach", "0")
    try:
        while True:
            message = await ws.receive_text()
            await asyncio.sleep(WORK_SECONDS)
            os.write(JOURNAL, f"{message} {attachment} {os.getpid()}\n".encode())
            await ws.send_text(f"ack {message}")
    except (WebSocketDisconnect, RuntimeError):
        pass  # RuntimeError: an answer after uvicorn has closed the socket
