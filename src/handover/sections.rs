//! What is too long for a message: pieces of bytes, one after the other, in a descriptor of memory.
//!
//! ```text
//!   (length: u64 | bytes) ...
//! ```
//! Invariant: what is read was written whole; a piece that is cut short is an error and never a shorter piece.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};

/// Bytes before each piece.
const LENGTH_BYTES: usize = 8;

/// Pieces that are written.
#[derive(Debug, Default)]
pub struct Sections(Vec<u8>);

/// Bytes that end where more should follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("it is cut short")]
pub struct CutShort;

impl Sections {
    /// Adds a piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.0.extend((piece.len() as u64).to_be_bytes());
        self.0.extend_from_slice(piece);
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of it in memory that another process can be given.
    ///
    /// # Errors
    /// The system's.
    pub fn into_memory(self) -> io::Result<OwnedFd> {
        let memory = memfd_create("holdline", MemfdFlags::CLOEXEC)?;
        let mut file = File::from(memory);
        file.write_all(&self.0)?;
        Ok(file.into())
    }
}

/// What is in `memory`, of which there should be so many `bytes`.
///
/// # Errors
/// There are more or fewer, or the system's.
pub fn read(memory: OwnedFd, bytes: usize) -> io::Result<Vec<u8>> {
    let mut file = File::from(memory);
    let there = file.metadata()?.len();
    if there != bytes as u64 {
        return Err(io::Error::other(format!("{there} bytes of {bytes} are there")));
    }
    file.seek(SeekFrom::Start(0))?;
    let mut all = vec![0; bytes];
    file.read_exact(&mut all)?;
    Ok(all)
}

/// Takes the pieces out again.
#[derive(Debug)]
pub struct Pieces<'a>(pub &'a [u8]);

impl<'a> Pieces<'a> {
    /// The next piece.
    ///
    /// # Errors
    /// There is none, or it is cut short.
    pub fn next(&mut self) -> Result<&'a [u8], CutShort> {
        let (length, rest) = self.0.split_first_chunk::<LENGTH_BYTES>().ok_or(CutShort)?;
        let length = usize::try_from(u64::from_be_bytes(*length)).map_err(|_| CutShort)?;
        let (piece, rest) = rest.split_at_checked(length).ok_or(CutShort)?;
        self.0 = rest;
        Ok(piece)
    }

    /// Whether there is no further piece.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_as_they_were_and_none_is_cut() {
        let mut sections = Sections::default();
        let pieces: [&[u8]; 3] = [b"one", b"", &[7; 100_000]];
        pieces.iter().for_each(|piece| sections.push(piece));
        let bytes = sections.len();
        let all = read(sections.into_memory().unwrap(), bytes).unwrap();
        let mut back = Pieces(&all);
        assert!(pieces.iter().all(|&piece| back.next() == Ok(piece)) && back.is_empty());
        assert_eq!(back.next(), Err(CutShort));
        for end in [1, 8, 10, 12, 25, all.len() - 1] {
            let mut cut = Pieces(&all[..end]);
            assert!((0..3).any(|_| cut.next().is_err()), "{end}");
        }
    }

    #[test]
    fn memory_that_is_not_as_long_as_was_said_is_refused() {
        let memory = || {
            let mut sections = Sections::default();
            sections.push(b"12345");
            sections.into_memory().unwrap()
        };
        assert!(read(memory(), 13).is_ok());
        assert!(read(memory(), 12).is_err() && read(memory(), 14).is_err());
    }
}
