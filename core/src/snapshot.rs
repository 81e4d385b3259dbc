//! A frozen pipe as bytes, and how they are read: strictly, and never believed.
//!
//! ```text
//!   "HLpipe" | version: u16 | bytes that follow: u64 | the pipe
//! ```
//!
//! Every number is big-endian; what may be absent has a byte before it, 0 or 1; a list has its length before it. Times
//! are microseconds from the moment of the freeze, since the reader's clock has another origin. Nothing is optional,
//! nothing is skipped: each part has one form only, so that what is read is written again as the same bytes. The parts
//! know their own fields (`freeze` and `thaw` beside each); here is what they share.
//!
//! Invariant: no bytes make a reader panic, allocate more than a small multiple of what it was given, or yield a pipe
//! that a [`crate::pipe::Pipe`] could not have been frozen from in what its own arithmetic relies on.

use std::fmt;

use crate::close::{self, CloseFrame, NO_CODE, REASON_BYTES_MAX};
use crate::ids::{BackendKey, Seq};
use crate::time::Time;

/// The form of the bytes; another form is another number, to which `core/tests/pipe/form.rs` holds us.
pub const VERSION: u16 = 4;

const MAGIC: &[u8; 6] = b"HLpipe";

/// Bytes before the pipe.
const HEAD_BYTES: usize = MAGIC.len() + 2 + 8;

/// The farthest that a time may lie from the freeze, in microseconds: 35 years.
const SPAN_MAX: i64 = 1 << 50;

/// The highest that anything is counted: far from where a sum could overflow.
const COUNT_MAX: u64 = 1 << 56;

/// A frozen pipe.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot(Vec<u8>);

/// Why bytes are no frozen pipe that this version can bring back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotError {
    /// The bytes are something else.
    NotASnapshot,
    /// They are in a form that this version does not know.
    Version(u16),
    /// There are fewer or more bytes than they say.
    Length,
    /// A part is not what a pipe can be.
    Malformed(&'static str),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASnapshot => f.write_str("not a snapshot of a pipe"),
            Self::Version(version) => write!(f, "a snapshot in form {version}; this version reads form {VERSION}"),
            Self::Length => f.write_str("a snapshot that was cut short or has bytes behind it"),
            Self::Malformed(part) => write!(f, "a snapshot that no pipe can be in its {part}"),
        }
    }
}

impl std::error::Error for SnapshotError {}

/// Shows the size only: a snapshot holds what clients and workers said.
impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({} bytes)", self.0.len())
    }
}

impl Snapshot {
    /// Takes bytes for a snapshot if they begin like one and are as long as they say; the pipe itself is read by
    /// [`crate::pipe::Pipe::restore`].
    ///
    /// # Errors
    /// Any but [`SnapshotError::Malformed`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, SnapshotError> {
        let (magic, rest) = bytes.split_first_chunk().ok_or(SnapshotError::NotASnapshot)?;
        if magic != MAGIC {
            return Err(SnapshotError::NotASnapshot);
        }
        let (version, rest) = rest.split_first_chunk().ok_or(SnapshotError::Length)?;
        match u16::from_be_bytes(*version) {
            VERSION => {}
            other => return Err(SnapshotError::Version(other)),
        }
        let (len, body) = rest.split_first_chunk().ok_or(SnapshotError::Length)?;
        if u64::from_be_bytes(*len) != body.len() as u64 {
            return Err(SnapshotError::Length);
        }
        Ok(Self(bytes))
    }

    /// The bytes to hand over.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes to hand over.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The pipe, for a reader whose clock shows `frozen_at` for the moment of the freeze.
    pub(crate) fn reader(&self, frozen_at: Time) -> Reader<'_> {
        Reader { rest: &self.0[HEAD_BYTES..], frozen_at }
    }
}

/// Writes the parts of a pipe.
#[derive(Debug)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    now: Time,
}

