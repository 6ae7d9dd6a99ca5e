//! Takes single fields out of a JSON body, strictly: what two parsers could read differently is not read at all.
//!
//! The body is read once, by serde_json, into nothing but the fields that were asked for. Along the way to them every
//! object is looked at whole: parsers differ in which of two equal names they take (RFC 8259, section 4), and some ignore
//! letter case in names, so that either makes the body ambiguous.

use super::ambiguity::Ambiguity;
use super::truth::Unknown;
use crate::limits::cluster_file::JSON_DEPTH_MAX;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// A place in a JSON text (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pointer {
    /// As written.
    text: String,
    /// Its parts, unescaped.
    tokens: Vec<String>,
}

impl Pointer {
    /// Reads a pointer: empty, or parts with a `/` before each, in which `~0` is `~` and `~1` is `/`.
    pub(super) fn new(text: &str) -> Option<Self> {
        let is_escaped_well = text.match_indices('~').all(|(at, _)| matches!(text.as_bytes().get(at + 1), Some(b'0' | b'1')));
        let tokens = match text.strip_prefix('/') {
            Some(rest) => rest.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect(),
            None if text.is_empty() => Vec::new(),
            None => return None,
        };
        is_escaped_well.then(|| Self { text: text.to_owned(), tokens })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// What is at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Absent,
    /// A text; or a number or boolean as text, a number as short as it can be written in decimal.
    Text(String),
    /// Something else: null, an object, a list, a number that not every parser can represent.
    Other,
}

/// What is at these places of a whole body.
pub(super) fn read(body: &[u8], pointers: &[Pointer]) -> Result<Vec<Found>, Unknown> {
    let mut state = State { found: vec![Found::Absent; pointers.len()], is_ambiguous: false };
    let asked = pointers.iter().enumerate().map(|(index, pointer)| Asked { index, tokens: &pointer.tokens }).collect();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = Seek { asked, depth_left: JSON_DEPTH_MAX, state: &mut state }.deserialize(&mut deserializer);
    let is_whole = read.and_then(|()| deserializer.end()).is_ok();
    match (state.is_ambiguous, is_whole) {
        (true, _) => Err(Unknown::Ambiguous(Ambiguity::JsonName)),
        (false, true) => Ok(state.found),
        (false, false) => Err(Unknown::Forever),
    }
}

struct State {
    found: Vec<Found>,
    is_ambiguous: bool,
}

/// A pointer that leads through the value in hand: what is left of it.
#[derive(Clone, Copy)]
struct Asked<'p> {
    index: usize,
    tokens: &'p [String],
}

/// Reads one value; of interest are the places below it that were asked for.
struct Seek<'p, 's> {
    asked: Vec<Asked<'p>>,
    depth_left: usize,
    state: &'s mut State,
}

impl<'p> Seek<'p, '_> {
    /// Notes what the value in hand is, for those who asked for it.
    fn note(&mut self, found: impl Fn() -> Found) {
        for asked in self.asked.iter().filter(|asked| asked.tokens.is_empty()) {
            if let Some(place) = self.state.found.get_mut(asked.index) {
                *place = found();
            }
        }
    }

    /// Those of the questions that go on below a name or index.
    fn below(&self, is_next: impl Fn(&str) -> bool) -> Vec<Asked<'p>> {
        let rest = |asked: &Asked<'p>| match asked.tokens.split_first() {
            Some((token, tokens)) if is_next(token) => Some(Asked { index: asked.index, tokens }),
            _ => None,
        };
        self.asked.iter().filter_map(rest).collect()
    }

    fn depth_below<E: de::Error>(&self) -> Result<usize, E> {
        self.depth_left.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))
    }
}

impl<'de> DeserializeSeed<'de> for Seek<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(mut self) -> Result<(), E> {
        self.note(|| Found::Other);
        Ok(())
    }

    fn visit_bool<E: de::Error>(mut self, value: bool) -> Result<(), E> {
        self.note(|| Found::Text(value.to_string()));
        Ok(())
    }

    fn visit_i64<E: de::Error>(mut self, value: i64) -> Result<(), E> {
        self.note(|| Found::Text(value.to_string()));
        Ok(())
    }

    fn visit_u64<E: de::Error>(mut self, value: u64) -> Result<(), E> {
        self.note(|| Found::Text(value.to_string()));
        Ok(())
    }

    fn visit_f64<E: de::Error>(mut self, value: f64) -> Result<(), E> {
        // Beyond 2^53 not every whole number is one of these: two texts would be one number.
        let is_exact = value.abs() < 9_007_199_254_740_992.0;
        self.note(|| if is_exact { Found::Text(value.to_string()) } else { Found::Other });
        Ok(())
    }

    fn visit_str<E: de::Error>(mut self, text: &str) -> Result<(), E> {
        self.note(|| Found::Text(text.to_owned()));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.note(|| Found::Other);
        let depth_left = self.depth_below()?;
        for index in 0_usize.. {
            let asked = if self.asked.is_empty() { Vec::new() } else { self.below(|token| *token == *index.to_string()) };
            if items.next_element_seed(Seek { asked, depth_left, state: &mut *self.state })?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        self.note(|| Found::Other);
        let depth_left = self.depth_below()?;
        let mut names_seen: Vec<String> = Vec::new();
        while let Some(Name(name)) = entries.next_key()? {
            let asked = self.below(|token| token == name);
            let is_wanted = !asked.is_empty();
            let resembles_a_wanted_one = !self.below(|token| is_same_but_for_case(token, &name)).is_empty();
            if is_wanted && names_seen.contains(&name) || !is_wanted && resembles_a_wanted_one {
                self.state.is_ambiguous = true;
                return Err(de::Error::custom("ambiguous"));
            }
            if is_wanted {
                names_seen.push(name);
            }
            entries.next_value_seed(Seek { asked, depth_left, state: &mut *self.state })?;
        }
        Ok(())
    }
}

