//! Whom a pool's `tls.ca` trusts: who is signed by one of its certificates, and who presents one of them itself.
//!
//! `openssl req -x509` makes a certificate that calls itself an authority, and often one without names. Path validation
//! refuses it as a server's own (RFC 5280 section 4.2.1.9), although the operator has named exactly it. So a certificate
//! that is byte for byte in the file is trusted as it is, within its time and under any name; each other one has to
//! pass path validation.
//!
//! Invariant: in both cases the peer proves in the handshake that it has the certificate's key.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::validity::{Standing, Validity};

/// A certificate that is trusted as it is.
#[derive(Debug)]
pub(super) struct Pinned {
    pub certificate: CertificateDer<'static>,
    pub validity: Validity,
}

/// Judges the certificates of workers.
#[derive(Debug)]
pub(super) struct PinnedOrSigned {
    pinned: Vec<Pinned>,
    signed: Arc<WebPkiServerVerifier>,
}

impl PinnedOrSigned {
    /// Trusts the `pinned` as they are, and those that `signed` trusts.
    pub const fn new(pinned: Vec<Pinned>, signed: Arc<WebPkiServerVerifier>) -> Self {
        Self { pinned, signed }
    }
}

impl ServerCertVerifier for PinnedOrSigned {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(pinned) = self.pinned.iter().find(|pinned| pinned.certificate == *own) else {
            return self.signed.verify_server_cert(own, between, name, ocsp, now);
        };
        match pinned.validity.at(UNIX_EPOCH + Duration::from_secs(now.as_secs())) {
            Standing::Good => Ok(ServerCertVerified::assertion()),
            Standing::NotYet => Err(CertificateError::NotValidYet.into()),
            Standing::Expired => Err(CertificateError::Expired.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls12_signature(message, own, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls13_signature(message, own, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}
