//! Spans of handshakes, attaches and reattaches, for a collector that speaks OTLP over HTTP. Off unless
//! `trace.otlp_endpoint` is set: then nothing here costs more than a look at an `Option`.
//!
//! A pipe belongs to the trace of its client's request. Each dial tells the worker its own span in `traceparent`, so that
//! the worker's spans hang below the attach that brought them. Without an endpoint, and for a client that asks not to
//! be recorded, `traceparent` goes through as it came.
//!
//! Invariant: no pipe waits for a collector. What does not fit into the queue is dropped and counted.

mod context;
mod encode;
mod export;
mod queue;
mod span;

use std::sync::Arc;

pub use context::{Caller, Context, SpanId, TRACEPARENT, TRACESTATE, TraceId};
pub use export::Exporter;
pub use span::{Name, Span, Value};

use http::HeaderMap;

use crate::config::OtlpEndpoint;
use crate::metrics::Metrics;
use queue::Queue;

/// Where spans begin.
#[derive(Clone, Debug)]
pub struct Tracer {
    queue: Option<Arc<Queue>>,
}

impl Tracer {
    /// Records nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self { queue: None }
    }

    /// Records for the collector at `endpoint`, if there is one; the exporter runs on the current runtime.
    #[must_use]
    pub fn start(endpoint: Option<&OtlpEndpoint>, metrics: &Arc<Metrics>) -> (Self, Option<Exporter>) {
        let Some(endpoint) = endpoint else { return (Self::off(), None) };
        let (queue, spans) = Queue::new(metrics);
        let exporter = Exporter::start(endpoint.clone(), spans, metrics);
        (Self { queue: Some(Arc::new(queue)) }, Some(exporter))
    }

    /// Begins the span of a client's request, and takes out of its headers what each dial says anew from then on;
    /// nothing, with the headers as they are, if it is not wanted.
    #[must_use]
    pub fn take_over(&self, name: Name, headers: &mut HeaderMap) -> Option<Span> {
        let queue = self.queue.as_ref()?;
        let (trace, parent) = match Caller::of(headers) {
            Caller::Silent => {
                headers.remove(TRACESTATE);
                (TraceId::random(), None)
            }
            Caller::Traced(caller) => (caller.trace, Some(caller.span)),
            Caller::Unsampled => return None,
        };
        headers.remove(TRACEPARENT);
        Some(Span::begin(name, Context { trace, span: SpanId::random() }, parent, queue.clone()))
    }

    /// A span below another; nothing if that one is not recorded.
    #[must_use]
    pub fn child(&self, name: Name, parent: Option<&Context>) -> Option<Span> {
        let (queue, parent) = (self.queue.as_ref()?, parent?);
        let context = Context { trace: parent.trace, span: SpanId::random() };
        Some(Span::begin(name, context, Some(parent.span), queue.clone()))
    }
}
