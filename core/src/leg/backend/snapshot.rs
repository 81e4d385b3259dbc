//! The backend leg in a snapshot. A dial and a worker that waits stay behind; only that there was to be one goes along.

use super::{Backend, BackendLeg, Leaving, Next, Stage, Worker};
use crate::frame::Side;
use crate::ids::{Attachment, Seq};
use crate::leg::link::Link;
use crate::leg::outage::{Cause, Outage};
use crate::snapshot::{Read, Reader, SnapshotError, Writer, demand};

const PART: &str = "legs";

impl Worker {
    fn freeze(&self, out: &mut Writer) {
        let Self { attachment, link, backend, fed_from, first_again, talked, settled, delayed_until, outage } = self;
        out.count(attachment.0);
        link.freeze(out);
        out.backend(*backend);
        out.time(*fed_from);
        out.option(*first_again, Writer::seq);
        out.flag(*talked);
        out.flag(*settled);
        out.option(*delayed_until, Writer::time);
        out.option(outage.as_ref(), |out, outage| outage.freeze(out));
    }

    /// Reads the worker of a leg whose last attach had the number `last`.
    fn thaw(input: &mut Reader<'_>, last: Attachment) -> Read<Self> {
        let attachment = Attachment(input.count()?);
        demand((Attachment::FIRST..=last).contains(&attachment), PART)?;
        Ok(Self {
            attachment,
            link: Link::thaw(input, Side::Backend)?,
            backend: input.backend()?,
            fed_from: input.time()?,
            first_again: input.option(Reader::seq)?,
            talked: input.flag()?,
            settled: input.flag()?,
            delayed_until: input.option(Reader::time)?,
            outage: input.option(Outage::thaw)?,
        })
    }
}

impl Stage {
    fn freeze(&self, out: &mut Writer) {
        match self {
            Self::Attached => out.u8(0),
            Self::Leaving { step, cause, deadline, next } => {
                out.u8(1);
                out.u8(match (step, next) {
                    (Leaving::Settling, Next::Nothing) => 0,
                    // It is looked for when the old one has gone.
                    (Leaving::Parting, Next::Nothing | Next::Dial { .. } | Next::Waiting(_)) => 1,
                    (Leaving::Settling, Next::Dial { .. } | Next::Waiting(_)) => 2,
                });
                cause.freeze(out);
                out.time(*deadline);
            }
            Self::Closing { deadline } => {
                out.u8(2);
                out.time(*deadline);
            }
        }
    }

    fn thaw(input: &mut Reader<'_>) -> Read<Self> {
        Ok(match input.u8()? {
            0 => Self::Attached,
            1 => {
                let (step, next) = match input.u8()? {
                    0 => (Leaving::Settling, Next::Nothing),
                    1 => (Leaving::Parting, Next::Nothing),
                    2 => (Leaving::Settling, Next::Dial { first_seq: Seq::default() }),
                    _ => return Err(SnapshotError::Malformed(PART)),
                };
                Self::Leaving { step, cause: Cause::thaw(input)?, deadline: input.time()?, next }
            }
            2 => Self::Closing { deadline: input.time()? },
            _ => return Err(SnapshotError::Malformed(PART)),
        })
    }
}

impl BackendLeg {
    pub fn freeze(&self, out: &mut Writer) {
        let Self { last, state } = self;
        out.count(last.0);
        match state {
            Backend::Linked { worker, stage } => {
                out.u8(0);
                worker.freeze(out);
                stage.freeze(out);
            }
            Backend::Detached { outage, retry_at } => {
                out.u8(1);
                outage.freeze(out);
                out.option(*retry_at, Writer::time);
            }
            Backend::Dialing { outage } => {
                out.u8(2);
                outage.freeze(out);
            }
            Backend::Gone => out.u8(3),
        }
    }

    pub fn thaw(input: &mut Reader<'_>) -> Read<Self> {
        let last = Attachment(input.count()?);
        demand(last >= Attachment::FIRST, PART)?;
        let state = match input.u8()? {
            0 => Backend::Linked { worker: Worker::thaw(input, last)?, stage: Stage::thaw(input)? },
            1 => Backend::Detached { outage: Outage::thaw(input)?, retry_at: input.option(Reader::time)? },
            2 => Backend::Dialing { outage: Outage::thaw(input)? },
            3 => Backend::Gone,
            _ => return Err(SnapshotError::Malformed(PART)),
        };
        Ok(Self { last, state })
    }
}
