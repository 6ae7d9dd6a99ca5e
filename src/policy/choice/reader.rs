//! `send_to`, `default`, `canary` and `weight` as the file writes them.

use super::canary::WHOLE;
use super::key::KeyError;
use super::{By, Canary, Choice, Finally, Key, Locality, Member, Otherwise, rendezvous};
use crate::flow::NodeId;
use crate::limits::cluster_file::{self as bounds, NODES_MAX, TARGETS_MAX};
use crate::policy::cluster::NodeNames;
use crate::policy::matchers::Context;
use crate::policy::reader::{Field, Mapping, nearest};
use crate::policy::report::Problems;
use crate::policy::rule::LOCAL;
use crate::policy::yaml::Value;
use crate::policy::{Protocol, Target};

/// The service the rules are for, and who can be sent to.
pub(in crate::policy) struct Recipients<'a> {
    pub(in crate::policy) service: &'a str,
    pub(in crate::policy) names: &'a NodeNames<'a>,
    /// None if it is not known because of another problem.
    pub(in crate::policy) servers: Option<&'a [(NodeId, u16)]>,
    /// Weights of servers, where it is not 1.
    pub(in crate::policy) weights: &'a [(NodeId, u32)],
    /// Whether a server can be known to be down before it is asked.
    pub(in crate::policy) is_checked: bool,
    /// What rules can ask about.
    pub(in crate::policy) context: Context<'a>,
}

/// The ways to choose, as they are written.
const WAYS: [&str; 5] = ["round_robin", "random", "least_connections", "hash(KEY)", "locality(KEY)"];

/// Reads `weight`.
pub(in crate::policy) fn weight(field: &Field<'_>, problems: &mut Problems) -> Option<u32> {
    field.integer(bounds::WEIGHT, problems).and_then(|weight| u32::try_from(weight).ok())
}

/// Reads `send_to` or `default`: `local`, a node, a list of them, or `{ nodes: .., by: .., otherwise: .. }`.
pub(in crate::policy) fn send_to(
    field: &Field<'_>,
    rule: &str,
    recipients: &Recipients<'_>,
    problems: &mut Problems,
) -> Option<Choice> {
    let id = rendezvous::hash(format!("{}\0{rule}", recipients.service).as_bytes());
    let Value::Mapping(_) = field.value else {
        let members = members(field, false, recipients, problems)?;
        return Some(Choice { id, members, by: By::Order, otherwise: Otherwise::DEFAULT });
    };
    let fields = field.mapping(&["nodes", "by", "otherwise", "bound", "low", "high", "decay"], problems)?;
    let mut is_complete = fields.is_complete();
    let by_field = fields.optional("by");
    let by = match &by_field {
        Some(by_field) => by(by_field, &fields, recipients, problems),
        None => refuse_parameters(&fields, None, &[], problems).then_some(By::Order),
    };
    let otherwise = match fields.optional("otherwise") {
        Some(field) => otherwise(&field, problems),
        None => Some(Otherwise::DEFAULT),
    };
    let nodes = fields.required("nodes", problems)?;
    let members = members(&nodes, by_field.is_some(), recipients, problems);
    let (by, members, otherwise) = (by?, members?, otherwise?);
    if by == By::Order {
        if !otherwise.next && members.len() > 1 {
            let word = otherwise.word();
            let message = format!("with `otherwise: {word}` only the first node of a list would be tried");
            let remedy = match otherwise.finally {
                Finally::Local => "leave `otherwise` out: when all have failed, the local server answers; or say `by`",
                Finally::Reset => "write `otherwise: [next, reset]` to try all of them first; or say `by`",
            };
            problems.error(&fields.optional("otherwise")?.place, message, remedy);
            is_complete = false;
        }
    } else {
        is_complete &= pool_is_right(&nodes, &members, by.to_string(), by_has_key(&by), problems);
    }
    is_complete.then_some(Choice { id, members, by, otherwise })
}

