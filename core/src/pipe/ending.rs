//! How a pipe ends: by its client, by its worker, by an operator, or because nothing else is left.

use super::{Action, End, EndedBy, Fact, Interruption, Loss, Pipe};
use crate::close::{CloseFrame, NO_CODE};
use crate::frame::Side;
use crate::ids::LaneName;
use crate::leg::{BackendState, ClientState, Left};
use crate::settings::OverflowPolicy;
use crate::time::Time;

impl Pipe {
    /// Ends the pipe: the client gets what is due to it and then this close frame, the worker 1001.
    pub fn close(&mut self, by: EndedBy, frame: CloseFrame, now: Time) {
        self.report_ended(by, &frame);
        if by == EndedBy::Operator && matches!(frame.code, 1001 | 1012) {
            self.say_goaway("shutdown");
        }
        self.close_client(frame, true, now);
        self.release_backend("going away", now);
        self.finish_if_over();
    }

    /// Ends the pipe because of what its client did: it is told at once, and what it says counts no more, but for the pongs
    /// of one that has said goodbye.
    pub(super) fn client_at_fault(&mut self, frame: CloseFrame, now: Time) {
        self.report_ended(EndedBy::Client, &frame);
        self.close_client(frame, false, now);
        self.client.stop_hearing();
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
        self.end_backend(reason, None);
        self.close_client(frame, true, now);
        self.finish_if_over();
    }

    /// Ends the pipe to free what it holds: what waits either way is given up, and the client is told 1013 at once. If the
    /// pipe is ending anyway, a client that numbers its messages is told what is missing, and then of that end.
    ///
    /// Whether the pipe ends for this; what waits is given up all the same.
    pub fn evict(&mut self, now: Time) -> bool {
        let given_up = self.give_up_down(Loss::Evicted, now);
        let frame = CloseFrame::new(1013, "out of memory");
        if self.client.is_open() {
            self.report_ended(EndedBy::Holdline, &frame);
            self.end_backend(Loss::Evicted, Some(&CloseFrame::new(1001, "evicted")));
            self.close_client(frame, false, now);
            self.finish_if_over();
            return true;
        }
        let changed = match self.client.state() {
            ClientState::SaidClose => {
                // What its worker says from now on would reach it with a hole before.
                self.close_client(frame, false, now);
                false
            }
            // One that numbers its messages is told what is missing, and one that said goodbye listens no more.
            ClientState::Closing if given_up > 0 && !self.is_aware() && !self.client.closes_last() => {
                self.change_end(&frame)
            }
            ClientState::Closing | ClientState::Open | ClientState::Detached | ClientState::Gone => false,
        };
        if matches!(self.backend.state(), BackendState::Detached | BackendState::Dialing) {
            self.end_backend(Loss::Evicted, None);
            self.finish_if_over();
        }
        changed
    }

    /// Tells the client `frame` in the place of an end that waits behind messages which were given up: it could not see
    /// that they are missing. Where that end is on its way already, it is not awaited for it any more.
    ///
    /// Whether the pipe ends in another way than was reported.
    fn change_end(&mut self, frame: &CloseFrame) -> bool {
        let changed = self.client.link_mut().is_some_and(|link| link.codec.close(frame.clone(), false));
        self.client.change_ending(changed.then_some(frame));
        if changed {
            self.report(Fact::Ended { by: EndedBy::Holdline, code: frame.code, reason: frame.reason.clone() });
        }
        changed
    }

    /// Ends the backend leg: what waited for a worker is lost for `reason`, and said to be; its link is dropped, with
    /// `words` if it takes a close frame at once, or its dial cancelled.
    pub(super) fn end_backend(&mut self, reason: Loss, words: Option<&CloseFrame>) {
        // Before what is half written is forgotten: a close frame inside it would be read as a part of it.
        let last_words = words.map(|frame| self.last_words_to_worker(frame)).unwrap_or_default();
        self.settle_up(reason);
        self.farewell = None;
        self.dismiss_next();
        match self.backend.end() {
            Left::Link(attachment) => {
                self.actions.push_back(Action::DropBackend { attachment, last_words, died: false });
            }
            Left::Dial(attachment) => self.actions.push_back(Action::CancelDial(attachment)),
            Left::Nothing => {}
        }
        self.down.buffer.discard_partial();
    }

    /// Forgets what waits for a worker, and says what became of it.
    fn settle_up(&mut self, reason: Loss) {
        let in_doubt = self.up.buffer.in_doubt_messages();
        if in_doubt > 0 {
            self.up.in_doubt += in_doubt;
            self.report(Fact::LeftInDoubt { lane: LaneName::Up, messages: in_doubt });
        }
        let undelivered = self.up.buffer.clear();
        self.report_lost(LaneName::Up, reason, undelivered);
    }

    /// Forgets what waits for the client, but for a half-written message: a close frame inside it would be read as a part
    /// of it. How many messages it was.
    pub(super) fn give_up_down(&mut self, reason: Loss, now: Time) -> u64 {
        let in_doubt = self.leave_down_in_doubt();
        let messages = self.down.buffer.drop_oldest_unsent(0);
        self.report_lost(LaneName::Down, reason, messages);
        self.down.confirm_sent(now);
        self.client.set_stalled(None);
        in_doubt + messages
    }

    pub(super) fn report_ended(&mut self, by: EndedBy, frame: &CloseFrame) {
        if self.end == End::NotYet {
            self.end = End::Reported;
            self.report(Fact::Ended { by, code: frame.code, reason: frame.reason.clone() });
        }
    }

