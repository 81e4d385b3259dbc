//! A throw-away certificate for the demo's listener: made at its start, good for a day, gone with its directory.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

use super::children::Scratch;
use crate::net::{TlsClient, TlsFiles};

/// What it is for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// For how long.
const DAY: Duration = Duration::from_secs(86_400);
/// Characters of a line of PEM (RFC 7468 section 2).
const PEM_LINE: usize = 64;

/// A certificate that signs itself, and its key, as files.
#[derive(Debug)]
pub(super) struct Certificate {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Certificate {
    /// Makes one in `scratch`.
    ///
    /// # Errors
    /// When there can be no such files.
    pub(super) fn make(scratch: &Scratch) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
        params.distinguished_name.push(DnType::CommonName, "holdline demo");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        params.not_before = date_time_ymd(1970, 1, 1) + now.saturating_sub(DAY);
        params.not_after = date_time_ymd(1970, 1, 1) + now + DAY;
        let pair = KeyPair::generate()?;
        let (cert, key) = (scratch.file("tls.pem"), scratch.file("tls.key"));
        write(&cert, "CERTIFICATE", params.self_signed(&pair)?.der()).context("cannot write a certificate")?;
        write(&key, "PRIVATE KEY", &pair.serialize_der()).context("cannot write a key")?;
        Ok(Self { cert, key })
    }

    /// A client that trusts it and no other.
    ///
    /// # Errors
    /// When it cannot be read back.
    pub(super) fn client(&self) -> anyhow::Result<TlsClient> {
        let files = TlsFiles { ca: Some(&self.cert), ..TlsFiles::default() };
        match TlsClient::read(&files, SystemTime::now()) {
            Ok((client, _)) => Ok(client),
            Err(faults) => anyhow::bail!("the demo's certificate is of no use: {faults:?}"),
        }
    }
}

/// Writes a file of PEM that only we can read.
fn write(path: &Path, label: &str, der: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "-----BEGIN {label}-----")?;
    for line in STANDARD.encode(der).as_bytes().chunks(PEM_LINE) {
        file.write_all(line)?;
        file.write_all(b"\n")?;
    }
    writeln!(file, "-----END {label}-----")
}
