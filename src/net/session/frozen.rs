//! A TLS 1.3 session as bytes for another process: its keys, its place in both directions, and what is on its way.
//!
//! ```text
//!   "HLtls" | form: u16 | suite: u8 | ends: u8 | skipped: u32
//!   reads: key, IV, sequence number: u64 | writes: the same | spares: u8, and each: key, IV
//!   incoming | opened | outgoing: each a length: u32, and so many bytes
//! ```
//!
//! Every number is big-endian, and each part has one form only. The bytes are as secret as the session: they are wiped
//! when they are dropped, and are in no log. Invariant: no bytes make a reader panic or hold more than they are.

use std::fmt;

use ring::aead::{self, LessSafeKey, UnboundKey};
use rustls::ConnectionTrafficSecrets;
use zeroize::Zeroizing;

use super::records::{BODY_BYTES_MAX, HEAD_BYTES};
use super::{Ends, Held};

/// The form of the bytes; another form is another number.
pub(super) const TLS_FORM: u16 = 1;

const MAGIC: &[u8; 5] = b"HLtls";

/// Bytes of the longest key.
const KEY_BYTES_MAX: usize = 32;

/// Bytes of an IV (RFC 8446 section 5.3).
pub(super) const IV_BYTES: usize = 12;

/// Keys that follow, at most.
const SPARES_MAX: usize = 32;

/// Bytes of what is on its way in one direction, at most: more than a session ever holds.
const HELD_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a message that are left to be skipped, at most (RFC 8446 section 4).
const SKIPPED_MAX: u32 = (1 << 24) - 1;

/// A TLS 1.3 session, as it stands still for another process.
pub(super) struct FrozenTls {
    pub keys: Keys,
    pub held: Held,
}

/// What a session is without what is on its way.
pub(super) struct Keys {
    pub suite: Suite,
    pub reads: Place,
    pub writes: Place,
    /// The keys that follow that of `writes`, the next one first.
    pub spares: Vec<TrafficKey>,
    /// Bytes that are left of a message that means nothing to us.
    pub skipped: u32,
}

/// One direction: its key, and how many records it has sealed or opened.
#[derive(Clone)]
pub(super) struct Place {
    pub key: TrafficKey,
    pub sequence: u64,
}

/// Why bytes are no session that can go on here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum FrozenTlsError {
    /// The bytes are something else.
    #[error("not a frozen TLS session")]
    NotASession,
    /// They are in a form that this version does not know.
    #[error("a TLS session in form {0}; this version reads form {TLS_FORM}")]
    Form(u16),
    /// There are fewer or more bytes than they say.
    #[error("a TLS session that was cut short or has bytes behind it")]
    Length,
    /// A part is not what a session can be.
    #[error("a TLS session that none can be in its {0}")]
    Malformed(&'static str),
}

/// What records are sealed with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Suite {
    Aes128Gcm,
    Aes256Gcm,
    Chacha20Poly1305,
}

impl Suite {
    pub(super) const ALL: [Self; 3] = [Self::Aes128Gcm, Self::Aes256Gcm, Self::Chacha20Poly1305];

    /// The second byte of its name (RFC 8446 appendix B.4).
    const fn number(self) -> u8 {
        match self {
            Self::Aes128Gcm => 1,
            Self::Aes256Gcm => 2,
            Self::Chacha20Poly1305 => 3,
        }
    }

    fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128Gcm => &aead::AES_128_GCM,
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::Chacha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }

    /// Records that one key seals: rustls's bound, below that of RFC 8446 section 5.5.
    pub(super) const fn records_max(self) -> u64 {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 1 << 24,
            Self::Chacha20Poly1305 => u64::MAX - 1,
        }
    }
}

/// Key and IV of one direction; they are wiped when they are dropped.
#[derive(Clone)]
pub(super) struct TrafficKey {
    key: Zeroizing<[u8; KEY_BYTES_MAX]>,
    iv: Zeroizing<[u8; IV_BYTES]>,
}

impl TrafficKey {
    /// What rustls has taken out of a session, and what it is for; nothing if that is not known here.
    pub(super) fn of(secrets: &ConnectionTrafficSecrets) -> Option<(Suite, Self)> {
        let (suite, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Suite::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Suite::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Suite::Chacha20Poly1305, key, iv),
            _ => return None,
        };
        Self::new(suite, key.as_ref(), iv.as_ref()).map(|key| (suite, key))
    }

    /// Zeros, which no session has.
    pub(super) fn none() -> Self {
        Self { key: Zeroizing::default(), iv: Zeroizing::default() }
    }

    fn new(suite: Suite, key: &[u8], iv: &[u8]) -> Option<Self> {
        let mut own = Self::none();
        if key.len() != suite.algorithm().key_len() || iv.len() != IV_BYTES {
            return None;
        }
        own.key[..key.len()].copy_from_slice(key);
        own.iv.copy_from_slice(iv);
        Some(own)
    }

    /// What seals and opens with it.
    pub(super) fn cipher(&self, suite: Suite) -> LessSafeKey {
        let key = UnboundKey::new(suite.algorithm(), self.of_suite(suite));
        LessSafeKey::new(key.expect("the key is as long as the algorithm wants it"))
    }

    pub(super) fn iv(&self) -> &[u8; IV_BYTES] {
        &self.iv
    }

    fn of_suite(&self, suite: Suite) -> &[u8] {
        &self.key[..suite.algorithm().key_len()]
    }
}

