//! Nearest-rank percentiles of reattach times.

use super::page::ReattachMs;

/// The smallest of `sorted` that `percent` of them don't exceed; `None` of nothing.
pub(super) fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// What people want to know of `samples`, in milliseconds.
pub(super) fn summary(samples: &[f64]) -> ReattachMs {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    ReattachMs { p50: percentile(&sorted, 50), p99: percentile(&sorted, 99), max: sorted.last().copied() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_smallest_that_enough_do_not_exceed() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 50), Some(50.0));
        assert_eq!(percentile(&hundred, 99), Some(99.0));
        assert_eq!(percentile(&hundred[..10], 99), Some(10.0));
        assert_eq!(percentile(&[7.0], 50), Some(7.0));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn the_order_of_the_samples_does_not_matter() {
        let summary = summary(&[3.0, 1.0, 2.0]);
        assert_eq!((summary.p50, summary.p99, summary.max), (Some(2.0), Some(3.0), Some(3.0)));
    }
}
