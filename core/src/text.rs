//! Whether what one peer sends as text is UTF-8 (RFC 6455 section 8.1), for routes that want to know.
//!
//! Walks the same frames as the [`assembler`](crate::assembler) does, beside it: text is judged as it comes, across the
//! frames of a message and the pieces of a frame, and nothing of it is kept but a character that is not whole. Refuses
//! text alone; bytes that are no frames are for the assembler to refuse, and so is a compressed message: where text is
//! checked, none was agreed on.
//!
//! Invariant: however the bytes are cut up, the same frame is named.

use crate::frame::{self, HEADER_BYTES_MAX, Header, Opcode, Side};

/// Bytes that are judged at a time: they have to be unmasked first.
const CHUNK_BYTES: usize = 1024;

/// Bytes of a character that may be missing its end.
const PARTIAL_BYTES_MAX: usize = 3;

/// The state of one peer's text.
#[derive(Debug)]
pub(crate) struct TextCheck {
    sender: Side,
    /// The header under way.
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    frame: Frame,
    /// Whether the message under way is text.
    is_text: bool,
    /// The beginning of a character whose end has not come.
    partial: [u8; PARTIAL_BYTES_MAX],
    partial_len: usize,
    /// What comes is no frames, and judged no more.
    is_lost: bool,
}

/// The frame under way.
#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    left: u64,
    mask: [u8; 4],
    /// Whether its payload is text.
    is_text: bool,
    /// Whether its text ends with it.
    is_last: bool,
}

/// It is not UTF-8.
struct NotUtf8;

impl TextCheck {
    /// A stream of frames from the peer of `sender`, of which `frame_left` bytes are the rest of a frame. The message under way is not judged: its beginning is
    /// not known.
    pub const fn amid(sender: Side, frame_left: u64) -> Self {
        Self {
            sender,
            header: [0; HEADER_BYTES_MAX],
            header_len: 0,
            frame: Frame { left: frame_left, mask: [0; 4], is_text: false, is_last: false },
            is_text: false,
            partial: [0; PARTIAL_BYTES_MAX],
            partial_len: 0,
            is_lost: false,
        }
    }

    /// Judges what comes next.
    ///
    /// # Errors
    /// How many bytes of `input` stand before the frame whose text is not UTF-8.
    pub fn take(&mut self, input: &[u8]) -> Result<(), usize> {
        let (mut at, mut frame_at) = (0, 0);
        while at < input.len() && !self.is_lost {
            if self.frame.left > 0 {
                let count = self.frame.left.min((input.len() - at) as u64) as usize;
                self.payload(&input[at..at + count]).map_err(|NotUtf8| frame_at)?;
                at += count;
                continue;
            }
            if self.header_len == 0 {
                frame_at = at;
            }
            self.header[self.header_len] = input[at];
            (self.header_len, at) = (self.header_len + 1, at + 1);
            match frame::parse(&self.header[..self.header_len], self.sender) {
                Ok(Some(header)) => self.begin(&header).map_err(|NotUtf8| frame_at)?,
                Ok(None) => {}
                Err(_) => self.is_lost = true,
            }
        }
        Ok(())
    }

    fn begin(&mut self, header: &Header) -> Result<(), NotUtf8> {
        self.header_len = 0;
        match header.opcode {
            Opcode::Text => (self.is_text, self.partial_len) = (!header.compressed, 0),
            Opcode::Binary => self.is_text = false,
            Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => {}
        }
        let is_text = self.is_text && !header.opcode.is_control();
        self.frame = Frame {
            left: header.payload_len,
            mask: header.mask.unwrap_or_default(),
            is_text,
            is_last: is_text && header.fin,
        };
        self.end_frame_if_done()
    }

    fn payload(&mut self, masked: &[u8]) -> Result<(), NotUtf8> {
        if self.frame.is_text {
            masked.chunks(CHUNK_BYTES).try_for_each(|chunk| self.text(chunk))?;
        }
        self.frame.left -= masked.len() as u64;
        self.end_frame_if_done()
    }

    /// Judges one chunk behind the character that is not whole.
    fn text(&mut self, masked: &[u8]) -> Result<(), NotUtf8> {
        let mut space = [0; PARTIAL_BYTES_MAX + CHUNK_BYTES];
        let end = self.partial_len + masked.len();
        space[..self.partial_len].copy_from_slice(&self.partial[..self.partial_len]);
        space[self.partial_len..end].copy_from_slice(masked);
        frame::apply_mask(&mut space[self.partial_len..end], self.frame.mask);
        self.frame.mask.rotate_left(masked.len() % 4);
        let rest = match str::from_utf8(&space[..end]) {
            Ok(_) => end,
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return Err(NotUtf8),
        };
        self.partial_len = end - rest;
        self.partial[..self.partial_len].copy_from_slice(&space[rest..end]);
        Ok(())
    }

