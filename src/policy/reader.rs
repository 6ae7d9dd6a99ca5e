//! Takes values out of the tree, and says where one has not the shape it should have.
//!
//! Every function that returns an `Option` has reported the problem when it returns `None`, so that one pass over the
//! file finds everything that can be found.

use super::examples;
use super::report::{Problems, TOKEN};
use super::units;
use super::yaml::{Place, Value};
use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What YAML 1.1 took for "the entries of another mapping, too".
const MERGE_KEY: &str = "<<";

/// A value, the place it is at, and what the file's author calls it.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    pub(super) value: &'a Value,
    pub(super) place: Place,
    pub(super) name: &'a str,
    /// How it is written, to stand behind "write"; none if there is nothing to say but its shape.
    pub(super) example: Option<Cow<'static, str>>,
}

/// The entries of a mapping whose keys are fixed by the format.
pub(super) struct Mapping<'a> {
    entries: Vec<Field<'a>>,
    is_complete: bool,
    place: Place,
    name: &'a str,
}

impl<'a> Field<'a> {
    /// The whole file.
    pub(super) fn root(value: &'a Value) -> Self {
        Self { value, place: Place::root(), name: "the cluster file", example: None }
    }

    /// The same, to be written like this.
    pub(super) fn like(self, example: impl Into<Cow<'static, str>>) -> Self {
        Self { example: Some(example.into()), ..self }
    }

