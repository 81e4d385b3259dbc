//! Which certificate a client is shown: the one with the name that it asks for.
//!
//! `*.` stands for exactly one label (RFC 6125 section 6.4.3), and a certificate that has the whole name goes before one
//! that has it by that. A client that asks for an unknown name, or for none, is shown the default, unless it is to be
//! refused.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::Certificate;
use crate::config::ClientAuth;

/// What a client may be shown.
#[derive(Debug)]
pub(super) struct Candidates {
    /// In the order of the configuration: they may have keys of several kinds. At least one.
    pub(super) keys: Vec<Arc<CertifiedKey>>,
    /// The strictest of their policies.
    policy: ClientAuth,
}

/// The certificates by their names.
#[derive(Debug)]
pub(super) struct Chooser {
    by_name: HashMap<String, Candidates>,
    /// The first one, and behind it all others, for clients that cannot read its kind of key.
    default: Option<Candidates>,
    strict: bool,
}

impl Chooser {
    pub(super) fn new(certificates: &[Certificate], strict: bool) -> Self {
        let mut by_name: HashMap<String, Candidates> = HashMap::new();
        for certificate in certificates {
            let (key, policy) = (&certificate.key, certificate.client_auth);
            for name in &certificate.names.hosts {
                let none = || Candidates { keys: Vec::new(), policy };
                let candidates = by_name.entry(name.clone()).or_insert_with(none);
                candidates.keys.push(key.clone());
                candidates.policy = candidates.policy.max(policy);
            }
        }
        let keys = certificates.iter().map(|certificate| certificate.key.clone()).collect();
        let default = certificates.first().map(|first| Candidates { keys, policy: first.client_auth });
        Self { by_name, default, strict }
    }

    /// Those that a client may be shown that asks for `name`.
    pub(super) fn find(&self, name: Option<&str>) -> Option<&Candidates> {
        let known = name.and_then(|name| {
            let wild = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
            self.by_name.get(name).or_else(wild)
        });
        known.or(self.default.as_ref().filter(|_| !self.strict))
    }

    /// How a client is met that asks for `name`; nothing if it is refused.
    pub(super) fn policy(&self, name: Option<&str>) -> Option<ClientAuth> {
        self.find(name).map(|candidates| candidates.policy)
    }
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let keys = &self.find(name.as_deref())?.keys;
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        keys.iter().find(fits).or(keys.first()).cloned()
    }
}
