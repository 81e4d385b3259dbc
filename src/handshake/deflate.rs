//! Compression (RFC 7692), as the two peers of a pipe agree on it through us.
//!
//! Nothing is compressed or looked into here: frames pass as they are. What is agreed on is permessage-deflate without
//! context takeover on either side, so that each message stands alone, and a replay, another worker, a client that comes
//! back or another process needs nothing of what was said before. Refused: every other extension, and every other way of
//! this one. Invariant: no peer sends with a larger window than the other was told.

use http::HeaderMap;
use http::header::{HeaderValue, SEC_WEBSOCKET_EXTENSIONS};
use serde::{Deserialize, Serialize};

use super::check::elements;
use crate::routes::Uncompressed;

/// The window that counts where none is named, and the largest there is, in bits (RFC 7692 section 7.1.2).
const WINDOW_BITS_MAX: u8 = 15;

/// The smallest window.
const WINDOW_BITS_MIN: u8 = 8;

/// What a client offers: no context takeover, and the window that it wants its worker to keep to, if it names one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Offer {
    window_bits: Option<u8>,
}

/// What both peers of a pipe were told: no context takeover, and the window that the worker keeps to, if it named one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Agreed {
    window_bits: Option<u8>,
}

/// Whether the peers of a pipe compress.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Compression {
    /// They may: frames pass as they are.
    Passed(Agreed),
    /// They may not, and why.
    Off(Uncompressed),
}

/// What is asked of a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Asked {
    /// No compression.
    Nothing,
    /// Compression as the client offers it, if the worker likes: a first attach.
    Offered(Offer),
    /// Compression as it was agreed on with an earlier worker: a reattach.
    Kept(Agreed),
}

/// A worker's answer names an extension that was not asked for, or not in this way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAsked;

impl Offer {
    /// The first of the alternatives in a client's request that can be taken up, if there is one.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut alternatives = elements(headers, SEC_WEBSOCKET_EXTENSIONS);
        let offered = alternatives.find_map(Parameters::parse)?;
        Some(Self { window_bits: offered.server_window_bits })
    }

    /// Whether a client that offers this can be told of `agreed`.
    #[must_use]
    pub fn allows(self, agreed: Agreed) -> bool {
        bits(agreed.window_bits) <= bits(self.window_bits)
    }
}

impl Agreed {
    /// What a client is told.
    #[must_use]
    pub fn header(self) -> HeaderValue {
        let Ok(value) = HeaderValue::from_str(&spoken(self.window_bits)) else {
            unreachable!("words and digits are a header's value")
        };
        value
    }
}

impl Compression {
    /// What came of what a client offered, of which a worker has `agreed` to this.
    #[must_use]
    pub fn of(offered: Result<Offer, Uncompressed>, agreed: Option<Agreed>) -> Self {
        match (offered, agreed) {
            (_, Some(agreed)) => Self::Passed(agreed),
            (Err(why), None) => Self::Off(why),
            (Ok(_), None) => Self::Off(Uncompressed::Worker),
        }
    }

    /// What was agreed on, if anything.
    #[must_use]
    pub const fn agreed(self) -> Option<Agreed> {
        match self {
            Self::Passed(agreed) => Some(agreed),
            Self::Off(_) => None,
        }
    }

    /// What every later worker is asked for.
    #[must_use]
    pub const fn to_ask(self) -> Asked {
        match self {
            Self::Passed(agreed) => Asked::Kept(agreed),
            Self::Off(_) => Asked::Nothing,
        }
    }

    /// The word in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed(_) => "pass",
            Self::Off(why) => why.as_str(),
        }
    }
}

impl Asked {
    /// What a client's offer is to a worker.
    #[must_use]
    pub fn first(offered: Result<Offer, Uncompressed>) -> Self {
        offered.map_or(Self::Nothing, Self::Offered)
    }

    /// Whether it was agreed on.
    #[must_use]
    pub const fn is_kept(self) -> bool {
        match self {
            Self::Kept(_) => true,
            Self::Nothing | Self::Offered(_) => false,
        }
    }

