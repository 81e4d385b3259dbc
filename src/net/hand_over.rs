//! Why a client's connection cannot go to another process.

/// Why a client's connection cannot go to another process, now or ever.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// Its keys are those of TLS 1.2.
    #[error("it speaks TLS 1.2, whose sessions do not go to another process")]
    Tls12,
    /// It is shared by streams.
    #[error("it speaks HTTP/2, which does not go to another process")]
    Http2,
    /// It has no socket of its own.
    #[error("its client comes and goes by requests")]
    InMemory,
    /// Only a part of a message of TLS's own has come; later it can.
    #[error("a message of TLS's own has come in part")]
    AmidMessage,
    /// The keys cannot be taken out.
    #[error("its TLS keys cannot be taken out: {0}")]
    Keys(String),
}
