//! What `ctl top` shows and what a key does to it. No terminal, no network and no clock: keys and looks come in, orders
//! go out.
//!
//! Invariant: the cursor stays on its backend or pipe while that is there, however the rows are sorted.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::rows::{Backend, Look, Pipe, Totals, rate};

/// Rows that a page key jumps over.
const PAGE_ROWS: usize = 10;

/// Which table has the cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pane {
    Backends,
    Pipes,
}

/// What backends are sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BackendSort {
    Id,
    Pipes,
}

/// What pipes are sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PipeSort {
    Id,
    Rate,
    Buffered,
    Interruptions,
}

impl BackendSort {
    const fn next(self) -> Self {
        match self {
            Self::Id => Self::Pipes,
            Self::Pipes => Self::Id,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Pipes => "pipes",
        }
    }
}

impl PipeSort {
    const fn next(self) -> Self {
        match self {
            Self::Id => Self::Rate,
            Self::Rate => Self::Buffered,
            Self::Buffered => Self::Interruptions,
            Self::Interruptions => Self::Id,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Rate => "rate",
            Self::Buffered => "buffered",
            Self::Interruptions => "interruptions",
        }
    }
}

/// What a key asks of the process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// Drain this backend; its pipes move away.
    Drain(String),
    /// New pipes for this backend again.
    Ready(String),
    /// Move this pipe to another backend.
    Move(String),
    /// Leave.
    Quit,
}

/// A cursor: on a row by its id, and where that row was, for when it is gone.
#[derive(Clone, Default, Debug)]
struct Cursor {
    id: Option<String>,
    row: usize,
}

impl Cursor {
    /// The row it is on.
    fn find<'a>(&self, mut ids: impl ExactSizeIterator<Item = &'a str>) -> Option<usize> {
        let last = ids.len().checked_sub(1)?;
        let found = self.id.as_deref().and_then(|id| ids.position(|at| at == id));
        Some(found.unwrap_or(self.row.min(last)))
    }
}

/// All that is shown.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) target: String,
    pub(super) look: Option<Look>,
    before: Option<(f64, Totals)>,
    pub(super) pane: Pane,
    pub(super) backend_sort: BackendSort,
    pub(super) pipe_sort: PipeSort,
    /// Only the pipes of this backend.
    pub(super) filter: Option<String>,
    /// What the last order came to, or why the last look failed.
    pub(super) notice: Option<String>,
    backends: Cursor,
    pipes: Cursor,
}

impl Model {
    pub(super) fn new(target: String) -> Self {
        Self {
            target,
            look: None,
            before: None,
            pane: Pane::Backends,
            backend_sort: BackendSort::Id,
            pipe_sort: PipeSort::Id,
            filter: None,
            notice: None,
            backends: Cursor::default(),
            pipes: Cursor::default(),
        }
    }

    /// A new look takes the place of the last one.
    pub(super) fn see(&mut self, look: Look) {
        self.before = self.look.as_ref().map(|look| (look.at, look.totals));
        self.look = Some(look);
        let (backend, pipe) = (self.backend_row(), self.pipe_row());
        self.put_backend(backend);
        self.put_pipe(pipe);
    }

    /// The backends in their order.
    pub(super) fn backends(&self) -> Vec<&Backend> {
        let mut rows: Vec<&Backend> = self.look.iter().flat_map(|look| &look.backends).collect();
        match self.backend_sort {
            BackendSort::Id => rows.sort_by(|a, b| a.id.cmp(&b.id)),
            BackendSort::Pipes => rows.sort_by(|a, b| b.pipes.cmp(&a.pipes).then_with(|| a.id.cmp(&b.id))),
        }
        rows
    }

    /// The pipes in their order.
    pub(super) fn pipes(&self) -> Vec<&Pipe> {
        let wanted = |pipe: &&Pipe| self.filter.as_ref().is_none_or(|backend| *backend == pipe.backend);
        let mut rows: Vec<&Pipe> = self.look.iter().flat_map(|look| &look.pipes).filter(wanted).collect();
        let sum = |pipe: &Pipe| pipe.up_rate + pipe.down_rate;
        rows.sort_by(|a, b| {
            let order = match self.pipe_sort {
                PipeSort::Id => std::cmp::Ordering::Equal,
                PipeSort::Rate => sum(b).total_cmp(&sum(a)),
                PipeSort::Buffered => b.buffered_bytes.cmp(&a.buffered_bytes),
                PipeSort::Interruptions => b.interruptions.cmp(&a.interruptions),
            };
            order.then_with(|| a.id.cmp(&b.id))
        });
        rows
    }

