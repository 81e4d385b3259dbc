//! Bytes in: messages into the lane, control frames to whom they concern.

use super::{Fact, Input, Interruption, Loss, Peer, Pipe};
use crate::assembler::{Control, Message, MessageLimits, Refused, Step};
use crate::close::CloseFrame;
use crate::frame::{Opcode, Side};
use crate::ids::{LaneName, Seq};
use crate::leg::barrier::Level;
use crate::leg::{BackendState, ClientState};
use crate::settings::{Confirm, DownPolicy, OnTooBig, OverflowPolicy, ReplayPolicy};
use crate::time::Time;

/// Bytes from which on a part of an input may have a block of its own: between control frames there may be thousands of
/// parts of a byte each.
const OWN_BLOCK_BYTES_MIN: usize = 512;

/// The first byte of a commit pong's payload (PROTOCOL section 6).
const COMMIT_MARK: u8 = b'A';

impl Pipe {
    /// Takes in bytes that `from` sent. Bytes of an attach that is no longer current change nothing.
    pub fn receive(&mut self, from: Peer, input: Input<'_>, now: Time) {
        if !self.hears(from) {
            return;
        }
        let side = from.side();
        let Some((link, lane)) = self.incoming(side) else { return };
        link.heard(now);
        let before = lane.buffer.accepted();
        match link.judge_text(input.as_slice()) {
            Ok(()) => self.take_in(from, input, now),
            Err(sound) => self.take_in_before_bad_text(from, &input.as_slice()[..sound], now),
        }
        match from {
            Peer::Client(_) => self.after_up(now),
            Peer::Backend(_) => self.after_down(now),
        }
        let messages = self.lane(side).buffer.accepted().0 - before.0;
        self.book(side, messages, input.as_slice().len(), now);
    }

    /// Whether what `from` says still counts.
    pub(super) fn hears(&self, from: Peer) -> bool {
        match from {
            Peer::Client(generation) => self.client.is_current(generation) && !self.client.is_deaf(),
            Peer::Backend(attachment) => self.backend.is_current(attachment),
        }
    }

    /// Takes in what stands before a frame whose text is not UTF-8, and refuses that.
    fn take_in_before_bad_text(&mut self, from: Peer, sound: &[u8], now: Time) {
        self.take_in(from, Input::Copy(sound), now);
        if self.hears(from) {
            self.refuse(from.side(), Refused::NotUtf8, now);
        }
    }

    fn take_in(&mut self, from: Peer, input: Input<'_>, now: Time) {
        match from {
            Peer::Client(_) if self.is_aware() => self.take_in_numbered(from, input, now),
            Peer::Backend(_) if self.has_numbered_worker() => self.take_in_numbered(from, input, now),
            Peer::Client(_) | Peer::Backend(_) => self.take_in_frames(from, input, now),
        }
    }

    fn take_in_frames(&mut self, from: Peer, input: Input<'_>, now: Time) {
        let side = from.side();
        let limits = self.message_limits(side);
        let bytes = input.as_slice();
        let mut keep = self.keeps(side);
        let (mut run, mut at) = (0, 0);
        loop {
            at += self.take_whole(side, &bytes[at..], limits, keep);
            if at == bytes.len() {
                break;
            }
            let Some((link, _)) = self.incoming(side) else { return };
            let Some(assembler) = link.codec.relayed_mut() else { return };
            let step = match assembler.step(&bytes[at..], limits) {
                Ok(step) => step,
                Err(refused) => {
                    self.push(side, input, run..at, keep);
                    return self.refuse(side, refused, now);
                }
            };
            match step {
                Step::Data { len, ended } => {
                    at += len;
                    if ended.is_some() && self.conversation.reads() {
                        self.push(side, input, run..at, keep);
                        run = at;
                    }
                    self.accept(side, ended, keep, now);
                }
                Step::Header { header, header_len, len, ended } => {
                    at += len;
                    run = at;
                    if keep {
                        self.lane(side).buffer.push_copy(&header[..header_len]);
                    }
                    self.accept(side, ended, keep, now);
                }
                Step::Control { control, len } => {
                    if !link.codec.inside_message() {
                        link.began = None;
                    }
                    self.push(side, input, run..at, keep);
                    at += len;
                    run = at;
                    self.control(side, &control, now);
                    if !self.hears(from) {
                        return;
                    }
                    keep = self.keeps(side);
                }
                Step::Skipped { len, ended } => {
                    self.push(side, input, run..at, keep);
                    at += len;
                    run = at;
                    self.skipped(side, ended, keep);
                }
                Step::Starved => {
                    self.push(side, input, run..at, keep);
                    at = bytes.len();
                    run = at;
                }
            }
        }
        self.push(side, input, run..at, keep);
        if let Some((link, _)) = self.incoming(side) {
            link.input_ended(bytes.len(), now);
        }
    }

