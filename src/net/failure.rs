//! Why a worker could not be dialled: one kind for the pool, the probes, the metrics and the client's answer.

use std::fmt;
use std::io;

use crate::blame::Blame;

/// Why a dial failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DialFailure {
    /// The port is closed.
    Refused,
    /// No connection or no answer in time.
    Timeout,
    /// No route, or the connection broke.
    Unreachable,
    /// The name has no address.
    Resolve,
    /// Its addresses are outside of `admin.backend_networks`.
    NotAllowed,
    /// Its socket file is outside of `admin.backend_sockets`.
    SocketNotAllowed,
    /// Its addresses are listeners of this process.
    OwnListener,
    /// The TLS handshake failed.
    Tls,
    /// The answer is not a proper WebSocket handshake.
    BadAnswer,
    /// The answer has a subprotocol or a compression that was not asked for, which the request may have brought about.
    BadProtocol,
    /// An HTTP status other than 101; 5xx counts against the backend, though never alone.
    Status(u16),
    /// We are out of descriptors, ports or buffers: says nothing about the backend.
    Local,
}

impl DialFailure {
    /// Whether nothing is there only for now, as while a worker starts again.
    #[must_use]
    pub const fn may_pass(self) -> bool {
        match self {
            Self::Refused | Self::Timeout | Self::Unreachable | Self::Resolve => true,
            Self::NotAllowed
            | Self::SocketNotAllowed
            | Self::OwnListener
            | Self::Tls
            | Self::BadAnswer
            | Self::BadProtocol
            | Self::Status(_)
            | Self::Local => false,
        }
    }

    /// Whether the backend is where none may be.
    #[must_use]
    pub const fn is_forbidden(self) -> bool {
        matches!(self, Self::NotAllowed | Self::SocketNotAllowed | Self::OwnListener)
    }

    /// Whose fault it is.
    #[must_use]
    pub const fn blame(self) -> Blame {
        match self {
            Self::Status(400..=499) => Blame::Client,
            Self::Refused
            | Self::Timeout
            | Self::Unreachable
            | Self::Tls
            | Self::BadAnswer
            | Self::BadProtocol
            | Self::Status(_) => Blame::Backend,
            Self::Resolve | Self::NotAllowed | Self::SocketNotAllowed | Self::OwnListener | Self::Local => {
                Blame::Operator
            }
        }
    }
}

impl fmt::Display for DialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "connection refused",
            Self::Timeout => "no connection or answer in time",
            Self::Unreachable => "unreachable",
            Self::Resolve => "the name does not resolve",
            Self::NotAllowed => "the address is outside of admin.backend_networks",
            Self::SocketNotAllowed => "the socket file is outside of admin.backend_sockets",
            Self::OwnListener => "the address is a listener of this proxy itself",
            Self::Tls => "the TLS handshake failed",
            Self::BadAnswer => "not a WebSocket answer",
            Self::BadProtocol => "a subprotocol or a compression that was not asked for",
            Self::Status(status) => return write!(f, "answered {status}"),
            Self::Local => "out of local resources",
        })
    }
}

/// No connection to a backend.
#[derive(Debug, thiserror::Error)]
#[error("{kind}{}", .detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default())]
pub struct ConnectError {
    /// Why.
    pub kind: DialFailure,
    /// What the system, the resolver or the TLS library said, if that is more than the kind says.
    pub detail: Option<io::Error>,
}

impl ConnectError {
    /// The failure without more to say.
    #[must_use]
    pub const fn new(kind: DialFailure) -> Self {
        Self { kind, detail: None }
    }

    /// The failure with what is worth saying about it.
    #[must_use]
    pub fn with(kind: DialFailure, detail: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { kind, detail: Some(io::Error::other(detail)) }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        // EMFILE, ENFILE, EADDRNOTAVAIL, ENOBUFS, ENOMEM: not the backend's fault.
        let kind = match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::ConnectionRefused, _) => DialFailure::Refused,
            (io::ErrorKind::TimedOut, _) => DialFailure::Timeout,
            (io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory, _) => DialFailure::Local,
            (_, Some(23 | 24 | 105)) => DialFailure::Local,
            (_, _) => DialFailure::Unreachable,
        };
        Self { kind, detail: Some(error).filter(|_| kind != DialFailure::Refused) }
    }
}
