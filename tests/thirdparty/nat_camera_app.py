"""A camera as the long-polling seed has it: a GET waits for the next picture, and wants a password.

The picture says how many have been asked for. Settings come from the environment: WAIT_SECONDS.
"""

import asyncio
import base64
import os

from fastapi import FastAPI, Request, Response

WAIT_SECONDS = float(os.environ.get("WAIT_SECONDS", "1"))
PASSWORD = "Basic " + base64.b64encode(b"viewer:secret").decode()
asked = 0

app = FastAPI()


@app.get("/cam/{name}/next")
async def picture(name: str, request: Request):
    global asked
    if request.headers.get("authorization") != PASSWORD:
        return Response(status_code=401, headers={"WWW-Authenticate": 'Basic realm="camera"'})
    asked += 1
    number = asked
    await asyncio.sleep(WAIT_SECONDS)
    return Response(b"\xff\xd8" + f"{name} {number}".encode() + bytes(20_000) + b"\xff\xd9", media_type="image/jpeg")


@app.post("/cam/{name}/firmware")
async def firmware(name: str, request: Request):
    size = 0
    async for piece in request.stream():
        size += len(piece)
    return {"name": name, "bytes": size}
