//! `hooks.secret_file`: what requests to an operator's server are signed with, so that it knows whose they are.
//!
//! `Holdline-Signature: t=<seconds since 1970>,v1=<HMAC-SHA256 of "<t>.<body>", in hex>`. The time is that of the request, so
//! that the server can refuse one that is played back later. Invariant: the secret is in no log and no error.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of a secret.
const BYTES_MIN: usize = 16;
const BYTES_MAX: usize = 4096;

/// A shared secret; its `Debug` hides it.
#[derive(Clone)]
pub struct Secret(Arc<[u8]>);

/// A secret file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It can't be read.
    #[error("the secret file can't be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is too short or too long.
    #[error(
        "the secret file holds {0} bytes, white space at its ends aside; {BYTES_MIN} to {BYTES_MAX} make a secret (openssl rand -hex 32)"
    )]
    Length(usize),
}

impl Secret {
    /// What stands in the file at `path`, without the white space at its ends.
    ///
    /// # Errors
    /// When it can't be read, or is no good secret.
    pub fn load(path: &Path) -> Result<Self, SecretError> {
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is not a regular file").into());
        }
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(2 * BYTES_MAX as u64).read_to_end(&mut bytes)?;
        Self::new(bytes.trim_ascii())
    }

    /// This secret.
    ///
    /// # Errors
    /// When it is too short or too long.
    pub fn new(bytes: &[u8]) -> Result<Self, SecretError> {
        if (BYTES_MIN..=BYTES_MAX).contains(&bytes.len()) {
            Ok(Self(bytes.into()))
        } else {
            Err(SecretError::Length(bytes.len()))
        }
    }

    /// The value of `Holdline-Signature` for a `body` that is sent at this time, in seconds since 1970.
    #[must_use]
    pub fn sign(&self, seconds: u64, body: &[u8]) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        let mac = mac.chain_update(seconds.to_string()).chain_update(b".").chain_update(body).finalize().into_bytes();
        let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("t={seconds},v1={hex}")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_openssl_says_of_time_and_body() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let secret = Secret::new(b"0123456789abcdef").unwrap();
        assert_eq!(
            secret.sign(1_700_000_000, b"{}"),
            "t=1700000000,v1=e4f8e2ecae2295b2ddb2f0b5584c8275e226c0ebe9b3b819e70156bb67122e3e"
        );
        assert_ne!(secret.sign(1_700_000_001, b"{}"), secret.sign(1_700_000_000, b"{}"));
    }

    #[test]
    fn a_secret_is_neither_short_nor_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "  short\n").unwrap();
        let error = Secret::load(file.path()).unwrap_err().to_string();
        assert!(error.contains("holds 5 bytes") && !error.contains("short"), "{error}");
        std::fs::write(file.path(), "0123456789abcdef\n").unwrap();
        let secret = Secret::load(file.path()).unwrap();
        assert_eq!((&*secret.0, format!("{secret:?}").as_str()), (&b"0123456789abcdef"[..], "Secret(***)"));
        assert!(Secret::load(Path::new("/")).is_err());
    }
}
