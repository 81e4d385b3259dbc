//! What two processes say to each other.
//!
//! ```text
//!        old process                          new process
//!        Hello {protocol, …}        ◀──▶      Hello {protocol, …}
//!        Estate + listeners          ──▶
//!        State in memory             ──▶
//!                                   ◀──       Ready
//!        Batch {number} + sockets    ──▶                          ┐
//!                                   ◀──       Taken {number}      │ as long as
//!        Commit {number}             ──▶                          │ there are pipes
//!                                   ◀──       Started {number}    ┘
//!        Done + state in memory      ──▶
//!                                   ◀──       Serving
//! ```
//! Either may say `Refused` instead, and end. Up to `Commit` the pipes of a batch are the old process's; from there on they
//! are the new one's. Words that are not known are refused: a form that has more of them is another protocol.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use holdline_core::snapshot;
use serde::{Deserialize, Serialize};

use super::wire::{Wire, WireError};

/// The form of the words and of what goes with them. Whatever changes in [`crate::pipes::passport`], in `state` or here is
/// another number.
pub const PROTOCOL: u32 = 1;

/// A word.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case", deny_unknown_fields)]
pub enum Word {
    /// Who speaks.
    Hello(Hello),
    /// Nothing comes of it, and why.
    Refused {
        /// Why.
        reason: String,
    },
    /// The listeners, with their descriptors in this order.
    Estate {
        /// What each descriptor is.
        descriptors: Vec<Heirloom>,
    },
    /// What the process knows, in the memory that comes along.
    State {
        /// Its bytes.
        bytes: usize,
    },
    /// The new process could serve now.
    Ready {},
    /// Pipes that stand still: their snapshots in memory, and their sockets.
    Batch {
        /// Its number, the first is 1.
        number: u64,
        /// How many pipes.
        pipes: usize,
        /// Bytes of the memory.
        bytes: usize,
    },
    /// All is there, and good but for these.
    Taken {
        /// The batch.
        number: u64,
        /// The pipes that it cannot go on with, and why.
        refused: Vec<(String, String)>,
    },
    /// They are the new process's from here on.
    Commit {
        /// The batch.
        number: u64,
    },
    /// They run.
    Started {
        /// The batch.
        number: u64,
        /// For how long each stood still, in microseconds.
        pauses: Vec<u64>,
    },
    /// There are no more pipes that can go; what the process knows now is in the memory that comes along.
    Done {
        /// Its bytes.
        bytes: usize,
    },
    /// The new process accepts connections.
    Serving {},
}

/// Who speaks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The form of the words.
    pub protocol: u32,
    /// The forms of snapshots that it can read.
    pub snapshot_forms_read: Vec<u16>,
    /// The form of those that it writes.
    pub snapshot_form_written: u16,
    /// Its version.
    pub version: String,
    /// A digest of what its configuration comes to.
    pub config_hash: String,
    /// Its number, as it knows it itself.
    pub pid: u32,
}

impl Hello {
    /// What this process says of itself, with a configuration of this digest.
    #[must_use]
    pub fn own(config_hash: String) -> Self {
        Self {
            protocol: PROTOCOL,
            snapshot_forms_read: vec![snapshot::VERSION],
            snapshot_form_written: snapshot::VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config_hash,
            pid: std::process::id(),
        }
    }

    /// Judges whether this process, the old one, can give its pipes to one that says `other`.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn fits(&self, other: &Self) -> Result<(), String> {
        if other.protocol != self.protocol {
            return Err(format!(
                "version {} speaks form {} of the hand-over, and version {} form {}; restart instead",
                other.version, other.protocol, self.version, self.protocol
            ));
        }
        if !other.snapshot_forms_read.contains(&self.snapshot_form_written) {
            return Err(format!(
                "version {} reads no pipes in form {}, which version {} writes; restart instead",
                other.version, self.snapshot_form_written, self.version
            ));
        }
        Ok(())
    }
}

/// What a descriptor of the estate is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heirloom {
    /// A public listener, and whether TLS is spoken on it.
    Public {
        /// Whether TLS is spoken.
        tls: bool,
        /// How it is bound.
        bound: Binding,
    },
    /// The admin listener.
    Admin {
        /// How it is bound.
        bound: Binding,
    },
    /// A listener of workers that dial in.
    Attach {
        /// How it is bound.
        bound: Binding,
    },
    /// The lock of the state file.
    StateLock,
}

