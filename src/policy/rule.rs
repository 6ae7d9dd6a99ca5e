//! Rules as the file writes them: `name`, `when`, `canary`, `send_to`.

use super::Protocol;
use super::choice::{self, Canary, Choice, Key, Recipients};
use super::condition;
use super::explain::Unmet;
use super::index::Index;
use super::reader::Field;
use super::report::Problems;
use super::subject::Subject;
use super::truth::Truth;
use super::when::When;
use super::yaml::{Place, Value};
use crate::limits::cluster_file::{COVERING_COMPARISONS_MAX, RULE_NAME_BYTES_MAX, RULES_MAX};
use std::collections::HashSet;
use std::rc::Rc;

/// What a decision says that no rule made. No rule may be called so.
pub(super) const DEFAULT_RULE: &str = "default";
/// What `send_to` calls the node the connection arrived at. No node may be called so.
pub(super) const LOCAL: &str = "local";

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) name: Rc<str>,
    /// Shared by what the file means for every node: there may be many rules.
    pub(super) when: Rc<When>,
    /// Which of the connections that fit; all if there is none.
    pub(super) canary: Option<Canary>,
    pub(super) choice: Rc<Choice>,
}

impl Rule {
    /// Whether it matches.
    pub(super) fn holds(&self, subject: &Subject<'_>) -> Truth {
        match &self.canary {
            Some(canary) => match self.when.holds(subject) {
                Truth::No => Truth::No,
                // Whoever is not in need not wait for the rest.
                when => Truth::all([when, canary.holds(subject)].into_iter()),
            },
            None => self.when.holds(subject),
        }
    }

    /// The first condition that does not hold or is not known to; `None` when it matches.
    pub(super) fn mismatch(&self, subject: &Subject<'_>) -> Option<Unmet> {
        let mismatch = self.when.mismatch(subject);
        mismatch.or_else(|| self.canary.as_ref().and_then(|canary| canary.unmet(subject)))
    }

    /// The pieces of a request that it goes by, apart from its conditions.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.choice.key().into_iter().chain(self.canary.as_ref().map(|canary| &canary.of))
    }

    /// Its conditions, one line, as an operator reads it.
    pub(super) fn conditions(&self) -> String {
        match &self.canary {
            Some(canary) if self.when.always() => canary.to_string(),
            Some(canary) => format!("{}, {canary}", self.when),
            None => self.when.to_string(),
        }
    }
}

/// Reads the list of rules of a service; the index finds them by their positions.
pub(super) fn rules(field: &Field<'_>, recipients: &Recipients<'_>, problems: &mut Problems) -> (Vec<Rule>, Index) {
    let mut index = Index::default();
    if matches!(field.value, Value::List(items) if items.is_empty()) {
        return (Vec::new(), index);
    }
    let Some(items) = field.list(problems) else {
        return (Vec::new(), index);
    };
    if items.len() > RULES_MAX {
        let message = format!("a service can have at most {RULES_MAX} rules, here are {}", items.len());
        problems.error(&field.place.key(), message, "let one rule have several values, or split the service");
        return (Vec::new(), index);
    }
    let mut rules: Vec<Rule> = Vec::with_capacity(items.len());
    let mut names = HashSet::new();
    let mut comparisons_left = COVERING_COMPARISONS_MAX;
    for (number, item) in items.iter().enumerate() {
        let Some((rule, name_place)) = rule(item, number + 1, recipients, problems) else {
            continue;
        };
        if !names.insert(Rc::clone(&rule.name)) {
            let message = format!("another rule is already named \"{}\"", rule.name);
            problems.error(&name_place, message, "give every rule a name of its own");
        }
        // With `auto`, what holds for everything of one protocol holds for nothing of another.
        let is_auto = recipients.context.inspect == Some(Protocol::Auto);
        let earlier = covering(&rule, &rules, &index, &mut comparisons_left).filter(|_| !is_auto);
        if let Some(earlier) = earlier {
            let why = match &earlier.when {
                when if when.always() => "matches everything",
                when if *when == rule.when => "has the same conditions",
                _ => "matches whatever this one would",
            };
            let message = format!("rule \"{}\" can never match: rule \"{}\" before it {why}", rule.name, earlier.name);
            problems.warning(&item.place, message, "put it before that rule, or remove it");
        }
        if let Ok(position) = u32::try_from(rules.len()) {
            index.insert(&rule.when, position);
        }
        rules.push(rule);
    }
    (rules, index)
}

/// The first of the earlier rules that leaves nothing for this one, as far as that can be told from how they are written.
fn covering<'r>(rule: &Rule, earlier: &'r [Rule], index: &Index, comparisons_left: &mut usize) -> Option<&'r Rule> {
    let mut first: Option<u32> = None;
    index.covering_candidates(&rule.when, |positions| {
        for position in positions.iter().copied().take_while(|position| first.is_none_or(|first| *position < first)) {
            let candidate = usize::try_from(position).ok().and_then(|position| earlier.get(position));
            if candidate.is_some_and(|earlier| earlier.canary.is_none() && earlier.when.covers(&rule.when, comparisons_left)) {
                first = Some(position);
                break;
            }
        }
    });
    earlier.get(usize::try_from(first?).ok()?)
}

fn rule(item: &Field<'_>, number: usize, recipients: &Recipients<'_>, problems: &mut Problems) -> Option<(Rule, Place)> {
    let generated = format!("rule {number}");
    let item = &item.named(&generated).like("`- { when: { path: \"/images/*\" }, send_to: NODE }`");
    let fields = item.mapping(&["name", "when", "canary", "send_to"], problems)?;
    let name_field = fields.optional("name");
    let name_place = name_field.as_ref().map_or(item.place.clone(), |field| field.place.clone());
    let name = match &name_field {
        Some(field) => rule_name(field, problems),
        None => Some(generated.clone()),
    };
    let when = match fields.optional("when") {
        Some(field) => condition::when(&field, recipients.context, problems),
        // What is not known may be a misspelled `when`.
        None => fields.is_complete().then(When::default),
    };
    let canary = match fields.optional("canary") {
        Some(field) => {
            let given = name_field.as_ref().and(name.as_deref());
            choice::canary(&field, given, recipients, problems).map(Some)
        }
        None => Some(None),
    };
    let called = name.as_deref().unwrap_or_default();
    let choice = fields.required("send_to", problems).and_then(|field| choice::send_to(&field, called, recipients, problems));
    let rule = Rule { name: Rc::from(name?), when: Rc::new(when?), canary: canary?, choice: Rc::new(choice?) };
    Some((rule, name_place))
}

fn rule_name(field: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let name = field.text(problems)?;
    if name.trim().is_empty() || name.len() > RULE_NAME_BYTES_MAX || name.chars().any(char::is_control) {
        let message = format!("a rule's name must have from 1 to {RULE_NAME_BYTES_MAX} printable characters");
        problems.error(&field.place, message, "shorten it, or leave `name` out");
        return None;
    }
    if name == DEFAULT_RULE {
        let message = format!("no rule can be named \"{DEFAULT_RULE}\": the log calls the service's default so");
        problems.error(&field.place, message, "choose another name");
        return None;
    }
    Some(name.to_owned())
}
