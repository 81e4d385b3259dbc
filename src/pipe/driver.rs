//! The loop around one pipe: read what may be read, write what is due, do what the core decides, sleep.
//!
//! Nothing is decided here. An idle pipe holds no buffer: bytes are read into one that belongs to the thread, and the
//! core keeps what it needs of them. A turn ends when its [`Budget`] is spent, so that no pipe holds a core for long.
//! What goes on beside the messages is in `orders` (what others want of the pipe), `attaching` (how it finds a worker or
//! moves to another), `returning` (how its client comes back) and `labels` (which groups it belongs to); `freezing` is how it
//! goes to another process, and `thawing` how one that has come from there begins.

mod attaching;
mod freezing;
mod labels;
mod orders;
mod returning;
mod thawing;

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use holdline_core::close::CloseFrame;
use holdline_core::conversation::Conversation;
use holdline_core::frame::{self, Opcode, Side};
use holdline_core::ids::Attachment;
use holdline_core::pipe::{Action, EndedBy, Fact, Introduction, LinkLoss, Pipe};
use holdline_core::time::Time;

use super::alarm::Alarm;
use super::attach::{Attach, Plan};
use super::backend_end::BackendEnd;
use super::books::{Books, Guards};
use super::budget::{Budget, take_turns};
use super::client_end::{ClientEnd, ClientLink};
use super::reading::{Came, Keep};
use super::report::Reporter;
use super::search::Search;
use crate::pipes::{Command, PipeEntry, PipeFacts, Tap};
use crate::process::Process;
use freezing::Handing;
pub use thawing::{Arrived, Thawed};

/// One pipe's task.
pub struct Driver {
    pipe: Pipe,
    client: ClientEnd,
    backend: BackendEnd,
    search: Search,
    alarm: Alarm,
    plan: Arc<Plan>,
    process: Arc<Process>,
    /// Set while it is to go to another process; boxed, because few pipes are.
    handing: Option<Box<Handing>>,
    books: Books,
    /// The operator who looks on, if one does.
    tap: Option<Box<Tap>>,
}

impl Driver {
    /// A pipe whose client is about to be answered, because `attach`, its first worker, has been. It begins with [`Driver::start`].
    #[must_use]
    pub fn new(attach: Attach, plan: Arc<Plan>, facts: PipeFacts, process: Arc<Process>) -> Box<Self> {
        let now = process.clock.now();
        let registration = process.pipes.open(facts);
        let report = Reporter::open(&process, registration.entry(), attach.transport.id());
        let mut pipe = Pipe::open(plan.settings.clone(), attach.transport.key(), rand::random(), now);
        if plan.compression.is_kept() {
            pipe.allow_compressed();
        }
        if attach.numbers {
            pipe.worker_numbers(Attachment::FIRST, plan.pipe, now);
        }
        let mut driver = Box::new(Self {
            pipe,
            client: ClientEnd::new(),
            backend: BackendEnd::default(),
            search: Search::default(),
            alarm: Alarm::default(),
            plan,
            process,
            handing: None,
            books: Books { report, registration, guards: None },
            tap: None,
        });
        driver.set_backend(Attachment::FIRST, attach.transport, now);
        driver
    }

    /// Says what kind of conversation this is, and what that is known by.
    pub fn converse(&mut self, conversation: Conversation, why: &'static str) {
        self.pipe.converse(conversation, why);
    }

    /// Has the client greeted as one that speaks the aware protocol.
    pub fn expect_hello(&mut self, introduction: Introduction) {
        let now = self.process.clock.now();
        self.pipe.expect_hello(introduction, now);
    }

    /// Gives the pipe its client, and what the client was let in with.
    pub fn start(&mut self, client: ClientLink, guards: Option<Guards>) {
        self.entry().set_transport(client.transport());
        self.client.start(client);
        self.books.guards = guards;
    }

    /// Puts an order into the pipe's mailbox.
    pub fn order(&self, command: Command) {
        self.entry().order(command);
    }

    /// What others see of the pipe.
    #[must_use]
    pub const fn entry(&self) -> &Arc<PipeEntry> {
        self.books.entry()
    }

