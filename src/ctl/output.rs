//! How answers are printed: tables or JSON, once or whenever they change.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::ask::{Kind, List, Listing, Thing};
use super::table::{self, Column};
use super::{CallError, Client, PATIENCE, effective};
use crate::log::escaped;

/// How often something is looked at that cannot tell of its changes, or whose numbers change all the time.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The least time between two looks: what changes faster than this is unreadable.
const LOOK_MIN: Duration = Duration::from_millis(200);

/// What can be read and watched.
#[derive(Debug)]
pub(super) enum View {
    /// A list, with the columns of its table.
    Table(List, Vec<Column>),
    /// A thing with a name.
    Thing(Thing),
    /// Any other object, by its path.
    Page(&'static str),
    /// The configuration.
    Config,
}

impl View {
    pub(super) const fn page(path: &'static str) -> Self {
        Self::Page(path)
    }

    pub(super) fn thing(kind: Kind, name: impl Into<String>) -> Self {
        Self::Thing(Thing::new(kind, name))
    }

    /// How it reads now, and where it stands if it can be waited for.
    async fn read(&self, client: &Client, json: bool, seen: Option<u64>) -> anyhow::Result<Seen> {
        let object = |object: Value, shown: fn(&Value) -> String| {
            let text = if json { format!("{object}\n") } else { shown(&object) };
            Seen { text, index: None, is_empty: false }
        };
        match self {
            Self::Table(list, columns) => {
                let found = list.fetch(client, seen.map(|index| (index, LOOK_EVERY))).await?;
                let text = if json {
                    let mut body = json!({"items": found.items, "next_cursor": null});
                    if let (Some(total), Some(matched)) = (found.total, found.matched) {
                        body["total"] = total.into();
                        body["matched"] = matched.into();
                    }
                    format!("{body}\n")
                } else {
                    table::render(columns, &found.items) + &rest(&found)
                };
                Ok(Seen { text, index: found.index, is_empty: found.items.is_empty() })
            }
            Self::Thing(thing) => Ok(object(thing.get(client).await?, table::describe)),
            Self::Page(path) => Ok(object(client.call(Method::GET, path, None).await?, table::describe)),
            Self::Config => Ok(object(client.call(Method::GET, "/v1/config", None).await?, effective::toml)),
        }
    }
}

/// A last line that says how many are not in a table, if it has not all.
fn rest(found: &Listing) -> String {
    let shown = found.items.len() as u64;
    match found.matched {
        Some(matched) if matched > shown => format!("{shown} of {matched}\n"),
        Some(_) | None => String::new(),
    }
}

/// What a view was, at one look.
struct Seen {
    text: String,
    index: Option<u64>,
    /// Whether it is a list without anything in it.
    is_empty: bool,
}

/// How a count came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// Nothing is left, or the count was not asked for.
    Nothing,
    /// What was counted on is not there any more.
    Gone,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) json: bool,
    pub(super) watch: bool,
}

impl Output {
    /// Prints a view: once, or for as long as it can be read.
    pub(super) async fn show(self, client: &Client, view: &View) -> anyhow::Result<()> {
        self.show_or_hint(client, view, "").await
    }

    /// The same; a list that is empty is followed by what to do, for a person and not for what reads our output.
    pub(super) async fn show_or_hint(self, client: &Client, view: &View, hint: &str) -> anyhow::Result<()> {
        if !self.watch {
            let seen = view.read(client, self.json, None).await?;
            self.print(&seen.text)?;
            if seen.is_empty && !self.json && !hint.is_empty() {
                eprintln!("{hint}");
            }
            return Ok(());
        }
        let mut screen = Screen::new(self.json);
        let mut pace = interval(LOOK_MIN);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = None;
        loop {
            pace.tick().await;
            let now = view.read(client, self.json, seen).await?;
            screen.draw(&now.text)?;
            seen = now.index;
            if seen.is_none() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }

    /// A write's answer, or what it means.
    pub(super) fn done(self, answer: &Value, line: &str) -> anyhow::Result<()> {
        self.print(&if self.json { format!("{answer}\n") } else { format!("{line}\n") })
    }

    /// Counts down what leaves, if that is to be watched. `left` says how many pipes are left; nothing once it is gone.
    pub(super) async fn count_down(
        self,
        mut left: impl AsyncFnMut() -> Result<Option<u64>, CallError>,
    ) -> anyhow::Result<Left> {
        if !self.watch {
            return Ok(Left::Nothing);
        }
        let mut told = None;
        let mut pace = interval(LOOK_MIN);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            let Some(pipes) = left().await? else { return Ok(Left::Gone) };
            if told != Some(pipes) {
                self.done(&json!({"pipes": pipes}), &format!("{pipes} pipes are left"))?;
                told = Some(pipes);
            }
            if pipes == 0 {
                return Ok(Left::Nothing);
            }
        }
    }

    pub(super) fn print(self, text: &str) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }
}

/// A text as it comes from the process, fit for a terminal.
pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), escaped)
}

/// How many pipes a health answer counts, which is open to every caller and answers in any phase.
pub(super) async fn pipes_in_all(client: &Client) -> Result<Option<u64>, CallError> {
    Ok(client.ask(Method::GET, "/health", None, PATIENCE).await?.body["pipes"].as_u64())
}

/// Where a watched text is drawn: over the last one on a terminal, below it elsewhere.
struct Screen {
    is_terminal: bool,
    last: Option<String>,
}

impl Screen {
    fn new(json: bool) -> Self {
        Self { is_terminal: !json && io::stdout().is_terminal(), last: None }
    }

    fn draw(&mut self, text: &str) -> io::Result<()> {
        if self.last.as_deref() == Some(text) {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(frame(self.is_terminal, self.last.is_none(), text).as_bytes())?;
        out.flush()?;
        self.last = Some(text.to_owned());
        Ok(())
    }
}

/// What to write to show `text` in place of the last one.
fn frame(is_terminal: bool, is_first: bool, text: &str) -> String {
    match (is_terminal, is_first) {
        // Home, each line cleared to its end, and what was below cleared: without a flicker in between.
        (true, false) => format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")),
        (true, true) => format!("\x1b[2J\x1b[H{text}"),
        (false, _) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_gone_is_not_what_has_come_to_nothing() {
        let watched = Output { json: true, watch: true };
        assert_eq!(watched.count_down(async || Ok(Some(0))).await.unwrap(), Left::Nothing);
        assert_eq!(watched.count_down(async || Ok(None)).await.unwrap(), Left::Gone);
        let unwatched = Output { json: true, watch: false };
        assert_eq!(unwatched.count_down(async || Ok(None)).await.unwrap(), Left::Nothing);
    }

    #[test]
    fn only_a_terminal_is_drawn_over() {
        assert_eq!(frame(false, false, "a\n"), "a\n");
        assert_eq!(frame(true, true, "a\n"), "\x1b[2J\x1b[Ha\n");
        assert_eq!(frame(true, false, "a\nb\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
    }
}
