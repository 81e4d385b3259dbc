//! Sessions over real sockets, against rustls' client: what arrives, what ends, what moves.

use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::net::{ClientStream, LooseStream};

/// Both configurations of a server called `s.example`.
fn configs(version: &'static rustls::SupportedProtocolVersion) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let (server, client) = configs_with(rustls::crypto::ring::default_provider(), version);
    (Arc::new(server), Arc::new(client))
}

/// The same, with the ciphers of `provider`.
pub(super) fn configs_with(
    provider: CryptoProvider,
    version: &'static rustls::SupportedProtocolVersion,
) -> (ServerConfig, ClientConfig) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["s.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(provider);
    let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut server = server.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    server.enable_secret_extraction = true;
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let mut client = client.with_root_certificates(roots).with_no_client_auth();
    client.enable_secret_extraction = true;
    (server, client)
}

pub(super) async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (listener.accept().await.unwrap().0, client)
}

pub(super) async fn accept(server: TcpStream, config: Arc<ServerConfig>) -> Result<ClientStream, HandshakeError> {
    let mut stream = ClientStream::from(server);
    let greeting = stream.greeting(&[]).await?;
    assert_eq!(greeting.server_name(), Some("s.example"));
    stream.secure(greeting, config).await?;
    Ok(stream)
}

pub(super) async fn both(version: &'static rustls::SupportedProtocolVersion) -> (ClientStream, TlsStream<TcpStream>) {
    let ((server_config, client_config), (server, client)) = (configs(version), pair().await);
    let name = ServerName::try_from("S.example").unwrap();
    let connector = TlsConnector::from(client_config);
    let (server, client) = tokio::join!(accept(server, server_config), connector.connect(name, client));
    (server.unwrap(), client.unwrap())
}

const VERSIONS: [&rustls::SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

#[tokio::test]
async fn what_is_written_arrives_on_both_sides_however_much_it_is() {
    for version in VERSIONS {
        for size in [1, RECORD_BYTES, 1_000_000] {
            let (mut server, mut client) = both(version).await;
            let sent: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let echo = async {
                let mut back = Vec::new();
                while back.len() < size {
                    let mut part = vec![0; 5000];
                    let read = server.read(&mut part).await.unwrap();
                    assert!(read > 0);
                    back.extend_from_slice(&part[..read]);
                }
                server.write_all(&back).await.unwrap();
                server.flush().await.unwrap();
                assert_eq!((server.unsent(), server.session().unwrap().held.opened.capacity()), (0, 0));
            };
            let ask = async {
                let (mut reads, mut writes) = tokio::io::split(&mut client);
                let mut heard = vec![0; size];
                let (written, read) = tokio::join!(writes.write_all(&sent), reads.read_exact(&mut heard));
                written.unwrap();
                read.unwrap();
                assert_eq!(heard, sent);
            };
            tokio::join!(echo, ask);
        }
    }
}

#[tokio::test]
async fn an_idle_session_holds_no_buffer() {
    let (mut server, mut client) = both(&version::TLS13).await;
    client.write_all(&vec![7; 100_000]).await.unwrap();
    client.flush().await.unwrap();
    let mut read = vec![0; 100_000];
    server.read_exact(&mut read).await.unwrap();
    let Held { incoming, opened, outgoing, .. } = &server.session().unwrap().held;
    let held = [incoming, opened, outgoing].map(Vec::capacity);
    assert_eq!(held, [0; 3]);
}

#[tokio::test]
async fn a_cut_connection_is_an_error_and_a_goodbye_is_an_end() {
    for version in VERSIONS {
        let (mut server, mut client) = both(version).await;
        client.get_mut().0.shutdown().await.unwrap();
        let error = server.read(&mut [0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let (mut server, mut client) = both(version).await;
        client.write_all(b"bye").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"bye");
        server.write_all(b"good").await.unwrap();
        server.shutdown().await.unwrap();
        heard.clear();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"good", "the client is told the end, or this is an error");
    }
}

#[tokio::test]
async fn a_session_goes_on_where_it_was_on_another_thread() {
    let (mut server, mut client) = both(&version::TLS13).await;
    client.write_all(b"one two").await.unwrap();
    let mut three = [0; 3];
    server.read_exact(&mut three).await.unwrap();
    let loose = LooseStream::loosen(server).unwrap();
    let moved = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut server = loose.bind().unwrap();
            let mut rest = [0; 4];
            server.read_exact(&mut rest).await.unwrap();
            server.write_all(&rest).await.unwrap();
            server.shutdown().await.unwrap();
        });
    });
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    moved.join().unwrap();
    assert_eq!((&three, &*heard), (b"one", &b" two"[..]));
}

#[tokio::test]
async fn records_are_put_together_however_they_come() {
    for version in VERSIONS {
        let (server_config, client_config) = configs(version);
        let ((server, mut between), (mut beyond, client)) = (pair().await, pair().await);
        // All that passes comes a byte at a time.
        let passing = tokio::spawn(async move {
            let _ = copy_bidirectional_with_sizes(&mut between, &mut beyond, 1, 1).await;
        });
        let name = ServerName::try_from("s.example").unwrap();
        let connector = TlsConnector::from(client_config);
        let (server, client) = tokio::join!(accept(server, server_config), connector.connect(name, client));
        let (mut server, mut client) = (server.unwrap(), client.unwrap());
        client.write_all(&[5; 3000]).await.unwrap();
        let mut heard = [0; 3000];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, [5; 3000]);
        passing.abort();
    }
}

#[tokio::test]
async fn what_is_no_greeting_is_refused_with_an_alert_and_what_is_none_yet_is_waited_for() {
    let (server, mut client) = pair().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let (config, _) = configs(&version::TLS13);
    let refused = accept(server, config).await.unwrap_err();
    assert!(matches!(refused, HandshakeError::Refused(_)), "{refused}");
    let mut alert = Vec::new();
    client.read_to_end(&mut alert).await.unwrap();
    assert_eq!((alert[0], alert.len()), (21, 7));

    let (server, mut client) = pair().await;
    client.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.unwrap();
    let mut stream = ClientStream::from(server);
    assert!(tokio::time::timeout(Duration::from_millis(50), stream.greeting(&[])).await.is_err());
    drop(client);
    assert!(matches!(stream.greeting(&[]).await, Err(HandshakeError::Gone)));
}

#[tokio::test]
async fn a_client_that_takes_nothing_leaves_a_bounded_part_with_us() {
    let (mut server, mut client) = both(&version::TLS13).await;
    let part = vec![3; 200_000];
    let mut taken = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(50), server.write(&part)).await {
        taken += written.unwrap();
    }
    assert!((1..=WRITE_BYTES + SEAL_BYTES).contains(&server.unsent()), "{} of {taken}", server.unsent());
    let reading = async {
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        heard.len()
    };
    let (heard, ended) = tokio::join!(reading, server.shutdown());
    ended.unwrap();
    assert_eq!(heard, taken);
}
