//! `cookie`: a cookie of a request.

use super::values::{Form, Manner, Values};
use super::*;

/// A cookie of this name, letter by letter, has one of these values, or there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Cookie {
    name: String,
    values: Values,
}

const MANNER: Manner = Manner { plain: Form::Exact, objection, first: b"" };

impl Test for Cookie {
    const NAME: &'static str = "cookie";

    fn read(field: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Vec<Self>> {
        let entries = field.entries(problems)?;
        let tests: Vec<Self> = entries.iter().filter_map(|entry| cookie(entry, context, problems)).collect();
        (tests.len() == entries.len()).then_some(tests)
    }

    fn holds(&self, subject: &Subject<'_>) -> Truth {
        subject.http().map_or(Truth::No, |request| self.values.hold(request.cookie(&self.name)))
    }

    fn label(&self) -> String {
        format!("cookie {}", self.name)
    }

    fn seen(&self, subject: &Subject<'_>) -> Option<String> {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let sent: Vec<String> = subject.http()?.cookie(&self.name).map(text).collect();
        (!sent.is_empty()).then(|| sent.join(", "))
    }

    fn reason(&self, subject: &Subject<'_>) -> String {
        let name = &self.name;
        match (self.holds(subject), self.seen(subject)) {
            (Truth::Unknown(_), _) => format!("the request has cookie {name} several times, and not every value fits"),
            (_, Some(value)) => format!("cookie {name} has the value {value:?}, which is none of its values"),
            (_, None) => format!("the request has no cookie {name}"),
        }
    }

    fn values(&self) -> Vec<String> {
        self.values.texts()
    }

    fn spelling(&self) -> String {
        format!("{:?} {}", self.name, self.values.spelling())
    }

    fn covers(&self, other: &Self) -> bool {
        self.name == other.name && self.values.covers(&other.values)
    }
}

/// One entry of `cookie`: `name: value`, `name: [values]`, or `name: true` for presence.
fn cookie(entry: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Cookie> {
    let is_name = super::header::is_token(entry.name);
    if !is_name {
        let message = format!("\"{}\" is not the name of a cookie", entry.name);
        problems.error(&entry.place.key(), message, "write it as it stands before the `=`, such as `session`");
    }
    let values = Values::read(entry, MANNER, context, problems)?;
    is_name.then(|| Cookie { name: entry.name.to_owned(), values })
}

fn objection(name: &str, text: &str, form: Form) -> Option<(String, &'static str)> {
    super::values::no_space_around(&format!("cookie `{name}`"), text, form)
}
