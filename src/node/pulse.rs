//! The sign of life that capture depends on: without it for a second the kernel serves everything locally.

use crate::limits::{HEARTBEAT_INTERVAL, STALL};
use std::time::Instant;

/// When the heartbeat packets were written and are due again.
#[derive(Debug)]
pub struct Pulse {
    /// The clock before the last packets that all went out.
    written: Instant,
    due: Instant,
}

impl Pulse {
    /// Due at once. Capture begins with the first beat, so nothing was missed before.
    pub fn new(now: Instant) -> Self {
        Self { written: now, due: now }
    }

    /// Whether the kernel may have gone on without this process: the last beat is too old.
    pub fn stalled(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.written) > STALL
    }

    /// Whether the packets should be written.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }

    /// When they should be written.
    pub fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// They were written, or at least tried: beats that did not all go out leave the age as it is.
    pub fn beat(&mut self, all_written: bool, now: Instant) {
        if all_written {
            self.written = now;
        }
        self.due = now + HEARTBEAT_INTERVAL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::clock::clock;
    use std::time::Duration;

    #[test]
    fn a_loop_that_slept_too_long_has_stalled_until_it_beats_again() {
        let start = clock();
        let mut pulse = Pulse::new(start);
        assert!(pulse.is_due(start) && !pulse.stalled(start));
        pulse.beat(true, start);
        assert!(!pulse.is_due(start));
        assert_eq!(pulse.poll_timeout(), start + HEARTBEAT_INTERVAL);
        assert!(!pulse.stalled(start + STALL));
        let late = start + STALL + Duration::from_millis(1);
        assert!(pulse.stalled(late));
        pulse.beat(true, late);
        assert!(!pulse.stalled(late));
    }

    #[test]
    fn beats_that_could_not_be_written_do_not_count_and_do_not_spin() {
        let start = clock();
        let mut pulse = Pulse::new(start);
        let late = start + STALL + Duration::from_millis(1);
        pulse.beat(false, late);
        assert!(pulse.stalled(late));
        assert!(!pulse.is_due(late));
    }

    #[test]
    fn a_beat_is_missed_twice_before_the_loop_counts_as_stalled() {
        assert!(HEARTBEAT_INTERVAL * 3 < STALL);
    }
}
