//! The record layer of a session that was handed over (RFC 8446 section 5).
//!
//! It knows the keys of both directions and its place in them, and no handshake. A NewSessionTicket means nothing to it.
//! A KeyUpdate of the peer ends the link: what its next key is made of stays with rustls, in the process where the
//! session began. Our own next keys were made there beforehand, so that a session outlives the bound on what one key
//! seals. Invariant: each record of a direction has a sequence number of its own, and so a nonce of its own; where the
//! numbers end, the session does.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use ring::aead::{Aad, LessSafeKey, Nonce};
use tokio::io::ReadBuf;

use super::frozen::{IV_BYTES, Keys, Place, Suite, TrafficKey};
use super::{Held, RECORD_BYTES, Sealed, Space, seal_pieces};

/// Bytes in front of a record.
pub(super) const HEAD_BYTES: usize = 5;

/// Bytes behind what is sealed.
const TAG_BYTES: usize = 16;

/// Bytes of a sealed record, at most (RFC 8446 section 5.2).
pub(super) const BODY_BYTES_MAX: usize = RECORD_BYTES + 256;

/// What a record is of (RFC 8446 section 5.1).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// The messages of a handshake that may come behind it (RFC 8446 section 4).
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// A KeyUpdate that asks for none in return.
const OUR_KEY_UPDATE: [u8; 5] = [KEY_UPDATE, 0, 0, 1, 0];

/// The alerts that end nothing against its peer's will (RFC 8446 section 6.1).
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;

/// Levels of alerts.
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// Why a session that was handed over does not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("a TLS record is longer than it may be")]
    Overflow,
    #[error("a TLS record is none of this session, or was changed on its way")]
    Forged,
    #[error("a TLS message of kind {0} has no place in this session")]
    Unexpected(u8),
    #[error("a TLS message is malformed")]
    Malformed,
    #[error("the peer ended the session with the TLS alert {0}")]
    Alert(u8),
    #[error("the peer changes its keys (KeyUpdate), which a session that was handed over cannot follow")]
    KeyUpdate,
    #[error("the keys of the session are used up")]
    UsedUp,
    #[error("the keys of the session are lost")]
    Lost,
}

impl RecordError {
    /// What the peer is told (RFC 8446 section 6.2).
    const fn alert(self) -> Option<u8> {
        match self {
            Self::Overflow => Some(22),
            Self::Forged => Some(20),
            Self::Unexpected(_) => Some(10),
            Self::Malformed => Some(50),
            Self::Alert(_) | Self::Lost => None,
            Self::KeyUpdate | Self::UsedUp => Some(80),
        }
    }
}

/// The keys of a session, and its place in both directions.
pub(super) struct Records {
    suite: Suite,
    reads: Direction,
    writes: Direction,
    /// The keys that follow that of `writes`.
    spares: VecDeque<TrafficKey>,
    /// Bytes that are left of a message that means nothing to us.
    skipped: usize,
    /// Set once the session does not go on.
    failed: Option<RecordError>,
}

/// What a record has brought.
enum Content<'a> {
    Data(&'a [u8]),
    Nothing,
    End,
}

impl Records {
    pub(super) fn new(keys: Keys) -> Self {
        let Keys { suite, reads, writes, spares, skipped } = keys;
        let (reads, writes) = (Direction::new(suite, reads), Direction::new(suite, writes));
        Self { suite, reads, writes, spares: spares.into(), skipped: skipped as usize, failed: None }
    }

    /// What stands for a session whose keys could not be taken out.
    pub(super) fn lost() -> Self {
        let none = || Place { key: TrafficKey::none(), sequence: 0 };
        let (suite, spares) = (Suite::Aes128Gcm, Vec::new());
        let records = Self::new(Keys { suite, reads: none(), writes: none(), spares, skipped: 0 });
        Self { failed: Some(RecordError::Lost), ..records }
    }

    /// Its keys, and its place in both directions, for another process.
    pub(super) fn keys(&self) -> Keys {
        let Self { suite, reads, writes, spares, skipped, .. } = self;
        Keys {
            suite: *suite,
            reads: reads.place(),
            writes: writes.place(),
            spares: spares.iter().cloned().collect(),
            skipped: *skipped as u32,
        }
    }

    /// Why it does not go on, here or elsewhere.
    pub(super) const fn failed(&self) -> Option<RecordError> {
        self.failed
    }

