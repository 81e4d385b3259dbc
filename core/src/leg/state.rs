//! The two legs of a pipe: what each may be doing, and which news about a link is too old to matter.
//!
//! ```text
//!  backend leg
//!                      lost                       dial
//!    Attached ------------------------> Detached ------> Dialing
//!      |   ^                               ^  ^             |
//!      |   +------------- attached --------|--|-------------+
//!      | leave                             |  +--- failed --+
//!      v            pong, close, or time   |
//!    Leaving ------------------------------+
//!      |   while it dials or holds its next worker, a dial that fails leads back to Attached,
//!      +-- and one that holds leads from the old worker's end to Attached without a pause
//!
//!    any of them -- the pipe ends --> Closing -- close answered, lost, or time --> Gone
//!
//!  client leg
//!
//!    Open -- its close frame --> SaidClose --> Closing --> Gone
//!    |  ^ |---- ours ----------------------------^          ^
//!    |  | +---- vanished, and may not come back ------------+
//!    |  +---- back on another link ----+                    |
//!    +------- vanished ----------> Detached ---- time ------+
//! ```
//!
//! Every attach of either leg has a number of its own; news that bear another number than the current one are late
//! and change nothing.

use crate::close::CloseFrame;
use crate::ids::{Attachment, BackendKey, Seq};
use crate::pipe::{PipeState, ResumeAnswer};
use crate::snapshot::{Read, Reader, SnapshotError, Writer};
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

/// A live attach of a backend.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub attachment: Attachment,
    pub backend: BackendKey,
    /// Since when it gets messages: its attach, or the end of the replay's delay.
    pub fed_from: Time,
    /// First message that was sent again to this worker.
    pub first_again: Option<Seq>,
    /// Whether it has sent a data message.
    pub talked: bool,
    /// Whether it has outlived a quick death, by time or by talking.
    pub settled: bool,
    /// Until when the replay waits for an old worker to finish its queue.
    pub hold_until: Option<Time>,
}

/// How far a planned move has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leaving {
    /// Waiting for the pong behind the last message sent.
    Settling,
    /// Close 1001 is on its way, or said; the worker finishes what it has to say.
    Parting,
}

/// Who takes over from a worker that is being left.
#[derive(Debug)]
pub(crate) enum Next {
    /// Nobody yet: another is looked for once the old one is gone.
    Nobody,
    /// A dial is under way, and the old worker is told nothing before it has succeeded.
    Dialing { attachment: Attachment, first_seq: Seq },
    /// It has answered and waits.
    Held(Held),
}

/// A worker that has answered while the old one is still there.
#[derive(Debug)]
pub(crate) struct Held {
    pub attachment: Attachment,
    pub backend: BackendKey,
    pub resume: Option<ResumeAnswer>,
    /// The message that it was told it would be sent first.
    pub first_seq: Seq,
}

#[derive(Debug)]
pub(crate) enum BackendLeg {
    Attached(Attached),
    Leaving { link: Attached, stage: Leaving, cause: Cause, deadline: Time, next: Next },
    Detached { retry_at: Option<Time> },
    Dialing { attachment: Attachment },
    Closing { link: Attached, deadline: Time },
    Gone,
}

impl BackendLeg {
    /// The live link, in whatever state it is.
    pub const fn link(&self) -> Option<&Attached> {
        match self {
            Self::Attached(link) | Self::Leaving { link, .. } | Self::Closing { link, .. } => Some(link),
            Self::Detached { .. } | Self::Dialing { .. } | Self::Gone => None,
        }
    }

    pub const fn link_mut(&mut self) -> Option<&mut Attached> {
        match self {
            Self::Attached(link) | Self::Leaving { link, .. } | Self::Closing { link, .. } => Some(link),
            Self::Detached { .. } | Self::Dialing { .. } | Self::Gone => None,
        }
    }

    /// Whether `attachment` is the link that is live now.
    pub fn is_current(&self, attachment: Attachment) -> bool {
        self.link().is_some_and(|link| link.attachment == attachment)
    }

    /// Who would take over now, taken out of the leg.
    pub const fn take_next(&mut self) -> Next {
        match self {
            Self::Leaving { next, .. } => std::mem::replace(next, Next::Nobody),
            Self::Attached(_) | Self::Detached { .. } | Self::Dialing { .. } | Self::Closing { .. } | Self::Gone => {
                Next::Nobody
            }
        }
    }

    /// Whether the dial of `attachment` is under way for the worker after the one that is being left.
    pub fn dials_next(&self, attachment: Attachment) -> bool {
        matches!(self, Self::Leaving { next: Next::Dialing { attachment: current, .. }, .. } if *current == attachment)
    }

    /// Whether `attachment` is the one that waits to take over.
    pub fn holds(&self, attachment: Attachment) -> bool {
        matches!(self, Self::Leaving { next: Next::Held(held), .. } if held.attachment == attachment)
    }

    /// Whether client messages flow to a worker.
    pub const fn is_attached(&self) -> bool {
        match self {
            Self::Attached(_) => true,
            Self::Leaving { .. } | Self::Detached { .. } | Self::Dialing { .. } | Self::Closing { .. } | Self::Gone => {
                false
            }
        }
    }

    /// What the pipe is doing as far as its backend leg goes.
    pub const fn state(&self) -> PipeState {
        match self {
            Self::Attached(_) => PipeState::Attached,
            Self::Leaving { .. } => PipeState::Leaving,
            Self::Detached { .. } | Self::Dialing { .. } => PipeState::Detached,
            Self::Closing { .. } | Self::Gone => PipeState::Closing,
        }
    }
}

