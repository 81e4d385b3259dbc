//! Tickets whose keys come from a file that several nodes share, so that a session begun at one is resumed at another.
//!
//! Each line of the file is a secret. What a ticket is sealed with is made of the first one, of the policy that let its
//! client in, and of the time: all nodes change keys every [`PERIOD`] together, without a word between them. A ticket is
//! opened by any secret of the file, so that a new one can be put in front on each node in turn. Invariant: a ticket of
//! one policy, or of another trust, opens under no other.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use rustls::server::ProducesTickets;

use crate::config::ClientAuth;
use crate::net::{FileText, TlsFault};

/// How long one key seals tickets; they are opened for as long again.
const PERIOD: Duration = Duration::from_secs(12 * 3600);

/// Bytes of a secret at least: as many as it has to be hard to guess.
const SECRET_BYTES_MIN: usize = 32;

/// Secrets of one file.
const SECRETS_MAX: usize = 16;

/// Bytes that name the key of a ticket, in front of it.
const NAME_BYTES: usize = 16;

/// What seals the tickets of one policy.
pub(super) struct SharedTickets {
    /// The first one seals; each is bound to the policy.
    secrets: Vec<hmac::Key>,
}

/// The key of one period.
struct Key {
    name: [u8; NAME_BYTES],
    key: LessSafeKey,
}

impl SharedTickets {
    /// Reads the secrets of `file`, for a `policy` that lets in whom `trust` stands for.
    ///
    /// # Errors
    /// There is none, or one that is too short.
    pub(super) fn new(file: &FileText, policy: ClientAuth, trust: &[u8; 32]) -> Result<Self, TlsFault> {
        let text = String::from_utf8_lossy(file.bytes()).into_owned();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if !(1..=SECRETS_MAX).contains(&lines.len()) || lines.iter().any(|line| line.len() < SECRET_BYTES_MIN) {
            let wanted =
                "write one to 16 secrets, each on a line of 32 characters or more, as from: openssl rand -hex 32";
            return Err(file.fault(wanted));
        }
        let bound = |line: &&str| {
            let secret = hmac::Key::new(hmac::HMAC_SHA256, line.as_bytes());
            let of_policy = hmac::sign(&secret, &[b"holdline tickets ", policy.as_str().as_bytes(), trust].concat());
            hmac::Key::new(hmac::HMAC_SHA256, of_policy.as_ref())
        };
        Ok(Self { secrets: lines.iter().map(bound).collect() })
    }

    fn period(at: SystemTime) -> u64 {
        at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / PERIOD.as_secs()
    }

    /// The key that `secret` has in `period`.
    fn key(secret: &hmac::Key, period: u64) -> Option<Key> {
        let made = |what: &[u8]| hmac::sign(secret, &[what, &period.to_be_bytes()].concat());
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, made(b"key").as_ref()).ok()?);
        let name = made(b"name").as_ref().first_chunk().copied()?;
        Some(Key { name, key })
    }

    fn seal(&self, plain: &[u8], at: SystemTime) -> Option<Vec<u8>> {
        let Key { name, key } = Self::key(self.secrets.first()?, Self::period(at))?;
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut sealed = plain.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name), &mut sealed).ok()?;
        Some([name.as_slice(), &nonce, &sealed].concat())
    }

    fn open(&self, ticket: &[u8], at: SystemTime) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let now = Self::period(at);
        let keys = self.secrets.iter().flat_map(|secret| [now, now.saturating_sub(1)].map(|at| Self::key(secret, at)));
        let Key { name, key } = keys.flatten().find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let opened = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(name), &mut sealed).ok()?;
        Some(opened.to_vec())
    }
}

impl ProducesTickets for SharedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        PERIOD.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, SystemTime::now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, SystemTime::now())
    }
}

/// Shows how many there are.
impl std::fmt::Debug for SharedTickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedTickets({})", self.secrets.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> FileText {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tickets");
        std::fs::write(&path, text).unwrap();
        FileText::read("server.tls.tickets_file", &path).unwrap()
    }

    fn tickets(text: &str, policy: ClientAuth, trust: u8) -> SharedTickets {
        SharedTickets::new(&file(text), policy, &[trust; 32]).unwrap()
    }

    #[test]
    fn a_ticket_opens_at_each_node_for_its_time_and_under_its_policy_alone() {
        let (old, new) = ("o".repeat(32), "n".repeat(64));
        let one = tickets(&old, ClientAuth::Off, 1);
        let other = tickets(&format!("{new}\n\n{old}\n"), ClientAuth::Off, 1);
        let at = UNIX_EPOCH + PERIOD * 40;
        let ticket = one.seal(b"session", at).unwrap();
        for (later, opens) in [(PERIOD / 2, true), (PERIOD * 2 - Duration::from_secs(1), true), (PERIOD * 2, false)] {
            assert_eq!(other.open(&ticket, at + later).as_deref(), opens.then_some(&b"session"[..]), "{later:?}");
        }
        assert_eq!(one.open(&other.seal(b"session", at).unwrap(), at), None, "it does not know the new secret");
        for (policy, trust) in [(ClientAuth::Require, 1), (ClientAuth::Off, 2)] {
            assert_eq!(tickets(&old, policy, trust).open(&ticket, at), None, "{policy:?} {trust}");
        }
        for at_byte in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[at_byte] ^= 1;
            assert_eq!(one.open(&forged, at), None, "{at_byte}");
            assert_eq!(one.open(&ticket[..at_byte], at), None);
        }
    }

    #[test]
    fn a_file_without_a_good_secret_is_refused() {
        for text in
            ["", "\n", "short", &format!("{}\nshort", "o".repeat(32)), &format!("{}\n", "o".repeat(32)).repeat(17)]
        {
            assert!(SharedTickets::new(&file(text), ClientAuth::Off, &[0; 32]).is_err(), "{text}");
        }
    }
}
