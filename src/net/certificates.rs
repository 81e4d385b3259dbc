//! The files of one pool's TLS: certificates that are trusted, and the one that we show, with its key.
//!
//! A file is read whole, within [`FILE_BYTES_MAX`], and judged before anything is made of it. What is wrong says which
//! key of the configuration it is about; a key's content is in no message.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::validity::{Standing, Validity};

/// Bytes of one file of certificates or of a key.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// What is wrong with one of the files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFault {
    /// The key of `pools.tls` that it is about.
    pub key: &'static str,
    /// What is wrong, with the file's name.
    pub message: String,
}

/// Whether a certificate could carry `name`: a DNS name or an address.
#[must_use]
pub fn is_server_name(name: &str) -> bool {
    ServerName::try_from(name).is_ok()
}

/// Every certificate of `path`, with its time.
pub(super) fn certificates(
    key: &'static str,
    path: &Path,
) -> Result<Vec<(CertificateDer<'static>, Validity)>, TlsFault> {
    let wrong = |message: String| TlsFault { key, message: format!("{}: {message}", path.display()) };
    let text = read(path).map_err(&wrong)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = parsed.map_err(|error| wrong(broken(&error)))?;
    if found.is_empty() {
        let hint = if text.contains(&0) { "; a DER file becomes PEM by: openssl x509 -inform der" } else { "" };
        return Err(wrong(format!("there is no certificate in PEM (\"-----BEGIN CERTIFICATE-----\") in it{hint}")));
    }
    let timed = found.into_iter().enumerate().map(|(at, certificate)| match Validity::of(&certificate) {
        Some(validity) => Ok((certificate, validity)),
        None => Err(wrong(format!("certificate {} of it is not X.509", at + 1))),
    });
    timed.collect()
}

/// The private key of `path`.
pub(super) fn private_key(key: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, TlsFault> {
    let wrong = |message: String| TlsFault { key, message: format!("{}: {message}", path.display()) };
    let text = read(path).map_err(&wrong)?;
    if text.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED) {
        return Err(wrong("the key is encrypted; remove its passphrase by: openssl pkey".to_owned()));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        wrong(match error {
            pem::Error::NoItemsFound => "there is no private key in PEM (\"-----BEGIN PRIVATE KEY-----\") in it".into(),
            error => broken(&error),
        })
    })
}

const ENCRYPTED: &[u8] = b"ENCRYPTED";

/// What stands in the way of each of `found` now, if something does.
pub(super) fn untimely(
    key: &'static str,
    path: &Path,
    found: &[(CertificateDer<'static>, Validity)],
    now: SystemTime,
) -> Vec<TlsFault> {
    let say = |(at, (_, validity)): (usize, &(_, Validity))| {
        let message = match validity.at(now) {
            Standing::Good => return None,
            Standing::NotYet => format!("is not valid before {}", shown(validity.not_before)),
            Standing::Expired => format!("expired on {}", shown(validity.not_after)),
        };
        Some(TlsFault { key, message: format!("{}: certificate {} of it {message}", path.display(), at + 1) })
    };
    found.iter().enumerate().filter_map(say).collect()
}

fn shown(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map_or_else(|_| "a day that no calendar has".to_owned(), |at| at.to_string())
}

fn broken(error: &pem::Error) -> String {
    format!("it is not PEM, or damaged: {error}")
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    // A pipe or a device would be waited for.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut text = Vec::new();
    File::open(path).map_err(cannot)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(cannot)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}
