//! The conditions of a rule as the file writes them: `when`, with `any`, `all` and `not` in it, and the shapes that the
//! values of matchers share. The matchers read themselves.

use super::Protocol;
use super::matchers::{Context, Matcher, NAMES};
use super::name::Wanted;
use super::reader::{Field, Mapping};
use super::report::Problems;
use super::when::{Condition, When};
use super::yaml::Value;
use crate::limits::cluster_file::{ALTERNATIVES_MAX, CONDITION_DEPTH_MAX, CONDITIONS_MAX};

const ANY: &str = "any";
const ALL: &str = "all";
const NOT: &str = "not";

/// Reads `when`. `None` if anything of it is wrong: without a condition that could not be read, a rule seems to match more
/// than it does.
pub(super) fn when(field: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<When> {
    let when = conditions(field, context, CONDITION_DEPTH_MAX, problems)?;
    let count = when.matchers().len();
    if count > CONDITIONS_MAX {
        let message = format!("a rule can have at most {CONDITIONS_MAX} matchers, here are {count}");
        problems.error(&field.place.key(), message, "split the rule, or let one matcher have several values");
        return None;
    }
    Some(when)
}

fn conditions(field: &Field<'_>, context: Context<'_>, depth_left: usize, problems: &mut Problems) -> Option<When> {
    let known: Vec<&str> = KNOWN_FIRST.iter().copied().chain(others()).chain([ANY, ALL, NOT]).collect();
    let fields = field.mapping(&known, problems)?;
    let mut when = When::default();
    let mut is_complete = can_be_known(&fields, context.inspect, problems) && fields.is_complete();
    for field in NAMES.iter().filter_map(|name| fields.optional(name)) {
        match Matcher::read(&field, context, problems) {
            Some(matchers) => when.conditions.extend(matchers.into_iter().map(Condition::Test)),
            None => is_complete = false,
        }
    }
    for field in [ANY, ALL, NOT].iter().filter_map(|name| fields.optional(name)) {
        let Some(depth_left) = depth_left.checked_sub(1) else {
            let message = format!("`{}` is nested too deeply: conditions go {CONDITION_DEPTH_MAX} deep", field.name);
            problems.error(&field.place.key(), message, "write it as several rules");
            return None;
        };
        match nested(&field, context, depth_left, problems) {
            Some(condition) => when.conditions.push(condition),
            None => is_complete = false,
        }
    }
    is_complete.then_some(when)
}

/// Reads the value of `any`, `all` or `not`.
fn nested(field: &Field<'_>, context: Context<'_>, depth_left: usize, problems: &mut Problems) -> Option<Condition> {
    if field.name == NOT {
        return Some(Condition::Not(Box::new(conditions(field, context, depth_left, problems)?)));
    }
    let items = field.list(problems)?;
    if items.len() > ALTERNATIVES_MAX {
        too_many(field, items.len(), problems);
        return None;
    }
    let branches: Vec<When> = items.iter().filter_map(|item| conditions(item, context, depth_left, problems)).collect();
    let is_complete = branches.len() == items.len();
    let condition = if field.name == ANY { Condition::Any(branches) } else { Condition::All(branches) };
    is_complete.then_some(condition)
}

/// The matchers that a message lists first.
const KNOWN_FIRST: [&str; 9] = ["host", "path", "method", "query", "header", "cookie", "sni", "alpn", "client"];

fn others() -> impl Iterator<Item = &'static str> {
    NAMES.iter().copied().filter(|name| !KNOWN_FIRST.contains(name))
}

/// Whether none of these matchers asks about a protocol that is not the one inspected.
fn can_be_known(fields: &Mapping<'_>, inspect: Option<Protocol>, problems: &mut Problems) -> bool {
    let Some(inspect) = inspect else {
        return false;
    };
    let mut can = true;
    for name in NAMES {
        let asks = Protocol::ALL.into_iter().find(|protocol| protocol.matchers().contains(name));
        let Some(other) = asks.filter(|other| !inspect.knows(*other)) else { continue };
        let Some(field) = fields.optional(name) else { continue };
        let message = format!("`{name}` can never be known: the service has `inspect: {}`", inspect.word());
        let matchers = inspect.matchers().iter().map(|matcher| format!("`{matcher}`")).collect::<Vec<_>>().join(", ");
        let remedy = format!("match {matchers} or `client` here, or write `inspect: {}` in the service", other.word());
        problems.error(&field.place.key(), message, remedy);
        can = false;
    }
    can
}

/// One value or a list of values, read by `read`; `None` if any could not be.
pub(super) fn alternatives<T>(
    field: &Field<'_>,
    read: impl Fn(&Field<'_>, &mut Problems) -> Option<T>,
    problems: &mut Problems,
) -> Option<Vec<T>> {
    let items = field.one_or_more(problems)?;
    if items.len() > ALTERNATIVES_MAX {
        too_many(field, items.len(), problems);
        return None;
    }
    let values: Vec<T> = items.iter().filter_map(|item| read(item, problems)).collect();
    (values.len() == items.len()).then_some(values)
}

fn too_many(field: &Field<'_>, count: usize, problems: &mut Problems) {
    let message = format!("`{}` can have at most {ALTERNATIVES_MAX} values, here are {count}", field.name);
    problems.error(&field.place, message, "split the rule");
}

/// `true` and `false` ask whether there is one.
pub(super) fn presence<T>(item: &Field<'_>) -> Option<Wanted<T>> {
    match item.value {
        Value::Bool(true) => Some(Wanted::Present),
        Value::Bool(false) => Some(Wanted::Absent),
        _ => None,
    }
}
