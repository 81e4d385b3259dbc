//! One certificate that we show, with its key, from its files.

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};

use crate::config::ClientAuth;
use crate::net::{FileText, Names, TlsFault, Validity, untimely};

/// A file that all users of the machine may read has this bit.
const READABLE_BY_ALL: u32 = 0o004;

/// A certificate and its key.
#[derive(Debug)]
pub struct Certificate {
    /// Where it was read.
    pub file: PathBuf,
    /// Whom it names.
    pub names: Names,
    /// How long it is good.
    pub validity: Validity,
    /// SHA-256 of it, in hexadecimal digits.
    pub fingerprint: String,
    /// How clients are met that ask for one of its names.
    pub client_auth: ClientAuth,
    pub(super) key: Arc<CertifiedKey>,
}

impl Certificate {
    /// Makes it of its files; and says what concerns there are `now`.
    ///
    /// # Errors
    /// What is wrong with one of them, or with the two together.
    pub(super) fn new(
        cert: &FileText,
        key: &FileText,
        client_auth: ClientAuth,
        provider: &CryptoProvider,
        now: SystemTime,
    ) -> Result<(Self, Vec<TlsFault>), TlsFault> {
        let found = cert.certificates()?;
        let Some((first, validity)) = found.first() else { return Err(cert.fault("there is no certificate in it")) };
        let (validity, fingerprint) = (*validity, fingerprint(first));
        let names = Names::of(first).ok_or_else(|| cert.fault("the first certificate of it is not X.509"))?;
        let mut concerns = untimely(cert, &found, now);
        if names.are_missing() {
            let message = "it has no name (subjectAltName) that a client could believe; make it with \
                           -addext subjectAltName=DNS:host.example";
            concerns.push(cert.fault(message));
        }
        concerns.extend(readable_by_all(key));
        let chain = found.into_iter().map(|(certificate, _)| certificate).collect();
        let certified = CertifiedKey::from_der(chain, key.private_key()?, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                key.fault(format!("it is not the key of the certificate {}", cert.path.display()))
            }
            error => key.fault(error),
        })?;
        let file = cert.path.clone();
        Ok((Self { file, names, validity, fingerprint, client_auth, key: Arc::new(certified) }, concerns))
    }
}

fn fingerprint(certificate: &[u8]) -> String {
    Sha256::digest(certificate).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // Writing to a String cannot fail.
        text
    })
}

/// What is wrong with who may read a key.
fn readable_by_all(key: &FileText) -> Option<TlsFault> {
    let mode = |path: &Path| std::fs::metadata(path).ok().map(|file| file.permissions().mode());
    let open = mode(&key.path)? & READABLE_BY_ALL != 0;
    open.then(|| key.fault("every user of this machine can read the key; chmod o-r it"))
}
