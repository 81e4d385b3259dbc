//! `routes.auth_url`: the server that says who may connect, and what it says of those who may.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName};
use tokio::sync::Semaphore;

use crate::callout::{Callout, CalloutUrl};

/// What the configuration says of it.
#[derive(Clone, Debug)]
pub struct AuthSpec {
    /// Where it is.
    pub url: CalloutUrl,
    /// Headers of its answer that go on to workers and into templates.
    pub headers: Vec<String>,
    /// How long it has to answer.
    pub timeout: Duration,
    /// Requests to it at once.
    pub requests_max: u32,
}

/// The same, ready to be asked.
#[derive(Debug)]
pub struct Auth {
    /// The server.
    pub server: Callout,
    /// Headers of its answer that go on to workers and into templates.
    pub headers: Vec<HeaderName>,
    /// How long it has to answer.
    pub timeout: Duration,
    /// One for each request that it may still be asked at once.
    pub places: Arc<Semaphore>,
}

/// Headers that say how a message is framed or where it goes, which no answer of another server may say for it.
const NEVER: [HeaderName; 8] = [CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

impl Auth {
    pub(super) fn new(spec: AuthSpec) -> Result<Self, String> {
        let headers = spec.headers.iter().map(|name| parse(name)).collect::<Result<_, _>>()?;
        let places = Arc::new(Semaphore::new(spec.requests_max as usize));
        Ok(Self { server: Callout::new(spec.url), headers, timeout: spec.timeout, places })
    }

    /// Whether a header of a client's is one that only the server may say, in whatever spelling a worker may take for it.
    #[must_use]
    pub fn reserves(&self, name: &HeaderName) -> bool {
        let same = |own: &HeaderName| own == name || own.as_str().replace('_', "-") == name.as_str().replace('_', "-");
        self.headers.iter().any(same)
    }

    /// What the server said of the client, from headers that have been through [`Self::reserves`].
    pub fn said<'h>(&'h self, headers: &'h HeaderMap) -> impl Iterator<Item = &'h [u8]> {
        self.headers.iter().flat_map(|name| {
            let values = headers.get_all(name).iter().map(http::HeaderValue::as_bytes);
            std::iter::once(name.as_str().as_bytes()).chain(values)
        })
    }
}

/// Whether a server may say a header of this name for a request.
///
/// # Errors
/// Why it may not.
pub fn is_auth_header(name: &str) -> Result<(), String> {
    parse(name).map(drop)
}

fn parse(name: &str) -> Result<HeaderName, String> {
    let header: HeaderName = name.parse().map_err(|_| format!("`{name}` is not a header name"))?;
    let text = header.as_str();
    let is_ours =
        ["sec-websocket-", "holdline-", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip"];
    if NEVER.contains(&header) || text == "forwarded" || is_ours.iter().any(|prefix| text.starts_with(prefix)) {
        return Err(format!("`{name}` is not for another server to say"));
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(headers: &[&str]) -> Result<Auth, String> {
        Auth::new(AuthSpec {
            url: "http://127.0.0.1:1/".parse()?,
            headers: headers.iter().map(ToString::to_string).collect(),
            timeout: Duration::from_secs(1),
            requests_max: 1,
        })
    }

    #[test]
    fn a_header_is_reserved_in_each_spelling_that_a_worker_may_take_for_it() {
        let auth = auth(&["X-User"]).unwrap();
        for (name, reserved) in [("x-user", true), ("x_user", true), ("x-users", false), ("user", false)] {
            assert_eq!(auth.reserves(&name.parse().unwrap()), reserved, "{name}");
        }
    }

    #[test]
    fn what_frames_a_message_or_says_who_sent_it_is_for_no_other_server_to_say() {
        for name in
            ["Host", "connection", "Content-Length", "Sec-WebSocket-Key", "Holdline-Pipe", "X-Forwarded-For", "a b"]
        {
            assert!(auth(&[name]).is_err() && is_auth_header(name).is_err(), "{name}");
        }
        assert!(auth(&["authorization", "x-forwarded-user"]).is_ok());
    }
}