    pub(super) fn message_limits(&self, side: Side) -> MessageLimits {
        let settings = &self.settings;
        let on_too_big = match side {
            Side::Client => OnTooBig::Close,
            Side::Backend => settings.on_too_big,
        };
        MessageLimits { bytes_max: settings.message_bytes_max, fragments_max: settings.fragments_max, on_too_big }
    }

    /// A part came of a message of `side` that is too big to be relayed.
    fn skipped(&mut self, side: Side, ended: bool, keep: bool) {
        // What came of it before it was too big, if anything.
        self.lane(side).buffer.discard_partial();
        if !ended {
            return;
        }
        if let Some((link, _)) = self.incoming(side) {
            link.began = None;
        }
        if keep && side == Side::Backend {
            self.worker_talked();
            self.report_lost(LaneName::Down, Loss::TooBig, 1);
        }
    }

    /// Whether messages from `side` are passed on.
    pub(super) const fn keeps(&self, side: Side) -> bool {
        match side {
            Side::Client => self.client.is_open(),
            Side::Backend => self.client.takes_more(),
        }
    }

    pub(super) fn push(&mut self, side: Side, input: Input<'_>, range: std::ops::Range<usize>, keep: bool) {
        if !keep || range.is_empty() {
            return;
        }
        let buffer = &mut self.lane(side).buffer;
        let is_long = range.len() >= OWN_BLOCK_BYTES_MIN;
        match input {
            // A part that is most of it is worth what it keeps alive.
            Input::Share(bytes) if is_long && range.len() > bytes.len() / 2 => buffer.push_shared(bytes.slice(range)),
            Input::Borrow(bytes) if is_long => buffer.push_borrowed(bytes.slice(range)),
            Input::Common(bytes) => buffer.push_common(bytes.slice(range)),
            Input::Copy(_) | Input::Share(_) | Input::Borrow(_) => buffer.push_copy(&input.as_slice()[range]),
        }
    }

    /// Takes in the messages that are whole at the start of `bytes`, unless they are to be read; the bytes they took.
    fn take_whole(&mut self, side: Side, bytes: &[u8], limits: MessageLimits, keep: bool) -> usize {
        if self.conversation.reads() {
            return 0;
        }
        let Some((link, lane)) = self.incoming(side) else { return 0 };
        let Some(assembler) = link.codec.relayed_mut() else { return 0 };
        let taken = assembler.whole_messages(bytes, limits, |message| {
            if keep {
                lane.accept(message);
            }
        });
        if taken > 0 {
            link.began = None;
            if keep && side == Side::Backend {
                self.worker_talked();
            }
        }
        taken
    }

    /// Accepts the message of `side` that has become whole, if one has.
    pub(super) fn accept(&mut self, side: Side, ended: Option<Message>, keep: bool, now: Time) {
        let reads = self.conversation.reads();
        let Some(message) = ended else { return };
        let Some((link, lane)) = self.incoming(side) else { return };
        link.began = None;
        if !keep {
            return;
        }
        if reads {
            return self.accept_read(side, message, now);
        }
        lane.accept(message);
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
        let claimed = self.up.buffer.claimed_bytes();
        if self.settings.overflow == OverflowPolicy::Close && claimed > self.settings.replay_bytes_max {
            self.report(Fact::Overflowed(OverflowPolicy::Close));
            self.overflow(now);
        }
    }

    /// Gives up what waits for a worker, where nothing is kept over an outage.
    pub(super) fn drop_waiting(&mut self, now: Time) {
        let messages = self.up.buffer.drop_oldest_unsent(0);
        // What was passed over is lost, not in doubt.
        self.up.confirm_sent(now);
        self.report_lost(LaneName::Up, Loss::Policy, messages);
        self.owe_confirmed(now);
    }

