"""python-socketio: its server under uvicorn, its client with its own reconnect; answers to what is emitted."""

import asyncio
import sys

import talk


def worker(port):
    import socketio
    import uvicorn

    server = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins="*")

    @server.on("say", namespace="/chat")
    async def say(sid, n):
        await server.emit("said", n, to=sid, namespace="/chat")

    @server.on("connect", namespace="/chat")
    async def connect(sid, environ, auth):
        return True

    uvicorn.run(socketio.ASGIApp(server), host="127.0.0.1", port=port, log_level="warning")


async def user(port):
    import socketio

    client = socketio.AsyncClient()
    client.on("said", talk.heard, namespace="/chat")
    client.on("disconnect", lambda *why: talk.told(f"disconnect {why}"), namespace="/chat")
    await client.connect(f"http://127.0.0.1:{port}", namespaces=["/chat"], transports=["websocket"])
    numbers = talk.Numbers()
    while True:
        if not talk.over.is_set() and "/chat" in client.namespaces:
            try:
                await client.emit("say", numbers.next(), namespace="/chat")
            except socketio.exceptions.SocketIOError as error:
                talk.told(error)
        await asyncio.sleep(talk.RHYTHM_SECONDS)


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        worker(int(sys.argv[2]))
    else:
        talk.listen_for_the_end()
        asyncio.run(user(int(sys.argv[2])))
