//! The live pipes, as the rest of the process sees them.
//!
//! A pipe belongs to one task, and no other touches it. What others may know is published here in plain numbers
//! after each turn of that task; what others may want is put into the pipe's mailbox. Neither is touched per message.

mod command;
mod facts;
mod hasher;
mod held;
mod keys;
mod labels;
mod lingering;
mod mailbox;
mod numbers;
pub mod passport;
mod pool;
mod rate;
mod registration;
mod resume;
mod takeovers;
mod tap;

use std::collections::HashMap;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use holdline_core::ids::{BackendKey, Generation, PipeId};
use holdline_core::pipe::{PipeState, PipeView};
use holdline_core::settings::BackendLoss;
use holdline_core::time::Time;
use tokio::sync::watch;

use crate::backends::Leave;
use crate::config::Limits;
use crate::handshake::deflate::Compression;
use crate::metrics::labels::Transport;
use crate::routes::Route;
#[cfg(test)]
pub use command::COMMANDS_MAX;
pub use command::{AlreadyTapped, Command, Hearing, NotLabelled, Ticket};
pub use facts::{Decided, PipeFacts, Sharing};
use hasher::ByName;
pub use held::Held;
pub use keys::{KeyPast, Keys};
use labels::{LabelIndex, Labelled};
pub use lingering::{Lingering, Stay};
use mailbox::Mailbox;
pub use numbers::LaneNumbers;
pub use rate::Rate;
pub use registration::{MEMORY_STEP, Registration};
pub use resume::{Resume, Returned};
pub use takeovers::{TAKEOVERS_MAX, Takeovers, WINDOW as TAKEOVER_WINDOW};
pub use tap::{Tap, TapReader, Tapped};

use pool::{Pool, Pools};

/// One live pipe.
#[derive(Debug)]
pub struct PipeEntry {
    /// Its name.
    pub id: PipeId,
    /// The route it was opened on.
    pub route: Arc<Route>,
    /// Its route key.
    pub key: Option<Arc<str>>,
    /// The subprotocol that is spoken on it.
    pub protocol: Option<Box<str>>,
    /// Whether its peers compress.
    pub compression: Compression,
    /// Whether it has its worker for itself.
    pub sharing: Sharing,
    /// What the log calls the request that it was opened by; empty for the pipe of a shared stream.
    pub request_id: Box<str>,
    /// When its client was answered.
    pub opened_at: SystemTime,
    /// Client to backend.
    pub up: LaneNumbers,
    /// Backend to client.
    pub down: LaneNumbers,
    /// Bytes of messages that it has moved lately.
    pub rate: Rate,
    /// The last attach ordered; the first is 1.
    pub attachment: AtomicU64,
    /// How often a worker was lost.
    pub interruptions: AtomicU64,
    /// Memory that the pipe occupies, in bytes.
    pub memory_bytes: AtomicU64,
    /// The client's last attach; the first is 1.
    pub generation: AtomicU64,
    /// Clients that were answered for this pipe, the first one included.
    answers: AtomicU64,
    awaits_client: AtomicBool,
    has_client: AtomicBool,
    /// Whether its client speaks the aware protocol.
    pub aware: bool,
    moves: AtomicBool,
    conversation: OnceLock<Box<Decided>>,
    active_micros: AtomicU64,
    state: AtomicU8,
    transport: AtomicU8,
    /// The groups that it belongs to.
    pub labels: Labelled,
    /// What keeps it from the worker that it wants.
    pub held: Held,
    client: Mutex<Box<str>>,
    /// How often connections of its client took each other's place.
    pub takeovers: Takeovers,
    backend: Mutex<Option<(BackendKey, Arc<str>)>>,
    mailbox: Mailbox,
    /// It would read more if the process had room; see [`Pipes::wake_starved`].
    starved: AtomicBool,
}

impl PipeEntry {
    fn new(facts: PipeFacts) -> Self {
        let moves = facts.route.settings.on_backend_loss == BackendLoss::Reattach;
        Self {
            id: facts.id,
            route: facts.route,
            key: facts.key,
            client: Mutex::new(facts.client.into()),
            generation: AtomicU64::new(Generation::FIRST.0),
            answers: AtomicU64::new(1),
            awaits_client: AtomicBool::new(facts.named),
            has_client: AtomicBool::new(true),
            aware: facts.aware,
            moves: AtomicBool::new(moves),
            conversation: OnceLock::new(),
            protocol: facts.protocol,
            compression: facts.compression,
            sharing: facts.sharing,
            request_id: facts.request_id.into(),
            opened_at: SystemTime::now(),
            up: LaneNumbers::default(),
            down: LaneNumbers::default(),
            rate: Rate::default(),
            attachment: AtomicU64::new(1),
            interruptions: AtomicU64::new(0),
            memory_bytes: AtomicU64::new(0),
            active_micros: AtomicU64::new(0),
            state: AtomicU8::new(0),
            transport: AtomicU8::new(Transport::Websocket as u8),
            labels: Labelled::default(),
            held: Held::default(),
            takeovers: Takeovers::default(),
            backend: Mutex::new(None),
            mailbox: Mailbox::default(),
            starved: AtomicBool::new(false),
        }
    }

