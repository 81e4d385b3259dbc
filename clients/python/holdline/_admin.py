"""How the admin API is asked: by TCP, by TLS or on a socket file, one connection for each request.

`HOLDLINE_ADMIN` says where it is, `HOLDLINE_TOKEN` with which token, and `HOLDLINE_ADMIN_CA`, `HOLDLINE_ADMIN_CERT` and
`HOLDLINE_ADMIN_KEY` what TLS goes by, as for `holdline ctl`.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import ssl
import urllib.parse
from typing import Any

DEFAULT = "http://127.0.0.1:9000"
REQUEST_SECONDS = 5.0
# Of an answer that is no problem document.
SAID_CHARACTERS_MAX = 200


class Refused(Exception):
    """The admin API said no: its status and what it said."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status


# What a request may end with instead of an answer.
FAILURES = (OSError, http.client.HTTPException, Refused)


class _SocketFile(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=REQUEST_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Admin:
    """Where the admin API is, and with which token it is asked."""

    def __init__(self, address: str | None = None, token: str | None = None) -> None:
        self.address = address or os.environ.get("HOLDLINE_ADMIN") or DEFAULT
        self._token = token or os.environ.get("HOLDLINE_TOKEN") or None
        self._socket_file = self.address[len("unix:") :] if self.address.startswith("unix:") else None
        self._parts = urllib.parse.urlsplit(self.address if "://" in self.address else f"http://{self.address}")
        if self._socket_file is None and (self._parts.scheme not in ("http", "https") or not self._parts.port):
            forms = "http://127.0.0.1:9000, https://10.0.0.1:9000 or unix:/run/holdline/admin.sock"
            raise ValueError(f"{self.address!r} is no admin API; write it like {forms}")

    async def ask(self, method: str, path: str, body: object | None = None) -> Any:
        """What it answers. Raises one of `FAILURES`."""
        return await asyncio.to_thread(self._ask, method, path, body)

    def _connection(self) -> http.client.HTTPConnection:
        if self._socket_file is not None:
            return _SocketFile(self._socket_file)
        host, port = self._parts.hostname or "127.0.0.1", self._parts.port
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=REQUEST_SECONDS, context=_tls())
        return http.client.HTTPConnection(host, port, timeout=REQUEST_SECONDS)

    def _ask(self, method: str, path: str, body: object | None) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        connection = self._connection()
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        finally:
            connection.close()
        try:
            said = json.loads(text) if text else None
        except ValueError:
            said = {"detail": f"no answer of an admin API: {text[:SAID_CHARACTERS_MAX]}"}
            raise Refused(answer.status, said["detail"]) from None
        if answer.status >= 400:
            raise Refused(answer.status, _detail(said) or answer.reason)
        return said


def _detail(problem: Any) -> str:
    """What a problem document says, with each field of which it says another thing."""
    if not isinstance(problem, dict):
        return ""
    detail, errors = str(problem.get("detail", "")), problem.get("errors") or []
    other = (error for error in errors if isinstance(error, dict) and error.get("message") != detail)
    return "; ".join([detail, *(f"{error.get('pointer', '')}: {error.get('message', '')}" for error in other)])


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=os.environ.get("HOLDLINE_ADMIN_CA") or None)
    # The file may be the certificate itself, and not an authority's.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    certificate = os.environ.get("HOLDLINE_ADMIN_CERT")
    if certificate:
        context.load_cert_chain(certificate, os.environ.get("HOLDLINE_ADMIN_KEY"))
    return context
