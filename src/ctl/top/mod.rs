//! `holdline ctl top`: pools, backends, pipes and events as they change, and keys that drain and move; with `--once`, one
//! look as text.
//!
//! The terminal and the network are here; what is shown is in [`model`], how it looks in [`view`]. One request is under
//! way at a time, and keys are heard meanwhile. Pipes are searched and sorted by the process, which has all of them.

mod model;
mod rows;
mod spark;
mod stories;
#[cfg(test)]
mod tests;
mod view;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::pin::Pin;
use std::time::{Duration, Instant};

use hyper::Method;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyEvent};
use ratatui::{DefaultTerminal, Terminal};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::ask::{Kind, List, Thing, encode};
use super::client::Reply;
use super::in_words;
use super::{CallError, Client, Misuse, PATIENCE};
use model::{Model, Order, Wanted};
use rows::{Answers, Look};

/// Keys that wait to be handled at most; more are dropped, as a user does not type that far ahead.
const KEYS_MAX: usize = 64;
/// Orders that wait for the one before at most.
const ORDERS_MAX: usize = 16;
/// How often the thread that hears keys looks whether it is still wanted.
const KEY_WAIT: Duration = Duration::from_millis(200);
/// Pipes that a look brings: more than a terminal has lines.
const PIPES_MAX: usize = 200;
/// Events that a look brings, and how far back the first one reaches.
const EVENTS_MAX: usize = 1000;
const EVENTS_SINCE: &str = "10m";
/// Columns and lines of one look as text, where there is no terminal to ask.
const ONCE_SIZE: (u16, u16) = (130, 50);
/// The least and the most time between two looks, in seconds.
const EVERY_SECONDS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

/// Shows the process until the user leaves, or once.
///
/// # Errors
/// When there is no terminal, or the process does not answer at the start.
pub(super) async fn run(client: &Client, every: f64, once: bool) -> anyhow::Result<()> {
    if !EVERY_SECONDS.contains(&every) {
        return Err(Misuse("--every is between 0.1 and 3600 seconds".into()).into());
    }
    let is_at_a_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if !once && !is_at_a_terminal {
        return Err(Misuse("top needs a terminal; `holdline ctl top --once` does without".into()).into());
    }
    let model = Model::new(client.target().to_string());
    // What is wrong at the start is told on the user's own screen.
    let first = look(client, model.wanted()).await?;
    let mut top = Top { client, model, orders: VecDeque::new(), is_due: false, began: Instant::now() };
    top.see(&first);
    if once {
        return print(&top.model);
    }
    let mut terminal = ratatui::try_init()?;
    let shown = top.show(&mut terminal, every).await;
    ratatui::restore();
    shown
}

/// One look as text.
fn print(model: &Model) -> anyhow::Result<()> {
    let terminal = io::stdout().is_terminal().then(|| ratatui::crossterm::terminal::size().ok()).flatten();
    let (width, height) = terminal.unwrap_or(ONCE_SIZE);
    let mut screen = Terminal::new(TestBackend::new(width, height))?;
    screen.draw(|frame| view::draw(frame, model, false))?;
    let buffer = screen.backend().buffer();
    let line = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    // The last line names keys, which nothing hears.
    let text: Vec<String> = (0..height.saturating_sub(1)).map(line).collect();
    let end = text.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
    writeln!(io::stdout(), "{}", text[..end].join("\n"))?;
    Ok(())
}

struct Top<'a> {
    client: &'a Client,
    model: Model,
    orders: VecDeque<Order>,
    /// A look is wanted as soon as the one request that may be under way is over.
    is_due: bool,
    began: Instant,
}

/// What comes of the one request that is under way.
enum Done {
    Looked(Result<Answers, CallError>),
    Ordered(anyhow::Result<String>),
}

type Work<'a> = Pin<Box<dyn Future<Output = Done> + 'a>>;

impl<'a> Top<'a> {
    async fn show(mut self, terminal: &mut DefaultTerminal, every: f64) -> anyhow::Result<()> {
        let has_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let mut keys = hear_keys()?;
        let mut ticks = interval(Duration::from_secs_f64(every));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut work: Option<Work<'_>> = None;
        loop {
            terminal.draw(|frame| view::draw(frame, &self.model, has_colour))?;
            if work.is_none() {
                work = self.next_work();
            }
            tokio::select! {
                key = keys.recv() => match key {
                    Some(Some(key)) => if self.press(key) { return Ok(()) },
                    Some(None) => {}
                    None => return Ok(()),
                },
                _ = ticks.tick() => self.is_due = true,
                done = async { match &mut work { Some(work) => work.await, None => std::future::pending().await } } => {
                    work = None;
                    self.finish(done);
                }
            }
        }
    }

