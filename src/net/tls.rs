//! TLS towards `wss://` backends: certificates are verified, always.
//!
//! Each pool has a [`TlsClient`] of its own, so that no session of one is resumed for another.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;

use super::certificates::{FileText, TlsFault, untimely};
use super::client_stream::ClientStream;
use super::failure::{ConnectError, DialFailure};
use super::pinned::{Pinned, PinnedOrSigned};
use super::session::HandshakeError;
use super::unsuspecting::Unsuspecting;
use super::url::BackendUrl;
use super::validity::Validity;

/// How workers are met by TLS; a cheap handle.
#[derive(Clone, Debug)]
pub struct TlsClient(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The system's trust anchors are read at the first use.
    config: OnceLock<Arc<ClientConfig>>,
    /// What certificates must name, instead of the host of the URL.
    server_name: Option<String>,
}

/// What an operator says of TLS towards the workers of one pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsFiles<'a> {
    /// Whom to trust, instead of whom the system trusts.
    pub ca: Option<&'a Path>,
    /// What we show to workers that ask, the certificate itself first.
    pub cert: Option<&'a Path>,
    /// Its key.
    pub key: Option<&'a Path>,
    /// What workers' certificates must name, instead of the host of the URL.
    pub server_name: Option<&'a str>,
}

/// The backend that a TLS handshake must prove to have reached.
#[derive(Clone, Debug)]
pub struct TlsPeer {
    client: TlsClient,
    /// The name, or address without brackets, that its certificate must carry.
    name: String,
}

impl TlsPeer {
    /// The peer that `url` leads to; nothing if no TLS is spoken there.
    #[must_use]
    pub fn of(url: &BackendUrl, client: &TlsClient) -> Option<Self> {
        let name = url.tls_name()?;
        Some(Self { client: client.clone(), name: client.0.server_name.clone().unwrap_or(name) })
    }

    /// The peer whose certificate must carry `name`: a host, or an address without brackets.
    #[must_use]
    pub fn named(name: &str, client: &TlsClient) -> Self {
        Self { client: client.clone(), name: name.to_owned() }
    }

    /// Speaks TLS on a fresh connection and verifies the peer.
    ///
    /// # Errors
    /// When the name can't be one, or the handshake fails.
    pub async fn secure(&self, stream: TcpStream) -> Result<ClientStream, ConnectError> {
        let failed = |error: io::Error| ConnectError { kind: DialFailure::Tls, detail: Some(error) };
        let name = ServerName::try_from(self.name.clone()).map_err(|error| failed(io::Error::other(error)))?;
        let config = self.client.config().map_err(|error| failed(io::Error::other(error)))?;
        let mut stream = ClientStream::from(stream);
        match stream.secure_towards(name, config).await {
            Ok(()) => Ok(stream),
            Err(HandshakeError::Gone) => Err(failed(io::ErrorKind::UnexpectedEof.into())),
            Err(error @ HandshakeError::UnknownName) => Err(failed(io::Error::other(error))),
            Err(HandshakeError::Refused(error)) => Err(failed(io::Error::new(io::ErrorKind::InvalidData, error))),
        }
    }
}

impl TlsClient {
    /// Trusts what the system trusts (`SSL_CERT_FILE` is honoured) and shows no certificate; one for the whole process.
    #[must_use]
    pub fn native() -> Self {
        static NATIVE: OnceLock<TlsClient> = OnceLock::new();
        NATIVE.get_or_init(|| Self(Arc::default())).clone()
    }

