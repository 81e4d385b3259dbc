//! The three ways in which a worker is reached, prepared before its process is started.
//!
//! Owns the directory of socket files. Refuses a port that another process listens at: a probe would find that one ready.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

use super::template::Address;
use crate::config::{Ports, WorkerGroup, WorkerListen};
use crate::unix_user::UnixUser;

/// Why a worker cannot be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListenError {
    /// Other processes or workers have them all.
    #[error("no port of {0} is free: each is in use by another worker or by another process")]
    NoPort(Ports),
    /// A socket for it cannot be bound.
    #[error("no socket can be bound on 127.0.0.1: {0}")]
    Bind(io::Error),
    /// Its socket file has no place.
    #[error("no directory for its socket file at {path}: {source}", path = path.display())]
    Directory {
        /// Where it should be.
        path: PathBuf,
        /// Why it is not.
        source: io::Error,
    },
}

/// A place for one worker, and the socket that it is given if it is given one.
pub(super) struct Place {
    pub(super) address: Address,
    pub(super) socket: Option<OwnedFd>,
}

/// Where socket files are; the directory goes with this.
#[derive(Debug, Default)]
pub(super) struct Sockets(Option<PathBuf>);

impl Sockets {
    /// Prepares a place for the worker `id`, at none of the ports that are `taken`.
    pub(super) fn place(
        &mut self,
        group: &WorkerGroup,
        id: &str,
        user: Option<UnixUser>,
        taken: impl Fn(u16) -> bool,
    ) -> Result<Place, ListenError> {
        match group.listen {
            WorkerListen::Port => {
                let port = group.ports.first_free(taken).ok_or(ListenError::NoPort(group.ports))?;
                Ok(Place { address: Address::Port(port), socket: None })
            }
            WorkerListen::Fd => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(ListenError::Bind)?;
                let port = listener.local_addr().map_err(ListenError::Bind)?.port();
                Ok(Place { address: Address::Fd(port), socket: Some(listener.into()) })
            }
            WorkerListen::Unix => {
                let path = self.directory(id, user)?.join("s");
                // One that an earlier worker has left would be taken for the new one's.
                let _ = std::fs::remove_file(&path);
                Ok(Place { address: Address::Socket(path), socket: None })
            }
        }
    }

    /// The worker's own directory, which no other user may enter.
    fn directory(&mut self, id: &str, user: Option<UnixUser>) -> Result<PathBuf, ListenError> {
        let base = match &self.0 {
            Some(base) => base.clone(),
            None => self.0.insert(make_base()?).clone(),
        };
        let path = base.join(id);
        let made = std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&path);
        made.and_then(|()| user.map_or(Ok(()), |user| chown(&path, Some(user.uid), Some(user.gid))))
            .map_err(|source| ListenError::Directory { path: path.clone(), source })?;
        Ok(path)
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        if let Some(base) = &self.0 {
            // What cannot be removed now is left to the system, which cleans the temporary directory.
            let _ = std::fs::remove_dir_all(base);
        }
    }
}

/// A directory for those of all workers, which may be passed through and not be read.
fn make_base() -> Result<PathBuf, ListenError> {
    let given = std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from);
    let parent = given.unwrap_or_else(std::env::temp_dir);
    let path = parent.join(format!("holdline-w-{:08x}", rand::random::<u32>()));
    let made = std::fs::DirBuilder::new().mode(0o711).create(&path);
    made.map_err(|source| ListenError::Directory { path: path.clone(), source })?;
    Ok(path)
}

/// Removes what a worker has left of its socket file.
pub(super) fn clean_up(address: &Address) {
    if let Address::Socket(path) = address {
        let directory = path.parent().unwrap_or(Path::new("/"));
        // It may have removed the file itself.
        let _ = std::fs::remove_file(path);
        let _ = std::fs::remove_dir(directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(listen: WorkerListen, ports: Ports) -> WorkerGroup {
        WorkerGroup { listen, ports, ..WorkerGroup::default() }
    }

    #[test]
    fn a_port_that_is_in_use_is_not_given_to_a_worker() {
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = other.local_addr().unwrap().port();
        let ports = Ports { first: port, last: port };
        let mut sockets = Sockets::default();
        let place = |sockets: &mut Sockets, taken: bool| {
            sockets.place(&group(WorkerListen::Port, ports), "w-1", None, |_| taken).map(|place| place.address)
        };
        let full = place(&mut sockets, false).expect_err("another process listens there");
        assert_eq!(
            full.to_string(),
            format!("no port of {ports} is free: each is in use by another worker or by another process")
        );
        drop(other);
        assert!(place(&mut sockets, true).is_err(), "another worker has it");
        assert_eq!(place(&mut sockets, false).unwrap(), Address::Port(port));
    }

    #[test]
    fn socket_files_have_a_directory_for_each_worker_that_goes_with_the_process() {
        let mut sockets = Sockets::default();
        let group = group(WorkerListen::Unix, Ports { first: 1, last: 1 });
        let place = sockets.place(&group, "w-1", None, |_| false).unwrap();
        let Address::Socket(path) = &place.address else { panic!() };
        std::fs::write(path, "left").unwrap();
        let again = sockets.place(&group, "w-1", None, |_| false).unwrap();
        assert_eq!(again.address, place.address);
        assert!(!path.exists(), "an old file is not taken for the new worker's");
        drop(sockets);
        assert!(!path.parent().unwrap().parent().unwrap().exists());
    }
}
