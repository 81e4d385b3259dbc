//! The aware protocol on the client leg: the greeting, what is acknowledged and how, and how such a client comes back.
//!
//! A client that numbers its messages has its place in both lanes by numbers of its own and of ours, so that neither is
//! asked by pings: what it acknowledges is confirmed at level `app`, and it keeps what we have not acknowledged. The number
//! of a message in the lane up is the client's, less what it has given up before it ([`Shifts`]).
//!
//! ```text
//!   Awaited -- hello --> Greeted         a new pipe: nothing else is heard, and no message goes out before
//!   resume  -----------> Greeted         the caller has heard the hello, and who says it
//! ```
//!
//! Invariant: numbers never go back within a pipe, whatever becomes of its links, and what is missing is said.

mod gaps;
mod taking;
mod worker;

use std::collections::VecDeque;

use self::gaps::{Gap, Missing, Shifts};
pub(crate) use self::worker::NumberedWorkers;
use super::{Action, Fact, Loss, Pipe};
use crate::aware::words::GapWhy;
use crate::aware::{Heard, NUMBER_MAX, Position, Reject, Said, codes};
use crate::close::CloseFrame;
use crate::frame::Side;
use crate::ids::{Generation, LaneName, PipeId, Seq};
use crate::leg::barrier::Level;
use crate::leg::{Aware, BackendState, ClientState, Codec};
use crate::replay::{ReplayBuffer, Retention};
use crate::settings::{AwareSettings, ReplayTail};
use crate::snapshot::{Read, Reader, SnapshotError, Writer, demand};
use crate::time::{Time, earliest};

/// Takeovers in [`TAKEOVER_WINDOW`] after which the newcomer is refused.
const TAKEOVERS_MAX: usize = 3;

/// How long a takeover counts.
const TAKEOVER_WINDOW: std::time::Duration = std::time::Duration::from_secs(10);

/// Bytes of a token at most.
const TOKEN_BYTES_MAX: usize = 1024;

/// What a pipe needs to speak the protocol with its client.
#[derive(Debug)]
pub(crate) struct AwarePipe {
    id: PipeId,
    epoch: u64,
    /// What the client is to show when it comes back; said with the greeting.
    token: Box<str>,
    /// Until when a hello is waited for; nothing once it came.
    hello_ends: Option<Time>,
    /// The last number received.
    rx: u64,
    /// The last number that a backend has confirmed. What is given up at the end is not.
    confirmed: u64,
    shifts: Shifts,
    owed: Owed,
    /// The oldest attach whose token is good: the one that the last acknowledgement came by.
    good_from: Generation,
    takeovers: VecDeque<Time>,
    /// Gaps that the client may not have heard of.
    missing: Missing,
}

/// What an acknowledgement would say that the last one did not.
#[derive(Debug, Default)]
struct Owed {
    since: Option<Time>,
    messages: u32,
    bytes: usize,
    n_said: u64,
    d_said: u64,
}

impl Owed {
    /// Notes that something is to be acknowledged: `bytes` of a message, or something else; whether that is due now.
    fn owe(&mut self, bytes: usize, settings: &AwareSettings, now: Time) -> bool {
        self.since.get_or_insert(now);
        self.messages += 1;
        self.bytes += bytes;
        self.messages >= settings.ack_messages || self.bytes >= settings.window_bytes / 4
    }

    fn freeze(&self, out: &mut Writer) {
        let Self { since, messages, bytes, n_said, d_said } = self;
        out.option(*since, Writer::time);
        out.u32(*messages);
        out.size(*bytes);
        out.count(*n_said);
        out.count(*d_said);
    }

    fn thaw(input: &mut Reader<'_>) -> Read<Self> {
        Ok(Self {
            since: input.option(Reader::past)?,
            messages: input.u32()?,
            bytes: input.size()?,
            n_said: input.count()?,
            d_said: input.count()?,
        })
    }
}

/// Who a pipe is to an aware client.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// Its id.
    pub id: PipeId,
    /// Its epoch: a new one where something may be missing.
    pub epoch: u64,
    /// What the client is to show when it comes back.
    pub token: String,
}

/// A client that comes back, as far as its caller has judged it.
#[derive(Clone, Copy, Debug)]
pub struct Returning<'a> {
    /// The attach that its token was made for.
    pub generation: Generation,
    /// Where it says that it stands.
    pub position: Position,
    /// Its next token, made for the attach that follows the last one.
    pub token: &'a str,
    /// Whether the link whose place it takes, if there is one, may be in use. One that its client has left counts as none.
    pub is_contested: bool,
}

