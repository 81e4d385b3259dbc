//! The books of a demo: what both ends saw, kept by those who saw it and read by the table, the page and the verdict.
//!
//! One lock around plain numbers, never held across an await.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::numbers::Numbers;
use super::options::Options;
use super::page::{Event, Move, Phase, State, Totals, Verdict, WorkerPhase, WorkerState};
use super::percentile::summary;
use super::verdict::{Evidence, Lost};
use super::workers::hue;

/// Sentences kept for the page, which shows fifty.
const EVENTS_MAX: usize = 200;
/// Moves of the page's screens kept for the page, which asks four times a second.
const MOVES_MAX: usize = 100;
/// Reattach times kept; later ones push out the oldest.
const REATTACHES_MAX: usize = 100_000;
/// Attachments of one pipe whose order is still checked; a dead worker's journal is read long before so many more.
const ATTACHMENTS_MAX: usize = 64;

/// The books.
pub(super) struct Board {
    /// The proxy's public listener, `ws://HOST:PORT`.
    pub proxy: String,
    /// Its dashboard, `http://HOST:PORT/`.
    pub dashboard: String,
    /// Sessions of the page's screens.
    screens: Vec<String>,
    seconds: u64,
    /// Whether the clock waits for the first viewer.
    waits: bool,
    books: Mutex<Books>,
}

/// What a demo is about, from its start on.
pub(super) struct Subject {
    /// The proxy's public listener.
    pub proxy: String,
    /// Its dashboard.
    pub dashboard: String,
    /// Sessions of the page's screens.
    pub screens: Vec<String>,
    /// Whether the clock waits for the first viewer.
    pub waits: bool,
}

/// What is counted.
pub(super) struct Books {
    /// Where the demo is.
    pub phase: Phase,
    /// When clients were connected; until then, when everything began to come up.
    began: Instant,
    /// When the seconds began to count.
    clock: Option<Instant>,
    /// One for each client, by its index.
    pub clients: Vec<Commands>,
    /// One for each client with a screen.
    pub screens: Vec<Frames>,
    /// The workers.
    pub workers: Vec<WorkerState>,
    /// Where each of them listens, while it serves.
    pub addresses: Vec<Option<SocketAddr>>,
    /// What the proxy says of itself.
    pub proxy: ProxySays,
    /// Workers killed.
    pub kills: u64,
    /// Workers drained.
    pub drains: u64,
    /// How it ended.
    pub verdict: Option<Verdict>,
    client_closes: u64,
    first_close: Option<String>,
    reattaches_ms: VecDeque<f64>,
    moves: VecDeque<Move>,
    moved: u64,
    events: VecDeque<Event>,
    said: u64,
}

/// The commands of one client.
#[derive(Default)]
pub(super) struct Commands {
    /// The last number sent; they count from 1.
    pub sent: u64,
    /// Numbers in the journals.
    pub executed: Numbers,
    /// Numbers that came back.
    pub answered: Numbers,
    last_of: BTreeMap<u64, u64>,
    out_of_order: u64,
}

impl Commands {
    /// A journal says that the command was executed.
    pub(super) fn executed(&mut self, number: u64, attachment: u64) {
        self.executed.note(number);
        let last = self.last_of.entry(attachment).or_default();
        self.out_of_order += u64::from(number <= *last);
        *last = number;
        if self.last_of.len() > ATTACHMENTS_MAX {
            self.last_of.pop_first();
        }
    }

    fn invented(&self) -> bool {
        self.executed.exceeds(self.sent) || self.answered.exceeds(self.sent)
    }

    /// Executed, and the answer has not come.
    fn unanswered(&self) -> u64 {
        self.executed.distinct().saturating_sub(self.answered.distinct())
    }
}

/// The video frames of one client.
#[derive(Default)]
pub(super) struct Frames {
    /// Frames that came whole.
    pub whole: u64,
    /// Frames that are missing between two of the same worker, or came damaged.
    pub lost: u64,
    /// A frame has come since everything settles.
    pub fresh: bool,
    worker: String,
    seq: u64,
}

impl Frames {
    /// A whole frame: worker and number on it. Numbers are contiguous while the worker is the same, because no two
    /// clients watch one phone; each worker process has a name of its own.
    pub(super) fn came(&mut self, worker: &str, seq: u64) {
        if self.worker == worker {
            let skipped = seq.checked_sub(self.seq + 1);
            self.lost += skipped.unwrap_or(1);
        } else {
            worker.clone_into(&mut self.worker);
        }
        self.seq = seq;
        self.whole += 1;
        self.fresh = true;
    }
}

