//! How families of metrics are made, and how their series go.

use std::collections::HashMap;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::register;

/// Removes the series of `family` whose label `label` has this value.
pub(super) fn forget<B: MetricVecBuilder>(family: &MetricVec<B>, label: &str, value: &str) {
    for series in family.collect().iter().flat_map(|family| family.get_metric()) {
        let labels: HashMap<&str, &str> = series.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
        if labels.get(label) == Some(&value) {
            // It was there a moment ago; another thread that removed it first is as good.
            let _ = family.remove(&labels);
        }
    }
}

/// Makes and registers families with the common prefix.
pub(super) struct Maker<'a> {
    pub(super) registry: &'a Registry,
}

impl Maker<'_> {
    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        register(self.registry, IntGauge::with_opts(opts(name, help)))
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        register(self.registry, IntCounter::with_opts(opts(name, help)))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        register(self.registry, IntGaugeVec::new(opts(name, help), labels))
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        register(self.registry, IntCounterVec::new(opts(name, help), labels))
    }

    pub(super) fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let opts = HistogramOpts { common_opts: opts(name, help), buckets: buckets.to_vec() };
        register(self.registry, HistogramVec::new(opts, labels))
    }

    /// The process families bear the names that every Prometheus client gives them, without our prefix.
    pub(super) fn process(&self, name: &str, help: &str) -> IntGauge {
        register(self.registry, IntGauge::new(name, help))
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("holdline")
}
