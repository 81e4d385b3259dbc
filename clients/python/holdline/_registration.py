"""A worker's place among Holdline's backends: taken, renewed, taken again when it was forgotten, drained and given back.

Invariant: once the worker leaves, no earlier request of it is on its way any more, so that none takes the place again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import signal
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from typing import Any

from ._admin import FAILURES, Admin, Refused
from ._owners import Signals

PAUSE_SECONDS = (0.1, 2.0)
DRAIN_LOOK_SECONDS = 0.2
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}

log = logging.getLogger("holdline")


def _seconds(text: str) -> float:
    """`15s`, `500ms`, `1m`."""
    found = re.fullmatch(r"(\d+)(ms|s|min|m|h)", text)
    if not found:
        raise ValueError(f"{text!r} is not a duration such as '15s'")
    return int(found[1]) * UNITS[found[2]]


async def _pause(seconds: float, unless: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
        await asyncio.wait_for(unless.wait(), seconds)


class Registration:
    """A worker's place; made by `register`."""

    def __init__(self, admin: Admin, id: str, body: dict[str, Any], drain_seconds: float) -> None:
        self.id = id
        self.directives: list[str] = []
        self._admin, self._body, self._drain_seconds = admin, body, drain_seconds
        self._path = f"/v1/backends/{urllib.parse.quote(id, safe='')}"
        self._renew_seconds = _seconds(body["lease"]) / 3
        self._registered, self._stop = asyncio.Event(), asyncio.Event()
        self._leaving, self._hurry = asyncio.Event(), asyncio.Event()
        self._left: asyncio.Task[None] | None = None
        self._complaint = ""
        self._keeping = asyncio.create_task(self._keep())

    async def registered(self) -> None:
        """Waits until Holdline knows the worker."""
        await self._registered.wait()

    async def told_to_stop(self) -> None:
        """Waits for SIGTERM, SIGINT, or an operator's wish that the worker drains."""
        await self._stop.wait()

    def stop(self) -> None:
        """Ends `told_to_stop`; a second time, the pipes that are left are not waited for."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def leave(self) -> None:
        """Drains and withdraws, once; leaving the block of `register` does it."""
        if self._left is None:
            self._left = asyncio.create_task(self._leave())
        await asyncio.shield(self._left)

    async def _keep(self) -> None:
        """Registers, renews, and registers again when Holdline has forgotten the worker (404)."""
        pause = PAUSE_SECONDS[0]
        while not self._leaving.is_set():
            try:
                await self._admin.ask("PUT", self._path, self._body)
            except FAILURES as failure:
                # It is tried again: Holdline may be restarting, or the id still be another's.
                self._complain(f"{self.id} is not registered with {self._admin.address}: {failure}")
            else:
                log.info("%s is registered with %s", self.id, self._admin.address)
                self._registered.set()
                self._complaint, pause = "", PAUSE_SECONDS[0]
                await self._renew()
            await _pause(pause, self._leaving)
            pause = min(pause * 2, PAUSE_SECONDS[1])

    async def _renew(self) -> None:
        """Until the worker leaves, or Holdline does not know it."""
        after = self._renew_seconds
        while True:
            await _pause(after, self._leaving)
            if self._leaving.is_set():
                return
            try:
                answer = await self._admin.ask("PUT", self._path + "/lease", {})
            except FAILURES as failure:
                if isinstance(failure, Refused) and failure.status == 404:
                    return
                self._complain(f"the lease of {self.id} was not renewed: {failure}")
                after = min(self._renew_seconds, PAUSE_SECONDS[1])
                continue
            self._complaint, self.directives = "", answer["directives"]
            after = _seconds(answer["renew_after"])
            if self.directives:
                self._stop.set()

    def _complain(self, what: str) -> None:
        """Once, until it is another thing."""
        if what != self._complaint:
            self._complaint = what
            log.warning("%s", what)

    async def _leave(self) -> None:
        self._leaving.set()
        await self._keeping
        if not self._registered.is_set():
            return  # the id may be another worker's
        with contextlib.suppress(*FAILURES):
            await self._drain()
        with contextlib.suppress(*FAILURES):
            await self._admin.ask("DELETE", self._path)

    async def _drain(self) -> None:
        """Takes no more pipes, and waits until the last one has moved."""
        body, loop = {**self._body, "state": "drain"}, asyncio.get_running_loop()
        end = loop.time() + self._drain_seconds
        while loop.time() < end and not self._hurry.is_set():
            answer = await self._admin.ask("PUT", self._path, body)  # saying it again renews the lease
            if not answer["pipes"] and not answer["requests"]:
                return
            await _pause(DRAIN_LOOK_SECONDS, self._hurry)


@contextlib.asynccontextmanager
async def register(
    url: str,
    pool: str = "default",
    lease: str = "15s",
    *,
    id: str | None = None,
    admin: str | None = None,
    token: str | None = None,
    serves: Mapping[str, str] | list[str] | None = None,
    labels: Mapping[str, str] | None = None,
    health: Mapping[str, str] | None = None,
    weight: int = 1,
    max_pipes: int | None = None,
    drain_seconds: float = 60.0,
    signals: bool = True,
) -> AsyncIterator[Registration]:
    """Registers the worker at `url` while the block runs; leaving it drains first, and withdraws then.

    `admin` and `token` come from HOLDLINE_ADMIN and HOLDLINE_TOKEN if not given. With `signals`, SIGTERM and SIGINT end
    `Registration.told_to_stop`; where a server takes SIGTERM for itself (uvicorn), it is told after the worker has left.
    What goes wrong meanwhile is a warning of the logger `holdline`.
    """
    body: dict[str, Any] = {"url": url, "pool": pool, "lease": lease, "instance": secrets.token_hex(8), "weight": weight}
    body |= {"serves": serves or [], "labels": dict(labels or {}), "max_pipes": max_pipes}
    body["health"] = dict(health) if health else None
    registration = Registration(Admin(admin, token), id or f"py-{secrets.token_hex(4)}", body, drain_seconds)
    heard = Signals(registration.stop)
    if signals:
        heard.take()
    passing = asyncio.create_task(_pass_on(registration, heard)) if heard.are_a_servers else None
    try:
        yield registration
    finally:
        if passing:
            passing.cancel()
        await registration.leave()
        heard.give_back()


async def _pass_on(registration: Registration, heard: Signals) -> None:
    """Tells the server to end, once the worker has left."""
    await registration.told_to_stop()
    await registration.leave()
    heard.give_back()
    signal.raise_signal(signal.SIGTERM)
