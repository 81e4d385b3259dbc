//! What a process has to leave beside its pipes: its listeners, and the lock of its state file.
//!
//! Owns a second descriptor of each, so that they can be given away while they are in use. Invariant: both processes have
//! the same sockets, so that a connection which waits in one is accepted by the process that serves next.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use super::words::{Binding, Heirloom};
use crate::activation::Inherited;
use crate::door::listen::{Bound, PublicListener};

/// The estate of a process.
#[derive(Debug, Default)]
pub struct Estate(Vec<(Heirloom, OwnedFd)>);

impl Estate {
    /// Adds a public listener.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn add_public(&mut self, listener: &PublicListener) -> io::Result<()> {
        let (bound, socket) = of_bound(&listener.bound)?;
        self.0.push((Heirloom::Public { tls: listener.tls, bound }, socket));
        Ok(())
    }

    /// Adds the admin listener.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn add_admin(&mut self, listener: &Bound) -> io::Result<()> {
        let (bound, socket) = of_bound(listener)?;
        self.0.push((Heirloom::Admin { bound }, socket));
        Ok(())
    }

    /// Adds a listener of workers that dial in.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn add_attach(&mut self, listener: &Bound) -> io::Result<()> {
        let (bound, socket) = of_bound(listener)?;
        self.0.push((Heirloom::Attach { bound }, socket));
        Ok(())
    }

    /// Adds the lock of the state file.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn add_state_lock(&mut self, lock: BorrowedFd<'_>) -> io::Result<()> {
        self.0.push((Heirloom::StateLock, lock.try_clone_to_owned()?));
        Ok(())
    }

    /// What each descriptor is.
    #[must_use]
    pub fn names(&self) -> Vec<Heirloom> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The descriptors, in the same order.
    #[must_use]
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(|(_, descriptor)| descriptor.as_fd()).collect()
    }

    /// The estate that another process has left.
    ///
    /// # Errors
    /// There are other descriptors than were named.
    pub fn of(names: Vec<Heirloom>, descriptors: Vec<OwnedFd>) -> Result<Self, String> {
        if names.len() != descriptors.len() {
            return Err(format!("{} listeners of {} have come", descriptors.len(), names.len()));
        }
        Ok(Self(names.into_iter().zip(descriptors).collect()))
    }

    /// What of it this process begins with.
    #[must_use]
    pub fn inherit(self) -> Inherited {
        let mut inherited = Inherited::default();
        for (name, descriptor) in self.0 {
            match name {
                Heirloom::Public { tls: false, bound } => inherited.public.push(to_bound(bound, descriptor)),
                Heirloom::Public { tls: true, bound } => inherited.tls.push(to_bound(bound, descriptor)),
                Heirloom::Admin { bound } => inherited.admin = Some(to_bound(bound, descriptor)),
                Heirloom::Attach { bound } => inherited.attach.push(to_bound(bound, descriptor)),
                Heirloom::StateLock => inherited.state_lock = Some(descriptor.into()),
            }
        }
        inherited
    }
}

fn of_bound(bound: &Bound) -> io::Result<(Binding, OwnedFd)> {
    Ok(match bound {
        Bound::Tcp(listener) => (Binding::Tcp, listener.try_clone()?.into()),
        Bound::Unix(listener, path) => (Binding::Unix { path: path.clone() }, listener.try_clone()?.into()),
        Bound::Activated(listener, path) => (Binding::Activated { path: path.clone() }, listener.try_clone()?.into()),
    })
}

fn to_bound(binding: Binding, descriptor: OwnedFd) -> Bound {
    match binding {
        Binding::Tcp => Bound::Tcp(TcpListener::from(descriptor)),
        Binding::Unix { path } => Bound::Unix(UnixListener::from(descriptor), path),
        Binding::Activated { path } => Bound::Activated(UnixListener::from(descriptor), path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_was_inherited_is_the_same_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut estate = Estate::default();
        let public = PublicListener { bound: Bound::Tcp(listener), tls: false };
        estate.add_public(&public).unwrap();
        let copies = estate.descriptors().iter().map(|it| it.try_clone_to_owned().unwrap()).collect();
        let inherited = Estate::of(estate.names(), copies).unwrap().inherit();
        assert_eq!((inherited.public[0].to_string(), inherited.tls.len()), (address.to_string(), 0));
        assert!(Estate::of(estate.names(), Vec::new()).is_err());
    }
}
