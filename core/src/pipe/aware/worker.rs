//! The aware protocol on the backend leg: a worker that numbers its messages is greeted, says what it has in its state, and
//! acknowledges what it has taken into it.
//!
//! To such a worker the pipe is what an aware client is to us: it says hello, keeps what is not acknowledged, and goes on
//! from where the worker says that it stands. No ping asks it anything.
//!
//! ```text
//!   greeted -- welcome --> talking     nothing of the conversation is there: what is gone is said as a gap
//!      |   --- resumed --> talking     all up to a number is there: what follows is sent
//!      +-- reject, or nothing in time: another worker
//! ```
//!
//! Invariant: the numbers of workers' messages never go back within a pipe, whichever workers it has; and the number of a
//! client's message is its place in the lane up.

use super::super::{Fact, Interruption, Pipe};
use super::{Owed, PART};
use crate::aware::words::GapWhy;
use crate::aware::{Answer, Heard, Said, Standing, codes};
use crate::close::CloseFrame;
use crate::frame::Side;
use crate::ids::{Attachment, LaneName, PipeId, Seq};
use crate::leg::barrier::Level;
use crate::leg::{Aware, BackendState, Codec};
use crate::snapshot::{Read, Reader, SnapshotError, Writer};
use crate::suspects::Tried;
use crate::time::{Time, earliest};

/// What a pipe needs to speak the protocol with its workers.
#[derive(Debug)]
pub(crate) struct NumberedWorkers {
    id: PipeId,
    /// The last number of a worker's message that was received.
    rx: u64,
    /// Until when an answer to our hello is waited for.
    answer_ends: Option<Time>,
    owed: Owed,
}

impl Pipe {
    /// The worker that has just answered the dial of `attachment` speaks the aware protocol: it is told which pipe this is.
    pub fn worker_numbers(&mut self, attachment: Attachment, id: PipeId, now: Time) {
        self.numbered
            .get_or_insert_with(|| Box::new(NumberedWorkers { id, rx: 0, answer_ends: None, owed: Owed::default() }));
        if self.backend.has_waiting(attachment) {
            self.backend.waiting_numbers();
        } else if self.backend.is_current(attachment) {
            self.greet_worker(now);
        }
    }

    /// Says hello to the worker that has just been attached.
    pub(in crate::pipe) fn greet_worker(&mut self, now: Time) {
        let (window_bytes, patience) = (self.settings.aware.window_bytes, self.settings.aware.hello_timeout);
        let tx = [self.up.buffer.sent().0 + 1, self.up.buffer.accepted().0 + 1];
        let (Some(worker), Some(numbered)) = (self.backend.worker_mut(), self.numbered.as_deref_mut()) else { return };
        worker.link.codec = Codec::aware(Side::Backend, window_bytes);
        worker.link.barrier = None;
        worker.link.codec.set_withheld(worker.delayed_until.is_some());
        if let Some(frame) = &self.farewell {
            worker.link.codec.close(CloseFrame::clone(frame), true);
        }
        (numbered.answer_ends, numbered.owed) = (Some(now + patience), Owed::default());
        let resume = (worker.attachment != Attachment::FIRST).then_some(Standing { rx: numbered.rx, tx });
        if let Some(link) = worker.link.codec.aware_mut() {
            link.writer.say(&Said::Hello { id: numbered.id, resume });
        }
    }

    /// The worker's link's own part of the protocol, with the pipe's.
    fn numbered_link(&mut self) -> Option<(&mut Aware, &mut NumberedWorkers)> {
        let link = self.backend.link_mut()?.codec.aware_mut()?;
        Some((link, self.numbered.as_deref_mut()?))
    }

    /// Whether the worker on the link speaks the aware protocol.
    pub(in crate::pipe) fn has_numbered_worker(&self) -> bool {
        self.backend.link().is_some_and(|link| link.codec.is_aware())
    }

    /// Whether the worker has answered our hello.
    pub(super) fn is_worker_greeted(&self) -> bool {
        self.numbered.as_ref().is_some_and(|numbered| numbered.answer_ends.is_none())
    }

    /// The last number of a worker's message that was received.
    pub(super) fn last_number_down(&self) -> u64 {
        self.numbered.as_ref().map_or(0, |numbered| numbered.rx)
    }

