//! The one module that knows serde_yaml: text in, a plain tree out, and for any place of the tree its line and column.
//!
//! serde_yaml tells positions only with errors. So the tree is read first, without positions, and the few places that
//! turn out to be wrong are *located* afterwards: the text is walked again along the path to the place, and an error is
//! raised there on purpose. The position is then the parser's own, through anchors and aliases too, and exact for keys,
//! values and list items alike. It costs one walk per problem, nothing for a file without.

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Characters of a text that a message repeats.
const DESCRIBED_CHARACTERS_MAX: usize = 60;

/// A value of a YAML file. Mappings keep their order and their duplicate keys; keys keep their spelling.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Value>),
    Mapping(Vec<(String, Value)>),
}

impl Value {
    /// What this is, in words for an error message.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Integer(value) => format!("the number {value}"),
            Self::Float(value) => format!("the number {value:?}"),
            Self::Text(text) if text.chars().count() > DESCRIBED_CHARACTERS_MAX => {
                let beginning: String = text.chars().take(DESCRIBED_CHARACTERS_MAX).collect();
                format!("\"{beginning}...\"")
            }
            Self::Text(text) => format!("\"{text}\""),
            Self::List(_) => "a list".to_owned(),
            Self::Mapping(_) => "a mapping".to_owned(),
        }
    }
}

/// The key or the value at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The key of the mapping entry that the last step names.
    Key,
    /// The value there.
    Value,
}

/// A place in the tree: from the root, the index of the list item or mapping entry to go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) steps: Vec<usize>,
    pub(super) part: Part,
}

impl Place {
    /// The whole file.
    pub(super) fn root() -> Self {
        Self { steps: Vec::new(), part: Part::Value }
    }

    /// The value of entry or item `index` of the container here.
    pub(super) fn child(&self, index: usize) -> Self {
        let mut steps = Vec::with_capacity(self.steps.len() + 1);
        steps.extend_from_slice(&self.steps);
        steps.push(index);
        Self { steps, part: Part::Value }
    }

    /// The container this value is in; the whole file is in itself.
    pub(super) fn container(&self) -> Self {
        Self { steps: self.steps.split_last().map(|(_, steps)| steps.to_vec()).unwrap_or_default(), part: Part::Value }
    }

    /// The key this value stands under; meaningful for values of a mapping only.
    pub(super) fn key(&self) -> Self {
        Self { steps: self.steps.clone(), part: Part::Key }
    }
}

/// Line and column, both from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Position {
    /// YAML ends a line also at a CR alone, and at the breaks of Unicode (YAML 1.1, section 4.1.4). Editors do not, nor do
    /// those who count lines by LF: they would look in vain for a line that only YAML has.
    fn of(text: &str, at: &serde_yaml::Location) -> Self {
        let mut breaks = text.char_indices().filter(|(index, c)| match c {
            '\r' => !text[*index..].starts_with("\r\n"),
            c => matches!(c, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}'),
        });
        let start = match at.line() {
            0 | 1 => Some(0),
            line => breaks.nth(line - 2).map(|(index, c)| index + c.len_utf8()),
        };
        // The end of the file is on a line of its own.
        let Some(before) = start.and_then(|start| text.get(..start)) else {
            return Self { line: text.lines().count() + 1, column: 1 };
        };
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let on_the_line = before[line_start..].chars().count();
        Self { line: before.matches('\n').count() + 1, column: on_the_line + at.column() }
    }
}

/// The text is not YAML, or not the part of YAML a cluster file may use.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) position: Position,
    /// As the parser says it.
    pub(super) message: String,
    /// What it was reading, and the line on which that began: `a quoted scalar`.
    pub(super) within: Option<(String, usize)>,
}

/// Reads the text of one YAML document.
pub(super) fn parse(text: &str) -> Result<Value, SyntaxError> {
    Tree.deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| match error.location() {
        Some(at) => {
            let said = error.to_string();
            SyntaxError { position: Position::of(text, &at), within: within(&said), message: without_position(&said) }
        }
        None => {
            let line = later_document(text).unwrap_or(1);
            SyntaxError { position: Position { line, column: 1 }, message: without_position(&error.to_string()), within: None }
        }
    })
}

/// What the parser says it was reading: `.., while scanning a quoted scalar at line 9 column 14`.
fn within(message: &str) -> Option<(String, usize)> {
    let (what, at) =
        message.split_once("while scanning ").or_else(|| message.split_once("while parsing "))?.1.split_once(" at line ")?;
    let line = at.split(' ').next()?.parse().ok()?;
    Some((what.to_owned(), line))
}

/// The line on which another document begins, for the one error of many documents that has no position.
fn later_document(text: &str) -> Option<usize> {
    let has_content = |line: &str| !line.trim().is_empty() && !line.starts_with('#') && !line.starts_with("---");
    let first = text.lines().position(has_content)?;
    let begins = |(_, line): &(usize, &str)| line.starts_with("---");
    text.lines().enumerate().skip(first).find(begins).map(|(index, _)| index + 1)
}

/// Where `place` is in `text`. The beginning of the file if it is nowhere.
pub(super) fn locate(text: &str, place: &Place) -> Position {
    let seek = Seek { steps: &place.steps, part: place.part };
    let found = seek.deserialize(serde_yaml::Deserializer::from_str(text)).err();
    found.and_then(|error| error.location()).map_or(Position { line: 1, column: 1 }, |at| Position::of(text, &at))
}