    /// Reads the `files`, at `now`; and what of them is not valid then, which nothing falls by but handshakes.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn read(files: &TlsFiles<'_>, now: SystemTime) -> Result<(Self, Vec<TlsFault>), Vec<TlsFault>> {
        if files.ca.is_none() && files.cert.is_none() && files.server_name.is_none() {
            return Ok((Self::native(), Vec::new()));
        }
        let (mut faults, mut untimely_ones) = (Vec::new(), Vec::new());
        let mut certificates_of = |key, path: &Path| {
            let read = FileText::read(key, path).and_then(|file| Ok((file.certificates()?, file)));
            match read {
                Ok((found, file)) => {
                    untimely_ones.extend(untimely(&file, &found, now));
                    Some(found)
                }
                Err(fault) => {
                    faults.push(fault);
                    None
                }
            }
        };
        let trusted = files.ca.and_then(|path| certificates_of("tls.ca", path));
        let chain = files.cert.and_then(|path| certificates_of("tls.cert", path));
        let key = files.key.map(|path| FileText::read("tls.key", path)?.private_key()).transpose();
        let key = key.unwrap_or_else(|fault| {
            faults.push(fault);
            None
        });
        if !faults.is_empty() {
            return Err(faults);
        }
        let identity = chain.map(|chain| chain.into_iter().map(|(certificate, _)| certificate).collect()).zip(key);
        let config = config(trusted, identity).map_err(|fault| vec![fault.of(files)])?;
        let server_name = files.server_name.map(str::to_owned);
        Ok((Self(Arc::new(Inner { config: OnceLock::from(config), server_name })), untimely_ones))
    }

    /// The same, and it trusts each peer: for what neither tells a secret nor believes an answer.
    ///
    /// # Errors
    /// What the TLS library says.
    pub fn unsuspecting(&self) -> Result<Self, rustls::Error> {
        let mut config = ClientConfig::clone(&*self.config()?);
        let verifier = Unsuspecting(config.crypto_provider().clone());
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        Ok(Self(Arc::new(Inner { config: OnceLock::from(Arc::new(config)), server_name: None })))
    }

    fn config(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        if let Some(config) = self.0.config.get() {
            return Ok(config.clone());
        }
        let read = config(None, None).map_err(|fault| match fault {
            Unusable::Trust(error) | Unusable::Identity(error) => error,
        })?;
        Ok(self.0.config.get_or_init(|| read).clone())
    }
}

/// Two are equal if they are one.
impl PartialEq for TlsClient {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for TlsClient {}

/// What the TLS library does not take.
enum Unusable {
    Trust(rustls::Error),
    Identity(rustls::Error),
}

impl Unusable {
    fn of(self, files: &TlsFiles<'_>) -> TlsFault {
        let named = |path: Option<&Path>| path.map(|path| path.display().to_string()).unwrap_or_default();
        match self {
            Self::Trust(error) => TlsFault { key: "tls.ca", message: format!("{}: {error}", named(files.ca)) },
            Self::Identity(rustls::Error::InconsistentKeys(_)) => {
                let message = format!("{} is not the key of the certificate {}", named(files.key), named(files.cert));
                TlsFault { key: "tls.key", message }
            }
            Self::Identity(error) => TlsFault { key: "tls.cert", message: format!("{}: {error}", named(files.cert)) },
        }
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Trusts the certificates in `trusted`, or else what the system trusts, and shows an `identity` to workers that ask.
fn config(
    trusted: Option<Vec<(CertificateDer<'static>, Validity)>>,
    identity: Option<Identity>,
) -> Result<Arc<ClientConfig>, Unusable> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(Unusable::Trust)?;
    let builder = match trusted {
        None => builder.with_root_certificates(native_roots()),
        Some(trusted) => {
            let verifier = verifier(trusted, provider).map_err(Unusable::Trust)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(Unusable::Identity)?,
    };
    // Sessions of TLS 1.3 go to the next process with their pipes.
    config.enable_secret_extraction = true;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn verifier(
    trusted: Vec<(CertificateDer<'static>, Validity)>,
    provider: Arc<CryptoProvider>,
) -> Result<PinnedOrSigned, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for (certificate, _) in &trusted {
        roots.add(certificate.clone())?;
    }
    let signed = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let signed = signed.map_err(|error| rustls::Error::General(error.to_string()))?;
    let pinned = trusted.into_iter().map(|(certificate, validity)| Pinned { certificate, validity });
    Ok(PinnedOrSigned::new(pinned.collect(), signed))
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

#[cfg(test)]
mod tests;
