//! A live transport, and what was read of it before it came here: behind the head of its handshake, for one.
//!
//! Invariant: those bytes are what the first reads bring, and none of them is brought twice.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

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
}