    /// The same under a name of its own.
    pub(super) fn named<'b>(&self, name: &'b str) -> Field<'b>
    where
        'a: 'b,
    {
        Field { value: self.value, place: self.place.clone(), name, example: self.example.clone() }
    }

    /// The entries under their keys, each key once and at least one.
    pub(super) fn entries(&self, problems: &mut Problems) -> Option<Vec<Field<'a>>> {
        let Value::Mapping(entries) = self.value else {
            self.expected("a mapping (`key: value`)", problems);
            return None;
        };
        if entries.is_empty() {
            self.empty(problems);
            return None;
        }
        if let Some(index) = entries.iter().position(|(key, _)| key == MERGE_KEY) {
            // Whatever seems to be missing here may be in what was to be merged.
            let message = format!("merge keys (`{MERGE_KEY}`) are not supported");
            problems.error(&self.place.child(index).key(), message, "write the fields out");
            return None;
        }
        let mut fields: Vec<Field<'a>> = Vec::with_capacity(entries.len());
        let mut keys = std::collections::HashSet::new();
        for (index, (key, value)) in entries.iter().enumerate() {
            let field = Field { value, place: self.place.child(index), name: key, example: None };
            if keys.insert(key.as_str()) {
                fields.push(field);
            } else {
                problems.error(&field.place.key(), format!("`{key}` is here twice"), "remove or rename one of them");
            }
        }
        Some(fields)
    }

    /// The entries, whose keys must be among `known`.
    pub(super) fn mapping(&self, known: &[&str], problems: &mut Problems) -> Option<Mapping<'a>> {
        self.mapping_without(&[], known, problems)
    }

    /// The same of a format that will have more fields: those of `later` are not offered, and refused as not supported yet.
    pub(super) fn mapping_without(&self, later: &[&str], known: &[&str], problems: &mut Problems) -> Option<Mapping<'a>> {
        if matches!(self.value, Value::Mapping(entries) if entries.is_empty()) {
            let remedy = self.example.as_ref().map_or_else(|| offer(known), |example| format!("write {example}"));
            problems.error(&self.place, format!("{} is empty", self.title()), remedy);
            return None;
        }
        let mut entries = self.entries(problems)?;
        entries.retain(|field| {
            let is_known = known.contains(&field.name);
            if later.contains(&field.name) {
                field.not_supported(problems);
            } else if !is_known {
                let message = format!("{} has no field `{}`", self.title(), field.name);
                problems.error(&field.place.key(), message, suggestion(field.name, known));
            }
            is_known
        });
        let is_of_the_file = self.place.steps.is_empty();
        for entry in &mut entries {
            entry.example = examples::of(entry.name, is_of_the_file).map(Cow::Borrowed);
        }
        let is_complete = matches!(self.value, Value::Mapping(all) if all.len() == entries.len());
        Some(Mapping { entries, is_complete, place: self.place.clone(), name: self.name })
    }

    /// One value or a list of them, at least one.
    pub(super) fn one_or_more(&self, problems: &mut Problems) -> Option<Vec<Field<'a>>> {
        match self.value {
            Value::List(_) => self.list(problems),
            _ => Some(vec![self.clone()]),
        }
    }

    /// The items of a list, at least one.
    pub(super) fn list(&self, problems: &mut Problems) -> Option<Vec<Field<'a>>> {
        let Value::List(items) = self.value else {
            self.expected("a list (`[x, y]`)", problems);
            return None;
        };
        if items.is_empty() {
            self.empty(problems);
            return None;
        }
        let item = |(index, value)| Field { value, place: self.place.child(index), ..self.clone() };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// A text. A number is not one: how it was spelled matters and is not known any more.
    pub(super) fn text(&self, problems: &mut Problems) -> Option<&'a str> {
        match self.value {
            Value::Integer(_) | Value::Float(_) | Value::Bool(_) => {
                self.text_or(|| format!("put it in quotes: `\"{TOKEN}\"`"), problems)
            }
            Value::Text(text) => Some(text),
            Value::Null | Value::List(_) | Value::Mapping(_) => {
                self.expected("a text", problems);
                None
            }
        }
    }

    /// A text where hardly any number or truth would be right in quotes: what to write instead.
    pub(super) fn text_or(&self, remedy: impl FnOnce() -> String, problems: &mut Problems) -> Option<&'a str> {
        if let Value::Text(text) = self.value {
            return Some(text);
        }
        let message = format!("{} must be a text, here is {}", self.title(), self.value.describe());
        problems.error(&self.place, message, remedy());
        None
    }

    /// A whole number within bounds.
    pub(super) fn integer(&self, bounds: RangeInclusive<u64>, problems: &mut Problems) -> Option<u64> {
        let Value::Integer(value) = *self.value else {
            let message = format!("{} must be a whole number, here is {}", self.title(), self.value.describe());
            let range = format!("a whole number from {} to {}", bounds.start(), bounds.end());
            let remedy = match self.value {
                // In quotes, with a zero in front (which once meant octal), or grouped: 07400, 1_000.
                Value::Text(text) => match text.replace(['_', ',', ' '], "").parse::<u64>() {
                    Ok(meant) if bounds.contains(&meant) => format!("write `{}: {meant}`", self.name),
                    _ => format!("write {range}"),
                },
                Value::Null => format!("write {range}, or remove the line"),
                _ => format!("write {range}"),
            };
            problems.error(&self.place, message, remedy);
            return None;
        };
        let within = u64::try_from(value).ok().filter(|value| bounds.contains(value));
        if within.is_none() {
            let is_less = i128::from(*bounds.start()) > value;
            self.out_of_bounds(&value.to_string(), (bounds.start(), bounds.end()), is_less, problems);
        }
        within
    }

    /// A TCP or UDP port.
    pub(super) fn port(&self, problems: &mut Problems) -> Option<u16> {
        self.integer(1..=u16::MAX.into(), problems).and_then(|port| u16::try_from(port).ok())
    }

    /// A duration with its unit, within bounds.
    pub(super) fn duration(&self, bounds: RangeInclusive<Duration>, problems: &mut Problems) -> Option<Duration> {
        let parsed = match self.value {
            Value::Text(text) => humantime::parse_duration(text).ok(),
            _ => None,
        };
        let Some(duration) = parsed else {
            let message = format!("{} must be a duration, here is {}", self.title(), self.value.describe());
            problems.error(&self.place, message, "write a number with its unit: `500ms`, `5s`, `1m 30s`, `2h`");
            return None;
        };
        if !bounds.contains(&duration) {
            let show = |duration: &Duration| humantime::format_duration(*duration).to_string();
            let is_less = duration < *bounds.start();
            self.out_of_bounds(&show(&duration), (&show(bounds.start()), &show(bounds.end())), is_less, problems);
            return None;
        }
        Some(duration)
    }

    /// A number of octets, plain or with KiB, MiB or GiB, within bounds.
    pub(super) fn bytes(&self, bounds: RangeInclusive<u64>, problems: &mut Problems) -> Option<u64> {
        let (least, most) = (units::format_bytes(*bounds.start()), units::format_bytes(*bounds.end()));
        let parsed = match self.value {
            Value::Integer(number) => Some(*number),
            Value::Text(text) => units::parse_bytes(text).map(i128::from),
            _ => None,
        };
        let Some(bytes) = parsed else {
            let message = format!("{} must be a size, here is {}", self.title(), self.value.describe());
            let remedy = "write a number of bytes, or one with its unit: `16KiB`, `64MiB`, `1GiB`";
            problems.error(&self.place, message, remedy);
            return None;
        };
        let within = u64::try_from(bytes).ok().filter(|bytes| bounds.contains(bytes));
        if within.is_none() {
            let shown = u64::try_from(bytes).map_or_else(|_| bytes.to_string(), units::format_bytes);
            self.out_of_bounds(&shown, (&least, &most), bytes < i128::from(*bounds.start()), problems);
        }
        within
    }

    /// Whether the value is the only one of `supported` and `later` that works today; says so when it is one of `later`.
    pub(super) fn only(&self, supported: &str, later: &[&str], problems: &mut Problems) {
        let remedy = format!("write `{}: {supported}` or leave it out", self.name);
        match self.value {
            Value::Text(text) if text == supported => {}
            Value::Text(text) if later.contains(&text.as_str()) => {
                problems.error(&self.place, format!("`{}: {text}` is not supported yet", self.name), remedy);
            }
            other => {
                problems.error(&self.place, format!("`{}` cannot be {}", self.name, other.describe()), remedy);
            }
        }
    }

    /// Says that the whole field is not supported yet.
    fn not_supported(&self, problems: &mut Problems) {
        let remedy = format!("leave `{}` out", self.name);
        problems.error(&self.place.key(), format!("`{}` is not supported yet", self.name), remedy);
    }

    /// Says what was expected here instead of what is here.
    pub(super) fn expected(&self, what: &str, problems: &mut Problems) {
        let message = format!("{} must be {what}, here is {}", self.title(), self.value.describe());
        let remedy = match self.value {
            _ if self.place.steps.is_empty() => {
                "begin with `cluster: NAME`, then say `overlay`, `nodes` and `services`".to_owned()
            }
            Value::Null => match &self.example {
                Some(example) => format!("write {example}, or remove the line"),
                None => "write a value, or remove the line".to_owned(),
            },
            _ => self.example.as_ref().map_or_else(|| format!("write {what}"), |example| format!("write {example}")),
        };
        problems.error(&self.place, message, remedy);
    }

    fn empty(&self, problems: &mut Problems) {
        let remedy = self.example.as_ref().map_or("name at least one".to_owned(), |example| format!("write {example}"));
        problems.error(&self.place, format!("{} is empty", self.title()), format!("{remedy}, or remove the field"));
    }

    fn out_of_bounds(&self, value: &str, (least, most): (&dyn Display, &dyn Display), is_less: bool, problems: &mut Problems) {
        let message = format!("{} must be from {least} to {most}, here is {value}", self.title());
        let remedy = if is_less { format!("write {least} or more") } else { format!("write {most} or less") };
        problems.error(&self.place, message, remedy);
    }

    /// The field's name as a message begins with it.
    fn title(&self) -> String {
        if self.place.steps.is_empty() { self.name.to_owned() } else { format!("`{}`", self.name) }
    }
}