fn by_has_key(by: &By) -> bool {
    matches!(by, By::Hash { .. } | By::Locality { .. })
}

/// What must hold of nodes of which one is chosen.
fn pool_is_right(nodes: &Field<'_>, members: &[Member], by: String, same_everywhere: bool, problems: &mut Problems) -> bool {
    if members.iter().all(|member| member.weight == 0) {
        let message = "all of these nodes have the weight 0: nobody can be chosen";
        problems.error(&nodes.place, message, "give one of them a weight of 1 or more, here or in `servers`");
        return false;
    }
    if same_everywhere && members.iter().any(|member| member.target == Target::Local) {
        let message = format!("`local` is another node on every node: with `by: {by}` they could not agree");
        problems.error(&nodes.place, message, "name the nodes; on a node of its own name a connection stays");
        return false;
    }
    if let [_] = members {
        let message = format!("`by: {by}` has only one node to choose from");
        problems.warning(&nodes.place, message, "name more nodes, or write `send_to: NODE`");
    }
    true
}

/// Reads the nodes: one, a list, or a mapping of nodes and weights.
fn members(field: &Field<'_>, is_pool: bool, recipients: &Recipients<'_>, problems: &mut Problems) -> Option<Vec<Member>> {
    let (items, weighted) = match field.value {
        Value::Mapping(_) => (field.entries(problems)?, true),
        _ => (field.one_or_more(problems)?, false),
    };
    if weighted && !is_pool {
        let message = "weights mean nothing for nodes that are tried in turn";
        let remedy = format!("say how one is chosen, by {}; or write a list", WAYS.map(|way| format!("`by: {way}`")).join(", "));
        problems.error(&field.place, message, remedy);
        return None;
    }
    let most = if is_pool { NODES_MAX } else { TARGETS_MAX };
    if items.len() > most {
        let message = format!("`{}` can name at most {most} nodes, here are {}", field.name, items.len());
        problems.error(&field.place, message, "name those that should be tried first");
        return None;
    }
    let mut members: Vec<Member> = Vec::with_capacity(items.len());
    let mut is_complete = true;
    for item in &items {
        let (name, place) = if weighted {
            (Some(item.name), item.place.key())
        } else {
            (item.text_or(|| name_remedy(item, recipients), problems), item.place.clone())
        };
        if let Some(word) = name.filter(|name| (*name == "reset" || *name == "next") && !recipients.names.has(name)) {
            let message = format!("`{word}` is no node: it says what comes after one that cannot");
            problems.error(&place, message, otherwise_remedy(word, &items, field.name == "nodes"));
            is_complete = false;
            continue;
        }
        let target = name.and_then(|name| target(name, &place, recipients, problems));
        let own_weight = if weighted { weight(item, problems) } else { Some(1) };
        let (Some(name), Some(target), Some(own_weight)) = (name, target, own_weight) else {
            is_complete = false;
            continue;
        };
        if members.iter().any(|member| member.target == target) {
            problems.error(&place, format!("\"{name}\" is named twice"), "a server is tried once; remove one of them");
            continue;
        }
        if !is_pool && !recipients.is_checked && members.last().is_some_and(|member| member.target == Target::Local) {
            let message = format!("\"{name}\" is never tried: the local server before it always answers");
            let remedy = "put `local` last; with `health`, others follow it that answer while it is down";
            problems.warning(&place, message, remedy);
        }
        let of_server = target.node().and_then(|node| recipients.weights.iter().find(|(server, _)| *server == node));
        let weight = if weighted { own_weight } else { of_server.map_or(1, |(_, weight)| *weight) };
        members.push(Member::new(target, weight, name));
    }
    is_complete.then_some(members)
}

