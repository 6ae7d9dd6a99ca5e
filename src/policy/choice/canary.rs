//! A rule for some of the connections that it matches, always the same ones.

use super::key::Key;
use super::rendezvous;
use crate::policy::explain::Unmet;
use crate::policy::subject::Subject;
use crate::policy::truth::{Truth, Unknown};
use std::fmt;

/// Which share of the keys a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Canary {
    /// Hundredths of a percent.
    pub(in crate::policy) hundredths: u32,
    pub(in crate::policy) of: Key,
    /// Hash of the rule's name, so that the canaries of two rules are not the same clients.
    pub(in crate::policy) salt: u64,
}

/// Hundredths of a percent in the whole.
pub(in crate::policy) const WHOLE: u32 = 10_000;

impl Canary {
    /// Where the connection stands between 0 and [`WHOLE`], in 2^64ths: those below the share are in, so that a larger
    /// share has all that a smaller one has. None if the key is not there.
    fn place(&self, subject: &Subject<'_>) -> Result<Option<u64>, Unknown> {
        Ok(self.of.hash(subject)?.map(|hash| rendezvous::mix(hash ^ self.salt)))
    }

    /// Whether the connection is one of them.
    pub(in crate::policy) fn holds(&self, subject: &Subject<'_>) -> Truth {
        match self.place(subject) {
            Ok(place) => place.is_some_and(|place| self.has(place)).into(),
            Err(why) => Truth::Unknown(why),
        }
    }

    fn has(&self, place: u64) -> bool {
        u128::from(place) * u128::from(WHOLE) < u128::from(self.hundredths) << 64
    }

    /// Why the connection is none of them, with what the client sent there and where that puts it: `abc at 37.21 %`.
    pub(in crate::policy) fn unmet(&self, subject: &Subject<'_>) -> Option<Unmet> {
        let condition = "canary".to_owned();
        let value = self.of.seen(Some(subject), subject.origin);
        let (Some(value), Ok(Some(place))) = (value, self.place(subject)) else {
            return Some(Unmet { condition, seen: None, reason: format!("there is no {} to draw by", self.of) });
        };
        if self.has(place) {
            return None;
        }
        let hundredths = (u128::from(place) * u128::from(WHOLE)) >> 64;
        let seen = format!("{value} at {}.{:02} %", hundredths / 100, hundredths % 100);
        Some(Unmet { condition, reason: format!("{seen} is not in the first {self}"), seen: Some(seen) })
    }
}

impl fmt::Display for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.hundredths / 100, self.hundredths % 100);
        match rest {
            0 => write!(f, "{whole}"),
            _ if rest % 10 == 0 => write!(f, "{whole}.{}", rest / 10),
            _ => write!(f, "{whole}.{rest:02}"),
        }?;
        write!(f, " % of {}", self.of)
    }
}