impl<'a> Mapping<'a> {
    /// Whether there was nothing else, which was reported.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// The field of this name, if it is there.
    pub(super) fn optional(&self, name: &str) -> Option<Field<'a>> {
        self.entries.iter().find(|field| field.name == name).cloned()
    }

    /// The field of this name, which must be there.
    pub(super) fn required(&self, name: &str, problems: &mut Problems) -> Option<Field<'a>> {
        let field = self.optional(name);
        if field.is_none() {
            let owner = if self.place.steps.is_empty() { self.name.to_owned() } else { format!("`{}`", self.name) };
            let example = examples::of(name, self.place.steps.is_empty());
            let remedy = example.map_or_else(|| format!("add `{name}:`"), |example| format!("add {example}"));
            problems.error(&self.place.key(), format!("{owner} has no `{name}`"), remedy);
        }
        field
    }
}

/// What to say about an unknown field: the one probably meant, where it belongs, else all there are.
fn suggestion(unknown: &str, known: &[&str]) -> String {
    if let Some(remedy) = unglued(unknown) {
        return remedy;
    }
    match (nearest(unknown, known), examples::belongs(unknown)) {
        (_, Some(owner)) => format!("it belongs in {owner}"),
        (Some(name), None) => format!("did you mean `{name}`?"),
        (None, None) => offer(known),
    }
}

/// What to say about `{ a:1 }`, which YAML takes for one name.
pub(super) fn unglued(name: &str) -> Option<String> {
    let (key, value) = name.split_once(':')?;
    Some(format!("put a space behind the colon: `{key}: {value}`"))
}

/// The word that was probably meant, if any is near.
pub(super) fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let nearest = known.iter().map(|name| (edit_distance(unknown, name), *name)).min();
    nearest.filter(|(distance, name)| *distance <= 2 && *distance < name.len()).map(|(_, name)| name)
}

fn offer(known: &[&str]) -> String {
    match known {
        [only] => format!("the one field here is {only}"),
        _ => format!("the fields here are {}", known.join(", ")),
    }
}

/// Letters to insert, remove or replace to turn one word into the other.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_field_is_recognised() {
        assert_eq!(suggestion("frontend", &["servers", "frontends"]), "did you mean `frontends`?");
        assert_eq!(suggestion("sendto", &["name", "send_to"]), "did you mean `send_to`?");
        assert_eq!(suggestion("colour", &["name", "when"]), "the fields here are name, when");
    }

    #[test]
    fn edit_distance_counts_letters() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("abc", "abc"), 0);
    }
}
