//! What a service manager is told (sd_notify(3)): ready, alive, reloading, stopping, and numbers for `systemctl status`.
//!
//! A thread of its own does it, so that a service manager that does not read cannot hold up anything else. It says
//! "alive" only when every runtime of the process has just taken up a piece of work that was put to it: a process whose
//! threads hang is restarted. Without `NOTIFY_SOCKET` nothing happens at all.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use std::{env, io};

use sd_notify::NotifyState;
use tokio::runtime;

/// How often numbers are told, and at least how often the threads are asked.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// The least that a stop asks for each time; more if we speak seldom.
const EXTENSION_MIN: Duration = Duration::from_secs(15);
/// Words that wait for the notifying thread at most, beside one answer of each runtime. It does nothing but hear them.
const WORDS_MAX: usize = 16;

/// What is watched, by name.
pub type Runtimes = Vec<(String, runtime::Handle)>;

/// The way to the service manager; does nothing if there is none.
#[derive(Debug)]
pub struct Notifier(Option<SyncSender<Word>>);

#[derive(Debug)]
enum Word {
    /// This runtime has taken up work.
    Alive(usize),
    Reloading,
    Reloaded,
    Stopping,
    Quit,
}

impl Notifier {
    /// Says that the process is ready, and from then on what `status` says, and that `runtimes` are alive.
    ///
    /// # Errors
    /// When there is a service manager and no thread to speak to it.
    pub fn start(runtimes: Runtimes, status: impl Fn() -> String + Send + 'static) -> io::Result<Self> {
        if env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(Self(None));
        }
        let watchdog = sd_notify::watchdog_enabled();
        let mut was_heard = true;
        Self::start_with(runtimes, watchdog, status, move |states| was_heard = say(states, was_heard))
    }

    fn start_with(
        runtimes: Runtimes,
        watchdog: Option<Duration>,
        status: impl Fn() -> String + Send + 'static,
        say: impl FnMut(&[NotifyState<'_>]) + Send + 'static,
    ) -> io::Result<Self> {
        let (words, heard) = sync_channel(runtimes.len() + WORDS_MAX);
        let runtimes = runtimes.into_iter().map(|(name, handle)| Watched { name, handle, is_asked: false }).collect();
        let period = watchdog.map_or(STATUS_EVERY, |watchdog| (watchdog / 2).min(STATUS_EVERY));
        let mouth = Mouth { has_watchdog: watchdog.is_some(), is_stopping: false, period, status, say };
        let keeper = Keeper { runtimes, words: words.clone(), heard, mouth };
        std::thread::Builder::new().name("notify".into()).spawn(move || keeper.run())?;
        Ok(Self(Some(words)))
    }

    /// A reload begins; [`Notifier::reloaded`] must follow, however it ended.
    pub fn reloading(&self) {
        self.send(Word::Reloading);
    }

    /// The reload is over.
    pub fn reloaded(&self) {
        self.send(Word::Reloaded);
    }

    /// The process is on its way down; it asks for the time that it needs for as long as its threads answer.
    pub fn stopping(&self) {
        self.send(Word::Stopping);
    }

    /// Says nothing more: threads that end from now on are meant to.
    pub fn end(self) {
        self.send(Word::Quit);
    }

    fn send(&self, word: Word) {
        let Some(words) = &self.0 else { return };
        if words.try_send(word).is_err() {
            tracing::warn!("the service manager is not told what happens: it does not read");
        }
    }
}

/// Says that the process of this number is the main one from now on: it has taken over from this one.
pub fn main_process(pid: u32) {
    if env::var_os("NOTIFY_SOCKET").is_some() {
        say(&[NotifyState::MainPid(pid)], true);
    }
}

/// Speaks to the service manager; whether it was heard. Logged only when that changes.
fn say(states: &[NotifyState<'_>], was_heard: bool) -> bool {
    match sd_notify::notify(states) {
        Ok(()) => true,
        Err(error) => {
            if was_heard {
                tracing::warn!(%error, "the service manager cannot be told anything");
            }
            false
        }
    }
}

/// A runtime that is asked whether it is alive.
#[derive(Debug)]
struct Watched {
    name: String,
    handle: runtime::Handle,
    /// Whether it owes an answer; it is not asked again before.
    is_asked: bool,
}

struct Keeper<F, S> {
    runtimes: Vec<Watched>,
    words: SyncSender<Word>,
    heard: Receiver<Word>,
    mouth: Mouth<F, S>,
}

impl<F: Fn() -> String, S: FnMut(&[NotifyState<'_>])> Keeper<F, S> {
    fn run(mut self) {
        self.mouth.ready();
        while self.round() {}
    }

    /// Asks all runtimes and says what they answer within the period; false once there is nothing more to say.
    fn round(&mut self) -> bool {
        let deadline = Instant::now() + self.mouth.period;
        self.ask();
        let mut is_told = false;
        loop {
            if !is_told && self.runtimes.iter().all(|runtime| !runtime.is_asked) {
                self.mouth.alive();
                is_told = true;
            }
            match self.heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Word::Alive(index)) => self.runtimes[index].is_asked = false,
                Ok(Word::Reloading) => self.mouth.reloading(),
                Ok(Word::Reloaded) => self.mouth.ready(),
                Ok(Word::Stopping) => self.mouth.stopping(),
                Ok(Word::Quit) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        if !is_told {
            let stuck: Vec<&str> =
                self.runtimes.iter().filter(|runtime| runtime.is_asked).map(|runtime| runtime.name.as_str()).collect();
            self.mouth.stuck(&stuck.join(", "));
        }
        true
    }

    fn ask(&mut self) {
        for (index, runtime) in self.runtimes.iter_mut().enumerate().filter(|(_, runtime)| !runtime.is_asked) {
            let words = self.words.clone();
            // The channel has room for one answer of each.
            runtime.handle.spawn(async move { drop(words.try_send(Word::Alive(index))) });
            runtime.is_asked = true;
        }
    }
}

struct Mouth<F, S> {
    has_watchdog: bool,
    is_stopping: bool,
    period: Duration,
    status: F,
    say: S,
}

impl<F: Fn() -> String, S: FnMut(&[NotifyState<'_>])> Mouth<F, S> {
    fn ready(&mut self) {
        (self.say)(&[NotifyState::Ready, NotifyState::Status(&(self.status)())]);
    }

    fn reloading(&mut self) {
        let states = [Some(NotifyState::Reloading), NotifyState::monotonic_usec_now().ok()];
        (self.say)(&states.into_iter().flatten().collect::<Vec<_>>());
    }

    fn stopping(&mut self) {
        self.is_stopping = true;
        let extension = self.extension();
        (self.say)(&[NotifyState::Stopping, extension, NotifyState::Status(&(self.status)())]);
    }

    fn alive(&mut self) {
        let status = (self.status)();
        let states = [
            self.has_watchdog.then_some(NotifyState::Watchdog),
            self.is_stopping.then(|| self.extension()),
            Some(NotifyState::Status(&status)),
        ];
        (self.say)(&states.into_iter().flatten().collect::<Vec<_>>());
    }

    fn stuck(&mut self, names: &str) {
        tracing::error!(threads = names, seconds = self.period.as_secs_f64(), "threads do not answer");
        (self.say)(&[NotifyState::Status(&format!("{names} does not answer"))]);
    }

    /// What a stop may take from now on; said again long before it is over.
    fn extension(&self) -> NotifyState<'static> {
        let extension = (self.period * 3).max(EXTENSION_MIN);
        NotifyState::ExtendTimeoutUsec(u32::try_from(extension.as_micros()).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    /// Longer than any of this takes.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn notifier(runtimes: Runtimes, watchdog: Option<Duration>) -> (Notifier, Receiver<String>) {
        let (said, hear) = channel();
        let say = move |states: &[NotifyState<'_>]| {
            // The test may have heard enough.
            let _ = said.send(states.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
        };
        (Notifier::start_with(runtimes, watchdog, || "7 pipes".into(), say).unwrap(), hear)
    }

    fn hear(said: &Receiver<String>, wanted: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let line = said.recv_timeout(until - Instant::now()).unwrap_or_else(|_| panic!("never said: {wanted}"));
            if line.contains(wanted) {
                return line;
            }
        }
    }

    #[test]
    fn a_runtime_that_hangs_is_not_called_alive_until_it_answers_again() {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let watched = vec![("data-0".to_owned(), runtime.handle().clone())];
        let (notifier, said) = notifier(watched, Some(Duration::from_millis(20)));
        assert_eq!(hear(&said, "READY=1"), "READY=1 STATUS=7 pipes");
        hear(&said, "WATCHDOG=1");
        let (go_on, held) = channel::<()>();
        runtime.spawn(async move { held.recv() });
        hear(&said, "STATUS=data-0 does not answer");
        // it stays silent for as long as the thread hangs
        for _ in 0..3 {
            assert_eq!(said.recv_timeout(PATIENCE).unwrap(), "STATUS=data-0 does not answer");
        }
        go_on.send(()).unwrap();
        hear(&said, "WATCHDOG=1");
        notifier.end();
    }

    #[test]
    fn a_stop_asks_for_time_again_and_again() {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (notifier, said) =
            notifier(vec![("control".into(), runtime.handle().clone())], Some(Duration::from_millis(20)));
        notifier.stopping();
        assert_eq!(hear(&said, "STOPPING=1"), "STOPPING=1 EXTEND_TIMEOUT_USEC=15000000 STATUS=7 pipes");
        for _ in 0..2 {
            assert!(hear(&said, "WATCHDOG=1").contains("EXTEND_TIMEOUT_USEC=15000000"));
        }
        notifier.end();
    }

    #[test]
    fn a_reload_ends_with_ready() {
        let (notifier, said) = notifier(Vec::new(), None);
        hear(&said, "READY=1");
        notifier.reloading();
        assert!(hear(&said, "RELOADING=1").contains(" MONOTONIC_USEC="));
        notifier.reloaded();
        hear(&said, "READY=1");
        notifier.end();
    }
}
