//! The values that several matchers share: whether there is one, a text, or a pattern in one of its forms.

use super::super::condition::{alternatives, presence};
use super::super::expression::Expression;
use super::super::name::Wanted;
use super::super::pattern::Pattern;
use super::super::truth::Unknown;
use super::super::yaml::Value;
use super::*;
use crate::limits::cluster_file::{ALTERNATIVES_MAX, PATTERN_BYTES_MAX, REGEXES_MAX};

/// What is wanted of a value that a client may leave out or send several times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Values(pub(super) Vec<Wanted<Pattern>>);

/// Where values stand: how they are read there.
#[derive(Clone, Copy)]
pub(in crate::policy) struct Manner {
    /// What a plain text is.
    pub(super) plain: Form,
    /// Why the matcher of this name cannot have this text, and what to write instead.
    pub(super) objection: fn(&str, &str, Form) -> Option<(String, &'static str)>,
    /// What values can begin with; anything if it is empty.
    pub(super) first: &'static [u8],
}

/// How a pattern is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Form {
    Exact,
    Prefix,
    Glob,
    Regex,
}

const FORMS: [(&str, Form); 4] = [("exact", Form::Exact), ("prefix", Form::Prefix), ("glob", Form::Glob), ("regex", Form::Regex)];

impl Values {
    /// Reads one or several values: `true`, `false`, texts, and mappings such as `{ prefix: a }`.
    pub(super) fn read(field: &Field<'_>, manner: Manner, context: Context<'_>, problems: &mut Problems) -> Option<Self> {
        let read = |item: &Field<'_>, problems: &mut Problems| match presence(item) {
            Some(presence) => Some(vec![presence]),
            None => Some(patterns(item, manner, context, problems)?.into_iter().map(Wanted::Value).collect()),
        };
        flattened(field, alternatives(field, read, problems)?, problems).map(Self)
    }

    /// Whether a client that sends these values, in order, is one that is wanted. Servers differ in which of several they
    /// take: unless all of them fit, or none does, nobody can know.
    pub(super) fn hold<V: AsRef<[u8]>>(&self, sent: impl Iterator<Item = V>) -> Truth {
        let (mut some_fit, mut some_do_not) = (false, false);
        for value in sent {
            if self.fits(value.as_ref()) { some_fit = true } else { some_do_not = true }
        }
        match (some_fit, some_do_not) {
            (true, true) => Truth::Unknown(Unknown::Forever),
            (true, false) => Truth::Yes,
            (false, true) => Truth::No,
            (false, false) => self.wants_none().into(),
        }
    }

    pub(super) fn fits(&self, value: &[u8]) -> bool {
        self.0.iter().any(|wanted| match wanted {
            Wanted::Present => true,
            Wanted::Absent => false,
            Wanted::Value(pattern) => pattern.matches(value),
        })
    }

    pub(super) fn wants_none(&self) -> bool {
        self.0.iter().any(|wanted| matches!(wanted, Wanted::Absent))
    }

    pub(super) fn wants_any(&self) -> bool {
        self.0.iter().any(|wanted| matches!(wanted, Wanted::Present))
    }

    pub(super) fn texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// The first version had texts without patterns, and presence as an empty list.
    pub(super) fn spelling(&self) -> String {
        let exact = |wanted: &Wanted<Pattern>| match wanted {
            Wanted::Value(Pattern::Exact(text)) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        };
        match &self.0[..] {
            [Wanted::Present] => "[]".to_owned(),
            values => match values.iter().map(exact).collect::<Option<Vec<String>>>() {
                Some(texts) => format!("{texts:?}"),
                None => format!("forms {}", spelt(values)),
            },
        }
    }

    pub(super) fn always(&self) -> bool {
        Wanted::everything(&self.0)
    }

    pub(super) fn covers(&self, other: &Self) -> bool {
        each_is_covered(&self.0, &other.0, |this, other| this.covers(other, Pattern::covers))
    }
}

fn spelt(values: &[Wanted<Pattern>]) -> String {
    let spelt = |value: &Wanted<Pattern>| match value {
        Wanted::Present => "present".to_owned(),
        Wanted::Absent => "absent".to_owned(),
        Wanted::Value(pattern) => pattern.spelling(),
    };
    values.iter().map(spelt).collect::<Vec<_>>().join(" ")
}