    /// One turn; ready when the pipe is over.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(still) = self.stands_still(cx) {
            return still;
        }
        let now = self.process.clock.now();
        for command in self.entry().take_orders(cx.waker()) {
            self.obey(command, cx, now);
        }
        self.client.poll_parting(cx);
        if self.alarm.is_due(cx, now) {
            self.pipe.tick(now);
        }
        self.relay(cx, now);
        self.pipe.own_borrowed();
        self.publish(now);
        if self.pipe.is_finished() && !self.client.owes() {
            return Poll::Ready(());
        }
        if let Some(still) = self.freeze(cx) {
            return still;
        }
        if let Some(deadline) = self.pipe.deadline() {
            self.alarm.set(deadline, &self.process.clock, cx);
        }
        Poll::Pending
    }

    /// Reads, writes and acts until there is nothing more to do now, or the turn's budget is spent.
    fn relay(&mut self, cx: &mut Context<'_>, now: Time) {
        let mut budget = Budget::new(self.pipe.messages_in());
        // What the pipe takes in is booked behind the turn.
        let room = self.books.registration.room();
        // What each end said when it was read last: one that had nothing wakes the task when it has.
        let (mut client, mut backend) = (Came::Unread, Came::Unread);
        loop {
            // In the loop, because a dial that finds no candidate begins to wait within this turn.
            self.look_for_worker(cx, now);
            client = self.read(Side::Client, client, room, cx, now);
            let mut moved = client.bytes() + self.write(Side::Backend, budget.left(), cx, now);
            backend = self.read(Side::Backend, backend, room, cx, now);
            moved += backend.bytes() + self.write(Side::Client, budget.left(), cx, now);
            let acted = self.act(cx, now);
            if moved == 0 && !acted {
                return;
            }
            if budget.is_spent_by(moved, self.pipe.messages_in()) {
                return take_turns(cx);
            }
            if acted {
                // There may be other links now, or room for more.
                (client, backend) = (Came::Unread, Came::Unread);
            }
        }
    }

    /// Reads the link of `side` once, unless it had nothing when it was read `before`; `room` is what all pipes may still take
    /// in.
    fn read(&mut self, side: Side, before: Came, room: usize, cx: &mut Context<'_>, now: Time) -> Came {
        let is_linked = match side {
            Side::Client => self.client.is_linked(),
            Side::Backend => self.backend.is_linked(),
        };
        if before == Came::Nothing {
            return Came::Nothing;
        }
        if !is_linked {
            return Came::Unread;
        }
        let budget = self.budget(side, room);
        self.pipe.set_paused(side, budget == 0, now);
        match side {
            Side::Client if budget == 0 => self.look_at_unread_client(room, cx, now),
            Side::Client => self.read_client(budget, cx, now),
            Side::Backend => self.read_backend(budget, cx, now),
        }
    }

    fn read_client(&mut self, budget: usize, cx: &mut Context<'_>, now: Time) -> Came {
        // What waits for a worker may wait long: it is copied, so that it holds no more memory than it is charged.
        let keep = if self.backend.is_linked() { Keep::UntilConfirmed } else { Keep::Copy };
        self.client.read(budget, keep, &mut self.pipe, cx, now)
    }

    fn read_backend(&mut self, budget: usize, cx: &mut Context<'_>, now: Time) -> Came {
        let keep = match self.pipe.is_aware() {
            false => Keep::UntilWritten,
            // Such a client has what it was sent until it says so, which it does soon while it is there.
            true if self.client.is_linked() => Keep::UntilConfirmed,
            true => Keep::Copy,
        };
        self.backend.read(budget, keep, &mut self.pipe, cx, now)
    }

    /// A client that is not read may have left: nothing more comes then, and no room may ever come for what it has said
    /// last. The core says how much of that is still read.
    fn look_at_unread_client(&mut self, room: usize, cx: &mut Context<'_>, now: Time) -> Came {
        if !self.pipe.has_client_left() {
            let looks = self.client.is_broken() || self.pipe.leaves_client_unread();
            if !looks || !self.client.poll_left(cx) {
                return Came::Unread;
            }
            self.pipe.client_left();
            let budget = self.budget(Side::Client, room);
            if budget > 0 {
                return self.read_client(budget, cx, now);
            }
        }
        self.pipe.lost(self.client.peer(), LinkLoss::Reset, now);
        Came::End
    }

    /// Bytes that may be read from the link of `side`.
    fn budget(&self, side: Side, room: usize) -> usize {
        let budget = self.pipe.read_budget(side, room);
        if budget == 0 && room == 0 {
            self.books.registration.starves();
        }
        budget
    }

    /// Writes what is due to the link of `side` until it would block or has taken `enough`; the bytes it took.
    fn write(&mut self, side: Side, enough: usize, cx: &mut Context<'_>, now: Time) -> usize {
        // Here, because what a link was given may be forgotten at once.
        if self.tap.is_some() {
            self.tell_tap();
        }
        self.say_who_is_awaited();
        let pushed = match side {
            Side::Client => self.client.push(cx),
            Side::Backend => self.backend.push(cx),
        };
        if let Err(error) = pushed {
            self.write_failed(side, Err(error), now);
        }
        let mut moved = 0;
        while moved < enough && self.takes(side) && self.pipe.wants_write(side, now) {
            let is_last = self.pipe.drops_client_next();
            let gather = self.pipe.gather(side, now);
            if gather.is_empty() {
                break;
            }
            let written = match side {
                Side::Client => self.client.poll_write(cx, gather.as_slices(), is_last),
                Side::Backend => self.backend.poll_write(cx, gather.as_slices()),
            };
            match written {
                Poll::Pending => break,
                Poll::Ready(Ok(bytes)) if bytes > 0 => {
                    self.pipe.transmitted(side, bytes, now);
                    moved += bytes;
                }
                Poll::Ready(taken) => {
                    self.write_failed(side, taken, now);
                    break;
                }
            }
        }
        moved
    }

    /// Whether the link of `side` takes bytes.
    fn takes(&self, side: Side) -> bool {
        match side {
            Side::Client => self.client.takes(),
            Side::Backend => self.backend.takes(),
        }
    }

    fn write_failed(&mut self, side: Side, taken: io::Result<usize>, now: Time) {
        match side {
            Side::Client => {
                if !self.client.broke() {
                    self.pipe.lost(self.client.peer(), LinkLoss::Reset, now);
                }
            }
            Side::Backend => {
                // A socket tells of a reset once, to the first call that asks: reading would find a plain end.
                let is_reset = taken.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
                self.backend.broke(if is_reset { LinkLoss::Reset } else { LinkLoss::Eof });
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
                Action::CancelDial(_) => self.search.cancel_dial(),
                Action::Foretell { attachment, bytes } => self.backend.foretell(attachment, bytes),
                Action::TakeOver(attachment) => self.take_over(attachment, now),
                Action::DropBackend { attachment, last_words, died } => {
                    self.drop_backend(attachment, &last_words, died, cx, now);
                }
                Action::ShutdownClient => self.client.shut_down(cx),
                Action::DropClient { generation, last_words } => self.drop_client(generation, last_words, cx),
                Action::Report(fact) => self.report(fact, now),
                Action::Finish => {}
            }
        }
        acted
    }

    fn report(&mut self, fact: Fact, now: Time) {
        if let Fact::Interrupted { reason, .. } = &fact {
            self.books.report.trace_search(self.plan.trace.as_deref(), reason.as_str());
        }
        self.note_move(&fact, now);
        self.books.report.say(fact, self.backend.last());
    }

    /// Tells others what the pipe has become in this turn.
    fn publish(&mut self, now: Time) {
        let beside = self.client.book();
        let view = self.pipe.view();
        let fixed = size_of::<Self>() + beside;
        self.books.registration.hold(self.pipe.charged_bytes() + beside, view.memory_bytes + fixed);
        self.books.report.publish(view, fixed, now);
    }

    /// A bug in this pipe costs this pipe: its client is told, if nothing is half written.
    fn abandon(&mut self) {
        tracing::error!(pipe = %self.entry().id, "pipe task panicked; its client is closed with 1011");
        self.books
            .report
            .say(Fact::Ended { by: EndedBy::Holdline, code: 1011, reason: "internal error".to_owned() }, None);
        let mut bytes = Vec::new();
        frame::encode(&mut bytes, Opcode::Close, &CloseFrame::new(1011, "internal error").payload(), None);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        // Best effort: the link is dropped next.
        let _ = self.client.poll_write(&mut cx, &[io::IoSlice::new(&bytes)], false);
    }
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
