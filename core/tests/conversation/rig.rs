//! What every world stands on: one pipe at the bench, chance, and the ways in which its workers come and go.

use holdline_core::conversation::{Conversation, Profile, Prologue, PrologueBounds};
use holdline_core::ids::BackendKey;
use holdline_core::pipe::{LinkLoss, PipeState};
use holdline_core::time::Time;

use crate::bench::{Bench, ms, secs};

pub struct Rig {
    pub bench: Bench,
    random: u64,
    next_backend: u64,
}

impl Rig {
    /// A pipe with this profile.
    pub fn new(seed: u64, profile: &str) -> Self {
        let mut bench = Bench::new();
        let prologue = Prologue::new(Profile::named(profile).unwrap(), PrologueBounds::default());
        bench.operator(|pipe, _| pipe.converse(Conversation::Profiled(Box::new(prologue)), "route"));
        Self { bench, random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, next_backend: 2 }
    }

    pub fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    pub fn any_of<T>(&mut self, of: Vec<T>) -> Option<T> {
        let place = self.draw(of.len().max(1) as u64) as usize;
        of.into_iter().nth(place)
    }

    /// The worker is there to be heard.
    pub fn is_linked(&self) -> bool {
        matches!(self.bench.state(), PipeState::Attached | PipeState::Leaving)
    }

    /// More than one worker has served the pipe.
    pub fn has_reattached(&self) -> bool {
        self.next_backend > 2
    }

    /// Long enough behind the last death that the next one is not blamed on a message.
    pub fn outlive_a_quick_death(&mut self) {
        self.bench.wait(ms(2100));
    }

    pub fn lose(&mut self) {
        if self.is_linked() {
            self.bench.worker_dies(LinkLoss::Reset);
        }
    }

    /// Whether a dial was under way; the next worker takes it.
    pub fn dial_succeeds(&mut self) -> bool {
        let dialing = self.bench.is_dialing();
        if dialing {
            let backend = BackendKey(self.next_backend);
            self.next_backend += 1;
            self.bench.attach(backend);
        }
        dialing
    }

    /// To another process; a worker that waits to take over would stay behind, so not while one does.
    pub fn hand_over(&mut self) {
        if self.bench.holds().is_none() {
            let clock = self.bench.now + ms(7);
            self.bench.hand_over(Time::from_micros(clock.as_micros()), ms(3));
        }
    }

    /// Mostly a moment, sometimes longer than a worker may take to answer its prologue. An outage is always over in time.
    pub fn wait(&mut self) {
        let wait = if self.draw(8) == 0 && self.is_linked() { secs(6) } else { ms(10 + self.draw(30)) };
        self.bench.wait(wait);
    }
}
