//! Bytes in: messages into the lane, control frames to whom they concern.

use super::{Fact, Input, Interruption, Lane, Loss, Peer, Pipe};
use crate::assembler::{Control, Message, MessageLimits, Refused, Step};
use crate::close::CloseFrame;
use crate::frame::{Opcode, Side};
use crate::ids::{LaneName, Seq};
use crate::leg::ClientLeg;
use crate::settings::{DownPolicy, OverflowPolicy, ReplayPolicy};
use crate::time::Time;

/// The first byte of a commit pong's payload (PROTOCOL section 6).
const COMMIT_MARK: u8 = b'A';

impl Pipe {
    /// Takes in bytes that `from` sent. Bytes of an attach that is no longer current change nothing.
    pub fn receive(&mut self, from: Peer, input: Input<'_>, now: Time) {
        if !self.hears(from) {
            return;
        }
        match from {
            Peer::Client(_) => self.client_heard(now),
            Peer::Backend(_) => {
                self.backend_beat.heard();
                self.barrier.heard(now);
            }
        }
        let side = from.side();
        let before = self.lane(side).buffer.accepted();
        self.take_in(from, input, now);
        match from {
            Peer::Client(_) => self.after_up(now),
            Peer::Backend(_) => self.after_down(now),
        }
        let messages = self.lane(side).buffer.accepted().0 - before.0;
        self.book(side, messages, input.as_slice().len(), now);
    }

    /// Whether what `from` says still counts.
    fn hears(&self, from: Peer) -> bool {
        match from {
            Peer::Client(generation) => self.is_current_client(generation) && !self.up.deaf,
            Peer::Backend(attachment) => self.backend.is_current(attachment) && !self.down.deaf,
        }
    }

    fn take_in(&mut self, from: Peer, input: Input<'_>, now: Time) {
        let side = from.side();
        let limits =
            MessageLimits { bytes_max: self.settings.message_bytes_max, fragments_max: self.settings.fragments_max };
        let bytes = input.as_slice();
        let mut keep = self.keeps(side);
        let (mut run, mut at) = (0, 0);
        loop {
            at += self.take_whole(side, &bytes[at..], limits, keep);
            if at == bytes.len() {
                break;
            }
            let step = match self.lane(side).assembler.step(&bytes[at..], limits) {
                Ok(step) => step,
                Err(refused) => {
                    self.push(side, input, run..at, keep);
                    return self.refuse(side, refused, now);
                }
            };
            match step {
                Step::Data { len, ended } => {
                    at += len;
                    if let Some(message) = ended {
                        self.accept(side, message, keep);
                    }
                }
                Step::Header { header, header_len, len, ended } => {
                    at += len;
                    run = at;
                    if keep {
                        self.lane(side).buffer.push_copy(&header[..header_len]);
                    }
                    if let Some(message) = ended {
                        self.accept(side, message, keep);
                    }
                }
                Step::Control { control, len } => {
                    self.push(side, input, run..at, keep);
                    at += len;
                    run = at;
                    let lane = self.lane(side);
                    if !lane.assembler.inside_message() {
                        lane.began = None;
                    }
                    self.control(side, &control, now);
                    if !self.hears(from) {
                        return;
                    }
                    keep = self.keeps(side);
                }
                Step::Starved => {
                    self.push(side, input, run..at, keep);
                    at = bytes.len();
                    run = at;
                }
            }
        }
        self.push(side, input, run..at, keep);
        let lane = self.lane(side);
        lane.began = if lane.assembler.is_unfinished() { lane.began.or(Some(now)) } else { None };
    }

    /// The lane that `side` sends into.
    pub(super) const fn lane(&mut self, side: Side) -> &mut Lane {
        match side {
            Side::Client => &mut self.up,
            Side::Backend => &mut self.down,
        }
    }

    /// Whether messages from `side` are passed on.
    pub(super) const fn keeps(&self, side: Side) -> bool {
        match side {
            Side::Client => self.client.is_open(),
            Side::Backend => match self.client {
                ClientLeg::Open | ClientLeg::Detached { .. } | ClientLeg::SaidClose(_) => true,
                ClientLeg::Closing { .. } | ClientLeg::Gone => false,
            },
        }
    }

    fn push(&mut self, side: Side, input: Input<'_>, range: std::ops::Range<usize>, keep: bool) {
        if !keep || range.is_empty() {
            return;
        }
        let buffer = &mut self.lane(side).buffer;
        match input {
            Input::Copy(bytes) => buffer.push_copy(&bytes[range]),
            Input::Share(bytes) => buffer.push_shared(bytes.slice(range)),
            Input::Borrow(bytes) => buffer.push_borrowed(bytes.slice(range)),
        }
    }

    /// Takes in the messages that are whole at the start of `bytes`; the bytes they took.
    fn take_whole(&mut self, side: Side, bytes: &[u8], limits: MessageLimits, keep: bool) -> usize {
        let Lane { assembler, buffer, began, payload_bytes, .. } = self.lane(side);
        let taken = assembler.whole_messages(bytes, limits, |message| {
            if keep {
                *payload_bytes += u64::from(message.payload_bytes);
                buffer.accept(message);
            }
        });
        if taken > 0 {
            *began = None;
            if keep && side == Side::Backend {
                self.worker_talked();
            }
        }
        taken
    }

    fn accept(&mut self, side: Side, message: Message, keep: bool) {
        let lane = self.lane(side);
        lane.began = None;
        if !keep {
            return;
        }
        lane.payload_bytes += u64::from(message.payload_bytes);
        lane.buffer.accept(message);
        if side == Side::Backend {
            self.worker_talked();
        }
    }

