//! A client's socket whose request lines are read as leniently as nginx and HAProxy read them, and whose lines end as RFC
//! 9112 wants it.
//!
//! A query may hold `"`, `<` and `>` as they are: small devices and scripts send them so, and hyper would refuse the
//! request. They are escaped on the way in. hyper takes a bare LF for the end of a line, which another proxy may take for a
//! part of one, and so find another head in the same bytes; here it becomes a NUL, which no head may hold, and the request
//! is answered 400. Invariants: nothing else of a head is touched, and no byte of a body or of a WebSocket. One read brings
//! no more than the rest of one head, and what is behind it waits until [`Heads`] says how long the body is that hyper
//! found: the next head is judged from its first byte, wherever it was cut.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body_end::BodyEnd;

/// Bytes of a request line that are looked at in one read.
const PIECE_BYTES: usize = 2048;

/// Bytes that one byte becomes at most.
const ESCAPE_BYTES: usize = 3;

/// A socket on whose next read a head may begin.
#[derive(Debug)]
pub struct LenientLine<S> {
    stream: S,
    /// What was read of the stream before, and is to be read first.
    first: Bytes,
    place: Place,
    heads: Heads,
}

/// Tells the socket what follows the head that was read last.
#[derive(Clone, Debug)]
pub struct Heads(Arc<AtomicU64>);

/// Nothing is known of what follows.
const UNKNOWN: u64 = u64::MAX;

/// A body in chunks follows; any other number is the length of the body.
const CHUNKS: u64 = u64::MAX - 1;

impl Default for Heads {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(UNKNOWN)))
    }
}

impl Heads {
    /// A body of this length follows, or one in chunks, and then the next head. To be called for a request that is no
    /// upgrade, before anything is read behind its head: hyper reads a body before the first poll of its answer.
    pub fn follow_body(&self, length: Option<u64>) {
        self.0.store(length.unwrap_or(CHUNKS), Relaxed);
    }

    /// What was said, once.
    fn next_place(&self) -> Option<Place> {
        match self.0.swap(UNKNOWN, Relaxed) {
            UNKNOWN => None,
            0 => Some(START),
            CHUNKS => Some(Place::Body(BodyEnd::chunks())),
            length => Some(Place::Body(BodyEnd::after(length))),
        }
    }
}

/// Where in a request the next byte stands.
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
    /// Behind a head, and nothing is known of what is there.
    Behind,
    Body(BodyEnd),
}

/// What the line that the next byte belongs to holds so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Line {
    is_empty: bool,
    /// Whether the last byte was a CR, which is none of the line's text if an LF follows.
    after_cr: bool,
}

/// What a byte does to the line that it belongs to.
pub(super) enum Judged {
    GoesOn(Line),
    /// It ends an empty line, and with that the whole.
    Ends,
    /// It is an LF that no CR precedes.
    BareLf,
}

const START: Place = Place::Start { after_cr: false };

impl Line {
    pub(super) const BEGUN: Self = Self { is_empty: false, after_cr: false };
    pub(super) const FRESH: Self = Self { is_empty: true, after_cr: false };

    pub(super) const fn judge(self, byte: u8) -> Judged {
        match byte {
            b'\n' if !self.after_cr => Judged::BareLf,
            b'\n' if self.is_empty => Judged::Ends,
            b'\n' => Judged::GoesOn(Self::FRESH),
            b'\r' => Judged::GoesOn(Self { is_empty: self.is_empty && !self.after_cr, after_cr: true }),
            _ => Judged::GoesOn(Self::BEGUN),
        }
    }
}

/// What stands for a bare LF: no head may hold it.
pub(super) const NEVER: u8 = 0;

