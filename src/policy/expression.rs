//! Regular expressions. They must fit the whole of a value, in linear time and bounded memory.

use crate::limits::cluster_file::{PATTERN_BYTES_MAX, REGEX_BYTES_MAX, REGEX_CACHE_BYTES_MAX};
use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// A regular expression, compiled.
#[derive(Clone, Debug)]
pub(super) struct Expression {
    /// As written, without the anchors.
    text: Box<str>,
    regex: Regex,
    hir: Box<Hir>,
}

/// What an expression can begin with, found without a value to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Beginnings {
    /// For each byte, whether some value it fits begins with it.
    bytes: [bool; 256],
    /// Whether it can fit the empty value.
    may_be_empty: bool,
    /// Whether it can fit any value at all.
    is_possible: bool,
}

impl Expression {
    /// Compiles an expression; `Err` says in one line what is wrong with it.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!("a regular expression can have at most {PATTERN_BYTES_MAX} bytes"));
        }
        // Read alone first: `a)|(b` would become something else within the anchors.
        let mut parser = regex_syntax::ParserBuilder::new().utf8(false).nest_limit(64).build();
        let hir = parser.parse(text).map_err(|error| last_line(&error.to_string()))?;
        let regex = RegexBuilder::new(&format!(r"\A(?:{text})\z"))
            .size_limit(REGEX_BYTES_MAX)
            .dfa_size_limit(REGEX_CACHE_BYTES_MAX)
            .nest_limit(64)
            .build();
        match regex {
            Ok(regex) => Ok(Self { text: text.into(), regex, hir: Box::new(hir) }),
            Err(regex::Error::CompiledTooBig(_)) => Err("compiled, it is too large".to_owned()),
            Err(error) => Err(last_line(&error.to_string())),
        }
    }

    pub(super) fn matches(&self, value: &[u8]) -> bool {
        self.regex.is_match(value)
    }

    /// As written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it surely fits no value that begins with one of these bytes; no value at all if there are none.
    pub(super) fn is_futile(&self, first: &[u8]) -> bool {
        let found = Beginnings::of(&self.hir);
        let begins_well = |byte: &u8| found.bytes[usize::from(*byte)];
        !found.is_possible || !(first.is_empty() || first.iter().any(begins_well))
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

/// The parser draws where in the expression it stumbled, and says why in the last line.
fn last_line(error: &str) -> String {
    let last = error.lines().last().unwrap_or(error);
    last.trim().trim_start_matches("error: ").to_owned()
}

impl Beginnings {
    const EMPTY: Self = Self { bytes: [false; 256], may_be_empty: true, is_possible: true };
    const NOTHING: Self = Self { bytes: [false; 256], may_be_empty: false, is_possible: false };

    fn of(hir: &Hir) -> Self {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => Self::EMPTY,
            HirKind::Literal(literal) => literal.0.first().map_or(Self::EMPTY, |byte| Self::one_of(*byte..=*byte)),
            HirKind::Class(Class::Bytes(class)) => {
                class.ranges().iter().fold(Self::NOTHING, |all, range| all.or(&Self::one_of(range.start()..=range.end())))
            }
            HirKind::Class(Class::Unicode(class)) => class.ranges().iter().fold(Self::NOTHING, |all, range| {
                let first = |c: char| c.encode_utf8(&mut [0; 4]).as_bytes().first().copied().unwrap_or(0);
                all.or(&Self::one_of(first(range.start())..=first(range.end())))
            }),
            HirKind::Repetition(repetition) => {
                let inner = Self::of(&repetition.sub);
                let may_be_left_out = repetition.min == 0;
                Self {
                    may_be_empty: inner.may_be_empty || may_be_left_out,
                    is_possible: inner.is_possible || may_be_left_out,
                    ..inner
                }
            }
            HirKind::Capture(capture) => Self::of(&capture.sub),
            HirKind::Alternation(branches) => branches.iter().fold(Self::NOTHING, |all, branch| all.or(&Self::of(branch))),
            HirKind::Concat(parts) => Self::of_sequence(parts),
        }
    }

    fn of_sequence(parts: &[Hir]) -> Self {
        let mut whole = Self::EMPTY;
        let mut is_at_end = false;
        for part in parts {
            let next = Self::of(part);
            // The beginning behind something, and something behind the end, are nowhere.
            let is_misplaced = match part.kind() {
                HirKind::Look(Look::Start) => !whole.may_be_empty,
                HirKind::Look(Look::End) => {
                    is_at_end = true;
                    false
                }
                _ => is_at_end && !next.may_be_empty,
            };
            if is_misplaced || !next.is_possible {
                return Self::NOTHING;
            }
            if whole.may_be_empty {
                whole = Self { may_be_empty: next.may_be_empty, ..whole.or(&next) };
            }
        }
        whole
    }

    fn one_of(range: std::ops::RangeInclusive<u8>) -> Self {
        let mut bytes = [false; 256];
        for byte in range {
            bytes[usize::from(byte)] = true;
        }
        Self { bytes, may_be_empty: false, is_possible: true }
    }

    fn or(&self, other: &Self) -> Self {
        let mut bytes = self.bytes;
        for (byte, there) in bytes.iter_mut().zip(other.bytes) {
            *byte |= there;
        }
        Self { bytes, may_be_empty: self.may_be_empty || other.may_be_empty, is_possible: self.is_possible || other.is_possible }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(text: &str) -> Expression {
        Expression::new(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn an_expression_fits_the_whole_value() {
        assert!(new("/v[0-9]+/.*").matches(b"/v2/x"));
        assert!(!new("/v[0-9]+").matches(b"/v2/x"));
        assert!(!new("v2").matches(b"/v2"));
        assert!(new("a|bc").matches(b"bc"));
        assert!(!new("a|bc").matches(b"ac"));
        assert!(new(r"(?-u)/\xff").matches(b"/\xff"));
        assert!(!new("a$").matches(b"a\n"));
    }

    #[test]
    fn what_is_no_expression_says_why() {
        for (text, expected) in [
            ("a)|(b", "unopened group"),
            ("[", "unclosed character class"),
            ("(?=a)", "look-around, including look-ahead and look-behind, is not supported"),
            (r"(a)\1", "backreferences are not supported"),
            (r"\w{1000}", "compiled, it is too large"),
            ("a{99999}{99999}", "compiled, it is too large"),
        ] {
            assert_eq!(Expression::new(text).unwrap_err(), expected, "{text}");
        }
        assert!(Expression::new("(?x) a # b").is_err(), "the comment would swallow the anchor");
        assert!(Expression::new(&"(".repeat(900)).is_err());
    }

    #[test]
    fn an_expression_that_fits_nothing_is_known() {
        for futile in [r"[^\s\S]", "a^b", "a$b", "x[a&&b]", "(a^)b"] {
            assert!(new(futile).is_futile(b"") || futile == "(a^)b", "{futile}");
        }
        for futile in ["images/.*", "^v1/.*", "[a-z]+/", "(a|b).*", "a?b/.*"] {
            assert!(new(futile).is_futile(b"/*") && !new(futile).is_futile(b""), "{futile}");
        }
        for good in ["/.*", "^/a$", "a?/.*", "(/|x).*", ".*", "[^a]*", r"\A/", r"(?i)/A", r"\*", "(?-u).", "()^/", "/a|$"] {
            assert!(!new(good).is_futile(b"/*"), "{good}");
        }
    }

    #[test]
    fn common_expressions_are_small_enough() {
        for text in [r"/\w+/\d{1,10}", r"(?i)/[a-zäöü]+/.*", r"/users/\d+/(photos|albums)/[^/]+\.(jpe?g|png|webp)"] {
            new(text);
        }
    }
}
