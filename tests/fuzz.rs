//! Bytes from outside never panic a reader, and what a reader accepts keeps its promises.
//!
//! Replays `fuzz/corpus` with mutations that are the same each time; `scripts/fuzz` explores with others, and adds what
//! fails to the corpus. The mutations are blind: they cut, repeat, swap and splice inputs, words and numbers of interest.

// the helpers here are tests too, which clippy only sees of functions marked as such
#![allow(clippy::unwrap_used)]

#[path = "fuzz/aware.rs"]
mod aware;
#[path = "fuzz/snapshot.rs"]
mod snapshot;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdline::config::Config;
use holdline::handshake::Peer;
use holdline::handshake::accept::{accept_key, agreed_headers, switching_headers};
use holdline::handshake::check::{Checked, check, host};
use holdline::handshake::client_address::TrustedProxies;
use holdline::handshake::deflate::Asked;
use holdline::handshake::dial::{Dial, DialError, DialTimeouts, ExpectedProtocol, dial};
use holdline::handshake::forward::upgrade_head_lines;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Mutations of each corpus file in a plain test run; an answer takes a connection each.
const REPLAYED: u64 = 300;
const REPLAYED_ANSWERS: u64 = 40;
/// Bytes of an input.
const INPUT_BYTES_MAX: usize = 64 * 1024;

#[test]
fn no_request_head_panics_or_smuggles_a_line() {
    fuzz("handshake", REPLAYED, request);
}

#[test]
fn no_answer_of_a_backend_panics_or_passes_without_its_key() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    fuzz("answer", REPLAYED_ANSWERS, |bytes| runtime.block_on(answer(bytes)));
}

#[test]
fn no_configuration_panics_and_each_good_one_reads_back_as_printed() {
    fuzz("config", REPLAYED, config);
}

#[test]
fn no_snapshot_panics_the_reader_and_each_that_is_taken_is_a_pipe_that_lives_and_ends() {
    fuzz("snapshot", REPLAYED, snapshot::read);
}

#[test]
fn no_bytes_of_an_aware_client_panic_and_what_they_come_to_hangs_on_no_cut_between_them() {
    fuzz("aware", REPLAYED, aware::read);
}

#[test]
fn no_line_of_the_fallback_panics_and_each_good_one_is_the_same_inside() {
    fuzz("lines", REPLAYED, aware::line);
}

/// A failure means that the form of a snapshot has changed: if that was meant, its version goes up, and
/// `HOLDLINE_FUZZ_CORPUS=write cargo test --test fuzz version` writes the corpus again.
#[test]
fn the_snapshots_of_the_corpus_are_of_this_version() {
    for (name, bytes) in snapshot::seeds() {
        let path = folder("snapshot").join(name);
        if std::env::var_os("HOLDLINE_FUZZ_CORPUS").is_some() {
            fs::write(&path, &bytes).expect("the corpus can be written");
        }
        assert!(snapshot::is_taken(&bytes), "{name}");
        assert!(fs::read(&path).is_ok_and(|kept| kept == bytes), "{} is in another form", path.display());
    }
}

