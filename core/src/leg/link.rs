//! A link: the live transport on a leg, and everything that is true of it alone.
//!
//! An attach makes it and a detach drops it, so that nothing of one link is ever taken for the next one's: half a
//! message, a ping that waits for its pong, how long the peer has been silent. Its number, by which late news are told,
//! stands beside it in the state of its leg, since the two legs count in different types.

use std::time::Duration;

use crate::byte_queue::Gather;
use crate::frame::Side;
use crate::ids::Seq;
use crate::leg::barrier::{Barrier, Level};
use crate::leg::codec::Codec;
use crate::leg::heartbeat::Heartbeat;
use crate::leg::outbox::Written;
use crate::replay::ReplayBuffer;
use crate::settings::Heartbeat as BeatSettings;
use crate::snapshot::{Read, Reader, Writer, demand};
use crate::text::TextCheck;
use crate::time::Time;

/// One link.
#[derive(Debug)]
pub(crate) struct Link {
    pub codec: Codec,
    /// Absent where the peer is not asked what it has read: what is written counts as confirmed then.
    pub barrier: Option<Barrier>,
    pub beat: Heartbeat,
    /// Whether the peer is not read.
    pub paused: bool,
    /// The peer has left, as was seen though it is not read.
    pub left: bool,
    /// It has answered a ping of ours, and counts as alive by its answers alone from then on.
    pub lives_by_pongs: bool,
    /// When it was last paused or resumed; before that, when it was attached.
    pub turned_at: Time,
    /// When the message, header or control frame began that is not whole yet, or when it was last seen to go on.
    pub began: Option<Time>,
    /// Bytes that have come since.
    came: u32,
    /// Where the peer's text is held to UTF-8.
    text: Option<Box<TextCheck>>,
}

impl Link {
    /// A link to the peer of `side`, attached at `now`.
    pub fn new(side: Side, barrier: Option<Barrier>, beat: BeatSettings, now: Time) -> Self {
        let (codec, beat) = (Codec::frames(side), Heartbeat::new(beat, now));
        Self {
            codec,
            barrier,
            beat,
            paused: false,
            left: false,
            lives_by_pongs: false,
            turned_at: now,
            began: None,
            came: 0,
            text: None,
        }
    }

    /// Holds the text that the peer of `side` sends from now on to UTF-8.
    pub fn check_text(&mut self, side: Side) {
        self.text = Some(Box::new(self.codec.text_check(side)));
    }

    /// Judges the text in what the peer sends, where it is held to UTF-8.
    ///
    /// # Errors
    /// How many of the bytes stand before a frame that is wrong.
    pub fn judge_text(&mut self, bytes: &[u8]) -> Result<(), usize> {
        self.text.as_mut().map_or(Ok(()), |text| text.take(bytes))
    }

    /// What a confirmation by this peer means.
    pub fn level(&self) -> Level {
        self.barrier.as_ref().map_or_else(|| self.level_without_pings(), Barrier::level)
    }

    /// The same of a peer that is not pinged: an aware one says itself what it has.
    const fn level_without_pings(&self) -> Level {
        if self.codec.is_aware() { Level::App } else { Level::Written }
    }

    /// Notes that bytes came from the peer.
    pub fn heard(&mut self, now: Time) {
        if !self.lives_by_pongs {
            self.beat.heard();
        }
        if let Some(barrier) = &mut self.barrier {
            barrier.heard(now);
        }
    }

    /// Notes that the peer has answered a ping of ours; `by_pongs` says that only its answers count as life from now on.
    pub const fn answered(&mut self, by_pongs: bool) {
        self.lives_by_pongs |= by_pongs;
        self.beat.heard();
    }

    /// The last message that a pong with `payload` confirms; `None` if it answers no ping of ours.
    pub fn ponged(&mut self, payload: &[u8]) -> Option<Seq> {
        self.barrier.as_mut()?.ponged(payload)
    }

    /// Notes whether the peer is read from now on. A message under way gets its whole time again, and the silence of a
    /// peer that is not read means nothing: its pong may lie unread.
    pub fn set_paused(&mut self, paused: bool, now: Time) {
        (self.paused, self.turned_at) = (paused, now);
        (self.began, self.came) = (self.began.map(|_| now), 0);
        self.beat.heard();
        if let Some(barrier) = &mut self.barrier {
            barrier.unread();
        }
    }