impl<S> LenientLine<S> {
    /// `stream`, of which `first` was read before; with that, a request line begins.
    pub const fn new(stream: S, first: Bytes, heads: Heads) -> Self {
        Self { stream, first, place: START, heads }
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

    /// Puts what was read too early before what comes next.
    fn keep(&mut self, early: &[u8]) {
        if !early.is_empty() {
            self.first = if self.first.is_empty() {
                Bytes::copy_from_slice(early)
            } else {
                [early, &self.first].concat().into()
            };
        }
    }
}

/// Appends `bytes` to `out` up to the end of the head, those of the query escaped that need it; where the request goes on,
/// and how many bytes were taken.
fn let_in(place: Place, bytes: &[u8], out: &mut ReadBuf<'_>) -> (Place, usize) {
    let mut place = place;
    for (at, &byte) in bytes.iter().enumerate() {
        place = match (place, byte) {
            (Place::Behind | Place::Head(_) | Place::Body(_), _) => {
                let before = out.filled().len();
                out.put_slice(&bytes[at..]);
                let (place, taken) = let_pass(place, &mut out.filled_mut()[before..]);
                out.set_filled(before + taken);
                return (place, at + taken);
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
    (place, bytes.len())
}

/// Looks at what is read as it is, up to the end of a head or of a body: where the request goes on, and how many bytes
/// are read now.
fn let_pass(place: Place, bytes: &mut [u8]) -> (Place, usize) {
    match place {
        Place::Head(line) => judge_lines(line, bytes),
        Place::Body(mut body) => {
            let taken = body.follow(bytes);
            (if body.is_over() { START } else { Place::Body(body) }, taken)
        }
        Place::Start { .. } | Place::Method | Place::Path | Place::Query | Place::Behind => (place, bytes.len()),
    }
}

/// Makes each bare LF of a head what no head may hold.
fn judge_lines(mut line: Line, bytes: &mut [u8]) -> (Place, usize) {
    for (at, byte) in bytes.iter_mut().enumerate() {
        line = match line.judge(*byte) {
            Judged::GoesOn(line) => line,
            Judged::Ends => return (Place::Behind, at + 1),
            Judged::BareLf => {
                *byte = NEVER;
                return (Place::Behind, bytes.len());
            }
        };
    }
    (Place::Head(line), bytes.len())
}

impl<S: AsyncRead + Unpin> AsyncRead for LenientLine<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(place) = this.heads.next_place() {
            this.place = place;
        }
        if matches!(this.place, Place::Head(_) | Place::Behind | Place::Body(_)) {
            let before = buf.filled().len();
            ready!(this.poll_bytes(cx, buf))?;
            let read = &mut buf.filled_mut()[before..];
            let (place, taken) = let_pass(this.place, read);
            this.keep(&read[taken..]);
            this.place = place;
            buf.set_filled(before + taken);
            return Poll::Ready(Ok(()));
        }
        let mut piece = [0; PIECE_BYTES];
        // The one byte that is read ahead of a head is none of its query.
        let room = (buf.remaining() / ESCAPE_BYTES).max(1).min(buf.remaining());
        let mut piece = ReadBuf::new(&mut piece[..room.min(PIECE_BYTES)]);
        ready!(this.poll_bytes(cx, &mut piece))?;
        let (place, taken) = let_in(this.place, piece.filled(), buf);
        this.keep(&piece.filled()[taken..]);
        this.place = place;
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

    /// What is read of `sent` when it comes in such pieces, all of it up to the end of the head and behind it.
    fn read_as(sent: &str, piece: usize) -> Vec<u8> {
        let mut space = [0xff; 1000];
        let (mut out, mut place) = (ReadBuf::new(&mut space), START);
        for mut bytes in sent.as_bytes().chunks(piece) {
            while !bytes.is_empty() {
                let (next, taken) = let_in(place, bytes, &mut out);
                (place, bytes) = (next, &bytes[taken..]);
            }
        }
        out.filled().to_vec()
    }

    #[test]
    fn only_the_query_of_a_request_line_is_escaped_however_it_is_cut() {
        for bytes in [1, 2, 3, 7, 1000] {
            assert_eq!(String::from_utf8(read_as(SENT, bytes)).unwrap(), READ_AS, "{bytes}");
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
                let head = read_as(sent, bytes);
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
        let mut line = LenientLine::new(ours, before.into(), Heads::default());
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
        let heads = Heads::default();
        let mut line = LenientLine::new(ours, Bytes::new(), heads.clone());
        for (told, read_as) in [(false, READ_AS), (false, SENT), (true, READ_AS), (false, SENT)] {
            if told {
                heads.follow_body(Some(0));
            }
            peer.write_all(SENT.as_bytes()).await.unwrap();
            let mut heard = vec![0; read_as.len()];
            line.read_exact(&mut heard).await.unwrap();
            assert_eq!(String::from_utf8(heard).unwrap(), read_as);
        }
    }

    /// Reads heads of `sent` one after the other, each with its body; what was read of all, and of the last one alone.
    async fn read_all(sent: &str, piece: usize, bodies: &[Option<u64>]) -> Vec<Vec<u8>> {
        let (mut peer, ours) = tokio::io::duplex(piece);
        let heads = Heads::default();
        let mut line = LenientLine::new(ours, Bytes::new(), heads.clone());
        let sent = sent.to_owned();
        tokio::spawn(async move { peer.write_all(sent.as_bytes()).await });
        let mut reads = Vec::new();
        for &body in bodies {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && !head.contains(&NEVER) && line.read_buf(&mut head).await.unwrap() > 0
            {
            }
            reads.push(head);
            heads.follow_body(body);
            let mut rest = vec![0; body.unwrap_or(0) as usize];
            line.read_exact(&mut rest).await.unwrap();
        }
        reads
    }

    #[tokio::test]
    async fn each_head_is_read_by_itself_and_judged_wherever_it_stands() {
        let get = "GET /?<> HTTP/1.1\r\nHost: a\r\n\r\n";
        let read = get.replace("<>", "%3C%3E").into_bytes();
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n";
        let bad = "GET / HTTP/1.1\nHost: a\r\n\r\n";
        for piece in [1, 2, 3, 7, 1000] {
            let reads = read_all(&format!("{post}\n\n\n\n{get}{get}"), piece, &[Some(4), Some(0), Some(0)]).await;
            assert_eq!(reads, [post.as_bytes(), &read, &read], "{piece}");
            for before in [format!("{post}\n\n\n\n"), get.to_owned()] {
                let body = if before.len() > post.len() { 4 } else { 0 };
                let reads = read_all(&format!("{before}{bad}"), piece, &[Some(body), Some(0)]).await;
                assert!(reads[1].contains(&NEVER), "{piece}: {:?}", reads[1].escape_ascii().to_string());
            }
        }
    }
}
