//! What waits for the collector: bounded, and ending a span never waits for it.

use prometheus::IntCounter;
use tokio::sync::mpsc;

use super::span::Record;
use crate::metrics::Metrics;
use crate::metrics::labels::SpanResult;

/// Spans that wait at most; those that come on top are dropped and counted.
pub(super) const QUEUE_SPANS_MAX: usize = 2048;

/// The way in.
#[derive(Debug)]
pub(super) struct Queue {
    sender: mpsc::Sender<Record>,
    dropped: IntCounter,
}

impl Queue {
    pub(super) fn new(metrics: &Metrics) -> (Self, mpsc::Receiver<Record>) {
        let (sender, receiver) = mpsc::channel(QUEUE_SPANS_MAX);
        (Self { sender, dropped: metrics.spans(SpanResult::Dropped) }, receiver)
    }

    pub(super) fn push(&self, record: Record) {
        if self.sender.try_send(record).is_err() {
            self.dropped.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::{Context, SpanId, TraceId};
    use super::super::span::{Name, Span};
    use super::*;
    use std::sync::Arc;

    #[test]
    fn one_span_more_than_the_queue_holds_is_dropped_and_counted() {
        let metrics = Metrics::new();
        let (queue, mut spans) = Queue::new(&metrics);
        let queue = Arc::new(queue);
        let end_one = || {
            let context = Context { trace: TraceId::random(), span: SpanId::random() };
            drop(Span::begin(Name::Attach, context, None, queue.clone()));
        };
        (0..QUEUE_SPANS_MAX).for_each(|_| end_one());
        assert_eq!(metrics.spans(SpanResult::Dropped).get(), 0);
        end_one();
        assert_eq!(metrics.spans(SpanResult::Dropped).get(), 1);
        assert!(spans.try_recv().is_ok());
        end_one();
        assert_eq!((metrics.spans(SpanResult::Dropped).get(), spans.len()), (1, QUEUE_SPANS_MAX));
    }
}
