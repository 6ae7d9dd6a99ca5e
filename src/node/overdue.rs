//! Deadlines of the engine that have passed, and wait for what came before them.
//!
//! What arrived in time may still wait in a queue of the kernel when its deadline is noticed: the loop reads so many packets
//! per wake, and it may itself have been kept from running. A deadline that fires then says that something did not come
//! although it did.

use crate::limits::OVERDUE_MAX;
use std::time::Instant;

/// Since when a deadline waits.
#[derive(Debug, Default)]
pub struct Overdue {
    since: Option<Instant>,
}

impl Overdue {
    /// Whether deadlines fire in this wake: one had passed before its packets were read, and `all_read` says that the queues
    /// were seen empty since; or it has waited for too long.
    pub fn fires(&mut self, has_passed: bool, all_read: bool, now: Instant) -> bool {
        if !has_passed {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        // Counted from when it was noticed: after a loop that was kept from running for long there is the most to be read.
        let fires = all_read || now.saturating_duration_since(since) >= OVERDUE_MAX;
        if fires {
            self.since = None;
        }
        fires
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;
    use crate::node::clock::clock;
    use std::time::Duration;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn a_deadline_waits_until_what_came_before_it_has_been_read() {
        let (mut overdue, start) = (Overdue::default(), clock());
        assert!(!overdue.fires(true, false, start));
        assert!(!overdue.fires(true, false, start + MILLISECOND));
        assert!(overdue.fires(true, true, start + 2 * MILLISECOND));
        assert!(overdue.fires(true, true, start + 3 * MILLISECOND), "and no longer");
        assert!(!overdue.fires(false, true, start + 4 * MILLISECOND), "nothing has passed");
    }

    #[test]
    fn a_flood_does_not_stop_the_clock() {
        let (mut overdue, start) = (Overdue::default(), clock());
        assert!(!overdue.fires(true, false, start));
        assert!(!overdue.fires(true, false, start + OVERDUE_MAX - MILLISECOND));
        assert!(overdue.fires(true, false, start + OVERDUE_MAX));
        assert!(!overdue.fires(true, false, start + OVERDUE_MAX + MILLISECOND), "the next one waits as long");
    }

    #[test]
    fn a_deadline_that_what_was_read_has_made_void_leaves_nothing_for_the_next() {
        let (mut overdue, start) = (Overdue::default(), clock());
        assert!(!overdue.fires(true, false, start));
        assert!(!overdue.fires(false, false, start + OVERDUE_MAX / 2));
        assert!(!overdue.fires(true, false, start + OVERDUE_MAX));
    }

    #[test]
    fn no_deadline_is_so_late_that_the_loop_counts_as_stalled() {
        assert!(OVERDUE_MAX + limits::HEARTBEAT_INTERVAL < limits::STALL);
    }
}
