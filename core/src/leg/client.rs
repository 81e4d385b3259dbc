//! The client leg: what it may be doing, and every step from one state to another.
//!
//! ```text
//!     Open -- say_close --> SaidClose -- close --> Closing
//!     |  ^ |----------------- close -----------------^  |
//!     |  |                                              |
//!     |  +-- attach -- Detached <------ detach ---------+  one that was not told of its worker's end
//!     +--- detach ---------^
//!
//!     any of them -- end --> Gone
//! ```
//!
//! The variants are private: another file asks for a [`ClientState`], and calls the method of a step. A step that the state
//! does not allow changes nothing.
//!
//! Invariant: no two attaches have one number. News that bear another number than the current one are late and change
//! nothing.

use crate::close::CloseFrame;
use crate::frame::Side;
use crate::ids::Generation;
use crate::leg::link::Link;
use crate::snapshot::{Read, Reader, SnapshotError, Writer, demand};
use crate::time::Time;

/// What the client leg is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ClientState {
    /// The conversation goes on.
    Open,
    /// Its link is gone, and it may come back.
    Detached,
    /// Its close frame came; ours waits for the worker's answer.
    SaidClose,
    /// Our close frame is on its way, or said.
    Closing,
    /// There is no client, and none is awaited.
    Gone,
}

#[derive(Debug)]
pub(crate) struct ClientLeg {
    /// The last attach.
    generation: Generation,
    /// Whether a client whose link is lost may come back.
    returns: bool,
    state: Client,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a pipe is linked nearly all its life, and a box would stand in the way of each message"
)]
enum Client {
    Linked {
        link: Link,
        /// Since when the client has taken nothing of what waits for it.
        stalled_since: Option<Time>,
        stage: Talk,
    },
    Detached {
        since: Time,
        /// What the worker said at its end, which the client has not been told.
        ending: Option<Box<CloseFrame>>,
    },
    Gone,
}

/// How far the conversation on a link has come.
#[derive(Debug)]
enum Talk {
    Open,
    SaidClose(Box<CloseFrame>),
    Closing { deadline: Time, heard: Heard, ending: Option<Box<CloseFrame>> },
}

/// What the client of a link that is being closed has said.
#[derive(Clone, Copy, Debug)]
struct Heard {
    /// Its close frame came.
    close: bool,
    /// What it says no longer counts: the pipe ends by its fault.
    deaf: bool,
}

/// What there is.
impl ClientLeg {
    /// The leg of a pipe whose client is there on `link`.
    pub const fn open(link: Link, returns: bool) -> Self {
        let state = Client::Linked { link, stalled_since: None, stage: Talk::Open };
        Self { generation: Generation::FIRST, returns, state }
    }

    /// The last attach.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether a client that is lost may come back, as long as it has not been told of the end.
    pub const fn returns(&self) -> bool {
        self.returns
    }

    pub const fn link(&self) -> Option<&Link> {
        match &self.state {
            Client::Linked { link, .. } => Some(link),
            Client::Detached { .. } | Client::Gone => None,
        }
    }

    pub const fn link_mut(&mut self) -> Option<&mut Link> {
        match &mut self.state {
            Client::Linked { link, .. } => Some(link),
            Client::Detached { .. } | Client::Gone => None,
        }
    }

    /// The link of a client that has not said its close frame.
    pub const fn link_mut_before_close(&mut self) -> Option<&mut Link> {
        match &mut self.state {
            Client::Linked {
                stage: Talk::SaidClose(_) | Talk::Closing { heard: Heard { close: true, .. }, .. },
                ..
            } => None,
            Client::Linked { link, .. } => Some(link),
            Client::Detached { .. } | Client::Gone => None,
        }
    }

    pub const fn state(&self) -> ClientState {
        match &self.state {
            Client::Linked { stage: Talk::Open, .. } => ClientState::Open,
            Client::Linked { stage: Talk::SaidClose(_), .. } => ClientState::SaidClose,
            Client::Linked { stage: Talk::Closing { .. }, .. } => ClientState::Closing,
            Client::Detached { .. } => ClientState::Detached,
            Client::Gone => ClientState::Gone,
        }
    }

    /// Whether the conversation goes on, on a link or once the client is back.
    pub const fn is_open(&self) -> bool {
        matches!(self.state, Client::Linked { stage: Talk::Open, .. } | Client::Detached { .. })
    }

    /// Whether the conversation goes on, and the client is there.
    pub const fn is_talking(&self) -> bool {
        matches!(self.state, Client::Linked { stage: Talk::Open, .. })
    }

