//! `/v1/tls`: which certificates listeners show to new clients, and when each of them ends.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::Admin;
use crate::tls::Certificate;

/// The certificates in force.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Tls {
    certificates: Vec<CertificateBody>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct CertificateBody {
    /// Which listeners show it: `public` or `admin`.
    listener: &'static str,
    /// Whether clients are shown it that ask for no name, or for an unknown one.
    default: bool,
    /// The hosts and addresses that it names; `*.` is any one label.
    names: Vec<String>,
    not_before: Option<String>,
    not_after: Option<String>,
    /// SHA-256 of it, in hexadecimal digits.
    fingerprint: String,
    /// Where it was read.
    file: String,
}

impl CertificateBody {
    fn new(listener: &'static str, at: usize, certificate: &Certificate) -> Self {
        let names = &certificate.names;
        let addresses = names.addresses.iter().map(ToString::to_string);
        let time = |at| Timestamp::try_from(at).ok().map(|at: Timestamp| at.to_string());
        Self {
            listener,
            default: at == 0,
            names: names.hosts.iter().cloned().chain(addresses).collect(),
            not_before: time(certificate.validity.not_before),
            not_after: time(certificate.validity.not_after),
            fingerprint: certificate.fingerprint.clone(),
            file: certificate.file.display().to_string(),
        }
    }
}

pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Json<Tls> {
    let sets = admin.process.tls.sets();
    let of_listener = |(listener, set): (&'static str, &crate::tls::set::TlsSet)| {
        let bodies = set.certificates.iter().enumerate();
        bodies.map(|(at, one)| CertificateBody::new(listener, at, one)).collect::<Vec<_>>()
    };
    Json(Tls { certificates: sets.named().flat_map(of_listener).collect() })
}
