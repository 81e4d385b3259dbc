//! The shared streams in `/stats`: the service pool of one device for many viewers, in numbers.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::Admin;
use crate::share::Hub;

/// Streams listed one by one; those with the most viewers win.
const STREAMS_MAX: usize = 1000;

/// All streams together, and each by itself.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SharedStreams {
    open: usize,
    /// Of those, the ones that linger without a viewer.
    idle: usize,
    viewers: usize,
    opened_total: u64,
    /// Viewers that found their stream open.
    reuse_total: u64,
    /// The share of viewers that found their stream open; 0 before the first.
    reuse_rate: f64,
    held_bytes: usize,
    items: Vec<StreamBody>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct StreamBody {
    /// The stream's own pipe in `/v1/pipes`.
    pipe: String,
    route: Arc<str>,
    key: Arc<str>,
    /// What its worker was asked for.
    path: Arc<str>,
    backend: Option<Arc<str>>,
    viewers: usize,
    reused: u64,
    idle_ms: Option<u64>,
    /// What is left of its linger.
    linger_ms: Option<u64>,
    held_bytes: usize,
}

impl From<&Arc<Hub>> for StreamBody {
    fn from(hub: &Arc<Hub>) -> Self {
        let view = hub.view();
        Self {
            pipe: hub.pipe.id.to_string(),
            route: hub.key.route.clone(),
            key: hub.key.key.clone(),
            path: hub.key.path.clone(),
            backend: hub.pipe.backend().map(|(_, id)| id),
            viewers: view.viewers,
            reused: view.reused,
            idle_ms: view.idle_ms,
            linger_ms: view.linger_ms,
            held_bytes: view.held_bytes,
        }
    }
}

/// The streams as they are now.
pub(super) fn body(admin: &Admin) -> SharedStreams {
    let mut items: Vec<_> = admin.process.streams.list().iter().map(StreamBody::from).collect();
    items.sort_by(|a, b| (b.viewers, &a.route, &a.key).cmp(&(a.viewers, &b.route, &b.key)));
    let opened_total = admin.process.streams.opened_total();
    let reuse_total = admin.process.metrics.routes().iter().map(|(_, route)| route.stream_reused.get()).sum::<u64>();
    SharedStreams {
        open: items.len(),
        idle: items.iter().filter(|item| item.idle_ms.is_some()).count(),
        viewers: items.iter().map(|item| item.viewers).sum(),
        opened_total,
        reuse_total,
        reuse_rate: reuse_total as f64 / (reuse_total + opened_total).max(1) as f64,
        held_bytes: items.iter().map(|item| item.held_bytes).sum(),
        items: items.into_iter().take(STREAMS_MAX).collect(),
    }
}
