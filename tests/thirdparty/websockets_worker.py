"""A worker on the Python library `websockets`: journals each message, acknowledges it, and pushes numbered frames.

Knows nothing about Holdline but the header that names the attachment. Usage: websockets_worker.py JOURNAL WORK_MS
"""

import asyncio
import json
import os
import signal
import sys
import zlib

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

JOURNAL = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
WORK_SECONDS = float(sys.argv[2]) / 1000


async def push(socket, attachment):
    number = 0
    while True:
        body = bytes([number % 251]) * (60_000 if number % 40 == 39 else 60)
        await socket.send(f"push {attachment} {number} {zlib.crc32(body)} ".encode() + body)
        number += 1
        await asyncio.sleep(0.02)


async def handler(socket):
    attachment = socket.request.headers.get("Holdline-Attach", "0")
    pushing = asyncio.create_task(push(socket, attachment))
    try:
        async for message in socket:
            await asyncio.sleep(WORK_SECONDS)
            os.write(JOURNAL, f"{message} {attachment} {os.getpid()}\n".encode())
            await socket.send(f"ack {message}")
    except ConnectionClosed:
        pass
    finally:
        pushing.cancel()


async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with serve(handler, "127.0.0.1", 0, compression=None) as server:
        host, port = server.sockets[0].getsockname()
        print(json.dumps({"listening": f"{host}:{port}"}), flush=True)
        await stop.wait()


asyncio.run(main())
