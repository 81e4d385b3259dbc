//! Real handshakes: which certificates of workers are taken, which are not, and what is said of files that cannot be used.

use super::super::stream::BackendStream;
use super::*;
use base64::Engine;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use std::future::poll_fn;
use std::path::PathBuf;
use std::process::Command;
use std::task::Poll;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A certificate with its key, both in PEM.
struct Made {
    certificate: String,
    key: String,
}

impl Made {
    fn pair(&self) -> Identity {
        use rustls::pki_types::pem::PemObject;
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap();
        (vec![certificate], PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap())
    }
}

fn made(certificate: &CertificateDer<'_>, key: &KeyPair) -> Made {
    Made { certificate: pem("CERTIFICATE", certificate), key: pem("PRIVATE KEY", &key.serialize_der()) }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// One that signs itself.
fn alone(names: &[&str], is_ca: bool, years: std::ops::Range<i32>) -> Made {
    let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
    params.is_ca = if is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
    params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
    let key = KeyPair::generate().unwrap();
    made(params.self_signed(&key).unwrap().der(), &key)
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn signed(name: &str, by: &CertifiedIssuer<'static, KeyPair>) -> Made {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    made(params.signed_by(&key, by).unwrap().der(), &key)
}

/// A directory for the files of one test.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn read(files: &TlsFiles<'_>) -> TlsClient {
    TlsClient::read(files, SystemTime::now()).unwrap().0
}

fn trusting(ca: &str) -> TlsClient {
    let files = Files::new();
    read(&TlsFiles { ca: Some(&files.write("ca.pem", ca)), ..TlsFiles::default() })
}

fn server(own: &Made) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let (chain, key) = own.pair();
    builder.with_no_client_auth().with_single_cert(chain, key).unwrap()
}

/// Shakes hands with a server of this certificate under this name; what the client says of it.
async fn shake(client: &TlsClient, host: &str, server: ServerConfig) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let peer = TlsPeer::of(&format!("wss://{host}").parse().unwrap(), client).unwrap();
    let ours = async {
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut stream = peer.secure(stream).await.map_err(|error| error.to_string())?;
        // A server that refuses our certificate says so behind the handshake.
        let mut byte = [0];
        stream.read_exact(&mut byte).await.map(|_| ()).map_err(|error| error.to_string())
    };
    let theirs = async {
        let (stream, _) = listener.accept().await.unwrap();
        if let Ok(mut stream) = acceptor.accept(stream).await {
            let _ = stream.write_all(b"!").await;
            let _ = stream.shutdown().await;
        }
    };
    tokio::join!(ours, theirs).0
}

#[tokio::test]
async fn a_certificate_in_the_file_is_taken_as_it_is_within_its_time() {
    for (names, is_ca, years, expected) in [
        (&["worker.example"][..], false, 2020..2090, Ok(())),
        (&["worker.example"], true, 2020..2090, Ok(())),
        (&[], true, 2020..2090, Ok(())),
        (&["another.example"], true, 2020..2090, Ok(())),
        (&[], true, 2020..2021, Err("Expired")),
        (&[], true, 2080..2090, Err("NotValidYet")),
    ] {
        let own = alone(names, is_ca, years.clone());
        let outcome = shake(&trusting(&own.certificate), "worker.example", server(&own)).await;
        match expected {
            Ok(()) => assert_eq!(outcome, Ok(()), "{names:?} {is_ca} {years:?}"),
            Err(word) => assert!(outcome.as_ref().is_err_and(|said| said.contains(word)), "{years:?}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_in_the_file_must_be_signed_and_carry_the_name() {
    let authority = authority();
    let (ours, stranger) =
        (trusting(&pem("CERTIFICATE", authority.der())), alone(&["worker.example"], true, 2020..2090));
    let own = signed("worker.example", &authority);
    assert_eq!(shake(&ours, "worker.example", server(&own)).await, Ok(()));
    for (host, own) in [("other.example", &own), ("127.0.0.1", &own), ("worker.example", &stranger)] {
        let said = shake(&ours, host, server(own)).await.unwrap_err();
        assert!(said.starts_with("the TLS handshake failed"), "{said}");
    }
    // An authority of the same name and time, with another key, is another one.
    let twin = trusting(&alone(&["worker.example"], true, 2020..2090).certificate);
    assert!(shake(&twin, "worker.example", server(&stranger)).await.is_err());
}

#[tokio::test]
async fn who_shows_a_trusted_certificate_without_its_key_is_refused() {
    let (own, other) = (alone(&[], true, 2020..2090), alone(&[], true, 2020..2090));
    let (chain, _) = own.pair();
    let (_, key) = other.pair();
    let provider = rustls::crypto::ring::default_provider();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let thief = Arc::new(rustls::sign::CertifiedKey::new(chain, key));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let builder = ServerConfig::builder_with_provider(Arc::new(provider.clone()));
        let builder = builder.with_protocol_versions(&[version]).unwrap().with_no_client_auth();
        let server = builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(thief.clone())));
        let said = shake(&trusting(&own.certificate), "worker.example", server).await.unwrap_err();
        assert!(said.contains("BadSignature"), "{said}");
    }
}

