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
    /// Whether clients are asked for certificates of their own.
    pub client_auth: ClientAuth,
    /// Who signs those.
    pub client_ca: Option<PathBuf>,
    /// Which of those are revoked.
    pub client_crl: Option<PathBuf>,
    /// Whether clients get tickets, by which they resume their sessions.
    pub tickets: bool,
    /// Secrets that tickets are sealed with, shared by nodes; without a file they are made at each start.
    pub tickets_file: Option<PathBuf>,
    /// Handshakes that are worked on at once; the rest wait, within `server.handshake_timeout`.
    pub handshakes_at_once: u32,
    /// From one look at the files of certificates to the next.
    pub reload_interval: Duration,
    /// A directory whose files answer the challenges of a certificate authority.
    pub acme_challenges: Option<PathBuf>,
}

impl Default for ServerTls {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            certificates: Vec::new(),
            min_version: TlsVersion::Tls12,
            sni_strict: false,
            client_auth: ClientAuth::Off,
            client_ca: None,
            client_crl: None,
            tickets: true,
            tickets_file: None,
            handshakes_at_once: 256,
            reload_interval: Duration::from_secs(10),
            acme_challenges: None,
        }
    }
}

/// `admin.tls`: TLS on the admin listener; there is none without a certificate.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AdminTls {
    /// What it shows.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// Who signs the certificates of its callers, each of which must have one then.
    pub client_ca: Option<PathBuf>,
}

/// A certificate's files, in PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateFiles {
    /// The certificate, and behind it those that lead to an authority.
    pub cert: PathBuf,
    /// Its key, without a passphrase.
    pub key: PathBuf,
    /// Instead of `server.tls.client_auth`, for clients that ask for one of its names.
    pub client_auth: Option<ClientAuth>,
}

/// A version of TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// Whether clients are asked for certificates of their own; the later the stricter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ClientAuth {
    /// They are not.
    Off,
    /// They are, and one that has none is let in; one whose certificate is bad is not.
    Request,
    /// They are, and only one with a good certificate is let in.
    Require,
}

impl ClientAuth {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Request => "request",
            Self::Require => "require",
        }
    }
}
