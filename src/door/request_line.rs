//! A client's socket whose request lines are read as leniently as nginx and HAProxy read them.
//!
//! A query may hold `"`, `<` and `>` as they are: small devices and scripts send them so, and hyper would refuse the
//! request. They are escaped on the way in. Invariant: nothing but the query of a request line is touched, and no byte of
//! a body or of a WebSocket is looked at: [`HeadComes`] says when the next bytes begin a head.

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
    Start,
    Method,
    Path,
    Query,
    Behind,
}

impl<S> LenientLine<S> {
    /// `stream`, of which `first` was read before; with that, a request line begins.
    pub const fn new(stream: S, first: Bytes, head_comes: HeadComes) -> Self {
        Self { stream, first, place: Place::Start, head_comes }
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
            (Place::Behind, _) => {
                out.put_slice(&bytes[at..]);
                return place;
            }
            (Place::Start, b'\r' | b'\n') => Place::Start,
            (_, b'\n') | (Place::Path | Place::Query, b' ') => Place::Behind,
            (Place::Method, b' ') => Place::Path,
            (Place::Path, b'?') => Place::Query,
            (Place::Start, _) => Place::Method,
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

impl<S: AsyncRead + Unpin> AsyncRead for LenientLine<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.head_comes.0.swap(false, Relaxed) {
            this.place = Place::Start;
        }
        let room = buf.remaining() / ESCAPE_BYTES;
        if this.place == Place::Behind || room == 0 {
            return this.poll_bytes(cx, buf);
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
            SENT.as_bytes().chunks(bytes).fold(Place::Start, |place, piece| let_in(place, piece, &mut out));
            assert_eq!(std::str::from_utf8(out.filled()).unwrap(), READ_AS, "{bytes}");
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
