//! The header by which a proxy says whose connection it passes on (the PROXY protocol, versions 1 and 2, of HAProxy).
//!
//! Pure: bytes in, a verdict out, and the other way round. Whom to believe is for the caller. Refused: a line of more than
//! [`LINE_BYTES_MAX`], a block of more than [`BLOCK_BYTES_MAX`], and all that the specification does not allow. Invariant:
//! a header that says nothing of a client (LOCAL, UNKNOWN, a family other than IP) yields none, whatever else it says.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Bytes of the line of version 1, its end included (section 2.1).
pub const LINE_BYTES_MAX: usize = 107;

/// Bytes of the block behind the first sixteen of version 2: addresses, and what follows them.
pub const BLOCK_BYTES_MAX: usize = 4096;

/// How version 1 begins.
const LINE_START: &[u8] = b"PROXY ";

/// How version 2 begins (section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of version 2 before its block.
const FIXED_BYTES: usize = 16;

/// Types of what may follow the addresses (section 2.2).
const TYPE_CRC32C: u8 = 0x03;
const TYPE_SSL: u8 = 0x20;

/// In what follows `TYPE_SSL`: the client came by TLS.
const CLIENT_SSL: u8 = 0x01;

/// The client of a connection, as a proxy says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AnnouncedClient {
    /// Its address.
    pub address: IpAddr,
    /// Whether it came to the proxy by TLS.
    pub secure: bool,
}

/// What the beginning of a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Announcement {
    /// Too little to say.
    Partial,
    /// Something else.
    Absent,
    /// A header of so many bytes, and whom it names; nothing if the connection is the proxy's own.
    Header(usize, Option<AnnouncedClient>),
}

/// It begins as a header and is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a malformed PROXY header: {0}")]
pub struct BadHeader(&'static str);

/// Judges the first bytes of a connection.
///
/// # Errors
/// They begin as a header does, and go on as none may.
pub fn read_announcement(bytes: &[u8]) -> Result<Announcement, BadHeader> {
    let begins_as = |word: &[u8]| {
        let len = bytes.len().min(word.len());
        bytes[..len] == word[..len]
    };
    if begins_as(SIGNATURE) {
        read_block(bytes)
    } else if begins_as(LINE_START) {
        read_line(bytes)
    } else {
        Ok(Announcement::Absent)
    }
}

fn read_line(bytes: &[u8]) -> Result<Announcement, BadHeader> {
    let line = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = line.windows(2).position(|it| it == b"\r\n") else {
        return if line.len() < LINE_BYTES_MAX {
            Ok(Announcement::Partial)
        } else {
            Err(BadHeader("its line is too long"))
        };
    };
    let said = line.get(LINE_START.len()..end).and_then(|said| std::str::from_utf8(said).ok());
    let said = said.ok_or(BadHeader("its line is no text"))?;
    let len = end + 2;
    if said == "UNKNOWN" || said.starts_with("UNKNOWN ") {
        return Ok(Announcement::Header(len, None));
    }
    let words: Vec<_> = said.split(' ').collect();
    let &[family, source, destination, source_port, destination_port] = &words[..] else {
        return Err(BadHeader("its line has not six words"));
    };
    if !is_port(source_port) || !is_port(destination_port) {
        return Err(BadHeader("a port is none"));
    }
    let address = match family {
        "TCP4" => both::<Ipv4Addr>(source, destination).map(IpAddr::V4),
        "TCP6" => both::<Ipv6Addr>(source, destination).map(IpAddr::V6),
        _ => return Err(BadHeader("its family is unknown")),
    };
    let address = address.ok_or(BadHeader("an address is none of its family"))?.to_canonical();
    Ok(Announcement::Header(len, Some(AnnouncedClient { address, secure: false })))
}

/// The first of two addresses, if both are some.
fn both<A: std::str::FromStr>(source: &str, destination: &str) -> Option<A> {
    destination.parse::<A>().ok()?;
    source.parse().ok()
}

fn is_port(text: &str) -> bool {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok();
    is_number && (text == "0" || !text.starts_with('0'))
}

fn read_block(bytes: &[u8]) -> Result<Announcement, BadHeader> {
    let Some(&[version_and_command, family, high, low]) = bytes.get(SIGNATURE.len()..FIXED_BYTES) else {
        return Ok(Announcement::Partial);
    };
    let is_local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(BadHeader("its version or command is unknown")),
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > BLOCK_BYTES_MAX {
        return Err(BadHeader("its block is too long"));
    }
    let Some(header) = bytes.get(..FIXED_BYTES + len) else { return Ok(Announcement::Partial) };
    if is_local {
        return Ok(Announcement::Header(header.len(), None));
    }
    if family >> 4 > 3 || family & 0x0f > 2 {
        return Err(BadHeader("its family or protocol is unknown"));
    }
    let short = BadHeader("its block is too short for its addresses");
    let block = &header[FIXED_BYTES..];
    let (address, rest) = match family {
        0x11 => {
            let (source, _) = block.split_first_chunk::<4>().ok_or(short)?;
            (IpAddr::from(*source), block.get(12..).ok_or(short)?)
        }
        0x21 => {
            let (source, _) = block.split_first_chunk::<16>().ok_or(short)?;
            (IpAddr::from(*source), block.get(36..).ok_or(short)?)
        }
        // Datagrams, socket files, and what the proxy does not know: the connection is all that is known of its client.
        _ => return Ok(Announcement::Header(header.len(), None)),
    };
    let secure = read_extras(header, header.len() - rest.len())?;
    Ok(Announcement::Header(header.len(), Some(AnnouncedClient { address: address.to_canonical(), secure })))
}

/// Walks what follows the addresses, from `start` on; whether the client came by TLS.
fn read_extras(header: &[u8], start: usize) -> Result<bool, BadHeader> {
    let (mut at, mut secure) = (start, false);
    while at < header.len() {
        let cut = BadHeader("what follows its addresses is cut off");
        let &[kind, high, low] = header.get(at..at + 3).and_then(|it| it.first_chunk()).ok_or(cut)?;
        let (begin, len) = (at + 3, usize::from(u16::from_be_bytes([high, low])));
        let value = header.get(begin..begin + len).ok_or(cut)?;
        match kind {
            TYPE_CRC32C => {
                let sum =
                    value.try_into().map(u32::from_be_bytes).map_err(|_| BadHeader("its checksum has not 4 bytes"))?;
                let mut summed = header.to_vec();
                summed[begin..begin + 4].fill(0);
                if crc32c(&summed) != sum {
                    return Err(BadHeader("its checksum is wrong"));
                }
            }
            TYPE_SSL => secure = value.first().is_some_and(|client| client & CLIENT_SSL != 0),
            _ => {}
        }
        at = begin + len;
    }
    Ok(secure)
}

/// RFC 3720 appendix B.4, bit by bit: a header is short and comes once.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { 0x82F6_3B78 } else { 0 })
    })
}