impl Writer {
    pub fn new(now: Time) -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_be_bytes());
        bytes.extend([0; 8]);
        Self { bytes, now }
    }

    pub fn finish(mut self) -> Snapshot {
        let len = (self.bytes.len() - HEAD_BYTES) as u64;
        self.bytes[HEAD_BYTES - 8..HEAD_BYTES].copy_from_slice(&len.to_be_bytes());
        Snapshot(self.bytes)
    }

    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub fn u32(&mut self, value: u32) {
        self.bytes.extend(value.to_be_bytes());
    }

    pub fn count(&mut self, value: u64) {
        self.bytes.extend(value.to_be_bytes());
    }

    pub fn size(&mut self, value: usize) {
        self.count(value as u64);
    }

    pub fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub fn seq(&mut self, value: Seq) {
        self.count(value.0);
    }

    pub fn backend(&mut self, value: BackendKey) {
        self.bytes.extend(value.0.to_be_bytes());
    }

    pub fn time(&mut self, value: Time) {
        self.bytes.extend(value.offset_from(self.now).to_be_bytes());
    }

    /// Bytes whose number both sides know.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.size(bytes.len());
        self.raw(bytes);
    }

    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub fn close_frame(&mut self, frame: &CloseFrame) {
        self.u32(u32::from(frame.code));
        self.bytes(frame.reason.as_bytes());
    }
}

/// Reads the parts of a pipe.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    frozen_at: Time,
}

pub(crate) type Read<T> = Result<T, SnapshotError>;

/// Ok if `holds`, else that `part` is malformed.
pub(crate) fn demand(holds: bool, part: &'static str) -> Read<()> {
    if holds { Ok(()) } else { Err(SnapshotError::Malformed(part)) }
}

impl<'a> Reader<'a> {
    /// The moment of the freeze on the reader's clock.
    pub const fn frozen_at(&self) -> Time {
        self.frozen_at
    }

