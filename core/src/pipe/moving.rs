//! A planned move of the backend leg: the worker is asked to go, and another takes over.
//!
//! What the client says is held from the first moment on, so that the order has a place where it is cut: everything
//! sent before belongs to the old worker, whose pong confirms it, and everything after to the new one. The old worker is
//! told 1001 then, and what it still has to say is relayed until it closes.
//!
//! Where the new worker comes first ([`Pipe::move_on`]), it is dialled meanwhile and its link waits beside the old one's. It was told
//! which message it will be sent first, and takes over only if that has stayed true; a dial that fails leaves the pipe
//! where it was, and so does a worker that answers and goes again before it has proven itself: by having been there for
//! `prove`, or by having said something. Where its answer to the beginning of the conversation is awaited, it hears that
//! beginning while it waits, so that it has something to say. Otherwise ([`Pipe::leave`]) it is looked for when the old one has gone.
//!
//! Invariant: nothing is read from a link that waits, nothing but that beginning is written to it, and every one that
//! waited is taken over or dropped.

use super::{Action, DialFailure, Fact, Interruption, Pipe, ResumeAnswer};
use crate::close::CloseFrame;
use crate::frame::{self, Kind, Opcode, Side};
use crate::ids::{Attachment, Seq};
use crate::leg::{BackendState, Cause, Next, Waiting};
use crate::suspects::Tried;
use crate::time::Time;

/// What a worker is told that is being left.
const FAREWELL: &str = "moving to another worker";

impl Pipe {
    /// Moves the pipe to another worker in good order, attaching that one before this one is left.
    ///
    /// If none can be attached within `move_timeout`, the pipe stays, and says so ([`Fact::Stayed`]).
    pub fn move_on(&mut self, cause: Cause, now: Time) {
        if self.stop_sending(cause, now) {
            self.dial_next();
        }
    }

    /// Moves the pipe to another worker in good order, leaving this one before another is looked for.
    ///
    /// A move under way that waits for the dial of another waits for it no longer.
    pub fn leave(&mut self, cause: Cause, now: Time) {
        if self.backend.next_is_dialled() {
            self.dismiss_next();
        } else if !self.stop_sending(cause, now) {
            return;
        }
        self.part_if_settled(now);
    }

    /// Holds back what the worker has not begun to get; false if there is none that could be left.
    fn stop_sending(&mut self, cause: Cause, now: Time) -> bool {
        let left = self.backend.leave(cause, now + self.settings.move_timeout);
        if let Some(link) = self.backend.link_mut().filter(|_| left) {
            link.codec.set_withheld(true);
        }
        left
    }

    /// Orders another dial for one that stayed behind in another process.
    pub(super) fn dial_next_again(&mut self) {
        if self.backend.next_is_dialled() {
            self.dial_next();
        }
    }

    /// Orders the dial of the worker that is to take over.
    fn dial_next(&mut self) {
        let Some((attachment, cause, previous)) = self.backend.dial_next(self.first_seq()) else { return };
        self.order_dial(attachment, Some(previous), cause, previous, None);
    }

    /// The dial of the worker that is to take over failed: the next candidate is tried, or else the pipe stays.
    pub(super) fn next_dial_failed(&mut self, failure: DialFailure) {
        let Next::Dial { .. } = self.backend.take_next() else { return };
        match failure.of_one() {
            Some((backend, tried)) => {
                self.suspects.tried(backend, tried);
                self.dial_next();
            }
            None => self.stay(),
        }
    }

    /// The worker that waited is gone: another is tried as long as the old one has not been told to go.
    pub(super) fn waiting_lost(&mut self) {
        let Next::Waiting(waiting) = self.backend.take_next() else { return };
        let attachment = waiting.attachment;
        self.actions.push_back(Action::DropBackend { attachment, last_words: Vec::new(), died: true });
        self.suspects.tried(waiting.backend, Tried::Failed);
        if self.backend.state() == BackendState::Settling {
            self.dial_next();
        }
    }

    /// The worker that waits has said something other than a close frame: it is there to stay.
    pub fn waiting_talked(&mut self, attachment: Attachment, now: Time) {
        if self.backend.has_waiting(attachment) {
            self.backend.prove(now);
            self.part_if_settled(now);
        }
    }

    /// Gives a move up before the old worker was told of it.
    fn stay(&mut self) {
        self.dismiss_next();
        let Some(worker) = self.backend.stay() else { return };
        let backend = worker.backend;
        self.withhold();
        self.suspects.new_round();
        self.report(Fact::Stayed { backend });
    }

