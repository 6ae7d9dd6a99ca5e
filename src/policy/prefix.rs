//! Patterns for the beginning of a stream, of any protocol: octets, or a regular expression.
//!
//! Bytes arrive in pieces, so there are three answers. A pattern that has matched matches whatever follows, and one that
//! cannot match any more never does; until then it is open.

use super::looks::{Place, Searches};
use crate::limits::cluster_file::REGEX_BYTES_MAX;
use regex_automata::Anchored;
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::{primitives::StateID, start, syntax};
use std::fmt;
use std::rc::Rc;

/// What a pattern asks of the beginning of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// These octets; as they were written, for people.
    Octets { octets: Box<[u8]>, written: String },
    /// Anything the expression matches from the first octet on.
    Regex(Regex),
}

/// Whether a stream begins with something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begins {
    Yes,
    No,
    /// That depends on what follows.
    Open,
}

/// An expression and the automaton for it: one step an octet, whatever the expression.
#[derive(Clone)]
pub(super) struct Regex {
    text: String,
    /// Among those of a service.
    number: usize,
    automaton: Rc<dense::DFA<Vec<u32>>>,
    start: StateID,
    matches_nothing: bool,
}

impl Beginning {
    pub(super) fn of(&self, bytes: &[u8]) -> Begins {
        self.goes_on(bytes, None)
    }

    /// The same of bytes of which fewer were looked at before: a search goes on where it stood.
    pub(super) fn goes_on(&self, bytes: &[u8], searches: Option<&Searches>) -> Begins {
        match self {
            Self::Octets { octets, .. } if bytes.starts_with(octets) => Begins::Yes,
            Self::Octets { octets, .. } if octets.starts_with(bytes) => Begins::Open,
            Self::Octets { .. } => Begins::No,
            Self::Regex(regex) => regex.begins(bytes, searches),
        }
    }

    /// For the hash of the file.
    pub(super) fn spelling(&self) -> String {
        match self {
            Self::Octets { octets, .. } => format!("\"{}\"", octets.escape_ascii()),
            Self::Regex(regex) => format!("regex {:?}", regex.text),
        }
    }

    /// Whether a stream surely begins so if it begins as the other one says.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match other {
            Self::Octets { octets, .. } => self.of(octets) == Begins::Yes,
            Self::Regex(_) => self == other,
        }
    }

    /// Whether every stream begins so.
    pub(super) fn is_any(&self) -> bool {
        self.of(b"") == Begins::Yes
    }
}

impl Regex {
    /// Reads an expression on octets: `.` and classes stand for one octet each, letters for themselves. `Err` says what
    /// is wrong with it. The number is its own in the service.
    pub(super) fn new(text: &str, number: usize) -> Result<Self, String> {
        let config = syntax::Config::new().unicode(false).utf8(false);
        let hir = syntax::parse_with(text, &config).map_err(|error| last_line(&error))?;
        // What looks behind the match has no answer before the stream's end.
        let matches_nothing = hir.properties().minimum_len().is_none();
        let looks = hir.properties().look_set();
        if looks.iter().any(|look| look.as_repr() != regex_automata::util::look::Look::Start.as_repr()) {
            return Err("`$`, `\\b`, `(?m)` and the like ask what follows, which is never known".to_owned());
        }
        let automaton = dense::Builder::new()
            .syntax(config)
            .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(REGEX_BYTES_MAX)))
            .configure(
                dense::Config::new()
                    .start_kind(StartKind::Anchored)
                    .dfa_size_limit(Some(REGEX_BYTES_MAX))
                    .determinize_size_limit(Some(4 * REGEX_BYTES_MAX)),
            )
            .build(text)
            .map_err(|error| last_line(&error))?;
        let start = automaton.start_state(&start::Config::new().anchored(Anchored::Yes)).map_err(|error| error.to_string())?;
        Ok(Self { text: text.to_owned(), number, automaton: Rc::new(automaton), start, matches_nothing })
    }

    fn begins(&self, bytes: &[u8], searches: Option<&Searches>) -> Begins {
        let stood = searches.and_then(|searches| searches.place(self.number)).unwrap_or(Place { seen: 0, state: self.start });
        let place = self.search(bytes, stood);
        if let Some(searches) = searches {
            searches.keep(self.number, place, place.seen - stood.seen);
        }
        if self.automaton.is_match_state(place.state) {
            return Begins::Yes;
        }
        if self.automaton.is_dead_state(place.state) {
            return Begins::No;
        }
        let at_end = self.automaton.next_eoi_state(place.state);
        if self.automaton.is_match_state(at_end) { Begins::Yes } else { Begins::Open }
    }

    /// Goes on until it is known. A match shows one octet late.
    fn search(&self, bytes: &[u8], Place { mut seen, mut state }: Place) -> Place {
        let is_known = |state| self.automaton.is_match_state(state) || self.automaton.is_dead_state(state);
        for octet in bytes.get(seen..).unwrap_or_default() {
            if is_known(state) {
                break;
            }
            state = self.automaton.next_state(state, *octet);
            seen += 1;
        }
        Place { seen, state }
    }

    /// Whether nothing matches, whatever follows.
    pub(super) fn matches_nothing(&self) -> bool {
        self.matches_nothing
    }
}

