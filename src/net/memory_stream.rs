//! A connection that never leaves the process: for a client whose bytes come and go by requests of their own.
//!
//! Each of its two ways holds what was written and not read yet, up to a bound, and no memory while that is nothing.
//! Invariant: bytes are read in the order in which they were written, each once; an end that is dropped has closed both
//! ways.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One end.
#[derive(Debug)]
pub struct MemoryStream {
    reads: Arc<Way>,
    writes: Arc<Way>,
}

/// One of the two ways.
#[derive(Debug)]
struct Way {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: BytesMut,
    /// Bytes that were ever read.
    read: u64,
    /// Bytes that the reader keeps of what it has read.
    kept: usize,
    /// The reader reads nothing just now.
    unattended: bool,
    closed: bool,
    /// It was closed by an end that went without a word.
    cut: bool,
    /// Who reads.
    reader: Option<Waker>,
    /// Who waits for bytes to be read, or for the end.
    watchers: Vec<Waker>,
}

impl Way {
    fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, state: Mutex::default() })
    }

    /// A lock whose holder panicked still guards whole bytes.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.wake_all();
    }

    /// Closes it, unless that was done before.
    fn cut(&self) {
        let mut state = self.state();
        state.cut |= !state.closed;
        state.closed = true;
        state.wake_all();
    }
}

impl State {
    fn wake_all(&mut self) {
        self.reader.take().into_iter().chain(self.watchers.drain(..)).for_each(Waker::wake);
    }

