//! `key`: the first key of the first command of a Redis client.

use super::values::{Form, Manner, Values};
use super::*;

/// The key is one of these, or there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Key(Values);

const MANNER: Manner = Manner { plain: Form::Glob, objection: |_, _, _| None, first: b"" };

impl Test for Key {
    const NAME: &'static str = "key";

    fn read(field: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Vec<Self>> {
        Some(vec![Self(Values::read(field, MANNER, context, problems)?)])
    }

    fn holds(&self, subject: &Subject<'_>) -> Truth {
        let Some(command) = subject.content.redis() else { return Truth::No };
        command.key.map_or(self.0.wants_none(), |key| self.0.fits(key)).into()
    }

    fn seen(&self, subject: &Subject<'_>) -> Option<String> {
        subject.content.redis()?.key.map(|key| String::from_utf8_lossy(key).into_owned())
    }

    fn reason(&self, subject: &Subject<'_>) -> String {
        match self.seen(subject) {
            Some(key) => format!("key {key:?} is none of its keys"),
            None => "the command has no key".to_owned(),
        }
    }

    fn values(&self) -> Vec<String> {
        self.0.texts()
    }

    fn spelling(&self) -> String {
        self.0.spelling()
    }

    fn always(&self) -> bool {
        self.0.always()
    }

    fn covers(&self, other: &Self) -> bool {
        self.0.covers(&other.0)
    }
}