    /// When a worker that is being left may be told so, if nothing but time is missing: it has confirmed everything it
    /// was sent, no exchange is under way that no other worker could end, and its successor, if one was to come first, is
    /// there and has proven itself.
    ///
    /// The pong of a server that reads ahead says nothing about its application, which could not answer any more once
    /// the server has answered our close frame.
    pub(super) fn parts_at(&self) -> Option<Time> {
        if self.backend.state() != BackendState::Settling {
            return None;
        }
        if self.backend.next_is_dialled() {
            return None;
        }
        if self.up.buffer.is_amid_message() || self.up.buffer.in_doubt_messages() > 0 {
            return None;
        }
        if self.has_exchange() {
            return None;
        }
        let settled_at = self.fed_at + self.settings.settle.min(self.settings.move_timeout);
        Some(self.backend.next_proven_at().map_or(settled_at, |proven_at| settled_at.max(proven_at)))
    }

    /// Says goodbye to a worker that is being left, once it has had its time with what it was sent.
    pub(super) fn part_if_settled(&mut self, now: Time) {
        if self.parts_at().is_none_or(|at| now < at) {
            return;
        }
        self.backend.part(now + self.settings.move_timeout);
        if let Some(link) = self.backend.link_mut() {
            link.codec.part(CloseFrame::new(1001, FAREWELL));
        }
    }

    /// The step of a move that is under way took longer than `move_timeout`.
    pub(super) fn move_took_too_long(&mut self, now: Time) {
        let Some(cause) = self.backend.leaves_for() else { return };
        let unproven = self.backend.next_proven_at().is_some_and(|at| now < at);
        if self.backend.next_is_dialled() || unproven {
            return self.stay();
        }
        let (reason, frame) = (Interruption::planned(cause), CloseFrame::new(1001, FAREWELL));
        let words = (self.backend.state() == BackendState::Settling).then_some(&frame);
        self.interrupt(reason, words, now);
    }

    /// Says the beginning of the conversation to a worker that is to wait, where its answer is awaited.
    pub(super) fn foretell(&mut self, attachment: Attachment, resume: Option<ResumeAnswer>) -> Vec<(Kind, Box<[u8]>)> {
        if matches!(resume, Some(ResumeAnswer::Ok(_))) {
            return Vec::new();
        }
        let foretold = self.foretold();
        let mut bytes = Vec::new();
        for (kind, payload) in &foretold {
            frame::encode(&mut bytes, kind.opcode(), payload, Some(self.draw.key()));
        }
        if !bytes.is_empty() {
            self.actions.push_back(Action::Foretell { attachment, bytes });
        }
        foretold
    }

    /// `next`, unless what it was told to expect, or of the conversation, is another thing now: then it is let go.
    pub(super) fn if_promise_holds(&mut self, next: Next, gap: Option<(Seq, Seq)>) -> Next {
        let first_seq = match &next {
            Next::Nothing => return next,
            Next::Dial { first_seq } => *first_seq,
            Next::Waiting(waiting) => waiting.first_seq,
        };
        let foretold_holds = match &next {
            Next::Waiting(waiting) => waiting.foretold.is_empty() || waiting.foretold == self.foretold(),
            Next::Nothing | Next::Dial { .. } => true,
        };
        if gap.is_none() && first_seq == self.up.buffer.sent().plus(1) && foretold_holds {
            return next;
        }
        self.dismiss(next);
        Next::Nothing
    }

    /// Goes on without the worker that is gone: with the one that waits, with the dial under way, or with a new dial.
    pub(super) fn go_on_with(&mut self, next: Next, now: Time) {
        match next {
            Next::Nothing => self.dial(),
            Next::Dial { .. } => self.backend.dial_goes_on(),
            Next::Waiting(waiting) => {
                let Waiting { attachment, backend, resume, foretold, numbers, .. } = *waiting;
                self.actions.push_back(Action::TakeOver(attachment));
                self.take_up(attachment, backend, resume, foretold.len() as u64, now);
                if numbers {
                    self.greet_worker(now);
                }
            }
        }
    }

    /// Whether the driver has not been told yet whose link is the pipe's now: it would write to the old one's.
    pub(super) fn is_switching(&self, side: Side) -> bool {
        side == Side::Backend && self.actions.iter().any(|action| matches!(action, Action::TakeOver(_)))
    }

    /// Lets go of the worker that would take over.
    pub(super) fn dismiss_next(&mut self) {
        let next = self.backend.take_next();
        self.dismiss(next);
    }

    pub(super) fn dismiss(&mut self, next: Next) {
        match next {
            Next::Nothing => {}
            Next::Dial { .. } => self.actions.push_back(Action::CancelDial(self.backend.last())),
            Next::Waiting(waiting) => {
                let (key, mut last_words) = (self.draw.key(), Vec::new());
                let payload = CloseFrame::new(1001, "not needed after all").payload();
                frame::encode(&mut last_words, Opcode::Close, &payload, Some(key));
                let attachment = waiting.attachment;
                self.actions.push_back(Action::DropBackend { attachment, last_words, died: false });
            }
        }
    }
}
