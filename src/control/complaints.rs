//! Says the same thing once. A refused peer dials again and again, and a stranger may try to fill the log.

use crate::limits::{COMPLAINT_INTERVAL, COMPLAINTS_MAX};
use std::time::Instant;

/// What has been said lately.
#[derive(Debug, Default)]
pub struct Complaints {
    said: Vec<(String, Instant)>,
}

impl Complaints {
    /// How loud to say `text` now: a warning, or DEBUG when it was one less than `COMPLAINT_INTERVAL` ago.
    pub fn level(&mut self, text: &str, now: Instant) -> log::Level {
        self.said.retain(|(_, at)| now.saturating_duration_since(*at) < COMPLAINT_INTERVAL);
        if self.said.len() >= COMPLAINTS_MAX || self.said.iter().any(|(said, _)| said == text) {
            return log::Level::Debug;
        }
        self.said.push((text.to_owned(), now));
        log::Level::Warn
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_a_warning_once_an_interval() {
        let (mut complaints, now) = (Complaints::default(), Instant::now());
        assert_eq!(complaints.level("x", now), log::Level::Warn);
        assert_eq!(complaints.level("x", now), log::Level::Debug);
        assert_eq!(complaints.level("y", now), log::Level::Warn);
        assert_eq!(complaints.level("x", now + COMPLAINT_INTERVAL), log::Level::Warn);
    }

    #[test]
    fn a_stranger_with_many_keys_cannot_fill_the_log() {
        let (mut complaints, now) = (Complaints::default(), Instant::now());
        let warnings = (0..10_000).filter(|n| complaints.level(&n.to_string(), now) == log::Level::Warn).count();
        assert_eq!(warnings, COMPLAINTS_MAX);
    }
}
