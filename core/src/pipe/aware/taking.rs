//! Bytes of a peer that numbers its messages, on either leg: messages into the lane, words and mistakes to their leg.

use super::super::{Action, Fact, Input, Peer, Pipe};
use crate::assembler::MessageLimits;
use crate::frame::Side;
use crate::ids::LaneName;
use crate::leg::{AwareReader, Broken, Came, Head};
use crate::settings::OnTooBig;
use crate::time::Time;

impl Pipe {
    /// Takes in bytes of a peer that numbers its messages.
    pub(in crate::pipe) fn take_in_numbered(&mut self, from: Peer, input: Input<'_>, now: Time) {
        let side = from.side();
        // A message that is too big takes its number with it.
        let limits = MessageLimits { on_too_big: OnTooBig::Close, ..self.message_limits(side) };
        let bytes = input.as_slice();
        let mut at = 0;
        while at < bytes.len() {
            let keep = self.keeps(side);
            // Once the end is on its way nothing counts any more, not even a number.
            let last = keep.then(|| self.last_number(side));
            let Some(link) = self.incoming(side).and_then(|(link, _)| link.codec.aware_mut()) else { return };
            let came = match link.reader.step(&bytes[at..], limits, last) {
                Ok(came) => came,
                Err(Broken::Frames(refused)) => return self.refuse(side, refused, now),
                Err(Broken::Protocol(reason)) => {
                    // It is amid what it could not read, and reads no more.
                    link.reader = AwareReader::new(side);
                    return self.broke_protocol(side, reason, now);
                }
            };
            match came {
                Came::Nothing { len } => at += len,
                Came::Data { .. } | Came::Repeated { .. } if !self.is_peer_greeted(side) => {
                    let expected = if side == Side::Client { "hello expected" } else { "welcome expected" };
                    return self.broke_protocol(side, expected, now);
                }
                Came::Data { head, skip, len, ended } => {
                    if let Some(head) = head.as_ref().map(Head::as_slice).filter(|_| keep) {
                        self.lane(side).buffer.push_copy(head);
                    }
                    self.push(side, input, at + skip..at + len, keep);
                    at += len;
                    self.accept(side, ended, keep, now);
                    // Behind that, since what is acknowledged is told by its place in the lane.
                    if ended.is_some() && keep {
                        self.received(side, len, now);
                    }
                }
                Came::Repeated { len } => {
                    at += len;
                    self.came_before(side, now);
                }
                Came::Word { text, len } => {
                    at += len;
                    self.heard_word_of(side, &text, now);
                }
                Came::Control { control, len } => {
                    at += len;
                    self.control(side, &control, now);
                }
            }
            if !self.hears(from) {
                return;
            }
        }
        if let Some((link, _)) = self.incoming(side) {
            link.input_ended(bytes.len(), now);
        }
    }

    /// The last number that the peer of `side` has sent.
    fn last_number(&self, side: Side) -> u64 {
        match side {
            Side::Client => self.aware.as_ref().map_or(0, |aware| aware.rx),
            Side::Backend => self.last_number_down(),
        }
    }

    fn is_peer_greeted(&self, side: Side) -> bool {
        match side {
            Side::Client => self.is_greeted(),
            Side::Backend => self.is_worker_greeted(),
        }
    }

    fn broke_protocol(&mut self, side: Side, reason: &str, now: Time) {
        match side {
            Side::Client => self.client_broke_protocol(reason, now),
            Side::Backend => self.worker_broke_protocol(reason, now),
        }
    }

    fn heard_word_of(&mut self, side: Side, text: &[u8], now: Time) {
        match side {
            Side::Client => self.heard_word(text, now),
            Side::Backend => self.heard_worker_word(text, now),
        }
    }

    /// A message came that had come before.
    fn came_before(&mut self, side: Side, now: Time) {
        let lane = if side == Side::Client { LaneName::Up } else { LaneName::Down };
        match self.actions.back_mut() {
            // A client may say thousands again at once.
            Some(Action::Report(Fact::Repeated { lane: same, messages })) if *same == lane => *messages += 1,
            _ => self.report(Fact::Repeated { lane, messages: 1 }),
        }
        match side {
            Side::Client => self.owe_ack(0, now),
            Side::Backend => self.owe_worker(0, now),
        }
    }

    /// A message came whole, with the number that was due.
    fn received(&mut self, side: Side, bytes: usize, now: Time) {
        match side {
            Side::Client => {
                if let Some(aware) = &mut self.aware {
                    aware.rx += 1;
                }
                self.owe_ack(bytes, now);
            }
            Side::Backend => self.received_down(bytes, now),
        }
    }
}
