//! Close codes: which of a worker's end the pipe, which interrupt it, and what Holdline itself says.

use crate::frame::{CONTROL_PAYLOAD_MAX, Violation};

/// Bytes of the longest reason (RFC 6455 section 5.5.1).
pub const REASON_BYTES_MAX: usize = CONTROL_PAYLOAD_MAX - 2;

/// The code that stands for a close frame without one (RFC 6455 section 7.4.1); it is never sent.
pub const NO_CODE: u16 = 1005;

/// A close frame's payload, as received or to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CloseFrame {
    /// The code, or [`NO_CODE`] for an empty frame.
    pub code: u16,
    /// At most [`REASON_BYTES_MAX`] bytes.
    pub reason: String,
}

impl CloseFrame {
    /// A close frame of Holdline's own; a reason that is too long is cut at a character.
    #[must_use]
    pub fn new(code: u16, reason: &str) -> Self {
        let mut end = reason.len().min(REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self { code, reason: reason[..end].to_owned() }
    }

    /// Reads a received close frame's payload.
    ///
    /// # Errors
    /// [`Violation::BadClose`] for one byte, a code that RFC 6455 section 7.4 keeps off the wire, or a reason that is
    /// not UTF-8.
    pub fn parse(payload: &[u8]) -> Result<Self, Violation> {
        let Some((code, reason)) = payload.split_first_chunk::<2>() else {
            return if payload.is_empty() { Ok(Self::new(NO_CODE, "")) } else { Err(Violation::BadClose) };
        };
        let code = u16::from_be_bytes(*code);
        if !is_sendable(code) {
            return Err(Violation::BadClose);
        }
        let reason = str::from_utf8(reason).map_err(|_| Violation::BadClose)?;
        Ok(Self { code, reason: reason.to_owned() })
    }

    /// The payload to put on the wire.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        if self.code == NO_CODE {
            return Vec::new();
        }
        [&self.code.to_be_bytes()[..], self.reason.as_bytes()].concat()
    }
}

/// Whether `code` may stand in a close frame: 1000–1014 without the three reserved ones, and 3000–4999.
#[must_use]
pub const fn is_sendable(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// A set of WebSocket close codes, as sorted inclusive ranges.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CodeSet(Vec<(u16, u16)>);

impl CodeSet {
    /// The set that holds each of `ranges`, both ends included.
    #[must_use]
    pub fn new(mut ranges: Vec<(u16, u16)>) -> Self {
        ranges.sort_unstable();
        Self(ranges)
    }

    /// Whether `code` is in the set.
    #[must_use]
    pub fn contains(&self, code: u16) -> bool {
        self.0.iter().any(|&(low, high)| (low..=high).contains(&code))
    }

    /// The ranges, sorted.
    pub fn ranges(&self) -> impl Iterator<Item = (u16, u16)> {
        self.0.iter().copied()
    }
}

/// The codes that interrupt a pipe when a worker sends them, unless its route says otherwise. An empty close frame is not
/// among them: it completes the closing handshake (RFC 6455 sections 7.1.4 and 7.1.5) as any other end does.
#[must_use]
pub fn default_interrupt_codes() -> CodeSet {
    CodeSet::new(vec![(1001, 1001), (1006, 1006), (1011, 1014)])
}

/// The codes that mean "not my key" as a worker's first word after a reattach, unless its route says otherwise.
#[must_use]
pub fn default_wrong_worker_codes() -> CodeSet {
    CodeSet::new(vec![(4004, 4004)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_must_not_be_on_the_wire_are_refused() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
            assert_eq!(CloseFrame::parse(&u16::to_be_bytes(code)), Err(Violation::BadClose), "{code}");
        }
        assert_eq!(CloseFrame::parse(&[3]), Err(Violation::BadClose));
        assert_eq!(CloseFrame::parse(b"\x03\xe8\xff"), Err(Violation::BadClose));
    }

    #[test]
    fn a_close_frame_survives_the_wire() {
        for frame in [CloseFrame::new(NO_CODE, ""), CloseFrame::new(1000, ""), CloseFrame::new(4999, "grüße")] {
            assert_eq!(CloseFrame::parse(&frame.payload()), Ok(frame));
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let frame = CloseFrame::new(1011, &"ü".repeat(100));
        assert_eq!(frame.reason.len(), 122);
    }
}
