//! TLS in the comparison: one certificate and one cipher for all proxies, and loads that are nothing but handshakes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, version};

use crate::generator::{Options, Outcome, Shared, tally, window};
use crate::idle;
use crate::link::{Link, NAME, Target};

/// Characters of a line of PEM (RFC 7468 section 2).
const PEM_LINE: usize = 64;

/// A certificate for an elliptic curve's key, as each proxy wants it.
pub struct Certificate {
    /// Whether HTTP/2 is spoken behind it.
    pub http2: bool,
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Both in one file.
    pub both: PathBuf,
}

impl Certificate {
    pub fn make(dir: &Path, http2: bool) -> anyhow::Result<Self> {
        let pair = KeyPair::generate()?;
        let made = CertificateParams::new(vec![NAME.to_owned()])?.self_signed(&pair)?;
        let (cert, key) = (pem("CERTIFICATE", made.der()), pem("PRIVATE KEY", &pair.serialize_der()));
        let files = ["tls.pem", "tls.key", "both.pem"].map(|name| dir.join(name));
        for (file, text) in files.iter().zip([&cert, &key, &format!("{cert}{key}")]) {
            fs::write(file, text)?;
        }
        let [cert, key, both] = files;
        Ok(Self { http2, cert, key, both })
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: String =
        text.as_bytes().chunks(PEM_LINE).map(|line| format!("{}\n", String::from_utf8_lossy(line))).collect();
    format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n")
}

/// A client that trusts the certificate in `file`, and speaks TLS 1.3 with AES-128-GCM alone.
pub fn client(file: &Path, resumes: bool) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file)?)?;
    let suites = vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let provider = CryptoProvider { cipher_suites: suites, ..ring::default_provider() };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[&version::TLS13])?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    if !resumes {
        config.resumption = Resumption::disabled();
    }
    Ok(config)
}

/// Connects, comes together and parts: as many as `concurrency` clients do one after the other.
pub async fn handshakes(options: &Options, resumes: bool, concurrency: usize) -> anyhow::Result<Outcome> {
    let tally = tally()?;
    let mut tasks = Vec::new();
    for _ in 0..concurrency {
        // Tickets of its own for each client.
        let target = options.way(resumes)?;
        tasks.push(tokio::task::spawn_local(come_and_go(target, resumes, tally.clone())));
    }
    let outcome = window(options, &tally).await;
    idle::end(tasks).await?;
    Ok(outcome)
}

async fn come_and_go(target: Target, resumes: bool, tally: Shared) -> anyhow::Result<()> {
    let mut is_first = true;
    loop {
        let began = Instant::now();
        let link = Link::connect(&target).await?;
        let took = began.elapsed();
        ensure!(link.is_resumed() == (resumes && !is_first), "a handshake of the other kind");
        is_first = false;
        link.part().await?;
        let mut tally = tally.borrow_mut();
        if tally.measuring {
            tally.messages += 1;
            tally.latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    }
}
