//! How a link's outgoing side ends: whatever form it writes, by one close frame, which nothing follows.

use crate::close::CloseFrame;
use crate::snapshot::{Read, Reader, SnapshotError, Writer};

/// Bytes of control frames that wait at most; a peer that pings on without reading gets one pong for its last ping.
pub(crate) const CONTROL_BYTES_MAX: usize = 1024;

/// Bytes of a half-written message that are kept for a link that another has replaced.
pub(crate) const REPLACED_BYTES_MAX: usize = 256 * 1024;

/// How far the end of a link has come.
#[derive(Debug)]
pub(crate) enum End {
    /// It goes on.
    Open,
    /// The close frame goes out, behind all accepted messages or instead of them.
    Wanted { frame: Box<CloseFrame>, flush: bool },
    /// The close frame is on its way.
    Said,
}

impl End {
    /// Asks for a close frame: behind all accepted messages if `flush`, else as soon as a half-written one is whole.
    ///
    /// Only the first end counts, except that one without `flush` overtakes one that still waits; whether this one does.
    pub fn ask(&mut self, frame: CloseFrame, flush: bool) -> bool {
        let counts = match self {
            Self::Open => true,
            Self::Wanted { flush: waits, .. } => *waits && !flush,
            Self::Said => false,
        };
        if counts {
            *self = Self::Wanted { frame: Box::new(frame), flush };
        }
        counts
    }

    pub fn freeze(&self, out: &mut Writer) {
        match self {
            Self::Open => out.u8(0),
            Self::Wanted { frame, flush } => {
                out.u8(1);
                out.close_frame(frame);
                out.flag(*flush);
            }
            Self::Said => out.u8(2),
        }
    }

    pub fn thaw(input: &mut Reader<'_>) -> Read<Self> {
        match input.u8()? {
            0 => Ok(Self::Open),
            1 => Ok(Self::Wanted { frame: Box::new(input.close_frame()?), flush: input.flag()? }),
            2 => Ok(Self::Said),
            _ => Err(SnapshotError::Malformed("ends of links")),
        }
    }
}
