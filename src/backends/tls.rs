//! TLS towards `wss://` backends, trusted by the system's anchors (`SSL_CERT_FILE` is honoured).

use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::{Arc, OnceLock};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Speaks TLS on a fresh connection and verifies the peer's name.
///
/// # Errors
/// When there are no trust anchors, the name can't be one, or the handshake fails.
pub(super) async fn connect(stream: TcpStream, name: &str) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    connector()?.connect(name, stream).await
}

/// Made once: reading the anchors takes milliseconds.
fn connector() -> io::Result<TlsConnector> {
    static CONNECTOR: OnceLock<Result<TlsConnector, String>> = OnceLock::new();
    CONNECTOR.get_or_init(make).clone().map_err(io::Error::other)
}

fn make() -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("the system has no trust anchors".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