/// The proxy's own numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ProxySays {
    /// Messages in doubt, both lanes.
    pub in_doubt: u64,
    /// Messages given up, both lanes.
    pub lost: u64,
    /// Times that a pipe lost its worker.
    pub interruptions: u64,
    /// ERROR lines in its log.
    pub errors: u64,
    /// Its process ended before its time.
    pub died: bool,
}

impl Board {
    /// Empty books.
    pub(super) fn new(options: &Options, subject: Subject) -> Self {
        let worker = |index| WorkerState {
            name: String::new(),
            state: WorkerPhase::Starting,
            pid: None,
            pipes: 0,
            starts: 0,
            hue: hue(index),
            tunnel: String::new(),
        };
        let count = options.workers as usize;
        let books = Books {
            phase: Phase::Starting,
            began: Instant::now(),
            clock: None,
            clients: (0..options.clients).map(|_| Commands::default()).collect(),
            screens: (0..options.clients.div_ceil(super::clients::CLIENTS_PER_SCREEN))
                .map(|_| Frames::default())
                .collect(),
            workers: (0..count).map(worker).collect(),
            addresses: vec![None; count],
            proxy: ProxySays::default(),
            kills: 0,
            drains: 0,
            verdict: None,
            client_closes: 0,
            first_close: None,
            reattaches_ms: VecDeque::new(),
            moves: VecDeque::new(),
            moved: 0,
            events: VecDeque::new(),
            said: 0,
        };
        let Subject { proxy, dashboard, screens, waits } = subject;
        Self { proxy, dashboard, screens, seconds: options.seconds(), waits, books: Mutex::new(books) }
    }

    /// The books, for a moment.
    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clients are connected, and time counts from now on, or from the first viewer on.
    pub(super) fn begin(&self) {
        let mut books = self.books();
        let now = Instant::now();
        books.began = now;
        (books.phase, books.clock) = if self.waits { (Phase::Waiting, None) } else { (Phase::Running, Some(now)) };
    }

    /// A page asks for the state: the first one starts the clock.
    pub(super) fn viewed(&self) {
        let mut books = self.books();
        if books.phase == Phase::Waiting {
            (books.phase, books.clock) = (Phase::Running, Some(Instant::now()));
        }
    }

    /// When the seconds began to count, if they do.
    pub(super) fn clock(&self) -> Option<Instant> {
        self.books().clock
    }

    /// Writes down a sentence for people.
    pub(super) fn say(&self, text: String) {
        let mut books = self.books();
        let event = Event { at_s: books.began.elapsed().as_secs_f64(), text };
        push(&mut books.events, event, EVENTS_MAX);
        books.said += 1;
    }

    /// The sentences after the first `seen`, for a log of plain lines; and how many there were in all.
    pub(super) fn said_after(&self, seen: u64) -> (Vec<Event>, u64) {
        let books = self.books();
        let new = usize::try_from(books.said - seen).unwrap_or(usize::MAX).min(books.events.len());
        (books.events.range(books.events.len() - new..).cloned().collect(), books.said)
    }

    /// A client's socket closed before the demo closed it.
    pub(super) fn client_closed(&self, who: &str, why: &str) {
        let mut books = self.books();
        books.client_closes += 1;
        books.first_close.get_or_insert_with(|| format!("{who}: {why}"));
        drop(books);
        self.say(format!("the socket of {who} closed: {why}"));
    }

    /// Everything that the page and the table show.
    pub(super) fn state(&self) -> State {
        let books = self.books();
        State {
            proxy: self.proxy.clone(),
            dashboard: self.dashboard.clone(),
            screens: self.screens.clone(),
            phase: books.phase,
            elapsed_s: books.clock.map_or(0.0, |clock| clock.elapsed().as_secs_f64()),
            seconds: self.seconds,
            clients: books.clients.len() as u64,
            totals: books.totals(),
            reattach_ms: summary(books.reattaches_ms.as_slices().0),
            workers: books.workers.clone(),
            moves: books.moves.iter().cloned().collect(),
            events: books.events.iter().cloned().collect(),
            verdict: books.verdict.clone(),
        }
    }
}

impl Books {
    /// One of the page's screens has its next worker.
    pub(super) fn screen_moved(&mut self, screen: &str, from: &str, why: &'static str, took_ms: f64) {
        self.moved += 1;
        let moved = Move { number: self.moved, screen: screen.into(), from: from.into(), why, took_ms };
        push(&mut self.moves, moved, MOVES_MAX);
    }