    /// Notes that `messages` of the current worker went by before this pipe could take them: they were held where a
    /// pipe that is too slow holds up no other one ([`crate::shared`]).
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
                // What was passed over is dropped, not in doubt. An aware client says itself what it has.
                if !self.is_aware() {
                    self.down.confirm_sent(now);
                }
            }
        }
        if self.down.buffer.unsent_messages() > 0 && self.client.stalled_since().is_none() {
            self.client.set_stalled(Some(now));
        }
    }

    /// A data message of the current worker shows that it works.
    pub(super) fn worker_talked(&mut self) {
        if let Some(worker) = self.backend.worker_mut()
            && !worker.talked
        {
            worker.talked = true;
            self.worker_proven();
        }
    }

    pub(super) fn control(&mut self, side: Side, control: &Control, now: Time) {
        if side == Side::Client && !control.masked {
            self.report(Fact::Unmasked);
        }
        match (side, control.opcode) {
            // Nothing counts behind a client's close frame (RFC 6455 section 5.5.1), a ping neither.
            (Side::Client, Opcode::Ping) => {
                let key = self.draw.key();
                if let Some(link) = self.client.link_mut_before_close() {
                    link.codec.pong(control.payload(), key);
                }
            }
            (Side::Backend, Opcode::Ping) => {
                let key = self.draw.key();
                if let Some(link) = self.backend.link_mut() {
                    link.codec.pong(control.payload(), key);
                }
            }
            (Side::Client, Opcode::Pong) => self.client_ponged(control.payload(), now),
            (Side::Backend, Opcode::Pong) => self.worker_ponged(control.payload(), now),
            (side, Opcode::Close) => match CloseFrame::parse(control.payload()) {
                Ok(frame) => {
                    if side == Side::Backend || !self.client_closed_unended(now) {
                        self.said_close(side, frame, now);
                    }
                }
                Err(violation) => self.refuse(side, Refused::Violation(violation), now),
            },
            // The codec hands out control frames only.
            (_, Opcode::Continuation | Opcode::Text | Opcode::Binary) => {}
        }
    }

    pub(super) fn said_close(&mut self, side: Side, frame: CloseFrame, now: Time) {
        self.discard_half_message(side);
        match side {
            Side::Client => self.client_said_close(frame, now),
            Side::Backend => self.backend_said_close(frame, now),
        }
    }

    /// Forgets a message of `side` that is not whole.
    pub(super) fn discard_half_message(&mut self, side: Side) {
        self.lane(side).buffer.discard_partial();
        if let Some((link, _)) = self.incoming(side) {
            link.began = None;
        }
    }

    fn worker_ponged(&mut self, payload: &[u8], now: Time) {
        let Some(link) = self.backend.link_mut() else { return };
        let (confirmed, level) = (link.ponged(payload), link.level());
        match (confirmed, commit(payload)) {
            (Some(seq), _) => self.confirm_up(seq, level, now),
            (None, Some(seq)) => self.confirm_up(seq, Level::App, now),
            (None, None) => {}
        }
    }

    /// The current worker has everything up to `seq`, as sure as `level` says.
    pub(super) fn confirm_up(&mut self, seq: Seq, level: Level, now: Time) {
        if self.takes_for_confirmed(level) && self.up.confirm(seq, level, now) {
            self.worker_proven();
            self.owe_confirmed(now);
        }
        self.part_if_settled(now);
    }

    /// Whether a word of this level confirms a message to a worker.
    pub(super) fn takes_for_confirmed(&self, level: Level) -> bool {
        self.settings.confirm == Confirm::Pong || level == Level::App
    }

    /// A peer broke a rule: it is told so on its own leg only. A worker's message over the limit is an end that its client
    /// is told of too, since it would be as long for the next worker.
    pub(super) fn refuse(&mut self, side: Side, refused: Refused, now: Time) {
        let frame = match refused {
            Refused::Violation(violation) => CloseFrame::new(1002, violation.reason()),
            Refused::MessageTooBig => CloseFrame::new(1009, "message too big"),
            Refused::TooManyFragments => CloseFrame::new(1008, "too many fragments"),
            Refused::NotUtf8 => CloseFrame::new(1007, "text is not UTF-8"),
        };
        self.discard_half_message(side);
        match side {
            // A peer that has been told goodbye, or is about to be, is told nothing else: its link goes at once. A client
            // that broke no rule of framing may come back for the end that it was not told.
            Side::Client if self.client.state() == ClientState::Closing => match refused {
                Refused::Violation(_) | Refused::NotUtf8 => self.drop_client(),
                Refused::MessageTooBig | Refused::TooManyFragments => self.cut_client_off(now),
            },
            Side::Client => {
                self.client_at_fault(frame, now);
                return self.client.turn_deaf();
            }
            Side::Backend if self.backend.state() == BackendState::Closing => {
                self.lost_while_closing(Interruption::Protocol, None, now);
            }
            Side::Backend if refused == Refused::MessageTooBig => {
                self.report_lost(LaneName::Down, Loss::TooBig, 1);
                self.backend_ended(frame, now);
            }
            Side::Backend => self.interrupt(Interruption::Protocol, Some(&frame), now),
        }
        self.finish_if_over();
    }
}

/// The message that a commit pong names.
fn commit(payload: &[u8]) -> Option<Seq> {
    let (&COMMIT_MARK, digits) = payload.split_first()? else { return None };
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok().map(Seq)
}
