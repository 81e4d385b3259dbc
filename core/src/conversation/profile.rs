//! The protocols that a prologue can be kept of.
//!
//! A profile is how the messages of one protocol are read ([`Dialect`]), and rules over those that are JSON. Refused:
//! to guess. What a profile does not know is passed on and not kept.

use std::sync::Arc;

use super::rules::{Part, Rules};
use super::streams::{self, Stream};
use super::words::{Awaits, Down, How, Keep, Told, Up};
use super::{json, messages};
use crate::frame::Kind;

/// Profiles over JSON whose client may open a connection once.
const OPENED_ONCE: [&str; 3] = ["graphql-transport-ws", "graphql-ws", "lsp"];

/// How the messages of a protocol are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// Each text message is a JSON document, or a list of them.
    Json,
    /// Socket.IO over a WebSocket (EIO 4); its events are JSON.
    SocketIo,
    /// SockJS over a raw WebSocket: a worker says `o` first, and knows nothing of its client beyond its messages.
    SockJs,
    /// STOMP, a frame in each message.
    Stomp,
    /// Hocuspocus, which carries Yjs.
    Hocuspocus,
    /// MQTT 3.1.1 and 5, a stream of packets.
    Mqtt,
    /// NATS, a stream of lines.
    Nats,
    /// The first messages of a client are kept as they are, so many.
    First(u32),
}

/// A protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    /// Its name in the configuration, the API and the log.
    pub name: Arc<str>,
    /// The subprotocol that it is known by, if its operator says so.
    pub subprotocol: Option<Arc<str>>,
    /// How its messages are read.
    pub dialect: Dialect,
    /// What is kept and forgotten of those that are JSON.
    pub rules: Rules,
}

impl Profile {
    /// A profile without rules.
    #[must_use]
    pub fn of(name: &str, dialect: Dialect) -> Self {
        Self { name: name.into(), subprotocol: None, dialect, rules: Rules::default() }
    }

    /// The profile of `routes.prologue.first`: the client's first `count` messages, whatever they are.
    #[must_use]
    pub fn first(count: u32) -> Arc<Self> {
        Arc::new(Self::of(FIRST, Dialect::First(count)))
    }

    /// The same with more rules, if it reads JSON.
    #[must_use]
    pub fn with(&self, more: &Rules) -> Option<Self> {
        self.reads_json().then(|| Self { rules: self.rules.with(more), ..self.clone() })
    }

    /// Whether rules over JSON mean anything to it.
    #[must_use]
    pub const fn reads_json(&self) -> bool {
        match self.dialect {
            Dialect::Json | Dialect::SocketIo => true,
            Dialect::SockJs
            | Dialect::Stomp
            | Dialect::Hocuspocus
            | Dialect::Mqtt
            | Dialect::Nats
            | Dialect::First(_) => false,
        }
    }

    /// Whether a worker speaks before its client does, and the client is sent nothing before.
    #[must_use]
    pub(super) const fn greets(&self) -> bool {
        match self.dialect {
            Dialect::SocketIo | Dialect::SockJs | Dialect::Nats => true,
            Dialect::Json | Dialect::Stomp | Dialect::Hocuspocus | Dialect::Mqtt | Dialect::First(_) => false,
        }
    }

    /// Whether a client opens each connection by words that count once, or waits for the worker's: one that went on with
    /// another connection of its own would break a rule, or wait for ever.
    #[must_use]
    pub(crate) fn opens_each_connection(&self) -> bool {
        match self.dialect {
            Dialect::SocketIo | Dialect::SockJs | Dialect::Stomp | Dialect::Mqtt | Dialect::Nats => true,
            Dialect::Json => OPENED_ONCE.contains(&&*self.name),
            Dialect::Hocuspocus | Dialect::First(_) => false,
        }
    }

    /// Whether messages are parts of a stream: then each is read, however large it is.
    #[must_use]
    pub(super) const fn is_stream(&self) -> bool {
        match self.dialect {
            Dialect::Mqtt | Dialect::Nats => true,
            Dialect::Json
            | Dialect::SocketIo
            | Dialect::SockJs
            | Dialect::Stomp
            | Dialect::Hocuspocus
            | Dialect::First(_) => false,
        }
    }

