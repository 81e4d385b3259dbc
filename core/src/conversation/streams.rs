//! Protocols that are streams of bytes: MQTT and NATS. A WebSocket message holds any part of the stream, so a reader
//! follows it over the messages.
//!
//! Invariant: what is open of an element that is not whole is [`Stream::open`], and never more than its bound; a stream
//! that does not parse, or an element that is larger, is lost, and nothing is read of it any more.

use super::words::{Awaits, BEGINNING, Classes, Down, How, Keep, OTHER, SUBSCRIPTION, Told, Up};

/// One direction of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stream {
    /// What has come of an element that is not whole.
    pub open: Vec<u8>,
    /// Whether it could not be followed.
    pub lost: bool,
}

impl Stream {
    pub const fn new() -> Self {
        Self { open: Vec::new(), lost: false }
    }
}

/// Cuts the element off the start of some bytes: its length, or nothing as long as it is not whole.
type Cut = fn(&[u8]) -> Result<Option<usize>, Lost>;

/// What is no element.
pub(super) struct Lost;

impl Stream {
    /// Takes in `payload`; calls `visit` with each element that is whole now, and where it stands in `payload` if all of
    /// it does.
    fn elements(
        &mut self,
        payload: &[u8],
        cut: Cut,
        bytes_max: usize,
        mut visit: impl FnMut(&[u8], Option<std::ops::Range<usize>>),
    ) {
        if self.lost {
            return;
        }
        let before = self.open.len();
        let bytes = [&self.open[..], payload].concat();
        let mut at = 0;
        loop {
            match cut(&bytes[at..]) {
                Ok(Some(len)) => {
                    let place = at.checked_sub(before).map(|start| start..start + len);
                    visit(&bytes[at..at + len], place);
                    at += len;
                }
                Ok(None) => break,
                Err(Lost) => self.lost = true,
            }
            if self.lost {
                break;
            }
        }
        self.open = bytes[at..].to_vec();
        self.lost |= self.open.len() > bytes_max;
    }
}

/// The length of a packet of MQTT.
fn mqtt_packet(bytes: &[u8]) -> Result<Option<usize>, Lost> {
    let Some((_, rest)) = bytes.split_first() else { return Ok(None) };
    match mqtt_length(rest)? {
        Some((len, behind)) if behind.len() >= len => Ok(Some(bytes.len() - behind.len() + len)),
        Some(_) | None => Ok(None),
    }
}

/// A length of MQTT: seven bits a byte, four bytes at most.
fn mqtt_length(bytes: &[u8]) -> Result<Option<(usize, &[u8])>, Lost> {
    let mut value = 0_usize;
    for index in 0..4 {
        let Some(&byte) = bytes.get(index) else { return Ok(None) };
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, &bytes[index + 1..])));
        }
    }
    Err(Lost)
}

/// What is behind a packet's fixed header.
fn mqtt_body(packet: &[u8]) -> &[u8] {
    packet.get(1..).and_then(|rest| mqtt_length(rest).ok().flatten()).map_or(&[], |(_, body)| body)
}

fn mqtt_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

/// The number of a packet and what is behind it, its properties left out where there are any.
fn mqtt_numbered(body: &[u8], has_properties: bool) -> Option<(&[u8], &[u8], &[u8])> {
    let (id, rest) = body.split_at_checked(2)?;
    if !has_properties {
        return Some((id, &[], rest));
    }
    let (len, behind) = mqtt_length(rest).ok()??;
    let head = rest.len() - behind.len() + len;
    rest.split_at_checked(head).map(|(properties, rest)| (id, properties, rest))
}

/// A packet with this first byte and body.
fn mqtt_make(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&[first], &*mqtt_number(body.len()), &body].concat()
}

/// A length as MQTT writes it.
fn mqtt_number(value: usize) -> Vec<u8> {
    let (mut out, mut left) = (Vec::new(), value);
    loop {
        let byte = (left & 0x7f) as u8;
        left >>= 7;
        out.push(if left > 0 { byte | 0x80 } else { byte });
        if left == 0 {
            return out;
        }
    }
}

/// Level of the protocol from which on packets have properties.
const MQTT_5: u8 = 5;

