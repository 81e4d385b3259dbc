//! Protocols whose messages stand for themselves and are not JSON as a whole: Socket.IO, STOMP, Hocuspocus.
//!
//! Each reader says what a message means and keeps nothing. What it does not understand means nothing.

use super::rules::{Part, Rules};
use super::words::{Awaits, BEGINNING, Classes, Down, How, Keep, OTHER, SUBSCRIPTION, Told, Up};

/// A packet of Socket.IO (EIO 4): its namespace, and what is behind it.
fn packet(payload: &[u8]) -> (&[u8], &[u8]) {
    if payload.first() != Some(&b'/') {
        return (b"/", payload);
    }
    let end = payload.iter().position(|&byte| byte == b',').unwrap_or(payload.len());
    let path = payload[..end].split(|&byte| byte == b'?').next().unwrap_or_default();
    (path, payload.get(end + 1..).unwrap_or_default())
}

/// An event's JSON behind the number of its acknowledgement, and its namespace, which it is kept within.
fn event(payload: &[u8]) -> Part<'_> {
    let (scope, rest) = packet(payload.get(2..).unwrap_or_default());
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let begin = payload.len() - (rest.len() - digits);
    Part { whole: payload, json: (begin, payload.len()), keeps_whole: true, scope }
}

/// A connection to a namespace is kept until it is given up; events are for the route's own rules.
pub(super) fn socket_io_up(payload: &[u8], rules: &Rules, out: &mut Vec<Up>) {
    match payload.split_first_chunk::<2>() {
        Some((b"40", rest)) => {
            let keep = Keep::new(BEGINNING, packet(rest).0, payload, How::Last, Awaits::Gate);
            out.push(Up::Keep(keep));
        }
        Some((b"41", rest)) => {
            let namespace: Box<[u8]> = packet(rest).0.into();
            out.push(Up::Forget(Classes::of(&[BEGINNING]), namespace.clone(), 0..0));
            out.push(Up::Leave(namespace));
        }
        Some((b"42", _)) => rules.up(event(payload), out),
        Some(_) | None => {}
    }
}

pub(super) fn socket_io_down(payload: &[u8], rules: &Rules, out: &mut Vec<Told>) {
    let place = 0..payload.len();
    match payload.split_first_chunk::<2>() {
        Some((b"0{", _)) => out.push((Down::Greeting, place)),
        Some((b"40", rest)) => out.push((Down::Answer(BEGINNING, packet(rest).0.into()), place)),
        // The server gives it up, or refuses it.
        Some((b"41" | b"44", rest)) => {
            let namespace: Box<[u8]> = packet(rest).0.into();
            out.push((Down::Forget(Classes::of(&[BEGINNING]), namespace.clone()), place.clone()));
            out.push((Down::Leave(namespace), place));
        }
        Some((b"42", _)) => rules.down(event(payload), out),
        Some(_) | None => {}
    }
}

/// A frame of STOMP: its command and its headers.
fn stomp_frame(payload: &[u8]) -> Option<(&str, Vec<(&str, &str)>)> {
    let head_end = payload.windows(2).position(|it| it == b"\n\n" || it == b"\n\r").unwrap_or(payload.len());
    let head = str::from_utf8(&payload[..head_end]).ok()?;
    let mut lines = head.lines().map(|line| line.trim_end_matches(['\r', '\0']));
    let command = lines.next().filter(|line| !line.is_empty())?;
    Some((command, lines.filter_map(|line| line.split_once(':')).collect()))
}

/// The name of a subscription: its id, or in STOMP 1.0 its destination.
fn stomp_id(headers: &[(&str, &str)]) -> Option<Box<[u8]>> {
    let find = |wanted: &str| headers.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
    find("id").or_else(|| find("destination")).map(|value| value.as_bytes().into())
}

