"""SIGTERM and SIGINT, taken from the server that runs the application until the worker has drained.

uvicorn (alone or under gunicorn) ends its sockets as soon as it hears SIGTERM, which interrupts pipes that could have moved. So
its handler is put aside, and called once the pipes have left. Refuses signals that a server takes by asyncio (hypercorn):
what was there before cannot be put back.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from typing import Any

HEARD = (signal.SIGTERM, signal.SIGINT)
DEFAULTS = (signal.SIG_DFL, signal.SIG_IGN, None)

log = logging.getLogger("holdline")


class Signals:
    """The signals that mean the end, from `take` to `give_back`."""

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told
        self._before: dict[signal.Signals, Any] = {}

    def take(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread has signals
        if _is_a_loops(signal.getsignal(signal.SIGTERM)):
            said = "is the server's by asyncio, and ends it before its pipes have moved; put `holdline run --` in front of it"
            log.warning("SIGTERM %s", said)
            return
        for number in HEARD:
            self._before[number] = signal.getsignal(number)
            asyncio.get_running_loop().add_signal_handler(number, self._told)

    @property
    def are_a_servers(self) -> bool:
        """Whether a server waits for SIGTERM, and has to be told once the worker has left."""
        return self._before.get(signal.SIGTERM) not in DEFAULTS

    def give_back(self) -> None:
        for number, handler in self._before.items():
            asyncio.get_running_loop().remove_signal_handler(number)
            # None: it was not set by Python, and cannot be set again from here.
            if handler is not None:
                signal.signal(number, handler)
        self._before = {}


def _is_a_loops(handler: Any) -> bool:
    """Whether it was set by add_signal_handler: what the loop calls then is its own secret."""
    module = getattr(handler, "__module__", None) or ""
    return module.startswith(("asyncio", "uvloop"))
