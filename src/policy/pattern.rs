//! Patterns for values: a text, its beginning, a glob, or a regular expression. In a glob `*` stands for any bytes (none
//! and `/` included), `?` for one character, everything else for itself.

use super::expression::Expression;
use std::fmt;

/// A pattern, by how fast it can be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// No wildcard.
    Exact(Box<[u8]>),
    /// One `*`, at the end.
    Prefix(Box<[u8]>),
    /// A glob with other wildcards.
    Glob(Box<[u8]>),
    /// A regular expression, which must fit the whole.
    Regex(Expression),
}

impl Pattern {
    /// Reads a glob; every text is one.
    pub(super) fn new(text: &str) -> Self {
        let is_plain = |text: &str| !text.contains(['*', '?']);
        match text.strip_suffix('*') {
            _ if is_plain(text) => Self::Exact(text.as_bytes().into()),
            Some(prefix) if is_plain(prefix) => Self::Prefix(prefix.as_bytes().into()),
            _ => Self::Glob(text.as_bytes().into()),
        }
    }

    /// Whether the whole of `subject` is what the pattern describes.
    pub(super) fn matches(&self, subject: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => **exact == *subject,
            Self::Prefix(prefix) => subject.starts_with(prefix),
            Self::Glob(glob) => glob_matches(glob, subject),
            Self::Regex(expression) => expression.matches(subject),
        }
    }

    /// Whether whatever fits the other one surely fits this.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            _ if self.matches_all() => true,
            (_, Self::Exact(exact)) => self.matches(exact),
            (Self::Prefix(this), Self::Prefix(other)) => other.starts_with(this),
            (Self::Prefix(this), Self::Glob(_)) => other.beginning().starts_with(this),
            _ => self == other,
        }
    }

    /// Whether every path whatever matches.
    pub(super) fn matches_all(&self) -> bool {
        matches!(self, Self::Prefix(prefix) if prefix.is_empty())
    }

    /// The glob this is; none if it can only be written in another form.
    pub(super) fn glob(&self) -> Option<String> {
        let text = match self {
            Self::Exact(text) | Self::Glob(text) => String::from_utf8_lossy(text).into_owned(),
            Self::Prefix(prefix) => format!("{}*", String::from_utf8_lossy(prefix)),
            Self::Regex(_) => return None,
        };
        (Self::new(&text) == *self).then_some(text)
    }

    /// The pattern with its form, for the hash.
    pub(super) fn spelling(&self) -> String {
        let (form, text) = match self {
            Self::Exact(text) => ("exact", String::from_utf8_lossy(text)),
            Self::Prefix(text) => ("prefix", String::from_utf8_lossy(text)),
            Self::Glob(text) => ("glob", String::from_utf8_lossy(text)),
            Self::Regex(expression) => ("regex", expression.text().into()),
        };
        format!("{form} {text:?}")
    }

    /// What everything that fits begins with.
    pub(super) fn beginning(&self) -> &[u8] {
        match self {
            Self::Exact(text) | Self::Prefix(text) => text,
            Self::Glob(glob) => {
                let literal = glob.iter().position(|byte| matches!(byte, b'*' | b'?')).unwrap_or(glob.len());
                glob.get(..literal).unwrap_or_default()
            }
            Self::Regex(_) => &[],
        }
    }
}

/// As an operator reads it.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.glob()) {
            (Self::Exact(text), _) => f.write_str(&String::from_utf8_lossy(text)),
            (_, Some(glob)) => f.write_str(&glob),
            (_, None) => f.write_str(&self.spelling()),
        }
    }
}

/// Tries the last `*` only: when the part behind it does not fit, the star takes one byte more. An earlier star never
/// needs to be tried again, so the work is at most the product of both lengths, and nothing recurses.
fn glob_matches(glob: &[u8], subject: &[u8]) -> bool {
    let (mut g, mut s) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while s < subject.len() {
        match glob.get(g) {
            Some(b'*') => {
                last_star = Some((g, s));
                g += 1;
            }
            Some(b'?') => {
                g += 1;
                s = next_character(subject, s);
            }
            Some(literal) if *literal == subject[s] => {
                g += 1;
                s += 1;
            }
            _ => {
                let Some((star, taken)) = last_star else {
                    return false;
                };
                last_star = Some((star, taken + 1));
                g = star + 1;
                s = taken + 1;
            }
        }
    }
    glob[g..].iter().all(|byte| *byte == b'*')
}

/// The index behind the character that begins at `s`; a byte that is no UTF-8 counts as one.
fn next_character(subject: &[u8], s: usize) -> usize {
    let width = match subject[s] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    let is_continuation = |byte: &u8| (0x80..0xc0).contains(byte);
    match subject.get(s + 1..s + width) {
        Some(rest) if rest.iter().all(is_continuation) => s + width,
        _ => s + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, subject: &str) -> bool {
        Pattern::new(pattern).matches(subject.as_bytes())
    }

    #[test]
    fn a_pattern_without_wildcard_is_exact() {
        assert!(matches("/a", "/a"));
        assert!(!matches("/a", "/a/"));
        assert!(!matches("/a", "/A"));
    }

    #[test]
    fn a_star_at_the_end_is_a_prefix() {
        assert!(matches("/images/*", "/images/"));
        assert!(matches("/images/*", "/images/a/b.png"));
        assert!(!matches("/images/*", "/images"));
        assert!(matches("/cart*", "/carts/1"));
        assert!(matches("*", "anything"));
    }

    #[test]
    fn stars_and_question_marks_stand_anywhere() {
        assert!(matches("/u/*/photo", "/u/7/photo"));
        assert!(matches("/u/*/photo", "/u/7/8/photo"));
        assert!(!matches("/u/*/photo", "/u/7/photos"));
        assert!(matches("/v?/x", "/v1/x"));
        assert!(!matches("/v?/x", "/v/x"));
        assert!(matches("*.jpg", "/a.jpg.jpg"));
        assert!(matches("/a**b", "/ab"));
    }

    #[test]
    fn a_question_mark_is_one_character_not_one_byte() {
        assert!(matches("/?", "/ö"));
        assert!(matches("/?", "/€"));
        assert!(!matches("/?", "/öö"));
        assert!(Pattern::new("/?").matches(b"/\xff"));
    }

    #[test]
    fn many_stars_do_not_take_exponential_time() {
        let pattern = Pattern::new(&"*a".repeat(400));
        assert!(!pattern.matches(&[b'b'; 16_384]));
        assert!(!pattern.matches(&"a".repeat(399).into_bytes()));
    }

    proptest! {
        #[test]
        fn the_fast_kinds_agree_with_the_general_one(pattern in "[ab*?]{0,6}", subject in "[ab]{0,8}") {
            prop_assert_eq!(matches(&pattern, &subject), glob_matches(pattern.as_bytes(), subject.as_bytes()));
        }

        #[test]
        fn no_bytes_make_it_panic(pattern in ".{0,20}", subject: Vec<u8>) {
            let _ = Pattern::new(&pattern).matches(&subject);
        }
    }
}
