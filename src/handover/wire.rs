//! The socket between two processes: whole messages, each with the descriptors that it brings.
//!
//! A socket of type SOCK_SEQPACKET, so that a message is never cut in two and its descriptors come with it. Refused: a
//! message without all of its descriptors, which is what a full table of descriptors makes of it, and one that is too long.
//! Invariant: a descriptor that was received and is not taken out of its message is closed with it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use tokio::io::Interest;
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};

/// Descriptors of one message: SCM_MAX_FD of Linux.
pub const DESCRIPTORS_MAX: usize = 253;

/// Bytes of one message. What is larger goes into a descriptor of memory.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Processes that wait to be accepted by the socket of `upgrade.socket`.
const BACKLOG: i32 = 4;

/// What has come.
#[derive(Debug)]
pub struct Received {
    /// The message.
    pub bytes: Vec<u8>,
    /// Its descriptors.
    pub descriptors: Vec<OwnedFd>,
}

/// Why nothing more can be said or heard.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other process has closed its end, on purpose or by its death.
    #[error("the other process has ended the conversation")]
    Closed,
    /// It says nothing.
    #[error("the other process said nothing within {}s", .0.as_secs_f64())]
    Silent(Duration),
    /// There was no room for descriptors.
    #[error("descriptors were lost: raise the limit of this process (LimitNOFILE, ulimit -n)")]
    DescriptorsLost,
    /// It is no message of ours.
    #[error("a message of more than {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
    /// The system's.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// One end. The runtime's kind of Unix socket does not mind that this one keeps messages apart.
#[derive(Debug)]
pub struct Wire(UnixStream);

impl Wire {
    /// The end that `socket` is.
    ///
    /// # Errors
    /// The system's.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        UnixStream::from_std(socket.into()).map(Self)
    }

    /// Two ends of one conversation: one for this process, one for a child.
    ///
    /// # Errors
    /// The system's.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (own, childs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self::new(own)?, childs))
    }

    /// The conversation with the process that listens at `path`.
    ///
    /// # Errors
    /// The system's.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket()?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Self::new(socket)
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The other end is gone, or the system's.
    pub async fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), WireError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(WireError::TooLong);
        }
        let send = || send_now(self.0.as_fd(), bytes, descriptors);
        self.0.async_io(Interest::WRITABLE, send).await.map_err(closed)
    }

    /// The next message, if it comes within `patience`.
    ///
    /// # Errors
    /// [`WireError`].
    pub async fn recv(&self, patience: Duration) -> Result<Received, WireError> {
        match tokio::time::timeout(patience, self.next()).await {
            Ok(received) => received,
            Err(_) => Err(WireError::Silent(patience)),
        }
    }

    async fn next(&self) -> Result<Received, WireError> {
        let received = self.0.async_io(Interest::READABLE, || recv_now(self.0.as_fd())).await;
        let (received, flags) = received.map_err(closed)?;
        judge(received, flags)
    }

    /// The other process, and the user that it runs as.
    ///
    /// # Errors
    /// The system's.
    pub fn peer(&self) -> io::Result<UCred> {
        self.0.peer_cred()
    }
}

/// A socket that other processes connect to.
#[derive(Debug)]
pub struct Listener(UnixListener);

impl Listener {
    /// Listens at `path`, which only this user may open. A file that nothing listens at any more is replaced.
    ///
    /// # Errors
    /// The system's.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
        if is_socket && Wire::connect(path).is_err() {
            std::fs::remove_file(path)?;
        }
        Self::listen(path)
    }

    /// The same in the place of the process before this one, which listens there still.
    ///
    /// # Errors
    /// The system's.
    pub fn replace(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Self::listen(path),
        }
    }

    fn listen(path: &Path) -> io::Result<Self> {
        let socket = socket()?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        rustix::net::listen(&socket, BACKLOG)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        UnixListener::from_std(socket.into()).map(Self)
    }

    /// The next process that connects.
    ///
    /// # Errors
    /// The system's.
    pub async fn accept(&self) -> io::Result<Wire> {
        Ok(Wire(self.0.accept().await?.0))
    }
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

fn send_now(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other(format!("more than {DESCRIPTORS_MAX} descriptors")));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn recv_now(socket: BorrowedFd<'_>) -> io::Result<(Received, ReturnFlags)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let got = rustix::net::recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    bytes.truncate(got.bytes);
    Ok((Received { bytes, descriptors }, got.flags))
}

fn judge(received: Received, flags: ReturnFlags) -> Result<Received, WireError> {
    if flags.contains(ReturnFlags::CTRUNC) {
        return Err(WireError::DescriptorsLost);
    }
    if flags.contains(ReturnFlags::TRUNC) {
        return Err(WireError::TooLong);
    }
    // No message of ours is empty, so this is the end.
    if received.bytes.is_empty() { Err(WireError::Closed) } else { Ok(received) }
}

fn closed(error: io::Error) -> WireError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected => WireError::Closed,
        _ => WireError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};

    const PATIENCE: Duration = Duration::from_secs(20);

    fn pair() -> (Wire, Wire) {
        let (own, other) = Wire::pair().unwrap();
        (own, Wire::new(other).unwrap())
    }

    #[tokio::test]
    async fn a_message_brings_as_many_descriptors_as_linux_lets_it() {
        let (own, other) = pair();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let all = vec![reader.as_fd(); DESCRIPTORS_MAX];
        own.send(b"all", &all).await.unwrap();
        let received = other.recv(PATIENCE).await.unwrap();
        assert_eq!((received.bytes.as_slice(), received.descriptors.len()), (&b"all"[..], DESCRIPTORS_MAX));
        drop(all);
        writer.write_all(b"x").unwrap();
        let mut last = File::from(received.descriptors.into_iter().next_back().unwrap());
        let mut byte = [0];
        last.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x", "it is the same pipe");
        let too_many = vec![reader.as_fd(); DESCRIPTORS_MAX + 1];
        assert!(own.send(b"more", &too_many).await.is_err());
    }

    #[tokio::test]
    async fn messages_are_not_joined_and_the_end_is_heard() {
        let (own, other) = pair();
        own.send(b"one", &[]).await.unwrap();
        own.send(b"two", &[]).await.unwrap();
        drop(own);
        assert_eq!(other.recv(PATIENCE).await.unwrap().bytes, b"one");
        assert_eq!(other.recv(PATIENCE).await.unwrap().bytes, b"two");
        assert!(matches!(other.recv(PATIENCE).await, Err(WireError::Closed)));
        assert!(matches!(other.send(b"late", &[]).await, Err(WireError::Closed)));
        let (silent, _other) = pair();
        assert!(matches!(silent.recv(Duration::ZERO).await, Err(WireError::Silent(_))));
        assert!(matches!(silent.send(&[0; MESSAGE_BYTES_MAX + 1], &[]).await, Err(WireError::TooLong)));
    }

    #[tokio::test]
    async fn only_its_own_user_may_open_the_socket_of_a_process() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("upgrade.sock");
        let listener = Listener::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let comer = Wire::connect(&path).unwrap();
        let accepted = listener.accept().await.unwrap();
        assert_eq!(accepted.peer().unwrap().uid(), rustix::process::getuid().as_raw());
        drop((listener, accepted, comer));
        assert!(Listener::bind(&path).is_ok(), "nothing listens there any more");
    }
}
