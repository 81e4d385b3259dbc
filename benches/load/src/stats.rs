//! Medians, percentiles, and whether a cost grows.

/// The median; 0 of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        len if len % 2 == 1 => values[len / 2],
        len => f64::midpoint(values[len / 2 - 1], values[len / 2]),
    }
}

/// The value that a share of all lies at or below (nearest rank); 0 of nothing.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// What one unit may cost over the largest size, against what it costs over the reference.
///
/// Ten times the size makes something quadratic ten times as dear; noise, cold caches and lost batches stay well below 3.
pub const GROWTH_MAX: f64 = 3.0;

/// How a unit's cost grows from the reference to the dearest of the larger sizes.
pub fn growth(reference: f64, larger: &[f64]) -> f64 {
    larger.iter().copied().fold(0.0, f64::max) / reference.max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_seen() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.5), 50.0);
        assert_eq!(percentile(&values, 0.99), 99.0);
        assert_eq!(percentile(&values, 1.0), 100.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
        assert_eq!(median([3.0, 1.0]), 2.0);
    }

    #[test]
    fn a_quadratic_cost_is_found_and_a_flat_one_is_not() {
        let cost = |of: fn(f64) -> f64| [100.0, 1000.0, 10_000.0].map(|size| of(size) / size);
        let quadratic = cost(|size| 50.0 * size + size * size / 10.0);
        let linear = cost(|size| 50.0 * size + 20.0);
        assert!(growth(quadratic[0], &quadratic[1..]) > GROWTH_MAX);
        assert!(growth(linear[0], &linear[1..]) < 1.01);
    }
}