    /// A pipe has its next worker after so many milliseconds.
    pub(super) fn reattached(&mut self, took_ms: f64) {
        push(&mut self.reattaches_ms, took_ms, REATTACHES_MAX);
        self.reattaches_ms.make_contiguous();
    }

    /// Whether everything that was sent was executed and answered, and every screen moves.
    pub(super) fn is_settled(&self) -> bool {
        self.clients
            .iter()
            .all(|client| client.answered.missing(client.sent) == 0 && client.executed.missing(client.sent) == 0)
            && self.screens.iter().all(|screen| screen.fresh)
    }

    /// A number that grows with everything that arrives anywhere.
    pub(super) fn progress(&self) -> u64 {
        self.clients.iter().map(|client| client.executed.distinct() + client.answered.distinct()).sum::<u64>()
            + self.screens.iter().filter(|screen| screen.fresh).count() as u64
    }

    /// What is missing if nothing more comes.
    pub(super) fn lost(&self) -> Lost {
        Lost {
            up: self.clients.iter().map(|client| client.executed.missing(client.sent)).sum(),
            down: self.clients.iter().map(Commands::unanswered).sum::<u64>()
                + self.screens.iter().map(|screen| screen.lost).sum::<u64>(),
        }
    }

    /// Commands executed after a later one.
    pub(super) fn out_of_order(&self) -> u64 {
        self.clients.iter().map(|client| client.out_of_order).sum()
    }

    /// The counts; what is lost is known only at the end, until then it is what the proxy says and frames show.
    pub(super) fn totals(&self) -> Totals {
        let lost = self.lost();
        let at_rest = matches!(self.phase, Phase::Finished);
        let so_far = self.proxy.lost + self.screens.iter().map(|screen| screen.lost).sum::<u64>();
        Totals {
            sent: self.clients.iter().map(|client| client.sent).sum(),
            received: self.clients.iter().map(|client| client.executed.distinct()).sum(),
            lost: if at_rest { lost.up + lost.down } else { so_far },
            duplicated: self.clients.iter().map(|client| client.executed.again()).sum(),
            in_doubt: self.proxy.in_doubt,
            frames: self.screens.iter().map(|screen| screen.whole).sum(),
            interruptions: self.proxy.interruptions,
            kills: self.kills,
            drains: self.drains,
            client_closes: self.client_closes,
        }
    }

    /// All that a judge needs.
    pub(super) fn evidence(&self) -> Evidence {
        let (lost, totals) = (self.lost(), self.totals());
        Evidence {
            sent: totals.sent,
            lost_up: lost.up,
            lost_down: lost.down,
            proxy_lost: self.proxy.lost,
            duplicated: totals.duplicated,
            in_doubt: self.proxy.in_doubt,
            out_of_order: self.out_of_order(),
            invented: self.clients.iter().filter(|client| client.invented()).count() as u64,
            client_closes: self.client_closes,
            first_close: self.first_close.clone(),
            still_screens: self.screens.iter().filter(|screen| !screen.fresh).count() as u64,
            proxy_errors: self.proxy.errors,
            proxy_died: self.proxy.died,
        }
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T, max: usize) {
    if queue.len() >= max {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_judged_within_an_attachment() {
        let mut commands = Commands { sent: 5, ..Commands::default() };
        for (number, attachment) in [(1, 1), (2, 1), (3, 1), (2, 2), (3, 2), (4, 2), (5, 1)] {
            commands.executed(number, attachment);
        }
        assert_eq!((commands.out_of_order, commands.executed.again()), (0, 2));
        commands.executed(4, 1);
        assert_eq!(commands.out_of_order, 1);
        assert!(!commands.invented());
        commands.executed(6, 2);
        assert!(commands.invented());
    }

    #[test]
    fn frames_that_a_worker_skipped_are_lost() {
        let mut frames = Frames::default();
        for (worker, seq) in [("a", 7), ("a", 8), ("b", 1), ("b", 2)] {
            frames.came(worker, seq);
        }
        assert_eq!((frames.whole, frames.lost), (4, 0));
        frames.came("b", 5);
        assert_eq!(frames.lost, 2);
        frames.came("b", 5);
        assert_eq!(frames.lost, 3, "the same frame twice is wrong as well");
    }

    #[test]
    fn an_answer_is_missed_only_for_what_was_executed() {
        let mut commands = Commands { sent: 3, ..Commands::default() };
        commands.executed(1, 1);
        commands.executed(2, 1);
        commands.answered.note(1);
        assert_eq!(commands.unanswered(), 1);
    }
}
