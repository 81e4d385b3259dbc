//! What one probe does: connect, ask for a page, or shake hands as a WebSocket client. Bounded in time and bytes.

use super::report::{ReportPointers, WorkerReport};
use super::reserve::Target;
use super::spec::{ProbeKind, ProbeSettings};
use crate::hops::{HOPS, own_id};
use crate::net::{Addresses, ConnectError, DialFailure, connect};
use base64::Engine;
use sha1::{Digest, Sha1};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// Bytes of an answer's head that are read.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Headers of an answer that are looked at.
const HEADERS_MAX: usize = 64;

/// Bytes of an answer that are read for what the worker reports.
const ANSWER_BYTES_MAX: usize = HEAD_BYTES_MAX + 64 * 1024;

/// What a server that speaks WebSocket alone answers a plain GET (RFC 9110 15.5.22).
const UPGRADE_REQUIRED: u16 = 426;

/// How long the rest of an answer may take; the verdict stands already.
const BODY_WAIT: Duration = Duration::from_secs(1);

/// How long a WebSocket server may take to answer our close frame; the verdict stands already.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// What was wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ProbeProblem {
    /// Whether one such finding is enough.
    pub(super) certain: bool,
    /// For people.
    pub(super) text: String,
}

/// What was found although the probe may have taken too long in the end.
struct Progress<'a> {
    /// It answered as it should.
    fine: bool,
    report: Option<WorkerReport>,
    pointers: &'a ReportPointers,
}

/// Probes once; what the worker reports about itself, if it does.
pub(super) async fn probe(
    target: &Target,
    settings: &ProbeSettings,
    pointers: &ReportPointers,
) -> Result<Option<WorkerReport>, ProbeProblem> {
    let mut found = Progress { fine: false, report: None, pointers };
    match tokio::time::timeout(settings.timeout, attempt(target, settings, &mut found)).await {
        Ok(result) => result.map(|()| found.report),
        Err(_) if found.fine => Ok(found.report),
        Err(_) => Err(late(settings)),
    }
}

async fn attempt(target: &Target, settings: &ProbeSettings, found: &mut Progress<'_>) -> Result<(), ProbeProblem> {
    let problem = |error: ConnectError| match error.kind {
        DialFailure::Timeout if error.detail.is_none() => late(settings),
        kind => {
            let certain = kind.is_forbidden() || kind == DialFailure::Refused;
            ProbeProblem { certain, text: error.to_string() }
        }
    };
    let addresses = target.resolve().await.map_err(problem)?;
    if let (Addresses::Parked(lines), ProbeKind::Tcp) = (&addresses, &settings.kind) {
        // It is connected already.
        return lines.look(Instant::now() + settings.timeout).await.map_err(problem);
    }
    let peer = target.tls_peer();
    let header = target.proxy_header(None);
    let stream = connect(&addresses, peer.as_ref(), &header, settings.timeout).await.map_err(problem)?;
    let authority = target.url.authority();
    match &settings.kind {
        ProbeKind::Tcp => Ok(()),
        ProbeKind::Http(path) => get(stream, &authority, path, found).await,
        ProbeKind::Ws(path) => shake_hands(stream, &authority, path, found).await,
    }
}

