//! How tests that measure have the machine to themselves: one at a time, and the calmest window counts.
//!
//! Cargo runs one test binary after the other, so what is left to keep apart are the tests of this one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::harness::{Proxy, eventually};

static ALONE: Mutex<()> = Mutex::new(());

/// While a test holds this, no other test of its binary that wants to be alone runs.
pub struct Alone {
    _turn: MutexGuard<'static, ()>,
}

/// Waits until it is this test's turn; taken before anything is started, so that all of it is gone when the next begins.
pub fn alone() -> Alone {
    // a test that failed has held it for nothing that another could find broken
    Alone { _turn: ALONE.lock().unwrap_or_else(PoisonError::into_inner) }
}

/// Sorts `times` and answers the given percentiles.
pub fn percentiles<const N: usize>(times: &mut [Duration], wanted: [usize; N]) -> [Duration; N] {
    times.sort_unstable();
    wanted.map(|percent| times[(times.len() * percent / 100).min(times.len() - 1)])
}

/// Waits until the proxy does little: what the test did to it has had its consequences.
pub async fn calm(proxy: &Proxy) {
    eventually("the proxy is calm", async || {
        let before = proxy.cpu_time();
        // not a wait for something: the window of the measurement
        tokio::time::sleep(Duration::from_secs(1)).await;
        (proxy.cpu_time() - before <= Duration::from_millis(40)).then_some(())
    })
    .await;
}

/// What the proxy uses in the calmest of some windows of a few seconds, in percent of a core: the same work costs up to
/// three times as much while other processes use the processor's caches. The first window below `enough` is calm enough.
pub async fn percent_of_a_core(proxy: &Proxy, enough: f64) -> f64 {
    const WINDOW: Duration = Duration::from_secs(4);
    const WINDOWS: usize = 5;
    let mut least = f64::MAX;
    for _ in 0..WINDOWS {
        let before = proxy.cpu_time();
        // not a wait for something: the window of the measurement
        tokio::time::sleep(WINDOW).await;
        least = least.min((proxy.cpu_time() - before).as_secs_f64() / WINDOW.as_secs_f64() * 100.0);
        if least < enough {
            break;
        }
    }
    least
}
