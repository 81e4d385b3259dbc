"""What a worker can tell Holdline, and what Holdline tells a worker. Standard library only.

    async with holdline.register("ws://127.0.0.1:9001", id="w1") as registration:
        await registration.told_to_stop()      # SIGTERM, or the operator's drain
                                               # leaving the block drains first, then withdraws

Nothing here is needed to be a worker: what it buys is in docs/supervised.md and docs/workers.md of Holdline.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.client
import json
import os
import re
import secrets
import signal
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from typing import Any

__all__ = ["Refused", "Registration", "Resume", "commit", "register"]

ADMIN = "http://127.0.0.1:9000"
REQUEST_SECONDS = 5.0
PAUSE_SECONDS = (0.1, 2.0)
DRAIN_LOOK_SECONDS = 0.2
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


class Refused(Exception):
    """The admin API said no: its status and what it said."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status


def _call(admin: str, token: str | None, method: str, path: str, body: object | None) -> Any:
    """One request on a connection of its own."""
    parts = urllib.parse.urlsplit(admin)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=REQUEST_SECONDS)
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    said = json.loads(text) if text else None
    if answer.status >= 400:
        raise Refused(answer.status, (said or {}).get("detail", answer.reason))
    return said


def _seconds(text: str) -> float:
    """`15s`, `500ms`, `1m`."""
    found = re.fullmatch(r"(\d+)(ms|s|min|m|h)", text)
    if not found:
        raise ValueError(f"{text!r} is not a duration such as '15s'")
    return int(found[1]) * UNITS[found[2]]


class Registration:
    """A worker's place among Holdline's backends; made by `register`."""

    def __init__(self, admin: str, token: str | None, id: str, body: dict[str, Any]) -> None:
        self.id = id
        self.directives: list[str] = []
        self._admin, self._token, self._body = admin, token, body
        self._path = f"/v1/backends/{urllib.parse.quote(id, safe='')}"
        self._renew_seconds = _seconds(body["lease"]) / 3
        self._registered = asyncio.Event()
        self._stop = asyncio.Event()

    async def _ask(self, method: str, below: str = "", body: object | None = None) -> Any:
        return await asyncio.to_thread(_call, self._admin, self._token, method, self._path + below, body)

    async def registered(self) -> None:
        """Waits until Holdline knows the worker."""
        await self._registered.wait()

    async def told_to_stop(self) -> None:
        """Waits for SIGTERM, SIGINT, or an operator's wish that the worker drains."""
        await self._stop.wait()

    def stop(self) -> None:
        """Ends `told_to_stop`."""
        self._stop.set()

    async def _keep(self) -> None:
        """Registers, renews, and registers again when Holdline has forgotten the worker (404)."""
        pause = PAUSE_SECONDS[0]
        while True:
            try:
                await self._ask("PUT", body=self._body)
                self._registered.set()
                pause = PAUSE_SECONDS[0]
                await self._renew()
            except (OSError, http.client.HTTPException, Refused):
                pass  # it is tried again: Holdline may be restarting, or the id still be another's
            await asyncio.sleep(pause)
            pause = min(pause * 2, PAUSE_SECONDS[1])

    async def _renew(self) -> None:
        after = self._renew_seconds
        while True:
            await asyncio.sleep(after)
            try:
                answer = await self._ask("PUT", "/lease", {})
            except Refused as refused:
                if refused.status == 404:
                    return
                raise
            self.directives = answer["directives"]
            after = _seconds(answer["renew_after"])
            if self.directives:
                self._stop.set()

    async def _drain(self) -> None:
        """Takes no more pipes, and waits until the last one has moved."""
        body = {**self._body, "state": "drain"}
        while True:
            answer = await self._ask("PUT", body=body)  # saying it again renews the lease
            if not answer["pipes"] and not answer["requests"]:
                return
            await asyncio.sleep(DRAIN_LOOK_SECONDS)


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
    drain_seconds: float = 60.0,
    signals: bool = True,
) -> AsyncIterator[Registration]:
    """Registers the worker at `url` while the block runs; leaving it drains first, and withdraws then.

    `admin` and `token` come from HOLDLINE_ADMIN and HOLDLINE_TOKEN if not given. With `signals`, SIGTERM and SIGINT end
    `Registration.told_to_stop`.
    """
    admin = admin or os.environ.get("HOLDLINE_ADMIN") or ADMIN
    if "://" not in admin:
        admin = f"http://{admin}"
    token = token or os.environ.get("HOLDLINE_TOKEN") or None
    body = {"url": url, "pool": pool, "lease": lease, "serves": serves or [], "labels": dict(labels or {})}
    body["instance"] = secrets.token_hex(8)
    registration = Registration(admin, token, id or f"py-{secrets.token_hex(4)}", body)
    loop = asyncio.get_running_loop()
    heard = (signal.SIGTERM, signal.SIGINT) if signals else ()
    for number in heard:
        loop.add_signal_handler(number, registration.stop)
    keeping = asyncio.create_task(registration._keep())
    try:
        yield registration
    finally:
        keeping.cancel()
        with contextlib.suppress(OSError, http.client.HTTPException, Refused, TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(registration._drain(), drain_seconds)
        with contextlib.suppress(OSError, http.client.HTTPException, Refused):
            await registration._ask("DELETE")
        for number in heard:
            loop.remove_signal_handler(number)


@dataclasses.dataclass(frozen=True)
class Resume:
    """What the headers of an attach say; `of` reads them from any mapping of header names."""

    pipe: str
    """The conversation, the same on every worker."""
    attach: int
    """1 for the first worker of the pipe, and one more for each later one."""
    cause: str | None
    """Why the worker before was left, on a reattach."""
    replayed: int
    """Messages that come again first, because they were not confirmed."""
    previous: str | None
    """The backend that had the pipe before."""

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Resume | None:
        """Nothing if the request did not come through Holdline."""
        found = {name.lower(): value for name, value in headers.items()}
        if "holdline-pipe" not in found:
            return None
        replay = found.get("holdline-replay", "0").split(";")[0].strip()
        return cls(
            pipe=found["holdline-pipe"],
            attach=int(found.get("holdline-attach", "1")),
            cause=found.get("holdline-cause"),
            replayed=int(replay) if replay.isdigit() else 0,
            previous=found.get("holdline-previous"),
        )


async def commit(pipe: str, attach: int, seq: int, *, admin: str | None = None, token: str | None = None) -> int:
    """Says that the application has done with all messages of the pipe up to `seq`; the number that is confirmed now."""
    admin = admin or os.environ.get("HOLDLINE_ADMIN") or ADMIN
    if "://" not in admin:
        admin = f"http://{admin}"
    token = token or os.environ.get("HOLDLINE_TOKEN") or None
    path = f"/v1/pipes/{urllib.parse.quote(pipe, safe='')}/commit"
    body = {"attachment": attach, "seq": seq}
    answer = await asyncio.to_thread(_call, admin, token, "POST", path, body)
    return int(answer["confirmed"])
