"""A chat after the stabilizer's published examples: client ids in the path, heartbeats in messages, broadcasts, tokens.

Broadcasts reach the clients of this process. Every text is answered with a new reconnect token; tokens die with the
process, and a dead one is refused: with 403 before the accept, or after it with an error and 1008, as `refusal` says.
"""

import asyncio
import contextlib
import json
import secrets

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from base import NAME, SETTINGS, journal, serve

HEARTBEAT_SECONDS = SETTINGS.get("heartbeat_ms", 300) / 1000
clients, tokens = {}, {}


async def broadcast(message, exclude=None):
    text = json.dumps({"worker": NAME, **message})
    for client, ws in list(clients.items()):
        if client != exclude:
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await ws.send_text(text)


async def heartbeat(ws):
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await ws.send_text('"ping"')


async def talk(ws):
    client, token = ws.path_params["client"], ws.query_params.get("token")
    if token and tokens.pop(token, None) != client:
        journal(did="refused", client=client)
        return await ws.close(1008)  # before the accept: 403
    await ws.accept()
    previous, clients[client] = clients.get(client), ws
    if previous:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await previous.close(1000, "replaced")
    journal(did="connect", client=client)
    await ws.send_text(json.dumps({"type": "connection", "worker": NAME, "clients": len(clients)}))
    beating = asyncio.create_task(heartbeat(ws))
    try:
        while True:
            text = await ws.receive_text()
            if text == "pong":
                journal(did="pong", client=client)
                continue
            fresh = secrets.token_urlsafe(8)
            tokens[fresh] = client
            journal(did="message", client=client, text=text)
            await broadcast({"type": "message", "user": client, "content": text, "reconnect_token": fresh})
    except WebSocketDisconnect:
        pass
    finally:
        beating.cancel()
        if clients.get(client) is ws:
            del clients[client]


async def token(request):
    client = request.path_params["client"]
    fresh = secrets.token_urlsafe(8)
    tokens[fresh] = client
    return JSONResponse({"reconnect_token": fresh, "worker": NAME})


async def stats(_):
    return JSONResponse({"active_connections": len(clients), "client_ids": sorted(clients), "worker": NAME})


serve(Starlette(routes=[
    WebSocketRoute("/ws/{client}", talk),
    Route("/reconnect-token/{client}", token, methods=["POST"]),
    Route("/stats", stats),
]))
