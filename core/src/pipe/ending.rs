//! How a pipe ends: by its client, by its worker, by an operator, or because nothing else is left.

use super::{Action, EndedBy, Fact, Interruption, Loss, Pipe};
use crate::close::{CloseFrame, NO_CODE};
use crate::frame::Side;
use crate::ids::LaneName;
use crate::leg::{BackendLeg, ClientLeg, Leaving};
use crate::settings::OverflowPolicy;
use crate::time::Time;

impl Pipe {
    /// Ends the pipe: the client gets what is due to it and then this close frame, the worker 1001.
    pub fn close(&mut self, by: EndedBy, frame: CloseFrame, now: Time) {
        self.report_ended(by, &frame);
        self.close_client(frame, true, now);
        self.release_backend("going away", now);
        self.finish_if_over();
    }

    /// Ends the pipe because of what its client did: it is told at once, and nothing it says counts any more.
    pub(super) fn client_at_fault(&mut self, frame: CloseFrame, now: Time) {
        self.report_ended(EndedBy::Client, &frame);
        self.close_client(frame, false, now);
        self.up.deaf = true;
        self.release_backend("client at fault", now);
        self.finish_if_over();
    }

    /// More was sent during an outage than the replay buffer may hold.
    pub(super) fn overflow(&mut self, now: Time) {
        let frame = CloseFrame::new(1013, "replay buffer overflow");
        debug_assert_eq!(self.settings.overflow, OverflowPolicy::Close);
        self.give_up(frame, Loss::Overflow, now);
    }

    /// Ends the pipe without a worker: what waits for one is lost, and said to be.
    pub(super) fn give_up(&mut self, frame: CloseFrame, reason: Loss, now: Time) {
        self.report_ended(EndedBy::Holdline, &frame);
        self.settle_up(reason);
        self.farewell = None;
        self.drop_backend(Vec::new(), false);
        self.close_client(frame, true, now);
        self.finish_if_over();
    }

    /// Ends the pipe to free what it holds: what waits either way is given up, and the client is told 1013 at once.
    ///
    /// False if it is ending anyway; what waits is given up all the same.
    pub fn evict(&mut self, now: Time) -> bool {
        self.give_up_down(Loss::Evicted, now);
        if !self.client.is_open() {
            if matches!(self.backend, BackendLeg::Detached { .. } | BackendLeg::Dialing { .. }) {
                self.settle_up(Loss::Evicted);
                self.farewell = None;
                self.drop_backend(Vec::new(), false);
                self.finish_if_over();
            }
            return false;
        }
        let frame = CloseFrame::new(1013, "out of memory");
        self.report_ended(EndedBy::Holdline, &frame);
        self.settle_up(Loss::Evicted);
        let key = self.draw.key();
        let words = match self.backend.link() {
            Some(_) => self.to_backend.last_words(&CloseFrame::new(1001, "evicted"), &self.up.buffer, key),
            None => Vec::new(),
        };
        self.drop_backend(words, false);
        self.close_client(frame, false, now);
        self.finish_if_over();
        true
    }

    /// Forgets what waits for a worker, and says what became of it.
    pub(super) fn settle_up(&mut self, reason: Loss) {
        let in_doubt = self.up.buffer.in_doubt_messages();
        if in_doubt > 0 {
            self.in_doubt += in_doubt;
            self.report(Fact::LeftInDoubt { lane: LaneName::Up, messages: in_doubt });
        }
        let undelivered = self.up.buffer.clear();
        self.report_lost(LaneName::Up, reason, undelivered);
    }

    /// Forgets what waits for the client, but for a half-written message: a close frame inside it would be read as a part
    /// of it.
    pub(super) fn give_up_down(&mut self, reason: Loss, now: Time) {
        self.leave_down_in_doubt();
        let messages = self.down.buffer.drop_oldest_unsent(0);
        self.report_lost(LaneName::Down, reason, messages);
        let passed = self.down.buffer.sent();
        self.down.buffer.confirm(passed, now);
        self.stalled_since = None;
    }

    pub(super) fn report_ended(&mut self, by: EndedBy, frame: &CloseFrame) {
        if !self.ended {
            self.ended = true;
            self.report(Fact::Ended { by, code: frame.code, reason: frame.reason.clone() });
        }
    }

    /// Sends the client a close frame, behind what waits for it if `flush`.
    pub(super) fn close_client(&mut self, frame: CloseFrame, flush: bool, now: Time) {
        let said_close = match &self.client {
            // Nobody is there to be told.
            ClientLeg::Detached { .. } => return self.drop_client(),
            ClientLeg::Open => {
                self.discard_half_message(Side::Client);
                false
            }
            ClientLeg::SaidClose(_) => true,
            ClientLeg::Closing { .. } => {
                if !flush {
                    self.to_client.close(frame, false);
                }
                return;
            }
            ClientLeg::Gone => return,
        };
        self.discard_half_message(Side::Backend);
        self.to_client.close(frame, flush);
        self.client = ClientLeg::Closing { deadline: now + self.settings.close_timeout, said_close };
    }

