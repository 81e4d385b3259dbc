//! A conversation in a snapshot: what it is, and the prologue with its place on the present link.

use super::aliases::Alias;
use super::prologue::{Entry, Play, Stage, is_class};
use super::streams::Stream;
use super::words::{Awaits, Name, Regret};
use super::{Conversation, Profiles, Prologue, PrologueBounds};
use crate::frame::Kind;
use crate::ids::Seq;
use crate::snapshot::{Read, Reader, SnapshotError, Writer, demand};

const PART: &str = "conversations";

/// Bytes of an entry in a snapshot at least.
const ENTRY_BYTES_MIN: usize = 32;

/// Bytes of what is open of a stream, in a snapshot, at least.
const OPEN_BYTES_MIN: usize = 17;

/// Set in what an entry awaits if names follow that workers have given it.
const HAS_ALIAS: u8 = 0x10;

/// Bytes of a profile's name at most.
const NAME_BYTES_MAX: usize = 128;

impl Conversation {
    pub(crate) fn freeze(&self, out: &mut Writer) {
        match self {
            Self::Undecided => out.u8(0),
            Self::Stateless => out.u8(1),
            Self::Profiled(prologue) => {
                out.u8(2);
                prologue.freeze(out);
            }
            Self::Stateful { opens_each_connection: false } => out.u8(3),
            Self::Stateful { opens_each_connection: true } => out.u8(4),
        }
    }

    /// Reads the conversation of a pipe that has taken in the client's messages up to `accepted`; its route has these
    /// profiles and bounds.
    pub(crate) fn thaw(
        input: &mut Reader<'_>,
        profiles: &Profiles,
        bounds: PrologueBounds,
        accepted: Seq,
    ) -> Read<Self> {
        Ok(match input.u8()? {
            0 => Self::Undecided,
            1 => Self::Stateless,
            2 => Self::Profiled(Box::new(Prologue::thaw(input, profiles, bounds, accepted)?)),
            3 => Self::Stateful { opens_each_connection: false },
            4 => Self::Stateful { opens_each_connection: true },
            _ => return Err(SnapshotError::Malformed(PART)),
        })
    }
}

impl Prologue {
    fn freeze(&self, out: &mut Writer) {
        let Self { profile, bounds: _, entries, bytes: _, up, down, open, repeatable, greeted, play, behind } = self;
        out.bytes(profile.name.as_bytes());
        out.flag(*repeatable);
        out.flag(*greeted);
        match play {
            Play::Over => out.u8(0),
            Play::Sending => out.u8(1),
            Play::Greeting { until } => {
                out.u8(2);
                out.time(*until);
            }
            Play::Gate { until } => {
                out.u8(3);
                out.time(*until);
            }
            Play::Starts { until } => {
                out.u8(4);
                out.time(*until);
            }
        }
        out.size(entries.len());
        entries.iter().for_each(|entry| entry.freeze(out));
        for stream in [up, down] {
            out.bytes(&stream.open);
            out.flag(stream.lost);
        }
        out.size(open.len());
        for (seq, kind, bytes) in open {
            out.seq(*seq);
            out.flag(*kind == Kind::Text);
            out.bytes(bytes);
        }
        out.option(*behind, Writer::seq);
    }

    fn thaw(input: &mut Reader<'_>, profiles: &Profiles, bounds: PrologueBounds, accepted: Seq) -> Read<Self> {
        let name = str::from_utf8(input.bytes(NAME_BYTES_MAX)?).ok();
        let profile = name.and_then(|name| profiles.named(name)).ok_or(SnapshotError::Malformed(PART))?;
        let mut prologue = Self::new(profile, bounds);
        prologue.repeatable = input.flag()?;
        prologue.greeted = input.flag()?;
        prologue.play = match input.u8()? {
            0 => Play::Over,
            1 => Play::Sending,
            2 => Play::Greeting { until: input.time()? },
            3 => Play::Gate { until: input.time()? },
            4 => Play::Starts { until: input.time()? },
            _ => return Err(SnapshotError::Malformed(PART)),
        };
        for _ in 0..input.entries(usize::MAX, ENTRY_BYTES_MIN)? {
            let entry = Entry::thaw(input)?;
            demand(entry.seq <= accepted && entry.gone_with.is_none_or(|seq| seq <= accepted), PART)?;
            prologue.bytes += entry.cost();
            prologue.entries.push(entry);
        }
        prologue.up = Stream { open: input.bytes(usize::MAX)?.to_vec(), lost: input.flag()? };
        prologue.down = Stream { open: input.bytes(usize::MAX)?.to_vec(), lost: input.flag()? };
        for _ in 0..input.entries(usize::MAX, OPEN_BYTES_MIN)? {
            let (seq, kind) = (input.seq()?, thaw_kind(input)?);
            let bytes: Box<[u8]> = input.bytes(usize::MAX)?.into();
            demand(seq <= accepted, PART)?;
            prologue.bytes += bytes.len();
            prologue.open.push_back((seq, kind, bytes));
        }
        prologue.behind = input.option(Reader::seq)?;
        Ok(prologue)
    }
}

