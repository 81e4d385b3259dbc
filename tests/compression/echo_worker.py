"""A worker that sends back what it hears, with the compression that its library has by default.

Knows nothing about Holdline. Usage: echo_worker.py websockets | aiohttp | uvicorn-websockets | uvicorn-sansio | uvicorn-wsproto
"""

import asyncio
import json
import socket
import sys

KIND = sys.argv[1]
listener = socket.create_server(("127.0.0.1", 0))


def say_where():
    print(json.dumps({"listening": "127.0.0.1:%d" % listener.getsockname()[1]}), flush=True)


async def by_websockets():
    from websockets.asyncio.server import serve
    from websockets.exceptions import ConnectionClosed

    async def echo(ws):
        try:
            async for message in ws:
                await ws.send(message)
        except ConnectionClosed:
            pass  # how its connection dies is the test's doing

    async with serve(echo, sock=listener):
        say_where()
        await asyncio.Future()


def by_aiohttp():
    from aiohttp import WSMsgType, web

    async def echo(request):
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            await (ws.send_str if message.type == WSMsgType.TEXT else ws.send_bytes)(message.data)
        return ws

    app = web.Application()
    app.router.add_get("/{path:.*}", echo)
    say_where()
    web.run_app(app, sock=listener, print=None)


def by_uvicorn():
    import uvicorn

    async def echo(scope, receive, send):
        if scope["type"] != "websocket":
            return
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            kept = {kind: event[kind] for kind in ("text", "bytes") if event.get(kind) is not None}
            await send({"type": "websocket.send", **kept})

    ws = {"uvicorn-websockets": "websockets", "uvicorn-sansio": "websockets-sansio", "uvicorn-wsproto": "wsproto"}[KIND]
    say_where()
    uvicorn.Server(uvicorn.Config(echo, ws=ws, lifespan="off", log_level="error")).run(sockets=[listener])


if KIND == "websockets":
    asyncio.run(by_websockets())
elif KIND == "aiohttp":
    by_aiohttp()
else:
    by_uvicorn()