    /// The worker broke the protocol, and is left for another.
    pub(super) fn worker_broke_protocol(&mut self, reason: &str, now: Time) {
        self.discard_half_message(Side::Backend);
        if self.backend.state() == BackendState::Closing {
            self.lost_while_closing(Interruption::Protocol, None, now);
            return self.finish_if_over();
        }
        let frame = CloseFrame::new(codes::PROTOCOL, reason);
        self.interrupt(Interruption::Protocol, Some(&frame), now);
    }

    /// A message of the worker came whole, with the number that was due.
    pub(super) fn received_down(&mut self, bytes: usize, now: Time) {
        if let Some(numbered) = &mut self.numbered {
            numbered.rx += 1;
        }
        self.owe_worker(bytes, now);
    }

    /// Takes in a control word of the worker.
    pub(super) fn heard_worker_word(&mut self, text: &[u8], now: Time) {
        if let Some(link) = self.backend.link_mut() {
            link.began = None;
        }
        let answer = match Answer::read(text) {
            Ok(answer) => answer,
            Err(malformed) => return self.worker_broke_protocol(malformed.0, now),
        };
        let greeted = self.is_worker_greeted();
        match answer {
            Answer::Welcome if !greeted => self.worker_answered(None, now),
            Answer::Resumed { rx } if !greeted => self.worker_answered(Some(rx), now),
            Answer::Reject if !greeted => self.worker_rejected(now),
            Answer::Welcome | Answer::Resumed { .. } | Answer::Reject => {
                self.worker_broke_protocol("greeting twice", now);
            }
            _ if !greeted => self.worker_broke_protocol("welcome expected", now),
            // When it goes, another takes over; it is drained where that is to come first.
            Answer::Goaway | Answer::Word(Heard::Hello(_) | Heard::OtherVersion) => {}
            Answer::Word(Heard::Ack { n }) => self.worker_acknowledged(n, now),
            Answer::Word(Heard::Gap { from, count, why }) => self.worker_gave_up(from, count, why, now),
            Answer::Word(Heard::Fin { frame, n }) => self.worker_ended(frame, n, now),
            Answer::Word(Heard::Beat { n }) => self.worker_beat(n),
        }
    }

    /// The worker does not want the pipe: the others come first, and it is asked again in another round.
    fn worker_rejected(&mut self, now: Time) {
        let Some(backend) = self.backend.worker().map(|worker| worker.backend) else { return };
        self.interrupt(Interruption::WrongWorker, Some(&CloseFrame::new(1000, "")), now);
        self.suspects.tried(backend, Tried::Failed);
    }

    /// The worker has everything up to `rx` in its state, or nothing of this conversation.
    fn worker_answered(&mut self, rx: Option<u64>, now: Time) {
        let has = Seq(rx.unwrap_or(0));
        if has > self.up.buffer.sent_ever() {
            return self.worker_broke_protocol("it has what was never sent", now);
        }
        if rx.is_some() {
            self.up.buffer.fast_forward(has, now);
        }
        let Some((link, numbered)) = self.numbered_link() else { return };
        numbered.answer_ends = None;
        // What is gone between that and what is sent first is said as a gap.
        link.writer.greet(has.0, None);
        if rx.is_some() {
            self.confirm_up(has, Level::App, now);
        }
        let (again, first) = (self.up.buffer.again_messages(), self.up.buffer.sent().plus(1));
        if let Some(worker) = self.backend.worker_mut() {
            worker.first_again = (again > 0).then_some(first);
        }
    }

    /// The worker's application has everything up to `n`.
    fn worker_acknowledged(&mut self, n: u64, now: Time) {
        if Seq(n) > self.up.buffer.sent() {
            return self.worker_broke_protocol("it has what was never sent", now);
        }
        self.confirm_up(Seq(n), Level::App, now);
    }

    /// The worker says that messages of its own will never come.
    fn worker_gave_up(&mut self, from: u64, count: Option<u64>, why: GapWhy, now: Time) {
        if !self.keeps(Side::Backend) {
            // Once the end is on its way no number counts, and none is missing.
            return;
        }
        let before = self.down.buffer.accepted().0 + 1;
        let Some(numbered) = &mut self.numbered else { return };
        let rx = match count {
            Some(count) => from + count - 1,
            None => from - 1,
        };
        if rx <= numbered.rx {
            return;
        }
        if from > numbered.rx + 1 && count.is_some() {
            return self.worker_broke_protocol("number skipped without a gap", now);
        }
        let missing = rx - numbered.rx;
        numbered.rx = rx;
        self.owe_worker(0, now);
        if self.is_aware() {
            // Its messages have other numbers there, of which none is missing.
            return self.tell_gap(LaneName::Down, before, None, why);
        }
        self.report(Fact::Gap { lane: LaneName::Down, why, messages: Some(missing) });
    }

