//! A span: something that began, what is known of it, and its end, which is when it is dropped.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::context::{Context, SpanId};
use super::queue::Queue;

/// What a span is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    /// A client's WebSocket handshake, from its request to our answer.
    Handshake,
    /// One try to attach a worker, from the dial to its 101.
    Attach,
    /// A pipe without a worker, from the interruption to the next worker or the end of the pipe.
    Reattach,
}

impl Name {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Attach => "attach",
            Self::Reattach => "reattach",
        }
    }
}

/// A value of an attribute: from the configuration or a closed set, and never from a payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A word or a name.
    Text(Arc<str>),
    /// A count or a code.
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// All that is exported of a span.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) name: Name,
    pub(super) context: Context,
    pub(super) parent: Option<SpanId>,
    pub(super) began: SystemTime,
    pub(super) took: std::time::Duration,
    pub(super) attributes: Vec<(&'static str, Value)>,
    /// Why it came to nothing.
    pub(super) failure: Option<Arc<str>>,
}

/// Something that is under way. It ends, and is queued for the collector, when it is dropped.
#[derive(Debug)]
pub struct Span {
    /// There until the end.
    record: Option<Record>,
    context: Context,
    began: Instant,
    queue: Arc<Queue>,
}

impl Span {
    pub(super) fn begin(name: Name, context: Context, parent: Option<SpanId>, queue: Arc<Queue>) -> Self {
        let record = Record {
            name,
            context,
            parent,
            began: SystemTime::now(),
            took: std::time::Duration::ZERO,
            attributes: Vec::new(),
            failure: None,
        };
        Self { record: Some(record), context, began: Instant::now(), queue }
    }

    /// What its children name.
    #[must_use]
    pub const fn context(&self) -> Context {
        self.context
    }

    /// Adds what is known.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(record) = &mut self.record {
            record.attributes.push((name, value.into()));
        }
    }

    /// Says that it came to nothing, and why: in words of ours.
    pub fn fail(&mut self, why: &str) {
        if let Some(record) = &mut self.record {
            record.failure = Some(why.into());
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(mut record) = self.record.take() {
            record.took = self.began.elapsed();
            self.queue.push(record);
        }
    }
}
