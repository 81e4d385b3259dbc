//! The keys that sign resume tokens.
//!
//! Invariant: a ring has 1 to [`KEYS_MAX`] keys with ids of their own; the first one signs. A token's MAC is over all of
//! its text before it, the id of its key included, and is compared in constant time.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::claims::{Claims, UnixTime};

/// Keys of one ring.
pub const KEYS_MAX: usize = 8;

/// How far the clocks of two nodes may differ: a token is good for so long after it expires.
pub const SKEW: Duration = Duration::from_secs(60);

/// Bytes of a token that is looked at; none of ours is longer.
const TOKEN_BYTES_MAX: usize = 512;

/// What every token begins with: the form of its text.
const FORM: &str = "hl1";

const SECRET_BYTES: usize = 32;

const KEY_ID_BYTES_MAX: usize = 16;

/// The name of a key: 1 to 16 letters, digits, `_` or `-`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct KeyId(Box<str>);

impl KeyId {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        let fits = (1..=KEY_ID_BYTES_MAX).contains(&text.len());
        (fits && text.bytes().all(allowed)).then(|| Self(text.into()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// One key.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) id: KeyId,
    secret: [u8; SECRET_BYTES],
}

impl Key {
    /// A new one, with an id that is as good as its own.
    pub(super) fn random() -> Self {
        let id = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 6]>());
        Self { id: KeyId(id.into()), secret: rand::random() }
    }

    /// The key called `id` whose secret is written so: 32 bytes in base64url.
    pub(super) fn parse(id: &str, secret: &str) -> Result<Self, &'static str> {
        let id = KeyId::parse(id).ok_or("the id of a key is 1 to 16 letters, digits, \"_\" or \"-\"")?;
        let secret = URL_SAFE_NO_PAD.decode(secret).ok().and_then(|secret| secret.try_into().ok());
        let secret = secret.ok_or("the secret of a key is 32 bytes in base64url, 43 characters")?;
        Ok(Self { id, secret })
    }

    /// The secret as [`Self::parse`] takes it: for the file alone.
    pub(super) fn written_secret(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.secret)
    }

    fn over(&self, text: &str) -> Hmac<Sha256> {
        let mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes a key of any length");
        mac.chain_update(text)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id.as_str())
    }
}

/// Proof that its bearer may go on with a pipe; its `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct ResumeToken(Box<str>);

impl ResumeToken {
    /// For the client that it is made for, and for nothing that is kept or logged.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeToken(***)")
    }
}

/// Why a token is not good. The client is never told which.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadToken {
    /// It is no token at all.
    #[error("it is no token")]
    Malformed,
    /// Its key is not in the ring, or not any more.
    #[error("its key is not in the ring")]
    UnknownKey,
    /// Its key did not sign it.
    #[error("its key did not sign it")]
    Forged,
    /// It was good once.
    #[error("it has expired")]
    Expired,
}

/// The keys: the first signs, all verify.
#[derive(Clone)]
pub struct KeyRing(Vec<Key>);

impl KeyRing {
    /// A ring that no other process has: what it signs is good for as long as this process lives.
    #[must_use]
    pub fn random() -> Self {
        Self(vec![Key::random()])
    }

    /// A ring of these keys.
    pub(super) fn of(keys: Vec<Key>) -> Result<Self, &'static str> {
        if keys.is_empty() {
            return Err("there is no key");
        }
        if keys.len() > KEYS_MAX {
            return Err("there are more than 8 keys; remove the last ones, which are the oldest");
        }
        let repeated = (1..keys.len()).any(|at| keys[..at].iter().any(|key| key.id == keys[at].id));
        if repeated { Err("two keys have the same id; remove one") } else { Ok(Self(keys)) }
    }

    /// Its keys with their secrets as text, for another process of ours and for nothing else.
    #[must_use]
    pub fn to_words(&self) -> Vec<(String, String)> {
        self.0.iter().map(|key| (key.id.as_str().to_owned(), key.written_secret())).collect()
    }

    /// The ring that such words are of.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_words(words: &[(String, String)]) -> Result<Self, &'static str> {
        Self::of(words.iter().map(|(id, secret)| Key::parse(id, secret)).collect::<Result<_, _>>()?)
    }

    /// Its keys, the one that signs first.
    pub(super) fn keys(&self) -> &[Key] {
        &self.0
    }

    /// A token that says `claims`.
    #[must_use]
    pub fn mint(&self, claims: &Claims) -> ResumeToken {
        let key = &self.0[0];
        let signed = format!("{FORM}.{}.{}", key.id.as_str(), URL_SAFE_NO_PAD.encode(claims.encode()));
        let mac = URL_SAFE_NO_PAD.encode(key.over(&signed).finalize().into_bytes());
        ResumeToken(format!("{signed}.{mac}").into())
    }

    /// What `token` says, if a key of the ring signed it and it has not expired by `now`, but for [`SKEW`].
    ///
    /// # Errors
    /// What is wrong with it: for metrics and logs, never for the client.
    pub fn verify(&self, token: &str, now: UnixTime) -> Result<Claims, BadToken> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(BadToken::Malformed);
        }
        let (signed, mac) = token.rsplit_once('.').ok_or(BadToken::Malformed)?;
        let mut parts = signed.split('.');
        let (Some(FORM), Some(id), Some(payload), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(BadToken::Malformed);
        };
        let mac = URL_SAFE_NO_PAD.decode(mac).map_err(|_| BadToken::Malformed)?;
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| BadToken::Malformed)?;
        let key = self.0.iter().find(|key| key.id.as_str() == id).ok_or(BadToken::UnknownKey)?;
        key.over(signed).verify_slice(&mac).map_err(|_| BadToken::Forged)?;
        let claims = Claims::decode(&payload).ok_or(BadToken::Malformed)?;
        if now > claims.expires.plus(SKEW) { Err(BadToken::Expired) } else { Ok(claims) }
    }
}

