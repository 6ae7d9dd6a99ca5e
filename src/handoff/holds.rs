//! How many connections are held in the kernel's SYN-RECV, by front-end address, against what its listener can bear.

use crate::flow::Endpoint;
use crate::limits;
use std::collections::{BTreeMap, VecDeque};

/// Holds of all front-end addresses.
#[derive(Clone, Debug, Default)]
pub struct Holds {
    by_frontend: BTreeMap<Endpoint, Hold>,
}

#[derive(Clone, Debug)]
struct Hold {
    backlog: u32,
    count: usize,
    /// Slot and serial, oldest first; may name connections that are no longer held.
    oldest: VecDeque<(usize, u64)>,
}

impl Default for Hold {
    fn default() -> Self {
        Self { backlog: limits::BACKLOG_ASSUMED, count: 0, oldest: VecDeque::new() }
    }
}

impl Hold {
    fn count_max(&self) -> usize {
        (self.backlog as usize / limits::HOLD_BACKLOG_SHARE).max(1)
    }
}

impl Holds {
    /// What the kernel says about the listener.
    pub fn set_backlog(&mut self, frontend: Endpoint, backlog: u32) {
        self.by_frontend.entry(frontend).or_default().backlog = backlog;
    }

    /// One more is held.
    pub fn enter(&mut self, frontend: Endpoint, slot: usize, serial: u64) {
        let hold = self.by_frontend.entry(frontend).or_default();
        hold.count += 1;
        hold.oldest.push_back((slot, serial));
    }

    /// One fewer is held.
    pub fn leave(&mut self, frontend: Endpoint) {
        let hold = self.by_frontend.entry(frontend).or_default();
        hold.count = hold.count.saturating_sub(1);
        if hold.count == 0 {
            hold.oldest.clear();
        }
    }

    /// The connection to park because too many are held: the one held longest, most likely a silent client's.
    pub fn excess(&mut self, frontend: Endpoint, is_held: impl Fn(usize, u64) -> bool) -> Option<usize> {
        let hold = self.by_frontend.get_mut(&frontend)?;
        while hold.oldest.front().is_some_and(|(slot, serial)| !is_held(*slot, *serial)) {
            hold.oldest.pop_front();
        }
        if hold.count <= hold.count_max() {
            return None;
        }
        hold.oldest.pop_front().map(|(slot, _)| slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frontend() -> Endpoint {
        Endpoint::new([192, 0, 2, 1].into(), 80)
    }

    #[test]
    fn a_quarter_of_the_backlog_may_be_held_and_the_oldest_goes_first() {
        let mut holds = Holds::default();
        holds.set_backlog(frontend(), 8);
        for slot in 0..2 {
            holds.enter(frontend(), slot, 100 + slot as u64);
            assert_eq!(holds.excess(frontend(), |_, _| true), None);
        }
        holds.enter(frontend(), 2, 102);
        assert_eq!(holds.excess(frontend(), |_, _| true), Some(0));
    }

    #[test]
    fn connections_that_are_held_no_longer_are_passed_over() {
        let mut holds = Holds::default();
        holds.set_backlog(frontend(), 4);
        for slot in 0..3 {
            holds.enter(frontend(), slot, slot as u64);
        }
        holds.leave(frontend());
        assert_eq!(holds.excess(frontend(), |slot, _| slot != 0), Some(1), "slot 0 was released");
    }

    #[test]
    fn one_connection_may_always_be_held() {
        let mut holds = Holds::default();
        holds.set_backlog(frontend(), 1);
        holds.enter(frontend(), 0, 0);
        assert_eq!(holds.excess(frontend(), |_, _| true), None);
    }
}
