//! The conversation of two processes of which one takes over, with a test in between: it plays either of them, or passes
//! on what they say for as long as it likes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde_json::Value;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

use super::within;

/// Descriptors of one message at most.
const DESCRIPTORS_MAX: usize = 253;

/// One end of a conversation.
#[derive(Debug)]
pub struct End(UnixStream);

/// A word, and its descriptors.
#[derive(Debug)]
pub struct Heard {
    pub word: Value,
    pub descriptors: Vec<OwnedFd>,
}

fn socket() -> OwnedFd {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

impl End {
    /// Comes to the process that listens at `path`.
    pub fn connect(path: &Path) -> Self {
        let socket = socket();
        rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        Self(UnixStream::from_std(socket.into()).unwrap())
    }

    /// Says a word.
    pub async fn say(&self, heard: &Heard) {
        let bytes = serde_json::to_vec(&heard.word).unwrap();
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let descriptors: Vec<_> = heard.descriptors.iter().map(AsFd::as_fd).collect();
            assert!(descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(&descriptors)));
            rustix::net::sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
            Ok::<_, io::Error>(())
        };
        within("a word is taken", self.0.async_io(Interest::WRITABLE, send)).await.unwrap();
    }

    /// Says a word without descriptors.
    pub async fn tell(&self, word: Value) {
        self.say(&Heard { word, descriptors: Vec::new() }).await;
    }

    /// The next word, or nothing at the end.
    pub async fn hear(&self) -> Option<Heard> {
        let receive = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut bytes = vec![0; 64 << 10];
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let got = rustix::net::recvmsg(&self.0, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            let mut descriptors = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    descriptors.extend(rights);
                }
            }
            bytes.truncate(got.bytes);
            Ok::<_, io::Error>((bytes, descriptors))
        };
        let (bytes, descriptors) = match within("a word", self.0.async_io(Interest::READABLE, receive)).await {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("{error}"),
        };
        (!bytes.is_empty()).then(|| Heard { word: serde_json::from_slice(&bytes).unwrap(), descriptors })
    }

    /// The next word, which must be this one.
    pub async fn hear_a(&self, say: &str) -> Heard {
        let heard = self.hear().await.unwrap_or_else(|| panic!("the end instead of {say}"));
        assert_eq!(heard.word["say"], say, "{}", heard.word);
        heard
    }
}

/// Where a process comes that takes over.
#[derive(Debug)]
pub struct Meeting(UnixListener);

impl Meeting {
    /// Listens at `path`.
    pub fn at(path: &Path) -> Self {
        let socket = socket();
        rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        rustix::net::listen(&socket, 4).unwrap();
        Self(UnixListener::from_std(socket.into()).unwrap())
    }

    /// The process that comes.
    pub async fn comes(&self) -> End {
        End(within("a process that comes", self.0.accept()).await.unwrap().0)
    }
}

/// Passes one word on, which must be this one.
pub async fn pass(from: &End, to: &End, say: &str) {
    to.say(&from.hear_a(say).await).await;
}
