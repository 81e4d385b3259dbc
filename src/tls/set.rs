//! The certificates of one kind of listener, and how its clients are met: read, judged and put in force as a whole.
//!
//! Whether a client is asked for a certificate of its own may differ by the name that it asks for. Each such policy has
//! a configuration and keys of tickets of its own: a session that one has let in is resumed under no other.
//! Invariant: a set exists only if all of it is good, so each handshake finds a certificate with the key that fits it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use sha2::{Digest, Sha256};

use super::certificate::Certificate;
use super::chooser::Chooser;
use super::tickets::SharedTickets;
use crate::config::{AdminTls, CertificateFiles, ClientAuth, ServerTls, TlsVersion};
use crate::net::{FileText, TlsFault, untimely};

/// What is spoken inside TLS, the better one first.
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// What a set is made of: the part of a configuration that says so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spec {
    keys: Keys,
    certificates: Vec<CertificateFiles>,
    http2: bool,
    min_version: TlsVersion,
    strict: bool,
    client_auth: ClientAuth,
    client_ca: Option<PathBuf>,
    client_crl: Option<PathBuf>,
    tickets: bool,
    tickets_file: Option<PathBuf>,
}

/// What the configuration calls the files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Keys {
    cert: &'static str,
    key: &'static str,
    client_ca: &'static str,
}

const CLIENT_CRL: &str = "server.tls.client_crl";
const TICKETS_FILE: &str = "server.tls.tickets_file";

impl Spec {
    /// That of the public listeners, on which HTTP/2 may be spoken; nothing if none of them speaks TLS.
    #[must_use]
    pub fn of_server(tls: &ServerTls, http2: bool) -> Option<Self> {
        let certificates = "server.tls.certificates";
        let keys = Keys { cert: certificates, key: certificates, client_ca: "server.tls.client_ca" };
        let speaks = !tls.certificates.is_empty();
        speaks.then(|| Self {
            keys,
            certificates: tls.certificates.clone(),
            http2,
            min_version: tls.min_version,
            strict: tls.sni_strict,
            client_auth: tls.client_auth,
            client_ca: tls.client_ca.clone(),
            client_crl: tls.client_crl.clone(),
            tickets: tls.tickets,
            tickets_file: tls.tickets_file.clone(),
        })
    }

    /// That of the admin listener; nothing if it speaks no TLS.
    #[must_use]
    pub fn of_admin(tls: &AdminTls) -> Option<Self> {
        let (cert, key) = (tls.cert.clone()?, tls.key.clone()?);
        let keys = Keys { cert: "admin.tls.cert", key: "admin.tls.key", client_ca: "admin.tls.client_ca" };
        let client_auth = if tls.client_ca.is_some() { ClientAuth::Require } else { ClientAuth::Off };
        Some(Self {
            keys,
            certificates: vec![CertificateFiles { cert, key, client_auth: None }],
            http2: false,
            min_version: TlsVersion::Tls12,
            strict: false,
            client_auth,
            client_ca: tls.client_ca.clone(),
            client_crl: None,
            tickets: true,
            tickets_file: None,
        })
    }
}

/// The files of a set, as they were read.
#[derive(Debug)]
pub struct Contents {
    /// Each certificate and its key.
    pairs: Vec<(FileText, FileText)>,
    client_ca: Option<FileText>,
    client_crl: Option<FileText>,
    tickets: Option<FileText>,
    /// SHA-256 of all of them.
    digest: [u8; 32],
}

