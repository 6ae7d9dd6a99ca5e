//! How many outcomes in a row make a verdict.

use super::Health;

/// The verdict about one application.
///
/// ```text
///             first outcome            `fall` failures in a row
///  Unknown -------------------> Up <-----------------------------> Down
///                                     `rise` successes in a row
/// ```
///
/// The first outcome decides alone: nothing is known before it, and a node that has just started should neither be left out
/// for long nor be sent to blindly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judge {
    rise: u32,
    fall: u32,
    verdict: Health,
    /// Outcomes in a row against the verdict.
    against: u32,
}

impl Judge {
    /// Nothing is known.
    pub const fn new(rise: u32, fall: u32) -> Self {
        Self { rise, fall, verdict: Health::Unknown, against: 0 }
    }

    /// An outcome; whether the verdict has changed by it.
    pub fn hear(&mut self, is_good: bool) -> bool {
        let said = if is_good { Health::Up } else { Health::Down };
        if said == self.verdict {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let needed = match self.verdict {
            Health::Unknown => 1,
            Health::Up => self.fall,
            Health::Down => self.rise,
        };
        if self.against < needed {
            return false;
        }
        self.verdict = said;
        self.against = 0;
        true
    }

    /// Other numbers in a row are needed from now on; the verdict stays.
    pub const fn adjust(&mut self, rise: u32, fall: u32) {
        self.rise = rise;
        self.fall = fall;
    }

    /// The verdict.
    pub const fn verdict(&self) -> Health {
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn verdicts(judge: &mut Judge, outcomes: &str) -> String {
        let letter = |health| match health {
            Health::Up => 'U',
            Health::Down => 'D',
            Health::Unknown => '?',
        };
        let outcome = |outcome: char| {
            judge.hear(outcome == '+');
            letter(judge.verdict())
        };
        outcomes.chars().map(outcome).collect()
    }

    #[test]
    fn the_first_outcome_decides() {
        assert_eq!(Judge::new(2, 3).verdict(), Health::Unknown);
        assert_eq!(verdicts(&mut Judge::new(2, 3), "+"), "U");
        assert_eq!(verdicts(&mut Judge::new(2, 3), "-"), "D");
    }

    #[test]
    fn only_outcomes_in_a_row_change_a_verdict() {
        assert_eq!(verdicts(&mut Judge::new(2, 3), "+--+--+---+-++"), "UUUUUUUUUDDDDU");
        assert_eq!(verdicts(&mut Judge::new(1, 1), "+-+-"), "UDUD");
    }

    #[test]
    fn a_change_is_told_once() {
        let mut judge = Judge::new(1, 2);
        let told: Vec<bool> = [true, true, false, false, false, true].map(|outcome| judge.hear(outcome)).into();
        assert_eq!(told, [true, false, false, true, false, true]);
    }

    proptest! {
        /// Against the definition: the verdict is that of the last run of equal outcomes that was long enough.
        #[test]
        fn the_verdict_is_that_of_the_last_run_that_was_long_enough(
            rise in 1u32..5, fall in 1u32..5, outcomes in proptest::collection::vec(any::<bool>(), 1..60),
        ) {
            let mut judge = Judge::new(rise, fall);
            let (mut expected, mut run) = (None, 0);
            for (index, outcome) in outcomes.iter().enumerate() {
                run = if index > 0 && outcomes[index - 1] == *outcome { run + 1 } else { 1 };
                if expected.is_none() || run >= if *outcome { rise } else { fall } {
                    expected = Some(*outcome);
                }
                judge.hear(*outcome);
                prop_assert_eq!(judge.verdict(), if expected == Some(true) { Health::Up } else { Health::Down });
            }
        }
    }
}
