//! What no client says, and bytes that are no session: refused with a reason, and nothing panics.

use super::*;
use crate::net::session::frozen::{FrozenTlsError, TLS_FORM};

/// A server that was handed over, and its client in two parts.
async fn met() -> (ClientStream, TcpStream, Forger) {
    let (server, client) = agreed(TLS13_AES_128_GCM_SHA256).await;
    let (client, forger) = taken_apart(client);
    (handed_over(server), client, forger)
}

impl Forger {
    /// A record with `padding` zeros behind what it is of.
    fn padded(&mut self, kind: u8, content: &[u8], padding: usize) -> Vec<u8> {
        let inner = [content, &[kind], &vec![0; padding]].concat();
        let (last, rest) = inner.split_last().unwrap();
        self.seal(*last, rest)
    }
}

/// What a reader of `server` is told about `record`.
async fn told(record: impl FnOnce(&mut Forger) -> Vec<u8>) -> String {
    let (mut server, mut client, mut forger) = met().await;
    client.write_all(&record(&mut forger)).await.unwrap();
    let error = server.read(&mut [0; 99]).await.unwrap_err();
    assert!(server.write(b"x").await.is_err(), "it ends for good");
    error.to_string()
}

#[tokio::test]
async fn padding_is_taken_off_and_empty_records_say_nothing() {
    let (mut server, mut client, mut forger) = met().await;
    let long = counted(RECORD_BYTES);
    for record in [
        forger.padded(APPLICATION_DATA, b"few", 255),
        forger.padded(APPLICATION_DATA, b"", 0),
        forger.padded(APPLICATION_DATA, b"", 1000),
        forger.padded(APPLICATION_DATA, b"zeros\0\0", 3),
        forger.padded(APPLICATION_DATA, &long, 0),
        forger.padded(APPLICATION_DATA, &long[..RECORD_BYTES - 9], 9),
    ] {
        client.write_all(&record).await.unwrap();
    }
    let all = [b"few", &b"zeros\0\0"[..], &long, &long[..RECORD_BYTES - 9]].concat();
    assert!(heard(&mut server, all.len()).await == all);
}

#[tokio::test]
async fn a_record_that_is_too_long_ends_the_link() {
    for (content, padding) in [(RECORD_BYTES + 1, 0), (RECORD_BYTES, 1), (0, RECORD_BYTES + 1), (RECORD_BYTES, 239)] {
        let told = told(|forger| forger.padded(APPLICATION_DATA, &vec![7; content], padding)).await;
        assert!(told.contains("longer"), "{content} {padding}: {told}");
    }
    // Its length alone says so, before it has come.
    let told = told(|_| vec![APPLICATION_DATA, 3, 3, 65, 1]).await;
    assert!(told.contains("longer"), "{told}");
}

#[tokio::test]
async fn what_has_no_place_behind_a_handshake_ends_the_link() {
    type Forge = fn(&mut Forger) -> Vec<u8>;
    let cases: [(&str, Forge); 13] = [
        ("kind 0 ", |forger| forger.seal(0, &[0; 20])),
        ("kind 20 ", |forger| forger.seal(20, &[1])),
        ("kind 20 ", |_| vec![20, 3, 3, 0, 1, 1]),
        ("kind 21 ", |_| vec![ALERT, 3, 3, 0, 2, WARNING, CLOSE_NOTIFY]),
        ("kind 22 ", |_| vec![HANDSHAKE, 3, 3, 0, 5, KEY_UPDATE, 0, 0, 1, 0]),
        ("kind 22 ", |forger| forger.seal(HANDSHAKE, &[])),
        ("kind 1 ", |forger| forger.seal(HANDSHAKE, &[1, 0, 0, 1, 0])),
        ("kind 24 ", |forger| forger.seal(24, &[1, 0, 3, 0])),
        ("KeyUpdate", |forger| forger.seal(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 1])),
        ("malformed", |forger| forger.seal(HANDSHAKE, &[NEW_SESSION_TICKET, 0, 0])),
        ("malformed", |forger| forger.seal(ALERT, &[FATAL])),
        ("alert 40", |forger| forger.seal(ALERT, &[FATAL, 40])),
        ("none of this session", |_| vec![APPLICATION_DATA, 3, 3, 0, 3, 1, 2, 3]),
    ];
    for (wanted, forge) in cases {
        let told = told(forge).await;
        assert!(told.contains(wanted), "{wanted}: {told}");
    }
}

