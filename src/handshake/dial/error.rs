//! Why a worker was not attached, and what the client is told.

use std::io;

use http::StatusCode;

use super::refused_body::NotUpgraded;
use crate::handshake::refusal::Refusal;
use crate::net::{ConnectError, DialFailure};

/// Why a backend is not attached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No connection.
    #[error("connecting failed: {0}")]
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
    /// Another extension than the compression that was asked for, or compression in another way; or none, though the
    /// pipe has it.
    #[error("101 without the compression that was asked for")]
    BadCompression,
    /// Not HTTP/1.1, or a head over the limit.
    #[error("malformed answer: {0}")]
    MalformedResponse(&'static str),
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
            | Self::BadCompression
            | Self::MalformedResponse(_) => true,
        }
    }

    /// What it says about the backend.
    #[must_use]
    pub const fn failure(&self) -> DialFailure {
        match self {
            Self::ConnectFailed(error) => error.kind,
            Self::HandshakeTimeout => DialFailure::Timeout,
            Self::HandshakeLost(_) => DialFailure::Unreachable,
            Self::NotUpgraded(answer) => DialFailure::Status(answer.status.as_u16()),
            Self::BadProtocol | Self::BadCompression => DialFailure::BadProtocol,
            Self::BadAccept(_) | Self::BadExtension | Self::MalformedResponse(_) => DialFailure::BadAnswer,
        }
    }

    /// What we tell the client of a first attach.
    ///
    /// # Errors
    /// The backend's own answer, if it gave one: the client gets that instead.
    pub fn refusal(self) -> Result<Refusal, Box<NotUpgraded>> {
        Ok(match self {
            Self::NotUpgraded(answer) => return Err(answer),
            Self::ConnectFailed(error) => connect_refusal(error.kind),
            Self::HandshakeTimeout => gateway(
                StatusCode::GATEWAY_TIMEOUT,
                "backend-timeout",
                "the backend did not answer the handshake in time",
            ),
            Self::HandshakeLost(_) => {
                gateway(StatusCode::BAD_GATEWAY, "backend-lost", "the backend went away during the handshake")
            }
            Self::BadAccept(_)
            | Self::BadProtocol
            | Self::BadExtension
            | Self::BadCompression
            | Self::MalformedResponse(_) => {
                gateway(StatusCode::BAD_GATEWAY, "backend-answer", "the backend's answer is no WebSocket handshake")
            }
        })
    }
}

/// What the client is told when no other backend is left to connect to.
#[must_use]
pub fn connect_refusal(failure: DialFailure) -> Refusal {
    match failure {
        DialFailure::Timeout => {
            gateway(StatusCode::GATEWAY_TIMEOUT, "backend-timeout", "the backend did not accept a connection in time")
        }
        DialFailure::Refused
        | DialFailure::Unreachable
        | DialFailure::Tls
        | DialFailure::BadAnswer
        | DialFailure::BadProtocol
        | DialFailure::Status(_) => {
            gateway(StatusCode::BAD_GATEWAY, "backend-unreachable", "the backend could not be reached")
        }
        DialFailure::OwnListener => Refusal::looped(),
        DialFailure::Resolve | DialFailure::NotAllowed | DialFailure::SocketNotAllowed | DialFailure::Local => {
            gateway(StatusCode::SERVICE_UNAVAILABLE, "backend-unusable", "no backend can be used at the moment")
        }
    }
}

/// Seconds after which a client may ask again when a backend failed.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

fn gateway(status: StatusCode, slug: &'static str, detail: &'static str) -> Refusal {
    Refusal::new(status, slug, detail).retry_after(RETRY_AFTER)
}
