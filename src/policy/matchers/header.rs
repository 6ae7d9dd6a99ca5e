//! `header`: a field of a request's head.

use super::super::condition::alternatives;
use super::super::yaml::Value;
use super::*;

/// A field of this name has one of these values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Header {
    /// In small letters.
    name: String,
    /// The value must be one of these, byte by byte; any value will do if there are none.
    values: Vec<String>,
}

impl Test for Header {
    const NAME: &'static str = "header";

    fn read(field: &Field<'_>, _: Context<'_>, problems: &mut Problems) -> Option<Vec<Self>> {
        let entries = field.entries(problems)?;
        let tests: Vec<Self> = entries.iter().filter_map(|entry| header(entry, problems)).collect();
        (tests.len() == entries.len()).then_some(tests)
    }

    fn holds(&self, subject: &Subject<'_>) -> Truth {
        let is_wanted = |value: &[u8]| self.values.is_empty() || self.values.iter().any(|want| want.as_bytes() == value);
        subject.http().is_some_and(|request| request.header(&self.name).any(is_wanted)).into()
    }

    fn label(&self) -> String {
        format!("header {}", self.name)
    }

    fn seen(&self, subject: &Subject<'_>) -> Option<String> {
        let value = subject.http().and_then(|request| request.header(&self.name).next());
        value.map(|value| String::from_utf8_lossy(value).into_owned())
    }

    fn reason(&self, subject: &Subject<'_>) -> String {
        match self.seen(subject) {
            Some(value) => format!("header {} has the value {value:?}, which is none of its values", self.name),
            None => format!("the request has no header {}", self.name),
        }
    }

    fn values(&self) -> Vec<String> {
        if self.values.is_empty() { vec!["present".to_owned()] } else { self.values.clone() }
    }

    fn spelling(&self) -> String {
        format!("{:?} {:?}", self.name, self.values)
    }

    fn covers(&self, other: &Self) -> bool {
        let any = self.values.is_empty();
        let same = || !other.values.is_empty() && each_is_covered(&self.values, &other.values, |this, other| this == other);
        self.name == other.name && (any || same())
    }
}

/// One entry of `header`: `name: value`, `name: [values]`, or `name: true` for presence.
fn header(entry: &Field<'_>, problems: &mut Problems) -> Option<Header> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let mut is_complete = true;
    if entry.name.is_empty() || !entry.name.bytes().all(is_token) {
        let message = format!("\"{}\" is not the name of a header field", entry.name);
        problems.error(&entry.place.key(), message, "write it as it stands before the colon, such as `x-version`");
        is_complete = false;
    }
    let values = match entry.value {
        Value::Bool(true) => Some(Vec::new()),
        _ => alternatives(entry, header_value, problems),
    };
    values.filter(|_| is_complete).map(|values| Header { name: entry.name.to_ascii_lowercase(), values })
}

fn header_value(item: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let text = item.text(problems)?;
    if text.trim_ascii() != text || text.chars().any(char::is_control) {
        let message = format!("header `{}` can never have this value", item.name);
        problems.error(&item.place, message, "leave out white space at both ends and control characters");
        return None;
    }
    Some(text.to_owned())
}
