//! `query`: a parameter of a request's query.

use super::values::{Form, Manner, Values};
use super::*;

/// A parameter of this name has one of these values, or there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Query {
    name: String,
    values: Values,
}

const MANNER: Manner = Manner { plain: Form::Exact, objection, first: b"" };

impl Test for Query {
    const NAME: &'static str = "query";

    fn read(field: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Vec<Self>> {
        let entries = field.entries(problems)?;
        let tests: Vec<Self> = entries.iter().filter_map(|entry| query(entry, context, problems)).collect();
        (tests.len() == entries.len()).then_some(tests)
    }

    fn holds(&self, subject: &Subject<'_>) -> Truth {
        subject.http().map_or(Truth::No, |request| self.values.hold(request.query(&self.name)))
    }

    fn label(&self) -> String {
        format!("query {}", self.name)
    }

    fn seen(&self, subject: &Subject<'_>) -> Option<String> {
        let text = |value: std::borrow::Cow<'_, [u8]>| String::from_utf8_lossy(&value).into_owned();
        let sent: Vec<String> = subject.http()?.query(&self.name).map(text).collect();
        (!sent.is_empty()).then(|| sent.join(", "))
    }

    fn reason(&self, subject: &Subject<'_>) -> String {
        let name = &self.name;
        match (self.holds(subject), self.seen(subject)) {
            (Truth::Unknown(_), _) => format!("the request has query parameter {name} several times, and not every value fits"),
            (_, Some(value)) => format!("query parameter {name} has the value {value:?}, which is none of its values"),
            (_, None) => format!("the request has no query parameter {name}"),
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

/// One entry of `query`: `name: value`, `name: [values]`, or `name: true` for presence.
fn query(entry: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Query> {
    let is_name = !entry.name.is_empty();
    if !is_name {
        problems.error(&entry.place.key(), "a query parameter has a name", "write what stands before the `=`, decoded");
    }
    let values = Values::read(entry, MANNER, context, problems)?;
    is_name.then(|| Query { name: entry.name.to_owned(), values })
}

/// A value is compared decoded, and can be anything.
fn objection(_: &str, _: &str, _: Form) -> Option<(String, &'static str)> {
    None
}