    /// Ends the reading: there must be nothing left.
    pub fn finish(self) -> Read<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(SnapshotError::Length) }
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(SnapshotError::Length)?;
        self.rest = rest;
        Ok(*array)
    }

    pub fn u8(&mut self) -> Read<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A number of things, a sequence number or a number of bytes.
    pub fn count(&mut self) -> Read<u64> {
        let value = u64::from_be_bytes(self.array()?);
        demand(value <= COUNT_MAX, "counts")?;
        Ok(value)
    }

    pub fn size(&mut self) -> Read<usize> {
        self.count().map(|value| value as usize)
    }

    pub fn flag(&mut self) -> Read<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(SnapshotError::Malformed("flags")),
        }
    }

    pub fn seq(&mut self) -> Read<Seq> {
        self.count().map(Seq)
    }

    pub fn backend(&mut self) -> Read<BackendKey> {
        self.array().map(|bytes| BackendKey(u64::from_be_bytes(bytes)))
    }

    pub fn time(&mut self) -> Read<Time> {
        let micros = i64::from_be_bytes(self.array()?);
        demand((-SPAN_MAX..=SPAN_MAX).contains(&micros), "times")?;
        Ok(self.frozen_at.at_offset(micros))
    }

    /// A time that had come when the pipe was frozen.
    pub fn past(&mut self) -> Read<Time> {
        let time = self.time()?;
        demand(time <= self.frozen_at, "times")?;
        Ok(time)
    }

    /// As many bytes as both sides know of.
    pub fn raw(&mut self, len: usize) -> Read<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(SnapshotError::Length)?;
        self.rest = rest;
        Ok(bytes)
    }

    pub fn bytes(&mut self, len_max: usize) -> Read<&'a [u8]> {
        let len = self.size()?;
        demand(len <= len_max, "lengths")?;
        self.raw(len)
    }

    /// How many entries follow, each of `entry_bytes` bytes or more; never more than there are bytes for.
    pub fn entries(&mut self, entries_max: usize, entry_bytes: usize) -> Read<usize> {
        let entries = self.size()?;
        demand(entries <= entries_max, "lengths")?;
        if entries > self.rest.len() / entry_bytes { Err(SnapshotError::Length) } else { Ok(entries) }
    }

    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    pub fn close_frame(&mut self) -> Read<CloseFrame> {
        let code = self.u32()?;
        let reason = self.bytes(REASON_BYTES_MAX)?;
        let code = u16::try_from(code).map_err(|_| SnapshotError::Malformed("close frames"))?;
        let reason = str::from_utf8(reason).map_err(|_| SnapshotError::Malformed("close frames"))?;
        demand(close::is_sendable(code) || code == NO_CODE && reason.is_empty(), "close frames")?;
        Ok(CloseFrame { code, reason: reason.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::new(Time::from_micros(50));
        write(&mut writer);
        writer.finish().into_bytes()
    }

    #[test]
    fn what_is_no_snapshot_is_told_apart_from_one_of_another_version_or_length() {
        let good = written(|out| out.u32(7));
        assert!(Snapshot::from_bytes(good.clone()).is_ok());
        let told = |bytes: &[u8]| Snapshot::from_bytes(bytes.to_vec()).err();
        for len in 0..good.len() {
            let error = if len < MAGIC.len() { SnapshotError::NotASnapshot } else { SnapshotError::Length };
            assert_eq!(told(&good[..len]), Some(error), "{len}");
        }
        assert_eq!(told(&[&good[..], b"x"].concat()), Some(SnapshotError::Length));
        assert_eq!(told(&[b"HLPIPE", &good[6..]].concat()), Some(SnapshotError::NotASnapshot));
        assert_eq!(told(&[&MAGIC[..], &[0, 1], &good[8..]].concat()), Some(SnapshotError::Version(1)));
    }

    #[test]
    fn times_keep_their_distance_from_the_freeze_even_where_a_clock_had_not_begun() {
        let bytes = written(|out| {
            out.time(Time::ZERO);
            out.time(Time::from_micros(70));
        });
        let snapshot = Snapshot::from_bytes(bytes).unwrap();
        let frozen_at = Time::from_micros(10);
        let mut reader = snapshot.reader(frozen_at);
        let began = reader.past().unwrap();
        assert_eq!(frozen_at.since(began).as_micros(), 50);
        assert_eq!(reader.time(), Ok(Time::from_micros(30)));
        assert_eq!(reader.finish(), Ok(()));
        assert!(began < Time::ZERO);
    }

    #[test]
    fn a_value_out_of_bounds_is_refused() {
        let refused = |bytes: Vec<u8>, read: fn(&mut Reader<'_>) -> bool| {
            let snapshot = Snapshot::from_bytes(bytes).unwrap();
            assert!(read(&mut snapshot.reader(Time::ZERO)));
        };
        refused(written(|out| out.u8(2)), |it| it.flag() == Err(SnapshotError::Malformed("flags")));
        refused(written(|out| out.count(u64::MAX)), |it| it.count() == Err(SnapshotError::Malformed("counts")));
        refused(written(|out| out.raw(&[0x7f; 8])), |it| it.time() == Err(SnapshotError::Malformed("times")));
        refused(written(|out| out.time(Time::from_micros(51))), |it| it.past().is_err());
        refused(written(|out| out.size(5)), |it| it.bytes(4) == Err(SnapshotError::Malformed("lengths")));
        refused(written(|out| out.size(5)), |it| it.bytes(5) == Err(SnapshotError::Length));
        refused(written(|out| out.size(1 << 40)), |it| it.entries(usize::MAX, 4) == Err(SnapshotError::Length));
        for (code, reason) in [(1006, ""), (1005, "x"), (70_000, "")] {
            refused(
                written(|out| {
                    out.u32(code);
                    out.bytes(reason.as_bytes());
                }),
                |it| it.close_frame() == Err(SnapshotError::Malformed("close frames")),
            );
        }
    }
}
