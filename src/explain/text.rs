//! An answer for people.

use super::answer::{Answer, Chosen, Outcome};
use std::fmt::Write as _;

/// For people.
pub fn text(answer: &Answer) -> String {
    let Answer { node, service, .. } = answer;
    let mut text = format!("service  {service} of cluster {}\n", answer.cluster);
    let _ = match &answer.frontend {
        Some(frontend) => writeln!(text, "arrives  at {frontend}, node {node}"),
        None => writeln!(text, "arrives  nowhere: {service} has no front-end address on node {node}"),
    };
    if let Some(request) = &answer.request {
        let shown = ["method", "host", "path", "sni", "alpn", "tls_version", "ech", "command", "key", "bytes"]
            .into_iter()
            .filter_map(|name| {
                let value = request.get(name)?.as_deref().unwrap_or("none");
                Some(format!("{name} {}", printable(value)))
            });
        let _ = writeln!(text, "request  {}", shown.collect::<Vec<_>>().join(", "));
    }
    let _ = writeln!(
        text,
        "client   {}",
        answer.client.as_deref().unwrap_or("not given (--client): rules that ask for one do not match")
    );
    text.push('\n');
    let width = answer.rules.iter().map(|rule| rule.rule.chars().count()).max().unwrap_or(0);
    for rule in &answer.rules {
        let (mark, why) = match &rule.unmet {
            Some(unmet) => ("no ", &unmet.reason),
            None => ("yes", &rule.conditions),
        };
        let _ = writeln!(text, "  {mark}  {:width$}  {}", rule.rule, printable(why));
    }
    if !answer.rules.is_empty() {
        text.push('\n');
    }
    let because = match (answer.outcome, answer.ambiguity) {
        (Outcome::Ambiguous, Some(kind)) => format!("{}: the request is ambiguous ({kind}), so no rule decides", answer.rule),
        (Outcome::Incomplete, _) => format!("{}, if no more comes: the request is not complete", answer.rule),
        _ if answer.rules.iter().any(|rule| rule.matched) => answer.rule.clone(),
        _ => format!("{}: no rule matches", answer.rule),
    };
    let _ = writeln!(text, "rule     {because}");
    if let Some(choice) = &answer.choice {
        write_choice(choice, &mut text);
    }
    let is_down = answer.down.contains(node);
    let as_it_is = || format!("{node} (the local server{})", if is_down { ", down as it is" } else { "" });
    let local = |name: &String| if name == node { as_it_is() } else { name.clone() };
    let mut servers: Vec<String> = answer.candidates.iter().map(local).collect();
    let is_in_order = answer.choice.as_ref().is_none_or(|choice| choice.members.iter().any(|member| member.score.is_some()));
    if !is_in_order {
        servers = if servers.len() > 1 { vec![format!("one of {}", servers.join(", "))] } else { servers };
    }
    if servers.is_empty() {
        servers.push(if answer.or_reset { "the client is reset: nobody is left to ask".to_owned() } else { as_it_is() });
    } else if !is_in_order || answer.candidates.last() != Some(node) {
        // Where the local server is asked, it answers.
        servers.push(if answer.or_reset { "the client is reset".to_owned() } else { as_it_is() });
    }
    let mut servers = servers.join("; if it cannot, ");
    if !answer.while_local_is_down.is_empty() {
        let _ = write!(servers, "; while its application is down, {}", answer.while_local_is_down.join("; if it cannot, "));
    }
    let _ = match answer.mode {
        "observe" => {
            writeln!(text, "server   {node} (mode observe: the local server answers)\nwould be {servers}")
        }
        _ => writeln!(text, "server   {servers}"),
    };
    // Who writes nothing about it need not read about it.
    if let Some(forward) = answer.forward.as_ref().filter(|forward| forward.configured != "overlay") {
        let _ = match forward.overlay_because {
            Some(because) => writeln!(text, "forward  overlay: {because}"),
            None => writeln!(
                text,
                "forward  {}: over the link to a neighbour (`baton peers` says who is one), else overlay",
                forward.configured
            ),
        };
    }
    if !answer.down.is_empty() {
        let _ = writeln!(text, "assumes  that {} cannot be asked, and every other node can", answer.down.join(", "));
    } else if answer.candidates.iter().any(|name| name != node) || !answer.while_local_is_down.is_empty() {
        text.push_str("assumes  that every node is up and well (--down NODE asks what if not)\n");
    }
    text
}

fn write_choice(choice: &Chosen, text: &mut String) {
    let _ = writeln!(text, "choice   by {}, otherwise {}", choice.by, choice.otherwise);
    if let Some(seen) = &choice.key {
        let value = match (&seen.value, &seen.hash) {
            (Some(value), _) => printable(value),
            (None, Some(_)) => "not there: the client's address instead".to_owned(),
            (None, None) => "not there, and no client is given (--client)".to_owned(),
        };
        let hash = seen.hash.as_ref().map_or_else(String::new, |hash| format!(", hash {hash}"));
        let _ = writeln!(text, "key      {} {value}{hash}", seen.key);
    }
    let width = choice.members.iter().map(|member| member.node.chars().count()).max().unwrap_or(0);
    for member in &choice.members {
        let score = member.score.map_or_else(String::new, |score| format!("  score {score:.4}"));
        let _ = writeln!(text, "         {:width$}  weight {}{score}", member.node, member.weight);
    }
    if let Some(depends_on) = choice.depends_on {
        let _ = writeln!(text, "depends  on {depends_on}");
    }
}

/// What a request says, as it may be printed on a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
