//! A backend's answer to our handshake: read within bounds, then judged (RFC 6455 section 4.1).

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::AsyncReadExt;

use super::super::aware::{application_of, is_numbered};
use super::error::DialError;
use super::refused_body::NotUpgraded;
use super::{Dialed, ExpectedProtocol, HoldlineResume, labels};
use crate::handshake::check::elements;
use crate::handshake::deflate::Asked;
use crate::handshake::forward::clean_switching;
use crate::net::BackendStream;

/// Longest head of an answer, interim answers included.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Room for a head at first, and for a few frames behind it.
const ROOM_BYTES: usize = 1024;

/// Most headers of an answer.
const HEADERS_MAX: usize = 128;

/// The head of a final answer, and what was read beyond it.
pub(super) struct Head {
    status: StatusCode,
    headers: HeaderMap,
    leftover: Bytes,
}

/// What a 101 must say.
pub(super) struct Expected<'a> {
    pub accept: &'a str,
    pub offered: &'a [String],
    /// Whether each was offered with numbers too.
    pub numbered: bool,
    pub protocol: ExpectedProtocol<'a>,
    pub compression: Asked,
}

/// Reads up to the end of the first head that is not interim (RFC 9110 section 15.2).
pub(super) async fn read(stream: &mut BackendStream) -> Result<Head, DialError> {
    let mut buffer = BytesMut::with_capacity(ROOM_BYTES);
    let mut interim_bytes = 0;
    loop {
        if !buffer.is_empty()
            && let Some((length, status, headers)) = parse(&buffer)?
        {
            buffer.advance(length);
            if status == StatusCode::SWITCHING_PROTOCOLS || !status.is_informational() {
                return Ok(Head { status, headers, leftover: buffer.freeze() });
            }
            interim_bytes += length;
            continue;
        }
        let room = HEAD_BYTES_MAX.saturating_sub(interim_bytes + buffer.len());
        if room == 0 {
            return Err(DialError::MalformedResponse("its head is too long"));
        }
        buffer.reserve(room.min(ROOM_BYTES));
        match stream.read_buf(&mut buffer).await {
            Ok(0) => return Err(DialError::HandshakeLost(None)),
            Ok(_) => {}
            Err(error) => return Err(DialError::HandshakeLost(Some(error))),
        }
    }
}

fn parse(buffer: &[u8]) -> Result<Option<(usize, StatusCode, HeaderMap)>, DialError> {
    let mut lines = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let length = match parser.parse_response_with_uninit_headers(&mut response, buffer, &mut lines) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(DialError::MalformedResponse("it has too many headers"));
        }
        Err(_) => return Err(DialError::MalformedResponse("it is not HTTP/1.1")),
    };
    let malformed = || DialError::MalformedResponse("a status or header is not valid");
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or_else(malformed)?;
    if status == StatusCode::SWITCHING_PROTOCOLS && response.version != Some(1) {
        return Err(DialError::MalformedResponse("it upgrades in HTTP/1.0"));
    }
    let mut headers = HeaderMap::with_capacity(response.headers.len());
    for line in response.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| malformed())?;
        headers.append(name, HeaderValue::from_bytes(line.value).map_err(|_| malformed())?);
    }
    Ok(Some((length, status, headers)))
}

/// Says whether an answer is the upgrade we asked for.
pub(super) fn judge(head: Head, stream: BackendStream, expected: &Expected<'_>) -> Result<Dialed, DialError> {
    let Head { status, mut headers, leftover } = head;
    if status != StatusCode::SWITCHING_PROTOCOLS {
        return Err(DialError::NotUpgraded(Box::new(NotUpgraded::new(status, headers, stream, leftover))));
    }
    check_upgrade(&headers, expected.accept)?;
    let compression = expected.compression.judge(&headers).map_err(|_| match expected.compression {
        Asked::Nothing => DialError::BadExtension,
        Asked::Offered(_) | Asked::Kept(_) => DialError::BadCompression,
    })?;
    let (protocol, numbers) = pick_protocol(&headers, expected)?;
    let (resume, labels) = (parse_resume(&headers)?, labels::read(&headers));
    clean_switching(&mut headers);
    Ok(Dialed { stream, leftover, protocol, numbers, compression, resume, labels, headers })
}

fn check_upgrade(headers: &HeaderMap, accept: &str) -> Result<(), DialError> {
    let mut upgrades = elements(headers, UPGRADE);
    let websocket = upgrades.next().is_some_and(|token| token.eq_ignore_ascii_case(b"websocket"));
    if !websocket || upgrades.next().is_some() {
        return Err(DialError::BadAccept("Upgrade"));
    }
    if !elements(headers, CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade")) {
        return Err(DialError::BadAccept("Connection"));
    }
    let mut accepts = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
    let proven = accepts.next().is_some_and(|sent| sent.as_bytes().trim_ascii() == accept.as_bytes());
    if !proven || accepts.next().is_some() {
        return Err(DialError::BadAccept("Sec-WebSocket-Accept"));
    }
    Ok(())
}

/// The application's own subprotocol that was picked, and whether it goes with numbers.
fn pick_protocol(headers: &HeaderMap, expected: &Expected<'_>) -> Result<(Option<String>, bool), DialError> {
    // Some workers send the header with nothing in it when they pick none.
    let mut picks =
        headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter(|pick| !pick.as_bytes().trim_ascii().is_empty());
    let picked =
        picks.next().map(|pick| pick.to_str().map(str::trim).map_err(|_| DialError::BadProtocol)).transpose()?;
    let numbers = picked.is_some_and(|picked| expected.numbered && is_numbered(picked));
    let picked = if numbers { picked.and_then(application_of) } else { picked };
    let alone = numbers && picked.is_none() && !expected.offered.is_empty();
    let offered = !alone && picked.is_none_or(|picked| expected.offered.iter().any(|offer| offer == picked));
    let wanted = match expected.protocol {
        ExpectedProtocol::Offered => true,
        ExpectedProtocol::Exactly(wanted) => picked == wanted,
    };
    if picks.next().is_some() || !offered || !wanted {
        return Err(DialError::BadProtocol);
    }
    Ok((picked.map(str::to_owned), numbers))
}

/// A word we don't know is refused: replaying on a guess could repeat what the backend has done.
fn parse_resume(headers: &HeaderMap) -> Result<Option<HoldlineResume>, DialError> {
    let Some(value) = headers.get("holdline-resume") else {
        return Ok(None);
    };
    let malformed = || DialError::MalformedResponse("its Holdline-Resume is neither ok; rx=N, new nor refuse");
    let text = value.to_str().map_err(|_| malformed())?;
    let (word, rest) = text.split_once(';').unwrap_or((text, ""));
    match (word.trim(), rest.trim().strip_prefix("rx=")) {
        ("new", _) => Ok(Some(HoldlineResume::New)),
        ("refuse", _) => Ok(Some(HoldlineResume::Refuse)),
        ("ok", Some(rx)) => Ok(Some(HoldlineResume::Ok { rx: rx.parse().map_err(|_| malformed())? })),
        (_, _) => Err(malformed()),
    }
}
