//! The aware protocol from outside: what a client's bytes do to a pipe, however they come, and its lines of JSON.
//!
//! The corpus holds what a client says behind its 101, in frames whose masks are zeros mostly, so that a mutation of a byte
//! is one of what it says.

use std::sync::Arc;
use std::time::Duration;

use holdline::fallback::Said;
use holdline_core::aware::Heard;
use holdline_core::aware::first::{First, first_word};
use holdline_core::close::CloseFrame;
use holdline_core::frame::{self, Opcode, Side};
use holdline_core::ids::{Attachment, BackendKey, Generation, PipeId};
use holdline_core::pipe::{Action, Fact, Input, Introduction, Peer, Pipe};
use holdline_core::settings::PipeSettings;
use holdline_core::shared::cutter::{Cutter, Piece};
use holdline_core::snapshot::Snapshot;
use holdline_core::time::Time;

/// Bytes of a client's message here.
const MESSAGE_BYTES_MAX: usize = 4096;

/// What a client's bytes came to.
#[derive(PartialEq, Eq, Debug, Default)]
struct Heeded {
    /// What the worker was given.
    messages: Vec<(Opcode, Vec<u8>)>,
    /// What the worker and the client were told at the end.
    closed: [Option<(u16, String)>; 2],
    /// Numbers that had come before, and that were given up.
    repeated: u64,
    missing: u64,
}

/// What any bytes do to the reader of a first word, and to a pipe that they are said to.
pub fn read(bytes: &[u8]) {
    let _ = Heard::read(bytes);
    if let First::Word(word, len) = first_word(bytes) {
        assert!(len <= bytes.len());
        assert_eq!(first_word(&bytes[..len]), First::Word(word, len), "a word ends where it ends");
        assert_eq!(first_word(&bytes[..len - 1]), First::More, "a word is whole at its last byte");
    }
    let whole = heed(bytes, usize::MAX);
    let piece = 1 + bytes.iter().fold(bytes.len(), |sum, &byte| sum + usize::from(byte)) % 7;
    assert_eq!(heed(bytes, piece), whole, "in pieces of {piece} bytes it is something else");
}

/// What a line of the fallback is inside, and back.
pub fn line(bytes: &[u8]) {
    let Ok(said) = Said::parse(bytes) else { return };
    let framed = said.frame([0; 4]);
    let header = frame::parse(&framed, Side::Client).expect("a right frame").expect("a whole one");
    let payload = &framed[header.header_len..];
    match &said {
        Said::Message { .. } => {
            let back = said.seq().map(|seq| said_again(seq, header.opcode, payload));
            assert_eq!(back.as_ref(), Some(&said));
        }
        // What is no right word inside is refused there: the client is told 4905.
        Said::Ack(n) => assert_eq!(Heard::read(payload), Ok(Heard::Ack { n: *n })),
        Said::Control(_) => assert_eq!(payload.first(), Some(&b'!')),
    }
}

/// The message in `payload`, which bears this number.
fn said_again(seq: u64, opcode: Opcode, payload: &[u8]) -> Said {
    let prefix_bytes = match opcode {
        Opcode::Binary => 1 + payload[1..].iter().position(|byte| byte & 0x80 == 0).expect("the number ends") + 1,
        _ => payload.iter().position(|&byte| byte == b';').expect("the number ends") + 1,
    };
    Said::Message { seq, opcode, payload: payload[prefix_bytes..].to_vec() }
}

