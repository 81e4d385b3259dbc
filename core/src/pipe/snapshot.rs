//! A pipe goes to another process: frozen here, thawed there, with or without its links.
//!
//! It may be frozen at any moment between two of its calls, once its actions are carried out. Nothing of it is lost:
//! what waits, what may have to be sent again, half messages both ways, the rest of a half-written one, the ping that is
//! on its way, and how long ago everything happened. A dial does not survive, since nobody can hand over a half-made
//! connection; the thawed pipe orders another at once, with another number. Nor does a link that waits to take over.
//!
//! Whoever froze it must not touch its links any more; whoever thaws it goes on reading and writing where the other
//! stopped. A link that did not come along is reported with [`Pipe::lost`] as any other that died.
//!
//! What the route says comes with the thaw and may have changed meanwhile, but for the replay policy, which decided
//! what was kept.

use std::sync::Arc;

use super::client::Comeback;
use super::{Action, Lane, Outage, Pipe, retention_up};
use crate::assembler::Assembler;
use crate::backoff::Draw;
use crate::barrier::Barrier;
use crate::frame::Side;
use crate::heartbeat::Heartbeat;
use crate::ids::{Attachment, BackendKey, Generation, Seq};
use crate::leg::{BackendLeg, Cause, ClientLeg, Leaving};
use crate::outbox::Outbox;
use crate::replay::{ReplayBuffer, Retention};
use crate::settings::{PipeSettings, ReplayPolicy, ReplayTail};
use crate::snapshot::{Read, Reader, Snapshot, SnapshotError, Writer, demand};
use crate::suspects::Suspects;
use crate::time::Time;

impl Pipe {
    /// Freezes the pipe as it is at `now`. Its actions must have been carried out: they are orders to this process.
    #[must_use]
    pub fn snapshot(&self, now: Time) -> Snapshot {
        debug_assert!(self.actions.is_empty(), "an order that nobody carried out: {:?}", self.actions);
        let mut out = Writer::new(now);
        self.freeze(&mut out);
        out.finish()
    }

    /// Thaws a pipe; then carry out its actions.
    ///
    /// `frozen_at` is the moment of the freeze on the clock of this process: outage and deadlines go on from there, so
    /// that what the hand-over took counts. `seed` decides every draw from now on; it must be a fresh one.
    ///
    /// # Errors
    /// [`SnapshotError`] for bytes that no pipe was frozen into.
    pub fn restore(
        snapshot: &Snapshot,
        settings: Arc<PipeSettings>,
        seed: u64,
        frozen_at: Time,
    ) -> Result<Self, SnapshotError> {
        let mut input = snapshot.reader(frozen_at);
        let mut pipe = Self::thaw(&mut input, settings, Draw::new(seed))?;
        input.finish()?;
        if matches!(pipe.backend, BackendLeg::Dialing { .. }) {
            pipe.backend = BackendLeg::Detached { retry_at: None };
            pipe.dial();
        }
        pipe.dial_next_again();
        pipe.finish_if_over();
        Ok(pipe)
    }

    /// Calls each backend that the pipe knows by the name that `rename` gives it: keys are one process's own.
    ///
    /// `rename` must give every backend a key of its own, one that was never used for those that are gone.
    pub fn rename_backends(&mut self, mut rename: impl FnMut(BackendKey) -> BackendKey) {
        self.suspects.rename(&mut rename);
        if let Some(link) = self.backend.link_mut() {
            link.backend = rename(link.backend);
        }
        if let Some(outage) = &mut self.outage {
            outage.previous = rename(outage.previous);
        }
        for action in &mut self.actions {
            if let Action::Dial(order) = action {
                order.previous = rename(order.previous);
                order.avoid = order.avoid.map(&mut rename);
            }
        }
    }

