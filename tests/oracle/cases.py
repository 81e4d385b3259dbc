"""What is sent to the three proxies, and what a worker answers them: one entry for each malformed or odd thing.

`spec` is Holdline's status where the contract names one. `forged` is a text that must not reach the worker.
"""

from dataclasses import dataclass

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


@dataclass(frozen=True)
class Request:
    name: str
    bytes: bytes
    spec: int | None = None
    forged: str | None = None


@dataclass(frozen=True)
class Answer:
    """`head` is the worker's answer, with {accept} for the right Sec-WebSocket-Accept."""

    name: str
    head: bytes
    spec: int | None = None
    forged: str | None = None
    asks: str = "websocket"


def handshake(path="/ws", more="", **replaced):
    lines = {
        "request": f"GET {path} HTTP/1.1",
        "host": "Host: app.example",
        "upgrade": "Upgrade: websocket",
        "connection": "Connection: Upgrade",
        "version": "Sec-WebSocket-Version: 13",
        "key": f"Sec-WebSocket-Key: {KEY}",
    }
    lines.update(replaced)
    head = "".join(f"{line}\r\n" for line in lines.values() if line)
    return f"{head}{more}\r\n".encode("latin-1")


def plain(framing, body="", request="POST /up HTTP/1.1"):
    return f"{request}\r\nHost: app.example\r\n{framing}\r\n{body}".encode("latin-1")


KEY_LINE = f"Sec-WebSocket-Key: {KEY}"
VERSION_LINE = "Sec-WebSocket-Version: 13"
CHUNKED = "Transfer-Encoding: chunked\r\n"

HANDSHAKES = [
    Request("a proper handshake", handshake(), 101),
    Request("no key", handshake(key=""), 400),
    Request("a short key", handshake(key="Sec-WebSocket-Key: c2hvcnQ="), 400),
    Request("a key that is no base64", handshake(key="Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!!!"), 400),
    Request("two keys", handshake(key=f"{KEY_LINE}\r\n{KEY_LINE}"), 400),
    Request("no version", handshake(version=""), 426),
    Request("version 8", handshake(version="Sec-WebSocket-Version: 8"), 426),
    Request("two versions", handshake(version=f"{VERSION_LINE}\r\n{VERSION_LINE}"), 426),
    Request("an upgrade to h2c", handshake(upgrade="Upgrade: h2c")),
    Request("an upgrade to websocket or h2c", handshake(upgrade="Upgrade: websocket, h2c"), 400),
    Request("two upgrades", handshake(upgrade="Upgrade: websocket\r\nUpgrade: h2c"), 400),
    Request("an upgrade that Connection does not name", handshake(connection="Connection: keep-alive"), 400),
    Request("a handshake with a body", handshake(more="Content-Length: 5\r\n") + b"hello", 400),
    Request("a handshake with Content-Length: 0", handshake(more="Content-Length: 0\r\n"), 101),
    Request("a handshake in chunks", handshake(more=CHUNKED) + b"0\r\n\r\n", 400),
    Request("a handshake with both framings", handshake(more=f"Content-Length: 3\r\n{CHUNKED}") + b"0\r\n\r\n", 400),
    Request("POST", handshake(request="POST /ws HTTP/1.1"), 405),
    Request("HEAD", handshake(request="HEAD /ws HTTP/1.1"), 405),
    Request("CONNECT", handshake(request="CONNECT app.example:80 HTTP/1.1"), 405),
    Request("TRACE", handshake(request="TRACE /ws HTTP/1.1"), 405),
    Request("a method in lower case", handshake(request="get /ws HTTP/1.1")),
    Request("HTTP/1.0", handshake(request="GET /ws HTTP/1.0"), 400),
    Request("HTTP/2.0 by name", handshake(request="GET /ws HTTP/2.0")),
    Request("HTTP/1.9", handshake(request="GET /ws HTTP/1.9")),
    Request("no protocol version", b"GET /ws\r\n\r\n"),
    Request("no Host", handshake(host=""), 400),
    Request("two Hosts", handshake(host="Host: a.example\r\nHost: b.example"), 400),
    Request("the same Host twice", handshake(host="Host: a.example\r\nHost: a.example"), 400),
    Request("two Hosts in one line", handshake(host="Host: a.example, b.example"), 400),
    Request("an empty Host", handshake(host="Host:")),
    Request("a Host with a user", handshake(host="Host: a.example@b.example")),
    Request("a Host with a path", handshake(host="Host: a.example/b")),
    Request("a Host with a port that is none", handshake(host="Host: a.example:x")),
    Request("a Host with an address and a tail", handshake(host="Host: [::1].b.example")),
    Request("a target of another host", handshake(path="http://b.example/ws")),
    Request("a target with a user", handshake(path="http://u@b.example/ws")),
    Request("a target without a path", handshake(path="ws"), 400),
    Request("a target with a fragment", handshake(path="/ws#x")),
    Request("a target with a space", handshake(path="/w s")),
    Request("a target with a control character", handshake(path="/ws\x01")),
    Request("a target with a byte over 127", handshake(path="/ws\xff")),
    Request("a target that goes up", handshake(path="/a/../../ws")),
    Request("a target that goes up in disguise", handshake(path="/a/%2e%2e/%2e%2e/ws")),
    Request("a target with a null in disguise", handshake(path="/ws%00")),
    Request("two spaces in the request line", handshake(request="GET  /ws HTTP/1.1")),
    Request("a tab in the request line", handshake(request="GET\t/ws HTTP/1.1")),
    Request("an empty line before the request", b"\r\n" + handshake()),
    Request("a header before the request", b"X: y\r\n" + handshake()),
    Request("line ends without CR", handshake().replace(b"\r\n", b"\n")),
    Request("a space before a colon", handshake(host="Host : app.example")),
    Request("a space before a header", handshake(host=" Host: app.example")),
    Request("a folded header", handshake(host="Host: app.example\r\n folded"), forged="folded"),
    Request("a header without a colon", handshake(more="X-Odd\r\n")),
    Request("a header without a name", handshake(more=": odd\r\n")),
    Request("a header name with a space", handshake(more="X Odd: a\r\n")),
    Request("a header name with a byte over 127", handshake(more="X\xffOdd: a\r\n")),
    Request("CR in a value", handshake(more="X-Odd: a\rX-Forged: b\r\n"), forged="forged"),
    Request("LF in a value", handshake(more="X-Odd: a\nX-Next: b\r\n")),
    Request("NUL in a value", handshake(more="X-Odd: a\0b\r\n")),
    Request("a control character in a value", handshake(more="X-Odd: a\x01b\r\n")),
    Request("a head of 80 KiB in one line", handshake(more=f"X-Filler: {'x' * (80 << 10)}\r\n"), 431),
    Request("a head of 80 KiB in many lines", handshake(more="X-Filler: xxxxxxxxxxxxxxxxx\r\n" * 3000), 431),
    Request("a target of 80 KiB", handshake(path=f"/ws/{'x' * (80 << 10)}"), 431),
    Request(
        "Connection names a header",
        handshake(connection="Connection: Upgrade, X-Hop", more="X-Hop: forged\r\n"),
        101,
        "forged",
    ),
    Request("Connection names Host", handshake(connection="Connection: Upgrade, Host"), 101),
    Request("Connection names the key", handshake(connection="Connection: Upgrade, Sec-WebSocket-Key"), 101),
    Request("Keep-Alive, TE and Proxy-Connection", handshake(more="TE: forged\r\nProxy-Connection: forged\r\n"), 101, "forged"),
    Request("X-Forwarded-For with an underscore", handshake(more="X_Forwarded_For: forged\r\n"), 101, "forged"),
]

