//! A client's socket whose request lines are read as leniently as nginx and HAProxy read them, and whose lines end as RFC
//! 9112 wants it.
//!
//! A query may hold `"`, `<` and `>` as they are: small devices and scripts send them so, and hyper would refuse the
//! request. They are escaped on the way in. hyper takes a bare LF for the end of a line, which another proxy may take for a
//! part of one, and so find another head in the same bytes; here it becomes a NUL, which no head may hold, and the request
//! is answered 400. Invariant: nothing else of a head is touched, and no byte of a body or of a WebSocket is looked at:
//! [`HeadComes`] says when the next bytes begin a head.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a request line that are looked at in one read.
const PIECE_BYTES: usize = 2048;

/// Bytes that one byte becomes at most.
const ESCAPE_BYTES: usize = 3;

/// A socket on whose next read a head may begin.
#[derive(Debug)]
pub struct LenientLine<S> {
    stream: S,
    /// What was read of the stream before.
    first: Bytes,
    place: Place,
    head_comes: HeadComes,
}

/// Tells the socket that what is read from now on is the next request.
#[derive(Clone, Debug, Default)]
pub struct HeadComes(Arc<AtomicBool>);

impl HeadComes {
    /// To be called for a request without a body that is no upgrade, once its head has been read.
    pub fn tell(&self) {
        self.0.store(true, Relaxed);
    }
}

/// Where in a request line the next byte stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Before the request; empty lines may stand there.
    Start {
        after_cr: bool,
    },
    Method,
    Path,
    Query,
    /// Behind the query: the version, and the header lines.
    Head(Line),
    Behind,
}

/// What the line that the next byte belongs to holds so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Line {
    is_empty: bool,
    /// Whether the last byte was a CR, which is none of the line's text if an LF follows.
    after_cr: bool,
}

const START: Place = Place::Start { after_cr: false };

impl Line {
    const BEGUN: Self = Self { is_empty: false, after_cr: false };
    const FRESH: Self = Self { is_empty: true, after_cr: false };
}

/// What stands for a bare LF: no head may hold it.
const NEVER: u8 = 0;

impl<S> LenientLine<S> {
    /// `stream`, of which `first` was read before; with that, a request line begins.
    pub const fn new(stream: S, first: Bytes, head_comes: HeadComes) -> Self {
        Self { stream, first, place: START, head_comes }
    }

    /// The bare socket, and what was read of it behind `read`.
    pub fn into_parts(self, read: Bytes) -> (S, Bytes) {
        if self.first.is_empty() {
            return (self.stream, read);
        }
        (self.stream, [read, self.first].concat().into())
    }
}

