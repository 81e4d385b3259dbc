//! The time of a record, as its line says it.
//!
//! Invariant: the text is jiff's. What of it is the same for a whole second is written once a second and thread.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// Bytes of a time up to its second: `2026-11-21T10:13:37`.
const SECOND_BYTES: usize = 19;

thread_local! {
    /// A second since the epoch, and its text.
    static SECOND: Cell<(u64, [u8; SECOND_BYTES])> = const { Cell::new((u64::MAX, [b'0'; SECOND_BYTES])) };
}

/// Appends the time now, with six digits behind the second.
pub(super) fn push_now(line: &mut String) {
    push(line, SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
}

/// Appends the time so long `since` the epoch.
fn push(line: &mut String, since: Duration) {
    let (mut known, mut text) = SECOND.get();
    if known != since.as_secs() {
        known = since.as_secs();
        text = text_of(known);
        SECOND.set((known, text));
    }
    let mut digits = *b".000000Z";
    let mut micros = since.subsec_micros();
    for digit in digits[1..7].iter_mut().rev() {
        *digit += (micros % 10) as u8;
        micros /= 10;
    }
    line.extend([&text[..], &digits].map(|ascii| std::str::from_utf8(ascii).unwrap_or_default()));
}

fn text_of(second: u64) -> [u8; SECOND_BYTES] {
    let at = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok()).unwrap_or_default();
    let text = at.to_string();
    text.as_bytes().first_chunk().copied().unwrap_or([b'0'; SECOND_BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_jiffs_within_a_second_and_from_one_to_the_next() {
        for (seconds, nanos) in [
            (0, 0),
            (0, 999_999_000),
            (1, 1_000),
            (1_795_000_000, 123_456_000),
            (1_795_000_000, 7_000),
            (951_782_399, 0),
        ] {
            let mut line = String::new();
            push(&mut line, Duration::new(seconds, nanos));
            let at = Timestamp::new(seconds as i64, nanos as i32).expect("it is a time");
            assert_eq!(line, format!("{at:.6}"));
        }
    }
}