    const fn end_frame_if_done(&mut self) -> Result<(), NotUtf8> {
        if self.frame.left > 0 || !self.frame.is_last {
            return Ok(());
        }
        self.is_text = false;
        if self.partial_len > 0 { Err(NotUtf8) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of a client: first byte and payload.
    fn frames(frames: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &(first, payload) in frames {
            let mask = [0x37, 0xFA, 0x21, 0x3D];
            bytes.push(first);
            match payload.len() {
                length @ 0..126 => bytes.push(0x80 | length as u8),
                length => {
                    bytes.push(0x80 | 126);
                    bytes.extend_from_slice(&(length as u16).to_be_bytes());
                }
            }
            bytes.extend_from_slice(&mask);
            let start = bytes.len();
            bytes.extend_from_slice(payload);
            frame::apply_mask(&mut bytes[start..], mask);
        }
        bytes
    }

    /// What is found in `bytes` that come in pieces of `piece` bytes: how many stand before the wrong frame.
    fn found(bytes: &[u8], piece: usize) -> Option<usize> {
        let mut check = TextCheck::amid(Side::Client, 0);
        let mut frame_at = 0;
        for (index, part) in bytes.chunks(piece).enumerate() {
            if let Err(sound) = check.take(part) {
                // A frame that began in an earlier piece is named by the beginning of this one.
                return Some(if sound == 0 && frame_at < index * piece { frame_at } else { index * piece + sound });
            }
            if check.header_len > 0 || check.frame.left > 0 {
                frame_at = start_of_last_frame(&bytes[..((index + 1) * piece).min(bytes.len())]);
            } else {
                frame_at = ((index + 1) * piece).min(bytes.len());
            }
        }
        None
    }

    fn start_of_last_frame(bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Ok(Some(header)) = frame::parse(&bytes[at..], Side::Client) {
            let next = at + header.header_len + header.payload_len as usize;
            if next > bytes.len() || next == bytes.len() {
                return at;
            }
            at = next;
        }
        at
    }

    /// Frames, each by its first byte and its payload.
    type Frames<'a> = &'a [(u8, &'a [u8])];

    #[test]
    fn text_is_judged_the_same_however_it_is_cut_up() {
        let long = "ü€\u{1F980}".repeat(300);
        let euro = "€".as_bytes();
        let good: [Frames<'_>; 8] = [
            &[(0x81, b""), (0x81, b"plain")],
            &[(0x81, long.as_bytes())],
            &[(0x01, &euro[..1]), (0x00, &euro[1..2]), (0x80, &euro[2..])],
            &[(0x01, &euro[..1]), (0x89, b"\xFF"), (0x00, b""), (0x80, &euro[1..])],
            &[(0x82, b"\xFF\xFE")],
            &[(0x02, b"\xFF"), (0x80, b"\xFE"), (0x81, b"x")],
            &[(0x81, "\u{10FFFF}\u{0}\u{FFFD}".as_bytes())],
            &[(0x8A, b"\xFF"), (0x88, b"\x03\xE8\xFF")],
        ];
        for sent in good {
            let bytes = frames(sent);
            for piece in 1..=bytes.len() {
                assert_eq!(found(&bytes, piece), None, "{sent:?} by {piece}");
            }
        }
    }

    #[test]
    fn the_first_wrong_frame_is_named() {
        let euro = "€".as_bytes();
        let bad: [(Frames<'_>, usize); 8] = [
            (&[(0x81, b"\xFF")], 0),
            (&[(0x81, b"fine"), (0x81, b"\xC0\x80")], 1),
            (&[(0x81, &euro[..2])], 0),
            (&[(0x01, &euro[..1]), (0x80, b"x")], 1),
            (&[(0x01, &euro[..2]), (0x80, b"")], 1),
            (&[(0x81, b"\xED\xA0\x80")], 0),
            (&[(0x81, b"\xF4\x90\x80\x80")], 0),
            (&[(0x02, b"\xFF"), (0x80, b"\xFF"), (0x01, b"a"), (0x89, b"\xFF"), (0x00, b"\xFF"), (0x80, b"")], 4),
        ];
        for (sent, wrong) in bad {
            let (bytes, before) = (frames(sent), frames(&sent[..wrong]).len());
            for piece in [1, 2, 3, 5, 7, bytes.len()] {
                assert_eq!(found(&bytes, piece), Some(before), "{sent:?} by {piece}");
            }
        }
    }

    #[test]
    fn what_is_no_frame_and_what_was_half_there_before_is_not_judged() {
        let mut check = TextCheck::amid(Side::Client, 0);
        assert_eq!(check.take(&[0xF1, 0x80, 0xFF, 0xFF]), Ok(()));
        let mut check = TextCheck::amid(Side::Client, 3);
        assert_eq!(check.take(b"\xFF\xFF\xFF"), Ok(()));
        assert_eq!(check.take(&frames(&[(0x80, b"\xFF"), (0x81, b"x")])), Ok(()));
        assert_eq!(check.take(&frames(&[(0x81, b"\xFF")])), Err(0));
    }
}