fn request(bytes: &[u8]) {
    let mut lines = [httparse::EMPTY_HEADER; 100];
    let mut head = httparse::Request::new(&mut lines);
    let Ok(httparse::Status::Complete(_)) = head.parse(bytes) else { return };
    let version = if head.version == Some(1) { http::Version::HTTP_11 } else { http::Version::HTTP_10 };
    let mut made = http::Request::builder().version(version);
    made = made.method(head.method.unwrap_or_default()).uri(head.path.unwrap_or_default());
    for line in head.headers.iter() {
        made = made.header(line.name, line.value);
    }
    // what hyper would not have handed on either
    let Ok(made) = made.body(()) else { return };
    let (parts, ()) = made.into_parts();
    let Checked::Upgrade(upgrade) = check(&parts, 32 * 1024) else { return };
    assert!(parts.method == http::Method::GET && parts.version == http::Version::HTTP_11);
    let strict = STANDARD.decode(&upgrade.key).map_or(16, |key| key.len());
    assert_eq!((upgrade.key.len(), strict), (24, 16), "a key of 16 bytes");
    assert!(host(&parts).is_some_and(|host| !host.contains(['@', ',', '\r', '\n'])), "one host");
    let mut offers = upgrade.protocols.clone();
    offers.sort();
    offers.dedup();
    assert_eq!(offers.len(), upgrade.protocols.len(), "no subprotocol twice");
    let client = TrustedProxies::new(vec!["127.0.0.0/8".parse().unwrap()]).trace(Peer::LOCAL, &parts);
    let forwarded = upgrade_head_lines(&parts, &client);
    let mut lines = [httparse::EMPTY_HEADER; 256];
    let read = httparse::parse_headers(&[&forwarded[..], b"\r\n"].concat(), &mut lines).map(|read| {
        let httparse::Status::Complete((_, lines)) = read else { panic!("the lines do not end") };
        let names: Vec<String> = lines.iter().map(|line| line.name.to_ascii_lowercase()).collect();
        for ours in ["connection", "upgrade", "content-length", "transfer-encoding", "sec-websocket-key"] {
            assert!(!names.iter().any(|name| name == ours), "{ours} was forwarded");
        }
        assert!(!names.iter().any(|name| name.starts_with("holdline-")), "a forged header was forwarded");
    });
    read.unwrap();
    let protocol = upgrade.protocols.first().map(String::as_str);
    let _answer = switching_headers(&upgrade.key, agreed_headers(protocol, None, &http::HeaderMap::new()));
}

/// A backend that answers with these bytes and closes.
async fn answer(bytes: &[u8]) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let backend = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert!(socket.read_buf(&mut request).await.unwrap() > 0, "half a request");
        }
        let request = String::from_utf8(request).unwrap();
        let key = request.split_once("Sec-WebSocket-Key: ").unwrap().1.split_once('\r').unwrap().0;
        let accept = accept_key(key);
        // the dialler may have left at the first wrong byte
        let _ = socket.write_all(&with_accept(bytes, &accept)).await;
        let _ = socket.shutdown().await;
        accept
    };
    let protocols = ["chat".to_owned(), "other".to_owned()];
    let asked = Dial {
        addresses: &vec![address].into(),
        tls: None,
        proxy_header: b"",
        host: "app.example",
        path: "/",
        head_lines: b"",
        protocols: &protocols,
        numbered: true,
        expected: ExpectedProtocol::Offered,
        compression: Asked::Nothing,
        attach: &[("Holdline-Pipe", "x".to_owned())],
        timeouts: DialTimeouts { connect: Duration::from_secs(5), handshake: Duration::from_secs(5) },
    };
    let (accept, dialed) = tokio::join!(backend, dial(asked));
    match dialed {
        Ok(dialed) => {
            let said = with_accept(bytes, &accept);
            assert!(contains(&said, accept.as_bytes()) && contains(&said, b" 101"), "attached without proof");
            assert!(dialed.protocol.is_none_or(|picked| protocols.contains(&picked)), "picked what was not offered");
            assert!(dialed.leftover.len() <= said.len());
        }
        Err(DialError::NotUpgraded(refused)) => {
            assert_ne!(refused.status, 101);
            // a body may be broken; it must end
            let body = refused.body.collect();
            let _ = tokio::time::timeout(Duration::from_secs(5), body).await.expect("the body ends");
        }
        Err(DialError::HandshakeTimeout) => panic!("a closed connection was waited for"),
        Err(_) => {}
    }
}

fn with_accept(bytes: &[u8], accept: &str) -> Vec<u8> {
    let word = b"{accept}";
    match bytes.windows(word.len()).position(|window| window == word) {
        Some(at) => [&bytes[..at], accept.as_bytes(), &bytes[at + word.len()..]].concat(),
        None => bytes.to_vec(),
    }
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Config::read(Some(("fuzz.toml", &text)), []) {
        Ok(loaded) => {
            assert!(loaded.config.route_table().is_ok(), "checked routes compile");
            for route in &loaded.config.routes {
                let _settings = loaded.config.pipe_settings(route);
            }
            let printed = loaded.config.print();
            match Config::read(Some(("printed.toml", &printed)), []) {
                Ok(again) => assert_eq!(again.config, loaded.config, "printed and read again:\n{printed}"),
                // what it prints of a secret is a mask
                Err(error) => assert!(printed.contains("***"), "{error}\n{printed}"),
            }
        }
        Err(invalid) => assert!(!invalid.errors.is_empty() && !invalid.to_string().is_empty()),
    }
}

