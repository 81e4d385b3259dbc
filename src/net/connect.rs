//! A connection to a backend, plain or TLS, or one that it has parked with us, within one deadline.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::failure::{ConnectError, DialFailure};
use super::networks::Addresses;
use super::sockets::socket_error;
use super::stream::BackendStream;
use super::tls::TlsPeer;

/// From the beginning of one attempt to that of the next, while none has failed (RFC 8305 section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// From one attempt at a socket file whose queue is full to the next: the system wakes no one who waits for room there.
const FULL_QUEUE_DELAY: Duration = Duration::from_millis(5);

/// A connection, and whether what was to be asked on it has been said.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub stream: BackendStream,
    /// Whether it was said with the connection.
    pub asked: bool,
}

/// Connects to the first of `addresses` that answers, within `timeout`, says `header` before all else
/// ([`SendProxy::header`](super::SendProxy::header)), and secures the connection.
///
/// # Errors
/// What the last address said, [`DialFailure::Refused`] only if all of them refuse.
pub async fn connect(
    addresses: &Addresses,
    tls: Option<&TlsPeer>,
    header: &[u8],
    timeout: Duration,
) -> Result<BackendStream, ConnectError> {
    let deadline = Instant::now() + timeout;
    let mut stream = match addresses {
        Addresses::Network(addresses) => connect_tcp(addresses, deadline).await?,
        Addresses::Socket(file) => {
            let mut stream = connect_unix(file.path(), deadline).await?;
            stream.write_all(header).await?;
            return Ok(BackendStream::Unix(stream));
        }
        Addresses::Parked(lines) => {
            let mut stream = lines.take(deadline).await?;
            stream.write_all(header).await?;
            return Ok(BackendStream::Parked(Box::new(stream)));
        }
    };
    // It fits the buffer of a new connection.
    stream.write_all(header).await?;
    let Some(peer) = tls else {
        return Ok(BackendStream::Tcp(stream));
    };
    let secured = timeout_at(deadline, peer.secure(stream)).await;
    let stream = secured.map_err(|_| ConnectError::new(DialFailure::Timeout))??;
    Ok(BackendStream::Tls(Box::new(stream)))
}

/// The same, and says `request` with the connection where there is one address and no TLS. With several, two might answer
/// at once, and only one may be asked.
///
/// # Errors
/// As [`connect`]; an address that has not taken all of `request` has not been asked.
pub async fn connect_asking(
    addresses: &Addresses,
    tls: Option<&TlsPeer>,
    header: &[u8],
    request: &[u8],
    timeout: Duration,
) -> Result<Connected, ConnectError> {
    let (Addresses::Network(found), None) = (addresses, tls) else {
        return Ok(Connected { stream: connect(addresses, tls, header, timeout).await?, asked: false });
    };
    let &[address] = found.as_slice() else {
        return Ok(Connected { stream: connect(addresses, tls, header, timeout).await?, asked: false });
    };
    let said = if header.is_empty() { Cow::Borrowed(request) } else { Cow::Owned([header, request].concat()) };
    let connected = tokio::time::timeout(timeout, connect_saying(address, &said)).await;
    let stream = connected.map_err(|_| ConnectError::new(DialFailure::Timeout))??;
    Ok(Connected { stream: BackendStream::Tcp(stream), asked: true })
}

/// Begins with one address after the other, each sooner where the one before it has failed, and keeps the first that
/// answers (RFC 8305 section 5): one that stays silent delays the next by a fraction of a second, not by its share of the
/// timeout.
async fn connect_tcp(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, ConnectError> {
    let mut attempts = FuturesUnordered::new();
    let mut untried = addresses.iter();
    let mut failure = None;
    loop {
        attempts.extend(untried.next().map(|address| connect_to(*address)));
        let now = Instant::now();
        let patience = match u32::try_from(untried.len()).unwrap_or(u32::MAX) {
            0 => deadline,
            more => (now + ATTEMPT_DELAY).min(now + deadline.saturating_duration_since(now) / more.saturating_add(1)),
        };
        let error: ConnectError = match timeout_at(patience, attempts.next()).await {
            Ok(Some(Ok(stream))) => return Ok(stream),
            Ok(Some(Err(error))) => error.into(),
            Ok(None) => return Err(failure.unwrap_or(ConnectError::new(DialFailure::Resolve))),
            Err(_) if Instant::now() < deadline => continue,
            Err(_) => return Err(ConnectError::new(DialFailure::Timeout)),
        };
        // One closed port proves nothing about a backend whose other address may be behind a slow link.
        if failure.is_none() || error.kind != DialFailure::Refused {
            failure = Some(error);
        }
    }
}

/// Unlike a TCP port, a socket file whose queue is full refuses at once: it is asked again until the deadline.
async fn connect_unix(path: &Path, deadline: Instant) -> Result<UnixStream, ConnectError> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                sleep_until(deadline.min(Instant::now() + FULL_QUEUE_DELAY)).await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(ConnectError::new(DialFailure::Timeout));
            }
            connected => return connected.map_err(socket_error),
        }
    }
}

async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_nodelay(true)?;
    answer_instead_of_acknowledging(&socket);
    socket.connect(address).await
}

/// Connects, and says `first`. A connection within one machine, or to a near one, stands by the time that it is asked for:
/// then nothing is waited for.
async fn connect_saying(address: SocketAddr, first: &[u8]) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    answer_instead_of_acknowledging(&socket);
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let said = match socket.send(first) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        said => said?,
    };
    let mut stream = TcpStream::from_std(socket.into())?;
    if said == 0 {
        stream.writable().await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
    }
    stream.write_all(&first[said..]).await?;
    Ok(stream)
}

