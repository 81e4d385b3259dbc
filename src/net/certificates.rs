//! The files of TLS: certificates that are trusted or revoked, and those that we show, with their keys.
//!
//! A file is read whole, within [`FILE_BYTES_MAX`], and judged before anything is made of it. What is wrong says which
//! key of the configuration it is about; a key's content is in no message.

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};

use super::validity::{Standing, Validity};

/// Bytes of one file of certificates or of a key.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// What is wrong with one of the files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFault {
    /// The key of the configuration that it is about; one of a pool begins behind `pools[N].`.
    pub key: &'static str,
    /// What is wrong, with the file's name.
    pub message: String,
}

/// Whether a certificate could carry `name`: a DNS name or an address.
#[must_use]
pub fn is_server_name(name: &str) -> bool {
    ServerName::try_from(name).is_ok()
}

/// A file, as it was read.
#[derive(Clone, Debug)]
pub struct FileText {
    /// The key of the configuration that names it.
    pub key: &'static str,
    /// Where it is.
    pub path: PathBuf,
    text: Vec<u8>,
}

impl FileText {
    /// Reads `path`, which `key` names.
    ///
    /// # Errors
    /// The system's, or what is there is no file of such a size.
    pub fn read(key: &'static str, path: &Path) -> Result<Self, TlsFault> {
        let path = path.to_owned();
        match read(&path) {
            Ok(text) => Ok(Self { key, path, text }),
            Err(message) => Err(Self { key, path, text: Vec::new() }.fault(message)),
        }
    }

    /// What it says.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.text
    }

    /// What is wrong with it.
    #[must_use]
    pub fn fault(&self, message: impl Display) -> TlsFault {
        TlsFault { key: self.key, message: format!("{}: {message}", self.path.display()) }
    }

    /// Every certificate in it, with its time.
    ///
    /// # Errors
    /// There is none, or one that is damaged.
    pub fn certificates(&self) -> Result<Vec<(CertificateDer<'static>, Validity)>, TlsFault> {
        let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.text).collect();
        let found = parsed.map_err(|error| self.fault(broken(&error)))?;
        if found.is_empty() {
            let is_der = self.text.contains(&0);
            let hint = if is_der { "; a DER file becomes PEM by: openssl x509 -inform der" } else { "" };
            let message = format!("there is no certificate in PEM (\"-----BEGIN CERTIFICATE-----\") in it{hint}");
            return Err(self.fault(message));
        }
        let timed = found.into_iter().enumerate().map(|(at, certificate)| match Validity::of(&certificate) {
            Some(validity) => Ok((certificate, validity)),
            None => Err(self.fault(format!("certificate {} of it is not X.509", at + 1))),
        });
        timed.collect()
    }

    /// The private key in it.
    ///
    /// # Errors
    /// There is none, or one that is damaged or encrypted.
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsFault> {
        if self.text.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED) {
            return Err(self.fault("the key is encrypted; remove its passphrase by: openssl pkey"));
        }
        PrivateKeyDer::from_pem_slice(&self.text).map_err(|error| match error {
            pem::Error::NoItemsFound => {
                self.fault("there is no private key in PEM (\"-----BEGIN PRIVATE KEY-----\") in it")
            }
            error => self.fault(broken(&error)),
        })
    }

    /// The lists of revoked certificates in it.
    ///
    /// # Errors
    /// There is none, or one that is damaged.
    pub fn revocations(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsFault> {
        let parsed: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&self.text).collect();
        let found = parsed.map_err(|error| self.fault(broken(&error)))?;
        if found.is_empty() {
            return Err(self.fault("there is no list in PEM (\"-----BEGIN X509 CRL-----\") in it"));
        }
        Ok(found)
    }
}

const ENCRYPTED: &[u8] = b"ENCRYPTED";

/// What stands in the way of each of the certificates `found` in `file` now, if something does.
#[must_use]
pub fn untimely(file: &FileText, found: &[(CertificateDer<'static>, Validity)], now: SystemTime) -> Vec<TlsFault> {
    let say = |(at, (_, validity)): (usize, &(_, Validity))| {
        let message = match validity.at(now) {
            Standing::Good => return None,
            Standing::NotYet => format!("is not valid before {}", shown(validity.not_before)),
            Standing::Expired => format!("expired on {}", shown(validity.not_after)),
        };
        Some(file.fault(format!("certificate {} of it {message}", at + 1)))
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
