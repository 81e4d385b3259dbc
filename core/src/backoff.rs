//! Waits between rounds of dials: exponential with full jitter, drawn from a generator that the caller seeds.

use std::time::Duration;

/// A small deterministic generator (SplitMix64), so that the core needs no source of randomness of its own.
#[derive(Debug)]
pub struct Draw(u64);

impl Draw {
    /// A generator that `seed` decides.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Four bytes, for a masking key or a nonce.
    pub const fn key(&mut self) -> [u8; 4] {
        (self.bits() as u32).to_be_bytes()
    }
}

/// Doublings after which the longest wait is reached in any sane configuration; it keeps the shift in range.
const DOUBLINGS_MAX: u32 = 20;

/// The wait before round `round` (the first is 0): a draw between a tenth of and the whole of `min * 2^round`, which
/// never exceeds `max`.
#[must_use]
pub fn wait(round: u32, min: Duration, max: Duration, draw: &mut Draw) -> Duration {
    let ceiling = min.saturating_mul(1 << round.min(DOUBLINGS_MAX)).min(max);
    let micros = u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX).max(1);
    let floor = micros / 10;
    Duration::from_micros(floor + draw.bits() % (micros - floor).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_never_past_it() {
        let (min, max) = (Duration::from_millis(50), Duration::from_secs(2));
        let mut draw = Draw::new(7);
        for round in 0..100 {
            let ceiling = (min * (1 << round.min(10))).min(max);
            let wait = wait(round, min, max, &mut draw);
            assert!(wait <= ceiling && wait >= ceiling / 10, "{round}: {wait:?}");
        }
    }
}