impl Contents {
    /// Reads the files that `spec` names.
    ///
    /// # Errors
    /// Everything that keeps one from being read.
    pub fn read(spec: &Spec) -> Result<Self, Vec<TlsFault>> {
        let (mut pairs, mut faults) = (Vec::new(), Vec::new());
        for CertificateFiles { cert, key, .. } in &spec.certificates {
            match (FileText::read(spec.keys.cert, cert), FileText::read(spec.keys.key, key)) {
                (Ok(cert), Ok(key)) => pairs.push((cert, key)),
                (cert, key) => faults.extend(cert.err().into_iter().chain(key.err())),
            }
        }
        let mut optional = |key, path: &Option<PathBuf>| {
            let read = path.as_deref().map(|path| FileText::read(key, path)).transpose();
            read.map_err(|fault| faults.push(fault)).ok().flatten()
        };
        let client_ca = optional(spec.keys.client_ca, &spec.client_ca);
        let client_crl = optional(CLIENT_CRL, &spec.client_crl);
        let tickets = optional(TICKETS_FILE, &spec.tickets_file);
        if !faults.is_empty() {
            return Err(faults);
        }
        let all = pairs.iter().flat_map(|(cert, key)| [cert, key]);
        let digest = digest(all.chain([&client_ca, &client_crl, &tickets].into_iter().flatten()));
        Ok(Self { pairs, client_ca, client_crl, tickets, digest })
    }

    /// Whether `set` was made of the same.
    #[must_use]
    pub fn are_those_of(&self, set: &TlsSet) -> bool {
        self.digest == set.digest
    }

    /// What decides whom a policy lets in: tickets outlive no change of it.
    fn trust(&self) -> [u8; 32] {
        digest([&self.client_ca, &self.client_crl].into_iter().flatten())
    }
}

fn digest<'a>(files: impl Iterator<Item = &'a FileText>) -> [u8; 32] {
    let mut digest = Sha256::new();
    for file in files {
        digest.update((file.bytes().len() as u64).to_be_bytes());
        digest.update(file.bytes());
    }
    digest.finalize().into()
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
    trust: [u8; 32],
    chooser: Arc<Chooser>,
    policies: BTreeMap<ClientAuth, Policy>,
}

/// How clients are met that are asked for a certificate alike.
#[derive(Debug)]
struct Policy {
    config: Arc<ServerConfig>,
    tickets: Arc<dyn ProducesTickets>,
}

impl TlsSet {
    /// Makes a set of `contents`; and says what concerns there are `now`. Tickets that were given out by the set `before`
    /// are good here, unless other clients are let in.
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
        for ((cert, key), files) in contents.pairs.iter().zip(&spec.certificates) {
            let policy = files.client_auth.unwrap_or(spec.client_auth);
            match Certificate::new(cert, key, policy, &provider, now) {
                Ok((certificate, found)) => {
                    certificates.push(certificate);
                    concerns.extend(found);
                }
                Err(fault) => faults.push(fault),
            }
        }
        let making = Making { spec, contents, provider, now };
        let authorities = making.authorities(&mut concerns).map_err(|fault| faults.push(fault)).ok();
        let Some(authorities) = authorities.filter(|_| faults.is_empty()) else { return Err(faults) };
        let chooser = Arc::new(Chooser::new(&certificates, spec.strict));
        let (trust, mut policies) = (contents.trust(), BTreeMap::new());
        let goes_on = before.filter(|before| before.trust == trust && before.spec.tickets_file.is_none());
        for policy in certificates.iter().map(|certificate| certificate.client_auth) {
            if policies.contains_key(&policy) {
                continue;
            }
            let before = goes_on.and_then(|before| before.policies.get(&policy));
            let made = making.policy(policy, authorities.as_ref(), chooser.clone(), before);
            policies.insert(policy, made.map_err(|fault| vec![fault])?);
        }
        let (spec, digest) = (spec.clone(), contents.digest);
        Ok((Self { certificates, spec, digest, trust, chooser, policies }, concerns))
    }

    /// How a client is met that asks for `name`; nothing if it is refused.
    #[must_use]
    pub fn config_for(&self, name: Option<&str>) -> Option<Arc<ServerConfig>> {
        self.policies.get(&self.chooser.policy(name)?).map(|policy| policy.config.clone())
    }

    /// Whether a request to `host` may not come on a connection that asked for `name`, because one of them is asked for a
    /// certificate in another way than the other (RFC 9110 section 15.5.20).
    #[must_use]
    pub fn keeps_apart(&self, name: Option<&str>, host: Option<&str>) -> bool {
        self.policies.len() > 1 && self.chooser.policy(name) != self.chooser.policy(host)
    }
}

