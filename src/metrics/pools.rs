//! How many backends each pool has, and whether the process is ready: what is looked at whenever metrics are read.
//!
//! A pool has all its series, at zero too, from the first look until the configuration no longer names it: an alert on a
//! series that goes with the last worker would be silent exactly then.

use serde::Serialize;

use super::Metrics;
use super::labels::label;

label! {
    /// Backends of a pool that are counted; one may be in several of these.
    PoolBackends {
        /// May get a pipe.
        Eligible = "eligible",
        /// Health checks see it.
        Up = "up",
        /// Admin state: takes nothing new.
        Draining = "draining",
    }
}

impl Metrics {
    /// Sets how many backends the pool `name` has of each of [`PoolBackends`], and how many it should have.
    pub fn set_pool(&self, name: &str, counts: [usize; PoolBackends::ALL.len()], min_backends: u32) {
        // The handle is what has the series go with the configuration.
        drop(self.pool(name));
        for (state, count) in PoolBackends::ALL.iter().zip(counts) {
            let gauge = self.families().pool_backends.with_label_values(&[name, state.as_str()]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.families().pool_min_backends.with_label_values(&[name]).set(i64::from(min_backends));
    }

    /// Says whether new clients should come here.
    pub fn set_ready(&self, ready: bool) {
        self.families().ready.set(i64::from(ready));
    }
}