    /// What follows from new messages of the client.
    fn after_up(&mut self, now: Time) {
        // A worker that is being left is there all the same: the client is paused then, and loses nothing.
        if self.backend.link().is_some() || !self.client.is_open() {
            return;
        }
        if self.settings.replay == ReplayPolicy::None {
            return self.drop_waiting(now);
        }
        let held = self.up.buffer.held_bytes() + self.up.assembler.open_payload_bytes();
        if self.settings.overflow == OverflowPolicy::Close && held > self.settings.replay_bytes_max {
            self.report(Fact::Overflowed(OverflowPolicy::Close));
            self.overflow(now);
        }
    }

    /// Gives up what waits for a worker, where nothing is kept over an outage.
    pub(super) fn drop_waiting(&mut self, now: Time) {
        let messages = self.up.buffer.drop_oldest_unsent(0);
        // What was passed over is lost, not in doubt.
        let passed = self.up.buffer.sent();
        self.up.buffer.confirm(passed, now);
        self.report_lost(LaneName::Up, Loss::Policy, messages);
    }

    /// Notes that `messages` of the current worker went by before this pipe could take them: they were held where a
    /// pipe that is too slow holds up nobody else ([`crate::shared`]).
    pub fn passed_over(&mut self, messages: u64, now: Time) {
        match self.settings.down {
            DownPolicy::Latest(_) => self.dropped_down(messages),
            DownPolicy::Keep => {
                self.report_lost(LaneName::Down, Loss::PeerGone, messages);
                self.client_too_slow(now);
            }
        }
    }

    fn dropped_down(&mut self, messages: u64) {
        self.down.dropped += messages;
        self.report(Fact::Dropped { lane: LaneName::Down, messages });
    }

    /// What follows from new messages of the worker.
    pub(super) fn after_down(&mut self, now: Time) {
        if let DownPolicy::Latest(keep) = self.settings.down {
            let messages = self.down.buffer.drop_oldest_unsent(keep.get());
            if messages > 0 {
                self.dropped_down(messages);
                // What was passed over is dropped, not in doubt.
                let passed = self.down.buffer.sent();
                self.down.buffer.confirm(passed, now);
            }
        }
        if self.down.buffer.unsent_messages() > 0 && self.stalled_since.is_none() && self.client.is_linked() {
            self.stalled_since = Some(now);
        }
    }

    /// A data message of the current worker shows that it works.
    fn worker_talked(&mut self) {
        if let Some(link) = self.backend.link_mut()
            && !link.talked
        {
            link.talked = true;
            let backend = link.backend;
            self.worker_proven(backend);
        }
    }

    fn control(&mut self, side: Side, control: &Control, now: Time) {
        match (side, control.opcode) {
            // Nothing counts behind a client's close frame (RFC 6455 section 5.5.1), a ping neither.
            (Side::Client, Opcode::Ping) => match self.client {
                ClientLeg::Open | ClientLeg::Closing { said_close: false, .. } => {
                    let key = self.draw.key();
                    self.to_client.pong(control.payload(), key);
                }
                ClientLeg::Detached { .. }
                | ClientLeg::SaidClose(_)
                | ClientLeg::Closing { said_close: true, .. }
                | ClientLeg::Gone => {}
            },
            (Side::Backend, Opcode::Ping) => {
                let key = self.draw.key();
                self.to_backend.pong(control.payload(), key);
            }
            (Side::Client, Opcode::Pong) => self.client_ponged(control.payload(), now),
            (Side::Backend, Opcode::Pong) => self.worker_ponged(control.payload(), now),
            (side, Opcode::Close) => match CloseFrame::parse(control.payload()) {
                Ok(frame) => self.said_close(side, frame, now),
                Err(violation) => self.refuse(side, Refused::Violation(violation), now),
            },
            // The assembler hands out control frames only.
            (_, Opcode::Continuation | Opcode::Text | Opcode::Binary) => {}
        }
    }

    fn said_close(&mut self, side: Side, frame: CloseFrame, now: Time) {
        self.discard_half_message(side);
        match side {
            Side::Client => self.client_said_close(frame, now),
            Side::Backend => self.backend_said_close(frame, now),
        }
    }

    pub(super) fn discard_half_message(&mut self, side: Side) {
        let lane = self.lane(side);
        lane.buffer.discard_partial();
        lane.began = None;
    }

    fn worker_ponged(&mut self, payload: &[u8], now: Time) {
        let confirmed = self.barrier.ponged(payload).or_else(|| commit(payload));
        if let Some(seq) = confirmed {
            self.confirm_up(seq, now);
        }
    }

    /// The current worker has everything up to `seq`.
    pub(super) fn confirm_up(&mut self, seq: Seq, now: Time) {
        let before = self.up.buffer.confirmed();
        self.up.buffer.confirm(seq, now);
        if self.up.buffer.confirmed() > before
            && let Some(link) = self.backend.link()
        {
            let backend = link.backend;
            self.worker_proven(backend);
        }
        self.part_if_settled(now);
    }

    /// A peer broke a rule: it is told so on its own leg only.
    fn refuse(&mut self, side: Side, refused: Refused, now: Time) {
        let frame = match refused {
            Refused::Violation(violation) => CloseFrame::new(1002, violation.reason()),
            Refused::MessageTooBig => CloseFrame::new(1009, "message too big"),
            Refused::TooManyFragments => CloseFrame::new(1008, "too many fragments"),
        };
        self.discard_half_message(side);
        match side {
            Side::Client => self.client_at_fault(frame, now),
            Side::Backend => self.interrupt(Interruption::Protocol, Some(&frame), now),
        }
    }
}

/// The message that a commit pong names.
fn commit(payload: &[u8]) -> Option<Seq> {
    let (&COMMIT_MARK, digits) = payload.split_first()? else { return None };
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok().map(Seq)
}
