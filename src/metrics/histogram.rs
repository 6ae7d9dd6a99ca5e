//! How often a duration was how long.

use std::time::Duration;

/// Upper bounds of the buckets, in microseconds: from what a handoff costs on one link to what a far one costs, and on to the
/// longest `handoff_timeout` (30 s). The last bucket has no bound.
const BOUNDS: [(u64, &str); 16] = [
    (100, "0.0001"),
    (250, "0.00025"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (10_000_000, "10"),
    (30_000_000, "30"),
];

/// Durations, counted by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&mut self, duration: Duration) {
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        // A bound belongs to its own bucket: Prometheus' `le` is "less or equal".
        let bucket = BOUNDS.partition_point(|(bound, _)| *bound < microseconds);
        self.counts[bucket] += 1;
        self.sum = self.sum.saturating_add(duration);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Of all of them.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Each bucket's upper bound in seconds as Prometheus writes it, and how many were not longer.
    pub fn buckets(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let bounds = BOUNDS.iter().map(|(_, text)| *text).chain(["+Inf"]);
        bounds.zip(self.counts.iter().scan(0, |total, count| {
            *total += count;
            Some(*total)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_its_bucket_and_all_longer_ones() {
        let mut histogram = Histogram::default();
        for microseconds in [0, 100, 101, 1_000, 30_000_001] {
            histogram.observe(Duration::from_micros(microseconds));
        }
        let buckets: Vec<_> = histogram.buckets().collect();
        assert_eq!(buckets[..4], [("0.0001", 2), ("0.00025", 3), ("0.0005", 3), ("0.001", 4)]);
        assert_eq!(buckets[15..], [("30", 4), ("+Inf", 5)]);
        assert_eq!((histogram.count(), histogram.sum()), (5, Duration::from_micros(30_001_202)));
    }

    #[test]
    fn the_bounds_are_what_their_texts_say_and_rise() {
        for (microseconds, text) in BOUNDS {
            let seconds: f64 = text.parse().unwrap();
            assert!((seconds * 1e6 - microseconds as f64).abs() < 1e-6, "{text}");
        }
        assert!(BOUNDS.is_sorted());
    }
}