/// The level that a CONNECT asks for.
pub(super) fn mqtt_level(connect: &[u8]) -> Option<u8> {
    mqtt_string(mqtt_body(connect)).and_then(|(_, rest)| rest.first().copied())
}

/// What a client's bytes mean; `connect` is the CONNECT that was kept, if one was.
pub(super) fn mqtt_up(
    payload: &[u8],
    connect: Option<&[u8]>,
    stream: &mut Stream,
    bytes_max: usize,
    out: &mut Vec<Up>,
) {
    let mut level = connect.and_then(mqtt_level);
    stream.elements(payload, mqtt_packet, bytes_max, |packet, _| {
        if packet[0] >> 4 == 1 {
            level = mqtt_level(packet);
        }
        mqtt_packet_up(packet, level.is_some_and(|level| level >= MQTT_5), out);
    });
}

fn mqtt_packet_up(packet: &[u8], has_properties: bool, out: &mut Vec<Up>) {
    let (first, body) = (packet[0], mqtt_body(packet));
    match first >> 4 {
        1 => out.push(Up::Keep(Keep::new(BEGINNING, b"", packet, How::Last, Awaits::Gate))),
        3 if first & 0b0110 != 0 => {
            // A PUBLISH that wants an answer: said again, it says that it may be a repetition.
            let Some((_, rest)) = mqtt_string(body) else { return };
            let Some(id) = rest.get(..2) else { return };
            let again = [&[first | 0b1000], &packet[1..]].concat();
            out.push(Up::Keep(Keep::new(OTHER, id, &again, How::Last, Awaits::Nothing)));
        }
        // PUBREL: what is left to be said of a PUBLISH that the broker has.
        6 => {
            let Some(id) = body.get(..2) else { return };
            out.push(Up::Keep(Keep::new(OTHER, id, packet, How::Last, Awaits::Nothing)));
        }
        8 => mqtt_subscribe(first, body, has_properties, out),
        10 => {
            let Some((_, _, mut rest)) = mqtt_numbered(body, has_properties) else { return };
            while let Some((topic, behind)) = mqtt_string(rest) {
                out.push(Up::Forget(Classes::of(&[SUBSCRIPTION]), topic.into(), 0..0));
                rest = behind;
            }
        }
        _ => {}
    }
}

/// Each topic by itself, so that each can be given up by itself; the answer to all of them bears their packet's number.
fn mqtt_subscribe(first: u8, body: &[u8], has_properties: bool, out: &mut Vec<Up>) {
    let Some((id, properties, mut rest)) = mqtt_numbered(body, has_properties) else { return };
    while let Some((topic, behind)) = mqtt_string(rest) {
        let Some((_, next)) = behind.split_first() else { return };
        let packet = mqtt_make(first, &[id, properties, &rest[..rest.len() - next.len()]]);
        let keep = Keep::new(SUBSCRIPTION, topic, &packet, How::Last, Awaits::Answer);
        out.push(Up::Keep(Keep { answer: id.into(), ..keep }));
        rest = next;
    }
}

pub(super) fn mqtt_down(payload: &[u8], stream: &mut Stream, bytes_max: usize, out: &mut Vec<Told>) {
    let mut is_misled = false;
    stream.elements(payload, mqtt_packet, bytes_max, |packet, place| {
        let body = mqtt_body(packet);
        if packet[0] >> 4 == 2
            && let Some(without) = without_topic_aliases(packet)
        {
            match place.clone() {
                Some(place) => out.push((Down::Instead(without), place)),
                None => is_misled = true,
            }
        }
        let id = || body.get(..2).map(Box::<[u8]>::from);
        let word = match packet[0] >> 4 {
            2 => Some(Down::Answer(BEGINNING, Box::default())),
            9 => id().map(|id| Down::Answer(SUBSCRIPTION, id)),
            // PUBACK and PUBCOMP: the exchange is over.
            4 | 7 => id().map(|id| Down::Forget(Classes::of(&[OTHER]), id)),
            _ => None,
        };
        out.extend(word.map(|word| (word, place.unwrap_or_default())));
    });
    // The client has heard a part of it, and would use what the next broker cannot know.
    stream.lost |= is_misled;
}

