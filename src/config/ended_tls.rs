//! `server.tls` and `admin.tls`: TLS that we end, with the defaults of each key.

use std::path::PathBuf;
use std::time::Duration;

use super::types::Listen;

/// `server.tls`: the public listeners that speak TLS.
#[derive(Clone, PartialEq, Debug)]
pub struct ServerTls {
    /// Listeners that speak TLS; `server.listen` stays plain.
    pub listen: Vec<Listen>,
    /// What they show, by the names in each; the first is the default.
    pub certificates: Vec<CertificateFiles>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Whether a client that asks for an unknown name, or for none, is refused.
    pub sni_strict: bool,
    /// Handshakes that are worked on at once; the rest wait, within `server.handshake_timeout`.
    pub handshakes_at_once: u32,
    /// From one look at the files of certificates to the next.
    pub reload_interval: Duration,
}

impl Default for ServerTls {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            certificates: Vec::new(),
            min_version: TlsVersion::Tls12,
            sni_strict: false,
            handshakes_at_once: 256,
            reload_interval: Duration::from_secs(10),
        }
    }
}

/// A certificate's files, in PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateFiles {
    /// The certificate, and behind it those that lead to an authority.
    pub cert: PathBuf,
    /// Its key, without a passphrase.
    pub key: PathBuf,
}

/// A version of TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}