    /// Whether messages for it are taken in: until it is told of the end.
    pub const fn takes_more(&self) -> bool {
        match self.state() {
            ClientState::Open | ClientState::Detached | ClientState::SaidClose => true,
            ClientState::Closing | ClientState::Gone => false,
        }
    }

    /// Whether it is awaited.
    pub const fn is_detached(&self) -> bool {
        matches!(self.state, Client::Detached { .. })
    }

    /// Whether there is a link to write to.
    pub const fn is_linked(&self) -> bool {
        self.link().is_some()
    }

    /// Whether `generation` is the link that is live now.
    pub fn is_current(&self, generation: Generation) -> bool {
        self.generation == generation && self.is_linked()
    }

    /// Whether what the client says no longer counts.
    pub const fn is_deaf(&self) -> bool {
        matches!(self.state, Client::Linked { stage: Talk::Closing { heard: Heard { deaf: true, .. }, .. }, .. })
    }

    /// Whether both close frames are said as soon as ours has left.
    pub const fn closes_last(&self) -> bool {
        matches!(self.state, Client::Linked { stage: Talk::Closing { heard: Heard { close: true, .. }, .. }, .. })
    }

    /// The client's close frame, while it waits for its answer.
    pub fn said_close(&self) -> Option<&CloseFrame> {
        match &self.state {
            Client::Linked { stage: Talk::SaidClose(frame), .. } => Some(frame),
            Client::Linked { .. } | Client::Detached { .. } | Client::Gone => None,
        }
    }

    /// What the worker said at its end, which the client has not been told for certain.
    pub fn ending(&self) -> Option<&CloseFrame> {
        match &self.state {
            Client::Linked { stage: Talk::Closing { ending, .. }, .. } | Client::Detached { ending, .. } => {
                ending.as_deref()
            }
            Client::Linked { stage: Talk::Open | Talk::SaidClose(_), .. } | Client::Gone => None,
        }
    }

    /// Whether a client whose link is lost now may come back.
    pub fn may_come_back(&self) -> bool {
        self.returns
            && match &self.state {
                Client::Linked { stage: Talk::Open, .. } => true,
                // It has not been told that its worker has ended the conversation, nor all that came before.
                Client::Linked { link, stage: Talk::Closing { heard, ending, .. }, .. } => {
                    ending.is_some() && !heard.close && !heard.deaf && !link.codec.is_close_written()
                }
                Client::Linked { stage: Talk::SaidClose(_), .. } | Client::Detached { .. } | Client::Gone => false,
            }
    }

    /// Since when it is awaited.
    pub const fn away_since(&self) -> Option<Time> {
        match &self.state {
            Client::Detached { since, .. } => Some(*since),
            Client::Linked { .. } | Client::Gone => None,
        }
    }

    /// Until when a close frame is to be answered.
    pub const fn closes_at(&self) -> Option<Time> {
        match &self.state {
            Client::Linked { stage: Talk::Closing { deadline, .. }, .. } => Some(*deadline),
            Client::Linked { .. } | Client::Detached { .. } | Client::Gone => None,
        }
    }

    /// Since when the client has taken nothing of what waits for it.
    pub const fn stalled_since(&self) -> Option<Time> {
        match &self.state {
            Client::Linked { stalled_since, .. } => *stalled_since,
            Client::Detached { .. } | Client::Gone => None,
        }
    }

    /// Notes since when the client has taken nothing of what waits for it.
    pub const fn set_stalled(&mut self, since: Option<Time>) {
        if let Client::Linked { stalled_since, .. } = &mut self.state {
            *stalled_since = since;
        }
    }
}

/// The steps.
impl ClientLeg {
    /// Detached to Open: the number of the attach, and what the worker said at its end. A link that there still is must
    /// have been detached.
    pub fn attach(&mut self, link: Link, stalled_since: Option<Time>) -> Option<(Generation, Option<Box<CloseFrame>>)> {
        let Client::Detached { ending, .. } = &mut self.state else { return None };
        let ending = ending.take();
        self.generation = self.generation.next();
        self.state = Client::Linked { link, stalled_since, stage: Talk::Open };
        Some((self.generation, ending))
    }

    /// Linked to Detached.
    pub fn detach(&mut self, now: Time) {
        self.state = match std::mem::replace(&mut self.state, Client::Gone) {
            Client::Linked { stage: Talk::Closing { ending, .. }, .. } => Client::Detached { since: now, ending },
            Client::Linked { stage: Talk::Open | Talk::SaidClose(_), .. } => {
                Client::Detached { since: now, ending: None }
            }
            state @ (Client::Detached { .. } | Client::Gone) => state,
        };
    }

