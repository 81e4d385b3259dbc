//! TLS that we end: what listeners show to clients, and what of it is in force.
//!
//! In reading order: `certificate` (one, with its key, from files), [`set`] (those of one kind of listener, judged as a
//! whole), `chooser` (which of them a client is shown), `tickets` (by which several nodes resume sessions), [`in_force`] (which set new handshakes use). Live sessions know
//! nothing of any of this: they keep the keys that they began with.

mod certificate;
mod chooser;
pub mod in_force;
pub mod set;
mod tickets;

use std::sync::Arc;
use std::time::SystemTime;

pub use certificate::Certificate;

use crate::config::{Config, Invalid, Loaded, Notice};
use crate::net::TlsFault;
use set::{Contents, Spec, TlsSet};

/// What each kind of listener shows; nothing where none of it speaks TLS.
#[derive(Clone, Debug, Default)]
pub struct Sets {
    /// The public listeners.
    pub public: Option<Arc<TlsSet>>,
    /// The admin listener.
    pub admin: Option<Arc<TlsSet>>,
}

impl Sets {
    /// Reads the files that `config` names; and says what concerns there are. A set whose files are those of the one
    /// `before` is that one; what else goes on from it, such as the keys of tickets, does.
    ///
    /// # Errors
    /// Everything that is wrong with them, with the keys that name them.
    pub fn read(config: &Config, before: &Self) -> Result<(Self, Vec<TlsFault>), Vec<TlsFault>> {
        let public = read(Spec::of_server(&config.server.tls, config.server.http2), before.public.as_ref());
        let admin = read(Spec::of_admin(&config.admin.tls), before.admin.as_ref());
        match (public, admin) {
            (Ok((public, concerns)), Ok((admin, more))) => {
                Ok((Self { public, admin }, concerns.into_iter().chain(more).collect()))
            }
            (public, admin) => Err(public.err().into_iter().chain(admin.err()).flatten().collect()),
        }
    }

    /// Reads the files that a configuration names; and says what concerns there are. Those are an error to `holdline
    /// check` only: what time has done must not keep a process from starting.
    ///
    /// # Errors
    /// Everything else that is wrong with them.
    pub fn load(loaded: &Loaded) -> Result<(Self, Vec<Notice>), Invalid> {
        let notice = |fault: TlsFault| loaded.sources.notice(fault.key.to_owned(), fault.message);
        match Self::read(&loaded.config, &Self::default()) {
            Ok((sets, concerns)) => Ok((sets, concerns.into_iter().map(notice).collect())),
            Err(faults) => Err(Invalid { errors: faults.into_iter().map(notice).collect() }),
        }
    }

    /// The sets, each with the name of its listeners.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &TlsSet)> {
        let public = self.public.iter().map(|set| ("public", &**set));
        public.chain(self.admin.iter().map(|set| ("admin", &**set)))
    }

    /// Whether these are the very sets of `other`.
    #[must_use]
    pub fn are(&self, other: &Self) -> bool {
        let same = |own: &Option<Arc<TlsSet>>, other: &Option<Arc<TlsSet>>| match (own, other) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        same(&self.public, &other.public) && same(&self.admin, &other.admin)
    }
}

type Read = (Option<Arc<TlsSet>>, Vec<TlsFault>);

fn read(spec: Option<Spec>, before: Option<&Arc<TlsSet>>) -> Result<Read, Vec<TlsFault>> {
    let Some(spec) = spec else { return Ok((None, Vec::new())) };
    let contents = Contents::read(&spec)?;
    if let Some(before) = before.filter(|set| set.spec == spec && contents.are_those_of(set)) {
        return Ok((Some(before.clone()), Vec::new()));
    }
    let (set, concerns) = TlsSet::new(&spec, &contents, SystemTime::now(), before.map(|set| &**set))?;
    Ok((Some(Arc::new(set)), concerns))
}

#[cfg(test)]
mod tests;
