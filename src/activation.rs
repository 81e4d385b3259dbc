//! Listening sockets that a service manager opened before it started us (sd_listen_fds(3)): they take the place of
//! `server.listen`, `server.tls.listen` and `admin.listen`.
//!
//! The names say which is which: `public` and `tls`, as many as there are, and `admin`, at most one. A socket with another name is
//! refused, because clients that wait in it would wait for ever.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use listenfd::ListenFd;
use socket2::SockRef;

use crate::door::listen::Bound;

/// Why the sockets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// It has no name that says what it is for.
    #[error(
        "socket {number} of the service manager is called {name:?}: \
         call it \"public\", \"tls\" or \"admin\" (FileDescriptorName= in the .socket unit)"
    )]
    Name {
        /// Counted from 1.
        number: usize,
        /// Its name.
        name: String,
    },
    /// There may be one admin listener only.
    #[error("the service manager hands over two sockets called \"admin\"; one is possible")]
    TwoAdmins,
    /// It is not a listener for streams.
    #[error("socket {number} of the service manager ({name:?}): {source}")]
    Unusable {
        /// Counted from 1.
        number: usize,
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// Sockets that were handed over.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Instead of `server.listen`, unless empty.
    pub public: Vec<Bound>,
    /// Instead of `server.tls.listen`, unless empty.
    pub tls: Vec<Bound>,
    /// Instead of `admin.listen`.
    pub admin: Option<Bound>,
    /// Instead of `attach.listen`, unless empty; from another process only.
    pub attach: Vec<Bound>,
    /// The lock of `admin.state_file`; from another process only.
    pub state_lock: Option<File>,
}

impl Inherited {
    /// Takes the sockets that the environment announces, and the announcement out of the environment. To be called
    /// before there are threads.
    ///
    /// # Errors
    /// [`ActivationError`] if one of them cannot be used.
    pub fn take() -> Result<Self, ActivationError> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let mut sockets = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..sockets.len() {
            let (number, name) = (index + 1, names.next().unwrap_or_default());
            let bound = adopt(&mut sockets, index).map_err(|source| {
                let name = name.clone();
                ActivationError::Unusable { number, name, source }
            })?;
            match name.as_str() {
                "public" => inherited.public.push(bound),
                "tls" => inherited.tls.push(bound),
                "admin" if inherited.admin.is_some() => return Err(ActivationError::TwoAdmins),
                "admin" => inherited.admin = Some(bound),
                _ => return Err(ActivationError::Name { number, name }),
            }
        }
        Ok(inherited)
    }
}

fn adopt(sockets: &mut ListenFd, index: usize) -> io::Result<Bound> {
    let bound = match sockets.take_unix_listener(index) {
        Ok(Some(listener)) => {
            listening(&listener)?;
            let path = listener.local_addr()?.as_pathname().map(ToOwned::to_owned).unwrap_or_default();
            listener.set_nonblocking(true)?;
            Some(Bound::Activated(listener, path))
        }
        Ok(None) => None,
        Err(_) => sockets
            .take_tcp_listener(index)?
            .map(|listener| {
                listening(&listener)?;
                listener.set_nonblocking(true).map(|()| Bound::Tcp(listener))
            })
            .transpose()?,
    };
    bound.ok_or_else(|| io::Error::other("it was taken already"))
}

/// A socket that does not listen fails at every accept.
fn listening(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if socket.is_listener()? {
        // Workers that this process runs must not hold it open.
        return socket.set_cloexec(true);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen"))
}
