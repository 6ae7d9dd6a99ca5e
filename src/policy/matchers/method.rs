//! `method`: the method of a request.

use super::super::condition::alternatives;
use super::*;

/// The method is one of these, letter by letter (RFC 9110 9.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Method(Vec<String>);

impl Test for Method {
    const NAME: &'static str = "method";

    fn read(field: &Field<'_>, _: Context<'_>, problems: &mut Problems) -> Option<Vec<Self>> {
        Some(vec![Self(alternatives(field, method, problems)?)])
    }

    fn holds(&self, subject: &Subject<'_>) -> Truth {
        subject.http().is_some_and(|request| self.0.iter().any(|method| *method == request.method)).into()
    }

    fn seen(&self, subject: &Subject<'_>) -> Option<String> {
        subject.http().map(|request| request.method.to_string())
    }

    fn reason(&self, subject: &Subject<'_>) -> String {
        format!("method {} is not among its methods", self.seen(subject).unwrap_or_default())
    }

    fn values(&self) -> Vec<String> {
        self.0.clone()
    }

    fn spelling(&self) -> String {
        format!("{:?}", self.0)
    }

    fn covers(&self, other: &Self) -> bool {
        each_is_covered(&self.0, &other.0, |this, other| this == other)
    }
}

fn method(item: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let text = item.text(problems)?;
    let is_method = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_'));
    if !is_method {
        let remedy = "methods are in capital letters: GET, HEAD, POST, ...";
        problems.error(&item.place, format!("\"{text}\" is not a method"), remedy);
        return None;
    }
    Some(text.to_owned())
}
