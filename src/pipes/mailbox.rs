//! What others want of a pipe: orders, or only that its task takes a turn.
//!
//! Invariant: an order is seen by the turn that it wakes the task for, or by one before that. A turn without orders costs a
//! look at a flag: the task's waker stays here, so that no wake takes it out for the next turn to put in again.

use std::sync::atomic::{
    AtomicBool,
    Ordering::{Relaxed, SeqCst},
    fence,
};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::task::Waker;

use super::command::{COMMANDS_MAX, Command};
use super::lock;

/// The mailbox of one pipe.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    /// Few and seldom: a slice takes less room than a list of which most pipes have none.
    orders: Mutex<Box<[Command]>>,
    /// Set behind each order that was put in.
    has_orders: AtomicBool,
    /// Wakes the pipe's task. There is one, and it is polled by itself alone.
    task: OnceLock<Waker>,
}

impl Mailbox {
    /// Puts an order in and wakes the task; gives it back if [`COMMANDS_MAX`] wait already.
    pub(super) fn put(&self, command: Command) -> Result<(), Command> {
        let orders = lock(&self.orders);
        if orders.len() >= COMMANDS_MAX {
            return Err(command);
        }
        self.add(orders, command);
        Ok(())
    }

    /// Puts an order in, however many wait, and wakes the task.
    pub(super) fn insist(&self, command: Command) {
        self.add(lock(&self.orders), command);
    }

    fn add(&self, mut orders: MutexGuard<'_, Box<[Command]>>, command: Command) {
        let mut more = std::mem::take(&mut *orders).into_vec();
        more.push(command);
        *orders = more.into();
        drop(orders);
        self.has_orders.store(true, SeqCst);
        self.wake();
    }

    /// Wakes the task, if it has had its first turn; before that, it comes by itself.
    pub(super) fn wake(&self) {
        // Either the first turn sees what was put in before, or its waker is seen here.
        fence(SeqCst);
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }

    /// The orders that wait, oldest first, for the task that `waker` wakes.
    pub(super) fn take(&self, waker: &Waker) -> Vec<Command> {
        if self.task.get().is_none() {
            // Who puts an order in meanwhile either sees the waker, or is seen below.
            let _ = self.task.set(waker.clone());
            fence(SeqCst);
        }
        debug_assert!(self.task.get().is_some_and(|task| task.will_wake(waker)), "a pipe is polled by one task");
        if !self.has_orders.load(SeqCst) {
            return Vec::new();
        }
        // Before they are taken: one that comes in between is seen again, and that there is none then.
        self.has_orders.store(false, Relaxed);
        std::mem::take(&mut *lock(&self.orders)).into_vec()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn what_was_put_in_before_the_first_turn_is_there_and_what_comes_later_wakes_the_task_each_time() {
        let (mailbox, wakes) = (Mailbox::default(), Arc::new(Wakes::default()));
        let waker = Waker::from(wakes.clone());
        assert!(mailbox.put(Command::make_room()).is_ok());
        assert_eq!(mailbox.take(&waker).len(), 1);
        assert!(mailbox.take(&waker).is_empty());
        for count in 1..4 {
            assert!(mailbox.put(Command::make_room()).is_ok());
            assert_eq!(wakes.0.load(SeqCst), 2 * count - 1);
            mailbox.wake();
            assert_eq!(mailbox.take(&waker).len(), 1);
        }
    }

    #[test]
    fn a_full_mailbox_gives_the_order_back() {
        let (mailbox, waker) = (Mailbox::default(), Waker::from(Arc::new(Wakes::default())));
        assert!((0..COMMANDS_MAX).all(|_| mailbox.put(Command::make_room()).is_ok()));
        assert!(mailbox.put(Command::make_room()).is_err());
        mailbox.insist(Command::make_room());
        assert_eq!(mailbox.take(&waker).len(), COMMANDS_MAX + 1);
        assert!(mailbox.put(Command::make_room()).is_ok());
    }

    #[test]
    fn no_order_is_missed_however_it_meets_the_turn() {
        const ORDERS: usize = 2000;
        for _ in 0..20 {
            let (mailbox, wakes) = (Arc::new(Mailbox::default()), Arc::new(Wakes::default()));
            let waker = Waker::from(wakes.clone());
            let putting = std::thread::spawn({
                let mailbox = mailbox.clone();
                move || {
                    for _ in 0..ORDERS {
                        while mailbox.put(Command::make_room()).is_err() {
                            std::thread::yield_now();
                        }
                    }
                }
            });
            let mut seen = mailbox.take(&waker).len();
            while seen < ORDERS {
                // As a task: without a wake there is no turn.
                if wakes.0.swap(0, SeqCst) > 0 {
                    seen += mailbox.take(&waker).len();
                } else if putting.is_finished() && wakes.0.load(SeqCst) == 0 {
                    break;
                }
            }
            putting.join().expect("it does not panic");
            assert_eq!(seen, ORDERS);
        }
    }
}