fn thaw_kind(input: &mut Reader<'_>) -> Read<Kind> {
    Ok(if input.flag()? { Kind::Text } else { Kind::Binary })
}

impl Entry {
    fn freeze(&self, out: &mut Writer) {
        let Self { name, kind, bytes, once, awaits, answer, alias, seq, gone_with, answered, stage } = self;
        out.u8(name.class);
        out.bytes(&name.key);
        out.flag(*kind == Kind::Text);
        out.bytes(bytes);
        out.option(*once, |out, regret| {
            out.u8(match regret {
                Regret::GraphqlTransport => 0,
                Regret::GraphqlLegacy => 1,
                Regret::Trpc => 2,
                Regret::JsonRpc => 3,
                Regret::JsonRpcDone => 4,
            });
        });
        let awaits = match awaits {
            Awaits::Nothing => 0,
            Awaits::Answer => 1,
            Awaits::Gate => 2,
            Awaits::Start => 3,
        };
        out.u8(awaits | if alias.is_some() { HAS_ALIAS } else { 0 });
        out.bytes(answer);
        if let Some(Alias { worker, written }) = alias {
            out.option(worker.as_ref(), |out, name| out.bytes(name));
            out.option(written.as_ref(), |out, name| out.bytes(name));
        }
        out.seq(*seq);
        out.option(*gone_with, Writer::seq);
        out.flag(*answered);
        out.u8(match stage {
            Stage::Rest => 0,
            Stage::Due => 1,
            Stage::Asked => 2,
        });
    }

    fn thaw(input: &mut Reader<'_>) -> Read<Self> {
        let class = input.u8()?;
        demand(is_class(class), PART)?;
        let name = Name { class, key: input.bytes(usize::MAX)?.into() };
        let (kind, bytes) = (thaw_kind(input)?, input.bytes(usize::MAX)?.into());
        let once = input.option(|input| match input.u8()? {
            0 => Ok(Regret::GraphqlTransport),
            1 => Ok(Regret::GraphqlLegacy),
            2 => Ok(Regret::Trpc),
            3 => Ok(Regret::JsonRpc),
            4 => Ok(Regret::JsonRpcDone),
            _ => Err(SnapshotError::Malformed(PART)),
        })?;
        let code = input.u8()?;
        let has_alias = code & HAS_ALIAS != 0;
        let awaits = match code & !HAS_ALIAS {
            0 => Awaits::Nothing,
            1 => Awaits::Answer,
            2 => Awaits::Gate,
            3 => Awaits::Start,
            _ => return Err(SnapshotError::Malformed(PART)),
        };
        Ok(Self {
            name,
            kind,
            bytes,
            once,
            awaits,
            answer: input.bytes(usize::MAX)?.into(),
            alias: if has_alias { Some(Alias::thaw(input)?) } else { None },
            seq: input.seq()?,
            gone_with: input.option(Reader::seq)?,
            answered: input.flag()?,
            stage: match input.u8()? {
                0 => Stage::Rest,
                1 => Stage::Due,
                2 => Stage::Asked,
                _ => return Err(SnapshotError::Malformed(PART)),
            },
        })
    }
}

impl Alias {
    fn thaw(input: &mut Reader<'_>) -> Read<Self> {
        let name = |input: &mut Reader<'_>| Ok(input.bytes(usize::MAX)?.into());
        Ok(Self { worker: input.option(name)?, written: input.option(name)? })
    }
}