impl FrozenTls {
    /// The bytes to hand over.
    pub(super) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let Self { keys: Keys { suite, reads, writes, spares, skipped }, held } = self;
        let key = |key: &TrafficKey| Zeroizing::new([key.of_suite(*suite), key.iv().as_slice()].concat());
        // As large as it gets, so that no part of it is left behind where it was.
        let held_bytes = held.incoming.len() + held.opened.len() + held.outgoing.len();
        let mut out = Zeroizing::new(Vec::with_capacity(128 + (spares.len() + 2) * 64 + held_bytes));
        out.extend_from_slice(MAGIC);
        out.extend(TLS_FORM.to_be_bytes());
        out.extend([suite.number(), u8::from(held.ends.peers) | u8::from(held.ends.ours) << 1]);
        out.extend(skipped.to_be_bytes());
        for place in [reads, writes] {
            out.extend_from_slice(&key(&place.key));
            out.extend(place.sequence.to_be_bytes());
        }
        out.push(spares.len() as u8);
        for spare in spares {
            out.extend_from_slice(&key(spare));
        }
        for bytes in [&held.incoming, &held.opened, &held.outgoing] {
            out.extend((bytes.len() as u32).to_be_bytes());
            out.extend_from_slice(bytes);
        }
        out
    }

    /// The session that was frozen into `bytes`.
    ///
    /// # Errors
    /// There is none in them, or one that cannot go on here.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, FrozenTlsError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(FrozenTlsError::NotASession)?;
        let mut parts = Parts(rest);
        match u16::from_be_bytes(parts.array()?) {
            TLS_FORM => {}
            other => return Err(FrozenTlsError::Form(other)),
        }
        let [number, ends] = parts.array()?;
        let suite = Suite::ALL.into_iter().find(|suite| suite.number() == number);
        let suite = suite.ok_or(FrozenTlsError::Malformed("cipher"))?;
        demand(ends < 4, "ends")?;
        let skipped = u32::from_be_bytes(parts.array()?);
        demand(skipped <= SKIPPED_MAX, "skipped bytes")?;
        let (reads, writes) = (parts.place(suite)?, parts.place(suite)?);
        let [spares] = parts.array()?;
        demand(usize::from(spares) <= SPARES_MAX, "spare keys")?;
        let spares = (0..spares).map(|_| parts.key(suite)).collect::<Result<_, _>>()?;
        let incoming = parts.bytes(HEAD_BYTES + BODY_BYTES_MAX)?;
        let (opened, outgoing) = (parts.bytes(HELD_BYTES_MAX)?, parts.bytes(HELD_BYTES_MAX)?);
        if !parts.0.is_empty() {
            return Err(FrozenTlsError::Length);
        }
        let held = Held { incoming, opened, outgoing, ends: Ends { peers: ends & 1 > 0, ours: ends & 2 > 0 } };
        Ok(Self { keys: Keys { suite, reads, writes, spares, skipped }, held })
    }
}

/// Shows how many bytes are on their way: the rest is secret.
impl fmt::Debug for FrozenTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrozenTls").field("held", &self.held).finish_non_exhaustive()
    }
}

fn demand(holds: bool, part: &'static str) -> Result<(), FrozenTlsError> {
    if holds { Ok(()) } else { Err(FrozenTlsError::Malformed(part)) }
}

/// What has not been read yet.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrozenTlsError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(FrozenTlsError::Length)?;
        self.0 = rest;
        Ok(*array)
    }

    fn raw(&mut self, bytes: usize) -> Result<&'a [u8], FrozenTlsError> {
        let (raw, rest) = self.0.split_at_checked(bytes).ok_or(FrozenTlsError::Length)?;
        self.0 = rest;
        Ok(raw)
    }

    fn bytes(&mut self, bytes_max: usize) -> Result<Vec<u8>, FrozenTlsError> {
        let bytes = u32::from_be_bytes(self.array()?) as usize;
        demand(bytes <= bytes_max, "lengths")?;
        self.raw(bytes).map(<[u8]>::to_vec)
    }

    fn key(&mut self, suite: Suite) -> Result<TrafficKey, FrozenTlsError> {
        let (key, iv) = (self.raw(suite.algorithm().key_len())?, self.raw(IV_BYTES)?);
        TrafficKey::new(suite, key, iv).ok_or(FrozenTlsError::Length)
    }

    fn place(&mut self, suite: Suite) -> Result<Place, FrozenTlsError> {
        let key = self.key(suite)?;
        Ok(Place { key, sequence: u64::from_be_bytes(self.array()?) })
    }
}