    /// Bytes of messages that both lanes hold.
    #[must_use]
    pub fn buffered_bytes(&self) -> u64 {
        self.up.buffered_bytes.load(Relaxed) + self.down.buffered_bytes.load(Relaxed)
    }

    /// What the pipe is doing.
    #[must_use]
    pub fn state(&self) -> PipeState {
        PipeState::ALL[usize::from(self.state.load(Relaxed)) % PipeState::ALL.len()]
    }

    /// How its client is reached, or was when it was there.
    #[must_use]
    pub fn transport(&self) -> Transport {
        Transport::ALL[usize::from(self.transport.load(Relaxed)) % Transport::ALL.len()]
    }

    /// Notes how its client is reached from now on.
    pub fn set_transport(&self, transport: Transport) {
        if self.transport.swap(transport as u8, Relaxed) != transport as u8 {
            self.mailbox.wake();
        }
    }

    /// Its client's address, as the trusted chain told it last.
    #[must_use]
    pub fn client(&self) -> String {
        lock(&self.client).to_string()
    }

    pub(crate) fn set_client(&self, client: String) {
        *lock(&self.client) = client.into();
    }

    /// Whether another worker can carry its conversation on; a viewer's worker is that of its stream.
    #[must_use]
    pub fn moves(&self) -> bool {
        match &self.sharing {
            Sharing::Alone | Sharing::Stream(_) => self.moves.load(Relaxed),
            Sharing::Viewer(stream) => stream.moves(),
        }
    }

    /// What kind of conversation it is, once that is known.
    #[must_use]
    pub fn conversation(&self) -> Option<Decided> {
        self.conversation.get().map(|decided| Decided::clone(decided))
    }

    pub(crate) fn set_conversation(&self, decided: Decided) {
        // It is decided once.
        let _ = self.conversation.set(Box::new(decided));
    }

    /// Whether a client that comes now finds its conversation here.
    #[must_use]
    pub fn awaits_client(&self) -> bool {
        self.awaits_client.load(Acquire)
    }

    pub(crate) fn set_awaits_client(&self, awaits: bool) {
        self.awaits_client.store(awaits, Release);
    }

    /// The place of another client that is about to be answered for this pipe, in the order of answers.
    pub fn next_answer(&self) -> u64 {
        self.answers.fetch_add(1, Relaxed)
    }

    /// Whether its client is there.
    #[must_use]
    pub fn has_client(&self) -> bool {
        self.has_client.load(Acquire)
    }

    /// The attached backend and its id; a viewer's is that of its stream.
    #[must_use]
    pub fn backend(&self) -> Option<(BackendKey, Arc<str>)> {
        match &self.sharing {
            Sharing::Alone | Sharing::Stream(_) => lock(&self.backend).clone(),
            Sharing::Viewer(stream) => stream.backend(),
        }
    }

    /// Whether this is the pipe of a shared stream, which has no client of its own.
    #[must_use]
    pub const fn is_stream(&self) -> bool {
        match self.sharing {
            Sharing::Stream(_) => true,
            Sharing::Alone | Sharing::Viewer(_) => false,
        }
    }

    /// Clients whose conversation this is: one, or all the viewers of a stream.
    #[must_use]
    pub fn clients(&self) -> usize {
        match &self.sharing {
            Sharing::Stream(viewers) => viewers.load(Relaxed),
            Sharing::Alone | Sharing::Viewer(_) => 1,
        }
    }

    /// Notes how many watch the stream whose pipe this is.
    pub(crate) fn set_viewers(&self, count: usize) {
        match &self.sharing {
            Sharing::Stream(viewers) => viewers.store(count, Relaxed),
            Sharing::Alone | Sharing::Viewer(_) => {}
        }
    }

    /// Whether the pipe has a place of its own on its backend.
    #[must_use]
    pub const fn has_place(&self) -> bool {
        match self.sharing {
            Sharing::Alone | Sharing::Stream(_) => true,
            Sharing::Viewer(_) => false,
        }
    }

    /// Puts an order into the pipe's mailbox and wakes it; false if there are too many already.
    pub fn order(&self, command: Command) -> bool {
        let Err(refused) = self.mailbox.put(command) else { return true };
        if let Command::Say(_, _, ticket) = refused {
            ticket.answer(Hearing::Busy);
        }
        false
    }

