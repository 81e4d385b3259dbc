"""A wire tap between Holdline and one worker: the independent witness of what the worker's library confirmed.

Relays bytes untouched and reads the frames on the way. Invariant: a message counts as confirmed only when the pong to a
ping sent behind it has come from the worker; what a killed worker never answered is not confirmed.
"""

import asyncio
import re

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Frames:
    """Cuts a byte stream into (opcode, payload); payloads of masked frames come out unmasked."""

    def __init__(self):
        self.buffer = bytearray()

    def feed(self, data):
        self.buffer += data
        while True:
            frame = self._next()
            if frame is None:
                return
            yield frame

    def _next(self):
        data = self.buffer
        if len(data) < 2:
            return None
        length, at = data[1] & 0x7F, 2
        if length >= 126:
            size = 2 if length == 126 else 8
            if len(data) < 2 + size:
                return None
            length, at = int.from_bytes(data[2 : 2 + size], "big"), 2 + size
        mask = bytes(4)
        if data[1] & 0x80:
            mask, at = bytes(data[at : at + 4]), at + 4
        if len(data) < at + length:
            return None
        payload = bytes(data[at : at + length])
        if any(mask):
            key = (mask * (length // 4 + 1))[:length]
            payload = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")
        opcode = data[0] & 0x0F
        del data[: at + length]
        return opcode, payload


class Tapped:
    """One attachment as seen on the wire: the messages that went to the worker and how many of them it confirmed."""

    def __init__(self, attachment):
        self.attachment = attachment
        self.messages = []
        self.pings = {}
        self.confirmed = 0
        self.closed_with = None

    def to_worker(self, opcode, payload):
        if opcode == TEXT:
            self.messages.append(payload.decode())
        elif opcode == PING:
            self.pings[payload] = len(self.messages)

    def from_worker(self, opcode, payload):
        if opcode == PONG and payload in self.pings:
            self.confirmed = max(self.confirmed, self.pings.pop(payload))
        elif opcode == CLOSE and self.closed_with is None:
            self.closed_with = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005


class Tap:
    """Listens for Holdline in front of one worker."""

    def __init__(self, host, port, changed):
        self.target = (host, port)
        self.changed = changed
        self.live = 0
        self.tapped = []
        self.server = None
        # The loop itself holds tasks weakly.
        self.tasks = set()

    async def start(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[1]

    def stop(self):
        self.server.close()

    async def drop(self):
        """Lets go of what is left, once the counting is over."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        try:
            worker_reader, worker_writer = await asyncio.open_connection(*self.target)
        except OSError:
            return writer.transport.abort()
        try:
            tapped = await self._handshake(reader, worker_reader, worker_writer, writer)
            if tapped is None:
                return
            self.tapped.append(tapped)
            self.live += 1
            self.changed.set()
            up = asyncio.create_task(pump(reader, worker_writer, tapped.to_worker))
            down = asyncio.create_task(pump(worker_reader, writer, tapped.from_worker))
            # The worker's end is the end; Holdline's is passed on, and the worker may still have something to say.
            self.tasks |= {up, down}
            await down
            up.cancel()
            self.live -= 1
            self.changed.set()
        except asyncio.CancelledError:
            pass  # `drop`, at the very end
        finally:
            worker_writer.close()
            writer.close()

    async def _handshake(self, reader, worker_reader, worker_writer, writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            worker_writer.write(head)
            answer = await worker_reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, OSError):
            return None
        writer.write(answer)
        if not answer.startswith(b"HTTP/1.1 101"):
            return None
        return Tapped(int(re.search(rb"(?im)^holdline-attach: (\d+)", head).group(1)))


async def pump(reader, writer, see):
    frames = Frames()
    try:
        while data := await reader.read(65536):
            for frame in frames.feed(data):
                see(*frame)
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        pass
