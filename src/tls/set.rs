//! The certificates of one kind of listener, and how its clients are met: read, judged and put in force as a whole.
//!
//! Invariant: a set exists only if all of it is good, so each handshake finds a certificate with the key that fits it.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use sha2::{Digest, Sha256};

use super::certificate::Certificate;
use super::chooser::Chooser;
use crate::config::{CertificateFiles, ServerTls, TlsVersion};
use crate::net::{FileText, TlsFault};

/// What is spoken inside TLS.
const PROTOCOLS: [&[u8]; 1] = [b"http/1.1"];

/// What a set is made of: the part of a configuration that says so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spec {
    key: &'static str,
    certificates: Vec<CertificateFiles>,
    min_version: TlsVersion,
    strict: bool,
}

impl Spec {
    /// That of the public listeners; nothing if none of them speaks TLS.
    #[must_use]
    pub fn of_server(tls: &ServerTls) -> Option<Self> {
        let speaks = !tls.certificates.is_empty();
        speaks.then(|| Self {
            key: "server.tls.certificates",
            certificates: tls.certificates.clone(),
            min_version: tls.min_version,
            strict: tls.sni_strict,
        })
    }
}

/// The files of a set, as they were read: each certificate and its key.
#[derive(Debug)]
pub struct Contents {
    pairs: Vec<(FileText, FileText)>,
    /// SHA-256 of all of them.
    digest: [u8; 32],
}

impl Contents {
    /// Reads the files that `spec` names.
    ///
    /// # Errors
    /// Everything that keeps one from being read.
    pub fn read(spec: &Spec) -> Result<Self, Vec<TlsFault>> {
        let (mut pairs, mut faults, mut digest) = (Vec::new(), Vec::new(), Sha256::new());
        for CertificateFiles { cert, key } in &spec.certificates {
            match (FileText::read(spec.key, cert), FileText::read(spec.key, key)) {
                (Ok(cert), Ok(key)) => {
                    for file in [&cert, &key] {
                        digest.update((file.bytes().len() as u64).to_be_bytes());
                        digest.update(file.bytes());
                    }
                    pairs.push((cert, key));
                }
                (cert, key) => faults.extend(cert.err().into_iter().chain(key.err())),
            }
        }
        if faults.is_empty() { Ok(Self { pairs, digest: digest.finalize().into() }) } else { Err(faults) }
    }

    /// Whether `set` was made of the same.
    #[must_use]
    pub fn are_those_of(&self, set: &TlsSet) -> bool {
        self.digest == set.digest
    }
}

/// A set of certificates.
#[derive(Debug)]
pub struct TlsSet {
    /// The certificates, in the order of the configuration.
    pub certificates: Vec<Certificate>,
    /// What says so.
    pub spec: Spec,
    /// That of the files it was made of.
    digest: [u8; 32],
    chooser: Arc<Chooser>,
    config: Arc<ServerConfig>,
    tickets: Arc<dyn ProducesTickets>,
}

impl TlsSet {
    /// Makes a set of `contents`; and says what concerns there are `now`. Tickets that were given out by the set `before`
    /// are good here.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn new(
        spec: &Spec,
        contents: &Contents,
        now: SystemTime,
        before: Option<&Self>,
    ) -> Result<(Self, Vec<TlsFault>), Vec<TlsFault>> {
        let provider = Arc::new(ring::default_provider());
        let (mut faults, mut concerns, mut certificates) = (Vec::new(), Vec::new(), Vec::new());
        for (cert, key) in &contents.pairs {
            match Certificate::new(cert, key, &provider, now) {
                Ok((certificate, found)) => {
                    certificates.push(certificate);
                    concerns.extend(found);
                }
                Err(fault) => faults.push(fault),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let chooser = Arc::new(Chooser::new(&certificates, spec.strict));
        let wrong = |error: rustls::Error| vec![TlsFault { key: spec.key, message: error.to_string() }];
        let tickets = match before {
            Some(before) => before.tickets.clone(),
            None => ring::Ticketer::new().map_err(wrong)?,
        };
        let config = server_config(spec, provider, chooser.clone(), tickets.clone()).map_err(wrong)?;
        let digest = contents.digest;
        let spec = spec.clone();
        Ok((Self { certificates, spec, digest, chooser, config: Arc::new(config), tickets }, concerns))
    }

    /// How a client is met that asks for `name`; nothing if it is refused.
    #[must_use]
    pub fn config_for(&self, name: Option<&str>) -> Option<Arc<ServerConfig>> {
        self.chooser.knows(name).then(|| self.config.clone())
    }
}

fn server_config(
    spec: &Spec,
    provider: Arc<CryptoProvider>,
    chooser: Arc<Chooser>,
    tickets: Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, rustls::Error> {
    let versions: &[&SupportedProtocolVersion] = match spec.min_version {
        TlsVersion::Tls12 => &[&version::TLS13, &version::TLS12],
        TlsVersion::Tls13 => &[&version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(chooser);
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    // Sessions are in tickets that their clients keep, so that they outlive a process and cost it nothing.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = tickets;
    Ok(config)
}
