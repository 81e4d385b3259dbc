//! The live view of a demo for people: a table that is redrawn on a terminal, plain lines elsewhere.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::board::Board;
use super::page::{Phase, State, WorkerPhase};

/// Columns of the progress bar.
const BAR: usize = 30;
/// What happened last, under the table.
const EVENTS_SHOWN: usize = 6;
/// From one plain line of numbers to the next.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Where the live view goes.
pub(super) struct Table {
    to: To,
    is_terminal: bool,
    colours: bool,
    drawn: usize,
    line_at: Option<Instant>,
    told: u64,
}

enum To {
    Stdout,
    Stderr,
}

impl Table {
    /// On stdout, or on stderr when stdout is for JSON.
    pub(super) fn new(json: bool) -> Self {
        let is_terminal = if json { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            to: if json { To::Stderr } else { To::Stdout },
            is_terminal,
            colours: is_terminal && !no_color,
            drawn: 0,
            line_at: None,
            told: 0,
        }
    }

    /// Says something above the table.
    pub(super) fn say(&mut self, text: &str) {
        self.drawn = 0;
        self.write(&format!("{text}\n"));
    }

    /// Shows how it stands.
    pub(super) fn show(&mut self, board: &Board) {
        let state = board.state();
        if !self.is_terminal {
            return self.plain(board, &state);
        }
        let lines = render(&state, self.colours);
        let up = if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { String::new() };
        let text: String = lines.iter().map(|line| format!("\x1b[2K{line}\n")).collect();
        self.write(&format!("{up}{text}\x1b[J"));
        self.drawn = lines.len();
    }

    fn plain(&mut self, board: &Board, state: &State) {
        let (events, told) = board.said_after(self.told);
        self.told = told;
        for event in events {
            self.write(&format!("{:6.1} s  {}\n", event.at_s, event.text));
        }
        if self.line_at.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
            self.line_at = Some(Instant::now());
            self.write(&format!("{:6.1} s  {}\n", state.elapsed_s, numbers(state)));
        }
    }

    /// The verdict, in its colour.
    pub(super) fn verdict(&mut self, state: &State) {
        let Some(verdict) = &state.verdict else { return };
        let text = paint(&verdict.text, if verdict.ok { GREEN } else { RED }, self.colours);
        self.say(&text);
    }

    fn write(&self, text: &str) {
        // the reader that closed the other end wants no more
        let _ = match self.to {
            To::Stdout => io::stdout().write_all(text.as_bytes()),
            To::Stderr => io::stderr().write_all(text.as_bytes()),
        };
    }
}

const GREEN: &str = "32";
const RED: &str = "31";
const YELLOW: &str = "33";

fn paint(text: &str, colour: &str, colours: bool) -> String {
    if colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
}

/// The table's lines.
fn render(state: &State, colours: bool) -> Vec<String> {
    let totals = &state.totals;
    let bad = |count: u64| paint(&count.to_string(), if count == 0 { GREEN } else { RED }, colours);
    let mut lines = vec![
        format!("{}  {}", phase(state.phase), progress(state)),
        String::new(),
        format!("  clients {:<8} sockets closed {}", state.clients, bad(totals.client_closes)),
        format!("  sent    {:<8} received {:<8} lost {}", totals.sent, totals.received, bad(totals.lost)),
        format!("  frames  {:<8} duplicated {} of {} in doubt", totals.frames, totals.duplicated, totals.in_doubt),
        format!("  interruptions {:<6} reattach {}", totals.interruptions, reattach(state)),
        String::new(),
    ];
    for worker in &state.workers {
        let (word, colour) = match worker.state {
            WorkerPhase::Starting => ("starting", YELLOW),
            WorkerPhase::Up => ("up", GREEN),
            WorkerPhase::Draining => ("draining", YELLOW),
            WorkerPhase::Down => ("down", RED),
        };
        let pid = worker.pid.map_or("-".to_owned(), |pid| pid.to_string());
        let word = paint(&format!("{word:<8}"), colour, colours);
        lines.push(format!("  {:<12} {word} pid {pid:<8} {:>4} pipes", worker.name, worker.pipes));
    }
    lines.push(String::new());
    let skipped = state.events.len().saturating_sub(EVENTS_SHOWN);
    lines.extend(state.events[skipped..].iter().map(|event| format!("  {:6.1} s  {}", event.at_s, event.text)));
    lines
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Waiting => "waiting ",
        Phase::Running => "running ",
        Phase::Settling => "settling",
        Phase::Encore => "judged  ",
        Phase::Finished => "finished",
    }
}

fn progress(state: &State) -> String {
    match state.phase {
        Phase::Waiting => return format!("{} s begin when the page is opened; Ctrl-C ends it", state.seconds),
        Phase::Encore => return "the page stays: kill workers there, Ctrl-C ends it".into(),
        Phase::Starting | Phase::Running | Phase::Settling | Phase::Finished => {}
    }
    if state.seconds == 0 {
        return format!("{:.0} s, Ctrl-C ends it", state.elapsed_s);
    }
    let share = (state.elapsed_s / state.seconds as f64).min(1.0);
    let full = (share * BAR as f64) as usize;
    format!("[{}{}] {:.0} of {} s", "#".repeat(full), ".".repeat(BAR - full), state.elapsed_s, state.seconds)
}

fn reattach(state: &State) -> String {
    let show = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1} ms"));
    let times = &state.reattach_ms;
    format!("p50 {}  p99 {}  max {}", show(times.p50), show(times.p99), show(times.max))
}

/// Everything in one line.
fn numbers(state: &State) -> String {
    let t = &state.totals;
    format!(
        "sent {} received {} lost {} duplicated {} in doubt {} frames {} interruptions {} closed {} reattach {}",
        t.sent,
        t.received,
        t.lost,
        t.duplicated,
        t.in_doubt,
        t.frames,
        t.interruptions,
        t.client_closes,
        reattach(state)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::page::{Totals, WorkerState};

    fn state() -> State {
        State {
            proxy: "ws://127.0.0.1:1".into(),
            dashboard: "http://127.0.0.1:2/".into(),
            screens: Vec::new(),
            phase: Phase::Running,
            elapsed_s: 10.0,
            seconds: 20,
            clients: 5,
            totals: Totals { sent: 12, lost: 1, ..Totals::default() },
            reattach_ms: crate::demo::percentile::summary(&[1.0]),
            workers: vec![WorkerState {
                name: "worker-1.1".into(),
                state: WorkerPhase::Up,
                pid: Some(7),
                pipes: 3,
                starts: 1,
                hue: 210,
                tunnel: String::new(),
            }],
            moves: Vec::new(),
            events: Vec::new(),
            verdict: None,
        }
    }

    #[test]
    fn the_table_has_the_numbers_and_no_colours_unless_wanted() {
        let plain = render(&state(), false).join("\n");
        for part in ["###############...............", "10 of 20 s", "sent    12", "lost 1", "p50 1.0 ms", "worker-1.1"]
        {
            assert!(plain.contains(part), "{part} is missing:\n{plain}");
        }
        assert!(!plain.contains('\x1b'));
        assert!(render(&state(), true).join("\n").contains("lost \x1b[31m1\x1b[0m"));
    }
}
