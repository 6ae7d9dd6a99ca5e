//! Which packet counters have been seen: a sliding bitmap (RFC 6479).

use crate::limits::REPLAY_WINDOW_PACKETS;

/// One block more than the window, so that the block being filled never holds bits of the window's far end.
const BLOCKS: usize = (REPLAY_WINDOW_PACKETS / 64) as usize + 1;

/// Remembers the last `REPLAY_WINDOW_PACKETS` counters of one key.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    blocks: [u64; BLOCKS],
    newest: Option<u64>,
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { blocks: [0; BLOCKS], newest: None }
    }
}

impl ReplayWindow {
    /// Whether a packet with this counter may still be new. Cheap enough to ask before authenticating it.
    pub fn is_fresh(&self, counter: u64) -> bool {
        match self.newest {
            Some(newest) if counter <= newest => {
                newest - counter < REPLAY_WINDOW_PACKETS && self.blocks[block(counter)] & bit(counter) == 0
            }
            _ => true,
        }
    }

    /// The packet with this counter is authentic. Call only when it is fresh.
    pub fn mark(&mut self, counter: u64) {
        debug_assert!(self.is_fresh(counter));
        let entered = match self.newest {
            Some(newest) if counter > newest => counter / 64 - newest / 64,
            // All blocks are empty, or nothing moves.
            _ => 0,
        };
        for step in 0..entered.min(BLOCKS as u64) {
            self.blocks[block(counter - step * 64)] = 0;
        }
        self.newest = self.newest.max(Some(counter));
        self.blocks[block(counter)] |= bit(counter);
    }
}

const fn block(counter: u64) -> usize {
    (counter / 64 % BLOCKS as u64) as usize
}

const fn bit(counter: u64) -> u64 {
    1 << (counter % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn takes(window: &mut ReplayWindow, counter: u64) -> bool {
        let fresh = window.is_fresh(counter);
        if fresh {
            window.mark(counter);
        }
        fresh
    }

    #[test]
    fn each_counter_is_taken_once() {
        let mut window = ReplayWindow::default();
        for counter in 0..10_000 {
            assert!(takes(&mut window, counter));
            assert!(!takes(&mut window, counter));
        }
    }

    #[test]
    fn the_oldest_counter_of_the_window_is_taken_and_the_one_before_is_not() {
        let mut window = ReplayWindow::default();
        let newest = 1_000_000;
        assert!(takes(&mut window, newest));
        assert!(takes(&mut window, newest - (REPLAY_WINDOW_PACKETS - 1)));
        assert!(!takes(&mut window, newest - REPLAY_WINDOW_PACKETS));
        assert!(!takes(&mut window, 0));
    }

    #[test]
    fn the_far_end_of_the_window_is_remembered_while_the_newest_block_fills() {
        for newest in 10_000..10_000 + 64 {
            let mut window = ReplayWindow::default();
            let oldest = newest - (REPLAY_WINDOW_PACKETS - 1);
            assert!(takes(&mut window, oldest));
            assert!(takes(&mut window, newest));
            assert!(!takes(&mut window, oldest), "{oldest} {newest}");
        }
    }

    #[test]
    fn a_whole_window_may_arrive_backwards() {
        let mut window = ReplayWindow::default();
        for counter in (5_000..5_000 + REPLAY_WINDOW_PACKETS).rev() {
            assert!(takes(&mut window, counter));
        }
        assert!((5_000..5_000 + REPLAY_WINDOW_PACKETS).all(|counter| !takes(&mut window, counter)));
    }

    #[test]
    fn the_ends_of_the_number_range_are_ordinary() {
        let mut window = ReplayWindow::default();
        assert!(takes(&mut window, 0));
        assert!(takes(&mut window, u64::MAX));
        assert!(!takes(&mut window, u64::MAX));
        assert!(takes(&mut window, u64::MAX - 1));
        assert!(!takes(&mut window, 0));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set_that_forgets_nothing(steps in proptest::collection::vec((any::<bool>(), 0u64..5_000), 1..400)) {
            let (mut window, mut seen, mut newest) = (ReplayWindow::default(), HashSet::new(), 0u64);
            for (forward, distance) in steps {
                let counter = if forward { newest + distance } else { newest.saturating_sub(distance) };
                let expected = !seen.contains(&counter) && newest.saturating_sub(counter) < REPLAY_WINDOW_PACKETS;
                prop_assert_eq!(takes(&mut window, counter), expected, "counter {} newest {}", counter, newest);
                seen.insert(counter);
                newest = newest.max(counter);
            }
        }
    }
}