    /// Has the pipe's task take a turn.
    pub(crate) fn wake(&self) {
        self.mailbox.wake();
    }

    /// The orders that wait, oldest first. For the pipe's own task.
    pub(crate) fn take_orders(&self, waker: &std::task::Waker) -> Vec<Command> {
        self.mailbox.take(waker)
    }

    /// When the pipe last took a message, or changed its state or its worker.
    #[must_use]
    pub fn active_at(&self) -> Time {
        Time::from_micros(self.active_micros.load(Relaxed))
    }

    /// A message came, or the pipe changed its state or its worker.
    pub(crate) fn was_active(&self, now: Time) {
        self.active_micros.store(now.as_micros(), Relaxed);
    }

    pub(crate) fn publish(&self, view: &PipeView, fixed_bytes: usize) {
        self.up.publish(&view.up);
        self.down.publish(&view.down);
        self.attachment.store(view.attachment.0, Relaxed);
        self.generation.store(view.generation.0, Relaxed);
        self.has_client.store(view.has_client, Release);
        self.moves.store(view.moves, Relaxed);
        self.awaits_client.store(view.awaits_client, Release);
        self.interruptions.store(view.interruptions, Relaxed);
        self.memory_bytes.store((view.memory_bytes + fixed_bytes) as u64, Relaxed);
        let state = PipeState::ALL.iter().position(|&state| state == view.state).unwrap_or_default();
        self.state.store(state as u8, Relaxed);
    }

    pub(crate) fn set_backend(&self, backend: Option<(BackendKey, Arc<str>)>) {
        *lock(&self.backend) = backend;
    }
}

/// Parts that the registry is split into, so that opening pipes on one thread does not wait for another.
const SHARDS: usize = 16;

/// One part.
type Shard = HashMap<PipeId, Arc<PipeEntry>, ByName>;

/// All live pipes, and the bytes that they hold together.
#[derive(Debug)]
pub struct Pipes {
    shards: [Mutex<Shard>; SHARDS],
    count: watch::Sender<usize>,
    /// Grows with every pipe that comes, goes, or changes its state or its worker.
    index: watch::Sender<u64>,
    /// Clients that may be answered 101 and become pipes.
    expected: watch::Sender<usize>,
    /// What there was of each route key.
    pub keys: Keys,
    /// Which pipes belong to which group.
    pub labels: LabelIndex,
    /// Those whose clients are away.
    pub lingering: Arc<Lingering>,
    /// Pipes that there ever were.
    opened: AtomicU64,
    /// Bytes of messages that all pipes hold.
    held_bytes: AtomicU64,
    held_bytes_max: AtomicU64,
    /// Whether the configuration has more than one pool.
    several_pools: AtomicBool,
    pools: Mutex<Pools>,
    /// Memory that all pipes occupy, and may occupy, in bytes.
    memory_bytes: AtomicU64,
    memory_bytes_max: AtomicU64,
    /// Whether a pipe may have gone to sleep because there was no room.
    any_starved: AtomicBool,
}