/// Of an error that shows the expression with marks below it: what it says.
fn last_line(error: &dyn std::error::Error) -> String {
    let mut source = error;
    while let Some(deeper) = source.source() {
        source = deeper;
    }
    let text = source.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Regex {}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Regex").field(&self.text).finish()
    }
}

/// As it is written in the file.
impl fmt::Display for Beginning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Octets { written, .. } => f.write_str(written),
            Self::Regex(regex) => f.write_str(&regex.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Begins::{No, Open, Yes};
    use super::*;
    use proptest::prelude::*;

    fn regex(text: &str) -> Beginning {
        Beginning::Regex(Regex::new(text, 0).unwrap_or_else(|error| panic!("{text}: {error}")))
    }

    #[test]
    fn octets_are_open_until_they_are_all_here() {
        let beginning = Beginning::Octets { octets: (*b"\x16\x03").into(), written: "16 03".into() };
        assert_eq!(
            [&b""[..], b"\x16", b"\x16\x03", b"\x16\x03\x01", b"\x16\x02", b"G"].map(|bytes| beginning.of(bytes)),
            [Open, Open, Yes, Yes, No, No]
        );
    }

    #[test]
    fn an_expression_is_about_the_beginning() {
        let begins = |text: &str, bytes: &[u8]| regex(text).of(bytes);
        assert_eq!(
            [&b""[..], b"SSH", b"SSH-2.", b"SSH-2.0", b"SSH-1"].map(|bytes| begins("SSH-2\\.[0-9]", bytes)),
            [Open, Open, Open, Yes, No]
        );
        assert_eq!([&b"a"[..], b"ab", b"xa"].map(|bytes| begins("^(a|ab)", bytes)), [Yes, Yes, No]);
        // Anywhere, within what is looked at.
        assert_eq!([&b""[..], b"xx", b"xx\nkey", b"xx\xffkey"].map(|bytes| begins("(?s).*key", bytes)), [Open, Open, Yes, Yes]);
        assert_eq!([&b"\xff"[..], b"\xfe", b"\xc3\xa9"].map(|bytes| begins("\\xff", bytes)), [Yes, No, No]);
        assert_eq!(begins("é", "é".as_bytes()), Yes);
        assert_eq!(begins("(?i)helo", b"HeLO x"), Yes);
        assert_eq!(begins("a{3}", b"aa"), Open);
        assert!(regex("a*").is_any() && regex("").is_any() && !regex("a").is_any());
    }

    #[test]
    fn what_cannot_be_known_or_built_is_refused() {
        for text in ["a$", "\\bx", "x\\b", "(?m)^a", "\\z"] {
            assert!(Regex::new(text, 0).unwrap_err().contains("never known"), "{text}");
        }
        assert_eq!(Regex::new("a(", 0).unwrap_err(), "unclosed group");
        assert!(Regex::new("(?s)(a|b).{300}.*c.{30}d{40}", 0).is_ok() || Regex::new("[ab]*a[ab]{20}", 0).is_err());
        let huge = Regex::new("[ab]*a[ab]{20}", 0).unwrap_err();
        assert!(huge.contains("size limit") || huge.contains("exceed"), "{huge}");
        assert!(Regex::new("[a&&b]", 0).unwrap().matches_nothing());
    }

    proptest! {
        #[test]
        fn more_octets_never_change_an_answer(
            text in "(a|b|\\.|c\\*|\\[ab\\]|\\(ab\\|a\\)|\\(a\\|c\\)\\?){0,6}",
            bytes in "[abc]{0,8}",
        ) {
            let Ok(regex) = Regex::new(&text, 0) else { return Ok(()) };
            let beginning = Beginning::Regex(regex);
            let answers: Vec<Begins> = (0..=bytes.len()).map(|length| beginning.of(&bytes.as_bytes()[..length])).collect();
            let searches = Searches::default();
            let gone_on: Vec<Begins> =
                (0..=bytes.len()).map(|length| beginning.goes_on(&bytes.as_bytes()[..length], Some(&searches))).collect();
            prop_assert_eq!(&gone_on, &answers, "{}", text);
            for pair in answers.windows(2) {
                prop_assert!(pair[0] == Open || pair[0] == pair[1], "{text} {bytes}: {answers:?}");
            }
        }
    }
}