/// serde_yaml's sentence without the position and path it adds: the report prints those itself.
fn without_position(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or(message);
    match message.split_once(": ") {
        Some((path, rest)) if !path.contains(' ') => rest.to_owned(),
        _ => message.to_owned(),
    }
}

/// Reads any value as a [`Value`].
#[derive(Clone, Copy)]
struct Tree;

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Value, E> {
        // Anything near the end of this range is out of every bound there is.
        Ok(Value::Integer(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(de::Error::custom("a cluster file has no `!tags`"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut mapping = Vec::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            mapping.push((key, entries.next_value_seed(self)?));
        }
        Ok(Value::Mapping(mapping))
    }
}

/// Reads a key as it is spelled: a node may be called `1` or `no`.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name as key")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

/// Walks to a place and raises an error there, to which serde_yaml adds the position.
struct Seek<'a> {
    steps: &'a [usize],
    part: Part,
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    /// A scalar is where the path ends: the default `visit_*` functions raise the error.
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another place")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((&step, steps)) = self.steps.split_first() else {
            return Err(de::Error::custom("here"));
        };
        for _ in 0..step {
            items.next_element::<IgnoredAny>()?;
        }
        items.next_element_seed(Seek { steps, part: self.part })?;
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Some((&step, steps)) = self.steps.split_first() else {
            return Err(de::Error::custom("here"));
        };
        for _ in 0..step {
            entries.next_entry::<IgnoredAny, IgnoredAny>()?;
        }
        if steps.is_empty() && self.part == Part::Key {
            entries.next_key_seed(Seek { steps, part: Part::Value })?;
        } else if entries.next_key::<IgnoredAny>()?.is_some() {
            entries.next_value_seed(Seek { steps, part: self.part })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, steps: &[usize], part: Part) -> (usize, usize) {
        let position = locate(text, &Place { steps: steps.to_vec(), part });
        (position.line, position.column)
    }

    #[test]
    fn keys_values_and_items_are_located_exactly() {
        let text = "a: 1\nb:\n  - x\n  - { c: y, d: 'z' }\nempty:\nlast: \"q\"\n";
        assert_eq!(at(text, &[0], Part::Key), (1, 1));
        assert_eq!(at(text, &[0], Part::Value), (1, 4));
        assert_eq!(at(text, &[1], Part::Value), (3, 3));
        assert_eq!(at(text, &[1, 0], Part::Value), (3, 5));
        assert_eq!(at(text, &[1, 1, 1], Part::Key), (4, 13));
        assert_eq!(at(text, &[1, 1, 1], Part::Value), (4, 16));
        assert_eq!(at(text, &[3], Part::Value), (6, 7));
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(at("{ größe: 1, b: 2 }", &[1], Part::Key), (1, 13));
    }

    #[test]
    fn lines_are_counted_as_editors_do_where_yaml_knows_more_ends_of_lines() {
        for end in ["\r", "\u{85}", "\u{2028}", "\u{2029}"] {
            let text = format!("# x{end}# y{end}a: 1\r\nb: 2{end}c: {{\n");
            assert_eq!(at(&text.replace("{", "3"), &[0], Part::Key), (1, 9), "{end:?}");
            assert_eq!(at(&text.replace("{", "3"), &[2], Part::Key), (2, 6), "{end:?}");
            let position = parse(&text).unwrap_err().position;
            assert_eq!(position.line, 3, "{end:?}: at the end of the file");
        }
        assert_eq!(at("a: 1\r\nb: 2\r\n", &[1], Part::Value), (2, 4));
    }

    #[test]
    fn a_place_behind_an_alias_is_where_the_anchor_is() {
        assert_eq!(at("a: &x [1, 2]\nb: *x\n", &[1, 1], Part::Value), (1, 11));
    }

    #[test]
    fn duplicate_keys_survive_with_both_positions() {
        let text = "a: 1\na: 2\n";
        let Value::Mapping(entries) = parse(text).unwrap() else { panic!() };
        assert_eq!(entries.len(), 2);
        assert_eq!(at(text, &[1], Part::Key), (2, 1));
    }

    #[test]
    fn keys_keep_their_spelling() {
        let Value::Mapping(entries) = parse("007: a\nno: b\n1.0: c\n~: d\n").unwrap() else { panic!() };
        assert_eq!(entries.iter().map(|entry| entry.0.as_str()).collect::<Vec<_>>(), ["007", "no", "1.0", "~"]);
    }

    #[test]
    fn what_is_not_yaml_says_where() {
        let error = parse("a: [1, 2\nb: 3\n").unwrap_err();
        assert_eq!(error.position.line, 2, "{}", error.message);
        let error = parse("a: !secret x\n").unwrap_err();
        assert_eq!((error.position.line, error.position.column), (1, 4), "{}", error.message);
        parse("a: 1\n---\nb: 2\n").unwrap_err();
        parse("{ [a]: 1 }").unwrap_err();
    }

    #[test]
    fn aliases_cannot_blow_the_tree_up() {
        let mut text = String::from("l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let below = vec![format!("*l{}", level - 1); 10].join(", ");
            text.push_str(&format!("l{level}: &l{level} [{below}]\n"));
        }
        parse(&text).unwrap_err();
    }

    #[test]
    fn a_place_that_is_not_there_is_the_beginning() {
        assert_eq!(at("a: 1\n", &[7, 7], Part::Value), (1, 1));
    }
}
