//! How long to wait before a peer is dialled again.

use crate::limits::{RECONNECT_DELAY_MAX, RECONNECT_DELAY_MIN};
use std::time::Duration;

/// Doubles from `RECONNECT_DELAY_MIN` to `RECONNECT_DELAY_MAX`. The jitter keeps nodes from dialling a restarted peer
/// in step; it comes from the seed, so the same life of the same node waits the same times.
#[derive(Clone, Debug)]
pub struct Backoff {
    seed: u64,
    attempt: u32,
}

impl Backoff {
    /// Starts with the shortest wait.
    pub const fn new(seed: u64) -> Self {
        Self { seed, attempt: 0 }
    }

    /// Starts with the shortest wait again.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// The next wait: half to all of the doubled time, never below the shortest.
    pub fn next_delay(&mut self) -> Duration {
        let doubled = RECONNECT_DELAY_MIN.saturating_mul(1 << self.attempt.min(16)).min(RECONNECT_DELAY_MAX);
        self.attempt = self.attempt.saturating_add(1);
        let part = mixed(self.seed ^ u64::from(self.attempt)) >> 48;
        (doubled / 2 + doubled / 2 * part as u32 / 65_536).max(RECONNECT_DELAY_MIN)
    }
}

/// The finaliser of SplitMix64: neighbouring seeds give unrelated numbers.
const fn mixed(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_within_their_bounds_and_start_again_after_a_reset() {
        let mut backoff = Backoff::new(7);
        let waits: Vec<_> = (0..1_000).map(|_| backoff.next_delay()).collect();
        assert_eq!(waits[0], RECONNECT_DELAY_MIN);
        assert!(waits.iter().all(|wait| (RECONNECT_DELAY_MIN..=RECONNECT_DELAY_MAX).contains(wait)));
        assert!(waits[10..].iter().all(|wait| *wait >= RECONNECT_DELAY_MAX / 2));
        backoff.reset();
        assert_eq!(backoff.next_delay(), RECONNECT_DELAY_MIN);
    }

    #[test]
    fn waits_of_one_length_are_spread_over_its_upper_half_and_seldom_the_same() {
        let mut backoff = Backoff::new(7);
        let waits: Vec<_> = (0..1_000).map(|_| backoff.next_delay()).skip(10).collect();
        let different: std::collections::BTreeSet<_> = waits.iter().collect();
        assert!(different.len() > 900, "{}", different.len());
        for tenth in 5..10 {
            let within = RECONNECT_DELAY_MAX * tenth / 10..RECONNECT_DELAY_MAX * (tenth + 1) / 10;
            let count = waits.iter().filter(|wait| within.contains(wait)).count();
            assert!((100..300).contains(&count), "{count} of {} in {within:?}", waits.len());
        }
    }

    #[test]
    fn the_same_seed_waits_the_same_times_and_another_does_not() {
        let waits = |seed| {
            let mut backoff = Backoff::new(seed);
            (0..20).map(|_| backoff.next_delay()).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }
}
