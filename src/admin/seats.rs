//! The connections of the admin listener: how many there may be, of how many from one address, and who makes room.
//!
//! ```text
//! Idle ──begins a request──▶ Busy ──its answer is over──▶ Idle
//!  └── shed, when another one needs the place
//! ```
//! A connection that waits for a request, its first one too, makes room for a newer one when there are as many as may be,
//! the one that has waited longest first: sockets that say nothing cannot keep a health check out. Where all are busy, a
//! newer one gets an express seat, of which there are few: it may ask for health and for nothing else, once, and soon.
//! Invariant: a seat is in the books from when it is given until it is dropped or shed, whichever comes first.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Connections beyond `admin.max_connections` that may ask for health.
pub const EXPRESS_MAX: usize = 64;

/// How many connections there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bounds {
    /// In all.
    pub(super) max: usize,
    /// From one address.
    pub(super) address_max: usize,
}

/// What a connection may ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// Everything.
    Full,
    /// Health, once.
    Express,
}

/// The books of one listener.
#[derive(Debug, Default)]
pub(super) struct Seats {
    books: Mutex<Books>,
    /// Counts what begins and ends, as a clock of what was earlier.
    ticks: AtomicU64,
}

#[derive(Debug, Default)]
struct Books {
    last: u64,
    seated: HashMap<u64, Seated>,
    express: usize,
}

#[derive(Debug)]
struct Seated {
    class: Class,
    address: Option<IpAddr>,
    state: Arc<State>,
}

/// What a connection is doing, shared with the books.
#[derive(Debug)]
pub(super) struct State {
    /// Since which tick it has been waiting for a request; [`BUSY`] while it has one.
    idle_since: AtomicU64,
    shed: Notify,
}

const BUSY: u64 = 0;

/// The place of one connection.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    pub(super) class: Class,
    state: Arc<State>,
}

/// One request of a connection, until its answer is over.
#[derive(Debug)]
pub(super) struct Turn(Arc<Seat>);

/// What came of asking for a seat.
#[derive(Debug)]
pub(super) struct Given {
    /// Nothing if even the express seats are taken by connections that are being answered.
    pub(super) seat: Option<Seat>,
    /// Whether another connection had to go.
    pub(super) has_shed: bool,
    /// Whether more than half of the seats are taken, so that a silent one is not waited for long.
    pub(super) is_crowded: bool,
}

impl Seats {
    /// A seat for a connection from `address`; nothing for one by a socket file.
    pub(super) fn take(self: &Arc<Self>, address: Option<IpAddr>, bounds: Bounds) -> Given {
        let mut books = self.books();
        let of_address = |seated: &Seated| address.is_some() && seated.address == address;
        let full = books.seated.len() - books.express;
        let from_here = books.seated.values().filter(|seated| of_address(seated)).count();
        let (mut class, mut has_shed) = (Class::Full, false);
        if from_here >= bounds.address_max {
            has_shed = books.shed(of_address);
            class = if has_shed { Class::Full } else { Class::Express };
        } else if full >= bounds.max {
            has_shed = books.shed(|seated| seated.class == Class::Full);
            class = if has_shed { Class::Full } else { Class::Express };
        }
        if class == Class::Express && books.express >= EXPRESS_MAX {
            has_shed = books.shed(|seated| seated.class == Class::Express);
            if !has_shed {
                return Given { seat: None, has_shed, is_crowded: true };
            }
        }
        let seat = Some(self.seat(&mut books, class, address));
        Given { seat, has_shed, is_crowded: class == Class::Express || full >= bounds.max / 2 }
    }