#[derive(Debug)]
pub(crate) enum ClientLeg {
    Open,
    /// Its link is gone, and it may come back.
    Detached {
        since: Time,
    },
    /// Its close frame came; ours waits for the worker's answer.
    SaidClose(CloseFrame),
    /// Our close frame is on its way, or said.
    Closing {
        deadline: Time,
        said_close: bool,
    },
    Gone,
}

impl ClientLeg {
    /// Whether the conversation goes on, on a link or once the client is back.
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::Open | Self::Detached { .. })
    }

    /// Whether it is awaited.
    pub const fn is_detached(&self) -> bool {
        matches!(self, Self::Detached { .. })
    }

    /// Whether there is a link to write to.
    pub const fn is_linked(&self) -> bool {
        match self {
            Self::Open | Self::SaidClose(_) | Self::Closing { .. } => true,
            Self::Detached { .. } | Self::Gone => false,
        }
    }
}

const PART: &str = "legs";

impl Cause {
    pub(crate) fn freeze(self, out: &mut Writer) {
        out.u8(match self {
            Self::Crash => 0,
            Self::Close => 1,
            Self::Drain => 2,
            Self::Admin => 3,
            Self::Handover => 4,
        });
    }

    pub(crate) fn thaw(input: &mut Reader<'_>) -> Read<Self> {
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

impl Attached {
    fn freeze(&self, out: &mut Writer) {
        let Self { attachment, backend, fed_from, first_again, talked, settled, hold_until } = self;
        out.count(attachment.0);
        out.backend(*backend);
        out.time(*fed_from);
        out.option(*first_again, Writer::seq);
        out.flag(*talked);
        out.flag(*settled);
        out.option(*hold_until, Writer::time);
    }

    fn thaw(input: &mut Reader<'_>) -> Read<Self> {
        Ok(Self {
            attachment: Attachment(input.count()?),
            backend: input.backend()?,
            fed_from: input.time()?,
            first_again: input.option(Reader::seq)?,
            talked: input.flag()?,
            settled: input.flag()?,
            hold_until: input.option(Reader::time)?,
        })
    }
}

impl BackendLeg {
    /// Writes the leg; a dial and a link that waits stay behind, only that there was to be one goes along.
    pub fn freeze(&self, out: &mut Writer) {
        match self {
            Self::Attached(link) => {
                out.u8(0);
                link.freeze(out);
            }
            Self::Leaving { link, stage, cause, deadline, next } => {
                out.u8(1);
                link.freeze(out);
                out.u8(match (stage, next) {
                    (Leaving::Settling, Next::Nobody) => 0,
                    // It is looked for when the old one has gone.
                    (Leaving::Parting, Next::Nobody | Next::Dialing { .. } | Next::Held(_)) => 1,
                    (Leaving::Settling, Next::Dialing { .. } | Next::Held(_)) => 2,
                });
                cause.freeze(out);
                out.time(*deadline);
            }
            Self::Detached { retry_at } => {
                out.u8(2);
                out.option(*retry_at, Writer::time);
            }
            Self::Dialing { attachment: _ } => out.u8(3),
            Self::Closing { link, deadline } => {
                out.u8(4);
                link.freeze(out);
                out.time(*deadline);
            }
            Self::Gone => out.u8(5),
        }
    }

    /// Reads the leg of a pipe whose last attach had the number `last`.
    pub fn thaw(input: &mut Reader<'_>, last: Attachment) -> Read<Self> {
        Ok(match input.u8()? {
            0 => Self::Attached(Attached::thaw(input)?),
            1 => {
                let link = Attached::thaw(input)?;
                let (stage, next) = match input.u8()? {
                    0 => (Leaving::Settling, Next::Nobody),
                    1 => (Leaving::Parting, Next::Nobody),
                    2 => (Leaving::Settling, Next::Dialing { attachment: last, first_seq: Seq::default() }),
                    _ => return Err(SnapshotError::Malformed(PART)),
                };
                Self::Leaving { link, stage, cause: Cause::thaw(input)?, deadline: input.time()?, next }
            }
            2 => Self::Detached { retry_at: input.option(Reader::time)? },
            3 => Self::Dialing { attachment: last },
            4 => Self::Closing { link: Attached::thaw(input)?, deadline: input.time()? },
            5 => Self::Gone,
            _ => return Err(SnapshotError::Malformed(PART)),
        })
    }
}

impl ClientLeg {
    pub fn freeze(&self, out: &mut Writer) {
        match self {
            Self::Open => out.u8(0),
            Self::SaidClose(frame) => {
                out.u8(1);
                out.close_frame(frame);
            }
            Self::Closing { deadline, said_close } => {
                out.u8(2);
                out.time(*deadline);
                out.flag(*said_close);
            }
            Self::Gone => out.u8(3),
            Self::Detached { since } => {
                out.u8(4);
                out.time(*since);
            }
        }
    }

    pub fn thaw(input: &mut Reader<'_>) -> Read<Self> {
        Ok(match input.u8()? {
            0 => Self::Open,
            1 => Self::SaidClose(input.close_frame()?),
            2 => Self::Closing { deadline: input.time()?, said_close: input.flag()? },
            3 => Self::Gone,
            4 => Self::Detached { since: input.past()? },
            _ => return Err(SnapshotError::Malformed(PART)),
        })
    }
}
