//! A connection to a backend, plain or TLS, within one deadline.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

use super::failure::{ConnectError, DialFailure};
use super::stream::BackendStream;
use super::tls::TlsPeer;

/// Connects to the first of `addresses` that answers, each given its share of `timeout`, and secures the connection.
///
/// # Errors
/// What the last address said, [`DialFailure::Refused`] only if all of them refuse.
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
    let stream = secured.map_err(|_| ConnectError::new(DialFailure::Timeout))??;
    Ok(BackendStream::Tls(Box::new(stream)))
}

async fn connect_tcp(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, ConnectError> {
    let mut failure = None;
    for (index, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let untried = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let error = match tokio::time::timeout(left / untried, connect_to(*address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error.into(),
            Err(_) => ConnectError::new(DialFailure::Timeout),
        };
        // One closed port proves nothing about a backend whose other address may be behind a slow link.
        if failure.is_none() || error.kind != DialFailure::Refused {
            failure = Some(error);
        }
    }
    Err(failure.unwrap_or(ConnectError::new(DialFailure::Resolve)))
}

async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_nodelay(true)?;
    answer_instead_of_acknowledging(&socket);
    socket.connect(address).await
}

/// Has the answer acknowledged as soon as it comes. A peer without TCP_NODELAY holds back whatever it says behind the first
/// part of its answer until then, and behind an answer nothing is said that could carry the acknowledgement.
pub fn acknowledge_the_answer_at_once(socket: &impl AsFd) {
    // Without it the peer's first message comes later, and nothing else.
    let _ = SockRef::from(socket).set_tcp_quickack(true);
}

/// Lets what is received next be acknowledged by what is said next, instead of in a packet of its own: the end of a
/// TCP handshake by the request, and a request by its answer. The kernel waits 40 ms for that at most.
pub fn answer_instead_of_acknowledging(socket: &impl AsFd) {
    // Without it there are packets more, and nothing else.
    let _ = SockRef::from(socket).set_tcp_quickack(false);
}
