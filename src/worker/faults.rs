//! What is wrong with this worker on purpose: freezes, half-open sockets, slow reading, refused connections.
//!
//! Each accepted TCP connection has a [`Link`], which its socket (`gate`) and its task (`sockets`) obey.
//! Times are microseconds since the worker's start, so that they fit an atomic.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};

use super::lock;

/// TCP connections served at a time; beyond, they are dropped as they come.
pub(super) const LINKS_MAX: usize = 20_000;

/// The state of every knob.
pub(super) struct Faults {
    started: Instant,
    frozen_until_us: AtomicU64,
    read_bytes_per_second: AtomicU64,
    mute: Mutex<Option<Scope>>,
    reject: Mutex<Option<Reject>>,
    hold: Mutex<Hold>,
    stepped: Notify,
    links: Mutex<HashMap<u64, Arc<Link>>>,
    next_link: AtomicU64,
}

/// What a connection's task is told from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Nothing.
    Run,
    /// Finish what is queued, then close 1012.
    Drain,
    /// Close with this code, at once.
    Close { code: u16, reason: String },
    /// End the TCP connection without a close frame.
    Fin,
}

/// Which connections a knob means; `None` means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Scope {
    /// The session's id.
    pub session: Option<String>,
    /// The last part of the path: `control`, `video`, …
    pub path: Option<String>,
}

impl Scope {
    /// Whether this is about a connection to `session` and `path`.
    pub(super) fn covers(&self, session: &str, path: &str) -> bool {
        self.session.as_deref().is_none_or(|wanted| wanted == session)
            && self.path.as_deref().is_none_or(|wanted| wanted == path)
    }

    fn everything(&self) -> bool {
        *self == Self::default()
    }
}

/// How WebSockets are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RejectMode {
    /// Accept, answer pings, and never say anything.
    Silent,
    /// Drop the TCP connection without an answer.
    Drop,
    /// Accept, then close 4004.
    NotFound,
    /// Answer 403.
    Forbidden,
    /// Answer 429.
    TooMany,
}

struct Reject {
    mode: RejectMode,
    scope: Scope,
    left: Option<u64>,
}

#[derive(Default)]
struct Hold {
    held: bool,
    steps: u64,
}

/// One accepted TCP connection, as the knobs see it.
pub(super) struct Link {
    id: u64,
    frozen_until_us: AtomicU64,
    read_bytes_per_second: AtomicU64,
    half_open: AtomicBool,
    exempt: AtomicBool,
    place: OnceLock<(String, String)>,
    orders: watch::Sender<Order>,
}

impl Link {
    /// Writes down what the connection is for, so that scoped knobs find it.
    pub(super) fn place(&self, session: &str, path: &str) {
        // a link is upgraded once, so a second place can't come
        let _ = self.place.set((session.into(), path.into()));
    }

    /// The orders for this connection, the present one included.
    pub(super) fn orders(&self) -> watch::Receiver<Order> {
        self.orders.subscribe()
    }

    /// Keeps this connection out of freezes: the one that asked must hear the answer.
    pub(super) fn exempt(&self) {
        self.exempt.store(true, Relaxed);
    }

    /// From now on nothing is read from it or written to it.
    pub(super) fn half_open(&self) {
        self.half_open.store(true, Relaxed);
    }

    /// Whether nothing may be read or written any more.
    pub(super) fn is_half_open(&self) -> bool {
        self.half_open.load(Relaxed)
    }

    /// Bytes per second that may be read; 0 is no limit.
    pub(super) fn read_bytes_per_second(&self) -> u64 {
        self.read_bytes_per_second.load(Relaxed)
    }

    fn in_scope(&self, scope: &Scope) -> bool {
        match self.place.get() {
            Some((session, path)) => scope.covers(session, path),
            None => scope.everything(),
        }
    }
}