    /// Opens all whole records; how many bytes of them are done with.
    pub(super) fn open(
        &mut self,
        records: &mut [u8],
        into: &mut ReadBuf<'_>,
        held: &mut Held,
    ) -> Result<usize, RecordError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut used = 0;
        // Nothing behind the end counts.
        while !held.ends.peers {
            let content = match first(&mut records[used..]) {
                Ok(None) => return Ok(used),
                Ok(Some((head, body))) => {
                    used += HEAD_BYTES + body.len();
                    self.hear(head, body)
                }
                Err(error) => Err(error),
            };
            match content {
                Ok(Content::Data(data)) => held.take_opened(data, into),
                Ok(Content::Nothing) => {}
                Ok(Content::End) => held.ends.peers = true,
                Err(error) => return Err(self.fail(error, held)),
            }
        }
        Ok(records.len())
    }

    /// The session does not go on, which its peer and the log are told.
    fn fail(&mut self, error: RecordError, held: &mut Held) -> RecordError {
        tracing::info!(%error, "a TLS session that was handed over has ended");
        self.failed = Some(error);
        if let Some(alert) = error.alert() {
            let mut room = [0; HEAD_BYTES + 3 + TAG_BYTES];
            // Where the numbers have ended there is no way to say so.
            let sealed = self.writes.seal(ALERT, &[FATAL, alert], &mut room).unwrap_or(0);
            held.outgoing.extend_from_slice(&room[..sealed]);
        }
        error
    }

    /// Opens one record.
    fn hear<'a>(&mut self, head: [u8; HEAD_BYTES], body: &'a mut [u8]) -> Result<Content<'a>, RecordError> {
        let (kind, content) = self.reads.open(head, body)?;
        if self.skipped > 0 && kind != HANDSHAKE {
            return Err(RecordError::Unexpected(kind));
        }
        match (kind, content) {
            (APPLICATION_DATA, data) => Ok(Content::Data(data)),
            (ALERT, [_, CLOSE_NOTIFY]) => Ok(Content::End),
            (ALERT, [WARNING, USER_CANCELED]) => Ok(Content::Nothing),
            (ALERT, [_, alert]) => Err(RecordError::Alert(*alert)),
            (ALERT, _) => Err(RecordError::Malformed),
            (HANDSHAKE, []) => Err(RecordError::Unexpected(HANDSHAKE)),
            (HANDSHAKE, messages) => self.skip(messages).map(|()| Content::Nothing),
            (kind, _) => Err(RecordError::Unexpected(kind)),
        }
    }

    /// Skips messages that mean nothing to us. One may be longer than a record; where it begins is in one piece.
    fn skip(&mut self, mut messages: &[u8]) -> Result<(), RecordError> {
        loop {
            let skipped = self.skipped.min(messages.len());
            self.skipped -= skipped;
            messages = &messages[skipped..];
            match *messages {
                [] => return Ok(()),
                [NEW_SESSION_TICKET, high, middle, low, ref body @ ..] => {
                    self.skipped = u32::from_be_bytes([0, high, middle, low]) as usize;
                    messages = body;
                }
                [KEY_UPDATE, ..] => return Err(RecordError::KeyUpdate),
                [NEW_SESSION_TICKET, ..] => return Err(RecordError::Malformed),
                [kind, ..] => return Err(RecordError::Unexpected(kind)),
            }
        }
    }

    /// Seals as much of `slices` as goes at once, and behind `all` that ever comes the word that nothing follows.
    pub(super) fn seal(
        &mut self,
        slices: &[IoSlice<'_>],
        all: Option<usize>,
        space: &mut Space,
        held: &mut Held,
    ) -> io::Result<Sealed> {
        let sealed = seal_pieces(slices, space, |piece, room| {
            let mut at = 0;
            for part in piece.chunks(RECORD_BYTES) {
                at += self.seal_record(APPLICATION_DATA, part, &mut room[at..])?;
            }
            Ok(at)
        });
        let mut sealed = sealed.map_err(|error: RecordError| io::Error::other(self.fail(error, held)))?;
        if all == Some(sealed.taken) {
            sealed.bytes += self.end(&mut space.sealed[sealed.bytes..])?;
            held.ends.ours = true;
        }
        Ok(sealed)
    }

    /// Seals into `room` that nothing follows; the bytes of that.
    pub(super) fn end(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.seal_record(ALERT, &[WARNING, CLOSE_NOTIFY], room).map_err(io::Error::other)
    }

    fn seal_record(&mut self, kind: u8, content: &[u8], room: &mut [u8]) -> Result<usize, RecordError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let renewed = if self.writes.is_used_up() { self.renew(room)? } else { 0 };
        Ok(renewed + self.writes.seal(kind, content, &mut room[renewed..])?)
    }

    /// Goes on to the next key, which the peer is told.
    fn renew(&mut self, room: &mut [u8]) -> Result<usize, RecordError> {
        let key = self.spares.pop_front().ok_or(RecordError::UsedUp)?;
        let told = self.writes.seal(HANDSHAKE, &OUR_KEY_UPDATE, room)?;
        self.writes = Direction::new(self.suite, Place { key, sequence: 0 });
        Ok(told)
    }
}

