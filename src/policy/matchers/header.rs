//! `header`: a field of a request's head.

use super::values::{Form, Manner, Values};
use super::*;

/// A field of this name has one of these values, or there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Header {
    /// In small letters.
    name: String,
    values: Values,
}

const MANNER: Manner = Manner { plain: Form::Exact, objection, first: b"" };

impl Test for Header {
    const NAME: &'static str = "header";

    fn read(field: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Vec<Self>> {
        let entries = field.entries(problems)?;
        let tests: Vec<Self> = entries.iter().filter_map(|entry| header(entry, context, problems)).collect();
        (tests.len() == entries.len()).then_some(tests)
    }

    /// Of several fields of the name, one that fits is enough.
    fn holds(&self, subject: &Subject<'_>) -> Truth {
        let Some(request) = subject.http() else { return Truth::No };
        let is_sent = request.header(&self.name).next().is_some();
        (request.header(&self.name).any(|value| self.values.fits(value)) || !is_sent && self.values.wants_none()).into()
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
        self.values.texts()
    }

    fn spelling(&self) -> String {
        format!("{:?} {}", self.name, self.values.spelling())
    }

    fn always(&self) -> bool {
        self.values.always()
    }

    fn covers(&self, other: &Self) -> bool {
        self.name == other.name && self.values.covers(&other.values)
    }
}

/// Whether a text is a token (RFC 9110, section 5.6.2), as names of header fields and of cookies are.
pub(super) fn is_token(text: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token)
}

/// One entry of `header`: `name: value`, `name: [values]`, or `name: true` for presence.
fn header(entry: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Header> {
    let is_name = is_token(entry.name);
    if !is_name {
        let message = format!("\"{}\" is not the name of a header field", entry.name);
        problems.error(&entry.place.key(), message, "write it as it stands before the colon, such as `x-version`");
    }
    let values = Values::read(entry, MANNER, context, problems)?;
    is_name.then(|| Header { name: entry.name.to_ascii_lowercase(), values })
}

fn objection(name: &str, text: &str, form: Form) -> Option<(String, &'static str)> {
    super::values::no_space_around(&format!("header `{name}`"), text, form)
}