    /// Whether the client's link is dropped as soon as it has taken what is due to it.
    #[must_use]
    pub const fn drops_client_next(&self) -> bool {
        matches!(self.client, ClientLeg::Closing { said_close: true, .. })
    }

    /// Our close frame has left for the client.
    pub(super) fn client_was_told(&mut self) {
        if let ClientLeg::Closing { said_close, .. } = self.client {
            if said_close {
                self.drop_client();
            } else if self.up.deaf {
                self.actions.push_back(Action::ShutdownClient);
            }
        }
        self.finish_if_over();
    }

    /// Lets the worker have what it is still owed, then 1001; without a worker, what waits for one is lost.
    pub(super) fn release_backend(&mut self, reason: &str, now: Time) {
        self.dismiss_next();
        match &self.backend {
            BackendLeg::Attached(link) | BackendLeg::Leaving { link, stage: Leaving::Settling, .. } => {
                let deadline = now + self.settings.close_timeout;
                let link = link.clone();
                self.to_backend.set_held(false);
                self.to_backend.close(CloseFrame::new(1001, reason), true);
                self.backend = BackendLeg::Closing { link, deadline };
            }
            BackendLeg::Leaving { stage: Leaving::Parting, .. }
            | BackendLeg::Detached { .. }
            | BackendLeg::Dialing { .. } => {
                self.settle_up(Loss::Closed);
                self.drop_backend(Vec::new(), false);
            }
            BackendLeg::Closing { .. } | BackendLeg::Gone => {}
        }
    }

    pub(super) fn client_said_close(&mut self, frame: CloseFrame, now: Time) {
        match &mut self.client {
            ClientLeg::Open => {}
            ClientLeg::Closing { said_close, .. } => {
                *said_close = true;
                if self.to_client.is_close_written() {
                    self.client_answered_close(now);
                    self.finish_if_over();
                }
                return;
            }
            ClientLeg::Detached { .. } | ClientLeg::SaidClose(_) | ClientLeg::Gone => return,
        }
        self.report_ended(EndedBy::Client, &frame);
        self.client = ClientLeg::SaidClose(frame.clone());
        match &self.backend {
            BackendLeg::Attached(link) | BackendLeg::Leaving { link, stage: Leaving::Settling, .. } => {
                let link = link.clone();
                self.dismiss_next();
                self.to_backend.set_held(link.hold_until.is_some());
                self.to_backend.close(frame, true);
                self.backend = BackendLeg::Closing { link, deadline: now + self.settings.farewell_grace() };
            }
            BackendLeg::Leaving { stage: Leaving::Parting, .. }
            | BackendLeg::Detached { .. }
            | BackendLeg::Dialing { .. } => {
                if self.up.buffer.unsent_messages() > 0 {
                    self.farewell = Some(Box::new(frame.clone()));
                } else {
                    self.drop_backend(Vec::new(), false);
                }
                self.answer_client_close(frame, now);
            }
            BackendLeg::Closing { .. } | BackendLeg::Gone => self.answer_client_close(frame, now),
        }
        self.finish_if_over();
    }

    /// Answers a client's close frame, behind what is due to it.
    pub(super) fn answer_client_close(&mut self, frame: CloseFrame, now: Time) {
        self.close_client(frame, true, now);
    }

    /// The worker ended the conversation: its code and reason are the client's.
    pub(super) fn backend_ended(&mut self, frame: CloseFrame, now: Time) {
        self.report_ended(EndedBy::Backend, &frame);
        let key = self.draw.key();
        let words = self.to_backend.last_words(&frame, &self.up.buffer, key);
        self.settle_up(Loss::Closed);
        self.drop_backend(words, false);
        if let Some(comeback) = &mut self.comeback {
            comeback.ending = Some(frame.clone());
        }
        if !self.client.is_detached() {
            self.close_client(frame, true, now);
        }
    }

    /// The worker answered our close frame, or crossed it with one of its own.
    pub(super) fn backend_answered_close(&mut self, frame: CloseFrame, now: Time) {
        if self.to_backend.is_close_written() {
            // Its answer stands behind everything that it read before our close frame.
            let sent = self.up.buffer.sent();
            self.up.buffer.confirm(sent, now);
        } else if self.settings.interrupt_codes.contains(frame.code) {
            // It goes for a reason of its own, before it was told that the client is gone.
            return self.lost_while_closing(Interruption::Close, Some(&frame), now);
        }
        let key = self.draw.key();
        let words = self.to_backend.last_words(&frame, &self.up.buffer, key);
        self.settle_up(Loss::Closed);
        self.farewell = None;
        self.drop_backend(words, false);
        if let ClientLeg::SaidClose(said) = &self.client {
            let answer = if frame.code == NO_CODE { said.clone() } else { frame };
            self.answer_client_close(answer, now);
        }
        self.finish_if_over();
    }
}