/// How a listener is bound.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binding {
    /// To an address.
    Tcp,
    /// To a socket file, which goes with its last owner.
    Unix {
        /// The file.
        path: std::path::PathBuf,
    },
    /// To a socket file of the service manager.
    Activated {
        /// The file.
        path: std::path::PathBuf,
    },
}

/// Why the conversation is over.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    /// The wire.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The other process does not want to.
    #[error("the other process refused: {0}")]
    Refused(String),
    /// It says something that is none of our words, or not the one that is due.
    #[error("the other process said something that was not expected: {0}")]
    Unexpected(String),
}

impl Wire {
    /// Says a word.
    ///
    /// # Errors
    /// The wire's.
    pub async fn say(&self, word: &Word, descriptors: &[BorrowedFd<'_>]) -> Result<(), TalkError> {
        let bytes = serde_json::to_vec(word).map_err(std::io::Error::other).map_err(WireError::Io)?;
        Ok(self.send(&bytes, descriptors).await?)
    }

    /// Says a word that has its bytes in memory.
    ///
    /// # Errors
    /// The wire's.
    pub async fn say_with(&self, word: &Word, memory: &OwnedFd, sockets: &[BorrowedFd<'_>]) -> Result<(), TalkError> {
        let mut descriptors = vec![memory.as_fd()];
        descriptors.extend_from_slice(sockets);
        self.say(word, &descriptors).await
    }

    /// The next word, with its descriptors.
    ///
    /// # Errors
    /// There is none within `patience`, or the other process refused.
    pub async fn hear(&self, patience: Duration) -> Result<(Word, Vec<OwnedFd>), TalkError> {
        let received = self.recv(patience).await?;
        match serde_json::from_slice(&received.bytes) {
            Ok(Word::Refused { reason }) => Err(TalkError::Refused(reason)),
            Ok(word) => Ok((word, received.descriptors)),
            Err(error) => Err(TalkError::Unexpected(error.to_string())),
        }
    }
}

/// The error that a word is which was not due.
#[must_use]
pub fn unexpected(word: &Word) -> TalkError {
    let text = serde_json::to_value(word).ok().and_then(|value| value["say"].as_str().map(str::to_owned));
    TalkError::Unexpected(text.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_form_of_words_or_of_snapshots_is_refused_with_a_reason() {
        let own = Hello::own("c".to_owned());
        assert_eq!(own.fits(&own.clone()), Ok(()));
        let reason = own.fits(&Hello { protocol: 99, version: "9.9".into(), ..own.clone() }).unwrap_err();
        assert!(reason.starts_with("version 9.9 speaks form 99 of the hand-over"), "{reason}");
        let reads = vec![own.snapshot_form_written + 1];
        let reason = own.fits(&Hello { snapshot_forms_read: reads, ..own.clone() }).unwrap_err();
        assert!(reason.contains("reads no pipes in form"), "{reason}");
        let newer = Hello { snapshot_forms_read: vec![3, own.snapshot_form_written, 99], ..own.clone() };
        assert_eq!(own.fits(&newer), Ok(()));
    }

    #[tokio::test]
    async fn what_is_no_word_is_not_expected_and_a_refusal_is_an_error() {
        let (own, other) = Wire::pair().unwrap();
        let other = Wire::new(other).unwrap();
        let patience = Duration::from_secs(20);
        own.send(b"{\"say\":\"ready\",\"more\":1}", &[]).await.unwrap();
        assert!(matches!(other.hear(patience).await, Err(TalkError::Unexpected(_))));
        own.say(&Word::Refused { reason: "no".into() }, &[]).await.unwrap();
        assert!(matches!(other.hear(patience).await, Err(TalkError::Refused(reason)) if reason == "no"));
        own.say(&Word::Commit { number: 3 }, &[]).await.unwrap();
        assert!(matches!(other.hear(patience).await, Ok((Word::Commit { number: 3 }, none)) if none.is_empty()));
    }
}