    fn freeze(&self, out: &mut Writer) {
        let Self {
            settings,
            draw: _,
            client,
            generation,
            comeback,
            backend,
            last_attachment,
            up,
            down,
            to_client,
            to_backend,
            // The wait begins anew: longer than it has to be, but no clock comes along.
            fed_at: _,
            barrier,
            client_beat,
            backend_beat,
            outage,
            suspects,
            wrong_worker,
            farewell,
            stalled_since,
            interruptions,
            in_doubt,
            ended,
            finished: _,
            // Set while an action waits, and there is none.
            switching: _,
            actions: _,
        } = self;
        freeze_policy(settings.replay, out);
        out.count(last_attachment.0);
        out.count(generation.0);
        out.option(comeback.as_deref(), |out, comeback| out.flag(comeback.barrier.is_some()));
        client.freeze(out);
        backend.freeze(out);
        up.freeze(out);
        down.freeze(out);
        barrier.freeze(out);
        if client.is_linked() {
            to_client.freeze(out);
            client_beat.freeze(out);
        }
        if backend.link().is_some() {
            to_backend.freeze(out);
            backend_beat.freeze(out);
        }
        out.option(outage.as_ref(), |out, outage| outage.freeze(out));
        suspects.freeze(out);
        for frame in [wrong_worker, farewell] {
            out.option(frame.as_deref(), Writer::close_frame);
        }
        out.option(*stalled_since, Writer::time);
        out.count(*interruptions);
        out.count(*in_doubt);
        out.flag(*ended);
        // Whether neither link is read is known anew in the other process.
        if let Some(Comeback { barrier, in_doubt, ending, stuck_since: _ }) = comeback.as_deref() {
            if let Some(barrier) = barrier {
                barrier.freeze(out);
            }
            out.count(*in_doubt);
            out.option(ending.as_ref(), Writer::close_frame);
        }
    }

    fn thaw(input: &mut Reader<'_>, settings: Arc<PipeSettings>, draw: Draw) -> Read<Self> {
        let settings = with_policy(settings, thaw_policy(input)?);
        let last_attachment = Attachment(input.count()?);
        let generation = Generation(input.count()?);
        let asks = input.option(Reader::flag)?;
        let client = ClientLeg::thaw(input)?;
        let backend = BackendLeg::thaw(input, last_attachment)?;
        let mut pipe = Self::open(settings, BackendKey(0), 0, input.frozen_at());
        pipe.draw = draw;
        pipe.generation = generation;
        (pipe.client, pipe.backend, pipe.last_attachment) = (client, backend, last_attachment);
        let retention = retention_up(&pipe.settings);
        pipe.up = Lane::thaw(input, Side::Client, retention, pipe.keeps(Side::Client))?;
        let keeps_down = pipe.keeps(Side::Backend) && pipe.backend.link().is_some();
        let retention_down = match asks {
            Some(true) => Retention::UntilConfirmed(ReplayTail::default()),
            Some(false) | None => Retention::UntilSent,
        };
        pipe.down = Lane::thaw(input, Side::Backend, retention_down, keeps_down)?;
        pipe.barrier = Barrier::thaw(input, pipe.up.buffer.accepted())?;
        if pipe.client.is_linked() {
            pipe.to_client = Outbox::thaw(input, false)?;
            pipe.client_beat = Heartbeat::thaw(input, pipe.settings.client_heartbeat)?;
        }
        if pipe.backend.link().is_some() {
            pipe.to_backend = Outbox::thaw(input, true)?;
            pipe.backend_beat = Heartbeat::thaw(input, pipe.settings.backend_heartbeat)?;
        }
        pipe.outage = input.option(Outage::thaw)?.map(Box::new);
        pipe.suspects = Suspects::thaw(input)?;
        pipe.wrong_worker = input.option(Reader::close_frame)?.map(Box::new);
        pipe.farewell = input.option(Reader::close_frame)?.map(Box::new);
        pipe.stalled_since = input.option(Reader::past)?;
        (pipe.interruptions, pipe.in_doubt) = (input.count()?, input.count()?);
        pipe.ended = input.flag()?;
        pipe.comeback = match asks {
            Some(asks) => Some(Box::new(Comeback::thaw(input, asks, pipe.down.buffer.accepted())?)),
            None => None,
        };
        pipe.demand_legs()?;
        pipe.reading_changed(Side::Backend, input.frozen_at());
        Ok(pipe)
    }

