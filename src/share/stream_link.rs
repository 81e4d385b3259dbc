//! What a shared stream's own pipe has in place of a client's socket.
//!
//! It takes what the worker says as fast as the quickest viewer does, and hands on what the viewers say. Dropped, it ends
//! the stream for all of them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use holdline_core::close::CloseFrame;
use holdline_core::frame::{self, Opcode, Side};
use holdline_core::shared::cutter::Cutter;
use holdline_core::time::Time;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::Hub;
use super::Streams;
use super::cut_off;
use super::hub::Turn;
use crate::events::{Events, Fact};
use crate::metrics::GaugeGuard;

/// The stream's end of the link between a worker's pipe and its viewers.
#[derive(Debug)]
pub struct StreamLink {
    hub: Arc<Hub>,
    streams: Arc<Streams>,
    events: Arc<Events>,
    cutter: Cutter,
    /// What the pipe has not read yet of the viewer's message, or the close frame, whose turn it is.
    current: Bytes,
    said_close: bool,
    ended: bool,
    /// Room for what one write brings, kept so that a write needs no allocation.
    messages: Vec<Bytes>,
    woken: Vec<Waker>,
    timer: Option<(Time, Pin<Box<Sleep>>)>,
    _counted: GaugeGuard,
}

impl StreamLink {
    /// The link of `hub`, which is one of `streams`, and is `counted` among the open ones and listed from here on.
    #[must_use]
    pub fn new(hub: Arc<Hub>, streams: Arc<Streams>, events: Arc<Events>, counted: GaugeGuard) -> Self {
        events.push(Fact::SharedOpened {
            pipe: hub.pipe.id,
            route: hub.pipe.route.name.as_str().into(),
            key: hub.pipe.key.as_deref().map(Into::into),
        });
        Self {
            hub,
            streams,
            events,
            cutter: Cutter::new(Side::Backend),
            current: Bytes::new(),
            said_close: false,
            ended: false,
            messages: Vec::new(),
            woken: Vec::new(),
            timer: None,
            _counted: counted,
        }
    }

    /// Bytes that the stream holds, for the books of its pipe.
    #[must_use]
    pub fn book(&self) -> usize {
        self.hub.book() + self.cutter.partial_bytes()
    }

    fn say_close(&mut self, frame: &CloseFrame) {
        self.said_close = true;
        let mut bytes = Vec::new();
        frame::encode(&mut bytes, Opcode::Close, &frame.payload(), Some([0; 4]));
        self.current = bytes.into();
    }

    fn end(&mut self, frame: CloseFrame) {
        self.ended = true;
        self.streams.remove(&self.hub);
        self.events.push(Fact::SharedClosed {
            pipe: self.hub.pipe.id,
            route: self.hub.pipe.route.name.as_str().into(),
            key: self.hub.pipe.key.as_deref().map(Into::into),
            viewers: self.hub.view().viewers,
            reused: self.hub.view().reused,
            code: frame.code,
        });
        self.hub.push(&mut self.messages, Some(frame), &mut self.woken);
    }

    /// Takes in whole messages, as many bytes of `slices` as there is `room` for; how many.
    fn write(&mut self, slices: &[IoSlice<'_>], room: usize) -> io::Result<usize> {
        let (taken, end) = cut_off(&mut self.cutter, slices, room, &mut self.messages)?;
        if let Some(frame) = end {
            if !self.said_close {
                self.say_close(&frame);
            }
            self.end(frame);
        } else if !self.messages.is_empty() {
            self.hub.push(&mut self.messages, None, &mut self.woken);
        }
        Ok(taken)
    }

    /// Whether the time that the link waits for has come.
    fn poll_timer(&mut self, at: Option<Time>, cx: &mut Context<'_>) -> bool {
        let Some(at) = at else {
            self.timer = None;
            return false;
        };
        let instant = self.hub.clock.instant(at);
        match &mut self.timer {
            Some((set, timer)) if *set == at => timer.as_mut().poll(cx).is_ready(),
            timer => {
                let (_, timer) = timer.insert((at, Box::pin(tokio::time::sleep_until(instant))));
                timer.as_mut().poll(cx).is_ready()
            }
        }
    }
}

impl AsyncRead for StreamLink {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let link = self.get_mut();
        let before = buf.remaining();
        while buf.remaining() > 0 {
            let len = link.current.len().min(buf.remaining());
            buf.put_slice(&link.current[..len]);
            link.current.advance(len);
            if !link.current.is_empty() || link.said_close {
                break;
            }
            if link.streams.is_draining() {
                link.hub.shed();
            }
            match link.hub.turn(cx.waker()) {
                Turn::Send(message) => link.current = message,
                Turn::Leave => {
                    link.streams.remove(&link.hub);
                    link.say_close(&CloseFrame::new(1001, "nobody is watching"));
                }
                Turn::Wait(_) if buf.remaining() < before => break,
                Turn::Wait(at) => {
                    if !link.poll_timer(at, cx) {
                        return Poll::Pending;
                    }
                }
            }
        }
        if buf.remaining() == before && link.said_close { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl AsyncWrite for StreamLink {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let link = self.get_mut();
        let room = link.hub.room_down(cx.waker());
        if room == 0 && link.cutter.partial_bytes() == 0 {
            return Poll::Pending;
        }
        let had_said_close = link.said_close;
        let written = link.write(slices, room);
        if link.said_close && !had_said_close {
            // Its answer can be read now, and nothing else says so.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for StreamLink {
    fn drop(&mut self) {
        if !self.ended {
            self.end(CloseFrame::new(1011, "shared stream broke off"));
        }
    }
}