/// Whose connection a worker is told that it gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Announced {
    /// The client's address. Its port is not known behind other proxies, and never told.
    pub address: IpAddr,
    /// The port that it connected to.
    pub port: u16,
}

/// Whether, and how, workers are told whose connection they get (`pools.send_proxy`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SendProxy {
    /// They are not.
    #[default]
    Off,
    /// By a line of text.
    V1,
    /// By a block of bytes.
    V2,
}

impl SendProxy {
    /// The header for the connection of a client, or for one of our own; empty if none is sent.
    #[must_use]
    pub fn header(self, client: Option<Announced>) -> Vec<u8> {
        match (self, client) {
            (Self::Off, _) => Vec::new(),
            (Self::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
            (Self::V1, Some(Announced { address, port })) => {
                let (family, unspecified) = match address {
                    IpAddr::V4(_) => ("TCP4", IpAddr::from(Ipv4Addr::UNSPECIFIED)),
                    IpAddr::V6(_) => ("TCP6", IpAddr::from(Ipv6Addr::UNSPECIFIED)),
                };
                let mut line = String::with_capacity(LINE_BYTES_MAX);
                // Writing to a String cannot fail.
                let _ = write!(line, "PROXY {family} {address} {unspecified} 0 {port}\r\n");
                line.into_bytes()
            }
            (Self::V2, None) => [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat(),
            (Self::V2, Some(Announced { address, port })) => {
                let (family, len, source, unspecified) = match address {
                    IpAddr::V4(address) => (0x11, 12, address.octets().to_vec(), vec![0; 4]),
                    IpAddr::V6(address) => (0x21, 36, address.octets().to_vec(), vec![0; 16]),
                };
                [&SIGNATURE[..], &[0x21, family, 0, len], &source, &unspecified, &[0, 0], &port.to_be_bytes()].concat()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> Option<AnnouncedClient> {
        Some(AnnouncedClient { address: address.parse().unwrap(), secure: false })
    }

    /// Version 2 with this command, family and block.
    fn block(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let len = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &len, block].concat()
    }

    fn extra(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
    }

    const V4: [u8; 12] = [203, 0, 113, 9, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];

    /// The header with its checksum put into the last four bytes.
    fn summed(mut header: Vec<u8>) -> Vec<u8> {
        let at = header.len() - 4;
        let sum = crc32c(&header).to_be_bytes();
        header[at..].copy_from_slice(&sum);
        header
    }

    #[test]
    fn the_checksum_is_the_rfcs() {
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
    }

    #[test]
    fn headers_are_read_however_many_bytes_follow_and_wait_for_each_of_theirs() {
        let v6: Vec<u8> = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7], &[0; 20]].concat();
        let secure = [&V4[..], &extra(TYPE_SSL, &[1, 0, 0, 0, 0])].concat();
        let checked = [&V4[..], &extra(0x01, b"h2"), &extra(TYPE_CRC32C, &[0; 4])].concat();
        let mapped = [&[0; 10][..], &[0xff, 0xff, 203, 0, 113, 9], &[0; 20]].concat();
        for (header, expected) in [
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 8080 80\r\n".to_vec(), client("203.0.113.9")),
            (b"PROXY TCP6 2001:db8::7 ::1 0 65535\r\n".to_vec(), client("2001:db8::7")),
            (b"PROXY TCP6 ::ffff:203.0.113.9 ::1 0 1\r\n".to_vec(), client("203.0.113.9")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN 203.0.113.9 whatever\r\n".to_vec(), None),
            (block(0x21, 0x11, &V4), client("203.0.113.9")),
            (block(0x21, 0x21, &v6), client("2001:db8::7")),
            (block(0x21, 0x21, &mapped), client("203.0.113.9")),
            (block(0x21, 0x11, &secure), client("203.0.113.9").map(|it| AnnouncedClient { secure: true, ..it })),
            (summed(block(0x21, 0x11, &checked)), client("203.0.113.9")),
            (block(0x20, 0x11, &V4), None),
            (block(0x20, 0xff, b"anything"), None),
            (block(0x21, 0x00, b"anything"), None),
            (block(0x21, 0x12, &V4), None),
            (block(0x21, 0x31, &[b'/'; 216]), None),
            (block(0x21, 0x11, &[&V4[..], &extra(0x04, &[0; 4081])].concat()), client("203.0.113.9")),
        ] {
            let shown = String::from_utf8_lossy(&header).into_owned();
            for len in 0..header.len() {
                assert_eq!(read_announcement(&header[..len]), Ok(Announcement::Partial), "{shown} {len}");
            }
            let behind = [&header[..], b"\r\nGET / HTTP/1.1\r\n"].concat();
            assert_eq!(read_announcement(&behind), Ok(Announcement::Header(header.len(), expected)), "{shown}");
        }
    }

    #[test]
    fn what_the_specification_does_not_allow_is_refused() {
        let long_line = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES_MAX - 15));
        let wrong_sum = [&V4[..], &extra(TYPE_CRC32C, &[1; 4])].concat();
        let longest = vec![0; BLOCK_BYTES_MAX + 1];
        for header in [
            &b"PROXY TCP4 203.0.113.9 10.0.0.1 8080\r\n"[..],
            b"PROXY TCP4 203.0.113.9 10.0.0.1 8080 80 \r\n",
            b"PROXY TCP4  203.0.113.9 10.0.0.1 8080 80\r\n",
            b"PROXY TCP4 203.0.113.9 10.0.0.1 08080 80\r\n",
            b"PROXY TCP4 203.0.113.9 10.0.0.1 +80 80\r\n",
            b"PROXY TCP4 203.0.113.9 10.0.0.1 65536 80\r\n",
            b"PROXY TCP4 2001:db8::7 ::1 8080 80\r\n",
            b"PROXY TCP4 203.0.113.9 ::1 8080 80\r\n",
            b"PROXY TCP6 203.0.113.9 10.0.0.1 8080 80\r\n",
            b"PROXY UDP4 203.0.113.9 10.0.0.1 8080 80\r\n",
            b"PROXY UNKNOWNX\r\n",
            b"PROXY \r\n",
            b"PROXY TCP4 203.0.113.9 10.0.0.1 8080 80\n\r\n",
            b"PROXY \xff\r\n",
            long_line.as_bytes(),
            &block(0x11, 0x11, &V4),
            &block(0x22, 0x11, &V4),
            &block(0x21, 0x41, &V4),
            &block(0x21, 0x13, &V4),
            &block(0x21, 0x11, &V4[..11]),
            &block(0x21, 0x21, &V4),
            &block(0x21, 0x11, &[&V4[..], &[4, 0]].concat()),
            &block(0x21, 0x11, &[&V4[..], &[4, 0, 1]].concat()),
            &block(0x21, 0x11, &wrong_sum),
            &block(0x21, 0x11, &[&V4[..], &extra(TYPE_CRC32C, &[0; 3])].concat()),
            &block(0x21, 0x11, &longest),
            &block(0x20, 0x00, &longest),
        ] {
            assert!(read_announcement(header).is_err(), "{}", String::from_utf8_lossy(header));
        }
        for other in [&b"GET / HTTP/1.1\r\n"[..], b"PROXIES", b"POST / ", b"\x16\x03\x01", b"\r\nGET / ", b"proxy TCP4"]
        {
            assert_eq!(read_announcement(other), Ok(Announcement::Absent));
        }
    }

    #[test]
    fn what_is_sent_is_what_is_read() {
        for address in ["203.0.113.9", "2001:db8::7"] {
            let sent = Announced { address: address.parse().unwrap(), port: 443 };
            for version in [SendProxy::V1, SendProxy::V2] {
                let header = version.header(Some(sent));
                assert_eq!(read_announcement(&header), Ok(Announcement::Header(header.len(), client(address))));
                let own = version.header(None);
                assert_eq!(read_announcement(&own), Ok(Announcement::Header(own.len(), None)));
            }
            assert!(SendProxy::Off.header(Some(sent)).is_empty());
        }
        let line = SendProxy::V1.header(Some(Announced { address: Ipv4Addr::LOCALHOST.into(), port: 443 }));
        assert_eq!(line, b"PROXY TCP4 127.0.0.1 0.0.0.0 0 443\r\n");
    }
}