impl Pipe {
    /// Has the client of a pipe that was just opened greeted as one that speaks the aware protocol.
    pub fn expect_hello(&mut self, introduction: Introduction, now: Time) {
        let Some(link) = self.client.link_mut() else { return };
        link.codec = Codec::aware(Side::Client, self.settings.aware.window_bytes);
        link.barrier = None;
        self.down.buffer = ReplayBuffer::new(Retention::UntilConfirmed(ReplayTail::default()));
        let Introduction { id, epoch, token } = introduction;
        self.aware = Some(Box::new(AwarePipe {
            id,
            epoch,
            token: token.into(),
            hello_ends: Some(now + self.settings.aware.hello_timeout),
            rx: 0,
            confirmed: 0,
            shifts: Shifts::default(),
            owed: Owed::default(),
            good_from: Generation::FIRST,
            takeovers: VecDeque::new(),
            missing: Missing::default(),
        }));
    }

    /// Whether the client speaks the aware protocol.
    #[must_use]
    pub const fn is_aware(&self) -> bool {
        self.aware.is_some()
    }

    /// The attach that a client gets which comes back now.
    #[must_use]
    pub const fn next_generation(&self) -> Generation {
        self.client.generation().next()
    }

    /// The link's own part of the protocol, with the pipe's.
    fn aware_link(&mut self) -> Option<(&mut Aware, &mut AwarePipe)> {
        let link = self.client.link_mut()?.codec.aware_mut()?;
        Some((link, self.aware.as_deref_mut()?))
    }

    /// Says a word to the client, if it has been greeted.
    pub(super) fn say_word(&mut self, word: &Said<'_>) {
        if let Some((link, _)) = self.aware_link()
            && link.writer.is_greeted()
        {
            link.writer.say(word);
        }
    }

    fn is_greeted(&self) -> bool {
        self.aware.as_ref().is_some_and(|aware| aware.hello_ends.is_none())
    }

    /// The client broke the protocol: the pipe ends, and it is told what was wrong.
    fn client_broke_protocol(&mut self, reason: &str, now: Time) {
        self.discard_half_message(Side::Client);
        if self.client.state() == ClientState::Closing {
            self.drop_client();
            return self.finish_if_over();
        }
        self.client_at_fault(CloseFrame::new(codes::PROTOCOL, reason), now);
        self.client.turn_deaf();
    }

    fn heard_word(&mut self, text: &[u8], now: Time) {
        if let Some(link) = self.client.link_mut() {
            link.began = None;
        }
        let word = match Heard::read(text) {
            Ok(word) => word,
            Err(malformed) => return self.client_broke_protocol(malformed.0, now),
        };
        match word {
            Heard::Hello(resume) if !self.is_greeted() => match resume {
                None => self.welcome(),
                Some(_) => self.client_broke_protocol("resume without a pipe entry", now),
            },
            Heard::OtherVersion if !self.is_greeted() => self.reject(Reject::Version, now),
            Heard::Hello(_) | Heard::OtherVersion => self.client_broke_protocol("hello twice", now),
            _ if !self.is_greeted() => self.client_broke_protocol("hello expected", now),
            Heard::Ack { n } => self.acknowledged(n, now),
            Heard::Gap { from, count, why } => self.client_gave_up(from, count, why, now),
            Heard::Fin { frame, n } => self.client_ended(frame, n, now),
            Heard::Beat { n } => self.client_beat(n),
        }
    }

    fn welcome(&mut self) {
        let generation = self.client.generation();
        let settings = self.settings.clone();
        let Some((link, aware)) = self.aware_link() else { return };
        aware.hello_ends = None;
        link.writer.greet(0, None);
        link.writer.say(&Said::Welcome {
            id: aware.id,
            token: &std::mem::take(&mut aware.token),
            epoch: aware.epoch,
            generation,
            ttl_ms: settings.client_grace.unwrap_or_default().as_millis() as u64,
            window_bytes: settings.aware.window_bytes,
            retain_bytes: settings.aware.retain_bytes,
            heartbeat_ms: settings.client_heartbeat.interval.as_millis() as u64,
            jitter_ms: settings.aware.jitter.as_millis() as u64,
        });
    }

