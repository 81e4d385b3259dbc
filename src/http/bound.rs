//! Worker connections that belong to one client: those whose worker has logged the connection in, not the request.
//!
//! NTLM, and Negotiate with it, prove who asks once per connection (RFC 4559 section 5): the next request on it needs no
//! proof. Such a connection goes with the client's own, to the same worker, and ends with it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use holdline_core::ids::BackendKey;
use http::HeaderMap;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};

use super::connections::Connection;

/// The worker connection of one client, if it has one of its own.
#[derive(Debug, Default)]
pub(super) struct Bound(Mutex<Option<Own>>);

#[derive(Debug)]
struct Own {
    backend: BackendKey,
    name: String,
    /// Away while a request uses it.
    connection: Option<Connection>,
}

impl Bound {
    /// The worker that this client is logged in at.
    pub fn backend(&self) -> Option<BackendKey> {
        self.lock().as_ref().map(|own| own.backend)
    }

    /// The client's own connection to `name`, if it is there.
    pub fn take(&self, name: &str) -> Option<Connection> {
        let mut own = self.lock();
        own.as_mut().filter(|own| own.name == name)?.connection.take()
    }

    /// Makes `connection` the client's own; another that it had is closed.
    pub fn keep(&self, backend: BackendKey, name: String, connection: Connection) {
        *self.lock() = Some(Own { backend, name, connection: Some(connection) });
    }

    fn lock(&self) -> MutexGuard<'_, Option<Own>> {
        // Each change is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a request with these headers proves who asks for the whole connection.
pub(super) fn logs_in(request: &HeaderMap) -> bool {
    names_a_connections_scheme(request, &AUTHORIZATION)
}

/// Whether an answer with these headers asks for such a proof, or for more of it.
pub(super) fn asks_to_log_in(answer: &HeaderMap) -> bool {
    names_a_connections_scheme(answer, &WWW_AUTHENTICATE)
}

fn names_a_connections_scheme(headers: &HeaderMap, name: &http::HeaderName) -> bool {
    let elements = headers.get_all(name).into_iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    elements.map(<[u8]>::trim_ascii).any(|element| {
        let scheme = element.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        [b"ntlm".as_slice(), b"negotiate", b"nego2", b"kerberos"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_that_log_a_connection_in_are_known_wherever_they_stand() {
        for (value, expected) in [
            ("NTLM", true),
            ("negotiate", true),
            ("Negotiate oYG2MIGz", true),
            ("Basic realm=\"x\", NTLM", true),
            ("Basic realm=\"NTLM\"", false),
            ("Bearer ntlm", false),
            ("NTLMish", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, value.parse().unwrap())]);
            assert_eq!(asks_to_log_in(&headers), expected, "{value}");
        }
        let two = HeaderMap::from_iter([(AUTHORIZATION, "Basic eDp5".parse().unwrap())]);
        assert!(!logs_in(&two));
    }
}
