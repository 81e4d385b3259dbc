"""Python servers without state per connection: FastAPI under uvicorn, Tornado, and a room of Channels under daphne whose name
is in the path. Their user is the library `websockets`, which connects again 100 ms after a close."""

import asyncio
import sys

import talk


def fastapi(port):
    import uvicorn
    from fastapi import FastAPI, WebSocket, WebSocketDisconnect

    application = FastAPI()

    @application.websocket("/ws/all")
    async def answer(socket: WebSocket):
        await socket.accept()
        try:
            while True:
                await socket.send_json(await socket.receive_json())
        except WebSocketDisconnect:
            return

    uvicorn.run(application, host="127.0.0.1", port=port, log_level="warning")


def tornado(port):
    from tornado import ioloop, web, websocket

    class Answer(websocket.WebSocketHandler):
        def on_message(self, message):
            self.write_message(message)

    web.Application([("/ws/all", Answer)]).listen(port, "127.0.0.1")
    ioloop.IOLoop.current().start()


def channels(port):
    from daphne.endpoints import build_endpoint_description_strings
    from daphne.server import Server
    from django.conf import settings

    settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}, ALLOWED_HOSTS=["*"])
    import django

    django.setup()
    from channels.generic.websocket import AsyncJsonWebsocketConsumer
    from channels.routing import ProtocolTypeRouter, URLRouter
    from django.urls import path

    class Room(AsyncJsonWebsocketConsumer):
        async def connect(self):
            self.room = self.scope["url_route"]["kwargs"]["room"]
            await self.channel_layer.group_add(self.room, self.channel_name)
            await self.accept()

        async def receive_json(self, content):
            await self.channel_layer.group_send(self.room, {"type": "said", "content": content})

        async def said(self, event):
            await self.send_json(event["content"])

    router = ProtocolTypeRouter({"websocket": URLRouter([path("ws/<room>", Room.as_asgi())])})
    Server(router, endpoints=build_endpoint_description_strings(host="127.0.0.1", port=port)).run()


async def user(port):
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException

    numbers = talk.Numbers()

    async def say(socket):
        while not talk.over.is_set():
            await socket.send(str(numbers.next()))
            await asyncio.sleep(talk.RHYTHM_SECONDS)

    while True:
        try:
            async with connect(f"ws://127.0.0.1:{port}/ws/all", proxy=None) as socket:
                saying = asyncio.create_task(say(socket))
                try:
                    async for message in socket:
                        talk.heard(int(message))
                    talk.told(f"closed {socket.close_code} {socket.close_reason}")
                finally:
                    saying.cancel()
        except (OSError, WebSocketException) as error:
            talk.told(error)
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    if sys.argv[1] == "user":
        talk.listen_for_the_end()
        asyncio.run(user(int(sys.argv[2])))
    else:
        {"fastapi": fastapi, "tornado": tornado, "channels": channels}[sys.argv[1]](int(sys.argv[2]))
