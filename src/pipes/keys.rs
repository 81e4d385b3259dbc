//! What there was of each route key: how many pipes, on which routes, the first one and the last.
//!
//! Bound: `limits.statistics_keys`; over it, the half that had no new pipe for longest is forgotten.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::{PipeFacts, Sharing};

/// The past of one key.
#[derive(Clone, Debug)]
pub struct KeyPast {
    /// Pipes that there ever were.
    pub total: u64,
    /// The same by the names of their routes.
    pub by_route: BTreeMap<String, u64>,
    /// When the first was opened.
    pub first: SystemTime,
    /// When the last was opened.
    pub last: SystemTime,
}

/// The past of all keys.
#[derive(Debug)]
pub struct Keys {
    known: Mutex<HashMap<Arc<str>, KeyPast>>,
    count_max: AtomicUsize,
}

impl Keys {
    /// No keys, and at most so many.
    #[must_use]
    pub fn new(count_max: usize) -> Self {
        Self { known: Mutex::default(), count_max: AtomicUsize::new(count_max) }
    }

    /// Changes how many are remembered; none of those that are too many now goes before another comes.
    pub fn set_count_max(&self, count_max: usize) {
        self.count_max.store(count_max, Relaxed);
    }

    /// How many are remembered, and the memory that they take in bytes.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let keys = self.lock();
        let names = keys.iter().map(|(key, past)| {
            let routes = past.by_route.keys().map(|route| route.len() + ROUTE_BYTES);
            key.len() + routes.sum::<usize>()
        });
        (keys.len(), keys.capacity() * size_of::<(Arc<str>, KeyPast)>() + names.sum::<usize>())
    }

    /// Notes that a pipe is opened; the one of a shared stream has no client of its own and is none here.
    pub(super) fn opened(&self, facts: &PipeFacts) {
        let (Some(key), Sharing::Alone | Sharing::Viewer(_)) = (&facts.key, &facts.sharing) else { return };
        self.note(key, &facts.route.name, SystemTime::now());
    }

    fn note(&self, key: &Arc<str>, route: &str, now: SystemTime) {
        let mut keys = self.lock();
        let count_max = self.count_max.load(Relaxed);
        if keys.len() >= count_max && !keys.contains_key(key) {
            forget_older_half(&mut keys);
        }
        if count_max == 0 {
            return;
        }
        let fresh = || KeyPast { total: 0, by_route: BTreeMap::new(), first: now, last: now };
        let past = keys.entry(key.clone()).or_insert_with(fresh);
        past.total += 1;
        past.last = now;
        match past.by_route.get_mut(route) {
            Some(count) => *count += 1,
            None => drop(past.by_route.insert(route.to_owned(), 1)),
        }
    }

    /// The keys whose last pipes were opened last, with their past.
    #[must_use]
    pub fn newest(&self, count: usize) -> Vec<(Arc<str>, KeyPast)> {
        let mut keys: Vec<_> = self.lock().iter().map(|(key, past)| (key.clone(), past.clone())).collect();
        keys.sort_unstable_by_key(|(_, past)| std::cmp::Reverse(past.last));
        keys.truncate(count);
        keys
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, KeyPast>> {
        // Each note leaves plain counts, which are as good after a panic as before.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a count by route takes beside the route's name.
const ROUTE_BYTES: usize = size_of::<(String, u64)>() + 16;

fn forget_older_half(keys: &mut HashMap<Arc<str>, KeyPast>) {
    if keys.is_empty() {
        return;
    }
    let mut times: Vec<_> = keys.values().map(|past| past.last).collect();
    let middle = times.len() / 2;
    let (_, &mut median, _) = times.select_nth_unstable(middle);
    keys.retain(|_, past| past.last > median);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_keys_pipes_are_counted_by_route_with_the_first_and_the_last() {
        let (keys, at) = (Keys::new(9), |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        keys.note(&"s1".into(), "video", at(1));
        keys.note(&"s1".into(), "video", at(2));
        keys.note(&"s1".into(), "control", at(3));
        keys.note(&"s2".into(), "control", at(4));
        let past = keys.lock()["s1"].clone();
        assert_eq!((past.total, past.first, past.last), (3, at(1), at(3)));
        assert_eq!((past.by_route["video"], past.by_route["control"]), (2, 1));
        assert_eq!(&*keys.newest(1)[0].0, "s2");
    }

    #[test]
    fn the_number_of_keys_is_bounded_and_the_quietest_go_first() {
        const KEYS_MAX: usize = 16_384;
        let (keys, at) = (Keys::new(KEYS_MAX), |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        for number in 0..KEYS_MAX as u64 {
            keys.note(&number.to_string().into(), "r", at(number));
        }
        keys.note(&"0".into(), "r", at(1_000_000));
        assert_eq!(keys.lock().len(), KEYS_MAX);
        keys.note(&"one more".into(), "r", at(1_000_001));
        assert!(keys.lock().len() <= KEYS_MAX / 2 + 2, "{}", keys.lock().len());
        let known = ["0", "1", "one more"].map(|key| keys.lock().contains_key(key));
        assert_eq!(known, [true, false, true]);
        let (count, bytes) = keys.size();
        assert!(count == keys.lock().len() && bytes > count * size_of::<KeyPast>(), "{count} keys in {bytes} bytes");
        keys.set_count_max(0);
        keys.note(&"none".into(), "r", at(1_000_002));
        assert!(!keys.lock().contains_key("none"));
    }
}
