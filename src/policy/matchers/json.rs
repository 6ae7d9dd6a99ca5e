//! `json`: a field of a request's JSON body.

use super::super::json::{Found, Pointer};
use super::super::truth::Unknown;
use super::values::{Form, Manner, Values};
use super::*;
use crate::limits::cluster_file::JSON_POINTER_BYTES_MAX;

/// What is at this place of the body has one of these values, or nothing is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Json {
    pointer: Pointer,
    values: Values,
}

const MANNER: Manner = Manner { plain: Form::Glob, objection: |_, _, _| None, first: b"" };

impl Json {
    pub(in crate::policy) fn pointer(&self) -> &Pointer {
        &self.pointer
    }
}

impl Test for Json {
    const NAME: &'static str = "json";

    fn read(field: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Vec<Self>> {
        let entries = field.entries(problems)?;
        let tests: Vec<Self> = entries.iter().filter_map(|entry| json(entry, context, problems)).collect();
        (tests.len() == entries.len()).then_some(tests)
    }

    fn holds(&self, subject: &Subject<'_>) -> Truth {
        match subject.json(&self.pointer) {
            Ok(Found::Text(text)) => self.values.fits(text.as_bytes()).into(),
            // Whatever it is, it is there.
            Ok(Found::Other) => self.values.wants_any().into(),
            Ok(Found::Absent) => self.values.wants_none().into(),
            Err(why) => Truth::Unknown(why),
        }
    }

    fn label(&self) -> String {
        format!("json {}", self.pointer.text())
    }

    fn seen(&self, subject: &Subject<'_>) -> Option<String> {
        match subject.json(&self.pointer) {
            Ok(Found::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    fn reason(&self, subject: &Subject<'_>) -> String {
        let pointer = self.pointer.text();
        match subject.json(&self.pointer) {
            Ok(Found::Text(text)) => format!("the body has {text:?} at {pointer}, which is none of its values"),
            Ok(Found::Other) => format!("the body has neither text nor number at {pointer}"),
            Ok(Found::Absent) => format!("the body has nothing at {pointer}"),
            Err(Unknown::SoFar) => "the body is not complete".to_owned(),
            Err(Unknown::Forever) => "the body is not read: it is no JSON, too long, compressed, or not sent unasked".to_owned(),
            Err(Unknown::Ambiguous(_)) => format!("the body has a name on the way to {pointer} twice, or in other letter case"),
        }
    }

    fn values(&self) -> Vec<String> {
        self.values.texts()
    }

    fn spelling(&self) -> String {
        format!("{:?} {}", self.pointer.text(), self.values.spelling())
    }

    fn covers(&self, other: &Self) -> bool {
        self.pointer == other.pointer && self.values.covers(&other.values)
    }
}

/// One entry of `json`: a pointer, and values as for a header; plain texts are globs.
fn json(entry: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Json> {
    let pointer = Pointer::new(entry.name).filter(|pointer| pointer.text().len() <= JSON_POINTER_BYTES_MAX);
    if pointer.is_none() {
        let message = format!("\"{}\" is not a JSON pointer (RFC 6901)", entry.name);
        problems.error(
            &entry.place.key(),
            message,
            "write the names with a `/` before each, such as `/model` or `/options/seed`",
        );
    }
    let values = Values::read(entry, MANNER, context, problems)?;
    Some(Json { pointer: pointer?, values })
}
