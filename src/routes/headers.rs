//! What a route changes about the headers that cross it, as its operator wants it.
//!
//! Refuses headers that are spoken between neighbours, that frame a message or that make a handshake: those are ours to
//! say on each side. Invariant: what is removed is removed before anything is set, and what is added stands beside what is
//! there.

use std::collections::BTreeMap;

use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue};

/// What a worker gets as `Host`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum HostRule {
    /// The client's own; the worker's own where that is `wss://` and has a name.
    #[default]
    Client,
    /// The worker's own.
    Backend,
    /// This one.
    Literal(String),
}

impl HostRule {
    /// The rule as it is written in the configuration.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "client" => Ok(Self::Client),
            "backend" => Ok(Self::Backend),
            literal if literal.parse::<Authority>().is_ok() && !literal.contains('@') => {
                Ok(Self::Literal(literal.to_owned()))
            }
            _ => Err("use \"client\", \"backend\", or a host with or without a port"),
        }
    }

    /// The rule as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
            Self::Literal(literal) => literal,
        }
    }
}

/// Headers to change, as written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HeaderSpec {
    /// Headers that have this one value from then on.
    pub set: BTreeMap<String, String>,
    /// Values beside those that are there.
    pub add: BTreeMap<String, String>,
    /// Headers that go no further.
    pub remove: Vec<String>,
}

/// The same, checked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HeaderRules {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderRules {
    /// Checks what is written.
    ///
    /// # Errors
    /// Which of `set`, `add` and `remove` is at fault, by its place there, and why.
    pub fn compile(spec: &HeaderSpec) -> Result<Self, (usize, String)> {
        let pairs = |place: usize, pairs: &BTreeMap<String, String>| {
            let pair = |(name, value): (&String, &String)| Ok((known(name)?, value_of(name, value)?));
            pairs.iter().map(pair).collect::<Result<Vec<_>, String>>().map_err(|message| (place, message))
        };
        let remove = spec.remove.iter().map(|name| known(name)).collect::<Result<_, _>>();
        Ok(Self {
            set: pairs(0, &spec.set)?,
            add: pairs(1, &spec.add)?,
            remove: remove.map_err(|message| (2, message))?,
        })
    }

    /// Whether nothing is changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Whether what came under `name` goes no further.
    #[must_use]
    pub fn takes_away(&self, name: &str) -> bool {
        let set = self.set.iter().map(|(name, _)| name);
        self.remove.iter().chain(set).any(|gone| gone.as_str().eq_ignore_ascii_case(name))
    }

    /// What stands there instead, and besides.
    pub fn brought(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.set.iter().chain(&self.add).map(|(name, value)| (name, value))
    }

    /// Changes `headers`.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

/// A header that a route may change.
fn known(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| format!("`{text}` is no name of a header"))?;
    let why = match name.as_str() {
        "host" => "is decided by routes.host",
        "connection"
        | "upgrade"
        | "keep-alive"
        | "proxy-connection"
        | "te"
        | "http2-settings"
        | "proxy-authenticate"
        | "proxy-authorization" => "is spoken between neighbours, and made anew on each side",
        "content-length" | "transfer-encoding" | "trailer" | "expect" => "frames the message, and is made anew",
        name if name.starts_with("sec-websocket-") => "is a part of the handshake, which is made anew on each side",
        name if name.starts_with("holdline-") => "is what this proxy and its workers tell each other",
        _ => return Ok(name),
    };
    Err(format!("`{text}` {why}; leave it out"))
}

fn value_of(name: &str, value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(value)
        .map_err(|_| format!("the value of `{name}` cannot stand in a header: use visible characters and spaces"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderSpec {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        HeaderSpec { set: map(set), add: map(add), remove: remove.iter().map(|&name| name.into()).collect() }
    }

    #[test]
    fn headers_are_removed_set_and_added_in_this_order() {
        let rules = HeaderRules::compile(&spec(&[("X-A", "2")], &[("x-b", "2")], &["x-c", "x-b"])).expect("good rules");
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-a", "0"), ("x-a", "1"), ("x-b", "1"), ("x-c", "1"), ("x-d", "1")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        rules.apply(&mut headers);
        let left: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(left.len(), 3, "{left:?}");
        for kept in [("x-a", &b"2"[..]), ("x-b", b"2"), ("x-d", b"1")] {
            assert!(left.contains(&kept), "{left:?}");
        }
        assert!(rules.takes_away("X-C") && rules.takes_away("x-a") && !rules.takes_away("x-d"));
    }

    #[test]
    fn headers_that_are_ours_to_say_may_not_be_changed() {
        for name in [
            "Host",
            "Connection",
            "Upgrade",
            "TE",
            "Keep-Alive",
            "Content-Length",
            "Transfer-Encoding",
            "Trailer",
            "Sec-WebSocket-Key",
            "Sec-WebSocket-Protocol",
            "Holdline-Pipe",
            "Proxy-Authorization",
            "not a name",
            "",
        ] {
            let wrong = [spec(&[(name, "x")], &[], &[]), spec(&[], &[(name, "x")], &[]), spec(&[], &[], &[name])];
            for (place, spec) in wrong.iter().enumerate() {
                let (found, message) = HeaderRules::compile(spec).expect_err(name);
                assert_eq!(found, place);
                assert!(message.contains(name), "{message}");
            }
        }
        let (_, message) = HeaderRules::compile(&spec(&[("x-a", "two\r\nlines")], &[], &[])).expect_err("two lines");
        assert!(message.contains("x-a"), "{message}");
    }

    #[test]
    fn a_host_is_a_word_or_a_host() {
        assert_eq!(HostRule::parse("backend"), Ok(HostRule::Backend));
        for literal in ["app.example", "app.example:8443", "[::1]:80"] {
            assert_eq!(HostRule::parse(literal).map(|rule| rule.as_str().to_owned()), Ok(literal.to_owned()));
        }
        for wrong in ["", "a b", "http://a", "a/b", "user@a", "a\r\nb"] {
            assert!(HostRule::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
