//! Sessions that go to another process and on from there, against rustls' client, which notices nothing of it.

mod forged;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls::{ProtocolVersion, SupportedCipherSuite, version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::super::library::SPARE_KEYS;
use super::super::tests::{accept, both, configs_with, pair};
use super::super::{FrozenTls, Tls};
use super::*;
use crate::net::{ClientStream, HandOverError, MemoryStream};

const SUITES: [SupportedCipherSuite; 3] =
    [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];

/// A server and a client that have agreed on `suite`.
async fn agreed(suite: SupportedCipherSuite) -> (ClientStream, TlsStream<TcpStream>) {
    let (server, client) = pair().await;
    agree(suite, 2, server, client).await
}

fn alone(suite: SupportedCipherSuite) -> CryptoProvider {
    CryptoProvider { cipher_suites: vec![suite], ..ring::default_provider() }
}

/// The same on sockets that there are, with so many `tickets`.
async fn agree(
    suite: SupportedCipherSuite,
    tickets: usize,
    server: TcpStream,
    client: TcpStream,
) -> (ClientStream, TlsStream<TcpStream>) {
    let (mut server_config, client_config) = configs_with(alone(suite), &version::TLS13);
    server_config.send_tls13_tickets = tickets;
    let name = ServerName::try_from("s.example").unwrap();
    let connector = TlsConnector::from(Arc::new(client_config));
    let (server, client) = tokio::join!(accept(server, Arc::new(server_config)), connector.connect(name, client));
    (server.unwrap(), client.unwrap())
}

/// The same connection, as the next process has it: what is between the two is a descriptor and bytes.
fn handed_over(mut server: ClientStream) -> ClientStream {
    let bytes = server.freeze().unwrap().unwrap();
    assert_eq!(FrozenTls::from_bytes(&bytes).unwrap().to_bytes(), bytes, "there is one form only");
    let socket = server.socket().unwrap().try_clone_to_owned().unwrap();
    // The process that had it closes its own descriptor, and not the connection.
    drop(server);
    ClientStream::thaw(socket, Some(&bytes)).unwrap()
}

async fn heard(stream: &mut (impl AsyncRead + Unpin), bytes: usize) -> Vec<u8> {
    let mut heard = vec![0; bytes];
    stream.read_exact(&mut heard).await.unwrap();
    heard
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

/// What a reader is given of what has come; nothing if that is nothing yet.
async fn look(server: &mut ClientStream) -> Option<usize> {
    // What has come is seen before the time is up, however slow the machine is.
    let read = timeout(Duration::from_millis(20), server.read(&mut [0; 256])).await;
    read.ok().map(|read| read.unwrap())
}

fn records(server: &mut ClientStream) -> &mut Records {
    match &mut server.session_mut().tls {
        Tls::HandedOver(records) => records,
        Tls::Server(_) | Tls::Client(_) => panic!("it was not handed over"),
    }
}

fn counted(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn a_session_goes_on_in_another_process_with_each_cipher() {
    for suite in SUITES {
        let (mut server, mut client) = agreed(suite).await;
        for round in 1..=4_usize {
            // From the second round on our own record layer is taken over from itself.
            server = handed_over(server);
            let said = counted(round * 30_000);
            let echo = async {
                let back = heard(&mut server, said.len()).await;
                say(&mut server, &back).await;
            };
            let ask = async {
                let (mut reads, mut writes) = tokio::io::split(&mut client);
                let (_, back) = tokio::join!(say(&mut writes, &said), heard(&mut reads, said.len()));
                back
            };
            let ((), back) = tokio::join!(echo, ask);
            assert!(back == said, "{suite:?} {round}");
        }
        let session = server.session().unwrap();
        assert_eq!((session.version(), server.unsent()), (Some(ProtocolVersion::TLSv1_3), 0));
        server.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0, "the client is told the end");
    }
}

/// What a client seals with, by which a test says what no client would.
struct Forger(Direction);

impl Forger {
    fn seal(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut room = vec![0; HEAD_BYTES + content.len() + 1 + TAG_BYTES];
        assert_eq!(self.0.seal(kind, content, &mut room).unwrap(), room.len());
        room
    }
}

/// The client's socket, and what it seals with.
fn taken_apart(client: TlsStream<TcpStream>) -> (TcpStream, Forger) {
    let (socket, session) = client.into_inner();
    let (sequence, secrets) = session.dangerous_extract_secrets().unwrap().tx;
    let (suite, key) = TrafficKey::of(&secrets).unwrap();
    (socket, Forger(Direction::new(suite, Place { key, sequence })))
}

/// A client that speaks through a wire of the test's own, on which bytes wait to be let through.
struct Wire {
    server: ClientStream,
    client: TlsStream<TcpStream>,
    /// Between the two: the end towards the server, and that towards the client.
    between: (TcpStream, TcpStream),
}

impl Wire {
    async fn lay(suite: SupportedCipherSuite) -> Self {
        let ((server, mut near), (mut far, client)) = (pair().await, pair().await);
        let (server, client) = {
            let passing = copy_bidirectional_with_sizes(&mut near, &mut far, 4096, 4096);
            tokio::select! {
                both = agree(suite, 0, server, client) => both,
                ended = passing => panic!("{ended:?}"),
            }
        };
        Self { server, client, between: (near, far) }
    }

    /// What the client says, as it is on the wire.
    async fn said(&mut self, plain: &[u8]) -> Vec<u8> {
        say(&mut self.client, plain).await;
        let mut sealed = vec![0; plain.len() + plain.len().div_ceil(RECORD_BYTES) * 22];
        self.between.1.read_exact(&mut sealed).await.unwrap();
        sealed
    }

    async fn let_through(&mut self, sealed: &[u8]) {
        self.between.0.write_all(sealed).await.unwrap();
        // The server's socket has them, as soon as it has any: they are few.
        let socket = self.server.socket().unwrap().try_clone_to_owned().unwrap();
        let socket = socket2::Socket::from(socket);
        let mut space = vec![std::mem::MaybeUninit::uninit(); sealed.len()];
        while !sealed.is_empty() && socket.peek(&mut space).unwrap_or(0) < sealed.len() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_session_is_frozen_amid_a_record_that_it_reads() {
    let (suites, plain) = (SUITES.into_iter().cycle(), counted(300));
    for (suite, cut) in suites.zip([1, 4, 5, 6, 21, 150, 316, 321]) {
        let mut wire = Wire::lay(suite).await;
        let sealed = wire.said(&plain).await;
        wire.let_through(&sealed[..cut]).await;
        assert_eq!(look(&mut wire.server).await, None);
        assert_eq!(wire.server.session().unwrap().held.incoming.len(), cut);
        wire.server = handed_over(wire.server);
        assert_eq!(look(&mut wire.server).await, None);
        wire.let_through(&sealed[cut..]).await;
        assert_eq!(heard(&mut wire.server, plain.len()).await, plain, "{suite:?} {cut}");
    }
}

#[tokio::test]
async fn a_session_is_frozen_with_what_the_socket_has_not_taken_and_what_was_not_read() {
    for suite in SUITES {
        let (mut server, mut client) = agreed(suite).await;
        say(&mut client, &counted(1000)).await;
        assert_eq!(heard(&mut server, 10).await, counted(10));
        assert_eq!(server.session().unwrap().held.opened.len(), 990);
        let part = counted(200_000);
        let mut taken = 0;
        // In the end the socket has no room, and we hold a part of a record.
        while let Ok(written) = timeout(Duration::from_millis(50), server.write(&part[taken % 251..])).await {
            taken += written.unwrap();
            if taken < 300_000 {
                server = handed_over(server);
            }
        }
        let unsent = server.unsent();
        assert!(unsent > 0);
        server = handed_over(server);
        assert_eq!(server.unsent(), unsent);
        let (heard_by_client, ()) = tokio::join!(heard(&mut client, taken), async { server.flush().await.unwrap() });
        assert!(heard_by_client == counted(taken), "{suite:?}");
        assert_eq!(heard(&mut server, 990).await, counted(1000)[10..]);
    }
}

#[tokio::test]
async fn a_goodbye_is_one_on_both_sides_of_a_hand_over_and_a_cut_connection_is_none() {
    let suite = TLS13_AES_256_GCM_SHA384;
    let (server, mut client) = agreed(suite).await;
    let mut server = handed_over(server);
    say(&mut client, b"bye").await;
    client.shutdown().await.unwrap();
    let mut all = Vec::new();
    server.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"bye");
    // It is known afterwards, too.
    let mut server = handed_over(server);
    assert_eq!(server.read(&mut [0; 9]).await.unwrap(), 0);
    say(&mut server, b"good").await;
    server.shutdown().await.unwrap();
    all.clear();
    client.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"good");

    let (server, mut client) = agreed(suite).await;
    let mut server = handed_over(server);
    client.get_mut().0.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0; 9]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_session_goes_on_where_it_was_if_it_was_not_taken_over() {
    for suite in SUITES {
        let (mut server, mut client) = agreed(suite).await;
        say(&mut client, b"one two").await;
        assert_eq!(heard(&mut server, 3).await, b"one");
        for _ in 0..2 {
            drop(server.freeze().unwrap());
        }
        assert_eq!(heard(&mut server, 4).await, b" two");
        say(&mut server, b"three").await;
        assert_eq!(heard(&mut client, 5).await, b"three");
        server.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0, "{suite:?}");
    }
}

#[tokio::test]
async fn a_session_with_a_worker_goes_on_and_its_tickets_mean_nothing() {
    for suite in SUITES {
        let (worker, own) = pair().await;
        let (server_config, client_config) = configs_with(alone(suite), &version::TLS13);
        let (mut own, name) = (ClientStream::from(own), ServerName::try_from("s.example").unwrap());
        let acceptor = TlsAcceptor::from(Arc::new(server_config));
        let (worker, secured) =
            tokio::join!(acceptor.accept(worker), own.secure_towards(name, Arc::new(client_config)));
        secured.unwrap();
        let mut worker = worker.unwrap();
        // Its tickets are on their way, or have come and were not read.
        let mut own = handed_over(own);
        say(&mut worker, b"hello").await;
        assert_eq!(heard(&mut own, 5).await, b"hello");
        say(&mut own, b"worker").await;
        assert_eq!(heard(&mut worker, 6).await, b"worker");
        own.shutdown().await.unwrap();
        assert_eq!(worker.read(&mut [0; 9]).await.unwrap(), 0, "{suite:?}");
    }
}

#[tokio::test]
async fn the_last_words_go_with_the_goodbye() {
    let (server, mut client) = agreed(TLS13_AES_128_GCM_SHA256).await;
    let mut server = handed_over(server);
    let slices = [io::IoSlice::new(b"last"), io::IoSlice::new(b" words")];
    assert_eq!(poll_fn(|cx| server.poll_write_last(cx, &slices)).await.unwrap(), 10);
    let mut all = String::new();
    client.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "last words");
    assert_eq!(server.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn keys_that_the_client_has_changed_before_are_those_that_are_taken_along() {
    for suite in SUITES {
        let (mut server, mut client) = agreed(suite).await;
        // It asks for ours to be changed as well, which we say with the next thing that we have to say.
        client.get_mut().1.refresh_traffic_keys().unwrap();
        say(&mut client, b"changed").await;
        assert_eq!(heard(&mut server, 7).await, b"changed");
        let mut server = handed_over(server);
        say(&mut server, b"so are ours").await;
        assert_eq!(heard(&mut client, 11).await, b"so are ours");
        say(&mut client, b"good").await;
        assert_eq!(heard(&mut server, 4).await, b"good", "{suite:?}");
    }
}

#[tokio::test]
async fn keys_that_the_client_changes_afterwards_end_the_link_with_a_reason() {
    let (server, mut client) = agreed(TLS13_CHACHA20_POLY1305_SHA256).await;
    let mut server = handed_over(server);
    say(&mut client, b"before").await;
    assert_eq!(heard(&mut server, 6).await, b"before");
    client.get_mut().1.refresh_traffic_keys().unwrap();
    say(&mut client, b"after").await;
    let error = server.read(&mut [0; 9]).await.unwrap_err().to_string();
    assert!(error.contains("KeyUpdate"), "{error}");
    // It is an error for good, and the client hears of it.
    assert!(server.read(&mut [0; 9]).await.is_err() && server.write(b"x").await.is_err());
    let told = client.read(&mut [0; 9]).await.unwrap_err().to_string();
    assert!(told.contains("InternalError"), "{told}");
}

#[tokio::test]
async fn our_own_keys_change_before_they_are_used_up() {
    for suite in SUITES {
        let (server, mut client) = agreed(suite).await;
        let mut server = handed_over(server);
        for round in 0..4 {
            // The new key begins at nothing, and has five records to seal.
            let writes = &mut records(&mut server).writes;
            writes.records_max = writes.sequence + round;
            let said = counted(RECORD_BYTES * 5);
            let (heard_by_client, ()) = tokio::join!(heard(&mut client, said.len()), say(&mut server, &said));
            assert!(heard_by_client == said, "{suite:?} {round}");
        }
        assert_eq!(records(&mut server).spares.len(), SPARE_KEYS - 4);
    }
}

#[tokio::test]
async fn a_session_whose_keys_are_used_up_ends_with_a_reason() {
    for is_full in [false, true] {
        let (server, mut client) = agreed(TLS13_AES_128_GCM_SHA256).await;
        let mut server = handed_over(server);
        let Records { writes, spares, .. } = records(&mut server);
        spares.clear();
        writes.records_max = writes.sequence + 1;
        say(&mut server, b"one").await;
        assert_eq!(heard(&mut client, 3).await, b"one");
        if is_full {
            // The last number of all is never used: none would follow.
            let writes = &mut records(&mut server).writes;
            (writes.sequence, writes.records_max) = (u64::MAX, u64::MAX);
            records(&mut server).reads.sequence = u64::MAX;
            say(&mut client, b"heard").await;
            let error = server.read(&mut [0; 9]).await.unwrap_err().to_string();
            assert!(error.contains("used up"), "{error}");
        }
        let error = server.write(b"two").await.unwrap_err().to_string();
        assert!(error.contains("used up"), "{error}");
    }
}

#[tokio::test]
async fn a_record_that_was_changed_on_its_way_ends_the_link_and_the_client_is_told() {
    for (at, told) in [(5, "BadRecordMac"), (100, "BadRecordMac"), (321, "BadRecordMac"), (0, "UnexpectedMessage")] {
        let mut wire = Wire::lay(TLS13_AES_128_GCM_SHA256).await;
        wire.server = handed_over(wire.server);
        let mut sealed = wire.said(&counted(300)).await;
        sealed[at] ^= 1;
        wire.let_through(&sealed).await;
        assert!(wire.server.read(&mut [0; 9]).await.is_err(), "{at}");
        wire.server.flush().await.unwrap();
        let mut alert = vec![0; 24];
        wire.between.0.read_exact(&mut alert).await.unwrap();
        wire.between.1.write_all(&alert).await.unwrap();
        let error = wire.client.read(&mut [0; 9]).await.unwrap_err().to_string();
        assert!(error.contains(told), "{at}: {error}");
    }
}

#[tokio::test]
async fn what_has_no_such_session_stays_and_says_why() {
    let (mut server, _client) = both(&version::TLS12).await;
    assert!(matches!(server.stays(), Some(HandOverError::Tls12)));
    assert!(matches!(server.freeze(), Err(HandOverError::Tls12)));
    let (one, _other) = MemoryStream::pair(1000);
    assert!(matches!(ClientStream::from(one).freeze(), Err(HandOverError::InMemory)));
    let (server, mut client) = pair().await;
    let mut plain = ClientStream::from(server);
    assert!(plain.freeze().unwrap().is_none());
    let socket = plain.socket().unwrap().try_clone_to_owned().unwrap();
    let mut plain = ClientStream::thaw(socket, None).unwrap();
    say(&mut plain, b"plain").await;
    assert_eq!(heard(&mut client, 5).await, b"plain");
}

#[tokio::test]
async fn a_session_waits_for_the_rest_of_a_key_update_before_it_goes() {
    let (mut server, client) = agreed(TLS13_AES_128_GCM_SHA256).await;
    let (mut client, mut keys) = taken_apart(client);
    client.write_all(&keys.seal(HANDSHAKE, &[KEY_UPDATE, 0])).await.unwrap();
    while !matches!(server.stays(), Some(HandOverError::AmidMessage)) {
        assert_eq!(look(&mut server).await, None);
    }
    client.write_all(&keys.seal(HANDSHAKE, &[0, 1, 0])).await.unwrap();
    while server.stays().is_some() {
        assert_eq!(look(&mut server).await, None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_said_arrives_wherever_the_session_is_frozen(
        suite in 0..3_usize,
        steps in prop::collection::vec((0..4_u8, 1..40_000_usize), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut server, mut client) = agreed(SUITES[suite]).await;
            let (mut said, mut heard_by_server) = (Vec::new(), Vec::new());
            for (step, size) in steps {
                match step {
                    0 => server = handed_over(server),
                    1 => {
                        let said = counted(size);
                        let (_, back) = tokio::join!(say(&mut server, &said), heard(&mut client, size));
                        assert!(back == said);
                    }
                    2 => {
                        let part = counted(size.min(9000));
                        say(&mut client, &part).await;
                        said.extend(part);
                    }
                    _ => {
                        let wanted = size.min(said.len() - heard_by_server.len());
                        heard_by_server.extend(heard(&mut server, wanted).await);
                    }
                }
            }
            let left = said.len() - heard_by_server.len();
            heard_by_server.extend(heard(&mut server, left).await);
            assert!(said == heard_by_server);
        });
    }
}
