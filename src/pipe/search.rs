//! Where a pipe's next worker comes from: the dial under way, the watch on the pool, and the wish to leave the worker that
//! the pipe has.
//!
//! A wish to leave takes its place in the pool's row, so that many pipes do not move at once, and is kept until the
//! worker is gone: while there is nowhere to go it waits for the pool to change, and after a move that failed it is tried
//! again, ever less often. A wish that an operator has taken back (a backend made ready again) is dropped when its turn
//! comes.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use holdline_core::backoff::{self, Draw};
use holdline_core::ids::{Attachment, BackendKey};
use holdline_core::pipe::{Cause, DialFailure};
use holdline_core::settings::PipeSettings;
use holdline_core::time::Time;
use tokio::time::Sleep;

use super::attach::Attach;
use crate::backends::{Backends, PoolWatch};

type Waiting = Pin<Box<dyn Future<Output = PoolWatch> + Send>>;

/// A dial under way.
pub type Dialing = Pin<Box<dyn Future<Output = Result<Attach, DialFailure>> + Send>>;

/// A wish to leave the worker.
struct Wish {
    backend: BackendKey,
    cause: Cause,
    /// Whether the backend's state is the reason, and may have changed since.
    ordered: bool,
    /// Moves that came to nothing.
    failures: u32,
    /// When it is tried; nothing while the pool has to change first.
    timer: Option<Pin<Box<Sleep>>>,
}

/// A wish whose turn has come.
pub enum Wished {
    /// To leave this backend.
    Leave(BackendKey, Cause),
    /// It was taken back.
    Nothing,
}

/// A pipe's search for its next worker.
#[derive(Default)]
pub struct Search {
    dialing: Option<(Attachment, Dialing)>,
    /// Hears of changes of the pool while the pipe has no worker or wants another.
    waiting: Option<Waiting>,
    wish: Option<Box<Wish>>,
    /// A planned move has cost the pipe its worker, and no other has it yet.
    between_workers: bool,
}

impl Search {
    /// Begins a dial.
    pub fn dial(&mut self, attachment: Attachment, dialing: Dialing) {
        self.dialing = Some((attachment, dialing));
    }

    /// Gives up the dial that is under way.
    pub fn cancel_dial(&mut self) {
        self.dialing = None;
    }

    /// What came of the dial, once.
    pub fn poll_dial(&mut self, cx: &mut Context<'_>) -> Option<(Attachment, Result<Attach, DialFailure>)> {
        let (attachment, dialing) = self.dialing.as_mut()?;
        let Poll::Ready(result) = dialing.as_mut().poll(cx) else { return None };
        let dialed = (*attachment, result);
        self.dialing = None;
        Some(dialed)
    }

    /// Starts to listen for changes of the pool, before it is asked.
    pub fn watch(&mut self, backends: &Backends, pool: &str) {
        if self.waiting.is_none()
            && let Some(watch) = backends.watch(pool)
        {
            self.waiting = Some(wait(watch));
        }
    }

    /// Stops listening: the pipe has its worker.
    pub fn unwatch(&mut self) {
        self.waiting = None;
    }

    /// Whether the pool has changed. A wish that waits for that has another turn.
    pub fn poll_pool(&mut self, backends: &Backends, cx: &mut Context<'_>) -> bool {
        let Some(waiting) = &mut self.waiting else { return false };
        let Poll::Ready(watch) = waiting.as_mut().poll(cx) else { return false };
        let mut next = wait(watch);
        // It has to hear of the next change too; one that came already is looked at with this one.
        if next.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        self.waiting = Some(next);
        if let Some(wish) = self.wish.as_mut().filter(|wish| wish.timer.is_none()) {
            wish.timer = Some(sleep_until_slot(backends, wish.backend, Duration::ZERO));
        }
        true
    }

    /// Notes a wish to leave `backend`, whose turn comes.
    pub fn wish(&mut self, backend: BackendKey, cause: Cause, ordered: bool, backends: &Backends) {
        let timer = Some(sleep_until_slot(backends, backend, Duration::ZERO));
        self.wish = Some(Box::new(Wish { backend, cause, ordered, failures: 0, timer }));
    }

    /// Drops the wish: the worker is gone.
    pub fn unwish(&mut self) {
        self.wish = None;
    }

    /// What became of the wish, once its turn has come.
    pub fn poll_wish(&mut self, backends: &Backends, cx: &mut Context<'_>) -> Option<Wished> {
        let wish = self.wish.as_mut()?;
        if wish.timer.as_mut()?.as_mut().poll(cx).is_pending() {
            return None;
        }
        wish.timer = None;
        let (backend, cause) = (wish.backend, wish.cause);
        if wish.ordered && backends.must_leave(backend).is_none() {
            self.wish = None;
            return Some(Wished::Nothing);
        }
        Some(Wished::Leave(backend, cause))
    }

    /// Has the wish tried again after a move that came to nothing.
    pub fn wish_later(&mut self, settings: &PipeSettings, backends: &Backends, now: Time) {
        let Some(wish) = &mut self.wish else { return };
        wish.failures += 1;
        let mut draw = Draw::new(now.as_micros() ^ rand::random::<u64>());
        let delay = backoff::wait(wish.failures, settings.backoff_min, settings.backoff_max, &mut draw);
        wish.timer = Some(sleep_until_slot(backends, wish.backend, delay));
    }

    /// Notes whether a move has cost the pipe its worker; whether it had before.
    pub const fn set_between_workers(&mut self, between: bool) -> bool {
        std::mem::replace(&mut self.between_workers, between)
    }
}

fn sleep_until_slot(backends: &Backends, backend: BackendKey, delay: Duration) -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep_until(backends.move_slot(backend) + delay))
}

fn wait(mut watch: PoolWatch) -> Waiting {
    Box::pin(async move {
        watch.changed().await;
        watch
    })
}
