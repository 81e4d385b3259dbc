//! The log's level, and how long it stays: as configured, as an operator set it, or for a while and then back.
//!
//! ```text
//! base ──▶ what holds          set, configure: change the base
//!            ▲                 set_for: lies over the base until its time is up
//! for a while┘
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinHandle;

use crate::config::LogLevel;
use crate::log::LogHandle;

/// The level of the process's log; share it by `Arc`.
#[derive(Debug)]
pub struct Level {
    log: Arc<LogHandle>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    base: LogLevel,
    over: Option<Over>,
}

/// A level that holds for a while.
#[derive(Debug)]
struct Over {
    until: Timestamp,
    timer: JoinHandle<()>,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

/// What holds now, and what afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LevelView {
    /// The level in force.
    pub level: LogLevel,
    /// The level that it goes back to.
    pub base: LogLevel,
    /// When it goes back, if it does.
    pub until: Option<Timestamp>,
}

impl Level {
    /// The level that `log` has, for good.
    #[must_use]
    pub fn new(log: Arc<LogHandle>) -> Arc<Self> {
        let state = Mutex::new(State { base: log.level(), over: None });
        Arc::new(Self { log, state })
    }

    /// What holds.
    #[must_use]
    pub fn view(&self) -> LevelView {
        let state = self.state();
        LevelView { level: self.log.level(), base: state.base, until: state.over.as_ref().map(|over| over.until) }
    }

    /// Changes the level for good, at once.
    pub fn set(&self, level: LogLevel) {
        let mut state = self.state();
        *state = State { base: level, over: None };
        self.log.set_level(level);
    }

    /// Changes what holds once nothing else does: a new configuration does not end what an operator asked for.
    pub fn configure(&self, level: LogLevel) {
        let mut state = self.state();
        state.base = level;
        if state.over.is_none() {
            self.log.set_level(level);
        }
    }

    /// Changes the level for `time`, in place of an earlier one that has not run out. To be called on a runtime, which
    /// the change back runs on.
    pub fn set_for(self: &Arc<Self>, level: LogLevel, time: Duration) {
        let mut state = self.state();
        let until = Timestamp::now().checked_add(time).unwrap_or(Timestamp::MAX);
        let timer = tokio::spawn(go_back(Arc::downgrade(self), time));
        state.over = Some(Over { until, timer });
        self.log.set_level(level);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn go_back(level: Weak<Level>, time: Duration) {
    tokio::time::sleep(time).await;
    let Some(level) = level.upgrade() else { return };
    let mut state = level.state();
    level.log.set_level(state.base);
    // Drops the handle of this very task, which has nothing left to do.
    state.over = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_level_for_a_while_goes_back_to_what_holds_by_then() {
        let level = Level::new(Arc::new(LogHandle::detached(LogLevel::Info)));
        level.set_for(LogLevel::Trace, Duration::from_secs(60));
        level.set_for(LogLevel::Debug, Duration::from_secs(600));
        level.configure(LogLevel::Warn);
        assert_eq!((level.view().level, level.view().base), (LogLevel::Debug, LogLevel::Warn));
        assert!(level.view().until.is_some());
        tokio::time::advance(Duration::from_secs(61)).await;
        tokio::task::yield_now().await;
        assert_eq!(level.view().level, LogLevel::Debug, "the first one's end no longer counts");
        tokio::time::advance(Duration::from_secs(600)).await;
        tokio::task::yield_now().await;
        assert_eq!(level.view(), LevelView { level: LogLevel::Warn, base: LogLevel::Warn, until: None });
    }

    #[tokio::test(start_paused = true)]
    async fn a_level_that_is_set_for_good_stays() {
        let level = Level::new(Arc::new(LogHandle::detached(LogLevel::Info)));
        level.set_for(LogLevel::Trace, Duration::from_secs(60));
        level.set(LogLevel::Error);
        tokio::time::advance(Duration::from_secs(61)).await;
        tokio::task::yield_now().await;
        assert_eq!(level.view(), LevelView { level: LogLevel::Error, base: LogLevel::Error, until: None });
    }
}
