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
use holdline_core::limits::table::{Limit, Refused, Table, Who};
use holdline_core::limits::{Rate, RouteLimits};
use holdline_core::time::Time;

use crate::clock::Clock;
use crate::config::Limits;
use crate::metrics::labels::LimitLabel;
pub use answer::{Exceeded, Standing};
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

/// What entries are about; the kinds never share one. A route with limits of its own is counted by itself.
#[derive(Clone, Copy, Hash)]
enum Subject<'a> {
    /// A key as one address uses it.
    Key(Option<&'a str>, &'a str, u64),
    /// A key, over all clients that use it.
    WholeKey(&'a str),
    Address(Option<&'a str>, u64),
    /// An address as one whose resumes failed.
    Resumes(u64),
}

/// A route, and the limits that hold there instead of the general ones.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Its name.
    pub route: &'a str,
    /// Its limits.
    pub own: &'a RouteLimits,
}

impl<'a> Scope<'a> {
    fn address(self, general: &Limits) -> (Option<&'a str>, Limit) {
        let Self { route, own } = self;
        let scope = (own.address_connections.is_some() || own.address_rate.is_some()).then_some(route);
        let connections = own.address_connections.unwrap_or(general.address_connections);
        (scope, Limit { connections, rate: own.address_rate.unwrap_or(general.address_rate) })
    }

    fn key(self, general: &Limits) -> (Option<&'a str>, Limit) {
        let Self { route, own } = self;
        let scope = (own.key_connections.is_some() || own.key_rate.is_some()).then_some(route);
        let connections = own.key_connections.unwrap_or(general.key_connections);
        (scope, Limit { connections, rate: own.key_rate.unwrap_or(general.key_rate) })
    }
}

/// Whom a connection counts for, how far, and which limit that is.
type Check<'a> = (Option<Subject<'a>>, Limit, fn(Refused) -> LimitLabel);

/// A connection that was let in; dropping it gives its places back.
#[derive(Debug, Default)]
pub struct Admission {
    _places: Option<Box<Places>>,
}

/// What comes of letting a client in.
#[derive(Debug)]
pub struct Admitted {
    /// Its places.
    pub admission: Admission,
    /// How far it is from `limits.address_rate` with them, where there is one and its route says so in answers.
    pub standing: Option<Standing>,
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
    pub fn admit(self: &Arc<Self>, key: Option<&str>, address: IpAddr, scope: Scope<'_>) -> Result<Admitted, Exceeded> {
        let limits = self.limits.load();
        let ((address_scope, by_address), (key_scope, by_key)) = (scope.address(&limits), scope.key(&limits));
        let (now, bits) = (self.clock.now(), significant_bits(address));
        let checks: [Check<'_>; SUBJECTS] = [
            (Some(Subject::Address(address_scope, bits)), by_address, address_label),
            (key.map(Subject::WholeKey), whole_key_limit(&limits), |_| LimitLabel::KeyConnectionsTotal),
            (key.map(|key| Subject::Key(key_scope, key, bits)), by_key, key_label),
        ];
        let (mut taken, mut standing) = ([None; SUBJECTS], None);
        for (place, (subject, limit, label)) in taken.iter_mut().zip(checks) {
            let Some(subject) = subject.filter(|_| !limit.is_off()) else { continue };
            let who = self.who(subject);
            let mut shard = self.shard(who);
            let entered = shard.enter(who, limit, now);
            if scope.own.headers && matches!(subject, Subject::Address(..)) && !limit.rate.is_off() {
                standing = Some(Standing::new(LimitLabel::AddressRate, limit.rate, shard.left(who, limit.rate, now)));
            }
            drop(shard);
            if let Err(refused) = entered {
                taken.into_iter().flatten().for_each(|who| self.shard(who).undo(who));
                return Err(Exceeded::new(label(refused), refused));
            }
            *place = Some(who);
        }
        let places = (taken != [None; SUBJECTS]).then(|| Box::new(Places { limiter: self.clone(), taken }));
        Ok(Admitted { admission: Admission { _places: places }, standing })
    }

