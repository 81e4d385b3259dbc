//! Who may connect how often (`limits.key_*`, `limits.address_*`): counted over all data threads, before any backend is
//! dialled.
//!
//! The counting itself is [`holdline_core::limits`]. Here are the client's address and key made into the number that it
//! counts by, the locks, and the answer. Invariant: memory is bounded: at most [`ENTRIES_MAX`] entries
//! without a connection, and those with one are bounded by `server.max_connections`.

mod answer;
mod slots;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use holdline_core::limits::Rate;
use holdline_core::limits::table::{Limit, Refused, Table, Who};
use holdline_core::time::Time;

use crate::clock::Clock;
use crate::config::Limits;
use crate::metrics::labels::LimitLabel;
pub use answer::Exceeded;
pub use slots::{Slot, Slots};

/// Keys and addresses without a connection that something is known of.
pub const ENTRIES_MAX: usize = 65_536;

/// Parts of the table, so that a thread seldom waits for another.
const SHARDS: usize = 16;

/// The books of all limits on connections.
#[derive(Debug)]
pub struct Limiter {
    limits: ArcSwap<Limits>,
    shards: [Mutex<Table>; SHARDS],
    /// Keyed at random, so that no client can aim at another's entry.
    hasher: RandomState,
    clock: Clock,
}

/// Entries that one connection may count in.
const SUBJECTS: usize = 3;

/// What entries are about; the kinds never share one.
#[derive(Clone, Copy, Hash)]
enum Subject<'a> {
    /// A key as one address uses it.
    Key(&'a str, u64),
    /// A key, whoever uses it.
    WholeKey(&'a str),
    Address(u64),
}

/// Whom a connection counts for, how far, and which limit that is.
type Check<'a> = (Option<Subject<'a>>, Limit, fn(Refused) -> LimitLabel);

/// A connection that was let in; dropping it gives its places back.
#[derive(Debug, Default)]
pub struct Admission {
    _places: Option<Box<Places>>,
}

#[derive(Debug)]
struct Places {
    limiter: Arc<Limiter>,
    taken: [Option<Who>; SUBJECTS],
}

impl Limiter {
    /// Books under these limits.
    #[must_use]
    pub fn new(limits: Limits, clock: Clock) -> Self {
        Self {
            limits: ArcSwap::from_pointee(limits),
            shards: std::array::from_fn(|_| Mutex::new(Table::new(ENTRIES_MAX / SHARDS))),
            hasher: RandomState::new(),
            clock,
        }
    }

    /// Puts other limits in force; what was counted stays counted.
    pub fn configure(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
    }

    /// Lets a new pipe of this key and client address in, as far as limits go.
    ///
    /// # Errors
    /// The limit that it met; it counts for none then.
    pub fn admit(self: &Arc<Self>, key: Option<&str>, address: IpAddr) -> Result<Admission, Exceeded> {
        let limits = self.limits.load();
        let (now, bits) = (self.clock.now(), significant_bits(address));
        let checks: [Check<'_>; SUBJECTS] = [
            (Some(Subject::Address(bits)), address_limit(&limits), address_label),
            (key.map(Subject::WholeKey), whole_key_limit(&limits), |_| LimitLabel::KeyConnectionsTotal),
            (key.map(|key| Subject::Key(key, bits)), key_limit(&limits), key_label),
        ];
        let mut taken = [None; SUBJECTS];
        for (place, (subject, limit, label)) in taken.iter_mut().zip(checks) {
            let Some(subject) = subject.filter(|_| !limit.is_off()) else { continue };
            let who = self.who(subject);
            let entered = self.shard(who).enter(who, limit, now);
            if let Err(refused) = entered {
                taken.into_iter().flatten().for_each(|who| self.shard(who).undo(who));
                return Err(Exceeded::new(label(refused), refused));
            }
            *place = Some(who);
        }
        if taken == [None; SUBJECTS] {
            return Ok(Admission::default());
        }
        Ok(Admission { _places: Some(Box::new(Places { limiter: self.clone(), taken })) })
    }

    /// Lets a request that is no WebSocket pass, as far as `limits.address_rate` goes.
    ///
    /// # Errors
    /// The limit that it met; it does not count then.
    pub fn request(&self, address: IpAddr) -> Result<(), Exceeded> {
        let rate = self.limits.load().address_rate;
        if rate.is_off() {
            return Ok(());
        }
        let who = self.who(Subject::Address(significant_bits(address)));
        let knocked = self.shard(who).knock(who, rate, self.clock.now());
        knocked.map_err(|refused| Exceeded::new(LimitLabel::AddressRate, refused))
    }

    /// Entries, idle ones that were not forgotten yet among them.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Entries, and the memory that they take in bytes, after forgetting idle ones.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let now: Time = self.clock.now();
        self.shards.iter().fold((0, 0), |(entries, bytes), shard| {
            let mut table = lock(shard);
            let table_bytes = table.tidy(now);
            (entries + table.len(), bytes + table_bytes)
        })
    }

    fn who(&self, subject: Subject<'_>) -> Who {
        Who(self.hasher.hash_one(subject))
    }

    fn shard(&self, who: Who) -> MutexGuard<'_, Table> {
        lock(&self.shards[who.0 as usize % SHARDS])
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        for who in self.taken.into_iter().flatten() {
            self.limiter.shard(who).leave(who);
        }
    }
}

const fn key_limit(limits: &Limits) -> Limit {
    Limit { connections: limits.key_connections, rate: limits.key_rate }
}

const fn whole_key_limit(limits: &Limits) -> Limit {
    Limit { connections: limits.key_connections_total, rate: Rate::OFF }
}

const fn address_limit(limits: &Limits) -> Limit {
    Limit { connections: limits.address_connections, rate: limits.address_rate }
}