/// A CONNACK that allows its client topic aliases, without that: an alias is known to the broker that it was told to, and
/// what is said to the next one would bear names that it has never heard.
fn without_topic_aliases(connack: &[u8]) -> Option<Vec<u8>> {
    const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    let (flags, rest) = mqtt_body(connack).split_at_checked(2)?;
    let (len, behind) = mqtt_length(rest).ok()??;
    let (properties, payload) = behind.split_at_checked(len)?;
    let (mut at, mut found) = (0, None);
    while let Some(&id) = properties.get(at) {
        let end = at + 1 + mqtt_property_len(id, &properties[at + 1..])?;
        if id == TOPIC_ALIAS_MAXIMUM {
            found = Some(at..end);
        }
        at = end;
    }
    let found = found?;
    let left = [properties.get(..found.start)?, properties.get(found.end..)?].concat();
    Some(mqtt_make(connack[0], &[flags, &mqtt_number(left.len()), &left, payload]))
}

/// The length of the value of a CONNACK's property (MQTT 5 section 2.2.2.2).
fn mqtt_property_len(id: u8, value: &[u8]) -> Option<usize> {
    let string = |bytes: &[u8]| mqtt_string(bytes).map(|(text, _)| text.len() + 2);
    match id {
        0x24 | 0x25 | 0x28 | 0x29 | 0x2A => Some(1),
        0x13 | 0x21 | 0x22 => Some(2),
        0x11 | 0x27 => Some(4),
        0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => string(value),
        0x26 => {
            let name = string(value)?;
            Some(name + string(value.get(name..)?)?)
        }
        _ => None,
    }
}

/// The length of an element of NATS: a line, with what its last number counts behind it where it carries something.
fn nats_element(bytes: &[u8]) -> Result<Option<usize>, Lost> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() > NATS_LINE_MAX { Err(Lost) } else { Ok(None) };
    };
    let line = &bytes[..end];
    if !matches!(nats_verb(line).as_slice(), b"PUB" | b"HPUB" | b"MSG" | b"HMSG") {
        return Ok(Some(end + 2));
    }
    let last = line.rsplit(|byte| *byte == b' ' || *byte == b'\t').next().and_then(|it| str::from_utf8(it).ok());
    let carried: usize = last.and_then(|it| it.parse().ok()).filter(|it| *it <= NATS_PAYLOAD_MAX).ok_or(Lost)?;
    let whole = end + 2 + carried + 2;
    Ok((bytes.len() >= whole).then_some(whole))
}

/// Bytes of a line at most: an INFO of a large cluster has some thousands.
const NATS_LINE_MAX: usize = 64 << 10;

/// Bytes that one message carries at most.
const NATS_PAYLOAD_MAX: usize = 64 << 20;

fn nats_verb(line: &[u8]) -> Vec<u8> {
    let verb = line.split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
    verb.to_ascii_uppercase()
}

/// Where a limit of a subscription is kept, beside it.
const NATS_LIMIT: u8 = OTHER;

pub(super) fn nats_up(payload: &[u8], stream: &mut Stream, bytes_max: usize, out: &mut Vec<Up>) {
    stream.elements(payload, nats_element, bytes_max, |element, _| {
        let line: Vec<&[u8]> =
            element.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty()).collect();
        let verb = nats_verb(element);
        let keep = |class, key: &[u8]| Up::Keep(Keep::new(class, key, element, How::Last, Awaits::Nothing));
        match (verb.as_slice(), line.as_slice()) {
            (b"CONNECT", _) => out.push(keep(BEGINNING, b"")),
            (b"SUB", [_, _, .., sid]) => out.push(keep(SUBSCRIPTION, sid)),
            (b"UNSUB", [_, sid]) => {
                out.push(Up::Forget(Classes::of(&[SUBSCRIPTION, NATS_LIMIT]), (*sid).into(), 0..0));
            }
            (b"UNSUB", [_, sid, _]) => out.push(keep(NATS_LIMIT, sid)),
            _ => {}
        }
    });
}

pub(super) fn nats_down(payload: &[u8], stream: &mut Stream, bytes_max: usize, out: &mut Vec<Told>) {
    stream.elements(payload, nats_element, bytes_max, |element, place| {
        if nats_verb(element) == b"INFO" {
            out.push((Down::Greeting, place.unwrap_or_default()));
        }
    });
}
