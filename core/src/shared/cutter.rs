//! A pipe's bytes, cut into whole messages for a reader that takes them message by message.
//!
//! The bytes come from a pipe of ours, which has judged sizes and rules already; that they break any here is a fault of
//! ours and costs the link. Pings and pongs end here: the far end is in the same process and needs no proof of life.

use bytes::Bytes;

use crate::assembler::{Assembler, MessageLimits, Refused, Step};
use crate::close::CloseFrame;
use crate::frame::{Opcode, Side};

/// What was cut off.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// A whole data message, frames and all.
    Message(Bytes),
    /// A close frame.
    Close(CloseFrame),
}

/// Cuts one side's bytes.
#[derive(Debug)]
pub struct Cutter {
    assembler: Assembler,
    /// The message that is not whole yet.
    partial: Vec<u8>,
}

impl Cutter {
    /// A cutter for what the peer of `sender` says.
    #[must_use]
    pub const fn new(sender: Side) -> Self {
        Self { assembler: Assembler::new(sender), partial: Vec::new() }
    }

    /// Takes in the start of `bytes`, up to the end of the first piece in it; how many bytes that were, and the piece.
    ///
    /// # Errors
    /// The bytes are not what a pipe writes.
    pub fn cut(&mut self, bytes: &[u8]) -> Result<(usize, Option<Piece>), Refused> {
        let mut at = 0;
        while at < bytes.len() {
            let (len, ended, frame) = match self.assembler.step(&bytes[at..], MessageLimits::CEILING)? {
                Step::Data { len, ended } => (len, ended, &bytes[at..at + len]),
                Step::Header { ref header, header_len, len, ended } => {
                    self.keep(&header[..header_len]);
                    (len, ended, &[][..])
                }
                Step::Control { control, len } => {
                    at += len;
                    if control.opcode == Opcode::Close {
                        let frame = CloseFrame::parse(control.payload()).map_err(Refused::Violation)?;
                        return Ok((at, Some(Piece::Close(frame))));
                    }
                    continue;
                }
                Step::Skipped { .. } => return Err(Refused::MessageTooBig),
                Step::Starved => return Ok((bytes.len(), None)),
            };
            at += len;
            self.keep(frame);
            if ended.is_some() {
                return Ok((at, Some(Piece::Message(Bytes::from(std::mem::take(&mut self.partial))))));
            }
        }
        Ok((at, None))
    }

    /// Adds to the message under way. What its only frame will need is reserved at once, so that it is held in just
    /// as many bytes as it has.
    fn keep(&mut self, bytes: &[u8]) {
        if self.partial.is_empty() {
            self.partial.reserve_exact(bytes.len() + self.assembler.frame_left_bytes());
        }
        self.partial.extend_from_slice(bytes);
    }

    /// Bytes of a message that is not whole yet.
    #[must_use]
    pub fn partial_bytes(&self) -> usize {
        self.partial.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;

    fn framed(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::encode(&mut bytes, opcode, payload, None);
        bytes
    }

    fn cut_all(cutter: &mut Cutter, mut bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let (used, piece) = cutter.cut(bytes).unwrap();
            bytes = &bytes[used..];
            pieces.extend(piece);
        }
        pieces
    }

    #[test]
    fn messages_come_out_whole_however_the_bytes_were_split() {
        let mut fragmented = framed(Opcode::Text, b"two");
        fragmented[0] &= 0x7f;
        fragmented.extend(framed(Opcode::Continuation, b" parts"));
        let long = framed(Opcode::Binary, &[7; 70_000]);
        let messages = [framed(Opcode::Text, b"one"), fragmented, long, framed(Opcode::Binary, b"")];
        let mut stream = Vec::new();
        for message in &messages {
            stream.extend_from_slice(message);
            stream.extend(framed(Opcode::Ping, b"still there?"));
        }
        stream.extend(framed(Opcode::Close, &CloseFrame::new(4004, "gone").payload()));
        let mut expected: Vec<Piece> = messages.map(|message| Piece::Message(Bytes::from(message))).into();
        expected.push(Piece::Close(CloseFrame::new(4004, "gone")));
        for step in [1, 2, 3, 7, 1000, stream.len()] {
            let mut cutter = Cutter::new(Side::Backend);
            let pieces: Vec<_> = stream.chunks(step).flat_map(|chunk| cut_all(&mut cutter, chunk)).collect();
            assert_eq!(pieces, expected, "in steps of {step}");
            assert_eq!(cutter.partial_bytes(), 0);
        }
    }

    #[test]
    fn what_no_pipe_writes_is_refused() {
        let mut masked = Vec::new();
        frame::encode(&mut masked, Opcode::Text, b"hi", Some([1, 2, 3, 4]));
        assert!(Cutter::new(Side::Backend).cut(&masked).is_err());
        assert!(Cutter::new(Side::Client).cut(&masked).is_ok());
    }
}
