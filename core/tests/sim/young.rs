//! Young deaths as a plain list: which pipe lost which worker when, and which pipe may be held for it.
//!
//! Invariant: a pipe is held back from a worker for what that worker did to this very pipe. What befell other pipes of its
//! key says nothing about it: a limit over all of them would close forty pipes for one crash.

use holdline_core::ids::BackendKey;
use holdline_core::pool::deaths::DEATH_WINDOW;
use holdline_core::time::Time;

use crate::marks::{Mark, Marks};

/// The deaths of a run.
#[derive(Debug)]
pub struct Young {
    /// Deaths of one pipe at one worker that hold it back.
    limit: usize,
    all: Vec<(usize, BackendKey, Time)>,
}

impl Young {
    pub const fn new(limit: u32) -> Self {
        Self { limit: limit as usize, all: Vec::new() }
    }

    pub fn died(&mut self, pipe: usize, backend: BackendKey, now: Time) {
        self.all.push((pipe, backend, now));
    }

    /// `held` is until when `pipe` is kept from `backend`.
    pub fn check(&self, pipe: usize, backend: BackendKey, held: Option<Time>, now: Time, marks: &mut Marks) {
        let recent = self.all.iter().filter(|&&(_, at, died)| at == backend && now < died + DEATH_WINDOW);
        let own: Vec<Time> = recent.clone().filter(|death| death.0 == pipe).map(|death| death.2).collect();
        let until = own.len().checked_sub(self.limit).map(|surplus| own[surplus] + DEATH_WINDOW);
        assert_eq!(held, until, "until when pipe {pipe} is kept from {backend:?}, which it lost at {own:?}");
        if until.is_none() && recent.count() >= self.limit {
            marks.hit(Mark::SparedAmidDeaths);
        }
    }
}
