//! Whose fault an error is: the one word that decides log level, metric label and status class.

/// Who has to act for an error to go away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blame {
    /// The client that sent the request.
    Client,
    /// The worker.
    Backend,
    /// The operator, who wrote the configuration and runs the machine.
    Operator,
    /// We.
    Holdline,
}

impl Blame {
    /// The word in logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
            Self::Operator => "operator",
            Self::Holdline => "holdline",
        }
    }
}
