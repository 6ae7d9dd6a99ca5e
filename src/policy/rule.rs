//! Rules as the file writes them: `name`, `when`, `send_to`.

use super::cluster::NodeNames;
use super::condition;
use super::reader::Field;
use super::report::Problems;
use super::when::When;
use super::yaml::{Place, Value};
use super::{Protocol, Target};
use crate::flow::NodeId;
use crate::limits::cluster_file::{RULE_NAME_BYTES_MAX, RULES_MAX, TARGETS_MAX};
use std::rc::Rc;

/// What a decision says that no rule made. No rule may be called so.
pub(super) const DEFAULT_RULE: &str = "default";
/// What `send_to` calls the node the connection arrived at. No node may be called so.
pub(super) const LOCAL: &str = "local";

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) name: Rc<str>,
    pub(super) when: When,
    pub(super) targets: Vec<Target>,
}

/// The service the rules are for, and who can be sent to.
pub(super) struct Recipients<'a> {
    pub(super) service: &'a str,
    pub(super) names: &'a NodeNames<'a>,
    /// None if it is not known because of another problem.
    pub(super) servers: Option<&'a [(NodeId, u16)]>,
    /// What rules can ask about; none likewise.
    pub(super) inspect: Option<Protocol>,
    /// Whether a server can be known to be down before it is asked.
    pub(super) is_checked: bool,
}

/// Reads the list of rules of a service.
pub(super) fn rules(field: &Field<'_>, recipients: &Recipients<'_>, problems: &mut Problems) -> Vec<Rule> {
    if matches!(field.value, Value::List(items) if items.is_empty()) {
        return Vec::new();
    }
    let Some(items) = field.list(problems) else {
        return Vec::new();
    };
    if items.len() > RULES_MAX {
        let message = format!("a service can have at most {RULES_MAX} rules, here are {}", items.len());
        problems.error(&field.place.key(), message, "let one rule have several values, or split the service");
        return Vec::new();
    }
    let mut rules: Vec<Rule> = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let Some((rule, name_place)) = rule(item, index + 1, recipients, problems) else {
            continue;
        };
        if rules.iter().any(|earlier| earlier.name == rule.name) {
            let message = format!("another rule is already named \"{}\"", rule.name);
            problems.error(&name_place, message, "give every rule a name of its own");
        }
        let shadow = rules.iter().find(|earlier| earlier.when.always() || earlier.when == rule.when);
        if let Some(earlier) = shadow {
            let why = if earlier.when.always() { "matches everything" } else { "has the same conditions" };
            let message = format!("rule \"{}\" can never match: rule \"{}\" before it {why}", rule.name, earlier.name);
            problems.warning(&item.place, message, "put it before that rule, or remove it");
        }
        rules.push(rule);
    }
    rules
}

fn rule(item: &Field<'_>, number: usize, recipients: &Recipients<'_>, problems: &mut Problems) -> Option<(Rule, Place)> {
    let generated = format!("rule {number}");
    let item = &Field { value: item.value, place: item.place.clone(), name: &generated };
    let fields = item.mapping(&["name", "when", "send_to"], problems)?;
    let name_field = fields.optional("name");
    let name_place = name_field.as_ref().map_or(item.place.clone(), |field| field.place.clone());
    let name = match &name_field {
        Some(field) => rule_name(field, problems),
        None => Some(generated.clone()),
    };
    let when = match fields.optional("when") {
        Some(field) => condition::when(&field, recipients.inspect, problems),
        // What is not known may be a misspelled `when`.
        None => fields.is_complete().then(When::default),
    };
    let targets = fields.required("send_to", problems).and_then(|field| send_to(&field, recipients, problems));
    let rule = Rule { name: Rc::from(name?), when: when?, targets: targets? };
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

/// Reads `send_to` or `default`: `local`, a node, a list of them, or `{ nodes: [..] }`.
pub(super) fn send_to(field: &Field<'_>, recipients: &Recipients<'_>, problems: &mut Problems) -> Option<Vec<Target>> {
    let items = match field.value {
        Value::Mapping(_) => {
            let fields = field.mapping_without(&["by", "otherwise"], &["nodes"], problems)?;
            fields.required("nodes", problems)?.one_or_more(problems)?
        }
        _ => field.one_or_more(problems)?,
    };
    if items.len() > TARGETS_MAX {
        let message = format!("`{}` can name at most {TARGETS_MAX} nodes, here are {}", field.name, items.len());
        problems.error(&field.place, message, "name those that should be tried first");
        return None;
    }
    let mut targets = Vec::with_capacity(items.len());
    let mut is_complete = true;
    for item in &items {
        match target(item, recipients, problems) {
            Some(target) if targets.contains(&target) => {
                let message = format!("{} is named twice", item.value.describe());
                problems.error(&item.place, message, "a server is tried once; remove one of them");
            }
            Some(target) => {
                if targets.last() == Some(&Target::Local) && !recipients.is_checked {
                    let message = format!("{} is never tried: the local server before it always answers", item.value.describe());
                    problems.warning(
                        &item.place,
                        message,
                        "put `local` last; with `health`, others follow it that answer while it is down",
                    );
                }
                targets.push(target);
            }
            None => is_complete = false,
        }
    }
    is_complete.then_some(targets)
}

fn target(item: &Field<'_>, recipients: &Recipients<'_>, problems: &mut Problems) -> Option<Target> {
    let name = item.text(problems)?;
    if name == LOCAL {
        return Some(Target::Local);
    }
    let node = recipients.names.resolve(name, &item.place, problems)?;
    let serves = recipients.servers.is_none_or(|servers| servers.iter().any(|server| server.0 == node));
    if !serves {
        let message = format!("node `{name}` does not serve `{}`", recipients.service);
        problems.error(&item.place, message, format!("add `{name}` to `servers` of `{}`", recipients.service));
        return None;
    }
    Some(Target::Node(node))
}
