//! A pipe that is to leave its worker: when it tries, and the worker that waits to take over.
//!
//! A wish to leave takes its place in the pool's row, so that many pipes do not move at once, and is kept until the
//! worker is gone: while there is nowhere to go it waits for the pool to change, and after a move that failed it is tried again, ever less
//! often. A wish that an operator has taken back (a backend made ready again) is dropped when its turn comes.

use std::future::Future;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use holdline_core::backoff::{self, Draw};
use holdline_core::close::CloseFrame;
use holdline_core::ids::{Attachment, BackendKey};
use holdline_core::pipe::{Cause, EndedBy, Fact, LinkLoss, Peer, PipeState};
use holdline_core::settings::{BackendLoss, MoveOrder};
use holdline_core::time::Time;
use tokio::io::ReadBuf;
use tokio::time::{Instant, Sleep};

use super::Driver;
use crate::backends::{Ask, Hold, Leave, LeaveCause, LeaveHow};
use crate::metrics::labels::MoveResult;
use crate::pipe::attach::Attach;
use crate::pipe::backend_link::BackendLink;
use crate::pipe::holding::{hold, release};

/// The bits of a frame's first byte that say what it is (RFC 6455 section 5.2), and those of a close frame.
const OPCODE: u8 = 0x0F;
const CLOSE: u8 = 0x08;

/// A wish to leave the worker.
pub(super) struct Wish {
    backend: BackendKey,
    cause: Cause,
    /// Whether the backend's state is the reason, and may have changed since.
    ordered: bool,
    /// Moves that came to nothing.
    failures: u32,
    /// When it is tried; nothing while the pool has to change first.
    timer: Option<Pin<Box<Sleep>>>,
}

/// A worker that has answered and waits until the old one has gone.
pub(super) struct Held {
    attachment: Attachment,
    attach: Attach,
    /// It has said something, so that its end can no longer be seen without reading it.
    talked: bool,
}

impl Held {
    pub(super) fn new(attachment: Attachment, attach: Attach) -> Self {
        Self { attachment, attach, talked: false }
    }

    /// Looks at what has come without taking it: how the link ended, if it did before it said a message.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<LinkLoss> {
        let mut first = self.attach.leftover.first().copied();
        if first.is_none() {
            let stream = match &self.attach.stream {
                BackendLink::Worker(stream) => stream,
                // A stream's end is told to its viewers; none of them moves to it.
                BackendLink::Stream(_) => return Poll::Pending,
            };
            let mut space = [0];
            let mut buffer = ReadBuf::new(&mut space);
            match stream.tcp().poll_peek(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(LinkLoss::Eof),
                Poll::Ready(Err(_)) => return Poll::Ready(LinkLoss::Reset),
                Poll::Ready(Ok(_)) => first = stream.is_plain().then_some(space[0]),
            }
        }
        self.talked = true;
        if first.is_some_and(|byte| byte & OPCODE == CLOSE) { Poll::Ready(LinkLoss::Eof) } else { Poll::Pending }
    }
}

impl Driver {
    /// Whether the conversation can be carried on by another worker.
    pub(super) fn may_move(&self) -> bool {
        self.plan.settings.on_backend_loss == BackendLoss::Reattach
    }

    /// Leaves the worker in the way that its operator wishes. A conversation that no other worker can carry on stays until
    /// the deadline, and ends then.
    pub(super) fn leave(&mut self, key: BackendKey, leave: Leave, now: Time) {
        if self.backend.as_ref().is_none_or(|backend| backend.reservation.key() != key) {
            return;
        }
        // Whether the backend's state says so too, and may be changed back.
        let (cause, ordered) = match leave.cause {
            LeaveCause::Drain | LeaveCause::Maint | LeaveCause::Removed | LeaveCause::LeaseExpired => {
                (Cause::Drain, true)
            }
            LeaveCause::Rebalance => (Cause::Admin, false),
        };
        match leave.how {
            LeaveHow::Reattach if ordered || self.may_move() => self.wish_to_leave(key, cause, ordered),
            LeaveHow::Reattach => {}
            LeaveHow::Detach if self.may_move() => self.pipe.leave(cause, now),
            LeaveHow::Detach => self.close_for_operator(1012, now),
            LeaveHow::Close => self.close_for_operator(1001, now),
        }
    }

    fn close_for_operator(&mut self, code: u16, now: Time) {
        self.pipe.close(EndedBy::Operator, CloseFrame::new(code, "backend is going away"), now);
    }

    pub(super) fn wish_to_leave(&mut self, backend: BackendKey, cause: Cause, ordered: bool) {
        let timer = Some(self.sleep_until_slot(backend, Duration::ZERO));
        self.wish = Some(Box::new(Wish { backend, cause, ordered, failures: 0, timer }));
    }

    fn sleep_until_slot(&self, backend: BackendKey, delay: Duration) -> Pin<Box<Sleep>> {
        Box::pin(tokio::time::sleep_until(self.shared.backends.move_slot(backend) + delay))
    }

