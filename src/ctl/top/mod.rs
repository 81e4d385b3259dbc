//! `holdline ctl top`: pools, backends and pipes as they change, and keys that drain and move.
//!
//! The terminal and the network are here; what is shown is in [`model`], how it looks in [`view`]. One request is under
//! way at a time, and keys are heard meanwhile.

mod model;
mod rows;
#[cfg(test)]
mod tests;
mod view;

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::pin::Pin;
use std::time::{Duration, Instant};

use hyper::Method;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEvent};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::ask::{Kind, List, Thing};
use super::in_words;
use super::{CallError, Client, Misuse, PATIENCE};
use model::{Model, Order};
use rows::{Answers, Look};

/// Keys that wait to be handled at most; more are dropped, as a user does not type that far ahead.
const KEYS_MAX: usize = 64;
/// Orders that wait for the one before at most.
const ORDERS_MAX: usize = 16;
/// How often the thread that hears keys looks whether it is still wanted.
const KEY_WAIT: Duration = Duration::from_millis(200);
/// The least and the most time between two looks, in seconds.
const EVERY_SECONDS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

/// Shows the process until the user leaves.
///
/// # Errors
/// When there is no terminal, or the process does not answer at the start.
pub(super) async fn run(client: &Client, every: f64) -> anyhow::Result<()> {
    if !EVERY_SECONDS.contains(&every) {
        return Err(Misuse("--every is between 0.1 and 3600 seconds".into()).into());
    }
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(Misuse("top needs a terminal; `holdline ctl pipes --watch` does without".into()).into());
    }
    let began = Instant::now();
    // What is wrong at the start is told on the user's own screen.
    let first = look(client, None).await?;
    let mut model = Model::new(client.target().to_string());
    model.see(Look::read(&first, began.elapsed().as_secs_f64(), None));
    let mut terminal = ratatui::try_init()?;
    let shown = Top { client, model, orders: VecDeque::new(), began }.show(&mut terminal, every).await;
    ratatui::restore();
    shown
}

struct Top<'a> {
    client: &'a Client,
    model: Model,
    orders: VecDeque<Order>,
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
        let mut is_due = false;
        loop {
            terminal.draw(|frame| view::draw(frame, &self.model, has_colour))?;
            if work.is_none() {
                work = self.next_work(&mut is_due);
            }
            tokio::select! {
                key = keys.recv() => match key {
                    Some(Some(key)) => if self.press(key) { return Ok(()) },
                    Some(None) => {}
                    None => return Ok(()),
                },
                _ = ticks.tick() => is_due = true,
                done = async { match &mut work { Some(work) => work.await, None => std::future::pending().await } } => {
                    work = None;
                    self.finish(done, &mut is_due);
                }
            }
        }
    }

    /// Orders go before looks.
    fn next_work(&mut self, is_due: &mut bool) -> Option<Work<'a>> {
        let client = self.client;
        if let Some(order) = self.orders.pop_front() {
            return Some(Box::pin(async move { Done::Ordered(obey(client, order).await) }));
        }
        if !std::mem::take(is_due) {
            return None;
        }
        let filter = self.model.filter.clone();
        Some(Box::pin(async move { Done::Looked(look(client, filter).await) }))
    }

    /// Whether the user leaves.
    fn press(&mut self, key: KeyEvent) -> bool {
        self.model.notice = None;
        match self.model.press(key) {
            Some(Order::Quit) => return true,
            Some(order) if self.orders.len() < ORDERS_MAX => self.orders.push_back(order),
            Some(_) | None => {}
        }
        false
    }

    fn finish(&mut self, done: Done, is_due: &mut bool) {
        match done {
            Done::Looked(Ok(answers)) => {
                let at = self.began.elapsed().as_secs_f64();
                self.model.see(Look::read(&answers, at, self.model.look.as_ref()));
            }
            // The last look stays, with the word that it is old.
            Done::Looked(Err(error)) => self.model.notice = Some(error.to_string()),
            Done::Ordered(Ok(text)) => {
                self.model.notice = Some(text);
                *is_due = true;
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

async fn look(client: &Client, filter: Option<String>) -> Result<Answers, CallError> {
    let list = |path: &str| List::new(path, Vec::new());
    let pipes = List::new("/v1/pipes", vec![("backend", filter)]);
    let (pools, backends) = (list("/v1/pools"), list("/v1/backends"));
    let (health, stats, pools, backends, pipes) = tokio::try_join!(
        client.ask(Method::GET, "/health", None, PATIENCE),
        client.call(Method::GET, "/v1/stats", None),
        pools.first(client),
        backends.first(client),
        pipes.first(client),
    )?;
    Ok(Answers { health: health.body, stats, pools, backends, pipes })
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
        Order::Quit => Ok(String::new()),
    }
}