pub(super) fn stomp_up(payload: &[u8], out: &mut Vec<Up>) {
    let Some((command, headers)) = stomp_frame(payload) else { return };
    match (command, stomp_id(&headers)) {
        ("CONNECT" | "STOMP", _) => {
            out.push(Up::Keep(Keep::new(BEGINNING, b"", payload, How::Last, Awaits::Gate)));
        }
        ("SUBSCRIBE", Some(id)) => {
            out.push(Up::Keep(Keep::new(SUBSCRIPTION, &id, payload, How::Last, Awaits::Nothing)));
        }
        ("UNSUBSCRIBE", Some(id)) => out.push(Up::Forget(Classes::of(&[SUBSCRIPTION]), id, 0..0)),
        _ => {}
    }
}

pub(super) fn stomp_down(payload: &[u8], out: &mut Vec<Told>) {
    if stomp_frame(payload).is_some_and(|(command, _)| command == "CONNECTED") {
        out.push((Down::Answer(BEGINNING, Box::default()), 0..payload.len()));
    }
}

/// A number of lib0: seven bits a byte, the lowest first.
fn varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_usize;
    for (index, &byte) in bytes.iter().enumerate().take(5) {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

/// A message of Hocuspocus: the document, its type, and the first number behind it.
fn hocuspocus(payload: &[u8]) -> Option<(&[u8], usize, Option<usize>)> {
    let (len, rest) = varint(payload)?;
    let (document, rest) = rest.split_at_checked(len)?;
    let (kind, rest) = varint(rest)?;
    Some((document, kind, varint(rest).map(|(first, _)| first)))
}

/// Whether it is what a client of Hocuspocus says first: a document's name and a token, which fill the message.
pub(super) fn is_hocuspocus_login(payload: &[u8]) -> bool {
    const TOKEN: usize = 0;
    let is_name = |name: &[u8]| str::from_utf8(name).is_ok_and(|it| !it.is_empty() && !it.contains(char::is_control));
    let read = || {
        let (len, rest) = varint(payload)?;
        let (name, rest) = rest.split_at_checked(len)?;
        let (kind, rest) = varint(rest)?;
        let (what, rest) = varint(rest)?;
        let (len, token) = varint(rest)?;
        Some(is_name(name) && (kind, what) == (AUTH, TOKEN) && token.len() == len && str::from_utf8(token).is_ok())
    };
    read() == Some(true)
}

const SYNC: usize = 0;
const AWARENESS: usize = 1;
const AUTH: usize = 2;
const CLOSE: usize = 7;

/// The first step of a synchronization, which asks for what the document has.
const STEP_1: usize = 0;

pub(super) fn hocuspocus_up(payload: &[u8], out: &mut Vec<Up>) {
    let keep = |class, document: &[u8], awaits| Up::Keep(Keep::new(class, document, payload, How::Last, awaits));
    match hocuspocus(payload) {
        Some((document, AUTH, _)) => out.push(keep(BEGINNING, document, Awaits::Gate)),
        Some((document, SYNC, Some(STEP_1))) => out.push(keep(SUBSCRIPTION, document, Awaits::Nothing)),
        Some((document, AWARENESS, _)) => out.push(keep(OTHER, document, Awaits::Nothing)),
        Some((document, CLOSE, _)) => {
            out.push(Up::Forget(Classes::of(&[BEGINNING, SUBSCRIPTION, OTHER]), document.into(), 0..0));
        }
        Some(_) | None => {}
    }
}

pub(super) fn hocuspocus_down(payload: &[u8], out: &mut Vec<Told>) {
    const DENIED: usize = 1;
    const AUTHENTICATED: usize = 2;
    let place = 0..payload.len();
    match hocuspocus(payload) {
        Some((document, AUTH, Some(AUTHENTICATED))) => {
            out.push((Down::Answer(BEGINNING, document.into()), place));
        }
        Some((document, AUTH, Some(DENIED)) | (document, CLOSE, _)) => {
            out.push((Down::Forget(Classes::of(&[BEGINNING, SUBSCRIPTION, OTHER]), document.into()), place));
        }
        Some(_) | None => {}
    }
}
