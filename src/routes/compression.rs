//! Whether what the peers of a route's pipes say may be compressed.

use http::request::Parts;
use serde::{Deserialize, Serialize};

use super::Route;

/// Why the peers of a pipe do not compress.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Uncompressed {
    /// The route says so.
    Route,
    /// Its worker is shared, and each of its clients would have to agree.
    Shared,
    /// Its text is held to UTF-8.
    CheckedText,
    /// Its conversation may have to be read.
    Conversation,
    /// Its client would number its messages, and no number can stand before a compressed one.
    Numbered,
    /// Its client offers nothing that can be taken up.
    Client,
    /// Its worker does not want to, or not without context takeover.
    Worker,
}

impl Uncompressed {
    /// The word in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "off",
            Self::Shared => "share",
            Self::CheckedText => "check_utf8",
            Self::Conversation => "conversation",
            Self::Numbered => "aware",
            Self::Client => "client",
            Self::Worker => "worker",
        }
    }
}

impl Route {
    /// Whether the peers of a pipe may compress that this request opens and that would speak one of `protocols`.
    ///
    /// # Errors
    /// Why they may not.
    pub fn may_compress(&self, protocols: &[String], parts: &Parts) -> Result<(), Uncompressed> {
        if !self.compression {
            Err(Uncompressed::Route)
        } else if self.share.is_some() {
            Err(Uncompressed::Shared)
        } else if self.settings.check_utf8 {
            Err(Uncompressed::CheckedText)
        } else if self.conversations.may_be_read(protocols, parts, &self.settings.profiles) {
            Err(Uncompressed::Conversation)
        } else {
            Ok(())
        }
    }
}
