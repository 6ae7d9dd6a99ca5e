//! `path`: the path of a request.

use super::super::pattern::Pattern;
use super::values::{Form, Manner, read_patterns};
use super::*;

/// The path, in normal form, fits one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Path(pub(in crate::policy) Vec<Pattern>);

impl Test for Path {
    const NAME: &'static str = "path";

    fn read(field: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Vec<Self>> {
        Some(vec![Self(read_patterns(field, MANNER, context, problems)?)])
    }

    fn holds(&self, subject: &Subject<'_>) -> Truth {
        subject.http().is_some_and(|request| self.0.iter().any(|path| path.matches(&request.path))).into()
    }

    fn seen(&self, subject: &Subject<'_>) -> Option<String> {
        subject.http().map(|request| String::from_utf8_lossy(&request.path).into_owned())
    }

    fn reason(&self, subject: &Subject<'_>) -> String {
        format!("path {} fits none of its patterns", self.seen(subject).unwrap_or_default())
    }

    fn values(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    fn spelling(&self) -> String {
        let spelling = |pattern: &Pattern| pattern.glob().unwrap_or_else(|| pattern.spelling());
        format!("{:?}", self.0.iter().map(spelling).collect::<Vec<_>>())
    }

    fn always(&self) -> bool {
        self.0.iter().any(Pattern::matches_all)
    }

    fn covers(&self, other: &Self) -> bool {
        each_is_covered(&self.0, &other.0, Pattern::covers)
    }
}

const MANNER: Manner = Manner { plain: Form::Glob, objection, first: b"/*" };

fn objection(_: &str, text: &str, form: Form) -> Option<(String, &'static str)> {
    let is_escape = |at: usize| text.as_bytes().get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    if form == Form::Regex {
        None
    } else if !text.starts_with(['/', '*']) {
        Some((format!("path pattern \"{text}\" matches nothing: paths begin with `/`"), "begin it with `/` or `*`"))
    } else if text.match_indices('%').any(|(at, _)| is_escape(at)) {
        let message = format!("path pattern \"{text}\" has a percent-encoded character: paths are compared decoded");
        Some((message, "write the character itself, or `?` for any character"))
    } else if text.chars().any(char::is_control) {
        Some(("a path pattern cannot have control characters".to_owned(), "remove them"))
    } else {
        None
    }
}