/// A name of an object's member, unescaped.
struct Name(String);

impl<'de> de::Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// Some parsers take such names for the same, and fold case as Unicode does (the Kelvin sign is a k).
fn is_same_but_for_case(one: &str, other: &str) -> bool {
    let folded = |text: &str| text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect::<String>();
    one.eq_ignore_ascii_case(other) || (!(one.is_ascii() && other.is_ascii()) && folded(one) == folded(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pointer: &str, body: &str) -> Result<Found, Unknown> {
        read(body.as_bytes(), &[Pointer::new(pointer).unwrap()]).map(|mut found| found.remove(0))
    }

    fn text(text: &str) -> Result<Found, Unknown> {
        Ok(Found::Text(text.to_owned()))
    }

    const AMBIGUOUS: Result<Found, Unknown> = Err(Unknown::Ambiguous(Ambiguity::JsonName));

    #[test]
    fn pointers_lead_through_objects_and_lists() {
        assert_eq!(at("/model", r#" {"x": {"model": 1}, "model": "llama3"} "#), text("llama3"));
        assert_eq!(at("/a/1/b", r#"{"a": [{"b": 1}, {"b": "two"}]}"#), text("two"));
        assert_eq!(at("/a~1b/~0", r#"{"a/b": {"~": "x"}}"#), text("x"));
        assert_eq!(at("", r#""all""#), text("all"));
        assert_eq!(at("/a/01", r#"{"a": [1, 2]}"#), Ok(Found::Absent));
        assert_eq!(at("/a/-", r#"{"a": [1, 2]}"#), Ok(Found::Absent));
        assert_eq!(at("/a/b", r#"{"a": "b"}"#), Ok(Found::Absent));
        assert_eq!(at("/", r#"{"": "x"}"#), text("x"));
    }

    #[test]
    fn several_places_are_found_in_one_pass() {
        let pointers = ["/a", "/a/b", "/c"].map(|text| Pointer::new(text).unwrap());
        let found = read(br#"{"c": true, "a": {"b": 1.50}}"#, &pointers).unwrap();
        assert_eq!(found, [Found::Other, Found::Text("1.5".into()), Found::Text("true".into())]);
    }

    #[test]
    fn numbers_are_as_short_as_they_can_be() {
        for (number, shortest) in
            [("1", "1"), ("1.0", "1"), ("1e3", "1000"), ("-0.50", "-0.5"), ("18446744073709551615", "18446744073709551615")]
        {
            assert_eq!(at("/n", &format!("{{\"n\": {number}}}")), text(shortest));
        }
        assert_eq!(at("/n", r#"{"n": 18446744073709551616}"#), Ok(Found::Other));
        assert_eq!(at("/n", r#"{"n": null}"#), Ok(Found::Other));
    }

    #[test]
    fn a_name_there_twice_is_ambiguous_however_it_is_written() {
        assert_eq!(at("/model", r#"{"model": "a", "model": "b"}"#), AMBIGUOUS);
        assert_eq!(at("/model", r#"{"model": "a", "m\u006fdel": "a"}"#), AMBIGUOUS);
        assert_eq!(at("/a/b", r#"{"a": {}, "a": {"b": 1}}"#), AMBIGUOUS);
        assert_eq!(at("/model", r#"{"x": 1, "x": 2, "model": "a"}"#), text("a"));
        assert_eq!(at("/model", r#"{"y": {"model": 1, "model": 2}, "model": "a"}"#), text("a"));
    }

    #[test]
    fn a_name_in_other_letter_case_is_ambiguous() {
        assert_eq!(at("/model", r#"{"Model": "a"}"#), AMBIGUOUS);
        assert_eq!(at("/model", r#"{"model": "a", "MODEL": "b"}"#), AMBIGUOUS);
        assert_eq!(at("/key", "{\"\u{212a}ey\": \"a\"}"), AMBIGUOUS);
        assert_eq!(at("/models", "{\"model\u{17f}\": \"a\"}"), AMBIGUOUS);
    }

    #[test]
    fn what_is_not_json_is_never_known() {
        for body in [
            "",
            "{",
            r#"{"model": "a""#,
            r#"{"model": "a"} x"#,
            r#"{"model": "a"}{"model": "b"}"#,
            "{'model': 'a'}",
            r#"{model: "a"}"#,
            r#"{"model": "a",}"#,
            r#"{"model": NaN}"#,
            r#"{"model": "\ud800"}"#,
            "{\"model\": \"\u{0}\"}",
            "\u{feff}{}",
            r#"{"model": "a" /* b */}"#,
            "model=a",
        ] {
            assert_eq!(at("/model", body), Err(Unknown::Forever), "{body}");
        }
        assert_eq!(read(b"{\"model\": \"\xff\"}", &[Pointer::new("/model").unwrap()]), Err(Unknown::Forever));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{{\"model\": \"a\", \"x\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(at("/model", &nested(JSON_DEPTH_MAX - 1)), text("a"));
        assert_eq!(at("/model", &nested(JSON_DEPTH_MAX)), Err(Unknown::Forever));
        assert_eq!(at("/model", &nested(200_000)), Err(Unknown::Forever));
    }

    #[test]
    fn a_pointer_must_be_well_formed() {
        for wrong in ["model", "/~", "/a~2", "/~a", "#/a"] {
            assert_eq!(Pointer::new(wrong), None, "{wrong}");
        }
    }
}
