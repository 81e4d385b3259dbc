//! An outage: since when there is no worker, why, and what came of the search for another.

use crate::close::CloseFrame;
use crate::ids::{BackendKey, Seq};
use crate::snapshot::{Read, Reader, SnapshotError, Writer, demand};
use crate::time::Time;

/// Why a backend leg was detached, as the next worker is told (`Holdline-Cause`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The link died.
    Crash,
    /// The worker closed it.
    Close,
    /// The worker is being drained.
    Drain,
    /// An operator moved the pipe.
    Admin,
    /// Holdline moved the pipe by itself: to spread the load, or on to another process.
    Handover,
}

impl Cause {
    /// The cause's name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Close => "close",
            Self::Drain => "drain",
            Self::Admin => "admin",
            Self::Handover => "handover",
        }
    }

    /// Whether the worker was asked to go and went in good order.
    #[must_use]
    pub const fn is_planned(self) -> bool {
        match self {
            Self::Drain | Self::Admin | Self::Handover => true,
            Self::Crash | Self::Close => false,
        }
    }
}

/// The time since a worker was lost, until the next one has shown that it works.
#[derive(Debug)]
pub(crate) struct Outage {
    pub since: Time,
    pub cause: Cause,
    pub previous: BackendKey,
    /// Messages that will never be sent though they are not confirmed, first and last.
    pub gap: Option<(Seq, Seq)>,
    /// Rounds of dials that found no worker.
    pub round: u32,
    /// The pool has changed since the dial under way was ordered: that it finds no candidate is old news.
    pub changed: bool,
    /// What a wrong worker said, to be passed on when no right one is left.
    pub wrong_worker: Option<Box<CloseFrame>>,
}

const PART: &str = "outage";

impl Cause {
    pub(super) fn freeze(self, out: &mut Writer) {
        out.u8(match self {
            Self::Crash => 0,
            Self::Close => 1,
            Self::Drain => 2,
            Self::Admin => 3,
            Self::Handover => 4,
        });
    }

    pub(super) fn thaw(input: &mut Reader<'_>) -> Read<Self> {
        match input.u8()? {
            0 => Ok(Self::Crash),
            1 => Ok(Self::Close),
            2 => Ok(Self::Drain),
            3 => Ok(Self::Admin),
            4 => Ok(Self::Handover),
            _ => Err(SnapshotError::Malformed(PART)),
        }
    }
}

impl Outage {
    pub fn freeze(&self, out: &mut Writer) {
        // The next process asks its own pool anew.
        let Self { since, cause, previous, gap, round, changed: _, wrong_worker } = self;
        out.time(*since);
        cause.freeze(out);
        out.backend(*previous);
        out.option(*gap, |out, (first, last)| {
            out.seq(first);
            out.seq(last);
        });
        out.u32(*round);
        out.option(wrong_worker.as_deref(), Writer::close_frame);
    }

    pub fn thaw(input: &mut Reader<'_>) -> Read<Box<Self>> {
        let outage = Self {
            since: input.past()?,
            cause: Cause::thaw(input)?,
            previous: input.backend()?,
            gap: input.option(|input| Ok((input.seq()?, input.seq()?)))?,
            round: input.u32()?,
            changed: false,
            wrong_worker: input.option(Reader::close_frame)?.map(Box::new),
        };
        let ordered = outage.gap.is_none_or(|(first, last): (Seq, Seq)| first <= last);
        demand(ordered && outage.round < u32::MAX / 2, PART)?;
        Ok(Box::new(outage))
    }
}
