"""A FastAPI worker under uvicorn: journals each message, acknowledges it, and pushes numbered frames.

Knows nothing about Holdline but the header that names the attachment. Usage: fastapi_worker.py JOURNAL WORK_MS [WS [PUSH_MS]]
"""

import asyncio
import json
import os
import socket
import sys
import zlib

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

JOURNAL = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
WORK_SECONDS = float(sys.argv[2]) / 1000
WS = sys.argv[3] if len(sys.argv) > 3 else "auto"
PUSH_SECONDS = float(sys.argv[4] if len(sys.argv) > 4 else 20) / 1000
app = FastAPI()


async def push(ws, attachment):
    number = 0
    while True:
        body = bytes([number % 251]) * (60_000 if number % 40 == 39 else 60)
        await ws.send_bytes(f"push {attachment} {number} {zlib.crc32(body)} ".encode() + body)
        number += 1
        await asyncio.sleep(PUSH_SECONDS)


@app.websocket("/ws/{client}")
async def talk(ws: WebSocket, client: str):
    await ws.accept()
    attachment = ws.headers.get("holdline-attach", "0")
    pushing = asyncio.create_task(push(ws, attachment))
    try:
        while True:
            message = await ws.receive_text()
            await asyncio.sleep(WORK_SECONDS)
            os.write(JOURNAL, f"{message} {attachment} {os.getpid()}\n".encode())
            await ws.send_text(f"ack {message}")
    except (WebSocketDisconnect, RuntimeError):
        pass  # RuntimeError: an answer after uvicorn has closed the socket
    finally:
        pushing.cancel()


listener = socket.create_server(("127.0.0.1", 0))
print(json.dumps({"listening": "127.0.0.1:%d" % listener.getsockname()[1]}), flush=True)
config = uvicorn.Config(app, ws=WS, ws_per_message_deflate=False, log_level="error", timeout_graceful_shutdown=5)
uvicorn.Server(config).run(sockets=[listener])
