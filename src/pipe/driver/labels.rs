//! The groups that a pipe belongs to, put there by its route, by its workers and by the API: the last word counts.
//!
//! Invariant: what others see of them is what the pipe has.

use holdline_core::labels::{LabelError, Labels, Relabel};

use super::Driver;
use crate::handshake::dial::SaidLabels;
use crate::pipes::NotLabelled;

impl Driver {
    /// Puts the pipe into these groups, and into no others.
    pub fn set_labels(&mut self, labels: Labels) {
        if self.pipe.labels().is_none() && labels.is_empty() {
            return;
        }
        self.pipe.set_labels(labels);
        self.books.registration.label(self.pipe.labels());
    }

    /// Takes a worker's word of the groups that the pipe belongs to. Labels that cannot be had cost no conversation: they
    /// are left, told of and counted.
    pub fn heed_labels(&mut self, said: Option<SaidLabels>) {
        let Some(said) = said else { return };
        if let Err(error) = said.and_then(|change| self.relabel(&change)) {
            self.books.report.labels_refused(&error);
        }
    }

    /// Takes the API's word of them, if they are in this `version` still.
    pub(super) fn relabel_by_order(&mut self, change: &Relabel, version: Option<u64>) -> Result<(), NotLabelled> {
        if version.is_some_and(|version| version != self.entry().labels.version()) {
            return Err(NotLabelled::Changed);
        }
        self.relabel(change).map_err(NotLabelled::Refused)
    }

    fn relabel(&mut self, change: &Relabel) -> Result<(), LabelError> {
        let before = self.pipe.labels().cloned().unwrap_or_default();
        let labels = before.changed(change, self.process.pipes.labels.bounds())?;
        if labels != *before {
            self.set_labels(labels);
        }
        Ok(())
    }
}
