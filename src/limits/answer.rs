//! What a client that met a limit is told: 429 with `Retry-After`, and the limit in headers that libraries read.
//!
//! `RateLimit-Policy` and `RateLimit` are those of draft-ietf-httpapi-ratelimit-headers (structured fields, the policy
//! by the name of its configuration key); `X-RateLimit-*` is the older habit, its reset in seconds from now. A 429 bears
//! them, and each answer of a route with `limits.headers`, unless its worker has said them.

use std::time::Duration;

use holdline_core::limits::Rate;
use holdline_core::limits::table::Refused;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::handshake::refusal::Refusal;
use crate::metrics::labels::LimitLabel;

/// When a client with too many connections should come back: when one of them ends is not known.
const CONNECTIONS_RETRY_AFTER: Duration = Duration::from_secs(5);

/// A limit that was met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exceeded {
    /// Which one.
    pub limit: LimitLabel,
    refused: Refused,
}

/// How far a request that was let in is from a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    limit: LimitLabel,
    rate: Rate,
    left: u64,
    reset: Duration,
}

impl Standing {
    /// `left` is what may still come, and how long until there is room for one more than that.
    pub(super) const fn new(limit: LimitLabel, rate: Rate, (left, reset): (u64, Duration)) -> Self {
        Self { limit, rate, left, reset }
    }

    /// Says it in the headers of an answer that does not say such things itself.
    pub fn say(self, answer: &mut HeaderMap) {
        if NAMES.iter().any(|name| answer.contains_key(*name)) {
            return;
        }
        let Self { limit, rate, left, reset } = self;
        answer.extend(headers(limit, rate.count, Some(rate.per), left, reset));
    }
}

const NAMES: [&str; 5] =
    ["ratelimit-policy", "ratelimit", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];

/// The headers of a limit of `quota` (in each `window`), of which `left` are left until `reset`.
fn headers(
    limit: LimitLabel,
    quota: u64,
    window: Option<Duration>,
    left: u64,
    reset: Duration,
) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let name = limit.as_str();
    let reset = reset.as_millis().div_ceil(1000).max(1);
    let policy = match window {
        Some(window) => format!("\"{name}\";q={quota};w={}", window.as_secs()),
        None => format!("\"{name}\";q={quota}"),
    };
    let values =
        [policy, format!("\"{name}\";r={left};t={reset}"), quota.to_string(), left.to_string(), reset.to_string()];
    // Digits and a name of ours always are a header's value.
    NAMES
        .into_iter()
        .zip(values)
        .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?)))
}

impl Exceeded {
    pub(super) const fn new(limit: LimitLabel, refused: Refused) -> Self {
        Self { limit, refused }
    }

    /// The 429 for the client.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        let (quota, wait, window) = match self.refused {
            Refused::Connections(max) => (u64::from(max), CONNECTIONS_RETRY_AFTER, None),
            Refused::Rate(rate, wait) => (rate.count, wait, Some(rate.per)),
        };
        let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "rate-limited", self.detail()).retry_after(wait);
        headers(self.limit, quota, window, 0, wait).fold(refusal, |refusal, (name, value)| refusal.with(name, value))
    }

    fn detail(self) -> String {
        let name = self.limit.as_str();
        let whose = match self.limit {
            LimitLabel::KeyConnections | LimitLabel::KeyRate => "this key and client address",
            LimitLabel::KeyConnectionsTotal => "this key",
            LimitLabel::AddressConnections | LimitLabel::AddressRate | LimitLabel::ResumeFailures => {
                "this client address"
            }
            // These close or slow down a pipe; no client is answered for them.
            LimitLabel::AddressDetached | LimitLabel::PipeMessages | LimitLabel::PipeBytes => "this pipe",
        };
        match self.refused {
            Refused::Connections(max) => format!("{max} connections of {whose} are open already (limits.{name})"),
            Refused::Rate(rate, _) => {
                let what = match self.limit {
                    LimitLabel::AddressRate => "new requests",
                    LimitLabel::ResumeFailures => "failed resumes",
                    LimitLabel::KeyConnections
                    | LimitLabel::KeyConnectionsTotal
                    | LimitLabel::KeyRate
                    | LimitLabel::AddressConnections
                    | LimitLabel::AddressDetached
                    | LimitLabel::PipeMessages
                    | LimitLabel::PipeBytes => "new connections",
                };
                format!("more than {} {what} of {whose} (limits.{name})", words(rate))
            }
        }
    }
}

/// "20 in a minute": a rate for people.
fn words(rate: Rate) -> String {
    let unit = match rate.per.as_secs() {
        1 => "a second",
        60 => "a minute",
        _ => "an hour",
    };
    format!("{} in {unit}", rate.count)
}