#[tokio::test]
async fn tickets_and_a_cancelled_user_mean_nothing() {
    let (mut server, mut client, mut forger) = met().await;
    let ticket = [&[NEW_SESSION_TICKET, 0, 0, 200][..], &[9; 200]].concat();
    let two = [&ticket[..], &ticket].concat();
    for content in [&two[..], &ticket[..104], &ticket[104..150]] {
        client.write_all(&forger.seal(HANDSHAKE, content)).await.unwrap();
    }
    assert_eq!(look(&mut server).await, None);
    // A ticket is half skipped where the session goes on.
    server = handed_over(server);
    for record in [
        forger.seal(HANDSHAKE, &ticket[150..]),
        forger.seal(ALERT, &[WARNING, USER_CANCELED]),
        forger.seal(APPLICATION_DATA, b"after"),
    ] {
        client.write_all(&record).await.unwrap();
    }
    assert_eq!(heard(&mut server, 5).await, b"after");
    let amid = [forger.seal(HANDSHAKE, &ticket[..9]), forger.seal(APPLICATION_DATA, b"amid it")].concat();
    client.write_all(&amid).await.unwrap();
    let error = server.read(&mut [0; 9]).await.unwrap_err().to_string();
    assert!(error.contains("kind 23 "), "{error}");
}

#[tokio::test]
async fn bytes_that_are_no_session_are_refused() {
    let (mut server, mut client) = agreed(TLS13_CHACHA20_POLY1305_SHA256).await;
    say(&mut client, &counted(50)).await;
    heard(&mut server, 1).await;
    let bytes = server.freeze().unwrap().unwrap();
    for cut in 0..bytes.len() {
        let error = FrozenTls::from_bytes(&bytes[..cut]).unwrap_err();
        assert!(matches!(error, FrozenTlsError::NotASession | FrozenTlsError::Length), "{cut}: {error}");
    }
    let refused = |at: usize, byte: u8| {
        let mut changed = bytes.clone();
        changed[at] = byte;
        FrozenTls::from_bytes(&changed).unwrap_err()
    };
    assert_eq!(refused(0, b'X'), FrozenTlsError::NotASession);
    assert_eq!(refused(6, 9), FrozenTlsError::Form(9));
    assert_eq!(refused(7, 0), FrozenTlsError::Malformed("cipher"));
    assert_eq!(refused(8, 4), FrozenTlsError::Malformed("ends"));
    assert_eq!(refused(9, 1), FrozenTlsError::Malformed("skipped bytes"));
    assert_eq!(FrozenTls::from_bytes(&[&bytes[..], &[0]].concat()).unwrap_err(), FrozenTlsError::Length);
    assert_eq!((bytes[5], bytes[6]), (0, TLS_FORM as u8));
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let error = ClientStream::thaw(socket.into(), Some(&bytes[1..])).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let shown = format!("{:?}", FrozenTls::from_bytes(&bytes).unwrap());
    assert_eq!(shown, "FrozenTls { held: Held { bytes: [0, 49, 0], ends: Ends { peers: false, ours: false } }, .. }");
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(front in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let all = if front { [b"HLtls\0\x01\x01\0\0\0\0\0", &bytes[..]].concat() } else { bytes };
        if let Ok(tls) = FrozenTls::from_bytes(&all) {
            prop_assert_eq!(&*tls.to_bytes(), &all);
        }
    }

    #[test]
    fn no_bytes_of_a_client_are_taken_for_a_record(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        // Two keys with their IVs and numbers, and nothing else.
        let frozen = [b"HLtls\0\x01\x01\0\0\0\0\0", &[7; 2 * 36][..], &[0; 13]].concat();
        let FrozenTls { keys, mut held } = FrozenTls::from_bytes(&frozen).unwrap();
        let mut records = Records::new(keys);
        let (mut space, mut bytes) = ([0; 500], bytes);
        let mut into = ReadBuf::new(&mut space);
        if let Ok(used) = records.open(&mut bytes, &mut into, &mut held) {
            prop_assert_eq!(used, 0);
        }
        prop_assert!(into.filled().is_empty());
    }
}