    /// The row of the cursor among the backends.
    pub(super) fn backend_row(&self) -> Option<usize> {
        self.backends.find(self.backends().iter().map(|backend| backend.id.as_str()))
    }

    /// The row of the cursor among the pipes.
    pub(super) fn pipe_row(&self) -> Option<usize> {
        self.pipes.find(self.pipes().iter().map(|pipe| pipe.id.as_str()))
    }

    /// Growth a second of a counter since the look before.
    pub(super) fn rate(&self, counter: impl Fn(&Totals) -> u64) -> f64 {
        let (Some(look), Some((at, before))) = (&self.look, &self.before) else { return 0.0 };
        rate(counter(before), counter(&look.totals), look.at - at)
    }

    /// What a key does.
    pub(super) fn press(&mut self, key: KeyEvent) -> Option<Order> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return (key.code == KeyCode::Char('c')).then_some(Order::Quit);
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Some(Order::Quit),
            KeyCode::Tab | KeyCode::BackTab | KeyCode::Left | KeyCode::Right => self.pane = self.other_pane(),
            KeyCode::Up | KeyCode::Char('k') => self.step(|row| row.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.step(|row| row + 1),
            KeyCode::PageUp => self.step(|row| row.saturating_sub(PAGE_ROWS)),
            KeyCode::PageDown => self.step(|row| row + PAGE_ROWS),
            KeyCode::Home => self.step(|_| 0),
            KeyCode::End => self.step(|_| usize::MAX),
            KeyCode::Char('s') => self.sort(),
            KeyCode::Enter => self.filter(),
            KeyCode::Char('d') => return self.backend().map(Order::Drain),
            KeyCode::Char('r') => return self.backend().map(Order::Ready),
            KeyCode::Char('m') => return self.pipe().map(Order::Move),
            _ => {}
        }
        None
    }

    const fn other_pane(&self) -> Pane {
        match self.pane {
            Pane::Backends => Pane::Pipes,
            Pane::Pipes => Pane::Backends,
        }
    }

    fn step(&mut self, to: impl Fn(usize) -> usize) {
        match self.pane {
            Pane::Backends => {
                let row = self.backend_row().map(|row| to(row).min(self.backends().len() - 1));
                self.put_backend(row);
            }
            Pane::Pipes => {
                let row = self.pipe_row().map(|row| to(row).min(self.pipes().len() - 1));
                self.put_pipe(row);
            }
        }
    }

    fn put_backend(&mut self, row: Option<usize>) {
        let id = row.map(|row| self.backends()[row].id.clone());
        self.backends = Cursor { id, row: row.unwrap_or(0) };
    }

    fn put_pipe(&mut self, row: Option<usize>) {
        let id = row.map(|row| self.pipes()[row].id.clone());
        self.pipes = Cursor { id, row: row.unwrap_or(0) };
    }

    fn sort(&mut self) {
        match self.pane {
            Pane::Backends => self.backend_sort = self.backend_sort.next(),
            Pane::Pipes => self.pipe_sort = self.pipe_sort.next(),
        }
    }

    /// Shows the pipes of the backend under the cursor only, or all of them again.
    fn filter(&mut self) {
        self.filter = match (&self.filter, self.pane) {
            (None, Pane::Backends) => self.backends.id.clone(),
            (None, Pane::Pipes) | (Some(_), _) => None,
        };
        let row = self.pipe_row();
        self.put_pipe(row);
    }

    /// The backend under the cursor, if the cursor is there: a key must not hit what the user does not look at.
    fn backend(&self) -> Option<String> {
        self.backends.id.clone().filter(|_| self.pane == Pane::Backends)
    }

    fn pipe(&self) -> Option<String> {
        self.pipes.id.clone().filter(|_| self.pane == Pane::Pipes)
    }
}