/// Replays the corpus of `target`; explores as well, for as many seconds as `HOLDLINE_FUZZ_SECONDS` says.
fn fuzz(target: &str, mutations: u64, run: impl Fn(&[u8])) {
    let corpus = corpus(target);
    assert!(corpus.len() >= 5, "the corpus of {target} is gone");
    let inputs: Vec<Vec<u8>> = corpus.iter().map(|(_, bytes)| bytes.clone()).collect();
    for (path, bytes) in &corpus {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(bytes)));
        assert!(outcome.is_ok(), "{} fails", path.display());
    }
    let mut dice = Dice(7);
    for (seed, bytes) in inputs.iter().enumerate() {
        for _ in 0..mutations {
            attempt(target, &dice.mutate(bytes, &inputs), &run, seed as u64);
        }
    }
    let Ok(seconds) = std::env::var("HOLDLINE_FUZZ_SECONDS") else { return };
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_micros() as u64;
    let (mut dice, mut tried) = (Dice(seed), 0_u64);
    let end = Instant::now() + Duration::from_secs(seconds.parse().expect("a number of seconds"));
    while Instant::now() < end {
        let base = &inputs[dice.below(inputs.len())];
        let mut bytes = dice.mutate(base, &inputs);
        while dice.below(2) == 0 {
            bytes = dice.mutate(&bytes, &inputs);
        }
        attempt(target, &bytes, &run, seed);
        tried += 1;
    }
    println!("{target}: {tried} inputs, seed {seed}");
}

/// Runs one input; one that fails is kept in the corpus.
fn attempt(target: &str, bytes: &[u8], run: &impl Fn(&[u8]), seed: u64) {
    if catch_unwind(AssertUnwindSafe(|| run(bytes))).is_err() {
        let name = format!(
            "found-{:016x}",
            bytes.iter().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
        );
        let path = folder(target).join(name);
        fs::write(&path, bytes).expect("the corpus can be written");
        panic!("a new input fails; it is kept as {}", path.display());
    }
}

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder(target)).expect("a folder for each target");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// SplitMix64.
struct Dice(u64);

/// Words around which readers have their borders.
const WORDS: [&[u8]; 20] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b": ",
    b",",
    b";",
    b"=",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"\0",
    b"\xff",
    b"-1",
    b"0",
    b"18446744073709551616",
    b"9223372036854775808",
    b"Connection: close, upgrade\r\n",
    b"Host: a\r\n",
    b"MiB",
];

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % sides.max(1) as u64).unwrap_or(0)
    }

    fn mutate(&mut self, bytes: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
        let mut made = bytes.to_vec();
        let (a, b) = (self.below(made.len() + 1), self.below(made.len() + 1));
        let (from, to) = (a.min(b), a.max(b));
        match self.below(8) {
            0 => made.truncate(from),
            1 => drop(made.drain(from..to)),
            2 => {
                let part = made[from..to].to_vec();
                made.splice(from..from, part);
            }
            3 => {
                let word = WORDS[self.below(WORDS.len())];
                made.splice(from..from, word.iter().copied());
            }
            4 => {
                let word = WORDS[self.below(WORDS.len())];
                let end = made.len().min(from + word.len());
                made.splice(from..end, word.iter().copied());
            }
            5 => {
                let other = &others[self.below(others.len())];
                let at = self.below(other.len() + 1);
                made.truncate(from);
                made.extend_from_slice(&other[at..]);
            }
            6 => {
                let part = made[from..to].repeat(self.below(200));
                made.splice(from..from, part);
            }
            _ => {
                if let Some(byte) = made.get_mut(from) {
                    *byte ^= 1 << self.below(8);
                }
            }
        }
        made.truncate(INPUT_BYTES_MAX);
        made
    }
}
