//! Whether a condition holds, when not all that it asks about may be known.
//!
//! The logic is Kleene's: what is not known makes a whole unknown unless the rest settles it. So a rule never matches on
//! something nobody has seen, under `not` as little as elsewhere.

use super::ambiguity::Ambiguity;
use std::ops::Not;

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    Yes,
    No,
    Unknown(Unknown),
}

/// Why it is not known; the one that outweighs the others last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unknown {
    /// And never will be, whatever comes: the rule cannot match.
    Forever,
    /// More bytes of the client will tell.
    SoFar,
    /// What the client sent can be read in two ways: no rule may be asked.
    Ambiguous(Ambiguity),
}

impl Truth {
    /// Whether all of them hold. Stops at the first that does not.
    pub(super) fn all(truths: impl Iterator<Item = Self>) -> Self {
        let mut whole = Self::Yes;
        for truth in truths {
            match (truth, whole) {
                (Self::No, _) => return Self::No,
                (Self::Unknown(one), Self::Unknown(other)) => whole = Self::Unknown(one.max(other)),
                (Self::Unknown(_), _) => whole = truth,
                (Self::Yes, _) => {}
            }
        }
        whole
    }

    /// Whether any of them holds. Stops at the first that does.
    pub(super) fn any(truths: impl Iterator<Item = Self>) -> Self {
        !Self::all(truths.map(Not::not))
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl Not for Truth {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Unknown(_) => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREVER: Truth = Truth::Unknown(Unknown::Forever);
    const SO_FAR: Truth = Truth::Unknown(Unknown::SoFar);

    fn all(truths: &[Truth]) -> Truth {
        Truth::all(truths.iter().copied())
    }

    fn any(truths: &[Truth]) -> Truth {
        Truth::any(truths.iter().copied())
    }

    #[test]
    fn what_is_known_settles_what_is_not() {
        assert_eq!(all(&[FOREVER, Truth::Yes, Truth::No]), Truth::No);
        assert_eq!(any(&[FOREVER, Truth::No, Truth::Yes]), Truth::Yes);
        assert_eq!(all(&[Truth::Yes, FOREVER]), FOREVER);
        assert_eq!(any(&[Truth::No, FOREVER]), FOREVER);
        assert_eq!(!FOREVER, FOREVER);
    }

    #[test]
    fn what_may_become_known_is_waited_for() {
        assert_eq!(all(&[SO_FAR, FOREVER]), SO_FAR);
        assert_eq!(any(&[FOREVER, SO_FAR, Truth::No]), SO_FAR);
        let ambiguous = Truth::Unknown(Unknown::Ambiguous(Ambiguity::Nul));
        assert_eq!(all(&[ambiguous, SO_FAR, FOREVER]), ambiguous);
    }

    #[test]
    fn nothing_holds_of_none_and_everything_of_all() {
        assert_eq!((all(&[]), any(&[])), (Truth::Yes, Truth::No));
    }
}
