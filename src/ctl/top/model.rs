//! What `ctl top` shows and what a key does to it. No terminal, no network and no clock: keys and looks come in, orders
//! go out.
//!
//! Invariant: the cursor stays on its backend or pipe while that is there, however the rows are sorted; and what takes
//! pipes from a backend is done only after a yes.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::rows::{Backend, Look, Pipe, Totals, rate};
use super::stories::Stories;

/// Rows that a page key jumps over.
const PAGE_ROWS: usize = 10;
/// Letters of a search.
const SEARCH_MAX: usize = 200;

/// Which table has the cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pane {
    Backends,
    Pipes,
    Events,
}

/// What backends are sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BackendSort {
    Id,
    Pipes,
}

/// What pipes are sorted by, which the process does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PipeSort {
    Id,
    Rate,
    Buffered,
    Interruptions,
    Memory,
    Age,
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
            Self::Interruptions => Self::Memory,
            Self::Memory => Self::Age,
            Self::Age => Self::Id,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Rate => "rate",
            Self::Buffered => "buffered",
            Self::Interruptions => "interruptions",
            Self::Memory => "memory",
            Self::Age => "age",
        }
    }

    /// The word of the API; by id without one.
    const fn asked(self) -> Option<&'static str> {
        match self {
            Self::Id => None,
            Self::Rate => Some("-rate"),
            Self::Buffered => Some("-buffered"),
            Self::Interruptions => Some("-interruptions"),
            Self::Memory => Some("-memory"),
            Self::Age => Some("age"),
        }
    }
}

/// Which pipes a look asks for, and from which event on.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Wanted {
    pub(super) backend: Option<String>,
    pub(super) words: Option<String>,
    pub(super) sort: Option<&'static str>,
    pub(super) after: Option<u64>,
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
    /// Look again at once: other rows are wanted.
    Look,
    /// Leave.
    Quit,
}

