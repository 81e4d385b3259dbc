//! The proxy's own numbers: read, summed, and sampled over time.

use std::time::Duration;

use anyhow::ensure;

use crate::ask::ask;

/// One reading of `/metrics`.
#[derive(Debug, Clone, Default)]
pub struct Metrics(String);

/// Reads them.
///
/// # Errors
/// When the proxy does not answer.
pub async fn read(admin: &str) -> anyhow::Result<Metrics> {
    let (status, text) = ask(admin, "GET", "/metrics", "").await?;
    ensure!(status == 200, "/metrics answers {status}");
    Ok(Metrics(text))
}

impl Metrics {
    /// The sum of a family's series that bear all of these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let values = self.0.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (family, given) = series.split_once('{').unwrap_or((series, ""));
            let bears = |(label, value): &(&str, &str)| given.contains(&format!("{label}=\"{value}\""));
            (family == name && labels.iter().all(bears)).then(|| value.parse::<f64>().ok())?
        });
        values.sum()
    }

    pub fn rss_mib(&self) -> f64 {
        self.sum("process_resident_memory_bytes", &[]) / 1_048_576.0
    }
}

/// What a long run watches for growth.
#[derive(Debug, Default)]
pub struct Samples(pub Vec<Sample>);

/// One moment.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub at_s: f64,
    pub rss_mib: f64,
    pub fds: f64,
    pub tasks: f64,
}

impl Samples {
    /// Takes a sample; a reading that fails is left out, the end of the run says whether the proxy lives.
    pub async fn take(&mut self, admin: &str, at: Duration) {
        let Ok(metrics) = read(admin).await else { return };
        self.0.push(Sample {
            at_s: at.as_secs_f64(),
            rss_mib: metrics.rss_mib(),
            fds: metrics.sum("process_open_fds", &[]),
            tasks: metrics.sum("holdline_runtime_tasks", &[]),
        });
    }

    /// By how much the value of `of` grows over the second half, as the slope of the line through it, times its length;
    /// and its mean there.
    pub fn growth(&self, of: fn(&Sample) -> f64) -> (f64, f64) {
        let half = &self.0[self.0.len() / 2..];
        let count = half.len() as f64;
        let mean = |value: &dyn Fn(&Sample) -> f64| half.iter().map(value).sum::<f64>() / count.max(1.0);
        let (mean_s, mean_value) = (mean(&|sample| sample.at_s), mean(&of));
        let covariance = mean(&|sample| (sample.at_s - mean_s) * (of(sample) - mean_value));
        let variance = mean(&|sample| (sample.at_s - mean_s).powi(2));
        let length = half.last().map_or(0.0, |last| last.at_s) - half.first().map_or(0.0, |first| first.at_s);
        let slope = if variance > 0.0 { covariance / variance } else { 0.0 };
        (slope * length, mean_value)
    }
}
