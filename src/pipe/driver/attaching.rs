//! How a pipe finds a worker, and how it moves to another on purpose.

use std::task::Context;

use holdline_core::ids::{Attachment, BackendKey};
use holdline_core::pipe::{Cause, DialFailure, DialOrder, Fact, LinkLoss, Peer, PipeState};
use holdline_core::settings::MoveOrder;
use holdline_core::time::Time;
use tokio::time::Instant;

use super::Driver;
use crate::backends::{Ask, Hold};
use crate::metrics::labels::MoveResult;
use crate::pipe::attach::{Attach, Wanted, next_attach};
use crate::pipe::backend_end::{Transport, Word};
use crate::pipe::holding::{hold, release};
use crate::pipe::search::Wished;
use crate::pipes::Command;

impl Driver {
    pub(super) fn set_backend(&mut self, attachment: Attachment, transport: Transport, now: Time) {
        let key = transport.key();
        self.entry().set_backend(Some((key, transport.id().clone())));
        if let Some(leave) = transport.must_leave() {
            self.entry().order(Command::Leave(key, leave));
        }
        self.backend.attach(attachment, transport, now);
    }

    pub(super) fn dial(&mut self, order: DialOrder, now: Time) {
        self.search.watch(&self.process.backends, &self.plan.route.pool);
        if self.backend.is_linked() {
            // A move that attaches the next worker first: nothing is interrupted yet, but the search begins here.
            self.books.report.trace_search(self.plan.trace.as_deref(), order.cause.as_str());
        }
        let attachment = order.attachment;
        let wanted = Wanted {
            order,
            exclude: self.pipe.excluded(now),
            previous: self.backend.last().map(|(_, id)| id.clone()),
            grace_ends: self.pipe.grace_left(now).map(|left| std::time::Instant::now() + left),
        };
        let search = self.books.report.search();
        let (plan, entry, process) = (self.plan.clone(), self.entry().clone(), self.process.clone());
        let dial = next_attach(plan, wanted, search, entry, process);
        self.search.dial(attachment, Box::pin(dial));
    }

    /// Goes on with what is under way beside the messages: a dial, a wish to leave, a worker that waits.
    pub(super) fn look_for_worker(&mut self, cx: &mut Context<'_>, now: Time) {
        if self.search.poll_pool(&self.process.backends, cx) {
            self.pipe.pool_changed(now);
        }
        match self.search.poll_wish(&self.process.backends, cx) {
            Some(Wished::Leave(backend, cause)) if self.pipe.state() == PipeState::Attached => {
                self.leave_if_possible(backend, cause, now);
            }
            Some(Wished::Nothing) => release(&self.process, self.entry()),
            Some(Wished::Leave(..)) | None => {}
        }
        if let Some((attachment, result)) = self.search.poll_dial(cx) {
            self.dialed(attachment, result, now.max(self.process.clock.now()));
        }
        match self.backend.poll_next_word(cx) {
            Some((attachment, Word::Gone(loss))) => self.pipe.lost(Peer::Backend(attachment), loss, now),
            Some((attachment, Word::Talks)) => self.pipe.waiting_talked(attachment, now),
            None => {}
        }
    }

    fn dialed(&mut self, attachment: Attachment, result: Result<Attach, DialFailure>, now: Time) {
        let mut attach = match result {
            Ok(attach) => attach,
            Err(failure) => return self.pipe.dial_failed(attachment, failure, now),
        };
        release(&self.process, self.entry());
        if !self.pipe.attached(attachment, attach.transport.key(), attach.resume, now) {
            return;
        }
        self.heed_labels(attach.labels.take());
        if attach.numbers {
            self.pipe.worker_numbers(attachment, self.plan.pipe, now);
        }
        if self.backend.is_linked() {
            self.backend.hold(attachment, attach.transport, now);
        } else {
            self.search.unwatch();
            self.set_backend(attachment, attach.transport, now);
        }
    }

    /// Leaves the worker if there is another to go to; else the pipe stays until the pool changes.
    fn leave_if_possible(&mut self, backend: BackendKey, cause: Cause, now: Time) {
        let mut exclude = self.pipe.excluded(now);
        exclude.push(backend);
        let (backends, pool) = (&self.process.backends, &self.plan.route.pool);
        self.search.watch(backends, pool);
        if !self.may_move() {
            return hold(&self.process, self.entry(), Hold::Stateful, None);
        }
        let ask = Ask {
            key: self.plan.key_to_ask(backends),
            exclude: &exclude,
            pipe: Some(self.plan.pipe),
            ..Ask::default()
        };
        match backends.choose(pool, &ask) {
            // One that rests is for those that have nowhere else to be.
            Ok(next) if !backends.is_eligible(next.key()) => {
                return hold(&self.process, self.entry(), Hold::NotEligible, None);
            }
            Ok(_) => {}
            Err(none) => {
                let retry = none.retry_at.map(|at| at.saturating_duration_since(Instant::now()));
                return hold(&self.process, self.entry(), none.hold(), retry);
            }
        }
        match backends.move_order(pool) {
            MoveOrder::AttachFirst => self.pipe.move_on(cause, now),
            MoveOrder::LeaveFirst => self.pipe.leave(cause, now),
        }
    }

    /// The worker that waited is the pipe's from now on.
    pub(super) fn take_over(&mut self, attachment: Attachment, now: Time) {
        let Some((transport, whole)) = self.backend.take_next(attachment) else { return };
        self.search.set_between_workers(false);
        self.books.report.moved(MoveResult::Moved);
        self.search.unwatch();
        self.set_backend(attachment, transport, now);
        if !whole {
            // It cannot go on in the middle of what it was told: it is lost like any other that takes nothing.
            self.backend.broke(LinkLoss::Reset);
        }
    }

    /// Drops a worker, if it is linked or waits to be.
    pub(super) fn drop_backend(
        &mut self,
        attachment: Attachment,
        last_words: &[u8],
        died: bool,
        cx: &mut Context<'_>,
        now: Time,
    ) {
        let Some(link) = self.backend.drop_link(attachment, last_words, cx) else { return };
        if died {
            link.died(self.plan.pipe, now);
        }
        self.search.unwish();
        self.entry().set_backend(None);
    }

    /// Counts what became of a move, and tries again after one that came to nothing.
    pub(super) fn note_move(&mut self, fact: &Fact, now: Time) {
        match fact {
            Fact::Stayed { .. } => self.search.wish_later(&self.plan.route.settings, &self.process.backends, now),
            Fact::Interrupted { reason, .. } => {
                self.search.set_between_workers(reason.cause().is_planned());
            }
            Fact::Reattached { .. } => {
                if self.search.set_between_workers(false) {
                    self.books.report.moved(MoveResult::Left);
                }
            }
            Fact::LeftInDoubt { .. }
            | Fact::ClientDetached { .. }
            | Fact::ClientAttached { .. }
            | Fact::ClientExpired { .. }
            | Fact::Replayed { .. }
            | Fact::Lost { .. }
            | Fact::Dropped { .. }
            | Fact::Repeated { .. }
            | Fact::Gap { .. }
            | Fact::Overflowed(_)
            | Fact::ReadPaused(_)
            | Fact::Expired { .. }
            | Fact::PongsMissing(_)
            | Fact::Limited { .. }
            | Fact::Unmasked
            | Fact::Conversation { .. }
            | Fact::PrologueSent { .. }
            | Fact::PrologueSwallowed
            | Fact::PrologueFailed(_)
            | Fact::Ended { .. } => {}
        }
    }
}