/// What to write instead of something that is no name.
fn name_remedy(item: &Field<'_>, recipients: &Recipients<'_>) -> String {
    match item.value {
        Value::Integer(number) if recipients.names.has(&number.to_string()) => format!("put it in quotes: `\"{number}\"`"),
        _ if recipients.names.listed().is_empty() => format!("write `{LOCAL}` or the name of a node"),
        _ => format!("write `{LOCAL}` or the name of a node; the nodes are {}", recipients.names.listed()),
    }
}

/// How `next` and `reset` are written that stand among nodes.
fn otherwise_remedy(word: &str, items: &[Field<'_>], is_beside: bool) -> String {
    if word == "next" {
        return "leave it out: the nodes of a list are tried in turn".to_owned();
    }
    let names: Vec<&str> = items
        .iter()
        .filter_map(|item| match item.value {
            Value::Text(name) if name != "reset" && name != "next" => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let otherwise = if names.len() > 1 { "[next, reset]" } else { "reset" };
    if is_beside {
        return format!("write it beside `nodes`: `otherwise: {otherwise}`");
    }
    let names = if names.is_empty() { "NODE".to_owned() } else { names.join(", ") };
    format!("say who answers, and that clients are reset when nobody can: `{{ nodes: [{names}], otherwise: {otherwise} }}`")
}

fn target(
    name: &str,
    place: &crate::policy::yaml::Place,
    recipients: &Recipients<'_>,
    problems: &mut Problems,
) -> Option<Target> {
    if name == LOCAL {
        return Some(Target::Local);
    }
    let node = recipients.names.resolve(name, place, problems)?;
    let serves = recipients.servers.is_none_or(|servers| servers.iter().any(|server| server.0 == node));
    if !serves {
        let message = format!("node `{name}` does not serve `{}`", recipients.service);
        let remedy = format!("add `{name}: {{ port: 80 }}` to `servers` of `{}`", recipients.service);
        problems.error(place, message, remedy);
        return None;
    }
    Some(Target::Node(node))
}

/// Reads `by` with the fields beside it that belong to it.
fn by(field: &Field<'_>, fields: &Mapping<'_>, recipients: &Recipients<'_>, problems: &mut Problems) -> Option<By> {
    let text = field.text_or(|| format!("write one of {}", WAYS.join(", ")), problems)?;
    let (word, argument) = match text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        Some((word, argument)) => (word.trim(), Some(argument.trim())),
        None => (text.trim(), None),
    };
    let parameters: &[&str] = match word {
        "round_robin" | "random" | "least_connections" => &[],
        "hash" => &["bound"],
        "locality" => &["low", "high", "decay"],
        _ => {
            let message = format!("there is no way to choose called \"{text}\"");
            let words = ["round_robin", "random", "least_connections", "hash", "locality"];
            let remedy = match nearest(word, &words) {
                Some(near) if near == "hash" || near == "locality" => format!("did you mean `{near}(KEY)`?"),
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("write one of {}", WAYS.join(", ")),
            };
            problems.error(&field.place, message, remedy);
            return None;
        }
    };
    let is_complete = refuse_parameters(fields, Some(word), parameters, problems);
    let by = match (word, argument) {
        ("round_robin", None) => Some(By::RoundRobin),
        ("random", None) => Some(By::Random),
        ("least_connections", None) => Some(By::LeastConnections),
        ("hash", _) => {
            let key = key_of(field, word, argument, recipients, problems);
            let bound = fields.optional("bound").map(|field| bound(&field, problems));
            match bound {
                Some(None) => None,
                bound => key.map(|key| By::Hash { key, bound: bound.flatten() }),
            }
        }
        ("locality", _) => {
            let key = key_of(field, word, argument, recipients, problems);
            let limits = locality(fields, problems);
            key.zip(limits).map(|(key, limits)| By::Locality { key, limits })
        }
        (word, _) => {
            problems.error(&field.place, format!("`{word}` goes by nothing in the request"), format!("write `by: {word}`"));
            None
        }
    };
    by.filter(|_| is_complete)
}

/// Says of every parameter that does not belong to the way of choosing.
fn refuse_parameters(fields: &Mapping<'_>, by: Option<&str>, own: &[&str], problems: &mut Problems) -> bool {
    let mut is_right = true;
    for (name, owner) in [("bound", "hash(KEY)"), ("low", "locality(KEY)"), ("high", "locality(KEY)"), ("decay", "locality(KEY)")]
    {
        if let Some(field) = fields.optional(name).filter(|_| !own.contains(&name)) {
            let message = match by {
                Some(by) => format!("`{name}` means nothing with `by: {by}`"),
                None => format!("`{name}` means nothing for nodes that are tried in turn"),
            };
            problems.error(&field.place.key(), message, format!("remove it, or write `by: {owner}`"));
            is_right = false;
        }
    }
    is_right
}

/// Reads the key in `hash(KEY)` or `locality(KEY)`.
fn key_of(
    field: &Field<'_>,
    word: &str,
    argument: Option<&str>,
    recipients: &Recipients<'_>,
    problems: &mut Problems,
) -> Option<Key> {
    match argument {
        None | Some("") => {
            let message = format!("`{word}` does not say what it goes by");
            problems.error(&field.place, message, format!("write `by: \"{word}(KEY)\"`; the keys are {}", Key::KINDS));
            None
        }
        Some(argument) => key(field, argument, recipients, problems),
    }
}

/// Reads a key, which the service must be able to know.
fn key(field: &Field<'_>, text: &str, recipients: &Recipients<'_>, problems: &mut Problems) -> Option<Key> {
    let key = match Key::parse(text) {
        Ok(key) => key,
        Err(error) => {
            let kind = text.split(':').next().unwrap_or(text);
            let (message, remedy) = match error {
                KeyError::Unknown => (format!("there is no key \"{text}\""), format!("the keys are {}", Key::KINDS)),
                KeyError::NameMissing => (format!("the key `{kind}` needs a name"), format!("write `{kind}:NAME`")),
                KeyError::NameUnreadable if kind == "json" => {
                    let remedy = "write the names with a `/` before each, such as `json:/model`";
                    (format!("\"{text}\" has no JSON pointer (RFC 6901)"), remedy.to_owned())
                }
                KeyError::NameUnreadable => {
                    (format!("\"{text}\" names no {kind}"), "write the name as clients send it".to_owned())
                }
                KeyError::TakesNoName => (format!("the key `{kind}` has no name"), format!("write `{kind}`")),
            };
            problems.error(&field.place, message, remedy);
            return None;
        }
    };
    let inspect = recipients.context.inspect?;
    if let Some(protocol) = key.protocol().filter(|protocol| !inspect.knows(*protocol)) {
        let message = format!("`{key}` can never be known: the service has `inspect: {}`", inspect.word());
        let own = match inspect {
            Protocol::Http => "`path`, `host`, `query:NAME`, `header:NAME`, `cookie:NAME` or ",
            Protocol::Tls => "`sni` or ",
            Protocol::Redis => "`key` or ",
            Protocol::Raw | Protocol::Auto | Protocol::None => "",
        };
        let remedy = format!("go by {own}`client` here, or write `inspect: {}` in the service", protocol.word());
        problems.error(&field.place, message, remedy);
        return None;
    }
    Some(key)
}

/// Reads `otherwise`: `next`, `local`, `reset`, or `[next, local]`, `[next, reset]`.
fn otherwise(field: &Field<'_>, problems: &mut Problems) -> Option<Otherwise> {
    let items = field.one_or_more(problems)?;
    let words: Vec<&str> = items
        .iter()
        .map(|item| match item.value {
            Value::Text(text) => text.as_str(),
            _ => "",
        })
        .collect();
    let (next, finally) = match words.as_slice() {
        ["next"] | ["next", "local"] => (true, Finally::Local),
        ["next", "reset"] => (true, Finally::Reset),
        ["local"] => (false, Finally::Local),
        ["reset"] => (false, Finally::Reset),
        _ => {
            let message = match field.value {
                Value::List(_) => "`otherwise` cannot be this list".to_owned(),
                value => format!("`otherwise` cannot be {}", value.describe()),
            };
            problems.error(&field.place, message, "write `next`, `local`, `reset` or `[next, reset]`");
            return None;
        }
    };
    Some(Otherwise { next, finally })
}

/// Reads a number with at most two places as hundredths.
fn hundredths(field: &Field<'_>) -> Option<u32> {
    let value = match field.value {
        Value::Integer(value) => *value as f64,
        Value::Float(value) => *value,
        _ => return None,
    };
    let hundredths = (value * 100.0).round();
    let is_exact = (value * 100.0 - hundredths).abs() < 1e-6 && (0.0..=f64::from(u32::MAX)).contains(&hundredths);
    is_exact.then_some(hundredths as u32)
}

/// Reads `bound`.
fn bound(field: &Field<'_>, problems: &mut Problems) -> Option<u32> {
    let bound = hundredths(field).filter(|bound| bounds::BOUND.contains(bound));
    if bound.is_none() {
        let message =
            format!("`bound` must be a number from 1.01 to 100 with at most two places, here is {}", field.value.describe());
        let remedy = "write how many times its fair share of connections a node may have, such as 1.25";
        problems.error(&field.place, message, remedy);
    }
    bound
}

/// Reads `low`, `high` and `decay`.
fn locality(fields: &Mapping<'_>, problems: &mut Problems) -> Option<Locality> {
    let mut load = |name: &str, default: u32| match fields.optional(name) {
        Some(field) => field.integer(bounds::LOCALITY_LOAD, problems).and_then(|load| u32::try_from(load).ok()),
        None => Some(default),
    };
    let (low, high) = (load("low", bounds::LOCALITY_LOW_DEFAULT), load("high", bounds::LOCALITY_HIGH_DEFAULT));
    let decay = match fields.optional("decay") {
        Some(field) => field.duration(bounds::LOCALITY_DECAY, problems),
        None => Some(bounds::LOCALITY_DECAY_DEFAULT),
    };
    let (low, high, decay) = (low?, high?, decay?);
    if low >= high {
        let field = fields.optional("low").or_else(|| fields.optional("high"))?;
        let message = format!("`low` ({low}) must be less than `high` ({high})");
        problems.error(
            &field.place,
            message,
            "a node with fewer connections than `low` takes targets from one with more than `high`",
        );
        return None;
    }
    Some(Locality { low, high, decay })
}

/// Reads `canary`, of a rule with this name if it has one.
pub(in crate::policy) fn canary(
    field: &Field<'_>,
    rule: Option<&str>,
    recipients: &Recipients<'_>,
    problems: &mut Problems,
) -> Option<Canary> {
    let fields = field.mapping(&["percent", "of"], problems)?;
    let percent = fields.required("percent", problems).and_then(|field| {
        let percent = hundredths(&field).filter(|percent| *percent <= WHOLE);
        if percent.is_none() {
            let message =
                format!("`percent` must be a number from 0 to 100 with at most two places, here is {}", field.value.describe());
            problems.error(&field.place, message, "write how many of a hundred, such as 5 or 0.5");
        }
        percent
    });
    let of = fields.required("of", problems).and_then(|field| {
        let text = field.text(problems)?;
        key(&field, text, recipients, problems)
    });
    let Some(rule) = rule else {
        let message = "a rule with a `canary` needs a name: who is in it is drawn by that name";
        problems.error(&field.place.key(), message, "add `name:`; as long as it stays, the same clients are in");
        return None;
    };
    let is_complete = fields.is_complete();
    let canary = Canary { hundredths: percent?, of: of?, salt: rendezvous::hash(rule.as_bytes()) };
    is_complete.then_some(canary)
}
