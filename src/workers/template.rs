//! What stands for something else in the command, the environment and the keys of a worker: `{index}`, `{port}`,
//! `{fd}` and `{socket}`.
//!
//! Every other brace is the worker's own: commands hold JSON.

use std::path::PathBuf;

/// The descriptor at which a worker finds a socket that it is given (sd_listen_fds(3)).
pub(super) const FIRST_FD: i32 = 3;

/// Where one worker is to be reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Address {
    /// At a port that it binds.
    Port(u16),
    /// At the port of a socket that it is given.
    Fd(u16),
    /// At a socket file that it binds.
    Socket(PathBuf),
}

impl Address {
    /// As the URL of a backend.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Port(port) | Self::Fd(port) => format!("ws://127.0.0.1:{port}"),
            Self::Socket(path) => format!("unix:{}", path.display()),
        }
    }

    /// The port that it occupies.
    pub(super) const fn port(&self) -> Option<u16> {
        match self {
            Self::Port(port) | Self::Fd(port) => Some(*port),
            Self::Socket(_) => None,
        }
    }
}

/// `text` as the worker `index` gets it.
pub(super) fn filled(text: &str, index: u32, address: &Address) -> String {
    let text = text.replace("{index}", &index.to_string());
    match address {
        Address::Port(port) => text.replace("{port}", &port.to_string()),
        Address::Fd(port) => text.replace("{port}", &port.to_string()).replace("{fd}", &FIRST_FD.to_string()),
        Address::Socket(path) => text.replace("{socket}", &path.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_worker_is_filled_in_and_all_else_is_left() {
        let port = Address::Port(9100);
        assert_eq!(filled("--port={port} --name=w{index} {\"a\":1}", 2, &port), "--port=9100 --name=w2 {\"a\":1}");
        assert_eq!(filled("--fd {fd} {socket}", 1, &Address::Fd(7)), "--fd 3 {socket}");
        let socket = Address::Socket("/run/w.sock".into());
        assert_eq!(filled("{socket}", 1, &socket), "/run/w.sock");
        assert_eq!((socket.url(), port.url()), ("unix:/run/w.sock".into(), "ws://127.0.0.1:9100".into()));
    }
}
