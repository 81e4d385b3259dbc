//! A live transport, and what was read of it before it came here: behind the head of its handshake, for one.
//!
//! Invariant: those bytes are what the first reads bring, and none of them is brought twice.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

/// Bytes that are read at most to see what comes next.
const READ_AHEAD_BYTES: usize = 64;

/// A transport and its unread bytes.
#[derive(Debug)]
pub struct Link<S> {
    stream: S,
    /// Boxed, because few links have any, and those not for long.
    unread: Option<Box<Bytes>>,
}

impl<S> Link<S> {
    /// The link of `stream`, of which `unread` has been read already.
    pub fn new(stream: S, unread: Bytes) -> Self {
        Self { stream, unread: (!unread.is_empty()).then(|| Box::new(unread)) }
    }

    /// The transport.
    pub const fn stream(&self) -> &S {
        &self.stream
    }

    /// The transport, to write to.
    pub const fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// What the next read brings, if that was read before.
    pub fn unread(&self) -> &[u8] {
        self.unread.as_deref().map_or(&[], |unread| unread)
    }
}

impl<S: AsyncRead + Unpin> Link<S> {
    /// The byte that the next read begins with, which is read ahead for that; nothing at the end.
    pub fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<u8>>> {
        if self.unread.is_none() {
            let mut space = [0; READ_AHEAD_BYTES];
            let mut ahead = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut ahead))?;
            if !ahead.filled().is_empty() {
                self.unread = Some(Box::new(Bytes::copy_from_slice(ahead.filled())));
            }
        }
        Poll::Ready(Ok(self.unread().first().copied()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Link<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let link = self.get_mut();
        let Some(unread) = &mut link.unread else { return Pin::new(&mut link.stream).poll_read(cx, buf) };
        buf.put_slice(&unread.split_to(unread.len().min(buf.remaining())));
        if unread.is_empty() {
            link.unread = None;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn what_was_read_before_comes_first_and_once() {
        let mut link = Link::new(&b"behind"[..], Bytes::from_static(b"before"));
        assert_eq!(link.unread(), b"before");
        let mut four = [0; 4];
        link.read_exact(&mut four).await.unwrap();
        assert_eq!((&four, link.unread()), (b"befo", &b"re"[..]));
        let mut rest = String::new();
        link.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&*rest, link.unread()), ("rebehind", &b""[..]));
    }

    #[tokio::test]
    async fn what_was_looked_at_is_read_all_the_same() {
        let mut link = Link::new(&b"ahead and behind"[..], Bytes::new());
        for _ in 0..2 {
            assert_eq!(poll_fn(|cx| link.poll_first(cx)).await.unwrap(), Some(b'a'));
        }
        let mut all = String::new();
        link.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "ahead and behind");
        assert_eq!(poll_fn(|cx| link.poll_first(cx)).await.unwrap(), None);
    }
}