    /// The places of a pipe that another process has let in: it counts, and is not judged again.
    #[must_use]
    pub fn readmit(self: &Arc<Self>, key: Option<&str>, address: IpAddr, scope: Scope<'_>) -> Admission {
        let limits = self.limits.load();
        let ((address_scope, by_address), (key_scope, by_key)) = (scope.address(&limits), scope.key(&limits));
        let (now, bits) = (self.clock.now(), significant_bits(address));
        let subjects = [
            (Some(Subject::Address(address_scope, bits)), by_address),
            (key.map(Subject::WholeKey), whole_key_limit(&limits)),
            (key.map(|key| Subject::Key(key_scope, key, bits)), by_key),
        ];
        let taken = subjects.map(|(subject, limit)| {
            let who = self.who(subject.filter(|_| !limit.is_off())?);
            let unjudged = Limit { connections: 0, rate: Rate::OFF };
            self.shard(who).enter(who, unjudged, now).is_ok().then_some(who)
        });
        let places = (taken != [None; SUBJECTS]).then(|| Box::new(Places { limiter: self.clone(), taken }));
        Admission { _places: places }
    }

    /// Lets a request that is no WebSocket pass, as far as `limits.address_rate` goes; how far it is from it, if there is
    /// one.
    ///
    /// # Errors
    /// The limit that it met; it does not count then.
    pub fn request(&self, address: IpAddr, scope: Scope<'_>) -> Result<Option<Standing>, Exceeded> {
        let (scope, Limit { rate, .. }) = scope.address(&self.limits.load());
        if rate.is_off() {
            return Ok(None);
        }
        let who = self.who(Subject::Address(scope, significant_bits(address)));
        let knocked = self.shard(who).knock(who, rate, self.clock.now());
        let left = knocked.map_err(|refused| Exceeded::new(LimitLabel::AddressRate, refused))?;
        Ok(Some(Standing::new(LimitLabel::AddressRate, rate, left)))
    }

    /// Whether a client of this address may try to resume a pipe, as far as `limits.resume_failures` goes.
    ///
    /// # Errors
    /// The limit that it met by its failures.
    pub fn may_resume(&self, address: IpAddr) -> Result<(), Exceeded> {
        let rate = self.limits.load().resume_failures;
        if rate.is_off() {
            return Ok(());
        }
        let who = self.who(Subject::Resumes(significant_bits(address)));
        match self.shard(who).left(who, rate, self.clock.now()) {
            (0, wait) => Err(Exceeded::new(LimitLabel::ResumeFailures, Refused::Rate(rate, wait))),
            _ => Ok(()),
        }
    }