    fn seat(self: &Arc<Self>, books: &mut Books, class: Class, address: Option<IpAddr>) -> Seat {
        books.last += 1;
        books.express += usize::from(class == Class::Express);
        let state = Arc::new(State { idle_since: AtomicU64::new(self.tick()), shed: Notify::new() });
        books.seated.insert(books.last, Seated { class, address, state: state.clone() });
        Seat { seats: self.clone(), number: books.last, class, state }
    }

    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Relaxed) + BUSY + 1
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// Sends away the connection that has been idle for longest, of those that `may` go; whether there was one.
    fn shed(&mut self, may: impl Fn(&Seated) -> bool) -> bool {
        let idle = self.seated.iter().filter(|(_, seated)| may(seated)).filter_map(|(&number, seated)| {
            let since = seated.state.idle_since.load(Relaxed);
            (since != BUSY).then_some((since, number))
        });
        let Some((_, number)) = idle.min() else { return false };
        if let Some(gone) = self.remove(number) {
            gone.state.shed.notify_one();
        }
        true
    }

    fn remove(&mut self, number: u64) -> Option<Seated> {
        let gone = self.seated.remove(&number)?;
        self.express -= usize::from(gone.class == Class::Express);
        Some(gone)
    }
}

impl Seat {
    /// Waits until the place is needed by another connection.
    pub(super) async fn shed(&self) {
        self.state.shed.notified().await;
    }

    /// A request begins.
    pub(super) fn turn(self: &Arc<Self>) -> Turn {
        self.state.idle_since.store(BUSY, Relaxed);
        Turn(self.clone())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.books().remove(self.number);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.state.idle_since.store(self.0.seats.tick(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { max: 8, address_max: 4 };

    fn from(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    fn take(seats: &Arc<Seats>, address: Option<IpAddr>) -> Arc<Seat> {
        Arc::new(seats.take(address, BOUNDS).seat.unwrap())
    }

    fn is_shed(seat: &Seat) -> bool {
        !seat.seats.books().seated.contains_key(&seat.number)
    }

    #[test]
    fn the_connection_that_has_been_idle_for_longest_makes_room() {
        let seats = Arc::new(Seats::default());
        let all: Vec<_> = (0..8).map(|n| take(&seats, from(n))).collect();
        let first = all[0].turn();
        let second = all[1].turn();
        drop(second);
        let given = seats.take(from(9), BOUNDS);
        assert!(given.has_shed && given.is_crowded);
        assert_eq!(given.seat.unwrap().class, Class::Full);
        assert!(is_shed(&all[2]) && !is_shed(&all[0]) && !is_shed(&all[1]), "the second was busy a moment ago");
        drop(first);
    }

    #[test]
    fn an_address_with_its_share_sheds_its_own_and_no_other() {
        let seats = Arc::new(Seats::default());
        let other = take(&seats, from(1));
        let own: Vec<_> = (0..4).map(|_| take(&seats, from(2))).collect();
        let more = take(&seats, from(2));
        assert!(is_shed(&own[0]) && !is_shed(&other) && more.class == Class::Full);
        let local: Vec<_> = (0..3).map(|_| take(&seats, None)).collect();
        assert!(local.iter().all(|seat| !is_shed(seat)), "a socket file has no addresses to count by");
    }

    #[test]
    fn where_all_are_busy_a_newcomer_may_ask_for_health_and_its_like_make_room_for_each_other() {
        let seats = Arc::new(Seats::default());
        let busy: Vec<_> = (0..8).map(|n| take(&seats, from(n)).turn()).collect();
        let mut express: Vec<_> = (0..EXPRESS_MAX).map(|_| take(&seats, None)).collect();
        assert!(express.iter().all(|seat| seat.class == Class::Express));
        let more = take(&seats, None);
        assert!(is_shed(&express[0]) && more.class == Class::Express);
        express.push(more);
        let turns: Vec<_> = express[1..].iter().map(Seat::turn).collect();
        assert!(seats.take(None, BOUNDS).seat.is_none());
        drop((turns, express, busy));
        {
            let books = seats.books();
            assert_eq!((books.seated.len(), books.express), (0, 0));
        }
        assert!(!seats.take(None, BOUNDS).is_crowded);
    }
}
