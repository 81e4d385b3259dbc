"""A byte stream through websockify, as noVNC has it: a server that greets, counts what it is told, and says the sum. Bytes of
another connection are wrong at once. The page connects again after a close."""

import asyncio
import sys

import talk

GREETING = b"RFB 003.008\n"


async def desktop(port):
    """What stands behind websockify in place of a screen."""

    async def serve(reader, writer):
        writer.write(GREETING)
        try:
            if await reader.readexactly(len(GREETING)) != GREETING:
                return
            while line := await reader.readline():
                writer.write(b"said " + line)
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    inner = server.sockets[0].getsockname()[1]
    await asyncio.create_subprocess_exec("websockify", f"127.0.0.1:{port}", f"127.0.0.1:{inner}")
    await server.serve_forever()


async def view(socket, numbers):
    shown = b""
    saying = None
    try:
        async for message in socket:
            shown += message
            if saying is None and shown.startswith(GREETING):
                shown = shown[len(GREETING):]
                await socket.send(GREETING)
                saying = asyncio.create_task(say(socket, numbers))
            *lines, shown = shown.split(b"\n")
            for line in lines:
                if line.startswith(b"said "):
                    talk.heard(int(line[5:]))
                else:
                    talk.wrong(f"{line} amid the stream")
        talk.told(f"closed {socket.close_code} {socket.close_reason}")
    finally:
        if saying:
            saying.cancel()


async def say(socket, numbers):
    while not talk.over.is_set():
        await socket.send(b"%d\n" % numbers.next())
        await asyncio.sleep(talk.RHYTHM_SECONDS)


async def user(port):
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException

    numbers = talk.Numbers()
    while True:
        try:
            url = f"ws://127.0.0.1:{port}/websockify"
            async with connect(url, subprotocols=["binary"], proxy=None) as socket:
                await view(socket, numbers)
        except (OSError, WebSocketException) as error:
            talk.told(error)
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        asyncio.run(desktop(int(sys.argv[2])))
    else:
        talk.listen_for_the_end()
        asyncio.run(user(int(sys.argv[2])))
