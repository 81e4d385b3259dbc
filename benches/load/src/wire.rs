//! RFC 6455 as far as the bench needs it: handshakes of both sides, frame headers, and a splitter of frames.
//!
//! The generator masks with the zero key, so that neither end spends time on masking and proxies see ordinary frames.

use anyhow::{Context, bail};
use base64::Engine;
use sha1::{Digest, Sha1};

use crate::link::Link;

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const HEAD_BYTES_MAX: usize = 16 * 1024;

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// Asks for an upgrade of `path`; the bytes that came behind the 101.
pub async fn ask(link: &mut Link, path: &str) -> anyhow::Result<Vec<u8>> {
    ask_for(link, path, "").await
}

/// The same with more header lines, each with its end.
pub async fn ask_for(link: &mut Link, path: &str, lines: &str) -> anyhow::Result<Vec<u8>> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
    );
    link.write_all(request.as_bytes()).await?;
    let (head, rest) = read_head(link).await?;
    if !head.starts_with("HTTP/1.1 101") {
        bail!("not upgraded: {}", head.lines().next().unwrap_or_default());
    }
    Ok(rest)
}

/// Answers an upgrade; its path, and the bytes that came behind the request.
pub async fn answer(link: &mut Link) -> anyhow::Result<(String, Vec<u8>)> {
    let (head, rest) = read_head(link).await?;
    let path = head.split(' ').nth(1).context("no path")?.to_owned();
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
    });
    let digest = Sha1::digest(format!("{}{GUID}", key.context("no key")?));
    let accept = base64::engine::general_purpose::STANDARD.encode(digest);
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    link.write_all(response.as_bytes()).await?;
    Ok((path, rest))
}

/// Reads a head; and the bytes that came behind it.
pub async fn read_head(link: &mut Link) -> anyhow::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if link.read_more(&mut bytes).await? == 0 {
            bail!("closed amid a handshake");
        }
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8(bytes)?, rest));
        }
        if bytes.len() > HEAD_BYTES_MAX {
            bail!("a handshake without end");
        }
    }
}

/// Appends the header of a whole message.
pub fn put_header(out: &mut Vec<u8>, opcode: u8, len: usize, masked: bool) {
    let mask = if masked { 0x80 } else { 0 };
    out.push(0x80 | opcode);
    match len {
        0..126 => out.push(mask | len as u8),
        126..65536 => {
            out.push(mask | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        65536.. => {
            out.push(mask | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    if masked {
        out.extend_from_slice(&[0; 4]);
    }
}

/// What stands before the payload of a binary message with this number (`holdline.v1`): a zero byte and its LEB128.
pub fn number(mut number: u64) -> Vec<u8> {
    let mut prefix = vec![0];
    while number > 0x7f {
        prefix.push(0x80 | (number & 0x7f) as u8);
        number >>= 7;
    }
    prefix.push(number as u8);
    prefix
}

/// A frame's place in the input.
#[derive(Clone, Copy)]
pub struct Frame {
    pub opcode: u8,
    pub start: usize,
    pub end: usize,
}

/// The first frame of `input`, if it is whole; its payload is unmasked in place.
pub fn split(input: &mut [u8]) -> anyhow::Result<Option<Frame>> {
    let Some(&[first, second]) = input.first_chunk::<2>() else { return Ok(None) };
    if first & 0xf0 != 0x80 {
        bail!("a fragment or reserved bits: {first:#x}");
    }
    let (mut at, len) = match second & 0x7f {
        126 => match input.get(2..4) {
            Some(bytes) => (4, usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))),
            None => return Ok(None),
        },
        127 => match input.get(2..10).and_then(|bytes| bytes.first_chunk::<8>()) {
            Some(bytes) => (10, u64::from_be_bytes(*bytes) as usize),
            None => return Ok(None),
        },
        short => (2, usize::from(short)),
    };
    let mut key = [0; 4];
    if second & 0x80 != 0 {
        let Some(bytes) = input.get(at..).and_then(|rest| rest.first_chunk::<4>()) else { return Ok(None) };
        key = *bytes;
        at += 4;
    }
    let end = at + len;
    let Some(payload) = input.get_mut(at..end) else { return Ok(None) };
    if key != [0; 4] {
        for (index, byte) in payload.iter_mut().enumerate() {
            *byte ^= key[index % 4];
        }
    }
    Ok(Some(Frame { opcode: first & 0x0f, start: at, end }))
}
