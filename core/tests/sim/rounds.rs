//! The dials of one round of a pipe without a worker, and what they must come to: a dumb list of what was heard.
//!
//! Invariant: a pipe that says that every worker refused it has heard nothing else in its round.

use holdline_core::ids::BackendKey;
use holdline_core::pipe::{DialFailure, Fact};
use holdline_core::settings::{PipeSettings, Refusal};

use crate::marks::{Mark, Marks};

/// The reason in the close frame of a pipe that was refused by all.
const REFUSED: &str = "refused by every worker: 404";

/// What was heard in the round that goes on.
#[derive(Debug, Default)]
pub struct Round {
    heard: Vec<DialFailure>,
    /// The pool has changed since the dial under way was ordered.
    changed: bool,
}

impl Round {
    /// Another round begins: nothing was heard.
    pub fn begins(&mut self) {
        *self = Self::default();
    }

    pub fn hears(&mut self, failure: DialFailure) {
        self.heard.push(failure);
    }

    /// The pool changed while a dial was under way, or while none was.
    pub fn pool_changed(&mut self, dialing: bool) {
        if dialing {
            self.changed = true;
        } else {
            self.begins();
        }
    }

    /// A pipe that says that all have refused it has heard nothing else.
    pub fn fact(&mut self, fact: &Fact, settings: &PipeSettings, marks: &mut Marks) {
        match fact {
            Fact::Interrupted { .. } | Fact::Reattached { .. } => self.begins(),
            Fact::Ended { reason, .. } if reason == REFUSED => {
                marks.hit(Mark::RefusedByAll);
                assert_eq!(settings.refusal, Refusal::End);
                assert!(self.is_all_refused(), "not all of them refused: {self:?}");
            }
            _ => {}
        }
    }

    /// Another process has the pipe: it knows who was asked, and neither what they said nor that they were not there.
    pub fn is_handed_over(&mut self) {
        self.changed = false;
        for failure in &mut self.heard {
            if let DialFailure::Refused { backend, .. } | DialFailure::Absent(backend) = *failure {
                *failure = DialFailure::Failed(backend);
            }
        }
    }

    /// Whether some worker refused, and the rest was not there to be asked.
    fn is_all_refused(&self) -> bool {
        let refused = self.heard.iter().filter(|heard| matches!(heard, DialFailure::Refused { .. })).count();
        let absent = self.heard.iter().filter(|heard| matches!(heard, DialFailure::Absent(_))).count();
        refused > 0 && refused + absent == self.heard.len()
    }

    /// Whether a refusal was heard, and something that may change.
    pub fn is_refused_by_some(&self) -> bool {
        self.heard.iter().any(|heard| matches!(heard, DialFailure::Refused { .. })) && !self.is_all_refused()
    }

    /// The pipe is told that there is no other candidate; `excluded` are those that it does not want now. Whether it has
    /// to end, where that is certain: one that it leaves alone for a while may come back.
    pub fn must_end(&self, settings: &PipeSettings, excluded: &[BackendKey]) -> bool {
        let asked = |backend: &BackendKey| {
            self.heard.iter().any(|heard| match heard {
                DialFailure::Failed(it) | DialFailure::Absent(it) | DialFailure::Refused { backend: it, .. } => {
                    it == backend
                }
                DialFailure::NoCandidate { .. } | DialFailure::Out { .. } | DialFailure::Unauthorized { .. } => false,
            })
        };
        settings.refusal == Refusal::End && !self.changed && self.is_all_refused() && excluded.iter().all(asked)
    }
}
