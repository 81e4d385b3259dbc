//! Clients that live through the loss of a worker: they number what they say, answers must come back without a gap, and
//! a rewind is seen as answers that come twice.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::connection::{Connection, Heard, Outgoing, now_ns, numbers};
use crate::generator::open_many;

/// How long answers may take.
const ANSWERS_MAX: Duration = Duration::from_secs(60);

/// Messages of one client without an answer, beyond which it waits: a machine that is too slow must not drown.
const IN_FLIGHT_MAX: u64 = 16;

/// What the clients of a run saw, together.
#[derive(Debug, Default)]
pub struct Seen {
    pub messages: u64,
    /// Answers that came again.
    pub doubled: u64,
    /// From each message to its answer, in milliseconds, while the clients were told to speak.
    pub waits_ms: Vec<f64>,
    /// The same of each client's first one.
    pub first_ms: Vec<f64>,
}

pub type Shared = Rc<RefCell<Seen>>;

/// What all clients are told to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Orders {
    /// Only answer what Holdline asks.
    Wait,
    /// Say a message now, and one more each so often.
    Speak { every: Duration },
    /// Say a last one, and be done when it is answered.
    End,
}

/// Clients at work, with their orders.
pub struct Crowd {
    clients: Vec<JoinHandle<anyhow::Result<()>>>,
    orders: watch::Sender<Orders>,
    pub seen: Shared,
}

impl Crowd {
    /// Opens `count` pipes, each of which has had one answer to a message of `size` bytes.
    pub async fn open(target: SocketAddr, count: usize, size: usize) -> anyhow::Result<Self> {
        let (orders, told) = watch::channel(Orders::Wait);
        let seen = Shared::default();
        let mut clients = Vec::with_capacity(count);
        for (index, connection) in open_many(target, "/echo", count).await?.into_iter().enumerate() {
            let mut client = Client::new(connection, size, seen.clone());
            client.greet().await?;
            let phase = index as f64 / count as f64;
            clients.push(tokio::task::spawn_local(client.live(phase, told.clone())));
        }
        Ok(Self { clients, orders, seen })
    }

    pub fn tell(&self, orders: Orders) {
        self.orders.send_replace(orders);
    }

    /// Whether one has given up, which only happens when a promise was broken.
    pub fn has_failed(&self) -> bool {
        self.clients.iter().any(JoinHandle::is_finished)
    }

    /// Each says a last message; all that was ever said must have been answered then.
    pub async fn end(self) -> anyhow::Result<Shared> {
        self.tell(Orders::End);
        for client in self.clients {
            client.await??;
        }
        Ok(self.seen)
    }
}

/// One client.
pub struct Client {
    connection: Connection,
    books: Books,
}

/// What one client said and heard.
struct Books {
    size: usize,
    sent: u64,
    answered: u64,
    /// The highest number that may come next: one behind the last.
    next: u64,
    /// The first message that was said on command.
    first: Option<u64>,
    seen: Shared,
}

impl Client {
    pub const fn new(connection: Connection, size: usize, seen: Shared) -> Self {
        let books = Books { size, sent: 0, answered: 0, next: 0, first: None, seen };
        Self { connection, books }
    }

    /// Says one message and waits until all are answered.
    pub async fn greet(&mut self) -> anyhow::Result<()> {
        self.say()?;
        let answers = async {
            while self.books.answered < self.books.sent {
                step(&mut self.connection, None, &mut self.books).await?;
            }
            anyhow::Ok(())
        };
        let done = tokio::time::timeout(ANSWERS_MAX, answers).await;
        done.with_context(|| format!("LOST: {} of {} were answered", self.books.answered, self.books.sent))?
    }

    async fn live(mut self, phase: f64, mut orders: watch::Receiver<Orders>) -> anyhow::Result<()> {
        let mut due = None;
        loop {
            let now = *orders.borrow_and_update();
            match now {
                Orders::Wait => {}
                Orders::Speak { every } => due = Some(self.speak(due, every, phase)?),
                Orders::End => return self.greet().await,
            }
            tokio::select! {
                biased;
                changed = orders.changed() => changed?,
                stepped = step(&mut self.connection, due, &mut self.books) => stepped?,
            }
        }
    }

    /// Says what is due; when the next is.
    fn speak(&mut self, due: Option<Instant>, every: Duration, phase: f64) -> anyhow::Result<Instant> {
        let now = Instant::now();
        match due {
            Some(due) if now < due => Ok(due),
            Some(due) => {
                if self.books.sent - self.books.answered < IN_FLIGHT_MAX {
                    self.say()?;
                }
                Ok((due + every).max(now))
            }
            None => {
                self.books.first = Some(self.books.sent);
                self.say()?;
                Ok(now + every.mul_f64(0.5 + phase))
            }
        }
    }

    pub fn say(&mut self) -> anyhow::Result<()> {
        self.connection.put_data(self.books.sent, now_ns(), self.books.size);
        self.books.sent += 1;
        self.books.seen.borrow_mut().messages += 1;
        self.connection.flush()
    }
}

async fn step(connection: &mut Connection, due: Option<Instant>, books: &mut Books) -> anyhow::Result<()> {
    let hear = |_: &mut Outgoing<'_>, heard: Heard<'_>| match heard {
        Heard::Data(payload) => books.hear(payload),
        Heard::Command(_) => Ok(()),
    };
    connection.step(due, hear).await?;
    ensure!(!connection.closed, "closed amid the outage: {}", connection.farewell);
    Ok(())
}

impl Books {
    fn hear(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        let (seq, at) = numbers(payload)?;
        ensure!(payload.len() == self.size, "{} bytes came instead of {}", payload.len(), self.size);
        ensure!(seq <= self.next && seq < self.sent, "LOST: answer {seq} came where {} was to come", self.next);
        self.next = seq + 1;
        let mut seen = self.seen.borrow_mut();
        if seq < self.answered {
            seen.doubled += 1;
            return Ok(());
        }
        self.answered += 1;
        if let Some(first) = self.first {
            let ms = now_ns().saturating_sub(at) as f64 / 1e6;
            seen.waits_ms.push(ms);
            if seq == first {
                seen.first_ms.push(ms);
            }
        }
        Ok(())
    }
}