    /// What the worker is offered, if anything. A later one is asked to keep to the window of the first.
    pub(super) fn header(self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Offered(Offer { window_bits }) | Self::Kept(Agreed { window_bits }) => Some(spoken(window_bits)),
        }
    }

    /// Judges what a worker's 101 says.
    ///
    /// # Errors
    /// It is not what was asked for; or it says nothing, though compression was agreed on before.
    pub(super) fn judge(self, headers: &HeaderMap) -> Result<Option<Agreed>, NotAsked> {
        let mut said = elements(headers, SEC_WEBSOCKET_EXTENSIONS);
        let (wish, may_decline) = match self {
            Self::Nothing => return if said.next().is_none() { Ok(None) } else { Err(NotAsked) },
            Self::Offered(Offer { window_bits }) => (window_bits, true),
            Self::Kept(Agreed { window_bits }) => (window_bits, false),
        };
        let Some(first) = said.next() else { return if may_decline { Ok(None) } else { Err(NotAsked) } };
        let answer = Parameters::parse(first).filter(|_| said.next().is_none()).ok_or(NotAsked)?;
        let keeps_to_wish = bits(answer.server_window_bits) <= bits(wish);
        if answer.server_no_context_takeover && !answer.names_client_window && keeps_to_wish {
            Ok(Some(Agreed { window_bits: answer.server_window_bits.or(wish) }))
        } else {
            Err(NotAsked)
        }
    }
}

fn bits(named: Option<u8>) -> u8 {
    named.unwrap_or(WINDOW_BITS_MAX)
}

/// The extension as both peers hear it.
fn spoken(window_bits: Option<u8>) -> String {
    let takeover = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    window_bits.map_or(takeover.to_owned(), |bits| format!("{takeover}; server_max_window_bits={bits}"))
}

/// The parameters of one permessage-deflate (RFC 7692 section 7.1).
#[derive(Default)]
struct Parameters {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_window_bits: Option<u8>,
    names_client_window: bool,
}

impl Parameters {
    /// Reads one extension; nothing of another one, or of one with a parameter that is unknown, wrong or there twice.
    fn parse(extension: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(extension).ok()?.split(';').map(str::trim);
        if parts.next() != Some("permessage-deflate") {
            return None;
        }
        let mut parsed = Self::default();
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), Some(window_bits(value.trim())?)),
                None => (part, None),
            };
            let is_new = match (name, value) {
                ("server_no_context_takeover", None) => {
                    !std::mem::replace(&mut parsed.server_no_context_takeover, true)
                }
                ("client_no_context_takeover", None) => {
                    !std::mem::replace(&mut parsed.client_no_context_takeover, true)
                }
                ("server_max_window_bits", Some(bits)) => parsed.server_window_bits.replace(bits).is_none(),
                ("client_max_window_bits", _) => !std::mem::replace(&mut parsed.names_client_window, true),
                _ => false,
            };
            if !is_new {
                return None;
            }
        }
        Some(parsed)
    }
}

