//! Where the body of a request ends, so that the next head is known by its first byte.
//!
//! hyper reads the body, and says how long it is; here the same bytes are counted. Invariant: no byte is touched but a bare
//! LF in the trailers, which are lines of a head like any other. What hyper will refuse is followed no further, and is
//! never over.

use super::request_line::{Judged, Line, NEVER};

/// What is left of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BodyEnd(Part);

/// What the next byte is part of (RFC 9112 section 7.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// A body with a length; so much of it is left.
    Length(u64),
    /// A chunk's size, as far as it is known.
    Size(u64),
    /// What may stand behind the size.
    Extension(u64),
    SizeLf(u64),
    Chunk(u64),
    ChunkCr,
    ChunkLf,
    Trailers(Line),
    Over,
    /// No body that hyper takes.
    Lost,
}

impl BodyEnd {
    /// The end of a body of `length` bytes.
    pub const fn after(length: u64) -> Self {
        Self(Part::Length(length))
    }

    /// The end of a body in chunks.
    pub const fn chunks() -> Self {
        Self(Part::Size(0))
    }

    /// Whether the next byte is none of the body.
    pub fn is_over(self) -> bool {
        self.0 == Part::Over
    }

    /// Goes on by `bytes`; how many of them are the body's.
    pub fn follow(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && !self.is_over() {
            at += self.step(&mut bytes[at..]);
        }
        at
    }

    /// Goes on by one byte, or by as many as are just data.
    fn step(&mut self, bytes: &mut [u8]) -> usize {
        let data = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        match self.0 {
            Part::Length(left) => {
                let taken = data(left);
                let left = left - taken as u64;
                self.0 = if left == 0 { Part::Over } else { Part::Length(left) };
                taken
            }
            Part::Chunk(left) => {
                let taken = data(left);
                let left = left - taken as u64;
                self.0 = if left == 0 { Part::ChunkCr } else { Part::Chunk(left) };
                taken
            }
            Part::Lost => bytes.len(),
            part => {
                self.0 = part.behind(&mut bytes[0]);
                1
            }
        }
    }
}

impl Part {
    /// What follows `byte`.
    fn behind(self, byte: &mut u8) -> Self {
        match (self, *byte) {
            (Self::Size(size), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(*byte).to_digit(16).map(u64::from);
                let size = size.checked_mul(16).zip(digit).and_then(|(size, digit)| size.checked_add(digit));
                size.map_or(Self::Lost, Self::Size)
            }
            (Self::Size(size) | Self::Extension(size), b'\r') => Self::SizeLf(size),
            (Self::Size(size), b' ' | b'\t' | b';') => Self::Extension(size),
            (Self::Extension(size), byte) if byte != b'\n' => Self::Extension(size),
            (Self::SizeLf(0), b'\n') => Self::Trailers(Line::FRESH),
            (Self::SizeLf(size), b'\n') => Self::Chunk(size),
            (Self::ChunkCr, b'\r') => Self::ChunkLf,
            (Self::ChunkLf, b'\n') => Self::Size(0),
            (Self::Trailers(line), _) => match line.judge(*byte) {
                Judged::GoesOn(line) => Self::Trailers(line),
                Judged::Ends => Self::Over,
                Judged::BareLf => {
                    *byte = NEVER;
                    Self::Lost
                }
            },
            (
                Self::Length(_)
                | Self::Size(_)
                | Self::Extension(_)
                | Self::SizeLf(_)
                | Self::Chunk(_)
                | Self::ChunkCr
                | Self::ChunkLf
                | Self::Over
                | Self::Lost,
                _,
            ) => Self::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much of `sent` is the body, in whatever pieces it comes; nothing if it never ends.
    fn body_of(end: BodyEnd, sent: &str) -> Option<usize> {
        let ends = [1, 2, 3, 7, 1000].map(|piece| {
            let (mut end, mut taken, mut bytes) = (end, 0, sent.as_bytes().to_vec());
            for bytes in bytes.chunks_mut(piece) {
                taken += end.follow(bytes);
                if end.is_over() {
                    return Some(taken);
                }
            }
            None
        });
        assert!(ends.iter().all(|end| *end == ends[0]), "{sent:?}: {ends:?}");
        ends[0]
    }

    #[test]
    fn a_body_ends_where_hyper_ends_it() {
        assert_eq!(body_of(BodyEnd::after(5), "\n\n\n\n\nGET"), Some(5));
        assert_eq!(body_of(BodyEnd::after(9), "12345"), None);
        for body in [
            "0\r\n\r\n",
            "5\r\nab\n\ncd\r\n0\r\n\r\n".replace("cd", "c").as_str(),
            "1;name=value\r\n\n\r\n00\r\n\r\n",
            "A \r\n0123456789\r\n0\r\nTrailer: a\r\nOther: b\r\n\r\n",
        ] {
            assert_eq!(body_of(BodyEnd::chunks(), &format!("{body}GET / HTTP/1.1\r\n")), Some(body.len()), "{body:?}");
        }
        for never in
            ["0\n\nGET", "x\r\n", "1\r\nab\r\n", "fffffffffffffffff\r\n", "0\r\nTrailer: a\n\r\nGET", "0;\n\r\n\r\n"]
        {
            assert_eq!(body_of(BodyEnd::chunks(), never), None, "{never:?}");
        }
    }

    #[test]
    fn a_bare_lf_in_the_trailers_becomes_what_no_head_may_hold() {
        let mut sent = b"0\r\nTrailer: a\nB: c\r\n\r\n".to_vec();
        BodyEnd::chunks().follow(&mut sent);
        assert_eq!(sent, b"0\r\nTrailer: a\0B: c\r\n\r\n");
    }
}
