"""What the headers of an attach say, and how the application says what it has done."""

from __future__ import annotations

import dataclasses
import itertools
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ._admin import Admin


@dataclasses.dataclass(frozen=True)
class Resume:
    """What the headers of an attach say; `of` reads them."""

    pipe: str
    """The conversation, the same on every worker."""
    attach: int
    """1 for the first worker of the pipe, and one more for each later one."""
    cause: str | None = None
    """Why the worker before was left, on a reattach."""
    replayed: int = 0
    """Messages that come again first, because they were not confirmed."""
    previous: str | None = None
    """The backend that had the pipe before."""
    first_seq: int = 1
    """The number of the first message that comes now."""
    replayed_bytes: int = 0
    confirmed: int = 0
    """Up to there the workers before had confirmed."""
    level: str | None = None
    """How sure that is: `written`, `pong` or `app`."""
    gap: tuple[int, int] | None = None
    """The first and the last of the messages that were given up."""
    prologue: int = 0
    """Messages that say the beginning again; they come before all others, and have no number."""

    @classmethod
    def of(cls, request: Any) -> Resume | None:
        """Reads a mapping of headers, an ASGI scope, or what has headers: a request or a socket of Starlette, FastAPI,
        aiohttp or websockets. Nothing if the request did not come through Holdline.
        """
        found = dict(_headers(request))
        if "holdline-pipe" not in found:
            return None
        replay = re.match(r"(\d+)(?:; *bytes=(\d+))?", found.get("holdline-replay", "0"))
        confirmed = re.match(r"(\d+)(?:; *level=(\w+))?", found.get("holdline-confirmed", "0"))
        gap = re.fullmatch(r"(\d+)-(\d+)", found.get("holdline-gap", "none"))
        return cls(
            pipe=found["holdline-pipe"],
            attach=int(found.get("holdline-attach", "1")),
            cause=found.get("holdline-cause"),
            replayed=int(replay[1]) if replay else 0,
            previous=found.get("holdline-previous"),
            first_seq=int(found.get("holdline-first-seq", "1")),
            replayed_bytes=int(replay[2] or 0) if replay else 0,
            confirmed=int(confirmed[1]) if confirmed else 0,
            level=confirmed[2] if confirmed else None,
            gap=(int(gap[1]), int(gap[2])) if gap else None,
            prologue=int(found.get("holdline-prologue", "0")),
        )

    def numbers(self, rx: int | None = None) -> Iterator[int]:
        """The number of each message that comes on this attach, in order; 0 for those that say the beginning again.

        `rx`: what the worker's answer said, if it was `Holdline-Resume: ok; rx=…`.
        """
        if rx is None:
            return itertools.chain([0] * self.prologue, itertools.count(self.first_seq))
        return itertools.count(max(self.first_seq, rx + 1))

    async def commit(self, seq: int, *, admin: str | None = None, token: str | None = None) -> int:
        """As `commit`, for this attach."""
        return await commit(self.pipe, self.attach, seq, admin=admin, token=token)


def _headers(request: Any) -> Iterable[tuple[str, str]]:
    """Names in lower case, and values."""
    if isinstance(request, Mapping) and not isinstance(request.get("headers"), (list, tuple)):
        pairs = request.items()
    elif isinstance(request, Mapping):
        pairs = request["headers"]
    else:
        holder = request if hasattr(request, "headers") else request.request
        pairs = holder.headers.raw_items() if hasattr(holder.headers, "raw_items") else holder.headers.items()
    return ((_text(name).lower(), _text(value)) for name, value in pairs)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


async def commit(pipe: str, attach: int, seq: int, *, admin: str | None = None, token: str | None = None) -> int:
    """Says that the application has done with all messages of the pipe up to `seq`; the number that is confirmed now.

    For routes with `confirm = "commit"`, and workers whose library sends no pong `A<seq>` by itself. Raises `Refused`: 404 when
    the pipe is over, 409 when it has another worker.
    """
    path = f"/v1/pipes/{urllib.parse.quote(pipe, safe='')}/commit"
    answer = await Admin(admin, token).ask("POST", path, {"attachment": attach, "seq": seq})
    return int(answer["confirmed"])