const fn key_label(refused: Refused) -> LimitLabel {
    match refused {
        Refused::Connections(_) => LimitLabel::KeyConnections,
        Refused::Rate(..) => LimitLabel::KeyRate,
    }
}

const fn address_label(refused: Refused) -> LimitLabel {
    match refused {
        Refused::Connections(_) => LimitLabel::AddressConnections,
        Refused::Rate(..) => LimitLabel::AddressRate,
    }
}

/// The part of an address that one customer of a provider has: all of IPv4, the /64 of IPv6.
fn significant_bits(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        // No IPv6 network that is in use begins with 32 zero bits, so the two kinds do not meet.
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

/// A lock whose holder panicked still guards plain counts, which are as good as before.
fn lock(shard: &Mutex<Table>) -> MutexGuard<'_, Table> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limiter(change: impl FnOnce(&mut Limits)) -> Arc<Limiter> {
        let mut limits = Limits::default();
        change(&mut limits);
        Arc::new(Limiter::new(limits, Clock::start()))
    }

    fn enters(limiter: &Arc<Limiter>, key: &str, address: &str) -> Result<Admission, LimitLabel> {
        let address = address.parse().unwrap();
        limiter.admit(Some(key), address).map_err(|exceeded| exceeded.limit)
    }

    #[test]
    fn ib_12_ten_at_once_of_one_key_and_address_and_an_eleventh_of_another() {
        let limiter = limiter(|_| {});
        let inside: Vec<_> = (0..10).map(|_| enters(&limiter, "s1", "192.0.2.1").unwrap()).collect();
        assert_eq!(enters(&limiter, "s1", "192.0.2.1").unwrap_err(), LimitLabel::KeyConnections);
        assert!(enters(&limiter, "s2", "192.0.2.1").is_ok());
        assert!(enters(&limiter, "s1", "192.0.2.2").is_ok());
        let no_key: Vec<_> = (0..30).map(|_| limiter.admit(None, "192.0.2.1".parse().unwrap()).unwrap()).collect();
        assert_eq!(limiter.size().0, 3);
        drop((inside, no_key));
        for _ in 0..10 {
            assert!(enters(&limiter, "s1", "192.0.2.1").is_ok(), "each leaves at once");
        }
        assert_eq!(enters(&limiter, "s1", "192.0.2.1").unwrap_err(), LimitLabel::KeyRate);
    }

    #[test]
    fn ib_12_a_key_has_so_many_in_all_whatever_their_addresses_and_a_refusal_costs_nothing() {
        let limiter = limiter(|limits| {
            limits.key_connections_total = 10;
            limits.key_connections = 4;
            limits.address_connections = 5;
        });
        let from = |n: u32| format!("192.0.2.{n}");
        let mut inside: Vec<_> = (0..10).map(|n| enters(&limiter, "s1", &from(n % 3)).unwrap()).collect();
        for _ in 0..5 {
            assert_eq!(enters(&limiter, "s1", &from(9)).unwrap_err(), LimitLabel::KeyConnectionsTotal);
        }
        assert!(enters(&limiter, "s2", &from(9)).is_ok(), "another session");
        inside.pop();
        let _again = enters(&limiter, "s1", &from(9)).unwrap();
        assert_eq!(enters(&limiter, "s1", &from(0)).unwrap_err(), LimitLabel::KeyConnectionsTotal);
    }

    #[test]
    fn the_addresses_of_one_ipv6_64_are_one_and_a_mapped_ipv4_is_itself() {
        let limiter = limiter(|limits| limits.key_connections = 1);
        let _inside = enters(&limiter, "k", "2001:db8:1:2::1").unwrap();
        assert!(enters(&limiter, "k", "2001:db8:1:2:ffff::9").is_err());
        assert!(enters(&limiter, "k", "2001:db8:1:3::1").is_ok());
        let _inside = enters(&limiter, "k", "192.0.2.1").unwrap();
        assert!(enters(&limiter, "k", "::ffff:192.0.2.1").is_err());
        assert!(enters(&limiter, "k", "::ffff:192.0.2.2").is_ok());
    }

    #[test]
    fn a_connection_that_its_key_refuses_costs_its_address_nothing() {
        let limiter = limiter(|limits| {
            limits.key_connections = 1;
            limits.address_connections = 3;
            limits.address_rate = Rate::new(4, Duration::from_secs(3600));
        });
        let _inside = enters(&limiter, "k", "192.0.2.1").unwrap();
        for _ in 0..10 {
            assert_eq!(enters(&limiter, "k", "192.0.2.1").unwrap_err(), LimitLabel::KeyConnections);
        }
        let _more = [enters(&limiter, "a", "192.0.2.1").unwrap(), enters(&limiter, "b", "192.0.2.1").unwrap()];
        assert_eq!(enters(&limiter, "c", "192.0.2.1").unwrap_err(), LimitLabel::AddressConnections);
        let address = "192.0.2.1".parse().unwrap();
        assert!(limiter.request(address).is_ok(), "the fourth in the hour");
        assert_eq!(limiter.request(address).unwrap_err().limit, LimitLabel::AddressRate);
        limiter.configure(Limits { address_rate: Rate::OFF, ..Limits::default() });
        assert!(limiter.request(address).is_ok());
    }

    #[test]
    fn a_hundred_thousand_addresses_are_counted_in_bounded_memory() {
        let limiter = limiter(|limits| limits.address_rate = Rate::new(5, Duration::from_secs(3600)));
        for n in 0..100_000u32 {
            assert!(limiter.request(IpAddr::V4((0x0a00_0000 + n).into())).is_ok());
        }
        let (entries, bytes) = limiter.size();
        assert!(entries <= ENTRIES_MAX, "{entries}");
        assert!(bytes < 16 << 20, "{bytes}");
    }
}