/// Has the answer acknowledged as soon as it comes. A peer without TCP_NODELAY holds back whatever it says behind the first
/// part of its answer until then, and behind an answer nothing is said that could carry the acknowledgement.
pub(super) fn acknowledge_the_answer_at_once(socket: &impl AsFd) {
    // Without it the peer's first message comes later, and nothing else.
    let _ = SockRef::from(socket).set_tcp_quickack(true);
}

/// Lets what is received next be acknowledged by what is said next, instead of in a packet of its own: the end of a
/// TCP handshake by the request, and a request by its answer. The kernel waits 40 ms for that at most.
pub fn answer_instead_of_acknowledging(socket: &impl AsFd) {
    // Without it there are packets more, and nothing else.
    let _ = SockRef::from(socket).set_tcp_quickack(false);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A port whose queue is full, so that a connection to it waits in silence.
    async fn silent() -> (TcpListener, SocketAddr, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            queued.push(stream);
            assert!(queued.len() < 64, "the queue has no end");
        }
        (listener, address, queued)
    }

    async fn open() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn peer_of(stream: &BackendStream) -> SocketAddr {
        let BackendStream::Tcp(stream) = stream else { panic!("{stream:?}") };
        stream.peer_addr().unwrap()
    }

    fn network<const N: usize>(addresses: [SocketAddr; N]) -> Addresses {
        Addresses::Network(addresses.to_vec())
    }

    #[tokio::test]
    async fn a_socket_file_with_a_full_queue_is_asked_again_and_one_that_is_gone_refuses() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("w.sock");
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path).await {
            queued.push(stream);
        }
        let file = |path: &Path| Addresses::Socket(super::super::sockets::SocketFile::find(path, None).unwrap());
        let short = Duration::from_millis(30);
        assert_eq!(connect(&file(&path), None, &[], short).await.unwrap_err().kind, DialFailure::Timeout);
        let addresses = file(&path);
        let (connected, _) = tokio::join!(connect(&addresses, None, &[], PATIENCE), async {
            tokio::task::yield_now().await;
            socket.accept().unwrap()
        });
        assert!(matches!(connected.unwrap(), BackendStream::Unix(_)));
        let gone = file(&home.path().join("gone.sock"));
        let error = connect(&gone, None, &[], PATIENCE).await.unwrap_err();
        assert_eq!(error.kind, DialFailure::Refused);
        assert!(error.to_string().starts_with("connection refused (No such file"), "{error}");
    }

    async fn closed() -> SocketAddr {
        open().await.1
    }

    #[tokio::test]
    async fn a_silent_first_address_costs_a_fraction_of_a_second_and_not_its_share_of_the_timeout() {
        let (_silent, silent, _queued) = silent().await;
        let (_open, open) = open().await;
        let began = Instant::now();
        let stream = connect(&network([silent, open]), None, &[], PATIENCE).await.unwrap();
        assert_eq!(peer_of(&stream), open);
        assert!(began.elapsed() < PATIENCE / 4, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_closed_port_is_passed_over_at_once_and_refused_only_if_all_are() {
        let (_open, open) = open().await;
        let stream = connect(&network([closed().await, open]), None, &[], PATIENCE).await.unwrap();
        assert_eq!(peer_of(&stream), open);
        let error = connect(&network([closed().await, closed().await]), None, &[], PATIENCE).await.unwrap_err();
        assert_eq!(error.kind, DialFailure::Refused);
        assert_eq!(connect(&network([]), None, &[], PATIENCE).await.unwrap_err().kind, DialFailure::Resolve);
    }

    #[tokio::test]
    async fn what_is_asked_goes_with_the_connection_behind_its_header_and_all_of_it() {
        let (listener, open) = open().await;
        let request = vec![b'r'; 8 << 20];
        let addresses = network([open]);
        let asking = connect_asking(&addresses, None, b"header", &request, PATIENCE);
        let (connected, heard) = tokio::join!(asking, async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = vec![0; b"header".len() + request.len()];
            stream.read_exact(&mut heard).await.unwrap();
            heard
        });
        assert!(connected.unwrap().asked);
        assert!(heard == [b"header", &*request].concat());
    }

    #[tokio::test]
    async fn one_of_several_addresses_is_not_asked_and_one_that_is_closed_or_silent_says_so() {
        let (_open, open) = open().await;
        let several = network([closed().await, open]);
        let connected = connect_asking(&several, None, &[], b"request", PATIENCE).await.unwrap();
        assert!(!connected.asked && peer_of(&connected.stream) == open);
        let gone = network([closed().await]);
        let error = connect_asking(&gone, None, &[], b"request", PATIENCE).await.unwrap_err();
        assert_eq!(error.kind, DialFailure::Refused);
        let (_silent, silent, _queued) = silent().await;
        let short = Duration::from_millis(100);
        let error = connect_asking(&network([silent]), None, &[], b"request", short).await.unwrap_err();
        assert_eq!(error.kind, DialFailure::Timeout);
    }

    #[tokio::test]
    async fn all_addresses_get_a_turn_within_a_short_timeout_and_silence_is_a_timeout() {
        let (_silent, silent, _queued) = silent().await;
        let (_open, open) = open().await;
        let short = Duration::from_millis(400);
        let stream = connect(&network([silent, silent, silent, open]), None, &[], short).await.unwrap();
        assert_eq!(peer_of(&stream), open);
        let error = connect(&network([closed().await, silent]), None, &[], short).await.unwrap_err();
        assert_eq!(error.kind, DialFailure::Timeout);
    }
}
