//! The TLS handshake of a connection: when it is worked on, how long it may take, what is counted of it.
//!
//! Invariant: a client that sends nothing, or little by little, has no place among the handshakes that are worked on: it
//! is given one with its whole greeting, for [`PLACE_TIME`] at most.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::ProtocolVersion;
use tokio::time::timeout;

use super::listen::Arrival;
use crate::metrics::labels::{ListenerLabel, TlsResult, TlsVersionLabel};
use crate::net::{ClientCertificate, ClientStream, HandshakeError, Session, TlsIdentity};
use crate::process::Process;
use crate::tls::in_force::PLACE_TIME;
use crate::tls::set::TlsSet;

/// Comes together with a client on a listener that speaks TLS; false if that fails, and the connection is to be closed.
/// All of it may take what is left of `server.handshake_timeout`, which began with the connection.
pub(super) async fn secure(process: &Process, arrival: &mut Arrival) -> bool {
    let Some(set) = process.tls.public() else { return false };
    let patience = process.rules.load().handshake_timeout.saturating_sub(arrival.began.elapsed());
    let read = std::mem::take(&mut arrival.read);
    let greeting = Meeting { listener: ListenerLabel::Public, patience, began: arrival.began, read: &read };
    let Some(identity) = come_together(process, &mut arrival.stream, &set, greeting).await else { return false };
    arrival.peer.secure = true;
    arrival.identity = Some(Arc::new(identity));
    true
}

/// How a client is met.
#[derive(Debug)]
pub struct Meeting<'a> {
    /// Where it has come.
    pub listener: ListenerLabel,
    /// How long it may take.
    pub patience: Duration,
    /// When it was accepted.
    pub began: Instant,
    /// What was read of it.
    pub read: &'a [u8],
}

/// Comes together with a client as `set` says, and counts what came of that; nothing if the connection is to be closed.
pub async fn come_together(
    process: &Process,
    stream: &mut ClientStream,
    set: &TlsSet,
    meeting: Meeting<'_>,
) -> Option<TlsIdentity> {
    let Meeting { listener, patience, began, read } = meeting;
    let result = match timeout(patience, handshake(process, stream, set, read)).await {
        Ok(Ok(())) => None,
        Ok(Err(HandshakeError::Gone)) => Some(TlsResult::Gone),
        Ok(Err(HandshakeError::UnknownName)) => Some(TlsResult::UnknownName),
        Ok(Err(HandshakeError::Refused(error))) => {
            tracing::debug!(%error, "no TLS handshake");
            Some(TlsResult::of(&error))
        }
        Err(_) => Some(TlsResult::TimedOut),
    };
    let session = stream.session();
    let identity = session.and_then(identity);
    let resumed = session.is_some_and(Session::is_resumed);
    let result = result.unwrap_or(match identity {
        None => TlsResult::ClientCertificate,
        Some(_) if resumed => TlsResult::Resumed,
        Some(_) => TlsResult::Full,
    });
    let version = match session.and_then(Session::version) {
        Some(ProtocolVersion::TLSv1_2) => TlsVersionLabel::Tls12,
        Some(ProtocolVersion::TLSv1_3) => TlsVersionLabel::Tls13,
        Some(_) | None => TlsVersionLabel::None,
    };
    process.metrics.tls_handshake(listener, result, version, began.elapsed());
    identity
}

async fn handshake(
    process: &Process,
    stream: &mut ClientStream,
    set: &TlsSet,
    read: &[u8],
) -> Result<(), HandshakeError> {
    let greeting = stream.greeting(read).await?;
    let Some(config) = set.config_for(greeting.server_name()) else {
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

/// Who the client of a session is; nothing if its certificate is good no more, which no handshake has looked at where a
/// session is resumed.
fn identity(session: &Session) -> Option<TlsIdentity> {
    let certificate = match session.client_certificate() {
        Some(shown) => Some(ClientCertificate::of(shown, SystemTime::now())?),
        None => None,
    };
    Some(TlsIdentity { server_name: session.server_name().map(str::to_owned), certificate })
}