    /// Tells the client that it may not go on, and ends the pipe.
    fn reject(&mut self, why: Reject, now: Time) {
        if let Some((link, _)) = self.aware_link() {
            link.writer.say(&Said::Reject(why));
        }
        self.client_at_fault(CloseFrame::new(codes::REJECTED, why.as_str()), now);
        self.client.turn_deaf();
    }

    /// The client's application has everything up to `n`.
    fn acknowledged(&mut self, n: u64, now: Time) {
        // What it was not sent before the end, it was told to be missing.
        let buffer = &self.down.buffer;
        let told = if self.client.takes_more() { buffer.sent() } else { buffer.accepted() };
        if Seq(n) > told {
            // It speaks of another conversation.
            return self.reject(Reject::Epoch, now);
        }
        let generation = self.client.generation();
        if let Some(aware) = &mut self.aware {
            aware.good_from = generation;
            aware.missing.acknowledged(Seq(n));
        }
        self.down.confirm(Seq(n), Level::App, now);
        self.owe_delivered(now);
    }

    /// The client says that messages of its own will never come.
    fn client_gave_up(&mut self, from: u64, count: Option<u64>, why: GapWhy, now: Time) {
        if !self.keeps(Side::Client) {
            // Once the end is on its way no number counts, and none is missing.
            return;
        }
        let behind = self.up.buffer.accepted();
        let Some(aware) = &mut self.aware else { return };
        let rx = match count {
            Some(count) => from + count - 1,
            None => from - 1,
        };
        if rx <= aware.rx {
            // Said again after a resume.
            return;
        }
        if from > aware.rx + 1 && count.is_some() {
            return self.client_broke_protocol("number skipped without a gap", now);
        }
        let missing = rx - aware.rx;
        aware.rx = rx;
        if !aware.shifts.add(behind, missing) {
            return self.client_broke_protocol("too many gaps", now);
        }
        self.report(Fact::Gap { lane: LaneName::Up, why, messages: Some(missing) });
        self.owe_ack(0, now);
    }

    /// The client ends the conversation in good order.
    fn client_ended(&mut self, frame: CloseFrame, n: u64, now: Time) {
        let counts = self.keeps(Side::Client);
        match &self.aware {
            Some(aware) if counts && aware.rx != n => self.client_broke_protocol("fin with another number", now),
            _ => self.said_close(Side::Client, frame, now),
        }
    }

    fn client_beat(&mut self, n: u64) {
        let by_pongs = self.client.returns();
        let Some(link) = self.client.link_mut() else { return };
        let Some(aware) = link.codec.aware_mut() else { return };
        if aware.writer.asked(n) {
            link.answered(by_pongs);
        } else {
            aware.writer.say_if_room(&Said::Beat { n });
        }
    }

    /// The client closed without a word that it ends: it may come back. False where it may not.
    pub(super) fn client_closed_unended(&mut self, now: Time) -> bool {
        if self.aware.is_none() || !self.client.may_come_back() {
            return false;
        }
        let frame = CloseFrame::new(1000, "");
        let words = self.client.link().map(|link| link.codec.last_words(&frame, &self.down.buffer, [0; 4]));
        self.detach_client(words.unwrap_or_default(), now);
        true
    }

    /// The client is there on another link and says where it stands.
    ///
    /// # Errors
    /// Why it may not go on; nothing has changed then.
    pub fn client_resumes(&mut self, returning: &Returning<'_>, now: Time) -> Result<Generation, Reject> {
        let generation = self.client.generation();
        let linked = self.client.is_linked();
        let awaited = self.awaits_client();
        let Some(aware) = self.aware.as_deref_mut().filter(|_| awaited) else { return Err(Reject::Unknown) };
        // Every `resumed` since the last acknowledgement may have been lost with its link.
        if !(aware.good_from..=generation).contains(&returning.generation) {
            return Err(Reject::Unknown);
        }
        // What it can send again no more was acknowledged, or it says a gap.
        let Position { epoch, rx, tx_first: _, tx_next } = returning.position;
        if epoch != aware.epoch || rx > self.down.buffer.sent_ever().0 || tx_next <= aware.rx {
            return Err(Reject::Epoch);
        }
        if linked && returning.is_contested && !aware.may_be_taken_over(now) {
            return Err(Reject::Taken);
        }
        let ending = self.swap_client(CloseFrame::new(codes::SUPERSEDED, "superseded"), Some(Seq(rx)), now);
        let (generation, ending) = ending.ok_or(Reject::Unknown)?;
        self.resume_link(returning);
        self.owe_confirmed(now);
        if let Some(frame) = ending {
            self.tell_ending(*frame, now);
        }
        Ok(generation)
    }