    /// Sends the client a close frame, behind what waits for it if `flush`.
    pub(super) fn close_client(&mut self, frame: CloseFrame, flush: bool, now: Time) {
        match self.client.state() {
            // There is no link to say it on.
            ClientState::Detached => return self.drop_client(),
            ClientState::Gone => return,
            ClientState::Closing => {
                if let Some(link) = self.client.link_mut().filter(|_| !flush) {
                    link.codec.close(frame, false);
                }
                return;
            }
            ClientState::Open => self.discard_half_message(Side::Client),
            ClientState::SaidClose => {}
        }
        self.discard_half_message(Side::Backend);
        if self.is_aware() {
            self.acknowledge();
        }
        if let Some(link) = self.client.link_mut() {
            link.codec.close(frame, flush);
        }
        self.client.close(now + self.settings.close_timeout);
    }

    /// Whether the client's link is dropped as soon as it has taken what is due to it.
    #[must_use]
    pub const fn drops_client_next(&self) -> bool {
        self.client.closes_last()
    }

    /// Our close frame has left for the client.
    pub(super) fn client_was_told(&mut self) {
        if self.client.closes_last() {
            self.drop_client();
        } else if self.client.is_deaf() {
            self.actions.push_back(Action::ShutdownClient);
        }
        self.finish_if_over();
    }

    /// Lets the worker have what it is still owed, then 1001; without a worker, what waits for one is lost.
    pub(super) fn release_backend(&mut self, reason: &str, now: Time) {
        self.dismiss_next();
        match self.backend.state() {
            BackendState::Attached | BackendState::Settling => {
                if let Some(link) = self.backend.link_mut() {
                    link.codec.set_withheld(false);
                    link.codec.close(CloseFrame::new(1001, reason), true);
                }
                self.backend.close(now + self.settings.close_timeout);
            }
            BackendState::Parting(_) | BackendState::Detached | BackendState::Dialing => {
                self.end_backend(Loss::Closed, None);
            }
            BackendState::Closing | BackendState::Gone => {}
        }
    }

    pub(super) fn client_said_close(&mut self, frame: CloseFrame, now: Time) {
        if self.client_navigates(&frame, now) {
            return;
        }
        if !self.client.say_close(&frame) {
            if self.client.closes_last() && self.client.link().is_some_and(|link| link.codec.is_close_written()) {
                self.client_answered_close(now);
                self.finish_if_over();
            }
            return;
        }
        self.report_ended(EndedBy::Client, &frame);
        match self.backend.state() {
            BackendState::Attached | BackendState::Settling => {
                self.dismiss_next();
                if let Some(worker) = self.backend.worker_mut() {
                    worker.link.codec.set_withheld(worker.delayed_until.is_some());
                    worker.link.codec.close(frame, true);
                }
                self.backend.close(now + self.settings.farewell_grace());
            }
            BackendState::Parting(_) | BackendState::Detached | BackendState::Dialing => {
                if self.up.buffer.unsent_messages() > 0 {
                    self.farewell = Some(Box::new(frame.clone()));
                } else {
                    self.end_backend(Loss::Closed, None);
                }
                self.answer_client_close(frame, now);
            }
            BackendState::Closing | BackendState::Gone => self.answer_client_close(frame, now),
        }
        self.finish_if_over();
    }

    /// A close frame to leave on the worker's link, if it has one.
    fn last_words_to_worker(&mut self, frame: &CloseFrame) -> Vec<u8> {
        let key = self.draw.key();
        self.backend.link().map(|link| link.codec.last_words(frame, &self.up.buffer, key)).unwrap_or_default()
    }

    /// Answers a client's close frame, behind what is due to it.
    pub(super) fn answer_client_close(&mut self, frame: CloseFrame, now: Time) {
        self.close_client(frame, true, now);
    }

    /// The worker ended the conversation: its code and reason are the client's.
    pub(super) fn backend_ended(&mut self, frame: CloseFrame, now: Time) {
        self.report_ended(EndedBy::Backend, &frame);
        self.end_backend(Loss::Closed, Some(&frame));
        self.tell_ending(frame, now);
    }

    /// The worker answered our close frame, or crossed it with one of its own.
    pub(super) fn backend_answered_close(&mut self, frame: CloseFrame, now: Time) {
        let numbers = self.has_numbered_worker();
        let told = self.backend.link().is_some_and(|link| link.codec.is_close_written());
        if !told && (numbers || self.settings.interrupt_codes.contains(frame.code)) {
            // It goes for a reason of its own, before it was told that the client is gone.
            return self.lost_while_closing(Interruption::Close, Some(&frame), now);
        }
        if told && !numbers {
            // Its answer stands behind everything that it read before our close frame. One that numbers its messages says
            // what it has, and may have closed before it read ours.
            self.up.confirm_sent(now);
            self.owe_confirmed(now);
        }
        self.end_closing(frame, now);
    }

    /// Nothing more comes of the worker that the pipe ends with, which has closed with `frame`.
    pub(super) fn end_closing(&mut self, frame: CloseFrame, now: Time) {
        self.end_backend(Loss::Closed, Some(&frame));
        if let Some(said) = self.client.said_close() {
            let answer = if frame.code == NO_CODE { said.clone() } else { frame };
            self.answer_client_close(answer, now);
        }
        self.finish_if_over();
    }
}
