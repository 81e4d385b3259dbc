//! Certificates made for a test, and clients that speak TLS to the proxy.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// An authority that signs certificates.
pub type Authority = CertifiedIssuer<'static, KeyPair>;

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Pem {
    pub cert: String,
    pub key: String,
    pub der: CertificateDer<'static>,
    pub key_der: Vec<u8>,
}

impl Pem {
    /// What rustls takes as a client's own.
    pub fn identity(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (vec![self.der.clone()], PrivateKeyDer::try_from(self.key_der.clone()).unwrap())
    }
}

pub fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// Parameters of a certificate for these names.
pub fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).unwrap()
}

/// A certificate that signs itself.
pub fn signed_by_itself(params: &CertificateParams) -> Pem {
    let key = KeyPair::generate().unwrap();
    made(params.self_signed(&key).unwrap().der(), &key)
}

/// A certificate that an authority signs.
pub fn signed_by(authority: &Authority, params: &CertificateParams) -> Pem {
    let key = KeyPair::generate().unwrap();
    made(params.signed_by(&key, authority).unwrap().der(), &key)
}

fn made(der: &CertificateDer<'static>, key: &KeyPair) -> Pem {
    let (cert, key_der) = (pem("CERTIFICATE", der), key.serialize_der());
    Pem { cert, key: pem("PRIVATE KEY", &key_der), der: der.clone(), key_der }
}

/// An authority of this name.
pub fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A directory of files of TLS.
#[derive(Debug)]
pub struct TlsFiles(TempDir);

impl TlsFiles {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file that only its owner can read.
    pub fn write(&self, name: &str, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    }

    /// Writes a certificate and its key; how `server.tls.certificates` names them.
    pub fn pair(&self, name: &str, pem: &Pem) -> String {
        let cert = self.write(&format!("{name}.pem"), &pem.cert);
        let key = self.write(&format!("{name}.key"), &pem.key);
        format!("{{ cert = \"{cert}\", key = \"{key}\" }}")
    }
}

/// Believes each certificate: what it is, tests look at themselves.
#[derive(Debug)]
struct Believing(CryptoProvider);

impl ServerCertVerifier for Believing {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A client that believes each certificate, and may show one.
pub fn believing(shows: Option<&Pem>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().dangerous();
    let builder = builder.with_custom_certificate_verifier(Arc::new(Believing(ring::default_provider())));
    Arc::new(match shows {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let (chain, key) = pem.identity();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    })
}

/// A connection that speaks TLS and asks for `name`, which may be an address: then it asks for none.
pub async fn connect(
    address: SocketAddr,
    name: &str,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    super::within("a TLS handshake", TlsConnector::from(config.clone()).connect(name, stream)).await
}

/// The certificate that a connection was shown.
pub fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// A port whose connections go on to the proxy by TLS: for clients that do not speak it.
#[derive(Debug)]
pub struct Tunnel {
    pub address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Tunnel {
    pub async fn to(proxy: SocketAddr, name: &str, config: Arc<ClientConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let name = name.to_owned();
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut plain, _) = listener.accept().await.unwrap();
                let (name, config) = (name.clone(), config.clone());
                connections.spawn(async move {
                    let Ok(mut stream) = connect(proxy, &name, &config).await else { return };
                    // An end that breaks breaks the other.
                    let _ = copy_bidirectional(&mut plain, &mut stream).await;
                });
            }
        });
        Self { address, serving }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
