//! The TLS handshake of a connection: when it is worked on, how long it may take, what is counted of it.
//!
//! Invariant: a client that sends nothing, or little by little, has no place among the handshakes that are worked on: it
//! is given one with its whole greeting, for [`PLACE_TIME`] at most.

use rustls::ProtocolVersion;
use tokio::time::timeout;

use super::listen::Arrival;
use crate::metrics::labels::{ListenerLabel, TlsResult, TlsVersionLabel};
use crate::net::{ClientStream, HandshakeError, Session};
use crate::process::Process;
use crate::tls::in_force::PLACE_TIME;

/// Comes together with a client on a listener that speaks TLS; false if that fails, and the connection is to be closed.
/// All of it may take what is left of `server.handshake_timeout`, which began with the connection.
pub(super) async fn secure(process: &Process, arrival: &mut Arrival) -> bool {
    let Arrival { stream, peer, read, began, .. } = arrival;
    let read = std::mem::take(read);
    let patience = process.rules.load().handshake_timeout.saturating_sub(began.elapsed());
    let result = match timeout(patience, handshake(process, stream, &read)).await {
        Ok(Ok(())) => None,
        Ok(Err(HandshakeError::Gone)) => Some(TlsResult::Gone),
        Ok(Err(HandshakeError::UnknownName)) => Some(TlsResult::UnknownName),
        Ok(Err(HandshakeError::Refused(error))) => {
            tracing::debug!(client = %peer.address, %error, "no TLS handshake");
            Some(TlsResult::of(&error))
        }
        Err(_) => Some(TlsResult::TimedOut),
    };
    let session = stream.session();
    let resumed = session.is_some_and(Session::is_resumed);
    let result = result.unwrap_or(if resumed { TlsResult::Resumed } else { TlsResult::Full });
    let version = match session.and_then(Session::version) {
        Some(ProtocolVersion::TLSv1_2) => TlsVersionLabel::Tls12,
        Some(ProtocolVersion::TLSv1_3) => TlsVersionLabel::Tls13,
        Some(_) | None => TlsVersionLabel::None,
    };
    process.metrics.tls_handshake(ListenerLabel::Public, result, version, began.elapsed());
    peer.secure = session.is_some();
    peer.secure
}

async fn handshake(process: &Process, stream: &mut ClientStream, read: &[u8]) -> Result<(), HandshakeError> {
    let greeting = stream.greeting(read).await?;
    let config = process.tls.public().and_then(|set| set.config_for(greeting.server_name()));
    let Some(config) = config else {
        stream.refuse_name().await;
        return Err(HandshakeError::UnknownName);
    };
    let place = process.tls.place().await;
    let mut securing = std::pin::pin!(stream.secure(greeting, config));
    if let Ok(done) = timeout(PLACE_TIME, securing.as_mut()).await {
        return done;
    }
    drop(place);
    securing.await
}