    /// Counts a resume that failed.
    pub fn resume_failed(&self, address: IpAddr) {
        let rate = self.limits.load().resume_failures;
        if !rate.is_off() {
            let who = self.who(Subject::Resumes(significant_bits(address)));
            // One beyond the limit tells nothing new.
            let _ = self.shard(who).knock(who, rate, self.clock.now());
        }
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

const fn whole_key_limit(limits: &Limits) -> Limit {
    Limit { connections: limits.key_connections_total, rate: Rate::OFF }
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
#[must_use]
pub fn significant_bits(address: IpAddr) -> u64 {
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

    const GENERAL: RouteLimits = RouteLimits {
        key_connections: None,
        key_rate: None,
        address_connections: None,
        address_rate: None,
        headers: false,
    };

    const SCOPE: Scope<'_> = Scope { route: "r", own: &GENERAL };

    fn limiter(change: impl FnOnce(&mut Limits)) -> Arc<Limiter> {
        let mut limits = Limits::default();
        change(&mut limits);
        Arc::new(Limiter::new(limits, Clock::start()))
    }

    fn enters(limiter: &Arc<Limiter>, key: &str, address: &str) -> Result<Admission, LimitLabel> {
        let address = address.parse().unwrap();
        limiter.admit(Some(key), address, SCOPE).map(|it| it.admission).map_err(|exceeded| exceeded.limit)
    }

    #[test]
    fn ib_12_ten_at_once_of_one_key_and_address_and_an_eleventh_of_another() {
        let limiter = limiter(|_| {});
        let inside: Vec<_> = (0..10).map(|_| enters(&limiter, "s1", "192.0.2.1").unwrap()).collect();
        assert_eq!(enters(&limiter, "s1", "192.0.2.1").unwrap_err(), LimitLabel::KeyConnections);
        assert!(enters(&limiter, "s2", "192.0.2.1").is_ok());
        assert!(enters(&limiter, "s1", "192.0.2.2").is_ok());
        let no_key: Vec<_> =
            (0..30).map(|_| limiter.admit(None, "192.0.2.1".parse().unwrap(), SCOPE).unwrap()).collect();
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
        assert!(limiter.request(address, SCOPE).is_ok(), "the fourth in the hour");
        assert_eq!(limiter.request(address, SCOPE).unwrap_err().limit, LimitLabel::AddressRate);
        limiter.configure(Limits { address_rate: Rate::OFF, ..Limits::default() });
        assert!(limiter.request(address, SCOPE).is_ok());
    }

    #[test]
    fn a_route_with_a_rate_of_its_own_is_counted_by_itself_and_says_what_is_left() {
        let limiter = limiter(|limits| limits.address_rate = Rate::new(1, Duration::from_secs(3600)));
        let capture = RouteLimits { address_rate: Some(Rate::new(2, Duration::from_secs(60))), ..GENERAL };
        let capture = Scope { route: "capture", own: &capture };
        let open = RouteLimits { address_rate: Some(Rate::OFF), ..GENERAL };
        let open = Scope { route: "health", own: &open };
        let address = "192.0.2.1".parse().unwrap();
        let mut answer = http::HeaderMap::new();
        limiter.request(address, capture).unwrap().unwrap().say(&mut answer);
        assert_eq!(answer["ratelimit-policy"], "\"address_rate\";q=2;w=60");
        assert_eq!(
            (&answer["ratelimit"], &answer["x-ratelimit-remaining"]),
            (&"\"address_rate\";r=1;t=60".parse().unwrap(), &"1".parse().unwrap())
        );
        assert!(limiter.request(address, capture).is_ok());
        assert!(limiter.request(address, capture).is_err());
        assert!(limiter.request(address, SCOPE).is_ok(), "others are counted apart");
        assert!(limiter.request(address, SCOPE).is_err());
        assert_eq!(limiter.request(address, open), Ok(None));
    }

    #[test]
    fn resumes_are_refused_once_too_many_failed_and_no_other_address_pays_for_them() {
        let limiter = limiter(|limits| limits.resume_failures = Rate::new(3, Duration::from_secs(3600)));
        let (address, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..3 {
            assert!(limiter.may_resume(address).is_ok(), "to ask costs nothing");
            limiter.resume_failed(address);
        }
        let exceeded = limiter.may_resume(address).unwrap_err();
        assert_eq!(exceeded.limit, LimitLabel::ResumeFailures);
        assert_eq!(exceeded.refusal().status, http::StatusCode::TOO_MANY_REQUESTS);
        limiter.resume_failed(address);
        assert!(limiter.may_resume(other).is_ok());
        assert!(limiter.request(address, SCOPE).is_ok(), "it may still do all else");
        limiter.configure(Limits { resume_failures: Rate::OFF, ..Limits::default() });
        assert!(limiter.may_resume(address).is_ok());
    }

    #[test]
    fn a_hundred_thousand_addresses_are_counted_in_bounded_memory() {
        let limiter = limiter(|limits| limits.address_rate = Rate::new(5, Duration::from_secs(3600)));
        for n in 0..100_000u32 {
            assert!(limiter.request(IpAddr::V4((0x0a00_0000 + n).into()), SCOPE).is_ok());
        }
        let (entries, bytes) = limiter.size();
        assert!(entries <= ENTRIES_MAX, "{entries}");
        assert!(bytes < 16 << 20, "{bytes}");
    }
}
