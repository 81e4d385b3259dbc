//! The strict handshake over HTTP/2 (RFC 8441): each input of `handshake` as frames, with its exact answer.
//!
//! What is malformed is a stream error (RFC 9113 section 8.1.1). What is no name or no value of a header at all ends the
//! connection, as section 5.4.1 allows.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::handshake::NO_PROOFS;
use crate::rig::{Backend, Proxy, Raw, frame};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

const MIB: usize = 1 << 20;

/// The longest frame that may be sent (RFC 9113 section 4.2).
const FRAME_BYTES: usize = 16 << 10;

/// What may be sent on a stream ahead of what is read, whether the other side's settings have come or not.
const WINDOW_BYTES: usize = (64 << 10) - 1;

type Field<'a> = (&'a str, &'a str);

/// A good handshake.
const GOOD: [Field<'_>; 6] = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "https"),
    (":authority", "app.example"),
    (":path", "/ws/x"),
    ("sec-websocket-version", "13"),
];

/// A good plain request.
const PLAIN: [Field<'_>; 4] =
    [(":method", "POST"), (":scheme", "https"), (":authority", "app.example"), (":path", "/up")];

/// The good handshake with `name` replaced by these values, or without it.
fn with<'a>(name: &'a str, values: &[&'a str]) -> Vec<Field<'a>> {
    let at = GOOD.iter().position(|(known, _)| *known == name).unwrap_or(GOOD.len());
    let rest = GOOD.iter().skip(at + 1).copied();
    GOOD[..at].iter().copied().chain(values.iter().map(|value| (name, *value))).chain(rest).collect()
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Status(u16),
    Reset(u32),
    /// The whole connection ends with this code.
    GoAway(u32),
    /// It ends without a word.
    Gone,
}

use Outcome::{GoAway, Gone, Reset, Status};

/// One connection, frame by frame.
struct Connection(Raw);

impl Connection {
    fn to(proxy: &Proxy) -> Self {
        let mut raw = Raw::to(proxy.public);
        raw.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut connection = Self(raw);
        connection.send(SETTINGS, 0, 0, &[]);
        connection
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = (payload.len() as u32).to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.send([&head[..], payload].concat())
    }

    /// Sends the head of a request that goes on.
    fn ask(&mut self, stream: u32, fields: &[Field<'_>]) {
        self.send(HEADERS, END_HEADERS, stream, &block(fields));
    }

    fn data(&mut self, stream: u32, bytes: &[u8], flags: u8) {
        let mut pieces = bytes.chunks(FRAME_BYTES).peekable();
        while let Some(piece) = pieces.next() {
            self.send(DATA, if pieces.peek().is_none() { flags } else { 0 }, stream, piece);
        }
    }

    /// The next frame: its kind, its stream and its payload.
    fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let head = self.0.take(9)?;
        let payload = self.0.take(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize)?;
        Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// What becomes of the request on `stream`.
    fn outcome(&mut self, stream: u32) -> Outcome {
        while let Some((kind, on, payload)) = self.next() {
            match kind {
                HEADERS if on == stream => return Status(status_of(&payload)),
                RST_STREAM if on == stream => return Reset(number(&payload)),
                GOAWAY if number(&payload[4..]) != 0 => return GoAway(number(&payload[4..])),
                _ => {}
            }
        }
        Gone
    }

    /// The next bytes of `stream`, so many.
    fn bytes(&mut self, stream: u32, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let (kind, on, payload) = self.next().expect("the connection goes on");
            if kind == DATA && on == stream {
                bytes.extend(payload);
            }
        }
        bytes
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

/// A header block, each field a literal with a new name (RFC 7541 section 6.2.2).
fn block(fields: &[Field<'_>]) -> Vec<u8> {
    let texts = fields.iter().flat_map(|(name, value)| [vec![0], literal(name), literal(value)]);
    texts.flatten().collect()
}

/// A string literal (RFC 7541 section 5.2) of up to 16 KiB.
fn literal(text: &str) -> Vec<u8> {
    let length = match text.len() {
        short @ 0..127 => vec![short as u8],
        long @ 127..255 => vec![127, (long - 127) as u8],
        long => vec![127, 0x80 | ((long - 127) & 0x7f) as u8, ((long - 127) >> 7) as u8],
    };
    [length, text.as_bytes().to_vec()].concat()
}

/// The status that begins a header block: one of the static table, or three digits, as they are or by Huffman's code
/// (RFC 7541 appendices A and B).
fn status_of(block: &[u8]) -> u16 {
    const KNOWN: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [indexed @ 0x88..=0x8e, ..] => KNOWN[usize::from(indexed - 0x88)],
        [0x08 | 0x18 | 0x48, 3, digits @ ..] => std::str::from_utf8(&digits[..3]).unwrap().parse().unwrap(),
        [0x08 | 0x18 | 0x48, coded, digits @ ..] if coded & 0x80 != 0 => {
            let mut bits = digits[..3.min(digits.len())].iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
            bits <<= 32 - 8 * digits.len().min(3);
            let mut digit = || {
                let (code, length) = if bits >> 27 < 3 { (bits >> 27, 5) } else { ((bits >> 26) - 22, 6) };
                bits <<= length;
                code as u16
            };
            (digit() * 10 + digit()) * 10 + digit()
        }
        _ => panic!("no status in {block:02x?}"),
    }
}

/// Handshakes that are none, and what becomes of each.
fn bad_handshakes() -> Vec<(Vec<Field<'static>>, Outcome)> {
    let version = "sec-websocket-version";
    let malformed = Reset(PROTOCOL_ERROR);
    vec![
        (with(version, &[]), Status(426)),
        (with(version, &["8"]), Status(426)),
        (with(version, &["13", "13"]), Status(426)),
        (with("sec-websocket-protocol", &["a, a"]), Status(400)),
        (with(":protocol", &["connect-udp"]), Status(501)),
        // What belongs to a connection (section 8.2.2).
        (with("upgrade", &["websocket"]), malformed),
        (with("connection", &["Upgrade"]), malformed),
        (with("transfer-encoding", &["chunked"]), malformed),
        (with("te", &["gzip"]), malformed),
        // A body.
        (with("content-length", &["5"]), Status(400)),
        (with("content-length", &["0"]), Status(400)),
        (with("content-length", &["0", "5"]), malformed),
        (with("content-length", &["+5"]), malformed),
        // The path.
        (with(":path", &["/ws/../x"]), Status(400)),
        (with(":path", &["/ws/%2e%2E/x"]), Status(400)),
        (with(":path", &["/ws/a%2fb"]), Status(400)),
        (with(":path", &["*"]), Status(400)),
        (with(":path", &["/ws/x\x01"]), malformed),
        (with(":path", &["/ws/x y"]), malformed),
        (with(":path", &["/ws/x HTTP/1.1\r\nX-Odd: a"]), malformed),
        (with(":path", &[""]), malformed),
        // The method.
        (with(":method", &["POST"]), malformed),
        (with(":method", &["GET"]), malformed),
        (with(":protocol", &[]), malformed),
        (vec![(":method", "CONNECT"), (":authority", "app.example:443")], Status(405)),
        ([&[(":method", "TRACE")][..], &GOOD[2..]].concat(), Status(405)),
        (with(":method", &["GET /secret HTTP/1.1\r\nX-Odd:"]), GoAway(PROTOCOL_ERROR)),
        // The host.
        (with(":authority", &[]), Status(400)),
        (with(":authority", &[""]), malformed),
        (with(":authority", &["a.example,b.example"]), Status(400)),
        (with(":authority", &["a.example, b.example"]), malformed),
        (with(":authority", &["user@app.example"]), Status(400)),
        (with(":authority", &["app.example\r\nX-Odd: a"]), malformed),
        (with("host", &["other.example"]), Status(400)),
        (with("host", &["app.example", "other.example"]), Status(400)),
        (with(":scheme", &["wss"]), Status(400)),
        (with(":scheme", &["ht tp"]), malformed),
        // Pseudo-headers that are missing, doubled or out of place (section 8.3).
        (with(":method", &[]), malformed),
        (with(":scheme", &[]), malformed),
        (with(":path", &[]), malformed),
        (with(":path", &["/ws/x", "/ws/y"]), malformed),
        ([&[(":status", "200")][..], &GOOD[..]].concat(), malformed),
        ([&[("x-first", "a")][..], &GOOD[..]].concat(), malformed),
        (with(":odd", &["a"]), GoAway(PROTOCOL_ERROR)),
        // What is no header.
        (with("X-Odd", &["a"]), GoAway(PROTOCOL_ERROR)),
        (with("x odd", &["a"]), GoAway(PROTOCOL_ERROR)),
        (with("x-odd:", &["a"]), GoAway(PROTOCOL_ERROR)),
        (with("x-odd\r\nx", &["a"]), GoAway(PROTOCOL_ERROR)),
        (with("", &["a"]), GoAway(PROTOCOL_ERROR)),
        (with("x-odd", &["a\rb"]), GoAway(PROTOCOL_ERROR)),
        (with("x-odd", &["a\nb"]), GoAway(PROTOCOL_ERROR)),
        (with("x-odd", &["a\0b"]), GoAway(PROTOCOL_ERROR)),
        (with("x-odd", &["a\r\nx-other: b"]), GoAway(PROTOCOL_ERROR)),
    ]
}

#[test]
fn a_malformed_handshake_is_refused_before_any_backend_is_dialled() {
    let mut proxy = Proxy::multiplexed();
    let backend = Backend::echo();
    proxy.register(backend.address);
    for (fields, expected) in bad_handshakes() {
        let mut client = Connection::to(&proxy);
        client.ask(1, &fields);
        assert_eq!(client.outcome(1), expected, "{fields:?}");
        assert_eq!(backend.heads(), [""; 0], "{fields:?}");
        // A path that no worker is asked for, on a connection that goes on.
        if !matches!(expected, GoAway(_)) {
            client.ask(3, &with(":path", &["/ws/../x"]));
            assert_eq!(client.outcome(3), Status(400), "behind {fields:?}");
        }
    }
    let mut other_protocol = Raw::to(proxy.public);
    other_protocol.send("GET /ws/x HTTP/1.1\r\nHost: app.example\r\n\r\n");
    assert!(!String::from_utf8_lossy(&other_protocol.rest()).contains("HTTP/1.1"));
    assert_eq!(backend.heads(), [""; 0]);
    proxy.assert_sound();
}

#[test]
fn what_a_stream_has_no_use_for_reaches_no_worker_and_refuses_no_client() {
    let mut proxy = Proxy::multiplexed();
    let backend = Backend::echo();
    proxy.register(backend.address);
    for more in [
        &[("sec-websocket-key", "c2hvcnQ="), ("sec-websocket-key", "c2hvcnQ=")][..],
        &[("sec-websocket-accept", "x"), ("host", "APP.example"), ("host", "app.example")],
        &[("te", "trailers"), ("expect", "100-continue"), ("http2-settings", "AAMAAABkAAQAAP__")],
        &[("holdline-attach", "99"), ("holdline-pipe", "forged"), ("x-forwarded-for", "6.6.6.6")],
    ] {
        let mut client = Connection::to(&proxy);
        client.ask(1, &[&GOOD[..], more].concat());
        let mut answer = client.outcome(1);
        if answer == Status(100) {
            answer = client.outcome(1);
        }
        assert_eq!(answer, Status(200), "{more:?}");
        let head = backend.heads().pop().unwrap().to_ascii_lowercase();
        for (name, count) in [("sec-websocket-key", 1), ("host", 1), ("holdline-attach", 1), ("x-forwarded-for", 1)] {
            assert_eq!(head.matches(&format!("\r\n{name}: ")).count(), count, "{name} in {head}");
        }
        for gone in ["c2hvcnq=", "accept: x", "expect", "http2-settings", "forged", ": 99", "6.6.6.6"] {
            assert!(!head.contains(gone), "{gone} in {head}");
        }
    }
    proxy.assert_sound();
}

#[test]
fn twenty_megabytes_of_headers_end_their_connection_and_cost_no_memory() {
    let mut proxy = Proxy::multiplexed();
    let backend = Backend::echo();
    proxy.register(backend.address);
    let filler = "x".repeat(1000);
    let mut long = Connection::to(&proxy);
    long.ask(1, &[&GOOD[..], &[("x-filler", filler.as_str()); 15]].concat());
    assert_eq!(long.outcome(1), Status(200), "it is not too long");
    let before = proxy.rss_bytes();
    let many = block(&[("x-filler", filler.as_str()); 16]);
    let whole = "y".repeat(FRAME_BYTES - 100);
    for more in [many, block(&[("x-filler", whole.as_str())])] {
        let mut client = Connection::to(&proxy);
        client.send(HEADERS, END_STREAM, 1, &block(&GOOD));
        let mut sent = 0;
        while sent < 20 * MIB && client.send(CONTINUATION, 0, 1, &more) {
            sent += more.len();
        }
        assert!(sent < 20 * MIB, "all of it was taken");
        // What was written behind the end may have thrown the word away that tells why.
        let end = client.outcome(1);
        assert!(matches!(end, GoAway(ENHANCE_YOUR_CALM) | Gone), "{end:?}");
        assert!(proxy.rss_bytes() < before + 4 * MIB as u64);
    }
    let mut client = Connection::to(&proxy);
    client.send(HEADERS, 0, 1, &block(&[&GOOD[..], &[("x-filler", filler.as_str()); 15]].concat()));
    client.send(CONTINUATION, 0, 1, &block(&[("x-filler", filler.as_str()); 15]));
    client.send(CONTINUATION, END_HEADERS, 1, &block(&[("x-filler", filler.as_str()); 5]));
    assert_eq!(client.outcome(1), Status(431));
    assert_eq!(backend.heads().len(), 1);
    proxy.assert_sound();
}

#[test]
fn what_came_with_a_handshake_that_was_refused_goes_nowhere() {
    for (refusal, expected) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nno way", Status(403)),
        ("HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nno way\r\n0\r\n\r\n", Status(403)),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Status(502)),
    ] {
        let mut proxy = Proxy::multiplexed();
        let (tell, told) = channel();
        let tell = Mutex::new(tell);
        let backend = Backend::start(move |mut peer, _, _| {
            peer.send(refusal);
            tell.lock().unwrap().send(peer.rest().len()).unwrap();
        });
        proxy.register(backend.address);
        let mut client = Connection::to(&proxy);
        client.ask(1, &GOOD);
        client.data(1, &b"GET /secret HTTP/1.1\r\nHost: app.example\r\n\r\n".repeat(1000), 0);
        assert_eq!(client.outcome(1), expected, "{refusal}");
        assert_eq!(told.recv().unwrap(), 0, "bytes that came behind the handshake");
        assert_eq!(backend.heads().len(), 1);
        proxy.assert_sound();
    }
}

#[test]
fn what_a_client_says_before_it_is_answered_waits_outside() {
    let mut proxy = Proxy::multiplexed();
    let (dialled, is_dialled) = channel();
    let (release, released) = channel::<()>();
    let gates = Mutex::new((dialled, released));
    let backend = Backend::start(move |mut peer, head, _| {
        let gates = gates.lock().unwrap();
        gates.0.send(()).unwrap();
        gates.1.recv().unwrap();
        peer.assert_silent();
        peer.upgrade(head);
        let (_, said) = peer.talk(false).unwrap();
        peer.send(frame(0x81, said.len().to_string().as_bytes(), false));
        peer.rest();
    });
    proxy.register(backend.address);
    let mut client = Connection::to(&proxy);
    client.ask(1, &GOOD);
    is_dialled.recv().unwrap();
    let said = frame(0x82, &[7; WINDOW_BYTES - 8], true);
    assert_eq!(said.len(), WINDOW_BYTES);
    client.data(1, &said, 0);
    // Each of these goes through the proxy's threads, so they had every chance to read on.
    for _ in 0..200 {
        assert_eq!(proxy.admin("GET", "/health/live", &[], "").0, 200);
    }
    release.send(()).unwrap();
    assert_eq!(client.outcome(1), Status(200));
    assert_eq!(client.bytes(1, 7), frame(0x81, b"65527", false));
    proxy.assert_sound();
}

#[test]
fn a_workers_101_that_proves_nothing_is_502() {
    for (number, answer) in NO_PROOFS.into_iter().enumerate() {
        let mut proxy = Proxy::multiplexed();
        let backend = Backend::start(move |mut peer, head, _| {
            peer.send(answer(head));
        });
        proxy.register(backend.address);
        let mut client = Connection::to(&proxy);
        client.ask(1, &GOOD);
        assert_eq!(client.outcome(1), Status(502), "answer {number}");
        proxy.assert_sound();
    }
}

#[test]
fn nothing_is_smuggled_behind_a_body_of_another_length() {
    let mut proxy = Proxy::multiplexed();
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    proxy.register(backend.address);
    let body = b"0\r\n\r\nGET /secret HTTP/1.1\r\nHost: app.example\r\n\r\n";
    let (length, less, more) = (body.len().to_string(), (body.len() - 1).to_string(), (body.len() + 1).to_string());
    let (length, less, more) = (length.as_str(), less.as_str(), more.as_str());
    for (lengths, expected) in [
        (&[][..], Status(200)),
        (&[length], Status(200)),
        (&[length, length], Status(200)),
        (&[less], Reset(PROTOCOL_ERROR)),
        (&[length, more], Reset(PROTOCOL_ERROR)),
        (&["49, 49"], Reset(PROTOCOL_ERROR)),
    ] {
        let lengths: Vec<_> = lengths.iter().map(|length| ("content-length", *length)).collect();
        let mut client = Connection::to(&proxy);
        client.ask(1, &[&PLAIN[..], &lengths].concat());
        client.data(1, body, END_STREAM);
        let outcome = client.outcome(1);
        // A worker that answers before it has read may be quicker than the length is wrong.
        assert!(outcome == expected || lengths.len() == 1 && outcome == Status(200), "{lengths:?}: {outcome:?}");
    }
    for head in backend.heads() {
        assert!(head.starts_with("POST /up "), "{head}");
        let lower = head.to_ascii_lowercase();
        let framed = ["\r\ncontent-length: ", "\r\ntransfer-encoding: "].map(|name| lower.matches(name).count());
        assert_eq!(framed.iter().sum::<usize>(), 1, "one framing: {head}");
    }
    proxy.assert_sound();
}
