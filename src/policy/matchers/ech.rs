//! `ech`: whether a TLS client sends an encrypted hello within the one that is seen.

use super::super::yaml::Value;
use super::*;

/// The client sends Encrypted Client Hello, or what looks like it; or it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Ech(bool);

impl Test for Ech {
    const NAME: &'static str = "ech";

    fn read(field: &Field<'_>, _: Context<'_>, problems: &mut Problems) -> Option<Vec<Self>> {
        match field.value {
            Value::Bool(wanted) => Some(vec![Self(*wanted)]),
            _ => {
                field.expected("`true` or `false`", problems);
                None
            }
        }
    }

    fn holds(&self, subject: &Subject<'_>) -> Truth {
        subject.tls().is_some_and(|hello| hello.has_ech() == self.0).into()
    }

    fn seen(&self, subject: &Subject<'_>) -> Option<String> {
        subject.tls().map(|hello| hello.has_ech().to_string())
    }

    fn reason(&self, _: &Subject<'_>) -> String {
        if self.0 { "the client sends no encrypted hello" } else { "the client sends an encrypted hello" }.to_owned()
    }

    fn values(&self) -> Vec<String> {
        vec![self.0.to_string()]
    }

    fn spelling(&self) -> String {
        self.0.to_string()
    }
}