impl<S: AsyncRead + Unpin> LenientLine<S> {
    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        buf.put_slice(&self.first.split_to(self.first.len().min(buf.remaining())));
        if self.first.is_empty() {
            // An empty rest would keep the memory of the whole.
            self.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

/// Appends `bytes` to `out`, those of the query escaped that need it; where the line goes on.
fn let_in(place: Place, bytes: &[u8], out: &mut ReadBuf<'_>) -> Place {
    let mut place = place;
    for (at, &byte) in bytes.iter().enumerate() {
        place = match (place, byte) {
            (Place::Behind | Place::Head(_), _) => {
                let before = out.filled().len();
                out.put_slice(&bytes[at..]);
                return judge_lines(place, &mut out.filled_mut()[before..]);
            }
            (Place::Start { .. }, b'\r') => Place::Start { after_cr: true },
            (Place::Start { after_cr: true }, b'\n') => START,
            (Place::Start { .. } | Place::Method | Place::Path | Place::Query, b'\n') => {
                out.put_slice(&[NEVER]);
                place = Place::Behind;
                continue;
            }
            (Place::Path | Place::Query, b' ') => Place::Head(Line::BEGUN),
            (Place::Method, b' ') => Place::Path,
            (Place::Path, b'?') => Place::Query,
            (Place::Start { .. }, _) => Place::Method,
            (Place::Method | Place::Path | Place::Query, _) => place,
        };
        match byte {
            b'"' if place == Place::Query => out.put_slice(b"%22"),
            b'<' if place == Place::Query => out.put_slice(b"%3C"),
            b'>' if place == Place::Query => out.put_slice(b"%3E"),
            _ => out.put_slice(&[byte]),
        }
    }
    place
}

/// Makes each bare LF of a head what no head may hold; where the head goes on.
fn judge_lines(place: Place, bytes: &mut [u8]) -> Place {
    let Place::Head(mut line) = place else { return place };
    for byte in bytes {
        line = match *byte {
            b'\n' if !line.after_cr => {
                *byte = NEVER;
                return Place::Behind;
            }
            b'\n' if line.is_empty => return Place::Behind,
            b'\n' => Line::FRESH,
            b'\r' => Line { is_empty: line.is_empty && !line.after_cr, after_cr: true },
            _ => Line::BEGUN,
        };
    }
    Place::Head(line)
}

impl<S: AsyncRead + Unpin> AsyncRead for LenientLine<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.head_comes.0.swap(false, Relaxed) {
            this.place = START;
        }
        let room = buf.remaining() / ESCAPE_BYTES;
        let is_behind_query = matches!(this.place, Place::Head(_) | Place::Behind);
        if is_behind_query || room == 0 {
            let before = buf.filled().len();
            ready!(this.poll_bytes(cx, buf))?;
            this.place = judge_lines(this.place, &mut buf.filled_mut()[before..]);
            return Poll::Ready(Ok(()));
        }
        let mut piece = [0; PIECE_BYTES];
        let mut piece = ReadBuf::new(&mut piece[..room.min(PIECE_BYTES)]);
        ready!(this.poll_bytes(cx, &mut piece))?;
        this.place = let_in(this.place, piece.filled(), buf);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LenientLine<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SENT: &str = "\r\nGET /a\"b?q={\"x\":<1>}&r=? HTTP/1.1\r\nX: ?\"<>\"\r\n\r\n?\"<body>\"";
    const READ_AS: &str = "\r\nGET /a\"b?q={%22x%22:%3C1%3E}&r=? HTTP/1.1\r\nX: ?\"<>\"\r\n\r\n?\"<body>\"";

    #[test]
    fn only_the_query_of_a_request_line_is_escaped_however_it_is_cut() {
        for bytes in [1, 2, 3, 7, 1000] {
            let mut space = [0; 1000];
            let mut out = ReadBuf::new(&mut space);
            SENT.as_bytes().chunks(bytes).fold(START, |place, piece| let_in(place, piece, &mut out));
            assert_eq!(std::str::from_utf8(out.filled()).unwrap(), READ_AS, "{bytes}");
        }
    }

    #[test]
    fn a_bare_lf_anywhere_in_a_head_becomes_what_no_head_may_hold_however_it_is_cut() {
        for (sent, sound) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\n\n", true),
            ("\r\n\r\nGET / HTTP/1.1\r\nA: \r\r\nHost: a\r\n\r\n", true),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", false),
            ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", false),
            ("GET / HTTP/1.1\r\n\nHost: a\r\n\r\n", false),
            ("GET /\n\n", false),
            ("GET /?a\n", false),
            ("GET\n", false),
            ("\r\n\nGET / HTTP/1.1\r\n\r\n", false),
        ] {
            for bytes in [1, 2, 3, 7, 1000] {
                let mut space = [0xff; 1000];
                let mut out = ReadBuf::new(&mut space);
                sent.as_bytes().chunks(bytes).fold(START, |place, piece| let_in(place, piece, &mut out));
                let head = out.filled();
                assert_eq!(
                    !head.contains(&NEVER),
                    sound,
                    "{sent:?} in pieces of {bytes}: {:?}",
                    head.escape_ascii().to_string()
                );
                assert!(!sound || head == sent.as_bytes(), "{sent:?} is not touched");
            }
        }
    }

    #[tokio::test]
    async fn what_was_read_before_comes_first_and_none_of_it_is_lost() {
        let (mut peer, ours) = tokio::io::duplex(1 << 16);
        let (before, after) = SENT.split_at(SENT.len() - 3);
        let mut line = LenientLine::new(ours, before.into(), HeadComes::default());
        peer.write_all(after.as_bytes()).await.unwrap();
        let mut heard = vec![0; READ_AS.len() - 5];
        line.read_exact(&mut heard).await.unwrap();
        let (mut ours, unread) = line.into_parts(heard.into());
        let mut rest = [0; 3];
        ours.read_exact(&mut rest).await.unwrap();
        assert_eq!([&unread[..], &rest].concat(), READ_AS.as_bytes());
    }

    #[tokio::test]
    async fn what_follows_is_a_request_line_only_when_that_is_said() {
        let (mut peer, ours) = tokio::io::duplex(1 << 16);
        let head_comes = HeadComes::default();
        let mut line = LenientLine::new(ours, Bytes::new(), head_comes.clone());
        for (told, read_as) in [(false, READ_AS), (false, SENT), (true, READ_AS), (false, SENT)] {
            if told {
                head_comes.tell();
            }
            peer.write_all(SENT.as_bytes()).await.unwrap();
            let mut heard = vec![0; read_as.len()];
            line.read_exact(&mut heard).await.unwrap();
            assert_eq!(String::from_utf8(heard).unwrap(), read_as);
        }
    }
}
