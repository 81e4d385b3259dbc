//! A row of numbers as a row of blocks.

/// From nothing to the most.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The last `width` numbers, each as high as its share of the most of them; a gap where there is no number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is between 0 and 1")]
pub(super) fn spark(numbers: &[Option<f64>], width: usize) -> String {
    let shown = &numbers[numbers.len().saturating_sub(width)..];
    let most = shown.iter().flatten().fold(0.0_f64, |most, number| most.max(*number));
    let block = |number: f64| {
        let share = if most > 0.0 { (number / most).clamp(0.0, 1.0) } else { 0.0 };
        BLOCKS[(share * (BLOCKS.len() - 1) as f64).round() as usize]
    };
    shown.iter().map(|number| number.map_or(' ', block)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_is_the_highest_and_what_is_not_there_is_a_gap() {
        assert_eq!(spark(&[Some(9.0), Some(0.0), None, Some(3.5), Some(7.0)], 4), "▁ ▅█");
        assert_eq!(spark(&[Some(0.0); 3], 9), "▁▁▁");
        assert_eq!(spark(&[], 9), "");
    }
}