impl Pipes {
    /// An empty registry whose pipes, of so many `pools`, may hold `held_bytes_max` bytes of messages together.
    #[must_use]
    pub fn new(held_bytes_max: usize, pools: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            count: watch::Sender::new(0),
            index: watch::Sender::new(1),
            expected: watch::Sender::new(0),
            keys: Keys::new(Limits::default().statistics_keys as usize),
            labels: LabelIndex::default(),
            lingering: Arc::default(),
            opened: AtomicU64::new(0),
            held_bytes: AtomicU64::new(0),
            held_bytes_max: AtomicU64::new(held_bytes_max as u64),
            several_pools: AtomicBool::new(pools > 1),
            pools: Mutex::default(),
            memory_bytes: AtomicU64::new(0),
            memory_bytes_max: AtomicU64::new(u64::MAX),
            any_starved: AtomicBool::new(false),
        }
    }

    fn shard(&self, id: PipeId) -> MutexGuard<'_, Shard> {
        lock(&self.shards[id.shard(SHARDS)])
    }

    /// Announces a pipe before anything is promised to its client: a process that stops waits for what is announced.
    #[must_use]
    pub fn expect(self: &Arc<Self>) -> Expected {
        change(&self.expected, |expected| *expected += 1);
        Expected(self.clone())
    }

    /// Adds a pipe; it stays until the guard is dropped.
    #[must_use]
    pub fn open(self: &Arc<Self>, facts: PipeFacts) -> Registration {
        self.keys.opened(&facts);
        self.opened.fetch_add(1, Relaxed);
        self.enter(Arc::new(PipeEntry::new(facts)))
    }

    /// The pipe called `id`.
    #[must_use]
    pub fn get(&self, id: PipeId) -> Option<Arc<PipeEntry>> {
        self.shard(id).get(&id).cloned()
    }

    /// Every live pipe, sorted by id.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<PipeEntry>> {
        let mut entries: Vec<_> =
            self.shards.iter().flat_map(|shard| lock(shard).values().cloned().collect::<Vec<_>>()).collect();
        entries.sort_unstable_by_key(|entry| entry.id);
        entries
    }

    /// How many pipes live, those of shared streams too.
    #[must_use]
    pub fn len(&self) -> usize {
        *self.count.borrow()
    }

    /// A number that grows with every pipe that comes, goes, or changes its state or its worker; and the way to wait
    /// for it.
    #[must_use]
    pub fn index(&self) -> watch::Receiver<u64> {
        self.index.subscribe()
    }

    pub(crate) fn changed(&self) {
        change(&self.index, |index| *index += 1);
    }

    /// How many pipes there ever were.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// Waits until no pipe is expected any more, and none lives.
    pub async fn emptied(&self) {
        // The senders live as long as `self`, so these cannot fail.
        let _ = self.expected.subscribe().wait_for(|&expected| expected == 0).await;
        let _ = self.count.subscribe().wait_for(|&count| count == 0).await;
    }

    /// Tells the pipes of `backend` to leave it.
    pub fn leave(&self, backend: BackendKey, leave: Leave) {
        for entry in self.list() {
            if entry.has_place() && entry.backend().is_some_and(|(key, _)| key == backend) {
                entry.order(Command::Leave(backend, leave));
            }
        }
    }

    /// Bytes of messages that all pipes hold.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Relaxed)
    }

    /// Bytes of messages that all pipes may hold (`replay.total_bytes_max`).
    #[must_use]
    pub fn held_bytes_max(&self) -> u64 {
        self.held_bytes_max.load(Relaxed)
    }

    /// Changes what all pipes may hold, of so many `pools`; those that hold more keep it.
    pub fn set_held_bytes_max(&self, bytes: usize, pools: usize) {
        self.held_bytes_max.store(bytes as u64, Relaxed);
        self.several_pools.store(pools > 1, Relaxed);
    }

    /// Bytes of messages that the pipes of the pool called `name` hold.
    #[must_use]
    pub fn pool_held_bytes(&self, name: &str) -> u64 {
        lock(&self.pools).find(name).map_or(0, |pool| pool.held_bytes.load(Relaxed))
    }

    /// Bytes that the pipes of `pool` may still take in.
    fn room(&self, pool: &Pool) -> usize {
        let free = self.held_bytes_max().saturating_sub(self.held_bytes());
        let replay = pool.room(free, self.several_pools.load(Relaxed));
        let memory = self.memory_bytes_max.load(Relaxed).saturating_sub(self.memory_bytes());
        replay.min(memory) as usize
    }

    /// Wakes the pipes that went to sleep for want of room, if there is some. To be called again and again: nothing else
    /// tells them.
    pub fn wake_starved(&self) {
        if !self.any_starved.swap(false, AcqRel) {
            return;
        }
        let mut rooms: HashMap<&str, bool> = HashMap::new();
        let entries = self.list();
        for entry in entries.iter().filter(|entry| entry.starved.load(Acquire)) {
            let name = entry.route.pool.as_str();
            let has_room = *rooms
                .entry(name)
                .or_insert_with(|| lock(&self.pools).find(name).is_none_or(|pool| self.room(&pool) > 0));
            if has_room && entry.starved.swap(false, AcqRel) {
                entry.mailbox.wake();
            }
        }
        if rooms.values().any(|has_room| !has_room) {
            self.any_starved.store(true, Release);
        }
    }

    /// Memory that all pipes occupy, in bytes, give or take [`MEMORY_STEP`] for each.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Relaxed)
    }

    /// Changes how much memory all pipes may occupy; those that occupy more keep it, and take in no more.
    pub fn set_memory_bytes_max(&self, bytes: u64) {
        self.memory_bytes_max.store(bytes, Relaxed);
    }
}

/// A pipe that was announced; dropped once it is open, or will not be.
#[derive(Debug)]
pub struct Expected(Arc<Pipes>);

impl Drop for Expected {
    fn drop(&mut self) {
        change(&self.0.expected, |expected| *expected -= 1);
    }
}

/// Changes a number that others may wait for. Without a waiter there is no notice: a subscriber reads it before it
/// waits, which needs the lock that is held here.
fn change<T>(number: &watch::Sender<T>, how: impl FnOnce(&mut T)) {
    number.send_if_modified(|value| {
        how(value);
        number.receiver_count() > 0
    });
}

/// A lock whose holder panicked still guards plain numbers: what they say is as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
