//! What a client that met a limit is told: 429 with `Retry-After`, and the limit in headers that libraries read.
//!
//! `RateLimit-Policy` and `RateLimit` are those of draft-ietf-httpapi-ratelimit-headers (structured fields, the policy
//! by the name of its configuration key); `X-RateLimit-*` is the older habit, its reset in seconds from now. Only a 429
//! bears them: what a worker answers stays what it said.

use std::time::Duration;

use holdline_core::limits::Rate;
use holdline_core::limits::table::Refused;
use http::{HeaderName, HeaderValue, StatusCode};

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

impl Exceeded {
    pub(super) const fn new(limit: LimitLabel, refused: Refused) -> Self {
        Self { limit, refused }
    }

    /// The 429 for the client.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        let name = self.limit.as_str();
        let (quota, wait, window) = match self.refused {
            Refused::Connections(max) => (u64::from(max), CONNECTIONS_RETRY_AFTER, None),
            Refused::Rate(rate, wait) => (rate.count, wait, Some(rate.per)),
        };
        let reset = wait.as_millis().div_ceil(1000).max(1);
        let policy = match window {
            Some(window) => format!("\"{name}\";q={quota};w={}", window.as_secs()),
            None => format!("\"{name}\";q={quota}"),
        };
        let headers = [
            ("ratelimit-policy", policy),
            ("ratelimit", format!("\"{name}\";r=0;t={reset}")),
            ("x-ratelimit-limit", quota.to_string()),
            ("x-ratelimit-remaining", "0".to_owned()),
            ("x-ratelimit-reset", reset.to_string()),
        ];
        let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "rate-limited", self.detail()).retry_after(wait);
        headers.into_iter().fold(refusal, |refusal, (header, value)| match HeaderValue::try_from(value) {
            Ok(value) => refusal.with(HeaderName::from_static(header), value),
            // Digits and a name of ours always are a header's value.
            Err(_) => refusal,
        })
    }

    fn detail(self) -> String {
        let name = self.limit.as_str();
        let whose = match self.limit {
            LimitLabel::KeyConnections | LimitLabel::KeyRate => "this key and client address",
            LimitLabel::KeyConnectionsTotal => "this key",
            LimitLabel::AddressConnections | LimitLabel::AddressRate => "this client address",
            // These close or slow down a pipe; no client is answered for them.
            LimitLabel::PipeMessages | LimitLabel::PipeBytes => "this pipe",
        };
        match self.refused {
            Refused::Connections(max) => format!("{max} connections of {whose} are open already (limits.{name})"),
            Refused::Rate(rate, _) => {
                let what = if self.limit == LimitLabel::AddressRate { "requests" } else { "connections" };
                format!("more than {} new {what} of {whose} (limits.{name})", words(rate))
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
