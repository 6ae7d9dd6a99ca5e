//! A rule for some of the connections that it matches, always the same ones.

use super::key::Key;
use super::rendezvous;
use crate::policy::inspect::Content;
use std::fmt;
use std::net::IpAddr;

/// Which share of the keys a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
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
    fn place(&self, content: &Content<'_>, client: Option<IpAddr>) -> Option<u64> {
        self.of.hash(Some(content), client).map(|hash| rendezvous::mix(hash ^ self.salt))
    }

    /// Whether the connection is one of them.
    pub(in crate::policy) fn holds(&self, content: &Content<'_>, client: Option<IpAddr>) -> bool {
        self.place(content, client).is_some_and(|place| self.has(place))
    }

    fn has(&self, place: u64) -> bool {
        u128::from(place) * u128::from(WHOLE) < u128::from(self.hundredths) << 64
    }

    /// What the client sent there, and where that puts it: `"abc" at 37.21 %`.
    pub(in crate::policy) fn seen(&self, content: &Content<'_>, client: Option<IpAddr>) -> Option<String> {
        let value = self.of.seen(Some(content), client).value?;
        let place = self.place(content, client)?;
        let hundredths = (u128::from(place) * u128::from(WHOLE)) >> 64;
        Some(format!("{value} at {}.{:02} %", hundredths / 100, hundredths % 100))
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