/// What policies are made of.
struct Making<'a> {
    spec: &'a Spec,
    contents: &'a Contents,
    provider: Arc<CryptoProvider>,
    now: SystemTime,
}

impl Making<'_> {
    /// Who signs the certificates of clients, and which of those are revoked.
    fn authorities(&self, concerns: &mut Vec<TlsFault>) -> Result<Option<Arc<RootCertStore>>, TlsFault> {
        if let Some(crl) = &self.contents.client_crl {
            crl.revocations()?;
        }
        let Some(ca) = &self.contents.client_ca else { return Ok(None) };
        let found = ca.certificates()?;
        concerns.extend(untimely(ca, &found, self.now));
        let mut roots = RootCertStore::empty();
        for (certificate, _) in found {
            roots.add(certificate).map_err(|error| ca.fault(error))?;
        }
        Ok(Some(Arc::new(roots)))
    }

    fn policy(
        &self,
        policy: ClientAuth,
        authorities: Option<&Arc<RootCertStore>>,
        chooser: Arc<Chooser>,
        before: Option<&Policy>,
    ) -> Result<Policy, TlsFault> {
        let wrong = |error: String| TlsFault { key: self.spec.keys.cert, message: error };
        let tickets: Arc<dyn ProducesTickets> = match (&self.contents.tickets, before) {
            (Some(file), _) => Arc::new(SharedTickets::new(file, policy, &self.contents.trust())?),
            (None, Some(before)) => before.tickets.clone(),
            (None, None) => ring::Ticketer::new().map_err(|error| wrong(error.to_string()))?,
        };
        let versions: &[&SupportedProtocolVersion] = match self.spec.min_version {
            TlsVersion::Tls12 => &[&version::TLS13, &version::TLS12],
            TlsVersion::Tls13 => &[&version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(self.provider.clone());
        let builder = builder.with_protocol_versions(versions).map_err(|error| wrong(error.to_string()))?;
        let verifier = self.verifier(policy, authorities)?;
        let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(chooser);
        let protocols: &[&[u8]] = if self.spec.http2 { &[HTTP2, HTTP1] } else { &[HTTP1] };
        // Sessions of TLS 1.3 go to the next process with their pipes.
        config.enable_secret_extraction = true;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        // Sessions are in tickets that their clients keep, so that they outlive a process and cost it nothing.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if self.spec.tickets {
            config.ticketer = tickets.clone();
        } else {
            config.send_tls13_tickets = 0;
        }
        Ok(Policy { config: Arc::new(config), tickets })
    }

    /// Who is let in by `policy`.
    fn verifier(
        &self,
        policy: ClientAuth,
        authorities: Option<&Arc<RootCertStore>>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsFault> {
        let key = self.spec.keys.client_ca;
        let missing = || TlsFault { key, message: "is needed to ask clients for certificates; name a file".to_owned() };
        if policy == ClientAuth::Off {
            return Ok(WebPkiClientVerifier::no_client_auth());
        }
        let authorities = authorities.ok_or_else(missing)?.clone();
        let mut builder = WebPkiClientVerifier::builder_with_provider(authorities, self.provider.clone());
        if let Some(crl) = &self.contents.client_crl {
            builder = builder.with_crls(crl.revocations()?);
        }
        if policy == ClientAuth::Request {
            builder = builder.allow_unauthenticated();
        }
        let verifier = builder.build().map_err(|error| TlsFault { key, message: error.to_string() })?;
        Ok(verifier)
    }
}