/// What lies over the tables and takes the keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Over {
    Nothing,
    /// What the keys do.
    Help,
    /// The words of a search as they are typed.
    Search(String),
    /// A backend that is drained at a yes.
    Drain(String),
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
    pub(super) stories: Stories,
    pub(super) pane: Pane,
    pub(super) over: Over,
    pub(super) backend_sort: BackendSort,
    pub(super) pipe_sort: PipeSort,
    /// Only the pipes of this backend.
    pub(super) filter: Option<String>,
    /// Only the pipes that have these words in them; empty is all.
    pub(super) search: String,
    /// Events back from the newest.
    pub(super) events_back: usize,
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
            stories: Stories::default(),
            pane: Pane::Backends,
            over: Over::Nothing,
            backend_sort: BackendSort::Id,
            pipe_sort: PipeSort::Id,
            filter: None,
            search: String::new(),
            events_back: 0,
            notice: None,
            backends: Cursor::default(),
            pipes: Cursor::default(),
        }
    }

    /// What the next look is to ask for.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted {
            backend: self.filter.clone(),
            words: Some(self.search.clone()).filter(|words| !words.is_empty()),
            sort: self.pipe_sort.asked(),
            after: self.stories.after,
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

    /// The pipes in the order in which the process gave them; after a filter was set, those that still fit.
    pub(super) fn pipes(&self) -> Vec<&Pipe> {
        let wanted = |pipe: &&Pipe| self.filter.as_ref().is_none_or(|backend| *backend == pipe.backend);
        self.look.iter().flat_map(|look| &look.pipes).filter(wanted).collect()
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
        match std::mem::replace(&mut self.over, Over::Nothing) {
            Over::Nothing => self.press_on_tables(key.code),
            // any key closes it
            Over::Help => None,
            Over::Search(words) => self.press_in_search(key.code, words),
            Over::Drain(id) => matches!(key.code, KeyCode::Char('y' | 'Y')).then_some(Order::Drain(id)),
        }
    }

    fn press_on_tables(&mut self, code: KeyCode) -> Option<Order> {
        match code {
            KeyCode::Char('q') => return Some(Order::Quit),
            KeyCode::Esc => return self.back(),
            KeyCode::Char('?' | 'h') => self.over = Over::Help,
            KeyCode::Char('/') => self.over = Over::Search(self.search.clone()),
            KeyCode::Tab | KeyCode::Right => self.pane = self.next_pane(),
            KeyCode::BackTab | KeyCode::Left => self.pane = self.last_pane(),
            KeyCode::Up | KeyCode::Char('k') => self.step(|row| row.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.step(|row| row + 1),
            KeyCode::PageUp => self.step(|row| row.saturating_sub(PAGE_ROWS)),
            KeyCode::PageDown => self.step(|row| row + PAGE_ROWS),
            KeyCode::Home => self.step(|_| 0),
            KeyCode::End => self.step(|_| usize::MAX),
            KeyCode::Char('s') => return self.sort(),
            KeyCode::Enter => return self.filter(),
            KeyCode::Char('d') => self.over = self.backend().map_or(Over::Nothing, Over::Drain),
            KeyCode::Char('r') => return self.backend().map(Order::Ready),
            KeyCode::Char('m') => return self.pipe().map(Order::Move),
            _ => {}
        }
        None
    }

    fn press_in_search(&mut self, code: KeyCode, mut words: String) -> Option<Order> {
        match code {
            KeyCode::Esc => return None,
            KeyCode::Enter => {
                self.search = words.trim().to_owned();
                self.pane = Pane::Pipes;
                return Some(Order::Look);
            }
            KeyCode::Backspace => drop(words.pop()),
            KeyCode::Char(letter) if words.len() < SEARCH_MAX => words.push(letter),
            _ => {}
        }
        self.over = Over::Search(words);
        None
    }

    /// One step back to how it was at the start: the search goes, then the filter, then the cursor's pane.
    fn back(&mut self) -> Option<Order> {
        if !self.search.is_empty() {
            self.search.clear();
            return Some(Order::Look);
        }
        if self.filter.take().is_some() {
            return Some(Order::Look);
        }
        (self.pane, self.events_back) = (Pane::Backends, 0);
        None
    }

    const fn next_pane(&self) -> Pane {
        match self.pane {
            Pane::Backends => Pane::Pipes,
            Pane::Pipes => Pane::Events,
            Pane::Events => Pane::Backends,
        }
    }

    const fn last_pane(&self) -> Pane {
        match self.pane {
            Pane::Backends => Pane::Events,
            Pane::Pipes => Pane::Backends,
            Pane::Events => Pane::Pipes,
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
            Pane::Events => self.events_back = to(self.events_back).min(self.stories.lines().len().saturating_sub(1)),
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

    fn sort(&mut self) -> Option<Order> {
        match self.pane {
            Pane::Backends => {
                self.backend_sort = self.backend_sort.next();
                None
            }
            Pane::Pipes => {
                self.pipe_sort = self.pipe_sort.next();
                Some(Order::Look)
            }
            Pane::Events => None,
        }
    }

    /// Shows the pipes of the backend under the cursor only, or all of them again.
    fn filter(&mut self) -> Option<Order> {
        self.filter = match (&self.filter, self.pane) {
            (None, Pane::Backends) => self.backends.id.clone(),
            (None, Pane::Pipes | Pane::Events) | (Some(_), _) => None,
        };
        let row = self.pipe_row();
        self.put_pipe(row);
        Some(Order::Look)
    }

    /// The backend under the cursor, if the cursor is there: a key must not hit what the user does not look at.
    fn backend(&self) -> Option<String> {
        self.backends.id.clone().filter(|_| self.pane == Pane::Backends)
    }

    fn pipe(&self) -> Option<String> {
        self.pipes.id.clone().filter(|_| self.pane == Pane::Pipes)
    }
}
