//! A pipe goes to another process: frozen here, thawed there, with or without its links.
//!
//! It may be frozen at any moment between two of its calls, once its actions are carried out. Nothing of it is lost:
//! what waits, what may have to be sent again, half messages both ways, the rest of a half-written one, the ping that is
//! on its way, and how long ago everything happened. A dial does not survive, since a half-made connection cannot be handed
//! over; the thawed pipe orders another at once, with another number. Nor does a link that waits to take over.
//!
//! The process that froze it must not touch its links any more; the one that thaws it goes on reading and writing where
//! the other stopped. A link that did not come along is reported with [`Pipe::lost`] as any other that died.
//!
//! What the route says comes with the thaw and may have changed meanwhile, but for the replay policy, which decided
//! what was kept.

use std::collections::VecDeque;
use std::sync::Arc;

use super::aware::{AwarePipe, NumberedWorkers};
use super::{Action, End, Pipe, retention_up};
use crate::backoff::Draw;
use crate::conversation::Conversation;
use crate::frame::Side;
use crate::ids::BackendKey;
use crate::labels::Labels;
use crate::lane::Lane;
use crate::leg::{BackendLeg, BackendState, ClientLeg, ClientState, Link};
use crate::replay::Retention;
use crate::settings::{PipeSettings, ReplayPolicy, ReplayTail};
use crate::snapshot::{Read, Reader, Snapshot, SnapshotError, Writer, demand};
use crate::suspects::Suspects;
use crate::time::Time;

impl Pipe {
    /// Freezes the pipe as it is at `now`. Its actions must have been carried out: they are orders to this process.
    #[must_use]
    pub fn snapshot(&self, now: Time) -> Snapshot {
        debug_assert!(self.actions.is_empty(), "an order that was not carried out: {:?}", self.actions);
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
        if pipe.backend.state() == BackendState::Dialing {
            pipe.backend.dial_failed();
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
        self.backend.rename(&mut rename);
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
            backend,
            up,
            down,
            // The wait begins anew: longer than it has to be, but no clock comes along.
            fed_at: _,
            suspects,
            conversation,
            aware,
            numbered,
            compressed,
            farewell,
            labels,
            interruptions,
            end,
            actions: _,
        } = self;
        freeze_policy(settings.replay, out);
        out.flag(*compressed);
        out.flag(down.buffer.keeps_unconfirmed());
        client.freeze(out);
        backend.freeze(out);
        up.freeze(out);
        down.freeze(out);
        suspects.freeze(out);
        conversation.freeze(out);
        out.option(aware.as_deref(), |out, aware| aware.freeze(out));
        out.option(numbered.as_deref(), |out, numbered| numbered.freeze(out));
        out.option(farewell.as_deref(), Writer::close_frame);
        out.option(labels.as_deref(), |out, labels| labels.freeze(out));
        out.count(u64::from(*interruptions));
        out.flag(*end != End::NotYet);
    }

    fn thaw(input: &mut Reader<'_>, settings: Arc<PipeSettings>, draw: Draw) -> Read<Self> {
        let settings = with_policy(settings, thaw_policy(input)?);
        let compressed = input.flag()?;
        let retention_down = match input.flag()? {
            true => Retention::UntilConfirmed(ReplayTail::default()),
            false => Retention::UntilSent,
        };
        let client = ClientLeg::thaw(input)?;
        let backend = BackendLeg::thaw(input)?;
        let half_up = client.link().filter(|_| client.is_open());
        let up = Lane::thaw(input, Side::Client, retention_up(&settings), |rest| is_half(half_up, rest))?;
        let half_down = backend.link().filter(|_| client.takes_more());
        let down = Lane::thaw(input, Side::Backend, retention_down, |rest| is_half(half_down, rest))?;
        let suspects = Suspects::thaw(input)?;
        let conversation = Conversation::thaw(input, &settings.profiles, settings.prologue, up.buffer.accepted())?;
        let aware = input.option(|input| AwarePipe::thaw(input, &up.buffer).map(Box::new))?;
        let numbered = input.option(|input| NumberedWorkers::thaw(input).map(Box::new))?;
        let mut pipe = Self {
            client,
            backend,
            up,
            down,
            fed_at: input.frozen_at(),
            suspects,
            conversation,
            aware,
            numbered,
            compressed: false,
            farewell: input.option(Reader::close_frame)?.map(Box::new),
            labels: input.option(Labels::thaw)?.map(Arc::new),
            interruptions: u32::try_from(input.count()?).unwrap_or(u32::MAX),
            end: if input.flag()? { End::Reported } else { End::NotYet },
            actions: VecDeque::new(),
            settings,
            draw,
        };
        pipe.demand_legs()?;
        if compressed {
            pipe.allow_compressed();
        }
        pipe.check_text_of_links();
        Ok(pipe)
    }

    fn check_text_of_links(&mut self) {
        if !self.settings.check_utf8 {
            return;
        }
        for (side, link) in [(Side::Client, self.client.link_mut()), (Side::Backend, self.backend.link_mut())] {
            if let Some(link) = link {
                link.check_text(side);
            }
        }
    }

    /// What the legs owe each other: no pipe is thawed that would wait for nothing.
    fn demand_legs(&mut self) -> Read<()> {
        let told = match self.client.state() {
            ClientState::Closing | ClientState::Gone => true,
            ClientState::Detached => self.client.ending().is_some(),
            ClientState::Open | ClientState::SaidClose => false,
        };
        let owed = self.client.is_open() || told && self.farewell.is_some();
        let fit = match self.backend.state() {
            BackendState::Attached | BackendState::Settling => self.client.is_open(),
            BackendState::Parting(_) | BackendState::Detached | BackendState::Dialing => owed,
            BackendState::Closing => !self.client.is_open(),
            BackendState::Gone => told,
        };
        demand(fit, "legs")?;
        let is_aware = self.aware.is_some();
        demand(self.client.link().is_none_or(|link| link.codec.is_aware() == is_aware), "legs")?;
        demand(!is_aware || self.down.buffer.keeps_unconfirmed(), "legs")?;
        demand(self.numbered.is_some() || !self.has_numbered_worker(), "legs")?;
        for (link, lane) in [(self.client.link_mut(), &self.down), (self.backend.link_mut(), &self.up)] {
            link.map_or(Ok(()), |link| link.fit(&lane.buffer))?;
        }
        Ok(())
    }
}

/// Whether `bytes` are what has come over `link` of a message that is not whole; nothing, where there is no link.
fn is_half(link: Option<&Link>, bytes: &[u8]) -> bool {
    link.map_or(bytes.is_empty(), |link| link.codec.has_taken(bytes))
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