    /// What a client's message means.
    pub(super) fn up(&self, kind: Kind, payload: &[u8], kept: Kept<'_>, stream: &mut Stream) -> Vec<Up> {
        let mut out = Vec::new();
        match (self.dialect, kind) {
            (Dialect::Json, Kind::Text) => {
                for place in json::documents(payload) {
                    self.rules.up(Part::document(payload, &place), &mut out);
                }
            }
            (Dialect::SocketIo, Kind::Text) => messages::socket_io_up(payload, &self.rules, &mut out),
            (Dialect::Stomp, _) => messages::stomp_up(payload, &mut out),
            (Dialect::Hocuspocus, Kind::Binary) => messages::hocuspocus_up(payload, &mut out),
            (Dialect::Mqtt, _) => streams::mqtt_up(payload, kept.beginning, stream, kept.bytes_max, &mut out),
            (Dialect::Nats, _) => streams::nats_up(payload, stream, kept.bytes_max, &mut out),
            (Dialect::First(count), _) if kept.count < count as usize => {
                out.push(Up::Keep(Keep::new(0, b"", payload, How::All, Awaits::Nothing)));
            }
            (Dialect::Json | Dialect::SocketIo, Kind::Binary)
            | (Dialect::Hocuspocus, Kind::Text)
            | (Dialect::SockJs | Dialect::First(_), _) => {}
        }
        out
    }

    /// What a worker's message means, and where in it what means that stands.
    pub(super) fn down(&self, kind: Kind, payload: &[u8], stream: &mut Stream, bytes_max: usize) -> Vec<Told> {
        let mut out = Vec::new();
        match (self.dialect, kind) {
            (Dialect::Json, Kind::Text) => {
                for place in json::documents(payload) {
                    self.rules.down(Part::document(payload, &place), &mut out);
                }
            }
            (Dialect::SocketIo, Kind::Text) => messages::socket_io_down(payload, &self.rules, &mut out),
            (Dialect::SockJs, Kind::Text) if payload == b"o" => out.push((Down::Greeting, 0..1)),
            (Dialect::Stomp, _) => messages::stomp_down(payload, &mut out),
            (Dialect::Hocuspocus, Kind::Binary) => messages::hocuspocus_down(payload, &mut out),
            (Dialect::Mqtt, _) => streams::mqtt_down(payload, stream, bytes_max, &mut out),
            (Dialect::Nats, _) => streams::nats_down(payload, stream, bytes_max, &mut out),
            (Dialect::Json | Dialect::SocketIo | Dialect::SockJs, _)
            | (Dialect::Hocuspocus, Kind::Text)
            | (Dialect::First(_), _) => {}
        }
        out
    }
}

/// What a profile must know of what was kept already.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Kept<'a> {
    /// Entries.
    pub count: usize,
    /// What the conversation began with.
    pub beginning: Option<&'a [u8]>,
    /// Bytes of an element of a stream that are kept until it is whole.
    pub bytes_max: usize,
}

/// The name of [`Profile::first`].
pub const FIRST: &str = "first";

/// The name of the profile that has nothing but a route's own rules.
pub const RULES: &str = "rules";

/// The profiles of a route: those of its operator, and the built-in ones with the rules that the route adds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Profiles {
    /// Those that are not as they are built in.
    own: Vec<Arc<Profile>>,
}

impl Profiles {
    /// The profiles `own`, and the built-in ones, each with `more` if it reads JSON.
    #[must_use]
    pub fn new(own: Vec<Arc<Profile>>, more: &Rules) -> Self {
        if *more == Rules::default() {
            return Self { own };
        }
        let plain = Arc::new(Profile::of(RULES, Dialect::Json));
        let all = own.into_iter().chain(Profile::built_in().iter().cloned()).chain([plain]);
        Self { own: all.map(|profile| profile.with(more).map_or(profile, Arc::new)).collect() }
    }

    /// The profile called `name`.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Arc<Profile>> {
        let own = self.own.iter().find(|profile| *profile.name == *name).cloned();
        own.or_else(|| Profile::named(name))
    }

    /// The operator's profile of a subprotocol.
    #[must_use]
    pub fn speaking(&self, subprotocol: &str) -> Option<Arc<Profile>> {
        self.own.iter().find(|profile| profile.subprotocol.as_deref() == Some(subprotocol)).cloned()
    }
}