/// The head of a record, and its body.
type Parts<'a> = ([u8; HEAD_BYTES], &'a mut [u8]);

/// The first record of `bytes`, its head apart; nothing if it has not come whole.
fn first(bytes: &mut [u8]) -> Result<Option<Parts<'_>>, RecordError> {
    let Some((head, rest)) = bytes.split_first_chunk_mut::<HEAD_BYTES>() else { return Ok(None) };
    let &mut [kind, _, _, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if kind != APPLICATION_DATA {
        return Err(RecordError::Unexpected(kind));
    }
    if length > BODY_BYTES_MAX {
        return Err(RecordError::Overflow);
    }
    Ok(rest.get_mut(..length).map(|body| (*head, body)))
}

/// One direction of a session.
struct Direction {
    key: TrafficKey,
    cipher: LessSafeKey,
    /// The number of the next record.
    sequence: u64,
    /// Records that are sealed with the key.
    records_max: u64,
}

impl Direction {
    fn new(suite: Suite, Place { key, sequence }: Place) -> Self {
        Self { cipher: key.cipher(suite), key, sequence, records_max: suite.records_max() }
    }

    fn place(&self) -> Place {
        Place { key: self.key.clone(), sequence: self.sequence }
    }

    const fn is_used_up(&self) -> bool {
        self.sequence >= self.records_max
    }

    /// The nonce of the next record (RFC 8446 section 5.3), which is counted.
    fn nonce(&mut self) -> Result<Nonce, RecordError> {
        let mut nonce: [u8; IV_BYTES] = *self.key.iv();
        for (byte, of_sequence) in nonce[IV_BYTES - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= of_sequence;
        }
        self.sequence = self.sequence.checked_add(1).ok_or(RecordError::UsedUp)?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }

    /// Opens a record in place; what it is of, and what it holds.
    fn open<'a>(&mut self, head: [u8; HEAD_BYTES], body: &'a mut [u8]) -> Result<(u8, &'a [u8]), RecordError> {
        let nonce = self.nonce()?;
        let inner = self.cipher.open_in_place(nonce, Aad::from(head), body).map_err(|_| RecordError::Forged)?;
        if inner.len() > RECORD_BYTES + 1 {
            return Err(RecordError::Overflow);
        }
        // Behind what it is of there may be padding, which is zeros.
        let at = inner.iter().rposition(|&byte| byte != 0).ok_or(RecordError::Unexpected(0))?;
        Ok((inner[at], &inner[..at]))
    }

    /// Seals a record into `room`; the bytes of it.
    fn seal(&mut self, kind: u8, content: &[u8], room: &mut [u8]) -> Result<usize, RecordError> {
        let inner_bytes = content.len() + 1;
        let [high, low] = ((inner_bytes + TAG_BYTES) as u16).to_be_bytes();
        let head = [APPLICATION_DATA, 3, 3, high, low];
        let (front, body) = room.split_at_mut(HEAD_BYTES);
        let (inner, tag) = body.split_at_mut(inner_bytes);
        front.copy_from_slice(&head);
        inner[..content.len()].copy_from_slice(content);
        inner[content.len()] = kind;
        let nonce = self.nonce()?;
        // An error is only of a record that no key could seal; those are short.
        let sealed = self.cipher.seal_in_place_separate_tag(nonce, Aad::from(head), inner);
        tag[..TAG_BYTES].copy_from_slice(sealed.map_err(|_| RecordError::Overflow)?.as_ref());
        Ok(HEAD_BYTES + inner_bytes + TAG_BYTES)
    }
}

#[cfg(test)]
mod tests;