/// A window's bits, as a token or quoted; without leading zeros.
fn window_bits(value: &str) -> Option<u8> {
    let digits = value.strip_prefix('"').map_or(Some(value), |rest| rest.strip_suffix('"'))?;
    let bits = digits.parse().ok().filter(|_| !digits.starts_with(['0', '+']))?;
    (WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(&bits).then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&'static str]) -> HeaderMap {
        lines.iter().map(|line| (SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(line))).collect()
    }

    fn offer(window_bits: Option<u8>) -> Offer {
        Offer { window_bits }
    }

    #[test]
    fn the_first_offer_that_can_be_taken_up_is_taken_up() {
        for (lines, expected) in [
            (&["permessage-deflate; client_max_window_bits"] as &[_], Some(None)),
            (&["permessage-deflate; client_max_window_bits=12; server_max_window_bits=\"10\""], Some(Some(10))),
            (&["x-webkit-deflate-frame, permessage-deflate;server_no_context_takeover"], Some(None)),
            (&["permessage-deflate; server_max_window_bits=9, permessage-deflate"], Some(Some(9))),
            (&["permessage-deflate; x=1, permessage-deflate"], Some(None)),
            (&["permessage-bzip2", "permessage-deflate; server_max_window_bits=15"], Some(Some(15))),
            (&["permessage-deflate; server_max_window_bits"], None),
            (&["permessage-deflate; server_max_window_bits=7"], None),
            (&["permessage-deflate; server_max_window_bits=08"], None),
            (&["permessage-deflate; server_max_window_bits=16"], None),
            (&["permessage-deflate; server_no_context_takeover=1"], None),
            (&["permessage-deflate; client_max_window_bits; client_max_window_bits"], None),
            (&["permessage-deflate;"], None),
            (&["Permessage-Deflate2"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(Offer::of(&headers(lines)), expected.map(offer), "{lines:?}");
        }
    }

    #[test]
    fn a_worker_may_decline_an_offer_or_take_it_up_without_context_takeover_and_within_the_window() {
        let (any, ten) = (Asked::Offered(offer(None)), Asked::Offered(offer(Some(10))));
        let agreed = |window_bits| Ok(Some(Agreed { window_bits }));
        for (asked, answer, expected) in [
            (any, "", Ok(None)),
            (any, "permessage-deflate; server_no_context_takeover; client_no_context_takeover", agreed(None)),
            (any, "permessage-deflate; server_no_context_takeover", agreed(None)),
            (any, "permessage-deflate; server_no_context_takeover; server_max_window_bits=12", agreed(Some(12))),
            (any, "permessage-deflate", Err(NotAsked)),
            (any, "permessage-deflate; client_no_context_takeover", Err(NotAsked)),
            (any, "permessage-deflate; server_no_context_takeover; client_max_window_bits=12", Err(NotAsked)),
            (any, "permessage-deflate; server_no_context_takeover, x", Err(NotAsked)),
            (any, "x", Err(NotAsked)),
            (ten, "permessage-deflate; server_no_context_takeover; server_max_window_bits=10", agreed(Some(10))),
            (ten, "permessage-deflate; server_no_context_takeover; server_max_window_bits=9", agreed(Some(9))),
            (ten, "permessage-deflate; server_no_context_takeover; server_max_window_bits=11", Err(NotAsked)),
            (ten, "permessage-deflate; server_no_context_takeover", Err(NotAsked)),
            (Asked::Nothing, "", Ok(None)),
            (Asked::Nothing, "permessage-deflate; server_no_context_takeover", Err(NotAsked)),
        ] {
            assert_eq!(asked.judge(&headers(&[answer])), expected, "{asked:?} {answer}");
        }
    }

    #[test]
    fn a_later_worker_must_agree_to_what_the_first_agreed_to() {
        let kept = |window_bits| Asked::Kept(Agreed { window_bits });
        for (asked, answer, is_good) in [
            (kept(None), "permessage-deflate; server_no_context_takeover; server_max_window_bits=9", true),
            (kept(None), "permessage-deflate; server_no_context_takeover", true),
            (kept(None), "", false),
            (kept(Some(12)), "permessage-deflate; server_no_context_takeover; server_max_window_bits=12", true),
            (kept(Some(12)), "permessage-deflate; server_no_context_takeover; server_max_window_bits=13", false),
            (kept(Some(12)), "permessage-deflate; server_no_context_takeover", false),
            (kept(Some(15)), "permessage-deflate; server_no_context_takeover", true),
        ] {
            assert_eq!(asked.judge(&headers(&[answer])).is_ok(), is_good, "{asked:?} {answer}");
        }
    }

    #[test]
    fn both_peers_hear_of_no_takeover_on_either_side_and_of_the_workers_window() {
        let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        assert_eq!(Asked::Offered(offer(None)).header().as_deref(), Some(both));
        assert_eq!(Agreed { window_bits: None }.header(), both);
        let twelve = format!("{both}; server_max_window_bits=12");
        assert_eq!(Asked::Kept(Agreed { window_bits: Some(12) }).header(), Some(twelve.clone()));
        assert_eq!(Agreed { window_bits: Some(12) }.header(), twelve);
    }

    #[test]
    fn a_client_comes_back_only_with_an_offer_that_allows_what_was_agreed_on() {
        for (offered, agreed, allows) in
            [(None, None, true), (None, Some(12), true), (Some(12), Some(12), true), (Some(10), Some(12), false)]
        {
            assert_eq!(offer(offered).allows(Agreed { window_bits: agreed }), allows, "{offered:?} {agreed:?}");
        }
        assert!(!offer(Some(12)).allows(Agreed { window_bits: None }));
    }
}
