//! A connection to a backend, plain or TLS, within one deadline.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::error::{ConnectError, ConnectFailure};
use super::stream::BackendStream;
use super::tls::TlsPeer;

/// Connects to the first of `addresses` that answers, each given its share of `timeout`, and secures the connection.
///
/// # Errors
/// What the last address said.
pub async fn connect(
    addresses: &[SocketAddr],
    tls: Option<TlsPeer<'_>>,
    timeout: Duration,
) -> Result<BackendStream, ConnectError> {
    let deadline = Instant::now() + timeout;
    let stream = connect_tcp(addresses, deadline).await?;
    let Some(peer) = tls else {
        return Ok(BackendStream::Tcp(stream));
    };
    let secured = timeout_at(deadline, peer.client.secure(peer.name, stream)).await;
    let stream = secured.map_err(|_| ConnectError::new(ConnectFailure::Timeout))??;
    Ok(BackendStream::Tls(Box::new(stream)))
}

async fn connect_tcp(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, ConnectError> {
    let mut failure = ConnectError::new(ConnectFailure::Dns);
    for (index, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let untried = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        match tokio::time::timeout(left / untried, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => failure = error.into(),
            Err(_) => failure = ConnectError::new(ConnectFailure::Timeout),
        }
    }
    Err(failure)
}
