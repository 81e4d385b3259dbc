//! Who a client of TLS is, as far as its session says: what it asked for, and the certificate that it has shown.
//!
//! It goes along with each request of the connection, as an extension of it. Invariant: a certificate here was judged
//! good by the policy of its listener.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;

use super::names::Names;
use super::validity::{Standing, Validity};

/// Who a client of TLS is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsIdentity {
    /// The name that it asked for, in small letters.
    pub server_name: Option<String>,
    /// The certificate that it has shown.
    pub certificate: Option<ClientCertificate>,
}

/// What counts of a client's certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientCertificate {
    /// The whole, as the header `Client-Cert` has it (RFC 9440 section 2.1).
    pub header: String,
    /// Its first alternative name.
    pub san: Option<String>,
    /// Its common name.
    pub cn: Option<String>,
}

impl ClientCertificate {
    /// What counts of `certificate`; nothing if its time is not `now`, as that of a session that is resumed may be.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>, now: SystemTime) -> Option<Self> {
        let names = Names::of(certificate)?;
        let is_good = Validity::of(certificate).is_some_and(|validity| validity.at(now) == Standing::Good);
        let header = format!(":{}:", STANDARD.encode(certificate));
        is_good.then(|| Self { header, san: names.first(), cn: names.common })
    }

    /// What its owner is called: by the common name, else by the first alternative one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.cn.as_deref().or(self.san.as_deref())
    }
}

impl TlsIdentity {
    /// The identity that goes along with a request, if one does.
    #[must_use]
    pub fn with(extensions: &http::Extensions) -> Option<&Arc<Self>> {
        extensions.get()
    }

    /// The certificate of whom a request is from, if it has shown one.
    #[must_use]
    pub fn certificate(extensions: &http::Extensions) -> Option<&ClientCertificate> {
        Self::with(extensions)?.certificate.as_ref()
    }
}