    /// Has the new link of a client that came back begin with what it must know.
    fn resume_link(&mut self, returning: &Returning<'_>) {
        let generation = self.client.generation();
        let backend_lost = self.backend.worker().is_none().then(|| self.backend.last().0);
        let window_bytes = self.settings.aware.window_bytes;
        let buffer = &self.down.buffer;
        let (rx, accepted) = (returning.position.rx, buffer.accepted());
        let next = accepted.0 + 1;
        let first = buffer.messages_after(Seq(rx)).next().map_or(next, |message| message.seq().0);
        let (Some(link), Some(aware)) = (self.client.link_mut(), self.aware.as_deref_mut()) else { return };
        link.codec = Codec::aware(Side::Client, window_bytes);
        link.barrier = None;
        aware.hello_ends = None;
        // What was said of the backend may have been lost with the old link, and `resumed` says nothing of it.
        aware.owed = Owed { since: aware.owed.since, n_said: aware.rx, d_said: 0, ..Owed::default() };
        let (epoch, rx_up) = (aware.epoch, aware.rx);
        let Some(link) = link.codec.aware_mut() else { return };
        link.writer.greet(rx, Some(accepted));
        let resumed = Said::Resumed { epoch, generation, token: returning.token, rx: rx_up, tx: [first, next] };
        link.writer.say(&resumed);
        aware.missing.tell_again(accepted, |word| link.writer.say(word));
        if let Some(attach) = backend_lost {
            link.writer.say(&Said::BackendLost { attach, cause: "outage" });
        }
    }

    /// Says what has happened on the backend leg to a client that wants to know.
    pub(super) fn tell_aware(&mut self, fact: &Fact) {
        match fact {
            Fact::Interrupted { attachment, reason, gap, .. } => {
                self.say_word(&Said::BackendLost { attach: attachment.0, cause: reason.as_str() });
                if let Some((from, to)) = *gap {
                    self.tell_gap_up(from, to, GapWhy::BackendLost);
                }
            }
            Fact::Lost { lane: LaneName::Up, reason: Loss::Policy, messages } => {
                let to = self.up.buffer.accepted();
                self.tell_gap_up(Seq(to.0 - messages + 1), to, GapWhy::Policy);
            }
            Fact::Lost { lane: LaneName::Down, reason: Loss::TooBig, .. } => {
                let from = self.down.buffer.accepted().0 + 1;
                self.tell_gap(LaneName::Down, from, None, GapWhy::Policy);
            }
            _ => {}
        }
    }

    /// Tells the client that its messages from `from` to `to` of the lane will reach no backend.
    fn tell_gap_up(&mut self, from: Seq, to: Seq, why: GapWhy) {
        let Some(aware) = &self.aware else { return };
        let (before, last) = (aware.shifts.end_of(Seq(from.0 - 1)), aware.shifts.number_of(to));
        self.tell_gap(LaneName::Up, before + 1, Some(last - before), why);
    }

    /// Tells the client that messages are missing, now or when it is back.
    fn tell_gap(&mut self, lane: LaneName, from: u64, count: Option<u64>, why: GapWhy) {
        let accepted = self.down.buffer.accepted();
        let told_behind = self.aware_link().filter(|(link, _)| link.writer.is_greeted()).map(|_| accepted);
        let gap = Gap { lane, from, count, why, told_behind };
        self.say_word(&gap.word());
        if let Some(aware) = &mut self.aware {
            aware.missing.add(gap);
        }
        self.actions.push_back(Action::Report(Fact::Gap { lane, why, messages: count }));
    }

    /// Notes that something is to be acknowledged: `bytes` of a message, or something else.
    fn owe_ack(&mut self, bytes: usize, now: Time) {
        let settings = &self.settings.aware;
        let Some(aware) = &mut self.aware else { return };
        if aware.owed.owe(bytes, settings, now) {
            self.acknowledge();
        }
    }

    /// Notes that the backend has confirmed more.
    pub(super) fn owe_confirmed(&mut self, now: Time) {
        let confirmed = self.up.buffer.confirmed();
        // What was given up at the end counts as confirmed in the lane, and no worker has it.
        let counts = self.backend.state() != BackendState::Gone;
        if let Some(aware) = &mut self.aware {
            if counts {
                aware.shifts.settle(confirmed);
                // A tail that is sent again was confirmed before.
                aware.confirmed = aware.shifts.end_of(confirmed).min(aware.rx).max(aware.confirmed);
            }
            if aware.confirmed > aware.owed.d_said {
                aware.owed.since.get_or_insert(now);
            }
        }
    }

