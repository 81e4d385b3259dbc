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

#[cfg(test)]
pub(super) mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    use super::*;

    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }

    /// The files of a certificate with these names.
    fn files(directory: &TempDir, names: &[&str]) -> CertificateFiles {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let write = |name: &str, text: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        CertificateFiles {
            cert: write("cert.pem", pem("CERTIFICATE", made.der())),
            key: write("key.pem", pem("PRIVATE KEY", &key.serialize_der())),
        }
    }

    /// A certificate with these names.
    pub fn certificate(names: &[&str]) -> Certificate {
        let directory = tempfile::tempdir().unwrap();
        let files = files(&directory, names);
        let text = |path| FileText::read("server.tls.certificates", path).unwrap();
        let (cert, key) = (text(&files.cert), text(&files.key));
        Certificate::new(&cert, &key, &ring::default_provider(), SystemTime::now()).unwrap().0
    }

    #[test]
    fn a_set_is_made_only_of_what_is_good_as_a_whole() {
        let (good, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (good, other) = (files(&good, &["a.example"]), files(&other, &["b.example"]));
        let read = |certificates: &[CertificateFiles]| {
            let tls = ServerTls { certificates: certificates.to_vec(), ..ServerTls::default() };
            let spec = Spec::of_server(&tls).unwrap();
            TlsSet::new(&spec, &Contents::read(&spec)?, SystemTime::now(), None)
        };
        let crossed = CertificateFiles { cert: good.cert.clone(), key: other.key.clone() };
        let faults = read(&[good.clone(), crossed, other.clone()]).unwrap_err();
        assert_eq!(faults.len(), 1);
        assert!(faults[0].message.contains("it is not the key of the certificate"), "{}", faults[0].message);
        let text = std::fs::read_to_string(&good.cert).unwrap();
        std::fs::write(&good.cert, &text[..text.len() / 2]).unwrap();
        let faults = read(&[good.clone(), other]).unwrap_err();
        assert!(faults[0].message.contains("it is not PEM, or damaged"), "{}", faults[0].message);
        std::fs::write(&good.cert, text).unwrap();
        let (set, concerns) = read(&[good]).unwrap();
        assert_eq!(set.certificates[0].fingerprint.len(), 64);
        // What a test writes may be readable by all, which is a concern.
        assert!(concerns.iter().all(|concern| concern.message.contains("chmod o-r")), "{concerns:?}");
    }
}
