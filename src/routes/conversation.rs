//! What the conversations of a route are: as its operator says, or as they are known by.
//!
//! Owns the rules of `conversation = "auto"`, in one table that is also what `holdline check --print` shows. Refused: to
//! guess. What no rule names is stateless, as it was before there were rules.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use holdline_core::conversation::first::{BY_FIRST_MESSAGE, BY_PROFILE_IN_VAIN, FIRST_MESSAGES, Shown};
use holdline_core::conversation::profile::RULES;
use holdline_core::conversation::{Conversation, ConversationKind, Profile, Profiles, Prologue};
use holdline_core::settings::PipeSettings;
use http::request::Parts;

/// What an operator says of a route's conversations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConversationRule {
    /// Each is known by its subprotocol, its request or its first message.
    Auto,
    /// Any worker carries them on.
    Stateless,
    /// A worker hears again what this profile keeps.
    Profile(Arc<Profile>),
    /// They end with their worker.
    Stateful,
}

/// A decision that a route has made: what, by which profile, and why.
type Decision = (ConversationKind, Option<Arc<str>>, &'static str);

/// What the conversations of a route are, and what they have turned out to be.
#[derive(Debug)]
pub struct Conversations {
    rule: ConversationRule,
    /// The decisions that were told of; from closed sets, so that they are few.
    told: Mutex<HashSet<Decision>>,
}

/// What a rule of `auto` makes of a conversation.
#[derive(Clone, Copy, Debug)]
enum Known {
    Profile(&'static str),
    Stateful,
}

/// Subprotocols that say it all.
const SUBPROTOCOLS: &[(&str, Known)] = &[
    ("graphql-transport-ws", Known::Profile("graphql-transport-ws")),
    ("graphql-ws", Known::Profile("graphql-ws")),
    ("mqtt", Known::Profile("mqtt")),
    ("mqttv3.1", Known::Profile("mqtt")),
    ("v10.stomp", Known::Profile("stomp")),
    ("v11.stomp", Known::Profile("stomp")),
    ("v12.stomp", Known::Profile("stomp")),
    ("ocpp1.6", Known::Profile("ocpp1.6")),
    ("ocpp2.0.1", Known::Profile("ocpp1.6")),
    // Byte streams of noVNC and websockify: another worker would begin in the middle.
    ("binary", Known::Stateful),
    ("base64", Known::Stateful),
    ("v1.kernel.websocket.jupyter.org", Known::Stateful),
    ("vite-hmr", Known::Stateful),
    ("streamlit", Known::Stateful),
    ("wamp.2.json", Known::Stateful),
    ("wamp.2.msgpack", Known::Stateful),
    ("actioncable-v1-json", Known::Stateful),
];

impl Known {
    const fn is_read(self) -> bool {
        match self {
            Self::Profile(_) => true,
            Self::Stateful => false,
        }
    }

    fn conversation(self, settings: &PipeSettings) -> Option<Conversation> {
        match self {
            Self::Profile(name) => Some(profiled(settings.profiles.named(name)?, settings)),
            // None of them can be joined amid a conversation: a byte stream, a session that the worker greets.
            Self::Stateful => Some(Conversation::Stateful { opens_each_connection: true }),
        }
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Profile(name) => write!(f, "profile {name}"),
            Self::Stateful => f.write_str("stateful"),
        }
    }
}

fn profiled(profile: Arc<Profile>, settings: &PipeSettings) -> Conversation {
    Conversation::Profiled(Box::new(Prologue::new(profile, settings.prologue)))
}

/// A request that says it all: what it is, how it is told, and what it is told by.
struct RequestRule {
    what: &'static str,
    fits: fn(&Parts) -> bool,
    known: Known,
}

/// Requests that say it all.
const REQUESTS: &[RequestRule] = &[
    RequestRule {
        what: "/…/api/kernels/ID/channels (Jupyter)",
        fits: |parts| has(parts, "/api/kernels/") && ends(parts, "/channels"),
        known: Known::Stateful,
    },
    RequestRule {
        what: "/…/terminals/websocket/NAME (terminado)",
        fits: |parts| has(parts, "/terminals/websocket/"),
        known: Known::Stateful,
    },
    RequestRule { what: "/…/websockify (noVNC)", fits: |parts| ends(parts, "/websockify"), known: Known::Stateful },
    RequestRule {
        what: "/devtools/page/ID and /devtools/browser/ID (DevTools)",
        fits: |parts| has(parts, "/devtools/page/") || has(parts, "/devtools/browser/"),
        known: Known::Stateful,
    },
    RequestRule { what: "/…/NNN/SESSION/websocket (SockJS)", fits: is_sockjs, known: Known::Profile("sockjs") },
    RequestRule { what: "/session/ID with a long hexadecimal ID (BiDi)", fits: is_bidi, known: Known::Stateful },
    RequestRule {
        what: "a header of Playwright's (x-playwright-browser, or its user agent)",
        fits: is_playwright,
        known: Known::Stateful,
    },
    RequestRule {
        what: "?EIO=…&sid=… (a Socket.IO session that began by polling)",
        fits: is_upgraded_session,
        known: Known::Stateful,
    },
];

fn has(parts: &Parts, text: &str) -> bool {
    parts.uri.path().contains(text)
}

fn ends(parts: &Parts, text: &str) -> bool {
    parts.uri.path().ends_with(text)
}

/// Characters of a session's id at least: chromedriver has 32 hexadecimal ones, geckodriver a UUID.
const SESSION_ID_MIN: usize = 32;

fn is_bidi(parts: &Parts) -> bool {
    let Some((_, id)) = parts.uri.path().rsplit_once("/session/") else { return false };
    id.len() >= SESSION_ID_MIN && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn is_playwright(parts: &Parts) -> bool {
    let agent = parts.headers.get(http::header::USER_AGENT).map(http::HeaderValue::as_bytes);
    parts.headers.contains_key("x-playwright-browser") || agent.is_some_and(|it| it.starts_with(b"Playwright/"))
}

/// `/PREFIX/NNN/SESSION/websocket`: a server's number of three digits and a session's name.
fn is_sockjs(parts: &Parts) -> bool {
    let mut parts = parts.uri.path().rsplit('/');
    let last = parts.next() == Some("websocket");
    let (session, server) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    last && !session.is_empty() && server.len() == 3 && server.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_upgraded_session(parts: &Parts) -> bool {
    is_engine_io(parts) && has_parameter(parts, "sid")
}

/// Whether the worker's first message will say that this is Engine.IO.
fn is_engine_io(parts: &Parts) -> bool {
    has_parameter(parts, "EIO")
}

fn has_parameter(parts: &Parts, name: &str) -> bool {
    let pairs = parts.uri.query().unwrap_or_default().split('&');
    pairs.filter_map(|pair| pair.split_once('=')).any(|(it, value)| it == name && !value.is_empty())
}

impl Conversations {
    /// A route whose operator says `rule`.
    #[must_use]
    pub fn new(rule: ConversationRule) -> Self {
        Self { rule, told: Mutex::default() }
    }

    /// What a conversation is that this request began and that speaks `protocol`, and what it is known by.
    #[must_use]
    pub fn decide(
        &self,
        protocol: Option<&str>,
        parts: &Parts,
        settings: &PipeSettings,
    ) -> (Conversation, &'static str) {
        match &self.rule {
            ConversationRule::Stateless => return (Conversation::Stateless, "route"),
            ConversationRule::Stateful => {
                return (Conversation::Stateful { opens_each_connection: false }, "route");
            }
            ConversationRule::Profile(profile) => return (profiled(profile.clone(), settings), "route"),
            ConversationRule::Auto => {}
        }
        if let Some(profile) = protocol.and_then(|protocol| settings.profiles.speaking(protocol)) {
            return (profiled(profile, settings), "subprotocol");
        }
        if let Some((_, known)) = SUBPROTOCOLS.iter().find(|(name, _)| protocol == Some(*name))
            && let Some(conversation) = known.conversation(settings)
        {
            return (conversation, "subprotocol");
        }
        if let Some(rule) = REQUESTS.iter().find(|rule| (rule.fits)(parts))
            && let Some(conversation) = rule.known.conversation(settings)
        {
            return (conversation, "request");
        }
        (Conversation::Undecided, "unknown")
    }

    /// Whether what is said in a conversation may have to be read that this request begins and that would speak one of
    /// `protocols`: because of its profile, or because one like it has turned out to have one; or its route has rules of its
    /// own, which are for any.
    #[must_use]
    pub fn may_be_read(&self, protocols: &[String], parts: &Parts, profiles: &Profiles) -> bool {
        match &self.rule {
            ConversationRule::Stateless | ConversationRule::Stateful => return false,
            ConversationRule::Profile(_) => return true,
            ConversationRule::Auto => {}
        }
        let speaks = SUBPROTOCOLS.iter().any(|(name, known)| known.is_read() && protocols.iter().any(|it| it == name));
        let asks = REQUESTS.iter().any(|rule| rule.known.is_read() && (rule.fits)(parts));
        let is_own = protocols.iter().any(|it| profiles.speaking(it).is_some()) || profiles.named(RULES).is_some();
        speaks || asks || is_own || is_engine_io(parts) || self.has_shown_a_profile()
    }

    /// Whether a first message has shown a profile, so that the next one may.
    fn has_shown_a_profile(&self) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().any(|(kind, _, why)| match *why {
            BY_FIRST_MESSAGE => *kind == ConversationKind::Profile,
            why => why == BY_PROFILE_IN_VAIN,
        })
    }

    /// Whether the route makes this decision for the first time: then it is an event.
    pub fn is_news(&self, decision: Decision) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(decision)
    }
}

/// The rules of `auto` in their order, one a line.
#[must_use]
pub fn rules_of_auto() -> Vec<String> {
    let spoken = SUBPROTOCOLS.iter().map(|(name, known)| format!("subprotocol {name}: {known}"));
    let asked = REQUESTS.iter().map(|rule| format!("request {}: {}", rule.what, rule.known));
    let greeted = FIRST_MESSAGES.iter().map(|(what, shown)| match shown {
        Shown::Profile(name) => format!("first message {what}: profile {name}"),
        Shown::Stateful => format!("first message {what}: stateful"),
    });
    spoken.chain(asked).chain(greeted).chain(["anything else: stateless".to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(rule: ConversationRule, protocol: Option<&str>, uri: &str) -> (ConversationKind, &'static str) {
        let parts = http::Request::builder().uri(uri).body(()).unwrap().into_parts().0;
        let (conversation, why) = Conversations::new(rule).decide(protocol, &parts, &PipeSettings::default());
        (conversation.kind().0, why)
    }

    #[test]
    fn auto_knows_a_conversation_by_its_subprotocol_first_and_then_by_its_request() {
        use ConversationKind::{Profile, Stateful, Undecided};
        let id = "0123456789abcdef0123456789abcdef";
        for (protocol, uri, kind, why) in [
            (Some("graphql-transport-ws"), "/api/kernels/x/channels", Profile, "subprotocol"),
            (Some("binary"), "/", Stateful, "subprotocol"),
            (None, "/user/me/api/kernels/x/channels", Stateful, "request"),
            (None, "/websockify", Stateful, "request"),
            (None, "/devtools/page/AB", Stateful, "request"),
            (None, &format!("/session/{id}"), Stateful, "request"),
            (None, "/echo/123/ab0_x/websocket", Profile, "request"),
            (None, "/echo/websocket", Undecided, "unknown"),
            (None, "/session/7", Undecided, "unknown"),
            (None, "/socket.io/?EIO=4&transport=websocket&sid=x", Stateful, "request"),
            (None, "/socket.io/?EIO=4&transport=websocket", Undecided, "unknown"),
            (Some("chat"), "/", Undecided, "unknown"),
        ] {
            assert_eq!(decided(ConversationRule::Auto, protocol, uri), (kind, why), "{protocol:?} {uri}");
        }
    }

    #[test]
    fn conversations_that_may_have_to_be_read_are_known_before_they_begin_or_learned_from_one_like_them() {
        let read = |rule: &ConversationRule, protocol: &str, uri: &str| {
            let parts = http::Request::builder().uri(uri).body(()).unwrap().into_parts().0;
            Conversations::new(rule.clone()).may_be_read(&[protocol.to_owned()], &parts, &Profiles::default())
        };
        for (protocol, uri, expected) in [
            ("chat", "/", false),
            ("graphql-transport-ws", "/", true),
            ("binary", "/", false),
            ("chat", "/echo/123/ab0_x/websocket", true),
            ("chat", "/websockify", false),
            ("chat", "/socket.io/?EIO=4&transport=websocket", true),
        ] {
            assert_eq!(read(&ConversationRule::Auto, protocol, uri), expected, "{protocol} {uri}");
            assert!(!read(&ConversationRule::Stateless, protocol, uri));
            assert!(read(&ConversationRule::Profile(Profile::first(1)), protocol, uri));
        }
        let parts = http::Request::builder().uri("/").body(()).unwrap().into_parts().0;
        for ((kind, profile, why), learned) in [
            ((ConversationKind::Stateful, None, BY_FIRST_MESSAGE), false),
            ((ConversationKind::Profile, Some("mqtt"), "subprotocol"), false),
            ((ConversationKind::Profile, Some("lsp"), BY_FIRST_MESSAGE), true),
            ((ConversationKind::Stateful, None, BY_PROFILE_IN_VAIN), true),
        ] {
            let conversations = Conversations::new(ConversationRule::Auto);
            assert!(conversations.is_news((kind, profile.map(Arc::from), why)));
            assert_eq!(conversations.may_be_read(&[], &parts, &Profiles::default()), learned, "{profile:?} {why}");
        }
    }

    #[test]
    fn what_the_route_says_holds_against_every_rule() {
        let rule = ConversationRule::Stateless;
        assert_eq!(decided(rule, Some("binary"), "/websockify"), (ConversationKind::Stateless, "route"));
    }

    #[test]
    fn every_profile_that_a_rule_names_exists() {
        for (name, known) in SUBPROTOCOLS {
            if let Known::Profile(profile) = known {
                assert!(Profile::named(profile).is_some(), "{name}");
            }
        }
        for (what, shown) in FIRST_MESSAGES {
            let exists = |name: &str| Profile::named(name).is_some();
            assert!(
                matches!(shown, Shown::Stateful) || matches!(shown, Shown::Profile(name) if exists(name)),
                "{what}"
            );
        }
    }
}