    /// Acknowledges what is owed, with the next write.
    pub(super) fn acknowledge(&mut self) {
        let Some((link, aware)) = self.aware_link() else { return };
        let (n, d) = (aware.rx, aware.confirmed);
        if aware.owed.since.take().is_some() {
            aware.owed = Owed { n_said: n, d_said: d, ..Owed::default() };
            link.writer.ack(n, d);
        }
    }

    /// When the client is to be told something, or has to have said hello.
    pub(super) fn aware_due_at(&self) -> Option<Time> {
        let aware = self.aware.as_deref()?;
        earliest(aware.hello_ends, aware.owed.since.map(|since| since + self.settings.aware.ack_delay))
    }

    /// Does what is due for the client.
    pub(super) fn aware_is_due(&mut self, now: Time) {
        let Some(aware) = &self.aware else { return };
        if aware.hello_ends.is_some_and(|at| now >= at) {
            return self.client_broke_protocol("no hello in time", now);
        }
        self.acknowledge();
    }

    /// Reports what the client was told to be missing by the last write.
    pub(super) fn report_gaps(&mut self) {
        let Some((link, _)) = self.aware_link() else { return };
        let messages = link.writer.take_gaps();
        if messages > 0 {
            self.report(Fact::Gap { lane: LaneName::Down, why: GapWhy::Policy, messages: Some(messages) });
        }
    }

    /// Tells the client that the server will go, so that the close frame that follows is no end.
    pub(super) fn say_goaway(&mut self, why: &'static str) {
        let jitter_ms = self.settings.aware.jitter.as_millis() as u64;
        if let Some((link, _)) = self.aware_link() {
            link.writer.goaway(&Said::Goaway { after_ms: 0, jitter_ms, why });
        }
    }
}

impl AwarePipe {
    /// Whether one more link may take another's place now; it counts if so.
    fn may_be_taken_over(&mut self, now: Time) -> bool {
        self.takeovers.retain(|&at| now.since(at) < TAKEOVER_WINDOW);
        if self.takeovers.len() >= TAKEOVERS_MAX {
            return false;
        }
        self.takeovers.push_back(now);
        true
    }

    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.token.len()
            + self.shifts.memory_bytes()
            + self.takeovers.capacity() * size_of::<Time>()
            + self.missing.memory_bytes()
    }

    pub fn freeze(&self, out: &mut Writer) {
        let Self { id, epoch, token, hello_ends, rx, confirmed, shifts, owed, good_from, takeovers, missing } = self;
        out.raw(&id.to_bytes());
        out.count(*epoch);
        out.bytes(token.as_bytes());
        out.option(*hello_ends, Writer::time);
        out.count(*rx);
        out.count(*confirmed);
        shifts.freeze(out);
        owed.freeze(out);
        out.count(good_from.0);
        out.size(takeovers.len());
        takeovers.iter().for_each(|&at| out.time(at));
        missing.freeze(out);
    }

    pub fn thaw(input: &mut Reader<'_>, up: &ReplayBuffer) -> Read<Self> {
        let id = PipeId::from_bytes(input.raw(16)?.try_into().map_err(|_| SnapshotError::Malformed(PART))?);
        let epoch = input.count()?;
        let token = str::from_utf8(input.bytes(TOKEN_BYTES_MAX)?).map_err(|_| SnapshotError::Malformed(PART))?.into();
        let hello_ends = input.option(Reader::time)?;
        let (rx, confirmed) = (input.count()?, input.count()?);
        let shifts = Shifts::thaw(input, up.accepted())?;
        let owed = Owed::thaw(input)?;
        let good_from = Generation(input.count()?);
        let mut takeovers = VecDeque::new();
        for _ in 0..input.entries(TAKEOVERS_MAX, 8)? {
            takeovers.push_back(input.past()?);
        }
        let missing = Missing::thaw(input)?;
        demand(rx <= NUMBER_MAX && owed.n_said <= rx && owed.d_said <= confirmed && confirmed <= rx, PART)?;
        demand(shifts.end_of(up.accepted()) == rx, PART)?;
        Ok(Self { id, epoch, token, hello_ends, rx, confirmed, shifts, owed, good_from, takeovers, missing })
    }
}

const PART: &str = "greeting";
