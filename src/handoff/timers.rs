//! Deadlines of connections, in order. An idle connection costs nothing, a deadline that moves back one comparison; those of
//! connections that are forgotten go with them, so that nothing wakes the loop for nobody.

use std::collections::BTreeSet;
use std::time::Instant;

/// Whose deadline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Owner {
    /// A connection that arrives at this node.
    Btcp,
    /// A connection this node's kernel serves.
    Utcp,
    /// The engine's own housekeeping.
    Engine,
    /// A probe; the serial is its handoff's.
    Probe,
}

/// A deadline: when, whose, and which connection (its slot, and the number that tells it from earlier ones there).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Deadline {
    /// When.
    pub at: Instant,
    /// Whose.
    pub owner: Owner,
    /// Index into the owner's table.
    pub slot: usize,
    /// The connection's serial.
    pub serial: u64,
}

/// All deadlines, also ones that have moved back: whoever pops one asks its connection whether it still means it.
#[derive(Clone, Debug, Default)]
pub struct Timers {
    queue: BTreeSet<Deadline>,
}

impl Timers {
    /// Adds a deadline.
    pub fn push(&mut self, deadline: Deadline) {
        self.queue.insert(deadline);
    }
    /// The earliest.
    pub fn next(&self) -> Option<Instant> {
        self.queue.first().map(|deadline| deadline.at)
    }
    /// Takes out one that has passed.
    pub fn pop(&mut self, now: Instant) -> Option<Deadline> {
        if self.next()? > now {
            return None;
        }
        self.queue.pop_first()
    }
}

/// A connection's own deadline, and the earliest one queued for it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Alarm {
    wanted: Option<Instant>,
    queued: Option<Instant>,
}

impl Alarm {
    /// Sets the deadline; queues it unless an earlier one is queued already, which will find this one.
    pub fn set(&mut self, at: Instant, owner: Owner, slot: usize, serial: u64, timers: &mut Timers) {
        self.wanted = Some(at);
        if self.queued.is_none_or(|queued| at < queued) {
            self.unqueue(owner, slot, serial, timers);
            self.queued = Some(at);
            timers.push(Deadline { at, owner, slot, serial });
        }
    }
    /// The connection is forgotten, or an earlier deadline takes the place of the queued one.
    pub fn unqueue(&mut self, owner: Owner, slot: usize, serial: u64, timers: &mut Timers) {
        if let Some(at) = self.queued.take() {
            timers.queue.remove(&Deadline { at, owner, slot, serial });
        }
    }
    /// No deadline.
    pub fn clear(&mut self) {
        self.wanted = None;
    }
    /// A queued deadline was popped: whether it is due. If the deadline moved it is queued again.
    pub fn fires(&mut self, popped: Deadline, now: Instant, timers: &mut Timers) -> bool {
        if self.queued == Some(popped.at) {
            self.queued = None;
        }
        match self.wanted {
            Some(at) if at <= now => {
                self.wanted = None;
                true
            }
            Some(at) => {
                self.set(at, popped.owner, popped.slot, popped.serial, timers);
                false
            }
            None => false,
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Only differences to the origin are used.
mod tests {
    use super::*;
    use std::time::Duration;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn a_deadline_that_moves_back_is_found_by_the_earlier_one() {
        let (mut timers, mut alarm, origin) = (Timers::default(), Alarm::default(), Instant::now());
        alarm.set(origin + MILLISECOND, Owner::Btcp, 3, 7, &mut timers);
        alarm.set(origin + 5 * MILLISECOND, Owner::Btcp, 3, 7, &mut timers);
        assert_eq!(timers.queue.len(), 1, "moving back queues nothing");
        let early = timers.pop(origin + MILLISECOND).expect("the first");
        assert!(!alarm.fires(early, origin + MILLISECOND, &mut timers));
        let due = timers.pop(origin + 5 * MILLISECOND).expect("queued again");
        assert!(alarm.fires(due, origin + 5 * MILLISECOND, &mut timers));
        assert_eq!((due.slot, due.serial), (3, 7));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_deadline_that_moves_forward_fires_early_and_only_once() {
        let (mut timers, mut alarm, origin) = (Timers::default(), Alarm::default(), Instant::now());
        alarm.set(origin + 9 * MILLISECOND, Owner::Utcp, 0, 1, &mut timers);
        alarm.set(origin + MILLISECOND, Owner::Utcp, 0, 1, &mut timers);
        let due = timers.pop(origin + MILLISECOND).expect("the earlier");
        assert!(alarm.fires(due, origin + MILLISECOND, &mut timers));
        assert_eq!(timers.next(), None, "the outdated one is gone");
    }

    #[test]
    fn nothing_is_left_of_a_connection_that_is_forgotten() {
        let (mut timers, mut alarm, origin) = (Timers::default(), Alarm::default(), Instant::now());
        alarm.set(origin + MILLISECOND, Owner::Utcp, 0, 1, &mut timers);
        alarm.set(origin + 9 * MILLISECOND, Owner::Utcp, 0, 1, &mut timers);
        alarm.clear();
        alarm.unqueue(Owner::Utcp, 0, 1, &mut timers);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_cleared_deadline_does_not_fire() {
        let (mut timers, mut alarm, origin) = (Timers::default(), Alarm::default(), Instant::now());
        alarm.set(origin, Owner::Btcp, 0, 1, &mut timers);
        alarm.clear();
        let popped = timers.pop(origin).expect("queued");
        assert!(!alarm.fires(popped, origin, &mut timers));
    }
}