    /// The pool has changed: a wish that waits for that has another turn.
    pub(super) fn wish_again(&mut self) {
        let Some(backend) = self.wish.as_ref().filter(|wish| wish.timer.is_none()).map(|wish| wish.backend) else {
            return;
        };
        let timer = self.sleep_until_slot(backend, Duration::ZERO);
        if let Some(wish) = &mut self.wish {
            wish.timer = Some(timer);
        }
    }

    pub(super) fn poll_wish(&mut self, cx: &mut Context<'_>, now: Time) {
        let Some(wish) = &mut self.wish else { return };
        let Some(timer) = &mut wish.timer else { return };
        if timer.as_mut().poll(cx).is_pending() {
            return;
        }
        wish.timer = None;
        let (backend, cause, ordered) = (wish.backend, wish.cause, wish.ordered);
        if ordered && self.shared.backends.must_leave(backend).is_none() {
            self.wish = None;
            release(&self.shared, self.entry());
        } else if self.pipe.state() == PipeState::Attached {
            self.leave_if_possible(backend, cause, now);
        }
    }

    /// Leaves the worker if there is another to go to; else the pipe stays until the pool changes.
    fn leave_if_possible(&mut self, backend: BackendKey, cause: Cause, now: Time) {
        let mut exclude = self.pipe.excluded(now);
        exclude.push(backend);
        self.watch_pool();
        if !self.may_move() {
            return hold(&self.shared, self.entry(), Hold::Stateful, None);
        }
        let pool = &self.plan.route.pool;
        let ask = Ask { key: self.plan.key.as_deref(), exclude: &exclude, avoid: None, pipe: Some(self.plan.pipe) };
        match self.shared.backends.choose(pool, &ask) {
            // One that rests is for those that have nowhere else to be.
            Ok(next) if !self.shared.backends.is_eligible(next.key()) => {
                return hold(&self.shared, self.entry(), Hold::NotEligible, None);
            }
            Ok(_) => {}
            Err(none) => {
                let retry = none.retry_at.map(|at| at.saturating_duration_since(Instant::now()));
                return hold(&self.shared, self.entry(), none.hold(), retry);
            }
        }
        match self.shared.backends.move_order(pool) {
            MoveOrder::AttachFirst => self.pipe.move_on(cause, now),
            MoveOrder::LeaveFirst => self.pipe.leave(cause, now),
        }
    }

    /// Counts what became of a move, and tries again after one that came to nothing.
    pub(super) fn note_move(&mut self, fact: &Fact, now: Time) {
        match fact {
            Fact::Stayed { .. } => self.wish_later(now),
            Fact::Interrupted { reason, .. } => self.between_workers = reason.cause().is_planned(),
            Fact::Reattached { .. } if std::mem::take(&mut self.between_workers) => {
                self.reporter.moved(MoveResult::Left);
            }
            Fact::Reattached { .. }
            | Fact::LeftInDoubt { .. }
            | Fact::ClientDetached { .. }
            | Fact::ClientAttached { .. }
            | Fact::ClientExpired { .. }
            | Fact::Replayed { .. }
            | Fact::Lost { .. }
            | Fact::Dropped { .. }
            | Fact::Overflowed(_)
            | Fact::ReadPaused(_)
            | Fact::Expired { .. }
            | Fact::PongsMissing(_)
            | Fact::Limited { .. }
            | Fact::Ended { .. } => {}
        }
    }

    fn wish_later(&mut self, now: Time) {
        let Some(wish) = &mut self.wish else { return };
        wish.failures += 1;
        let settings = &self.plan.route.settings;
        let mut draw = Draw::new(now.as_micros() ^ rand::random::<u64>());
        let delay = backoff::wait(wish.failures, settings.backoff_min, settings.backoff_max, &mut draw);
        let backend = wish.backend;
        let timer = self.sleep_until_slot(backend, delay);
        if let Some(wish) = &mut self.wish {
            wish.timer = Some(timer);
        }
    }

    /// Notices the end of a worker that waits, as far as that can be seen without reading what it says.
    pub(super) fn poll_held(&mut self, cx: &mut Context<'_>, now: Time) {
        let Some(held) = self.held.as_mut().filter(|held| !held.talked) else { return };
        if let Poll::Ready(loss) = held.poll_end(cx) {
            let attachment = held.attachment;
            self.pipe.lost(Peer::Backend(attachment), loss, now);
        }
    }

    /// The worker that waited is the pipe's from now on.
    pub(super) fn take_over(&mut self, attachment: Attachment, now: Time) {
        let Some(held) = self.held.take_if(|held| held.attachment == attachment) else { return };
        self.between_workers = false;
        self.reporter.moved(MoveResult::Moved);
        self.waiting = None;
        self.set_backend(attachment, held.attach, now);
        self.take_first_bytes(now);
    }

    /// Drops the worker that waits, if it is this one. One that has died served nothing: that does not count against it.
    pub(super) fn let_go(&mut self, attachment: Attachment, last_words: &[u8], died: bool, cx: &mut Context<'_>) {
        let Some(mut held) = self.held.take_if(|held| held.attachment == attachment) else { return };
        if !died {
            // It is being dropped: what it does not take at once it does not get.
            let _ = held.attach.stream.poll_write_vectored(cx, &[IoSlice::new(last_words)]);
        }
    }
}
