//! TLS of an admin API, from the caller's side: whom it trusts, and what it shows.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;

use super::{Misuse, variable};
use crate::net::{TlsClient, TlsFiles};

/// What a caller of an `https://` admin API goes by.
#[derive(Args, Debug, Clone)]
pub struct TlsOptions {
    /// Who signs the certificate of an https:// admin API, or that certificate itself, in PEM [default: admin.tls.cert of
    /// the configuration; beside --admin, whom the system trusts] [env: HOLDLINE_ADMIN_CA]
    #[arg(long, global = true, value_name = "FILE")]
    admin_ca: Option<PathBuf>,
    /// The certificate to show to it, in PEM, where admin.tls.client_ca asks for one [env: HOLDLINE_ADMIN_CERT]
    #[arg(long, global = true, value_name = "FILE")]
    admin_cert: Option<PathBuf>,
    /// The key of that certificate, in PEM [env: HOLDLINE_ADMIN_KEY]
    #[arg(long, global = true, value_name = "FILE")]
    admin_key: Option<PathBuf>,
}

impl TlsOptions {
    /// Trusts whom `--admin-ca` names, else `own`, the certificate of a process on this machine.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub(super) fn trusting(&self, own: Option<&Path>) -> Result<TlsClient, Misuse> {
        self.read(self.ca().as_deref().or(own))
    }

    /// Trusts each peer, unless `--admin-ca` says whom: nothing may be told to it.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub(super) fn unsuspecting(&self) -> Result<TlsClient, Misuse> {
        let ca = self.ca();
        let client = self.read(ca.as_deref())?;
        if ca.is_some() { Ok(client) } else { client.unsuspecting().map_err(|error| Misuse(error.to_string())) }
    }

    fn ca(&self) -> Option<PathBuf> {
        file(self.admin_ca.as_ref(), "HOLDLINE_ADMIN_CA")
    }

    fn read(&self, ca: Option<&Path>) -> Result<TlsClient, Misuse> {
        let cert = file(self.admin_cert.as_ref(), "HOLDLINE_ADMIN_CERT");
        let key = file(self.admin_key.as_ref(), "HOLDLINE_ADMIN_KEY");
        if cert.is_some() != key.is_some() {
            return Err(Misuse("--admin-cert and --admin-key are of use together only; give both".into()));
        }
        let files = TlsFiles { ca, cert: cert.as_deref(), key: key.as_deref(), server_name: None };
        // A certificate that is not valid now is refused by the other side, which says so.
        match TlsClient::read(&files, SystemTime::now()) {
            Ok((client, _untimely)) => Ok(client),
            Err(faults) => {
                let said: Vec<String> = faults.into_iter().map(|fault| fault.message).collect();
                Err(Misuse(said.join("; ")))
            }
        }
    }
}

/// The file that an argument or else a variable names.
fn file(argument: Option<&PathBuf>, name: &str) -> Option<PathBuf> {
    argument.cloned().or_else(|| variable(name).map(PathBuf::from))
}