PLAIN = [
    Request("a proper POST", plain("Content-Length: 5\r\n", "hello")),
    Request("a length, then chunks", plain(f"Content-Length: 5\r\n{CHUNKED}", "0\r\n\r\n")),
    Request("chunks, then a length", plain(f"{CHUNKED}Content-Length: 5\r\n", "0\r\n\r\n")),
    Request("two lengths that differ", plain("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!")),
    Request("the same length twice", plain("Content-Length: 5\r\nContent-Length: 5\r\n", "hello")),
    Request("a list of lengths", plain("Content-Length: 5, 5\r\n", "hello")),
    Request("a length with a sign", plain("Content-Length: +5\r\n", "hello")),
    Request("a negative length", plain("Content-Length: -5\r\n", "hello")),
    Request("a length in hex", plain("Content-Length: 0x5\r\n", "hello")),
    Request("an empty length", plain("Content-Length:\r\n", "hello")),
    Request("a length over 2^64", plain("Content-Length: 99999999999999999999\r\n", "hello")),
    Request("an unknown coding", plain("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n")),
    Request("chunked, then another coding", plain("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n")),
    Request("another coding, then chunked", plain("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")),
    Request("chunked twice", plain(f"{CHUNKED}{CHUNKED}", "0\r\n\r\n")),
    Request("chunked twice in one line", plain("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n")),
    Request("chunked behind a vertical tab", plain("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n")),
    Request("chunked in quotes", plain('Transfer-Encoding: "chunked"\r\n', "0\r\n\r\n")),
    Request("chunked under HTTP/1.0", plain(CHUNKED, "0\r\n\r\n", "POST /up HTTP/1.0")),
    Request("a chunk size with a prefix", plain(CHUNKED, "0x5\r\nhello\r\n0\r\n\r\n")),
    Request("a chunk size with a sign", plain(CHUNKED, "+5\r\nhello\r\n0\r\n\r\n")),
    Request("a negative chunk size", plain(CHUNKED, "-5\r\nhello\r\n0\r\n\r\n")),
    Request("a chunk size over 2^64", plain(CHUNKED, "fffffffffffffffff\r\nhello\r\n0\r\n\r\n")),
    Request("an empty chunk size", plain(CHUNKED, "\r\nhello\r\n0\r\n\r\n")),
    Request("a chunk that is longer than it says", plain(CHUNKED, "4\r\nhello\r\n0\r\n\r\n")),
    Request("a chunk line that ends without CR", plain(CHUNKED, "5\nhello\r\n0\r\n\r\n")),
    Request("a chunk extension with a bare LF", plain(CHUNKED, "5;a\nb\r\nhello\r\n0\r\n\r\n")),
    Request("a chunk extension", plain(CHUNKED, "5;a=b\r\nhello\r\n0\r\n\r\n")),
    Request("a GET with a body", plain("Content-Length: 5\r\n", "hello", "GET /up HTTP/1.1")),
    Request("Expect: something else", plain("Expect: 200-ok\r\nContent-Length: 5\r\n", "hello")),
]


