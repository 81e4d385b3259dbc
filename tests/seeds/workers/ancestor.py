"""A worker for the Go ancestor: it serves one client at a time, whom the path names, and journals each message whole.

A second client is refused with 503, because there is one place.
"""

import json

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from base import NAME, journal, serve

serving = []


async def talk(ws):
    client = ws.path_params["client"]
    if serving:
        journal(did="crowded", client=client)
        return await ws.send_denial_response(PlainTextResponse("one client at a time", 503))
    serving.append(client)
    await ws.accept()
    journal(did="serve", client=client)
    try:
        while True:
            said = await ws.receive()
            if said["type"] != "websocket.receive":
                break
            message = said["text"] if said.get("text") is not None else said["bytes"]
            journal(did="message", client=client, text=isinstance(message, str), size=len(message), head=repr(message[:40]))
            await ws.send_text(json.dumps({"worker": NAME, "got": len(message)}))
    except (WebSocketDisconnect, RuntimeError):
        pass
    finally:
        serving.remove(client)


serve(Starlette(routes=[WebSocketRoute("/{client}", talk)]))
