//! What speaks for a link and what against it: probes, and what the kernel counts of the packets that it forwards by itself.
//!
//! One bad sign is no reason to leave a link, and one good sign none to come back: under load probes get lost and are late, and
//! whoever goes back and forth has every connection taught anew each time.

use crate::limits;
use std::time::Duration;

/// The signs of one link.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Of the last probe; 0: none yet.
    number: u32,
    /// Probes in a row, the last one included.
    unanswered: u8,
    /// In a row.
    answered: u8,
    answers_wanted: u8,
    /// Packets that the kernel was about to forward, and those of them that passed its rules: as last counted.
    counts: (u64, u64),
    /// Times in a row that there was something to forward, and nothing passed.
    held_up: u8,
    /// How long a link is left alone whose packets were held up.
    patience: Duration,
}

impl Default for Trust {
    fn default() -> Self {
        Self {
            number: 0,
            unanswered: 0,
            answered: 0,
            answers_wanted: 1,
            counts: (0, 0),
            held_up: 0,
            patience: limits::LINK_FIREWALL_INTERVAL,
        }
    }
}

impl Trust {
    /// A probe is sent; its number.
    pub fn probe(&mut self) -> u32 {
        if self.unanswered > limits::LINK_PROBES_LOST_MAX {
            self.answered = 0;
        }
        self.unanswered = self.unanswered.saturating_add(1);
        self.number = self.number.wrapping_add(1).max(1);
        self.number
    }

    /// So many probes stayed unanswered that nothing arrives there any more.
    pub fn is_lost(&self) -> bool {
        self.unanswered > limits::LINK_PROBES_LOST_MAX + 1
    }

    /// Probes that stayed unanswered.
    pub fn unanswered(&self) -> u8 {
        self.unanswered
    }

    /// A probe came back; whether that is believed, which it is not when it is too old.
    pub fn hear(&mut self, number: u32) -> bool {
        let age = self.number.wrapping_sub(number);
        if self.number == 0 || age > u32::from(limits::LINK_PROBES_LOST_MAX) {
            return false;
        }
        self.unanswered = self.unanswered.min(u8::try_from(age).unwrap_or(u8::MAX));
        self.answered = self.answered.saturating_add(1);
        true
    }

    /// Whether enough speaks for it to use it.
    pub fn suffices(&self) -> bool {
        self.answered >= self.answers_wanted
    }

    /// It was used, and is not any more: to be used again takes more than one good sign.
    pub fn lose(&mut self) {
        self.answered = 0;
        self.answers_wanted = limits::LINK_ANSWERS_TO_RETURN;
    }

    /// What the kernel has counted, and how many have passed since the last time.
    pub fn count(&mut self, taken: u64, passed: u64) -> u64 {
        // Counters begin anew when the rules were put back.
        let since = |before: u64, now: u64| if now < before { now } else { now - before };
        let (taken_since, passed_since) = (since(self.counts.0, taken), since(self.counts.1, passed));
        self.counts = (taken, passed);
        if passed_since > 0 {
            self.held_up = 0;
            self.patience = limits::LINK_FIREWALL_INTERVAL;
        } else if taken_since > 0 {
            self.held_up = self.held_up.saturating_add(1);
        }
        passed_since
    }

    /// Something on this host drops all that is forwarded.
    pub fn is_held_up(&self) -> bool {
        self.held_up >= limits::LINK_HELD_UP_MAX
    }

    /// It is left alone for a while, longer each time.
    pub fn leave_alone(&mut self) -> Duration {
        self.held_up = 0;
        let patience = self.patience;
        self.patience = (patience * 2).min(limits::LINK_FIREWALL_INTERVAL_MAX);
        patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(trust: &mut Trust) {
        let number = trust.probe();
        assert!(trust.hear(number));
    }

    #[test]
    fn a_link_is_used_after_one_answer_and_lost_after_several_without() {
        let mut trust = Trust::default();
        assert!(!trust.suffices() && !trust.hear(0) && !trust.hear(1));
        answered(&mut trust);
        assert!(trust.suffices());
        for lost in 1..=limits::LINK_PROBES_LOST_MAX + 1 {
            trust.probe();
            assert!(!trust.is_lost(), "{lost} are no reason");
        }
        trust.probe();
        assert!(trust.is_lost());
    }

    #[test]
    fn one_answer_in_four_keeps_a_link() {
        let mut trust = Trust::default();
        for _ in 0..100 {
            for _ in 0..limits::LINK_PROBES_LOST_MAX {
                trust.probe();
                assert!(!trust.is_lost());
            }
            answered(&mut trust);
        }
    }

    #[test]
    fn a_late_answer_counts_for_its_probe_and_a_very_late_one_for_none() {
        let mut trust = Trust::default();
        let numbers: Vec<u32> = (0..4).map(|_| trust.probe()).collect();
        assert!(trust.is_lost());
        assert!(!trust.hear(numbers[0]) && trust.is_lost());
        assert!(trust.hear(numbers[1]) && !trust.is_lost());
        assert_eq!(trust.unanswered(), 2);
        assert!(!trust.hear(numbers[3] + 1), "of a probe that was never sent");
    }

    #[test]
    fn a_link_that_was_lost_must_answer_more_than_once() {
        let mut trust = Trust::default();
        answered(&mut trust);
        trust.lose();
        for before in 0..limits::LINK_ANSWERS_TO_RETURN {
            assert!(!trust.suffices(), "{before}");
            answered(&mut trust);
        }
        assert!(trust.suffices());
        // In a row.
        trust.lose();
        answered(&mut trust);
        (0..=limits::LINK_PROBES_LOST_MAX + 1).for_each(|_| _ = trust.probe());
        for _ in 1..limits::LINK_ANSWERS_TO_RETURN {
            answered(&mut trust);
            assert!(!trust.suffices());
        }
        answered(&mut trust);
        assert!(trust.suffices());
    }

    #[test]
    fn a_link_is_held_up_when_nothing_passes_several_times_in_a_row() {
        let mut trust = Trust::default();
        assert_eq!(trust.count(10, 10), 10);
        for taken in 1..u64::from(limits::LINK_HELD_UP_MAX) {
            trust.count(10 + taken, 10);
            assert!(!trust.is_held_up());
        }
        // Nothing to forward says nothing.
        trust.count(9 + u64::from(limits::LINK_HELD_UP_MAX), 10);
        assert!(!trust.is_held_up());
        let mut freed = trust.clone();
        freed.count(100, 11);
        trust.count(100, 10);
        assert!(trust.is_held_up() && !freed.is_held_up());
        // And counters that begin anew are no sign.
        assert_eq!(freed.count(3, 3), 3);
        assert!(!freed.is_held_up());
    }

    #[test]
    fn it_is_left_alone_longer_each_time_until_something_passes() {
        let mut trust = Trust::default();
        assert_eq!(trust.leave_alone(), limits::LINK_FIREWALL_INTERVAL);
        assert_eq!(trust.leave_alone(), limits::LINK_FIREWALL_INTERVAL * 2);
        (0..20).for_each(|_| _ = trust.leave_alone());
        assert_eq!(trust.leave_alone(), limits::LINK_FIREWALL_INTERVAL_MAX);
        trust.count(1, 1);
        assert_eq!(trust.leave_alone(), limits::LINK_FIREWALL_INTERVAL);
    }
}