    /// Orders go before looks.
    fn next_work(&mut self) -> Option<Work<'a>> {
        let client = self.client;
        if let Some(order) = self.orders.pop_front() {
            return Some(Box::pin(async move { Done::Ordered(obey(client, order).await) }));
        }
        if !std::mem::take(&mut self.is_due) {
            return None;
        }
        let wanted = self.model.wanted();
        Some(Box::pin(async move { Done::Looked(look(client, wanted).await) }))
    }

    /// Whether the user leaves.
    fn press(&mut self, key: KeyEvent) -> bool {
        self.model.notice = None;
        match self.model.press(key) {
            Some(Order::Quit) => return true,
            Some(Order::Look) => self.is_due = true,
            Some(order) if self.orders.len() < ORDERS_MAX => self.orders.push_back(order),
            Some(_) | None => {}
        }
        false
    }

    fn see(&mut self, answers: &Answers) {
        let at = self.began.elapsed().as_secs_f64();
        self.model.see(Look::read(answers, at));
        match &answers.events {
            Some(page) => self.model.stories.tell(page),
            // They have left the ring since the last look: the next one begins anew.
            None => self.model.stories.forget_place(),
        }
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Looked(Ok(answers)) => self.see(&answers),
            // The last look stays, with the word that it is old.
            Done::Looked(Err(error)) => self.model.notice = Some(error.to_string()),
            Done::Ordered(Ok(text)) => {
                self.model.notice = Some(text);
                self.is_due = true;
            }
            Done::Ordered(Err(error)) => self.model.notice = Some(in_words(&error)),
        }
    }
}

/// Keys as they are pressed; nothing stands for whatever else means that the screen is to be drawn again.
fn hear_keys() -> io::Result<mpsc::Receiver<Option<KeyEvent>>> {
    let (pressed, keys) = mpsc::channel(KEYS_MAX);
    // A thread, because a terminal is read by blocking; it ends with its listener.
    std::thread::Builder::new().name("keys".into()).spawn(move || {
        while !pressed.is_closed() {
            match event::poll(KEY_WAIT).and_then(|is_there| is_there.then(event::read).transpose()) {
                Ok(None) => {}
                Ok(Some(Event::Key(key))) => drop(pressed.try_send(Some(key))),
                Ok(Some(_)) => drop(pressed.try_send(None)),
                // The terminal is gone, and with the sender the loop that waits for keys.
                Err(_) => return,
            }
        }
    })?;
    Ok(keys)
}

async fn look(client: &Client, wanted: Wanted) -> Result<Answers, CallError> {
    let list = |path: &str| List::new(path, Vec::new());
    let (pools, backends) = (list("/v1/pools"), list("/v1/backends"));
    let (pipes, events) = (pipes_path(&wanted), events_path(&wanted));
    let (health, stats, history, pools, backends, pipes, events) = tokio::try_join!(
        client.ask(Method::GET, "/health", None, PATIENCE),
        client.call(Method::GET, "/v1/stats", None),
        client.ask(Method::GET, "/v1/history", None, PATIENCE),
        pools.first(client),
        backends.first(client),
        client.call(Method::GET, &pipes, None),
        client.ask(Method::GET, &events, None, PATIENCE),
    )?;
    let (history, events) = (answered(history), answered(events));
    Ok(Answers { health: health.body, stats, history: history.unwrap_or_default(), pools, backends, pipes, events })
}

/// What is no error; a process of an earlier release has not all that is asked for.
fn answered(reply: Reply) -> Option<Value> {
    reply.status.is_success().then_some(reply.body)
}

fn pipes_path(wanted: &Wanted) -> String {
    let mut path = format!("/v1/pipes?limit={PIPES_MAX}");
    let narrowed = [("backend", wanted.backend.as_deref()), ("q", wanted.words.as_deref()), ("sort", wanted.sort)];
    for (name, value) in narrowed {
        if let Some(value) = value {
            // Writing to a string does not fail.
            let _ = write!(path, "&{name}={}", encode(value));
        }
    }
    path
}

fn events_path(wanted: &Wanted) -> String {
    match wanted.after {
        Some(after) => format!("/v1/events?limit={EVENTS_MAX}&after={after}"),
        None => format!("/v1/events?limit={EVENTS_MAX}&since={EVENTS_SINCE}"),
    }
}

async fn obey(client: &Client, order: Order) -> anyhow::Result<String> {
    match order {
        Order::Drain(id) => {
            let wish = json!({"state": "drain", "pipes": "reattach"});
            let answer = Thing::new(Kind::Backend, &id).call(client, Method::PUT, "/state", Some(&wish)).await?;
            Ok(format!("{id} drains: {} pipes are on it still", answer["pipes"]))
        }
        Order::Ready(id) => {
            let wish = json!({"state": "ready"});
            Thing::new(Kind::Backend, &id).call(client, Method::PUT, "/state", Some(&wish)).await?;
            Ok(format!("{id} takes pipes"))
        }
        Order::Move(id) => {
            Thing::new(Kind::Pipe, &id).call(client, Method::POST, "/reattach", Some(&json!({}))).await?;
            Ok(format!("{id} is asked to move"))
        }
        Order::Look | Order::Quit => Ok(String::new()),
    }
}
