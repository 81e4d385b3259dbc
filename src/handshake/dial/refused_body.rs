//! A backend's answer that is no upgrade, on its way to the client as it is.
//!
//! The body is streamed, never collected, and cut off at [`REFUSED_BODY_TIMEOUT`]: a backend that says no must not hold
//! a connection for long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};
use hyper::body::{Frame, SizeHint};
use tokio::io::ReadBuf;
use tokio::time::Sleep;

use crate::handshake::check::elements;
use crate::handshake::forward::clean_response;
use crate::net::BackendStream;

/// How long the body of a refused handshake may take.
pub const REFUSED_BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes read at once, and so the longest frame of the body.
const READ_BYTES: usize = 8 * 1024;

/// Longest chunk head or trailer section.
const CHUNK_HEAD_BYTES_MAX: usize = 8 * 1024;

/// A backend's answer that is no upgrade; the client of a first attach gets it as it is.
#[derive(Debug)]
pub struct NotUpgraded {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, without hop-by-hop ones.
    pub headers: HeaderMap,
    /// Its body, still in the socket.
    pub body: RefusedBody,
}

impl NotUpgraded {
    pub(super) fn new(status: StatusCode, mut headers: HeaderMap, stream: BackendStream, leftover: Bytes) -> Self {
        let framing = Framing::of(status, &headers);
        if !matches!(framing, Framing::Length(_) | Framing::Done) {
            headers.remove(CONTENT_LENGTH);
        }
        clean_response(status, &mut headers);
        let deadline = Box::pin(tokio::time::sleep(REFUSED_BODY_TIMEOUT));
        Self {
            status,
            headers,
            body: RefusedBody { stream, buffer: BytesMut::from(leftover), framing, deadline, failure: None },
        }
    }
}

/// The body of a refused handshake, read from the backend as the client takes it.
#[derive(Debug)]
pub struct RefusedBody {
    stream: BackendStream,
    buffer: BytesMut,
    framing: Framing,
    deadline: Pin<Box<Sleep>>,
    /// What broke the body; the client's connection is told when it asks again.
    failure: Option<io::Error>,
}

/// Where the body ends (RFC 9112 section 6.3), and how much of it is still to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Framing {
    Length(u64),
    UntilClose,
    ChunkHead,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    Done,
}

impl Framing {
    fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Self::Done;
        }
        if let Some(last) = elements(headers, TRANSFER_ENCODING).last() {
            return if last.eq_ignore_ascii_case(b"chunked") { Self::ChunkHead } else { Self::UntilClose };
        }
        let length = elements(headers, CONTENT_LENGTH).next().and_then(|text| std::str::from_utf8(text).ok());
        match length.and_then(|text| text.parse().ok()) {
            Some(0) => Self::Done,
            Some(length) => Self::Length(length),
            None => Self::UntilClose,
        }
    }
}

impl RefusedBody {
    /// The next piece of the body, `None` at its end.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        if self.framing != Framing::Done && self.deadline.as_mut().poll(cx).is_ready() {
            return self.fail(io::ErrorKind::TimedOut.into(), cx);
        }
        loop {
            match self.advance() {
                Ok(Advance::Data(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(Advance::End) => return Poll::Ready(None),
                Ok(Advance::NeedsMore) => {}
                Err(error) => return self.fail(error, cx),
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if self.framing == Framing::UntilClose => self.framing = Framing::Done,
                Ok(0) => return self.fail(io::ErrorKind::UnexpectedEof.into(), cx),
                Ok(_) => {}
                Err(error) => return self.fail(error, cx),
            }
        }
    }

    /// Ends the body, but not at once: hyper flushes what it has whenever a body has nothing for it, and drops it when a
    /// body fails, the status of the refusal with it.
    fn fail(&mut self, error: io::Error, cx: &Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.framing = Framing::Done;
        self.failure = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [0; READ_BYTES];
        let mut read = ReadBuf::new(&mut space);
        ready!(tokio::io::AsyncRead::poll_read(Pin::new(&mut self.stream), cx, &mut read))?;
        self.buffer.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Takes the next step that needs nothing but the buffer.
    fn advance(&mut self) -> io::Result<Advance> {
        loop {
            match self.framing {
                Framing::Done => return Ok(Advance::End),
                Framing::UntilClose | Framing::Length(_) | Framing::ChunkData(_) if self.buffer.is_empty() => {
                    return Ok(Advance::NeedsMore);
                }
                Framing::UntilClose => return Ok(Advance::Data(self.buffer.split().freeze())),
                Framing::Length(left) => {
                    let (data, left) = self.take(left);
                    self.framing = if left == 0 { Framing::Done } else { Framing::Length(left) };
                    return Ok(Advance::Data(data));
                }
                Framing::ChunkData(left) => {
                    let (data, left) = self.take(left);
                    self.framing = if left == 0 { Framing::ChunkEnd } else { Framing::ChunkData(left) };
                    return Ok(Advance::Data(data));
                }
                Framing::ChunkHead => match httparse::parse_chunk_size(&self.buffer) {
                    Ok(httparse::Status::Complete((used, size))) => {
                        self.buffer.advance(used);
                        self.framing = if size == 0 { Framing::Trailers } else { Framing::ChunkData(size) };
                    }
                    Ok(httparse::Status::Partial) => return self.needs_more(),
                    Err(_) => return Err(io::ErrorKind::InvalidData.into()),
                },
                Framing::ChunkEnd => match self.buffer.get(..2) {
                    Some(b"\r\n") => {
                        self.buffer.advance(2);
                        self.framing = Framing::ChunkHead;
                    }
                    Some(_) => return Err(io::ErrorKind::InvalidData.into()),
                    None => return self.needs_more(),
                },
                Framing::Trailers => {
                    let Some(line) = self.buffer.windows(2).position(|pair| pair == b"\r\n") else {
                        return self.needs_more();
                    };
                    self.buffer.advance(line + 2);
                    if line == 0 {
                        self.framing = Framing::Done;
                    }
                }
            }
        }
    }

    fn take(&mut self, left: u64) -> (Bytes, u64) {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
        let data = self.buffer.split_to(length).freeze();
        (data, left - length as u64)
    }

    fn needs_more(&self) -> io::Result<Advance> {
        if self.buffer.len() > CHUNK_HEAD_BYTES_MAX {
            Err(io::ErrorKind::InvalidData.into())
        } else {
            Ok(Advance::NeedsMore)
        }
    }
}

enum Advance {
    Data(Bytes),
    NeedsMore,
    End,
}

impl hyper::body::Body for RefusedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.get_mut().poll_data(cx).map_ok(Frame::data)
    }

    fn is_end_stream(&self) -> bool {
        self.framing == Framing::Done && self.failure.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Length(left) => SizeHint::with_exact(left),
            Framing::Done if self.failure.is_none() => SizeHint::with_exact(0),
            Framing::Done
            | Framing::UntilClose
            | Framing::ChunkHead
            | Framing::ChunkData(_)
            | Framing::ChunkEnd
            | Framing::Trailers => SizeHint::default(),
        }
    }
}