    /// What the legs owe each other: no pipe is thawed that would wait for nothing.
    fn demand_legs(&self) -> Read<()> {
        let last = self.last_attachment;
        let known = |attachment| (Attachment::FIRST..=last).contains(&attachment);
        let ending = self.comeback.as_ref().is_some_and(|comeback| comeback.ending.is_some());
        let told = match &self.client {
            ClientLeg::Closing { .. } | ClientLeg::Gone => true,
            ClientLeg::Detached { .. } => ending,
            ClientLeg::Open | ClientLeg::SaidClose(_) => false,
        };
        let alone = !self.client.is_detached() || self.comeback.is_some();
        let owed = self.client.is_open() || told && self.farewell.is_some();
        let fit = match &self.backend {
            BackendLeg::Attached(link) | BackendLeg::Leaving { link, stage: Leaving::Settling, .. } => {
                self.client.is_open() && known(link.attachment)
            }
            BackendLeg::Leaving { link, stage: Leaving::Parting, .. } => owed && known(link.attachment),
            BackendLeg::Detached { .. } | BackendLeg::Dialing { .. } => owed && self.outage.is_some(),
            BackendLeg::Closing { link, .. } => !self.client.is_open() && known(link.attachment),
            BackendLeg::Gone => told,
        };
        demand(fit && alone && last >= Attachment::FIRST && self.generation >= Generation::FIRST, "legs")
    }
}

impl Comeback {
    /// Reads what belongs to a client that may come back, and `asks` for what it has, of the messages up to `accepted`.
    fn thaw(input: &mut Reader<'_>, asks: bool, accepted: Seq) -> Read<Self> {
        let barrier = if asks { Some(Barrier::thaw(input, accepted)?) } else { None };
        Ok(Self { barrier, in_doubt: input.count()?, ending: input.option(Reader::close_frame)?, stuck_since: None })
    }
}

impl Lane {
    fn freeze(&self, out: &mut Writer) {
        // Its tokens stay behind: elsewhere, a lane begins with all of them.
        // So does the time since it is read, which begins anew like that of `fed_at`.
        let Self { assembler, buffer, began, paused, read_since: _, deaf, lost, dropped, payload_bytes, throttle: _ } =
            self;
        assembler.freeze(out);
        buffer.freeze(out);
        out.option(*began, Writer::time);
        out.flag(*paused);
        out.flag(*deaf);
        for count in [lost, dropped, payload_bytes] {
            out.count(*count);
        }
    }

    fn thaw(input: &mut Reader<'_>, sender: Side, retention: Retention, keeps_half: bool) -> Read<Self> {
        let assembler = Assembler::thaw(input, sender)?;
        let buffer = ReplayBuffer::thaw(input, retention, &assembler, keeps_half)?;
        Ok(Self {
            assembler,
            buffer,
            began: input.option(Reader::past)?,
            paused: input.flag()?,
            read_since: input.frozen_at(),
            deaf: input.flag()?,
            lost: input.count()?,
            dropped: input.count()?,
            payload_bytes: input.count()?,
            throttle: None,
        })
    }
}

impl Outage {
    fn freeze(&self, out: &mut Writer) {
        let Self { since, cause, previous, gap, round } = self;
        out.time(*since);
        cause.freeze(out);
        out.backend(*previous);
        out.option(*gap, |out, (first, last)| {
            out.seq(first);
            out.seq(last);
        });
        out.u32(*round);
    }

    fn thaw(input: &mut Reader<'_>) -> Read<Self> {
        let outage = Self {
            since: input.past()?,
            cause: Cause::thaw(input)?,
            previous: input.backend()?,
            gap: input.option(|input| Ok((input.seq()?, input.seq()?)))?,
            round: input.u32()?,
        };
        let ordered = outage.gap.is_none_or(|(first, last): (Seq, Seq)| first <= last);
        demand(ordered && outage.round < u32::MAX / 2, "outage")?;
        Ok(outage)
    }
}

fn freeze_policy(policy: ReplayPolicy, out: &mut Writer) {
    out.u8(match policy {
        ReplayPolicy::Unsent => 0,
        ReplayPolicy::Unconfirmed => 1,
        ReplayPolicy::None => 2,
    });
}

fn thaw_policy(input: &mut Reader<'_>) -> Read<ReplayPolicy> {
    match input.u8()? {
        0 => Ok(ReplayPolicy::Unsent),
        1 => Ok(ReplayPolicy::Unconfirmed),
        2 => Ok(ReplayPolicy::None),
        _ => Err(SnapshotError::Malformed("policy")),
    }
}

/// The settings with the policy that the pipe was opened with.
fn with_policy(settings: Arc<PipeSettings>, replay: ReplayPolicy) -> Arc<PipeSettings> {
    if settings.replay == replay { settings } else { Arc::new(PipeSettings { replay, ..(*settings).clone() }) }
}