    /// Open to SaidClose, or Closing to Closing, where both close frames are said now; whether the worker is to be told.
    pub fn say_close(&mut self, frame: &CloseFrame) -> bool {
        let Client::Linked { stage, .. } = &mut self.state else { return false };
        match stage {
            Talk::Open => {
                *stage = Talk::SaidClose(Box::new(frame.clone()));
                true
            }
            Talk::Closing { heard, .. } => {
                heard.close = true;
                false
            }
            Talk::SaidClose(_) => false,
        }
    }

    /// Open or SaidClose to Closing.
    pub fn close(&mut self, deadline: Time) {
        let Client::Linked { stage, .. } = &mut self.state else { return };
        let close = matches!(stage, Talk::SaidClose(_));
        *stage = Talk::Closing { deadline, heard: Heard { close, deaf: false }, ending: None };
    }

    /// Closing to Closing: what the client says no longer counts. One that has said goodbye has only pongs left to say, and
    /// they still tell what it has.
    pub const fn stop_hearing(&mut self) {
        if !self.closes_last() {
            self.turn_deaf();
        }
    }

    /// Closing to Closing: nothing that the client says makes sense any more.
    pub const fn turn_deaf(&mut self) {
        if let Client::Linked { stage: Talk::Closing { heard, .. }, .. } = &mut self.state {
            heard.deaf = true;
        }
    }

    /// Notes what the worker said at its end: a client that may come back is told so on the link that it comes on.
    pub fn set_ending(&mut self, frame: CloseFrame) {
        if !self.returns {
            return;
        }
        if let Client::Linked { stage: Talk::Closing { ending, .. }, .. } | Client::Detached { ending, .. } =
            &mut self.state
        {
            *ending = Some(Box::new(frame));
        }
    }

    /// Closing to Closing: what a client that may come back is told of the end is another thing now, or no longer awaited.
    pub fn change_ending(&mut self, frame: Option<&CloseFrame>) {
        if let Client::Linked { stage: Talk::Closing { ending, .. }, .. } = &mut self.state
            && ending.is_some()
        {
            *ending = frame.cloned().map(Box::new);
        }
    }

    /// Any to Gone; whether there was a link, which is to be dropped.
    pub fn end(&mut self) -> bool {
        matches!(std::mem::replace(&mut self.state, Client::Gone), Client::Linked { .. })
    }
}

const PART: &str = "legs";

impl Talk {
    fn freeze(&self, out: &mut Writer) {
        match self {
            Self::Open => out.u8(0),
            Self::SaidClose(frame) => {
                out.u8(1);
                out.close_frame(frame);
            }
            Self::Closing { deadline, heard: Heard { close, deaf }, ending } => {
                out.u8(2);
                out.time(*deadline);
                out.flag(*close);
                out.flag(*deaf);
                out.option(ending.as_deref(), Writer::close_frame);
            }
        }
    }

    fn thaw(input: &mut Reader<'_>) -> Read<Self> {
        Ok(match input.u8()? {
            0 => Self::Open,
            1 => Self::SaidClose(Box::new(input.close_frame()?)),
            2 => Self::Closing {
                deadline: input.time()?,
                heard: Heard { close: input.flag()?, deaf: input.flag()? },
                ending: input.option(Reader::close_frame)?.map(Box::new),
            },
            _ => return Err(SnapshotError::Malformed(PART)),
        })
    }
}

impl ClientLeg {
    pub fn freeze(&self, out: &mut Writer) {
        let Self { generation, returns, state } = self;
        out.count(generation.0);
        out.flag(*returns);
        match state {
            Client::Linked { link, stalled_since, stage } => {
                out.u8(0);
                link.freeze(out);
                out.option(*stalled_since, Writer::time);
                stage.freeze(out);
            }
            Client::Detached { since, ending } => {
                out.u8(1);
                out.time(*since);
                out.option(ending.as_deref(), Writer::close_frame);
            }
            Client::Gone => out.u8(2),
        }
    }

    pub fn thaw(input: &mut Reader<'_>) -> Read<Self> {
        let generation = Generation(input.count()?);
        let returns = input.flag()?;
        let state = match input.u8()? {
            0 => Client::Linked {
                link: Link::thaw(input, Side::Client)?,
                stalled_since: input.option(Reader::past)?,
                stage: Talk::thaw(input)?,
            },
            1 => Client::Detached { since: input.past()?, ending: input.option(Reader::close_frame)?.map(Box::new) },
            2 => Client::Gone,
            _ => return Err(SnapshotError::Malformed(PART)),
        };
        demand(generation >= Generation::FIRST && (returns || !matches!(state, Client::Detached { .. })), PART)?;
        Ok(Self { generation, returns, state })
    }
}
