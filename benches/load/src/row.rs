//! All runs of one load on all proxies: medians, and ratios to the peers and to no proxy at all.

use serde::{Deserialize, Serialize};

use crate::generator::Outcome;
use crate::load::Way;
use crate::stats::median;

/// The peers that set the targets.
pub const PEERS: [&str; 2] = ["nginx 64k", "haproxy"];
pub const OWN: &str = "holdline";
pub const DIRECT: &str = "direct";

/// All runs of one load on one proxy.
#[derive(Debug, Serialize, Deserialize)]
pub struct Cell {
    pub peer: String,
    pub runs: Vec<Outcome>,
    /// Runs in which a peer lost messages, refused connections or hung.
    pub failed: u32,
}

/// All proxies under one load.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    pub load: String,
    pub target: Option<f64>,
    pub cells: Vec<Cell>,
}

impl Cell {
    /// The median of all runs; nothing, if there was none that counts.
    pub fn median(&self, of: impl Fn(&Outcome) -> f64) -> Option<f64> {
        (!self.runs.is_empty()).then(|| median(self.runs.iter().map(of)))
    }

    pub fn per_second(&self, of: impl Fn(&Outcome) -> u64) -> Option<f64> {
        let rate = self.median(|run| if run.seconds > 0.0 { of(run) as f64 / run.seconds } else { 0.0 });
        rate.filter(|&rate| rate > 0.0)
    }
}

impl Row {
    /// The load, whatever way its clients come.
    fn kind(&self) -> &str {
        Way::split(&self.load).1
    }

    pub fn is_idle(&self) -> bool {
        self.kind().starts_with("idle")
    }

    /// Connections that come and go, and nothing else.
    pub fn is_cycles(&self) -> bool {
        ["cycles", "full", "resumed"].iter().any(|kind| self.kind().starts_with(kind))
    }

    /// Judged by its latency, not by its CPU, which is that of the load beside it as well.
    pub fn is_tap(&self) -> bool {
        self.name.starts_with("tap")
    }

    /// One way only, without an answer to time.
    pub fn is_untimed(&self) -> bool {
        self.kind().starts_with("upload") || self.is_idle()
    }

    pub fn cell(&self, peer: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.peer == peer)
    }

    /// What the row is judged by: CPU µs per message, or bytes per idle pipe.
    pub fn cost(&self, peer: &str) -> Option<f64> {
        let cost = |run: &Outcome| {
            if self.is_idle() {
                return run.resident_bytes;
            }
            run.cpu_ns as f64 / 1000.0 / run.messages.max(1) as f64
        };
        self.cell(peer)?.median(cost).filter(|&cost| cost > 0.0)
    }

    /// CPU µs per message of the proxy and its worker together.
    pub fn whole_cost(&self, peer: &str) -> Option<f64> {
        let cost = |run: &Outcome| (run.cpu_ns + run.worker_cpu_ns) as f64 / 1000.0 / run.messages.max(1) as f64;
        self.cell(peer)?.median(cost).filter(|&cost| cost > 0.0 && !self.is_idle())
    }

    /// CPU seconds for each gigabyte of payload that was relayed.
    pub fn cpu_per_gb(&self, peer: &str) -> Option<f64> {
        let cost = |run: &Outcome| run.cpu_ns as f64 / run.bytes.max(1) as f64;
        self.cell(peer)?.median(cost).filter(|&cost| cost > 0.0 && !self.is_idle() && !self.is_cycles())
    }

    pub fn ratio_to(&self, peer: &str) -> Option<f64> {
        Some(self.cost(OWN)? / self.cost(peer)?)
    }

    /// What Holdline costs with its worker, to what the worker costs alone.
    pub fn ratio_to_none(&self) -> Option<f64> {
        Some(self.whole_cost(OWN)? / self.whole_cost(DIRECT)?)
    }

    /// The ratio to the better of those that set the target: of memory, HAProxy alone is the measure.
    pub fn ratio(&self) -> Option<f64> {
        let peers = if self.is_idle() { &PEERS[1..] } else { &PEERS[..] };
        let best = peers.iter().filter_map(|peer| self.cost(peer)).reduce(f64::min)?;
        Some(self.cost(OWN)? / best)
    }

    /// Of those that set the target, the one whose 99th percentile is lower.
    pub fn prompter_peer(&self) -> Option<&Cell> {
        let cells = PEERS.iter().filter_map(|peer| self.cell(peer)).filter(|cell| !cell.runs.is_empty());
        let p99 = |cell: &Cell| cell.median(|run| run.p99_us).unwrap_or(f64::MAX);
        cells.min_by(|one, other| p99(one).total_cmp(&p99(other)))
    }
}