    fn watch(&mut self, cx: &Context<'_>) {
        if !self.watchers.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.watchers.push(cx.waker().clone());
        }
    }

    /// So many bytes were taken out.
    fn have_read(&mut self, bytes: usize) {
        self.read += bytes as u64;
        if self.queue.is_empty() {
            self.queue = BytesMut::new();
        }
        self.watchers.drain(..).for_each(Waker::wake);
    }

    fn push(&mut self, bytes: &[u8]) {
        self.queue.extend_from_slice(bytes);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl MemoryStream {
    /// Both ends of a connection that holds up to `bytes_max` each way.
    #[must_use]
    pub fn pair(bytes_max: usize) -> (Self, Self) {
        let (one, other) = (Way::new(bytes_max), Way::new(bytes_max));
        (Self { reads: one.clone(), writes: other.clone() }, Self { reads: other, writes: one })
    }

    /// Writes all of `bytes`, whatever is held already, and says how many were ever written.
    pub fn write_now(&self, bytes: &[u8]) -> u64 {
        let mut state = self.writes.state();
        if !state.closed {
            state.push(bytes);
        }
        state.read + state.queue.len() as u64
    }

    /// Notes how many bytes this end keeps of what it has read.
    pub fn keep(&self, bytes: usize) {
        self.reads.state().kept = bytes;
    }

    /// Notes whether this end is read just now, or stands there until it is again.
    pub fn set_attended(&self, attended: bool) {
        self.reads.state().unattended = !attended;
    }

    /// Whether the other end is read just now, as far as it has said.
    #[must_use]
    pub fn is_attended(&self) -> bool {
        !self.writes.state().unattended
    }

    /// Bytes that are held for this end: those on their way in either direction, and those that the other end keeps.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let coming = self.reads.state().queue.len();
        let going = self.writes.state();
        coming + going.queue.len() + going.kept
    }

    /// Whether there is room to write; the task is woken when there is.
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.writes.state();
        if state.closed || state.queue.len() < self.writes.bytes_max {
            return Poll::Ready(());
        }
        state.watch(cx);
        Poll::Pending
    }

    /// Whether the other end has read the first `written` bytes; false if it never will.
    pub fn poll_was_read(&self, written: u64, cx: &Context<'_>) -> Poll<bool> {
        let mut state = self.writes.state();
        if state.read >= written {
            return Poll::Ready(true);
        }
        if state.closed {
            return Poll::Ready(false);
        }
        state.watch(cx);
        Poll::Pending
    }

    /// How many bytes the other end has ever read, once that is more than `known`; nothing if it reads no more.
    pub fn poll_progress(&self, known: u64, cx: &Context<'_>) -> Poll<Option<u64>> {
        let mut state = self.writes.state();
        if state.read > known {
            return Poll::Ready(Some(state.read));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        state.watch(cx);
        Poll::Pending
    }

    /// How many bytes can be taken now, once there are any; none at the end.
    pub fn poll_waiting(&self, cx: &Context<'_>) -> Poll<usize> {
        let mut state = self.reads.state();
        if state.queue.is_empty() && !state.closed {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(state.queue.len())
    }

    /// Reads up to `bytes_max` of what waits, without a copy.
    pub fn take_waiting(&self, bytes_max: usize) -> Bytes {
        let mut state = self.reads.state();
        let bytes = bytes_max.min(state.queue.len());
        let taken = state.queue.split_to(bytes).freeze();
        state.have_read(bytes);
        taken
    }

    /// Says that nothing follows.
    pub fn end(&self) {
        self.writes.close();
    }

    /// Whether the other end has gone without saying that nothing follows.
    #[must_use]
    pub fn was_cut(&self) -> bool {
        self.reads.state().cut
    }

    /// A watch on whether the other end has closed its side or is gone, beside what is read and without reading.
    #[must_use]
    pub fn watch(&self) -> MemoryWatch {
        MemoryWatch(self.reads.clone())
    }
}

/// Hears that the other end says nothing more, whatever there still is to be read.
#[derive(Debug)]
pub struct MemoryWatch(Arc<Way>);

impl MemoryWatch {
    /// Whether that is so; the task is woken when it is.
    pub fn poll(&self, cx: &Context<'_>) -> bool {
        let mut state = self.0.state();
        if !state.closed {
            state.watch(cx);
        }
        state.closed
    }
}

impl AsyncRead for MemoryStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.reads.state();
        if state.queue.is_empty() {
            if state.closed {
                return Poll::Ready(Ok(()));
            }
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let bytes = state.queue.len().min(buf.remaining());
        buf.put_slice(&state.queue[..bytes]);
        state.queue.advance(bytes);
        state.have_read(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MemoryStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.writes.state();
        if state.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut room = self.writes.bytes_max.saturating_sub(state.queue.len());
        if room == 0 {
            state.watch(cx);
            return Poll::Pending;
        }
        let mut written = 0;
        for slice in slices {
            let bytes = slice.len().min(room);
            state.push(&slice[..bytes]);
            (written, room) = (written + bytes, room - bytes);
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writes.close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        self.writes.cut();
        self.reads.close();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read_once_and_in_order() {
        let (mut one, mut other) = MemoryStream::pair(8);
        one.write_all(b"ab").await.unwrap();
        one.write_all(b"cd").await.unwrap();
        one.shutdown().await.unwrap();
        let mut all = String::new();
        other.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "abcd");
    }

    #[tokio::test]
    async fn a_full_way_waits_until_it_is_read() {
        let (mut one, mut other) = MemoryStream::pair(4);
        let (written, read) = tokio::join!(one.write_all(b"more than four"), async {
            let mut all = [0; 14];
            other.read_exact(&mut all).await.map(|_| all)
        });
        written.unwrap();
        assert_eq!(&read.unwrap(), b"more than four");
    }

    #[tokio::test]
    async fn the_writer_hears_how_much_was_read_and_that_no_more_will_be() {
        let (one, mut other) = MemoryStream::pair(4);
        let first = one.write_now(b"ab");
        let second = one.write_now(b"cdefg");
        let cx = Context::from_waker(Waker::noop());
        assert!(one.poll_was_read(first, &cx).is_pending() && one.poll_room(&cx).is_pending());
        let mut three = [0; 3];
        other.read_exact(&mut three).await.unwrap();
        assert_eq!(one.poll_was_read(first, &cx), Poll::Ready(true));
        assert!(one.poll_was_read(second, &cx).is_pending() && !one.watch().poll(&cx));
        drop(other);
        assert!(!poll_fn(|cx| one.poll_was_read(second, cx)).await);
        assert!(one.watch().poll(&cx));
    }

    #[tokio::test]
    async fn what_is_taken_counts_as_read_and_a_cut_is_no_end() {
        let (one, mut other) = MemoryStream::pair(8);
        let cx = Context::from_waker(Waker::noop());
        assert!(one.poll_waiting(&cx).is_pending());
        other.write_all(b"abcdef").await.unwrap();
        assert_eq!(one.poll_waiting(&cx), Poll::Ready(6));
        assert_eq!(&one.take_waiting(4)[..], b"abcd");
        one.write_now(b"12345");
        assert!(one.poll_progress(0, &cx).is_pending());
        let mut three = [0; 3];
        other.read_exact(&mut three).await.unwrap();
        assert_eq!(one.poll_progress(0, &cx), Poll::Ready(Some(3)));
        assert!(one.poll_progress(3, &cx).is_pending());
        drop(other);
        assert_eq!((one.poll_waiting(&cx), one.poll_progress(3, &cx)), (Poll::Ready(2), Poll::Ready(None)));
        assert_eq!((&one.take_waiting(9)[..], one.poll_waiting(&cx)), (&b"ef"[..], Poll::Ready(0)));
        assert!(one.was_cut());
        let (one, mut other) = MemoryStream::pair(8);
        other.shutdown().await.unwrap();
        drop(other);
        assert!(!one.was_cut());
    }
}
