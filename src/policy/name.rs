//! What a matcher can want of something a client may leave out, and patterns for names of servers.

use std::fmt;

/// One value of a matcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted<T> {
    /// Written `true`: whatever it is.
    Present,
    /// Written `false`.
    Absent,
    /// This value.
    Value(T),
}

/// A pattern for names of servers, in normal form (small letters, no dot at the end).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NamePattern {
    /// The whole name.
    Exact(String),
    /// Written `*.example.com`: any name with one label or more before these. Kept with the dot it begins with.
    Below(String),
}

impl<T> Wanted<T> {
    /// Whether these values together want nothing: any, or none, will do.
    pub(super) fn everything(values: &[Self]) -> bool {
        let has = |which: fn(&Self) -> bool| values.iter().any(which);
        has(|value| matches!(value, Self::Present)) && has(|value| matches!(value, Self::Absent))
    }

    /// Whether whatever fits the other one fits this.
    pub(super) fn covers(&self, other: &Self, covers: impl Fn(&T, &T) -> bool) -> bool {
        match (self, other) {
            (Self::Present, Self::Present | Self::Value(_)) | (Self::Absent, Self::Absent) => true,
            (Self::Value(this), Self::Value(other)) => covers(this, other),
            _ => false,
        }
    }
}

impl<T: fmt::Display> Wanted<T> {
    /// For the hash: no value is spelt like another's presence or absence.
    pub(super) fn spelling(values: &[Self]) -> String {
        let spelt = |value: &Self| match value {
            Self::Present => "present".to_owned(),
            Self::Absent => "absent".to_owned(),
            Self::Value(value) => format!("is {value}"),
        };
        format!("{:?}", values.iter().map(spelt).collect::<Vec<_>>())
    }
}

impl NamePattern {
    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Below(suffix) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
        }
    }

    /// Whether whatever fits the other one fits this.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match other {
            Self::Exact(name) => self.matches(name),
            Self::Below(suffix) => matches!(self, Self::Below(this) if suffix.ends_with(this.as_str())),
        }
    }
}

/// As it is written in the file.
impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// As an operator reads it.
impl<T: fmt::Display> fmt::Display for Wanted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => f.write_str("present"),
            Self::Absent => f.write_str("absent"),
            Self::Value(value) => value.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label_or_more() {
        let below = NamePattern::Below(".example.com".into());
        assert!(below.matches("a.example.com"));
        assert!(below.matches("a.b.example.com"));
        assert!(!below.matches("example.com"));
        assert!(!below.matches(".example.com"));
        assert!(!below.matches("badexample.com"));
        assert!(!below.matches("a.example.com.evil.net"));
        assert_eq!(below.to_string(), "*.example.com");
    }

    #[test]
    fn a_name_without_wildcard_is_the_whole_name() {
        let exact = NamePattern::Exact("example.com".into());
        assert!(exact.matches("example.com"));
        assert!(!exact.matches("a.example.com"));
        assert!(!exact.matches("example.co"));
    }

    #[test]
    fn presence_and_absence_together_want_nothing() {
        let both: [Wanted<String>; 2] = [Wanted::Absent, Wanted::Present];
        assert!(Wanted::everything(&both));
        assert!(!Wanted::everything(&both[..1]));
        assert!(!Wanted::everything(&[Wanted::Value("a".to_owned()), Wanted::Absent]));
    }
}
