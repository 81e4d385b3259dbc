//! A backend's promise to say from time to time that it still wants pipes.
//!
//! A lease that is not renewed in time expires: no new pipes, and `EXPIRED_GRACE` later the backend is gone. A renewal
//! at any time before that makes it live again. When more than half of a pool's leases would expire at once, the
//! likelier explanation is that the renewals don't reach us, so the pool keeps them (`too_many_late`).
//!
//! ```text
//!          renew                     renew
//!        ┌──────┐   ┌───────────────────────────────────┐
//!        ▼      │   ▼                                   │
//!        Live ──┴── length without renewal ──▶ Expired ─┴─ EXPIRED_GRACE ──▶ gone
//! ```

use crate::time::Time;
use std::time::Duration;

/// How long an expired backend keeps its live pipes before they are moved and it is removed.
pub const EXPIRED_GRACE: Duration = Duration::from_secs(60);

/// How often a pool looks again at leases it keeps although they ran out.
pub const PRESERVED_RECHECK: Duration = Duration::from_secs(1);

/// What the outside is told about a backend's lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum LeaseState {
    /// It never asked for one: it stays until it is removed.
    None,
    /// Renewed in time, or kept by self-preservation.
    Live,
    /// Not renewed in time.
    Expired,
}

/// A lease and its last renewal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    length: Duration,
    renewed: Time,
    expired: Option<Time>,
    /// Whether its end was acted on; nothing more is to come of it then but a renewal.
    gone: bool,
}

impl Lease {
    /// A live lease of `length` from `now`.
    #[must_use]
    pub const fn new(length: Duration, now: Time) -> Self {
        Self { length, renewed: now, expired: None, gone: false }
    }

    /// A lease of another process, which was renewed last and expired, if it did, at these times.
    #[must_use]
    pub const fn taken_over(length: Duration, renewed: Time, expired: Option<Time>) -> Self {
        Self { length, renewed, expired, gone: false }
    }

    /// When it was renewed last.
    #[must_use]
    pub const fn renewed(&self) -> Time {
        self.renewed
    }

    /// When it expired, if it did.
    #[must_use]
    pub const fn expired(&self) -> Option<Time> {
        self.expired
    }

    /// How long it lasts without a renewal.
    #[must_use]
    pub const fn length(&self) -> Duration {
        self.length
    }

    /// When it expires unless it is renewed; in the past for one that is overdue or expired.
    #[must_use]
    pub fn expires(&self) -> Time {
        self.renewed + self.length
    }

    /// When a holder should renew: three tries fit into one lease.
    #[must_use]
    pub fn renew_after(&self) -> Duration {
        self.length / 3
    }

    /// Live or expired.
    #[must_use]
    pub const fn state(&self) -> LeaseState {
        if self.expired.is_some() { LeaseState::Expired } else { LeaseState::Live }
    }

    /// Starts it anew; true if it had expired.
    pub fn renew(&mut self, now: Time) -> bool {
        self.renewed = now;
        self.gone = false;
        self.expired.take().is_some()
    }

    /// Whether it ran out and it was not acted on yet.
    #[must_use]
    pub fn is_overdue(&self, now: Time) -> bool {
        self.expired.is_none() && now >= self.expires()
    }

    /// Whether its holder has missed two of the three renewals that fit into it.
    #[must_use]
    pub fn is_late(&self, now: Time) -> bool {
        self.expired.is_none() && now.since(self.renewed) > self.length / 3 * 2
    }

    /// Marks it as expired.
    pub fn expire(&mut self, now: Time) {
        self.expired.get_or_insert(now);
    }

    /// When an expired one's backend is to be removed, unless that was acted on.
    #[must_use]
    pub fn gone_at(&self) -> Option<Time> {
        self.expired.map(|at| at + EXPIRED_GRACE).filter(|_| !self.gone)
    }

    /// True once: when the time to remove an expired one's backend has come.
    pub fn take_gone(&mut self, now: Time) -> bool {
        let due = self.gone_at().is_some_and(|at| now >= at);
        self.gone |= due;
        due
    }
}

/// Whether so many leases are late at once that the fault is probably ours: two or more, and more than half.
#[must_use]
pub const fn too_many_late(late: usize, live: usize) -> bool {
    late >= 2 && late * 2 > live
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(15);

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_is_overdue_exactly_at_its_end() {
        let mut lease = Lease::new(LENGTH, at(0));
        assert!(!lease.is_overdue(at(14)));
        assert!(lease.is_overdue(at(15)));
        assert!(!lease.renew(at(14)));
        assert!(!lease.is_overdue(at(28)));
        assert_eq!(lease.renew_after(), Duration::from_secs(5));
    }

    #[test]
    fn a_renewal_revives_an_expired_lease_and_says_so() {
        let mut lease = Lease::new(LENGTH, at(0));
        lease.expire(at(15));
        assert_eq!(lease.state(), LeaseState::Expired);
        assert_eq!(lease.gone_at(), Some(at(75)));
        assert!(!lease.is_overdue(at(20)), "an expired one has been acted on");
        assert!(lease.renew(at(20)));
        assert_eq!(lease.state(), LeaseState::Live);
        assert_eq!(lease.gone_at(), None);
    }

    #[test]
    fn one_late_lease_is_never_too_many() {
        for (late, live, many) in
            [(0, 0, false), (1, 1, false), (1, 2, false), (2, 2, true), (2, 4, false), (3, 4, true), (2, 3, true)]
        {
            assert_eq!(too_many_late(late, live), many, "{late} of {live}");
        }
    }
}