def switching(more="", **replaced):
    lines = {
        "status": "HTTP/1.1 101 Switching Protocols",
        "upgrade": "Upgrade: websocket",
        "connection": "Connection: Upgrade",
        "accept": "Sec-WebSocket-Accept: {accept}",
    }
    lines.update(replaced)
    return ("".join(f"{line}\r\n" for line in lines.values() if line) + f"{more}\r\n").encode("latin-1")


ANSWERS = [
    Answer("a proper 101", switching(), 101),
    Answer("a wrong Sec-WebSocket-Accept", switching(accept="Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA="), 502),
    Answer("no Sec-WebSocket-Accept", switching(accept=""), 502),
    Answer("an upgrade to something else", switching(upgrade="Upgrade: h2c"), 502),
    Answer("no Upgrade", switching(upgrade=""), 502),
    Answer("Connection: close", switching(connection="Connection: close"), 502),
    Answer("a 101 of HTTP/1.0", switching(status="HTTP/1.0 101 Switching Protocols"), 502),
    Answer("an extension that was not asked for", switching("Sec-WebSocket-Extensions: permessage-deflate\r\n"), 502),
    Answer("a subprotocol that was not asked for", switching("Sec-WebSocket-Protocol: chat\r\n"), 502),
    Answer("a 101 to a plain GET", switching(), 502, asks="plain"),
    Answer("CR in a value", switching("X-Odd: a\rX-Forged: b\r\n"), 502, forged="forged"),
    Answer("NUL in a value", switching("X-Odd: a\0b\r\n"), 502),
    Answer("a folded header", switching("X-Odd: a\r\n folded\r\n"), forged="folded"),
    Answer("a space before a colon", switching("X-Odd : a\r\n")),
    Answer("a header without a colon", switching("X-Odd\r\n")),
    Answer("a head of 80 KiB", switching(f"X-Filler: {'x' * (80 << 10)}\r\n"), 502),
    Answer("103, then 101", b"HTTP/1.1 103 Early Hints\r\n\r\n" + switching()),
    Answer("a 101 whose Connection names a header", switching("X-Hop: forged\r\n", connection="Connection: Upgrade, X-Hop"), 101, "forged"),
    Answer("403 and a second answer behind it", b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nnoHTTP/1.1 200 OK\r\nX: forged\r\n\r\n", 403, "forged"),
    Answer("204 with a body", b"HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\nforged", 204, "forged"),
    Answer("two lengths that differ", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", asks="plain"),
    Answer("a length and chunks", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", asks="plain"),
    Answer("a status that is no number", b"HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n", asks="plain"),
    Answer("another protocol", b"SSH-2.0-OpenSSH_9.6\r\n\r\n", 502),
    Answer("nothing", b"", 502),
]

# Where a peer refuses and Holdline does not, each with the reason. An entry that is not needed any more fails.
LAXER = {
    "handshake: a target of another host": "the target's host counts and is what the worker is told (RFC 9112 section 3.2.2)",
    "handshake: a target with a fragment": "the fragment is cut off before anything looks at the target",
    "plain: a length, then chunks": "the length goes no further, and the connection is closed (RFC 9112 section 6.1)",
    "plain: chunks, then a length": "the length goes no further, and the connection is closed (RFC 9112 section 6.1)",
    "plain: the same length twice": "one length goes on (RFC 9112 section 6.3)",
    "plain: a chunk that is longer than it says": "bodies are streamed: the worker has the head, and its request is cut off",
    "answer: 103, then 101": "interim answers may come before any other (RFC 9110 section 15.2)",
}