    /// When a message that is under way has taken too long.
    pub fn message_ends(&self, timeout: Duration) -> Option<Time> {
        self.began.filter(|_| !self.paused).map(|began| began + timeout)
    }

    /// Whether a message that has taken too long goes on: at least `bytes` of it have come, and it has its whole time again.
    pub const fn message_goes_on(&mut self, bytes: usize, now: Time) -> bool {
        if (self.came as usize) < bytes {
            return false;
        }
        (self.began, self.came) = (Some(now), 0);
        true
    }

    /// Notes whether a message was under way when an input of so many `bytes` ended.
    pub fn input_ended(&mut self, bytes: usize, now: Time) {
        let came = u32::try_from(bytes).unwrap_or(u32::MAX);
        match self.began {
            _ if !self.codec.is_unfinished() => self.began = None,
            Some(_) => self.came = self.came.saturating_add(came),
            None => (self.began, self.came) = (Some(now), came),
        }
    }

    /// Whether [`Self::gather`] would have something to give; the peer is asked for a pong only if `asks`.
    pub fn wants_write(&self, buffer: &ReplayBuffer, asks: bool, now: Time) -> bool {
        self.codec.wants_write(buffer, self.barrier.as_ref().filter(|_| asks), now)
    }

    /// What the next write holds; the peer is asked for a pong only if `asks`.
    pub fn gather<'a>(&'a mut self, buffer: &'a ReplayBuffer, asks: bool, key: [u8; 4], now: Time) -> Gather<'a> {
        self.codec.prepare(buffer, self.barrier.as_mut().filter(|_| asks), key, now);
        if self.codec.may_have_output(buffer) { self.codec.gather(buffer) } else { Gather::default() }
    }

    /// Notes that the peer's socket took the first `bytes` bytes of what was gathered.
    pub fn transmitted(&mut self, bytes: usize, buffer: &mut ReplayBuffer, now: Time) -> Written {
        self.codec.transmitted(bytes, buffer, self.barrier.as_mut(), now)
    }

    /// When a ping behind what was sent is due, if one could go out now.
    pub fn ping_due_at(&self, buffer: &ReplayBuffer) -> Option<Time> {
        self.barrier.as_ref()?.due_at(buffer.sent()).filter(|_| self.codec.may_ping(buffer))
    }

    /// Memory that the link occupies beyond itself, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.codec.memory_bytes()
    }

    pub fn freeze(&self, out: &mut Writer) {
        // When it was paused or resumed stays behind: that wait begins anew. And a message has gone on for once. That the
        // peer has left is seen again, and its first answer counts again. Text is held to UTF-8 from the next message on.
        let Self { codec, barrier, beat, paused, began, left: _, lives_by_pongs: _, turned_at: _, came: _, text: _ } =
            self;
        codec.freeze(out);
        out.option(barrier.as_ref(), |out, barrier| barrier.freeze(out));
        beat.freeze(out);
        out.flag(*paused);
        out.option(*began, Writer::time);
    }

    pub fn thaw(input: &mut Reader<'_>, side: Side) -> Read<Self> {
        let codec = Codec::thaw(input, side)?;
        let barrier = input.option(Barrier::thaw)?;
        let beat = Heartbeat::thaw(input)?;
        let (paused, turned_at) = (input.flag()?, input.frozen_at());
        let began = input.option(Reader::past)?;
        Ok(Self {
            codec,
            barrier,
            beat,
            paused,
            left: false,
            lives_by_pongs: false,
            turned_at,
            began,
            came: u32::MAX,
            text: None,
        })
    }

    /// Fits the link to the lane that it writes, after a thaw.
    pub fn fit(&mut self, buffer: &ReplayBuffer) -> Read<()> {
        let fits = self.barrier.as_ref().is_none_or(|barrier| barrier.is_within(buffer.accepted()));
        demand(fits, "barrier")?;
        self.codec.fit(buffer)
    }
}