/// Reads one or several patterns.
pub(super) fn read_patterns(
    field: &Field<'_>,
    manner: Manner,
    context: Context<'_>,
    problems: &mut Problems,
) -> Option<Vec<Pattern>> {
    let read = |item: &Field<'_>, problems: &mut Problems| patterns(item, manner, context, problems);
    flattened(field, alternatives(field, read, problems)?, problems)
}

fn flattened<T>(field: &Field<'_>, values: Vec<Vec<T>>, problems: &mut Problems) -> Option<Vec<T>> {
    let values: Vec<T> = values.into_iter().flatten().collect();
    if values.len() > ALTERNATIVES_MAX {
        let message = format!("`{}` can have at most {ALTERNATIVES_MAX} values, here are {}", field.name, values.len());
        problems.error(&field.place, message, "split the rule");
        return None;
    }
    Some(values)
}

/// One item: a plain text, or a mapping of forms, each with one or several texts.
fn patterns(item: &Field<'_>, manner: Manner, context: Context<'_>, problems: &mut Problems) -> Option<Vec<Pattern>> {
    if !matches!(item.value, Value::Mapping(_)) {
        return Some(vec![pattern(item, manner.plain, manner, context, problems)?]);
    }
    let fields = item.mapping(&FORMS.map(|form| form.0), problems)?;
    let mut all = Vec::new();
    let mut is_complete = fields.is_complete();
    for (name, form) in FORMS {
        let Some(field) = fields.optional(name) else { continue };
        // Messages speak of the matcher, not of the form.
        let titled = Field { name: item.name, ..field };
        let read = |item: &Field<'_>, problems: &mut Problems| pattern(item, form, manner, context, problems);
        match alternatives(&titled, read, problems) {
            Some(patterns) => all.extend(patterns),
            None => is_complete = false,
        }
    }
    is_complete.then_some(all)
}

fn pattern(item: &Field<'_>, form: Form, manner: Manner, context: Context<'_>, problems: &mut Problems) -> Option<Pattern> {
    let text = item.text(problems)?;
    if text.len() > PATTERN_BYTES_MAX {
        let message = format!("a {} pattern can have at most {PATTERN_BYTES_MAX} bytes", item.name);
        problems.error(&item.place, message, "shorten it with `*`");
        return None;
    }
    if let Some((message, remedy)) = (manner.objection)(item.name, text, form) {
        problems.error(&item.place, message, remedy);
        return None;
    }
    if form == Form::Prefix && text.is_empty() {
        problems.error(&item.place, "everything begins with nothing", "write `true` for any value");
        return None;
    }
    match form {
        Form::Exact => Some(Pattern::Exact(text.as_bytes().into())),
        Form::Prefix => Some(Pattern::Prefix(text.as_bytes().into())),
        Form::Glob => Some(Pattern::new(text)),
        Form::Regex => expression(item, text, manner, context, problems).map(Pattern::Regex),
    }
}

fn expression(item: &Field<'_>, text: &str, manner: Manner, context: Context<'_>, problems: &mut Problems) -> Option<Expression> {
    let count = context.regexes.get() + 1;
    context.regexes.set(count);
    if count > REGEXES_MAX {
        if count == REGEXES_MAX + 1 {
            let message = format!("a service can have at most {REGEXES_MAX} regular expressions");
            problems.error(&item.place, message, "write prefixes or globs where they will do");
        }
        return None;
    }
    match Expression::new(text) {
        Ok(expression) => {
            if expression.is_futile(b"") {
                problems.warning(&item.place, format!("\"{text}\" fits nothing"), "an expression must fit the whole value");
            } else if expression.is_futile(manner.first) {
                let message = format!("\"{text}\" fits no {}: it must fit the whole, which begins with `/`", item.name);
                problems.warning(&item.place, message, "begin it with `/` or `.*`");
            }
            Some(expression)
        }
        Err(why) => {
            let remedy = "see https://docs.rs/regex/latest/regex/#syntax for what can be written";
            problems.error(&item.place, format!("\"{text}\" is no regular expression: {why}"), remedy);
            None
        }
    }
}

/// Why a header, cookie or query parameter cannot have a value: for those that come without white space around them.
pub(super) fn no_space_around(name: &str, text: &str, form: Form) -> Option<(String, &'static str)> {
    let is_cut = match form {
        Form::Exact => text.trim_ascii() != text,
        Form::Prefix => text.trim_ascii_start() != text,
        Form::Glob | Form::Regex => return None,
    };
    let can_never = is_cut || text.chars().any(char::is_control);
    can_never.then(|| (format!("{name} can never have this value"), "leave out white space at both ends and control characters"))
}