async fn get(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    authority: &str,
    path: &str,
    found: &mut Progress<'_>,
) -> Result<(), ProbeProblem> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: holdline-probe\r\nAccept: */*\r\n{HOPS}: {}\r\nConnection: close\r\n\r\n",
        own_id()
    );
    let (head, mut answer) = exchange(&mut stream, &request).await?;
    if !(200..=299).contains(&head.status) {
        return Err(doubt(match head.status {
            UPGRADE_REQUIRED => {
                format!("answered {UPGRADE_REQUIRED}: it speaks WebSocket alone; probe it by \"ws\" or \"tcp\"")
            }
            status => format!("answered {status}"),
        }));
    }
    found.fine = true;
    let end = head.length.map_or(ANSWER_BYTES_MAX, |length| head.bytes.saturating_add(length)).min(ANSWER_BYTES_MAX);
    // However this ends, the answer was fine.
    let _ = tokio::time::timeout(BODY_WAIT, read_up_to(&mut stream, &mut answer, end)).await;
    found.report = answer.get(head.bytes..).and_then(|body| WorkerReport::parse(body, found.pointers));
    Ok(())
}

/// Reads on until there are `end` bytes or no more come.
async fn read_up_to(stream: &mut (impl AsyncRead + Unpin), answer: &mut Vec<u8>, end: usize) -> io::Result<()> {
    while answer.len() < end {
        let room = end - answer.len();
        if (&mut *stream).take(room as u64).read_buf(answer).await? == 0 {
            break;
        }
    }
    Ok(())
}

async fn shake_hands(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    authority: &str,
    path: &str,
    found: &mut Progress<'_>,
) -> Result<(), ProbeProblem> {
    let key = base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 16]>());
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: holdline-probe\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{HOPS}: {}\r\n\r\n",
        own_id()
    );
    let (head, _) = exchange(&mut stream, &request).await?;
    if head.status != 101 {
        return Err(doubt(format!("answered {} instead of 101", head.status)));
    }
    if head.accept.as_deref() != Some(accept_of(&key).as_str()) {
        return Err(doubt("101 with a wrong Sec-WebSocket-Accept".to_owned()));
    }
    found.fine = true;
    say_goodbye(&mut stream).await;
    Ok(())
}

/// Closes with 1000 and lets the worker answer, so that it doesn't log a broken connection.
async fn say_goodbye(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let [high, low] = 1000_u16.to_be_bytes();
    let [a, b, c, d] = rand::random::<[u8; 4]>();
    let close = [0x88, 0x82, a, b, c, d, high ^ a, low ^ b];
    let goodbye = async {
        stream.write_all(&close).await?;
        stream.flush().await?;
        let mut rest = [0; 512];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // However this ends, the handshake was fine.
    let _ = tokio::time::timeout(CLOSE_WAIT, goodbye).await;
}

/// RFC 6455 section 4.2.2, point 5.4.
pub(super) fn accept_of(key: &str) -> String {
    let digest = Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    base64::engine::general_purpose::STANDARD.encode(digest)
}

struct Head {
    status: u16,
    accept: Option<String>,
    /// Bytes of the body, if it says how many.
    length: Option<usize>,
    /// Bytes of the head itself.
    bytes: usize,
}

/// The head of the answer, and what has come of the answer so far.
async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &str,
) -> Result<(Head, Vec<u8>), ProbeProblem> {
    let lost = |error: io::Error| doubt(format!("connection lost: {}", error.kind()));
    stream.write_all(request.as_bytes()).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    let mut answer = Vec::with_capacity(1024);
    loop {
        let room = HEAD_BYTES_MAX - answer.len();
        let read = (&mut *stream).take(room as u64).read_buf(&mut answer).await.map_err(lost)?;
        if read == 0 {
            return Err(doubt("connection closed before an answer".to_owned()));
        }
        if let Some(head) = parse(&answer)? {
            return Ok((head, answer));
        }
        if answer.len() >= HEAD_BYTES_MAX {
            return Err(doubt(format!("an answer's head of more than {HEAD_BYTES_MAX} bytes")));
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Option<Head>, ProbeProblem> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let status = response.parse(bytes).map_err(|error| doubt(format!("not HTTP: {error}")))?;
    let header = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        Some(std::str::from_utf8(header.value).ok()?.trim())
    };
    let accept = header("sec-websocket-accept").map(str::to_owned);
    let length = header("content-length").and_then(|length| length.parse().ok());
    let httparse::Status::Complete(bytes) = status else { return Ok(None) };
    Ok(response.code.map(|status| Head { status, accept, length, bytes }))
}

fn late(settings: &ProbeSettings) -> ProbeProblem {
    doubt(format!("no answer within {:?}", settings.timeout))
}

fn doubt(text: String) -> ProbeProblem {
    ProbeProblem { certain: false, text }
}
