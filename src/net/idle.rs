//! A connection that waits for hours without a word: how the kernel notices by itself that its other end is gone.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// How long what was written may go unacknowledged while a connection waits. Not longer: who wants to speak on it would wait
/// for that long. One that is spoken on has no such limit, because a peer that has no room for more is not gone.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// Probes that may go unanswered.
const PROBES: u32 = 3;

/// Has the kernel watch a connection that waits, and ask after its other end once it was silent for `silence`.
///
/// # Errors
/// The connection is gone already.
pub fn watch_waiting(socket: BorrowedFd<'_>, silence: Duration) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    let seconds = Duration::from_secs(silence.as_secs().max(1));
    let keepalive = TcpKeepalive::new().with_time(seconds).with_interval(seconds).with_retries(PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))
}

/// The connection is spoken on from now on; the kernel still asks after its other end.
pub fn watch_spoken_on(socket: BorrowedFd<'_>) {
    // Without it a peer may be given up that has no room for a while, and nothing else.
    let _ = SockRef::from(&socket).set_tcp_user_timeout(None);
}

/// Has the connection end with a reset when it is dropped: what was said on it is not whole.
pub fn reset_at_drop(socket: BorrowedFd<'_>) {
    // Without it the other end takes what came for all there is.
    let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
}