/// Shows the ids: the secrets are in no log.
impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyRing").field(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::claims;
    use super::*;

    fn at(ms: u64) -> UnixTime {
        UnixTime { ms }
    }

    #[test]
    fn a_token_says_what_was_signed_and_to_its_own_ring_alone() {
        let (ring, claims) = (KeyRing::random(), claims("node-1"));
        let token = ring.mint(&claims);
        assert!(token.as_str().starts_with("hl1.") && token.as_str().len() < TOKEN_BYTES_MAX, "{}", token.as_str());
        assert_eq!(ring.verify(token.as_str(), claims.issued), Ok(claims.clone()));
        assert_eq!(KeyRing::random().verify(token.as_str(), claims.issued), Err(BadToken::UnknownKey));
        let id = ring.0[0].id.as_str();
        let other = Key { secret: [7; 32], ..ring.0[0].clone() };
        assert_eq!(KeyRing(vec![other]).verify(token.as_str(), claims.issued), Err(BadToken::Forged), "{id}");
    }

    #[test]
    fn no_changed_or_cut_token_is_good() {
        let (ring, claims) = (KeyRing::random(), claims(""));
        let token = ring.mint(&claims);
        let text = token.as_str();
        for end in 0..text.len() {
            assert!(ring.verify(&text[..end], claims.issued).is_err(), "{end}");
        }
        for at in 0..text.len() {
            for byte in ["A", "B", ".", "_"] {
                let mut other = text.to_owned();
                other.replace_range(at..=at, byte);
                assert!(other == text || ring.verify(&other, claims.issued).is_err(), "{at} {byte}");
            }
        }
        for text in ["", ".", "...", "hl1...", "hl2.a.b.c", &format!("{text}.x"), &"a".repeat(100_000)] {
            assert!(ring.verify(text, claims.issued).is_err(), "{text:.80}");
        }
    }

    #[test]
    fn a_token_is_good_for_a_minute_longer_than_it_says() {
        let (ring, claims) = (KeyRing::random(), claims(""));
        let token = ring.mint(&claims);
        let last = claims.expires.plus(SKEW);
        assert!(ring.verify(token.as_str(), at(0)).is_ok(), "a clock that is behind touches nothing");
        assert!(ring.verify(token.as_str(), last).is_ok());
        assert_eq!(ring.verify(token.as_str(), at(last.ms + 1)), Err(BadToken::Expired));
    }

    #[test]
    fn the_first_key_signs_and_the_others_verify() {
        let (old, new, claims) = (Key::random(), Key::random(), claims(""));
        let before = KeyRing::of(vec![old.clone()]).unwrap().mint(&claims);
        let ring = KeyRing::of(vec![new.clone(), old]).unwrap();
        assert!(ring.verify(before.as_str(), claims.issued).is_ok());
        let after = ring.mint(&claims);
        assert!(KeyRing::of(vec![new]).unwrap().verify(after.as_str(), claims.issued).is_ok());
    }

    #[test]
    fn a_token_of_one_process_is_good_in_the_one_that_its_keys_were_given_to() {
        let (ring, claims) = (KeyRing::random(), claims(""));
        let other = KeyRing::from_words(&ring.to_words()).unwrap();
        assert_eq!(other.verify(ring.mint(&claims).as_str(), claims.issued), Ok(claims));
        assert!(KeyRing::from_words(&[]).is_err());
    }

    #[test]
    fn a_ring_is_neither_empty_nor_endless_nor_ambiguous() {
        let keys = |count| (0..count).map(|_| Key::random()).collect::<Vec<_>>();
        assert!(KeyRing::of(keys(0)).is_err());
        assert!(KeyRing::of(keys(KEYS_MAX)).is_ok());
        assert!(KeyRing::of(keys(KEYS_MAX + 1)).is_err());
        let key = Key::random();
        assert!(KeyRing::of(vec![key.clone(), Key { secret: [0; 32], ..key }]).is_err());
    }

    #[test]
    fn neither_keys_nor_tokens_are_shown_by_debug() {
        let ring = KeyRing::random();
        let token = ring.mint(&claims(""));
        let shown = format!("{ring:?} {token:?}");
        assert!(!shown.contains(&ring.0[0].written_secret()) && !shown.contains(token.as_str()), "{shown}");
        assert!(shown.contains(ring.0[0].id.as_str()), "{shown}");
    }
}
