//! The last step before a worker that is given a socket: puts it where sd_listen_fds(3) has it looked for.
//!
//! Runs as the worker's own process, so that LISTEN_PID can be its number, and becomes the worker by execve(2).

use std::ffi::OsString;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use super::template::FIRST_FD;

/// Becomes `program` with the socket at stdin as its descriptor 3; returns only what went wrong.
#[must_use]
pub fn run(program: &OsString, arguments: &[OsString]) -> io::Error {
    let socket = match fcntl_dupfd_cloexec(io::stdin(), FIRST_FD) {
        Ok(socket) if socket.as_raw_fd() == FIRST_FD => socket,
        Ok(_) => return io::Error::other("descriptor 3 is in use; close it where Holdline is started"),
        Err(error) => return error.into(),
    };
    if let Err(error) = fcntl_setfd(&socket, FdFlags::empty()) {
        return error.into();
    }
    Command::new(program)
        .args(arguments)
        .env("LISTEN_FDS", "1")
        .env("LISTEN_PID", std::process::id().to_string())
        .stdin(Stdio::null())
        .exec()
}
