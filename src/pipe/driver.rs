//! The loop around one pipe: read what may be read, write what is due, do what the core decides, sleep.
//!
//! Nothing is decided here. An idle pipe holds no buffer: bytes are read into one that belongs to the thread, and the
//! core keeps what it needs of them. A turn ends when its [`Budget`] is spent, so that no pipe holds a core for long.
//! What belongs to a planned move is in `moving`.

mod moving;

mod client;

use std::future::Future;
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use holdline_core::close::CloseFrame;
use holdline_core::frame::{self, Opcode, Side};
use holdline_core::ids::{Attachment, BackendKey, Generation};
use holdline_core::pipe::{Action, Cause, DialFailure, DialOrder, EndedBy, Fact, Input, LinkLoss, Peer, Pipe, Unsaid};
use holdline_core::time::Time;
use tokio::io::AsyncWrite;
use tokio::time::Sleep;

use self::moving::{Held, Wish};
use super::attach::{Attach, Plan, next_attach};
use super::backend_link::{BackendLink, Place, read_stream};
use super::budget::{Budget, take_turns};
use super::holding::release;
use super::reading::{Came, Keep, Reading, read};
use super::report::Reporter;
use super::{ClientStream, Shared};
use crate::backends::{Outcome, PoolWatch};
use crate::pipes::{Command, Hearing, PipeEntry, PipeFacts, Registration, Sharing};

pub use client::Newcomer;
use client::Visits;

type Dialing = Pin<Box<dyn Future<Output = Result<Attach, DialFailure>> + Send>>;
type Waiting = Pin<Box<dyn Future<Output = PoolWatch> + Send>>;

/// A worker's link.
struct Backend {
    attachment: Attachment,
    stream: BackendLink,
    reservation: Place,
    since: Time,
    /// Writing failed, which is how the link was lost; what it still has to say is read all the same.
    broken: Option<LinkLoss>,
}

/// What peers sent behind the end of their heads.
#[derive(Default)]
struct FirstBytes {
    client: Bytes,
    backend: Bytes,
}

/// One pipe's task.
pub struct Driver {
    pipe: Pipe,
    client: Option<ClientStream>,
    /// Which of the client's attaches that is.
    generation: Generation,
    /// Only of a client that has come back, or may.
    visits: Option<Box<Visits>>,
    backend: Option<Backend>,
    /// The last backend that was attached, and its id, which the pool may have forgotten.
    previous: Option<(BackendKey, Arc<str>)>,
    dialing: Option<(Attachment, Dialing)>,
    /// Hears of changes of the pool while the pipe has no worker or wants another.
    waiting: Option<Waiting>,
    /// The worker that waits to take over from the one that is being left.
    held: Option<Box<Held>>,
    /// A wish to leave the worker, which waits for its turn or for somewhere to go.
    wish: Option<Box<Wish>>,
    /// A planned move has cost the pipe its worker, and no other has it yet.
    between_workers: bool,
    timer: Option<Pin<Box<Sleep>>>,
    timer_at: Option<Time>,
    /// Bytes that came with a handshake, the client's and the backend's; rare, and gone after the first turn.
    first: Option<Box<FirstBytes>>,
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    reporter: Reporter,
    registration: Registration,
}

impl Driver {
    /// A pipe whose client is about to be answered, because `attach`, its first worker, has been. It begins with [`Driver::start`].
    #[must_use]
    pub fn new(attach: Attach, plan: Arc<Plan>, facts: PipeFacts, shared: Arc<Shared>) -> Box<Self> {
        let now = shared.clock.now();
        let registration = shared.pipes.open(facts);
        let backend_id = attach.reservation.id().clone();
        let reporter = Reporter::open(&shared, registration.entry(), &backend_id);
        let pipe = Pipe::open(plan.settings.clone(), attach.reservation.key(), rand::random(), now);
        let mut driver = Box::new(Self {
            pipe,
            client: None,
            generation: Generation::FIRST,
            visits: None,
            backend: None,
            previous: None,
            dialing: None,
            waiting: None,
            held: None,
            wish: None,
            between_workers: false,
            timer: None,
            timer_at: None,
            first: None,
            plan,
            shared,
            reporter,
            registration,
        });
        driver.set_backend(Attachment::FIRST, attach, now);
        driver
    }

