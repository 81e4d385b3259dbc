//! What operators see of the messages of pipes, counted.

use serde::Serialize;

use super::Metrics;
use super::labels::label;

label! {
    /// What became of a message of a pipe that an operator looks on at.
    TapResult {
        /// The operator was told.
        Told = "told",
        /// It came faster than the operator's side took it.
        Missed = "missed",
    }
}

impl Metrics {
    /// Counts messages of which this became.
    pub fn tapped(&self, result: TapResult, messages: u64) {
        self.families().tap_messages_total.with_label_values(&[result.as_str()]).inc_by(messages);
    }
}