    /// The worker ends the conversation in good order.
    fn worker_ended(&mut self, frame: CloseFrame, n: u64, now: Time) {
        if self.keeps(Side::Backend) && n != self.last_number_down() {
            return self.worker_broke_protocol("fin with another number", now);
        }
        self.discard_half_message(Side::Backend);
        match self.backend.state() {
            BackendState::Attached | BackendState::Settling => {
                self.settle_if_outlived(now);
                self.backend_ended(frame, now);
            }
            BackendState::Closing => self.end_closing(frame, now),
            BackendState::Parting(_) | BackendState::Detached | BackendState::Dialing | BackendState::Gone => {
                self.backend_said_close(frame, now);
            }
        }
        self.finish_if_over();
    }

    fn worker_beat(&mut self, n: u64) {
        let Some(link) = self.backend.link_mut() else { return };
        let Some(aware) = link.codec.aware_mut() else { return };
        if aware.writer.asked(n) {
            link.answered(false);
        } else {
            aware.writer.say_if_room(&Said::Beat { n });
        }
    }

    /// The last of the worker's messages that the client certainly has. Those that others have put in between are taken for
    /// the last ones that it has not.
    fn delivered_number(&self) -> u64 {
        let (confirmed, accepted) = (self.down.buffer.confirmed().0, self.down.buffer.accepted().0);
        let rx = self.last_number_down();
        confirmed.saturating_sub(accepted.saturating_sub(rx)).min(rx)
    }

    pub(super) fn owe_worker(&mut self, bytes: usize, now: Time) {
        let settings = self.settings.clone();
        let Some(numbered) = &mut self.numbered else { return };
        if numbered.owed.owe(bytes, &settings.aware, now) {
            self.acknowledge_worker();
        }
    }

    /// Notes that the client may have confirmed more.
    pub(in crate::pipe) fn owe_delivered(&mut self, now: Time) {
        let delivered = self.delivered_number();
        if let Some(numbered) = &mut self.numbered
            && delivered > numbered.owed.d_said
        {
            numbered.owed.since.get_or_insert(now);
        }
    }

    fn acknowledge_worker(&mut self) {
        let d = self.delivered_number();
        let Some((link, numbered)) = self.numbered_link() else { return };
        let n = numbered.rx;
        if numbered.owed.since.take().is_some() {
            numbered.owed = Owed { n_said: n, d_said: d, ..Owed::default() };
            link.writer.ack(n, d);
        }
    }

    /// When the worker is to be told something, or has to have answered.
    pub(in crate::pipe) fn numbered_due_at(&self) -> Option<Time> {
        let numbered = self.numbered.as_deref().filter(|_| self.has_numbered_worker())?;
        let ack = numbered.owed.since.filter(|_| numbered.answer_ends.is_none());
        earliest(numbered.answer_ends, ack.map(|since| since + self.settings.aware.ack_delay))
    }

    /// Does what is due for the worker.
    pub(in crate::pipe) fn numbered_is_due(&mut self, now: Time) {
        if self.numbered.as_ref().and_then(|numbered| numbered.answer_ends).is_some_and(|at| now >= at) {
            let frame = CloseFrame::new(codes::PROTOCOL, "no answer to hello in time");
            return self.interrupt(Interruption::Unanswered, Some(&frame), now);
        }
        self.acknowledge_worker();
    }

    /// The worker's link is gone: the hello to the next one says what has come.
    pub(in crate::pipe) fn numbered_worker_gone(&mut self) {
        if let Some(numbered) = &mut self.numbered {
            (numbered.answer_ends, numbered.owed) = (None, Owed::default());
        }
    }
}

impl NumberedWorkers {
    pub const fn memory_bytes(&self) -> usize {
        size_of_val(self)
    }

    pub fn freeze(&self, out: &mut Writer) {
        let Self { id, rx, answer_ends, owed } = self;
        out.raw(&id.to_bytes());
        out.count(*rx);
        out.option(*answer_ends, Writer::time);
        owed.freeze(out);
    }

    pub fn thaw(input: &mut Reader<'_>) -> Read<Self> {
        let id = PipeId::from_bytes(input.raw(16)?.try_into().map_err(|_| SnapshotError::Malformed(PART))?);
        Ok(Self { id, rx: input.count()?, answer_ends: input.option(Reader::time)?, owed: Owed::thaw(input)? })
    }
}