    /// Puts an order into the pipe's mailbox.
    pub fn order(&self, command: Command) {
        self.entry().order(command);
    }

    fn set_backend(&mut self, attachment: Attachment, attach: Attach, now: Time) {
        let reservation = attach.reservation;
        let name = (reservation.key(), reservation.id().clone());
        self.previous = Some(name.clone());
        self.entry().set_backend(Some(name));
        if let Some(first) = &mut self.first {
            // What an earlier worker said is late now.
            first.backend = Bytes::new();
        }
        if !attach.leftover.is_empty() {
            self.first.get_or_insert_default().backend = attach.leftover;
        }
        if let Some(leave) = reservation.must_leave() {
            self.entry().order(Command::Leave(reservation.key(), leave));
        }
        self.backend = Some(Backend { attachment, stream: attach.stream, reservation, since: now, broken: None });
    }

    /// What others see of the pipe.
    #[must_use]
    pub const fn entry(&self) -> &Arc<PipeEntry> {
        self.registration.entry()
    }

    /// One turn; ready when the pipe is over.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.shared.clock.now();
        for command in self.entry().take_orders(cx.waker()) {
            self.obey(command, cx, now);
        }
        self.poll_parting(cx);
        self.take_first_bytes(now);
        self.poll_timer(cx, now);
        self.relay(cx, now);
        self.pipe.own_borrowed();
        let beside = self.client.as_ref().map_or(0, ClientStream::held_bytes);
        let view = self.pipe.view();
        let fixed = size_of::<Self>() + beside;
        self.registration.hold(self.pipe.charged_bytes() + beside, view.memory_bytes + fixed);
        self.reporter.publish(view, fixed, now);
        if self.pipe.is_finished() {
            return Poll::Ready(());
        }
        self.arm_timer(cx);
        Poll::Pending
    }

    /// Reads, writes and acts until there is nothing more to do now, or the turn's budget is spent.
    fn relay(&mut self, cx: &mut Context<'_>, now: Time) {
        let mut budget = Budget::new(self.pipe.messages_in());
        // Whether something came or was decided since both legs were given all that they were due.
        let mut news = true;
        let (mut from_client, mut from_backend) = (Came::Unread, Came::Unread);
        loop {
            if news {
                // In the loop, because a dial that finds no candidate begins to wait within this turn.
                self.poll_waiting(cx, now);
                self.poll_wish(cx, now);
                self.poll_dialing(cx, now);
                self.poll_held(cx, now);
            }
            let mut moved = 0;
            if from_client != Came::Nothing {
                from_client = self.read_client(cx, now);
                moved += from_client.bytes();
                news |= from_client.is_news();
            }
            if news {
                self.say_who_is_awaited();
                moved += self.write(Side::Backend, budget.left(), cx, now);
            }
            let mut answered = false;
            if from_backend != Came::Nothing {
                from_backend = self.read_backend(cx, now);
                moved += from_backend.bytes();
                answered = from_backend.is_news();
            }
            if news || answered {
                self.say_who_is_awaited();
                moved += self.write(Side::Client, budget.left(), cx, now);
            }
            let acted = self.act(cx, now);
            if moved == 0 && !acted {
                return;
            }
            if budget.is_spent_by(moved, self.pipe.messages_in()) {
                return take_turns(cx);
            }
            if acted {
                (from_client, from_backend) = (Came::Unread, Came::Unread);
            }
            // What the worker said may ask for an answer, or make room for more.
            news = acted || answered;
        }
    }

    fn take_first_bytes(&mut self, now: Time) {
        let Some(mut first) = self.first.take() else { return };
        if !first.client.is_empty() {
            self.pipe.receive(Peer::Client(self.generation), Input::Copy(&first.client), now);
            first.client = Bytes::new();
        }
        match &self.backend {
            Some(backend) if !first.backend.is_empty() => {
                self.pipe.receive(Peer::Backend(backend.attachment), Input::Copy(&first.backend), now);
            }
            None if !first.backend.is_empty() => self.first = Some(first),
            Some(_) | None => {}
        }
    }

    fn read_backend(&mut self, cx: &mut Context<'_>, now: Time) -> Came {
        let budget = self.budget(Side::Backend);
        let Some(backend) = &mut self.backend else { return Came::Unread };
        self.pipe.set_paused(Side::Backend, budget == 0, now);
        let peer = Peer::Backend(backend.attachment);
        match &mut backend.stream {
            BackendLink::Worker(stream) => {
                let end = backend.broken.unwrap_or(LinkLoss::Eof);
                read(stream, Reading { peer, budget, keep: Keep::UntilWritten, end }, &mut self.pipe, cx, now)
            }
            BackendLink::Stream(link) => read_stream(link, peer, budget, &mut self.pipe, cx, now),
        }
    }

    /// Bytes that may be read from the link of `side`.
    fn budget(&self, side: Side) -> usize {
        let room = self.registration.room();
        let budget = self.pipe.read_budget(side, room);
        if budget == 0 && room == 0 {
            self.registration.starves();
        }
        budget
    }

    /// Writes what is due to one leg until its link would block or has taken `enough`; the bytes it took.
    fn write(&mut self, side: Side, enough: usize, cx: &mut Context<'_>, now: Time) -> usize {
        let mut moved = 0;
        loop {
            if moved >= enough {
                return moved;
            }
            let is_last = self.pipe.drops_client_next();
            let gather = self.pipe.gather(side, now);
            if gather.is_empty() {
                return moved;
            }
            let (due, more) = (gather.len(), gather.has_more());
            let written = match side {
                Side::Client => match &mut self.client {
                    Some(stream) if is_last => stream.poll_write_last(cx, gather.as_slices()),
                    Some(stream) => Pin::new(stream).poll_write_vectored(cx, gather.as_slices()),
                    None => return moved,
                },
                Side::Backend => match &mut self.backend {
                    Some(backend) if backend.broken.is_none() => {
                        backend.stream.poll_write_vectored(cx, gather.as_slices())
                    }
                    Some(_) | None => return moved,
                },
            };
            match written {
                Poll::Pending => return moved,
                Poll::Ready(Ok(bytes)) if bytes > 0 => {
                    self.pipe.transmitted(side, bytes, now);
                    moved += bytes;
                    if bytes == due && !more {
                        return moved;
                    }
                }
                Poll::Ready(Ok(_)) => {
                    self.write_failed(side, LinkLoss::Eof, now);
                    return moved;
                }
                Poll::Ready(Err(error)) => {
                    // A socket tells of a reset once, to whoever asks first: reading would find a plain end.
                    let reset = error.kind() == io::ErrorKind::ConnectionReset;
                    self.write_failed(side, if reset { LinkLoss::Reset } else { LinkLoss::Eof }, now);
                    return moved;
                }
            }
        }
    }

    /// A worker that takes nothing more may have said why: its last bytes are read before it counts as lost.
    fn write_failed(&mut self, side: Side, loss: LinkLoss, now: Time) {
        match side {
            Side::Client => self.pipe.lost(Peer::Client(self.generation), LinkLoss::Reset, now),
            Side::Backend => {
                if let Some(backend) = &mut self.backend {
                    backend.broken = Some(loss);
                }
            }
        }
    }

    /// Carries out what the core decided; whether there was anything.
    fn act(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        let mut acted = false;
        while let Some(action) = self.pipe.next_action() {
            acted = true;
            match action {
                Action::Dial(order) => self.dial(order, now),
                Action::CancelDial(_) => self.dialing = None,
                Action::TakeOver(attachment) => self.take_over(attachment, now),
                Action::DropBackend { attachment, last_words, died } => {
                    self.drop_backend(attachment, &last_words, died, cx, now);
                }
                Action::ShutdownClient => {
                    if let Some(stream) = &mut self.client {
                        // Without it the client only learns later; nothing is lost.
                        let _ = Pin::new(stream).poll_shutdown(cx);
                    }
                }
                Action::DropClient { generation, last_words } => self.drop_client(generation, last_words, cx),
                Action::Report(fact) => self.report(fact, now),
                Action::Finish => {}
            }
        }
        acted
    }

    fn report(&mut self, fact: Fact, now: Time) {
        let backend = match fact {
            Fact::Interrupted { backend, .. }
            | Fact::Stayed { backend }
            | Fact::Reattached { backend, .. }
            | Fact::PongsMissing(backend) => {
                self.previous.as_ref().filter(|(key, _)| *key == backend).map(|(_, id)| id.clone())
            }
            Fact::Replayed { .. }
            | Fact::LeftInDoubt { .. }
            | Fact::ClientDetached { .. }
            | Fact::ClientAttached { .. }
            | Fact::ClientExpired { .. }
            | Fact::Lost { .. }
            | Fact::Dropped { .. }
            | Fact::Overflowed(_)
            | Fact::Limited { .. }
            | Fact::ReadPaused(_)
            | Fact::Expired { .. }
            | Fact::Ended { .. } => None,
        };
        if let Fact::Interrupted { reason, .. } = &fact {
            self.reporter.trace_search(self.plan.trace.as_deref(), reason.as_str());
        }
        self.note_move(&fact, now);
        self.reporter.say(fact, backend.as_ref());
    }

    fn drop_backend(&mut self, attachment: Attachment, last_words: &[u8], died: bool, cx: &mut Context<'_>, now: Time) {
        let Some(mut backend) = self.backend.take_if(|backend| backend.attachment == attachment) else {
            return self.let_go(attachment, last_words, died, cx);
        };
        if !last_words.is_empty() && backend.broken.is_none() {
            // It is being dropped: what it does not take at once it does not get.
            let _ = backend.stream.poll_write_vectored(cx, &[IoSlice::new(last_words)]);
        }
        if died {
            backend.reservation.report(self.plan.pipe, Outcome::Died(now.since(backend.since)));
        }
        self.wish = None;
        self.entry().set_backend(None);
    }

    fn dial(&mut self, order: DialOrder, now: Time) {
        self.watch_pool();
        if self.backend.is_some() {
            // A move that attaches the next worker first: nothing is interrupted yet, but the search begins here.
            self.reporter.trace_search(self.plan.trace.as_deref(), order.cause.as_str());
        }
        let attachment = order.attachment;
        let exclude = self.pipe.excluded(now);
        let previous = self.previous.as_ref().map(|(_, id)| id.clone());
        let search = self.reporter.search();
        let dial =
            next_attach(self.plan.clone(), order, exclude, previous, search, self.entry().clone(), self.shared.clone());
        self.dialing = Some((attachment, Box::pin(dial)));
    }

    fn poll_dialing(&mut self, cx: &mut Context<'_>, now: Time) {
        let Some((attachment, dial)) = &mut self.dialing else { return };
        let attachment = *attachment;
        let Poll::Ready(result) = dial.as_mut().poll(cx) else { return };
        self.dialing = None;
        let now = now.max(self.shared.clock.now());
        match result {
            Ok(attach) => {
                release(&self.shared, self.entry());
                if self.pipe.attached(attachment, attach.reservation.key(), attach.resume, now) {
                    if self.backend.is_some() {
                        self.held = Some(Box::new(Held::new(attachment, attach)));
                    } else {
                        self.waiting = None;
                        self.set_backend(attachment, attach, now);
                        self.take_first_bytes(now);
                    }
                }
            }
            Err(failure) => self.pipe.dial_failed(attachment, failure, now),
        }
    }

    /// Starts to listen for changes of the pool, before it is asked.
    fn watch_pool(&mut self) {
        if self.waiting.is_none()
            && let Some(watch) = self.shared.backends.watch(&self.plan.route.pool)
        {
            self.waiting = Some(wait(watch));
        }
    }

    fn poll_waiting(&mut self, cx: &mut Context<'_>, now: Time) {
        let Some(waiting) = &mut self.waiting else { return };
        let Poll::Ready(watch) = waiting.as_mut().poll(cx) else { return };
        let mut next = wait(watch);
        // It has to hear of the next change too; one that came already is looked at with this one.
        if next.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        self.waiting = Some(next);
        self.pipe.pool_changed(now);
        self.wish_again();
    }

    fn obey(&mut self, command: Command, cx: &mut Context<'_>, now: Time) {
        match command {
            Command::Attach(newcomer) => self.client_comes(*newcomer, cx, now),
            Command::Reattach => {
                if let Sharing::Viewer(stream) = &self.entry().sharing {
                    // If it has too many orders already, this one changes nothing.
                    stream.order(Command::Reattach);
                    return;
                }
                if let Some(backend) = self.backend.as_ref().filter(|_| self.may_move()) {
                    self.wish_to_leave(backend.reservation.key(), Cause::Admin, false);
                }
            }
            Command::Leave(key, leave) => self.leave(key, leave, now),
            Command::Close(by, frame) => self.pipe.close(by, frame, now),
            Command::Evict(policy) => {
                if self.pipe.evict(now) {
                    self.reporter.evicted(policy);
                }
            }
            Command::Say(speech, payload, ticket) => {
                let has_room = payload.len() <= self.registration.room();
                let said = if has_room { self.pipe.say(speech, &payload, now).map(drop) } else { Err(Unsaid::Full) };
                ticket.answer(said.map_or_else(Hearing::Refused, |()| Hearing::Taken));
            }
            Command::Commit(attachment, seq, answer) => {
                // Whoever asked may have given up.
                let _ = answer.send(self.pipe.commit(attachment, seq, now));
            }
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, now: Time) {
        if self.timer_at.is_some_and(|at| now < at) {
            // It is never set later than the core's deadline, and still knows whom to wake.
            return;
        }
        if let Some(timer) = &mut self.timer
            && self.timer_at.is_some()
            && timer.as_mut().poll(cx).is_ready()
        {
            self.timer_at = None;
        }
        self.pipe.tick(now);
    }

    /// Sets the timer for the core's deadline. One that is set for an earlier time stays: it may fire for nothing, which
    /// costs less than moving it with every message.
    fn arm_timer(&mut self, cx: &mut Context<'_>) {
        let Some(deadline) = self.pipe.deadline() else { return };
        if self.timer_at.is_some_and(|at| at <= deadline) {
            return;
        }
        let at = self.shared.clock.instant(deadline) + TIMER_SLACK;
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(at),
            None => self.timer = Some(Box::pin(tokio::time::sleep_until(at))),
        }
        self.timer_at = Some(deadline);
        if let Some(timer) = &mut self.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            self.timer_at = None;
            cx.waker().wake_by_ref();
        }
    }

    /// A bug in this pipe costs this pipe: its client is told, if nothing is half written.
    fn abandon(&mut self) {
        tracing::error!(pipe = %self.entry().id, "pipe task panicked; its client is closed with 1011");
        self.reporter.say(Fact::Ended { by: EndedBy::Holdline, code: 1011, reason: "internal error".to_owned() }, None);
        let mut bytes = Vec::new();
        frame::encode(&mut bytes, Opcode::Close, &CloseFrame::new(1011, "internal error").payload(), None);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        if let Some(stream) = &mut self.client {
            let _ = Pin::new(stream).poll_write(&mut cx, &bytes);
        }
    }
}

/// A timer is set this much late, so that it finds its deadline passed.
const TIMER_SLACK: Duration = Duration::from_micros(50);

fn wait(mut watch: PoolWatch) -> Waiting {
    Box::pin(async move {
        watch.changed().await;
        watch
    })
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let driver = self.get_mut();
        match catch_unwind(AssertUnwindSafe(|| driver.turn(cx))) {
            Ok(poll) => poll,
            Err(_) => {
                driver.abandon();
                Poll::Ready(())
            }
        }
    }
}
