//! Why a dial failed, whose fault that is, and what the client is told.

use std::io;

use http::{Response, StatusCode};

use super::refused_body::NotUpgraded;
use crate::backends::{DialFailure, ResolveError};
use crate::blame::Blame;
use crate::handshake::refusal::Refusal;
use crate::http::Body;

/// Why a backend is not attached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No connection.
    #[error(transparent)]
    ConnectFailed(#[from] ConnectError),
    /// Connected, but no whole answer in time.
    #[error("no answer to the handshake in time")]
    HandshakeTimeout,
    /// Connected, but the connection ended before a whole answer.
    #[error("the connection ended during the handshake")]
    HandshakeLost(#[source] Option<io::Error>),
    /// An answer other than 101.
    #[error("answered {} instead of 101", .0.status.as_u16())]
    NotUpgraded(Box<NotUpgraded>),
    /// 101 with a missing or wrong header of the handshake.
    #[error("101 with a missing or wrong {0}")]
    BadAccept(&'static str),
    /// A subprotocol that was not offered, or not the one the pipe has.
    #[error("101 with a subprotocol that was not asked for")]
    BadProtocol,
    /// 101 with an extension, though none was offered.
    #[error("101 with an extension that was not offered")]
    BadExtension,
    /// Not HTTP/1.1, or a head over the limit.
    #[error("malformed answer: {0}")]
    MalformedResponse(&'static str),
}

/// No connection to a backend.
#[derive(Debug, thiserror::Error)]
#[error("connecting failed: {kind}{}", .detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default())]
pub struct ConnectError {
    /// Why.
    pub kind: ConnectFailure,
    /// What the system or the TLS library said, for the log.
    pub detail: Option<io::Error>,
}

/// Why there is no connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConnectFailure {
    /// The port is closed.
    #[error("refused")]
    Refused,
    /// Nobody answered in time.
    #[error("timed out")]
    Timeout,
    /// No route, or another network error.
    #[error("unreachable")]
    Unreachable,
    /// The name has no address.
    #[error("name not found")]
    Dns,
    /// Its addresses are outside `admin.backend_networks`.
    #[error("address not allowed")]
    Forbidden,
    /// The TLS handshake failed.
    #[error("TLS handshake failed")]
    Tls,
    /// We are out of descriptors, ports or buffers.
    #[error("out of local resources")]
    Local,
}

impl ConnectFailure {
    /// Whose fault it is.
    #[must_use]
    pub const fn blame(self) -> Blame {
        match self {
            Self::Refused | Self::Timeout | Self::Unreachable | Self::Tls => Blame::Backend,
            Self::Dns | Self::Forbidden | Self::Local => Blame::Operator,
        }
    }

    /// The word in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Dns => "dns",
            Self::Forbidden => "forbidden",
            Self::Tls => "tls",
            Self::Local => "local",
        }
    }

    /// What the client is told when no other backend is left.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Timeout => gateway(
                StatusCode::GATEWAY_TIMEOUT,
                "backend-timeout",
                "the backend did not accept a connection in time",
            ),
            Self::Refused | Self::Unreachable | Self::Tls => {
                gateway(StatusCode::BAD_GATEWAY, "backend-unreachable", "the backend could not be reached")
            }
            Self::Dns | Self::Forbidden | Self::Local => {
                gateway(StatusCode::SERVICE_UNAVAILABLE, "backend-unusable", "no backend can be used at the moment")
            }
        }
    }
}

impl ConnectError {
    /// The failure without more to say.
    #[must_use]
    pub const fn new(kind: ConnectFailure) -> Self {
        Self { kind, detail: None }
    }
}

impl From<&ResolveError> for ConnectError {
    fn from(error: &ResolveError) -> Self {
        Self::new(match error {
            ResolveError::NotFound => ConnectFailure::Dns,
            ResolveError::Timeout => ConnectFailure::Timeout,
            ResolveError::NotAllowed(_) => ConnectFailure::Forbidden,
        })
    }
}

impl From<ConnectFailure> for DialFailure {
    fn from(failure: ConnectFailure) -> Self {
        match failure {
            ConnectFailure::Refused => Self::Refused,
            ConnectFailure::Timeout => Self::Timeout,
            ConnectFailure::Unreachable => Self::Unreachable,
            ConnectFailure::Dns => Self::Resolve,
            ConnectFailure::Forbidden => Self::NotAllowed,
            ConnectFailure::Tls => Self::Tls,
            ConnectFailure::Local => Self::Local,
        }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        // EMFILE, ENFILE, EADDRNOTAVAIL, ENOBUFS, ENOMEM: not the backend's fault.
        let kind = match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::ConnectionRefused, _) => ConnectFailure::Refused,
            (io::ErrorKind::TimedOut, _) => ConnectFailure::Timeout,
            (io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory, _) => ConnectFailure::Local,
            (_, Some(23 | 24 | 105)) => ConnectFailure::Local,
            (_, _) => ConnectFailure::Unreachable,
        };
        Self { kind, detail: Some(error) }
    }
}

impl DialError {
    /// Whether the worker was given the request and may still be at it: to ask another would have the work done twice.
    #[must_use]
    pub const fn was_delivered(&self) -> bool {
        match self {
            Self::ConnectFailed(_) | Self::HandshakeLost(_) => false,
            Self::HandshakeTimeout
            | Self::NotUpgraded(_)
            | Self::BadAccept(_)
            | Self::BadProtocol
            | Self::BadExtension
            | Self::MalformedResponse(_) => true,
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::ConnectFailed(error) => error.kind.blame(),
            Self::NotUpgraded(answer) if answer.status.is_client_error() => Blame::Client,
            Self::NotUpgraded(_)
            | Self::HandshakeTimeout
            | Self::HandshakeLost(_)
            | Self::BadAccept(_)
            | Self::BadProtocol
            | Self::BadExtension
            | Self::MalformedResponse(_) => Blame::Backend,
        }
    }

    /// The word in metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::ConnectFailed(error) => error.kind.label(),
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HandshakeLost(_) => "handshake_lost",
            Self::NotUpgraded(_) => "not_upgraded",
            Self::BadAccept(_) | Self::BadProtocol | Self::BadExtension | Self::MalformedResponse(_) => "bad_answer",
        }
    }

    /// What the client of a first attach gets: the backend's own answer if it gave one, else ours.
    #[must_use]
    pub fn into_response(self) -> Response<Body> {
        match self {
            Self::NotUpgraded(answer) => answer.into_response(),
            Self::ConnectFailed(error) => error.kind.refusal().into_response(),
            Self::HandshakeTimeout => gateway(
                StatusCode::GATEWAY_TIMEOUT,
                "backend-timeout",
                "the backend did not answer the handshake in time",
            )
            .into_response(),
            Self::HandshakeLost(_) => {
                gateway(StatusCode::BAD_GATEWAY, "backend-lost", "the backend went away during the handshake")
                    .into_response()
            }
            Self::BadAccept(_) | Self::BadProtocol | Self::BadExtension | Self::MalformedResponse(_) => {
                gateway(StatusCode::BAD_GATEWAY, "backend-answer", "the backend's answer is no WebSocket handshake")
                    .into_response()
            }
        }
    }
}

/// Seconds after which a client may ask again when a backend failed.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

fn gateway(status: StatusCode, slug: &'static str, detail: &'static str) -> Refusal {
    Refusal::new(status, slug, detail).retry_after(RETRY_AFTER)
}