impl Faults {
    /// Nothing wrong.
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            frozen_until_us: AtomicU64::new(0),
            read_bytes_per_second: AtomicU64::new(0),
            mute: Mutex::default(),
            reject: Mutex::default(),
            hold: Mutex::default(),
            stepped: Notify::new(),
            links: Mutex::default(),
            next_link: AtomicU64::new(1),
        }
    }

    /// A link for a new connection; `None` when there are [`LINKS_MAX`]. Give it back with [`Faults::unlink`].
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        let mut links = lock(&self.links);
        if links.len() >= LINKS_MAX {
            return None;
        }
        let link = Arc::new(Link {
            id: self.next_link.fetch_add(1, Relaxed),
            frozen_until_us: AtomicU64::new(0),
            read_bytes_per_second: AtomicU64::new(self.read_bytes_per_second.load(Relaxed)),
            half_open: AtomicBool::new(false),
            exempt: AtomicBool::new(false),
            place: OnceLock::new(),
            orders: watch::Sender::new(Order::Run),
        });
        links.insert(link.id, link.clone());
        Some(link)
    }

    /// Forgets a link whose connection is over.
    pub(super) fn unlink(&self, link: &Link) {
        lock(&self.links).remove(&link.id);
    }

    /// WebSockets open now, by the last part of their path.
    pub(super) fn open(&self) -> HashMap<String, u64> {
        let mut open = HashMap::new();
        for (_, path) in lock(&self.links).values().filter_map(|link| link.place.get()) {
            *open.entry(path.clone()).or_default() += 1;
        }
        open
    }

    /// Orders for all connections in scope; answers how many heard it.
    pub(super) fn order(&self, scope: &Scope, order: &Order) -> usize {
        self.each(scope, |link| {
            link.orders.send_replace(order.clone());
        })
    }

    /// Freezes everything, or the connections in scope, for this long.
    pub(super) fn freeze(&self, scope: &Scope, time: Duration) -> usize {
        let until = (self.started.elapsed() + time).as_micros() as u64;
        if scope.everything() {
            self.frozen_until_us.store(until, Relaxed);
        }
        self.each(scope, |link| link.frozen_until_us.store(until, Relaxed))
    }

    /// Keeps the sockets in scope, but never reads or writes them again.
    pub(super) fn half_open(&self, scope: &Scope) -> usize {
        self.each(scope, |link| {
            if !link.exempt.load(Relaxed) {
                link.half_open();
            }
        })
    }

    /// Reads no faster than this from the connections in scope (and from new ones, if the scope is everything); 0 ends it.
    pub(super) fn slow(&self, scope: &Scope, bytes_per_second: u64) -> usize {
        if scope.everything() {
            self.read_bytes_per_second.store(bytes_per_second, Relaxed);
        }
        self.each(scope, |link| link.read_bytes_per_second.store(bytes_per_second, Relaxed))
    }

    /// New WebSockets in scope are accepted and dead from then on; `None` ends it.
    pub(super) fn mute(&self, scope: Option<Scope>) {
        *lock(&self.mute) = scope;
    }

    /// Whether a new WebSocket is to be dead from the start.
    pub(super) fn is_mute(&self, session: &str, path: &str) -> bool {
        lock(&self.mute).as_ref().is_some_and(|scope| scope.covers(session, path))
    }

    /// Refuses new WebSockets in scope, the next `count` or all; no mode ends it.
    pub(super) fn reject(&self, mode: Option<RejectMode>, scope: Scope, count: Option<u64>) {
        *lock(&self.reject) = mode.map(|mode| Reject { mode, scope, left: count });
    }

    /// How a new WebSocket is refused, if it is; counts it.
    pub(super) fn rejected(&self, session: &str, path: &str) -> Option<RejectMode> {
        let mut slot = lock(&self.reject);
        let reject = slot.as_mut().filter(|reject| reject.scope.covers(session, path))?;
        let mode = reject.mode;
        let last = match &mut reject.left {
            Some(left) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
            None => false,
        };
        if last {
            *slot = None;
        }
        Some(mode)
    }

    /// How long this connection must stand still; `None` when it need not.
    pub(super) fn frozen_for(&self, link: &Link) -> Option<Duration> {
        if link.exempt.load(Relaxed) {
            return None;
        }
        self.time_until(link.frozen_until_us.load(Relaxed).max(self.frozen_until_us.load(Relaxed)))
    }

    /// Returns once neither the connection nor the whole process is frozen.
    pub(super) async fn thawed(&self, link: Option<&Link>) {
        loop {
            let process = self.time_until(self.frozen_until_us.load(Relaxed));
            let Some(time) = link.map_or(process, |link| self.frozen_for(link)) else {
                return;
            };
            tokio::time::sleep(time).await;
        }
    }

    /// Commands wait from now on, each for a step, or go on by themselves again.
    pub(super) fn hold(&self, held: bool) {
        *lock(&self.hold) = Hold { held, steps: 0 };
        self.stepped.notify_waiters();
    }

    /// Lets so many held commands go on.
    pub(super) fn step(&self, count: u64) {
        let mut hold = lock(&self.hold);
        hold.steps = hold.steps.saturating_add(count);
        self.stepped.notify_waiters();
    }

    /// Returns when the next command may be executed.
    pub(super) async fn may_execute(&self) {
        loop {
            let changed = self.stepped.notified();
            let mut changed = std::pin::pin!(changed);
            // listening before looking, or a step in between would be missed
            changed.as_mut().enable();
            if self.take_step() {
                return;
            }
            changed.await;
        }
    }

    fn take_step(&self) -> bool {
        let mut hold = lock(&self.hold);
        if !hold.held {
            return true;
        }
        let step = hold.steps > 0;
        hold.steps -= u64::from(step);
        step
    }

    fn each(&self, scope: &Scope, act: impl Fn(&Link)) -> usize {
        let links = lock(&self.links);
        links.values().filter(|link| link.in_scope(scope)).map(|link| act(link)).count()
    }

    fn time_until(&self, until_us: u64) -> Option<Duration> {
        let now = self.started.elapsed().as_micros() as u64;
        until_us.checked_sub(now).filter(|left| *left > 0).map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(session: Option<&str>, path: Option<&str>) -> Scope {
        Scope { session: session.map(Into::into), path: path.map(Into::into) }
    }

    #[test]
    fn a_scoped_knob_leaves_other_connections_alone() {
        let faults = Faults::new();
        let [control, video, plain] = [(); 3].map(|()| faults.link().unwrap());
        control.place("s1", "control");
        video.place("s1", "video");
        assert_eq!(faults.half_open(&scope(None, Some("video"))), 1);
        assert!(video.is_half_open() && !control.is_half_open() && !plain.is_half_open());
        assert_eq!(faults.order(&scope(Some("s1"), None), &Order::Fin), 2);
        assert_eq!(*plain.orders().borrow(), Order::Run);
        assert_eq!(faults.order(&Scope::default(), &Order::Drain), 3);
    }

    #[test]
    fn a_rejection_counts_down_and_ends() {
        let faults = Faults::new();
        faults.reject(Some(RejectMode::TooMany), scope(None, Some("video")), Some(2));
        assert_eq!(faults.rejected("s", "control"), None);
        assert_eq!(faults.rejected("s", "video"), Some(RejectMode::TooMany));
        assert_eq!(faults.rejected("s", "video"), Some(RejectMode::TooMany));
        assert_eq!(faults.rejected("s", "video"), None);
    }

    #[test]
    fn the_connection_that_froze_us_is_not_frozen() {
        let faults = Faults::new();
        let (asking, other) = (faults.link().unwrap(), faults.link().unwrap());
        asking.exempt();
        faults.freeze(&Scope::default(), Duration::from_secs(60));
        assert!(faults.frozen_for(&asking).is_none());
        assert!(faults.frozen_for(&other).is_some());
        assert!(faults.frozen_for(&faults.link().unwrap()).is_some(), "new ones are frozen too");
    }

    #[test]
    fn held_commands_go_on_one_by_one() {
        let faults = Faults::new();
        assert!(faults.take_step());
        faults.hold(true);
        assert!(!faults.take_step());
        faults.step(1);
        assert!(faults.take_step() && !faults.take_step());
        faults.hold(false);
        assert!(faults.take_step());
    }
}
