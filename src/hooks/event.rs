//! What is told, as JSON.

use std::sync::Arc;

use holdline_core::ids::PipeId;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// One event.
#[derive(Clone, Serialize, Debug)]
pub(super) struct Event {
    /// The same each time that it is sent.
    id: String,
    #[serde(serialize_with = "as_text")]
    at: Timestamp,
    #[serde(flatten)]
    life: Life,
}

impl Event {
    pub(super) fn new(id: String, life: Life) -> Self {
        Self { id, at: Timestamp::now(), life }
    }
}

/// What happened to a pipe. The `type` of the JSON form is the serde name of the variant.
#[derive(Clone, Serialize, Debug)]
#[serde(tag = "type")]
pub enum Life {
    /// A client was let in.
    #[serde(rename = "pipe.opened")]
    Opened {
        #[serde(serialize_with = "as_text")]
        pipe: PipeId,
        route: String,
        pool: String,
        key: Option<Arc<str>>,
        client: String,
        backend: String,
        protocol: Option<Box<str>>,
        request: Option<Box<str>>,
    },
    /// The pipe is over.
    #[serde(rename = "pipe.ended")]
    Ended {
        #[serde(serialize_with = "as_text")]
        pipe: PipeId,
        route: String,
        key: Option<Arc<str>>,
        client: String,
        by: &'static str,
        code: u16,
        reason: Box<str>,
        duration_ms: u64,
        interruptions: u64,
        up: Lane,
        down: Lane,
    },
    /// The client was lost, and may come back.
    #[serde(rename = "pipe.client_detached")]
    ClientDetached {
        #[serde(serialize_with = "as_text")]
        pipe: PipeId,
        route: String,
        key: Option<Arc<str>>,
        client: String,
        generation: u64,
    },
    /// The client is back.
    #[serde(rename = "pipe.client_attached")]
    ClientAttached {
        #[serde(serialize_with = "as_text")]
        pipe: PipeId,
        route: String,
        key: Option<Arc<str>>,
        client: String,
        generation: u64,
        replaced: bool,
        away_ms: u64,
    },
}

/// What became of the messages of one lane.
#[derive(Clone, Copy, Serialize, Debug)]
pub struct Lane {
    /// Those that came.
    pub accepted: u64,
    /// Those that were given up.
    pub lost: u64,
    /// Those that were sent and not confirmed when their receiver was lost.
    pub in_doubt: u64,
}

fn as_text<T: std::fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