#[tokio::test]
async fn a_server_name_stands_for_the_host_of_the_url_and_our_certificate_is_shown_where_it_is_asked_for() {
    let (files, authority) = (Files::new(), authority());
    let (own, client) = (signed("worker.internal", &authority), signed("holdline", &authority));
    let ca = files.write("ca.pem", pem("CERTIFICATE", authority.der()));
    let (cert, key) = (files.write("cert.pem", &client.certificate), files.write("key.pem", &client.key));
    let named = TlsFiles { ca: Some(&ca), server_name: Some("worker.internal"), ..TlsFiles::default() };
    let shown = TlsFiles { cert: Some(&cert), key: Some(&key), ..named };
    let asking = || {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let (chain, key) = own.pair();
        builder.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap()
    };
    assert_eq!(shake(&read(&named), "10.0.0.7", server(&own)).await, Ok(()));
    assert_eq!(shake(&read(&shown), "10.0.0.7", asking()).await, Ok(()));
    assert!(shake(&read(&named), "10.0.0.7", asking()).await.is_err(), "nothing to show");
}

#[tokio::test]
async fn the_tickets_behind_a_handshake_are_nothing_that_a_worker_said() {
    let own = alone(&[], true, 2020..2090);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server(&own)));
    let peer = TlsPeer::of(&"wss://worker.example".parse().unwrap(), &trusting(&own.certificate)).unwrap();
    let ours = async {
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        peer.secure(stream).await.unwrap()
    };
    let theirs = async { acceptor.accept(listener.accept().await.unwrap().0).await.unwrap() };
    let (ours, mut theirs) = tokio::join!(ours, theirs);
    let socket = socket2::Socket::from(ours.socket().unwrap().try_clone_to_owned().unwrap());
    while socket.peek(&mut [std::mem::MaybeUninit::uninit()]).is_err() {
        tokio::task::yield_now().await;
    }
    let mut ours = BackendStream::Tls(Box::new(ours));
    let said = poll_fn(|cx| Poll::Ready(ours.has_said_more(cx))).await;
    assert!(!said, "only tickets have come");
    theirs.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
    theirs.flush().await.unwrap();
    poll_fn(|cx| if ours.has_said_more(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
}

#[tokio::test]
async fn what_openssl_req_x509_makes_is_taken_where_openssl_is_there() {
    let files = Files::new();
    let (cert, key) = (files.0.path().join("cert.pem"), files.0.path().join("key.pem"));
    for kind in [&["rsa:2048"][..], &["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"], &["ed25519"]] {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=worker", "-newkey"]).args(kind);
        // Where there is no such program, rcgen's certificates of the other tests have to do.
        let Ok(made) = command.arg("-keyout").arg(&key).arg("-out").arg(&cert).output() else { return };
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let own =
            Made { certificate: std::fs::read_to_string(&cert).unwrap(), key: std::fs::read_to_string(&key).unwrap() };
        assert_eq!(shake(&trusting(&own.certificate), "127.0.0.1", server(&own)).await, Ok(()), "{kind:?}");
        let stranger = trusting(&alone(&[], true, 2020..2090).certificate);
        assert!(shake(&stranger, "127.0.0.1", server(&own)).await.is_err());
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_the_key_that_names_it() {
    let files = Files::new();
    let (own, other) = (alone(&["a"], false, 2020..2090), alone(&["b"], false, 2020..2090));
    let good = files.write("cert.pem", &own.certificate);
    let key = files.write("key.pem", &own.key);
    let der = files.write("cert.der", own.pair().0[0].as_ref());
    let damaged = files.write("damaged.pem", own.certificate.replace('M', "!"));
    let cut = files.write("cut.pem", &own.certificate[..own.certificate.len() / 2]);
    let garbage = files.write("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let locked =
        files.write("locked.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let foreign = files.write("other.key", &other.key);
    let (empty, gone) = (files.write("empty.pem", ""), files.0.path().join("gone.pem"));
    let none = TlsFiles::default();
    let identity = |cert, key| TlsFiles { cert: Some(cert), key: Some(key), ..none };
    for (wrong, key, words) in [
        (TlsFiles { ca: Some(&gone), ..none }, "tls.ca", "gone.pem: cannot be read: No such file"),
        (TlsFiles { ca: Some(files.0.path()), ..none }, "tls.ca", "is not a file"),
        (TlsFiles { ca: Some(&empty), ..none }, "tls.ca", "there is no certificate in PEM"),
        (TlsFiles { ca: Some(&key), ..none }, "tls.ca", "there is no certificate in PEM"),
        (TlsFiles { ca: Some(&der), ..none }, "tls.ca", "openssl x509 -inform der"),
        (TlsFiles { ca: Some(&damaged), ..none }, "tls.ca", "not PEM, or damaged"),
        (TlsFiles { ca: Some(&cut), ..none }, "tls.ca", "not PEM, or damaged"),
        (TlsFiles { ca: Some(&garbage), ..none }, "tls.ca", "certificate 1 of it is not X.509"),
        (identity(&gone, &key), "tls.cert", "cannot be read"),
        (identity(&good, &gone), "tls.key", "cannot be read"),
        (identity(&good, &good), "tls.key", "there is no private key in PEM"),
        (identity(&good, &locked), "tls.key", "remove its passphrase"),
        (identity(&good, &foreign), "tls.key", "other.key is not the key of the certificate"),
    ] {
        let faults = TlsClient::read(&wrong, SystemTime::now()).unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0].key, key, "{faults:?}");
        assert!(faults[0].message.contains(words), "{faults:?} without {words:?}");
    }
    let both = TlsFiles { ca: Some(&gone), ..identity(&good, &gone) };
    assert_eq!(TlsClient::read(&both, SystemTime::now()).unwrap_err().len(), 2, "all that is wrong is said");
}

#[test]
fn what_is_not_valid_now_is_said_and_refuses_nothing() {
    let files = Files::new();
    let (past, future) = (alone(&["a"], true, 2020..2021), alone(&["a"], true, 2090..2091));
    let ca = files.write("ca.pem", format!("{}{}", past.certificate, future.certificate));
    let ca = TlsFiles { ca: Some(&ca), ..TlsFiles::default() };
    let (_, untimely) = TlsClient::read(&ca, SystemTime::now()).unwrap();
    let said: Vec<_> = untimely.iter().map(|fault| fault.message.rsplit_once(": ").unwrap().1).collect();
    assert_eq!(
        said,
        [
            "certificate 1 of it expired on 2021-01-01T00:00:00Z",
            "certificate 2 of it is not valid before 2090-01-01T00:00:00Z"
        ]
    );
}

#[test]
fn a_pool_without_files_shares_the_systems_trust() {
    assert_eq!(read(&TlsFiles::default()), TlsClient::native());
}
