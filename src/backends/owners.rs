//! Which backend has a key's session: the one that its last pipe or request was sent to.
//!
//! A worker's sessions are private to it, so the pipes and the plain requests of one key belong on one backend for as
//! long as that one will do. A preference only: it never keeps a key waiting for a backend that is out.
//!
//! A key that a worker has made up is known from its answer on ([`Owners::learn`]), for a time.
//!
//! A backend that is gone may stay named here: its key is never reused, so no pipe prefers it. Bound: `OWNERS_MAX`; over it, the half that was not used for longest is forgotten.

use holdline_core::ids::BackendKey;
use holdline_core::time::Time;
use std::collections::HashMap;
use std::time::Duration;

/// Keys remembered per pool.
pub const OWNERS_MAX: usize = 65_536;

/// The owners of one pool's keys.
#[derive(Debug, Default)]
pub(super) struct Owners {
    by_key: HashMap<Box<str>, Owner>,
    /// Counts uses: the time by which the oldest are told.
    uses: u64,
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    backend: BackendKey,
    used: u64,
    /// For a key that was learned from an answer: until when it is remembered, and how long after each use.
    learned: Option<(Time, Duration)>,
}

impl Owner {
    fn is_known(&self, now: Time) -> bool {
        self.learned.is_none_or(|(until, _)| now < until)
    }
}

impl Owners {
    pub(super) fn of(&self, key: Option<&str>, now: Time) -> Option<BackendKey> {
        self.by_key.get(key?).filter(|owner| owner.is_known(now)).map(|owner| owner.backend)
    }

    /// Notes that a pipe or a request of this key was sent to `backend`.
    pub(super) fn set(&mut self, key: Option<&str>, backend: BackendKey, now: Time) {
        let Some(key) = key else { return };
        let known = self.by_key.get(key).filter(|owner| owner.is_known(now));
        let learned = known.and_then(|owner| owner.learned).map(|(_, ttl)| (now + ttl, ttl));
        self.put(key, backend, learned);
    }

    /// Notes that `backend` has made this key up, which is remembered for `ttl` and as long after each use.
    pub(super) fn learn(&mut self, key: &str, backend: BackendKey, ttl: Duration, now: Time) {
        self.put(key, backend, Some((now + ttl, ttl)));
    }

    fn put(&mut self, key: &str, backend: BackendKey, learned: Option<(Time, Duration)>) {
        self.uses += 1;
        let owner = Owner { backend, used: self.uses, learned };
        if let Some(known) = self.by_key.get_mut(key) {
            *known = owner;
            return;
        }
        if self.by_key.len() >= OWNERS_MAX {
            self.forget_older_half();
        }
        self.by_key.insert(key.into(), owner);
    }

    fn forget_older_half(&mut self) {
        let mut uses: Vec<_> = self.by_key.values().map(|owner| owner.used).collect();
        let middle = uses.len() / 2;
        let (_, &mut median, _) = uses.select_nth_unstable(middle);
        self.by_key.retain(|_, owner| owner.used >= median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_backend_of_a_key_owns_it() {
        let (a, b) = (BackendKey(1), BackendKey(2));
        let mut owners = Owners::default();
        owners.set(Some("k"), a, Time::ZERO);
        owners.set(Some("k"), b, Time::ZERO);
        owners.set(Some("l"), a, Time::ZERO);
        owners.set(None, a, Time::ZERO);
        assert_eq!(
            (owners.of(Some("k"), Time::ZERO), owners.of(Some("l"), Time::ZERO), owners.of(None, Time::ZERO)),
            (Some(b), Some(a), None)
        );
    }

    #[test]
    fn the_number_of_owners_is_bounded_and_the_oldest_go_first() {
        let mut owners = Owners::default();
        for number in 0..OWNERS_MAX {
            owners.set(Some(&number.to_string()), BackendKey(1), Time::ZERO);
        }
        owners.set(Some("0"), BackendKey(2), Time::ZERO);
        assert_eq!(owners.by_key.len(), OWNERS_MAX);
        owners.set(Some("one more"), BackendKey(1), Time::ZERO);
        assert!(owners.by_key.len() <= OWNERS_MAX / 2 + 1);
        assert_eq!(owners.of(Some("0"), Time::ZERO), Some(BackendKey(2)), "it was used");
        assert_eq!(owners.of(Some("1"), Time::ZERO), None);
        assert_eq!(owners.of(Some("one more"), Time::ZERO), Some(BackendKey(1)));
    }

    #[test]
    fn a_learned_key_is_forgotten_when_it_was_not_used_for_its_time() {
        let (a, ttl) = (BackendKey(1), Duration::from_secs(10));
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        let mut owners = Owners::default();
        owners.learn("k", a, ttl, at(0));
        assert_eq!((owners.of(Some("k"), at(9)), owners.of(Some("k"), at(10))), (Some(a), None));
        owners.set(Some("k"), a, at(9));
        assert_eq!((owners.of(Some("k"), at(18)), owners.of(Some("k"), at(19))), (Some(a), None));
        owners.set(Some("k"), a, at(30));
        assert_eq!(owners.of(Some("k"), at(1_000)), Some(a), "it is a key as any other from then on");
    }
}
