//! Which backend has a key's session: the one that its last pipe or request was sent to.
//!
//! A worker's sessions are private to it, so the pipes and the plain requests of one key belong on one backend for as
//! long as that one will do. A preference only: it never keeps a key waiting for a backend that is out.
//!
//! A backend that is gone may stay named here: its key is never reused, so no pipe prefers it. Bound: `OWNERS_MAX`; over it, the half that was not used for longest is forgotten.

use holdline_core::ids::BackendKey;
use std::collections::HashMap;

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
}

impl Owners {
    pub(super) fn of(&self, key: Option<&str>) -> Option<BackendKey> {
        self.by_key.get(key?).map(|owner| owner.backend)
    }

    pub(super) fn set(&mut self, key: Option<&str>, backend: BackendKey) {
        let Some(key) = key else { return };
        self.uses += 1;
        let owner = Owner { backend, used: self.uses };
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
        owners.set(Some("k"), a);
        owners.set(Some("k"), b);
        owners.set(Some("l"), a);
        owners.set(None, a);
        assert_eq!((owners.of(Some("k")), owners.of(Some("l")), owners.of(None)), (Some(b), Some(a), None));
    }

    #[test]
    fn the_number_of_owners_is_bounded_and_the_oldest_go_first() {
        let mut owners = Owners::default();
        for number in 0..OWNERS_MAX {
            owners.set(Some(&number.to_string()), BackendKey(1));
        }
        owners.set(Some("0"), BackendKey(2));
        assert_eq!(owners.by_key.len(), OWNERS_MAX);
        owners.set(Some("one more"), BackendKey(1));
        assert!(owners.by_key.len() <= OWNERS_MAX / 2 + 1);
        assert_eq!(owners.of(Some("0")), Some(BackendKey(2)), "it was used");
        assert_eq!(owners.of(Some("1")), None);
        assert_eq!(owners.of(Some("one more")), Some(BackendKey(1)));
    }
}
