"""What the workers have in common: settings from the command line, a port that stays theirs, a journal, and a stop that
finishes what is queued.

Each worker is an ASGI application under uvicorn, as the seeds are, and knows nothing of Holdline.
"""

import asyncio
import json
import os
import signal
import socket
import sys

import uvicorn

SETTINGS = json.loads(sys.argv[1])
NAME = SETTINGS["name"]
JOURNAL = os.open(SETTINGS["state"] + ".journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def journal(**record):
    """One line in one write: it is there even if the next instruction never runs."""
    os.write(JOURNAL, json.dumps({"worker": NAME, "pid": os.getpid(), **record}).encode() + b"\n")


def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024


class Server(uvicorn.Server):
    """uvicorn with a stop of the worker's own before uvicorn's."""

    def __init__(self, config, stopping):
        super().__init__(config)
        self.stopping = stopping
        self.stop = None

    def handle_exit(self, sig, frame):
        if self.stopping is None or sig != signal.SIGTERM:
            return super().handle_exit(sig, frame)
        self.stop = asyncio.get_event_loop().create_task(self.finish())

    async def finish(self):
        await self.stopping()
        self.should_exit = True


def serve(app, stopping=None):
    """Serves until SIGTERM; `stopping` runs first, and then uvicorn closes what is open with 1012."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", SETTINGS.get("port", 0)))
    listener.listen(1024)
    print(json.dumps({"listening": "127.0.0.1:%d" % listener.getsockname()[1]}), flush=True)
    config = uvicorn.Config(app, ws_per_message_deflate=False, log_level="error", timeout_graceful_shutdown=3)
    Server(config, stopping).run(sockets=[listener])
