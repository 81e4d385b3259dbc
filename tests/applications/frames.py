"""The frames between Holdline and a worker, written down for a person who looks for what went wrong (`--frames`)."""

import asyncio
import contextlib
import time

OPCODES = {0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}
SHOWN_BYTES = 300


class Reader:
    """One direction of a connection: an HTTP head, and WebSocket frames behind it if it switched."""

    def __init__(self):
        self.bytes, self.switched = b"", None

    def read(self, data):
        """What is whole by now, as lines."""
        self.bytes += data
        if self.switched is None:
            head, end, rest = self.bytes.partition(b"\r\n\r\n")
            if not end:
                return
            self.switched = b"upgrade: websocket" in head.lower()
            self.bytes = rest
            yield head.split(b"\r\n")[0].decode(errors="replace")
        while self.switched and (frame := self.frame()):
            yield frame

    def frame(self):
        data = self.bytes
        if len(data) < 2:
            return None
        length, at = data[1] & 127, 2
        if length > 125:
            at = 4 if length == 126 else 10
            length = int.from_bytes(data[2:at], "big")
        masked = data[1] & 128
        if len(data) < at + (4 if masked else 0) + length:
            return None
        if masked:
            mask, at = data[at:at + 4], at + 4
            payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data[at:at + length]))
        else:
            payload = data[at:at + length]
        self.bytes = data[at + length:]
        return f"{OPCODES.get(data[0] & 15, data[0] & 15)} {payload[:SHOWN_BYTES]!r}"


class Frames:
    """Stands before a worker and writes down what passes."""

    def __init__(self, worker, path):
        self.name, self.worker, self.port, self.path = worker.name, worker, None, path
        self.server, self.connections, self.tasks = None, 0, set()

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def serve(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        self.connections += 1
        number = self.connections
        with contextlib.suppress(OSError, asyncio.CancelledError):
            try:
                onward = await asyncio.open_connection("127.0.0.1", self.worker.port)
                await asyncio.gather(self.pour(reader, onward[1], f"{number} >"), self.pour(onward[0], writer, f"{number} <"))
            finally:
                writer.transport.abort()

    async def pour(self, reader, writer, mark):
        frames = Reader()
        try:
            while data := await reader.read(65536):
                for line in frames.read(data):
                    self.write(f"{mark} {line}")
                writer.write(data)
                await writer.drain()
            self.write(f"{mark} end")
        finally:
            writer.transport.abort()

    def write(self, line):
        with open(self.path, "a") as file:
            file.write(f"{time.time():.3f} {self.name} {line}\n")

    def stop(self):
        if self.server:
            self.server.close()
        for task in self.tasks:
            task.cancel()
