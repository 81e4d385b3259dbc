//! Workers that dial in: a listener of their own, where they park connections, of which each dial of theirs takes one.
//!
//! In reading order: `request` (what such a worker says, and what it is answered), `listen` (how it comes), `line` (one connection while
//! it is parked), `desk` (who is given which; the decisions are `holdline_core::dialin::parking`'s). How a dial takes one is in
//! `net::parked`, what the pools know of it in `backends::dialed_in`; pipes, plain requests and probes know nothing of it: to them it is a
//! connection like any other. The other side is [`crate::agent`].
//!
//! All of it runs on the control runtime; a connection that is taken goes over to the thread that takes it.

mod desk;
mod line;
mod listen;
mod request;

use std::io;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::door::listen::Bound;
use crate::net::{OwnListener, ParkedLines, TakeOrder};
use crate::process::Process;
use desk::Desk;

/// Takes and news of connections that are on their way to the desk.
const QUEUE_MAX: usize = 1024;

/// The bound listeners that workers dial in on, and the way of the takes to what they park.
#[derive(Debug)]
pub struct DialInListeners {
    bound: Vec<Bound>,
    orders: mpsc::Receiver<TakeOrder>,
}

impl DialInListeners {
    /// Binds what `attach.listen` names, unless listeners were `inherited` from another process; without one no worker can
    /// dial in.
    ///
    /// # Errors
    /// What the system says, with the address.
    pub fn bind(process: &Process, inherited: Vec<Bound>) -> io::Result<Self> {
        let config = process.config.load();
        let bind = |listen| Bound::bind("attach.listen", listen);
        let bound = match inherited {
            none if none.is_empty() => config.attach.listen.iter().map(bind).collect::<io::Result<_>>()?,
            inherited => inherited,
        };
        let (give, orders) = mpsc::channel(QUEUE_MAX);
        if !bound.is_empty() {
            process.backends.take_from(ParkedLines::new(give));
        }
        Ok(Self { bound, orders })
    }

    /// What is bound.
    #[must_use]
    pub fn bound(&self) -> &[Bound] {
        &self.bound
    }

    /// Where no worker may be because of them.
    pub fn own(&self) -> impl Iterator<Item = OwnListener> + '_ {
        self.bound.iter().filter_map(Bound::own)
    }

    /// The addresses, and whether TLS is spoken there.
    pub fn addresses(&self) -> impl Iterator<Item = (String, bool)> + '_ {
        self.bound.iter().map(|bound| (bound.to_string(), listen::speaks_tls(bound)))
    }

    /// Lets workers dial in, until `stopped` turns true.
    pub fn start(self, process: &Arc<Process>, stopped: &watch::Receiver<bool>) {
        if self.bound.is_empty() {
            return;
        }
        let (news, told) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(Desk::new(process.clone()).run(self.orders, told, stopped.clone()));
        for bound in self.bound {
            tokio::spawn(listen::accept(bound, process.clone(), news.clone(), stopped.clone()));
        }
    }
}
