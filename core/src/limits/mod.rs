//! How much a client may do, as pure decisions: a sliding window ([`window`]) and a table of who did how much lately
//! ([`table`]) for connections, a token bucket ([`bucket`]) for what goes through a pipe.
//!
//! Nothing here knows an address or a clock: the caller says who it is about, as a number, and when. No entry has a
//! timer; what is over is noticed when something else happens.

pub mod bucket;
pub mod table;
pub mod window;

use std::time::Duration;

/// So many things in so much time; a count of zero is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Things (connections, messages or bytes); 0 is no limit.
    pub count: u64,
    /// The time they may take; one second, minute or hour.
    pub per: Duration,
}

impl Rate {
    /// No limit.
    pub const OFF: Self = Self::new(0, Duration::from_secs(60));

    /// `count` things `per` so much time.
    #[must_use]
    pub const fn new(count: u64, per: Duration) -> Self {
        Self { count, per }
    }

    /// Whether there is no limit.
    #[must_use]
    pub const fn is_off(self) -> bool {
        self.count == 0
    }
}

/// The limits of one route, each instead of the general one; nothing of a kind is counted with other routes then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RouteLimits {
    /// Connections at once per route key and client address.
    pub key_connections: Option<u32>,
    /// New connections per route key and client address.
    pub key_rate: Option<Rate>,
    /// Connections at once per client address.
    pub address_connections: Option<u32>,
    /// New connections and plain requests per client address.
    pub address_rate: Option<Rate>,
    /// Whether answers to plain requests say how far they are from `address_rate`.
    pub headers: bool,
}

/// Which limit a lane of a pipe met.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PipeLimit {
    /// `limits.pipe_messages`.
    Messages,
    /// `limits.pipe_bytes`.
    Bytes,
}

impl PipeLimit {
    /// What a client that sent too much is told.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Messages => "too many messages",
            Self::Bytes => "too many bytes",
        }
    }
}
