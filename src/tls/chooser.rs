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

/// The certificates by their names.
#[derive(Debug)]
pub(super) struct Chooser {
    /// Those of each name, in the order of the configuration: they may have keys of several kinds.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// All of them: the first one is the default.
    all: Vec<Arc<CertifiedKey>>,
    strict: bool,
}

impl Chooser {
    pub(super) fn new(certificates: &[Certificate], strict: bool) -> Self {
        let mut by_name: HashMap<String, Vec<_>> = HashMap::new();
        for certificate in certificates {
            for name in &certificate.names.hosts {
                by_name.entry(name.clone()).or_default().push(certificate.key.clone());
            }
        }
        Self { by_name, all: certificates.iter().map(|certificate| certificate.key.clone()).collect(), strict }
    }

    /// Those that a client may be shown that asks for `name`.
    pub(super) fn find(&self, name: Option<&str>) -> Option<&[Arc<CertifiedKey>]> {
        let known = name.and_then(|name| {
            let wild = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
            self.by_name.get(name).or_else(wild)
        });
        known.map(Vec::as_slice).or((!self.strict).then_some(&self.all))
    }

    /// Whether a client that asks for `name` is served at all.
    pub(super) fn knows(&self, name: Option<&str>) -> bool {
        self.find(name).is_some()
    }
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let candidates = self.find(name.as_deref())?;
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        candidates.iter().find(fits).or(candidates.first()).cloned()
    }
}