/// A pipe hears these bytes in pieces, and goes to another process amid them.
fn heed(bytes: &[u8], piece: usize) -> Heeded {
    let settings = Arc::new(PipeSettings {
        client_grace: Some(Duration::from_secs(60)),
        message_bytes_max: MESSAGE_BYTES_MAX,
        ..PipeSettings::default()
    });
    let now = Time::from_micros(1_000_000);
    let mut pipe = Pipe::open(settings.clone(), BackendKey(1), 3, now);
    pipe.expect_hello(Introduction { id: PipeId::from_bytes([0; 16]), epoch: 1, token: "t".to_owned() }, now);
    let mut heeded = Heeded::default();
    let mut given: [Vec<u8>; 2] = Default::default();
    pipe.receive(Peer::Backend(Attachment::FIRST), Input::Copy(b"\x81\x04down"), now);
    // What it acknowledges must have been sent by then, however its words come.
    let mut at = if let First::Word(_, len) = first_word(bytes) { len } else { 0 };
    if at > 0 {
        pipe.receive(Peer::Client(Generation::FIRST), Input::Copy(&bytes[..at]), now);
        pump(&mut pipe, &mut given, &mut heeded, now);
    }
    let half = (at + bytes.len()) / 2;
    while at < bytes.len() {
        let end = bytes.len().min(at.saturating_add(piece));
        pipe.receive(Peer::Client(Generation::FIRST), Input::Copy(&bytes[at..end]), now);
        pump(&mut pipe, &mut given, &mut heeded, now);
        if at <= half && half < end && end < bytes.len() {
            let frozen = Snapshot::from_bytes(pipe.snapshot(now).into_bytes()).expect("it was a snapshot");
            pipe = Pipe::restore(&frozen, settings.clone(), 4, now).expect("what was frozen thaws");
        }
        at = end;
    }
    let [up, down] = given;
    read_worker(&up, &mut heeded);
    heeded.closed[1] = closed(&down);
    heeded
}

/// Both links take all that they are due.
fn pump(pipe: &mut Pipe, given: &mut [Vec<u8>; 2], heeded: &mut Heeded, now: Time) {
    loop {
        let before = given.iter().map(Vec::len).sum::<usize>();
        for (side, given) in [Side::Backend, Side::Client].into_iter().zip(given.iter_mut()) {
            let gather = pipe.gather(side, now);
            let bytes: Vec<u8> = gather.as_slices().iter().flat_map(|slice| slice.to_vec()).collect();
            pipe.transmitted(side, bytes.len(), now);
            given.extend(bytes);
        }
        while let Some(action) = pipe.next_action() {
            match action {
                Action::Report(Fact::Repeated { messages, .. }) => heeded.repeated += messages,
                Action::Report(Fact::Gap { messages, .. }) => heeded.missing += messages.unwrap_or(0),
                Action::DropBackend { last_words, .. } => given[0].extend(last_words),
                Action::DropClient { last_words, .. } => given[1].extend(last_words),
                _ => {}
            }
        }
        if given.iter().map(Vec::len).sum::<usize>() == before {
            return;
        }
    }
}

/// What the worker was given, frame by frame, without its barrier pings.
fn read_worker(mut bytes: &[u8], heeded: &mut Heeded) {
    let mut open: Option<(Opcode, Vec<u8>)> = None;
    while let Some(header) = frame::parse(bytes, Side::Client).expect("right frames for a worker") {
        let (frame, rest) = bytes.split_at(header.header_len + header.payload_len as usize);
        let mut payload = frame[header.header_len..].to_vec();
        frame::apply_mask(&mut payload, header.mask.expect("masked towards a worker"));
        bytes = rest;
        match header.opcode {
            Opcode::Close => heeded.closed[0] = CloseFrame::parse(&payload).ok().map(|it| (it.code, it.reason)),
            Opcode::Ping | Opcode::Pong => {}
            opcode => {
                let (kind, mut whole) = open.take().unwrap_or((opcode, Vec::new()));
                whole.extend(payload);
                match header.fin {
                    true => heeded.messages.push((kind, whole)),
                    false => open = Some((kind, whole)),
                }
            }
        }
    }
}

/// The close frame at the end of what the client was given.
fn closed(mut bytes: &[u8]) -> Option<(u16, String)> {
    let mut cutter = Cutter::new(Side::Backend);
    while !bytes.is_empty() {
        let (used, piece) = cutter.cut(bytes).expect("right frames for a client");
        bytes = &bytes[used..];
        if let Some(Piece::Close(frame)) = piece {
            return Some((frame.code, frame.reason));
        }
    }
    None
}
