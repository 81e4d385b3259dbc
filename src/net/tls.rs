//! TLS towards `wss://` backends: certificates are verified, always.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::failure::{ConnectError, DialFailure};

/// The trust anchors for backends; the system's are read at the first use.
#[derive(Clone, Debug, Default)]
pub struct TlsClient(Arc<OnceLock<Arc<ClientConfig>>>);

/// The backend that a TLS handshake must prove to have reached.
#[derive(Clone, Copy, Debug)]
pub struct TlsPeer<'a> {
    /// Who verifies.
    pub client: &'a TlsClient,
    /// The name, or address without brackets, that its certificate must carry.
    pub name: &'a str,
}

impl TlsClient {
    /// Trusts what the system trusts (`SSL_CERT_FILE` is honoured); one for the whole process.
    #[must_use]
    pub fn native() -> Self {
        static NATIVE: OnceLock<TlsClient> = OnceLock::new();
        NATIVE.get_or_init(Self::default).clone()
    }

    /// Trusts these roots only.
    ///
    /// # Errors
    /// If the TLS library supports no protocol version, which it always does.
    pub fn trusting(roots: RootCertStore) -> Result<Self, rustls::Error> {
        Ok(Self(Arc::new(OnceLock::from(config(roots)?))))
    }

    /// Speaks TLS on a fresh connection and verifies the peer's name, or address without brackets.
    ///
    /// # Errors
    /// When the name can't be one, or the handshake fails.
    pub async fn secure(&self, name: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, ConnectError> {
        let failed = |error: io::Error| ConnectError { kind: DialFailure::Tls, detail: Some(error) };
        let name = ServerName::try_from(name.to_owned()).map_err(|error| failed(io::Error::other(error)))?;
        let config = match self.0.get() {
            Some(config) => Arc::clone(config),
            None => {
                let read = config(native_roots()).map_err(|error| failed(io::Error::other(error)))?;
                Arc::clone(self.0.get_or_init(|| read))
            }
        };
        TlsConnector::from(config).connect(name, stream).await.map_err(failed)
    }
}

fn config(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn native_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "part of the system's trust anchors cannot be read");
    }
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        tracing::error!("the system has no trust anchors: every wss:// backend will be refused");
    }
    roots
}
