//! `baton explain`: what a node would do with a request, and why. Reads the cluster file and runs the code that routes;
//! asks no daemon and touches no host.
//!
//! | module | knows |
//! |---|---|
//! | `answer` | what is told, and its names in JSON |
//! | `bytes` | what a client sends that is described in words |
//! | `text` | how people read an answer |

mod answer;
mod bytes;
#[cfg(test)]
mod tests;
mod text;

pub use answer::{Answer, Chosen, KeySeen, Member, Outcome, Rule, Unmet};
pub use bytes::Bytes;
pub use text::text;

use crate::flow::{Endpoint, NodeId};
use crate::limits::cluster_file::TARGETS_MAX;
use crate::node::{StartError, load};
use crate::policy::{self, Explanation, Finally, Mode, Origin, Policy, Service, Target};
use std::net::IpAddr;
use std::path::Path;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// The node the connection arrives at.
    pub node: String,
    /// The service it is for.
    pub service: String,
    /// The front-end address the client connects to; when absent, the node's first one of the service and of the client's
    /// family.
    pub frontend: Option<Endpoint>,
    /// The client's address; rules that ask for one do not match when absent.
    pub client: Option<IpAddr>,
    /// What it sends.
    pub bytes: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// The file is wrong, or has no such thing.
    File(StartError),
    /// It depends on what the client sends, and that was not said.
    NothingSent(String),
}

/// Asks a cluster file.
pub fn ask(cluster: &Path, question: &Question) -> Result<Answer, Unanswered> {
    let (policy, _) = load(cluster, &question.node).map_err(Unanswered::File)?;
    let answer = answer(&policy, question)
        .map_err(|wrong| Unanswered::File(StartError::Cluster(format!("{}: {wrong}", cluster.display()))))?;
    if answer.outcome == Outcome::Incomplete && matches!(question.bytes, Bytes::Nothing) {
        return Err(Unanswered::NothingSent(format!("service {} goes by what the client sends", question.service)));
    }
    Ok(answer)
}

fn answer(policy: &Policy, question: &Question) -> Result<Answer, String> {
    let service = policy.service_named(&question.service).ok_or_else(|| {
        let names: Vec<&str> = policy.services.iter().map(|service| &*service.name).collect();
        format!("there is no service `{}`; choose one of them with --service NAME: {}", question.service, names.join(", "))
    })?;
    let frontend = frontend(policy, service, question)?;
    if let (Some(client), Some(frontend)) = (question.client, frontend)
        && client.is_ipv4() != frontend.address.is_ipv4()
    {
        return Err(format!("the client {client} cannot connect to {frontend}: they are of different families"));
    }
    let explanation = question.bytes.explain(service, Origin { client: question.client, frontend })?;
    let decision = &explanation.decision;
    let ranking = decision.choice.ranking(decision.key);
    let targets: Vec<Target> = match &ranking {
        Some(ranking) => ranking.iter().map(|(member, _)| member.target).collect(),
        None => decision.choice.members().iter().filter(|member| member.weight > 0).map(|member| member.target).collect(),
    };
    let asked = if decision.choice.asks_next() || ranking.is_none() { targets.len() } else { 1 };
    let candidates = candidates(policy, targets.get(..asked).unwrap_or(&targets), ranking.is_some());
    let mode = service.mode();
    Ok(Answer {
        cluster: policy.cluster.clone(),
        node: question.node.clone(),
        service: service.name.clone(),
        frontend: frontend.map(|frontend| frontend.to_string()),
        client: question.client.map(|client| client.to_string()),
        outcome: match (explanation.ambiguity(), explanation.needs_more()) {
            (Some(_), _) => Outcome::Ambiguous,
            (None, true) => Outcome::Incomplete,
            (None, false) => Outcome::Decided,
        },
        ambiguity: explanation.ambiguity().map(|ambiguity| ambiguity.label()),
        rule: explanation.decision.rule.to_string(),
        choice: chosen(policy, &explanation),
        answered_by: match (mode, &ranking) {
            (Mode::Observe, _) => Some(question.node.clone()),
            (Mode::Route, Some(_)) => candidates.first().cloned(),
            (Mode::Route, None) => None,
        },
        candidates,
        or_reset: decision.choice.finally() == Finally::Reset,
        mode: mode.word(),
        rules: rules(&explanation),
        request: (!explanation.request.is_empty()).then(|| explanation.request.into_iter().collect()),
    })
}

/// The front-end address in question, which must be one of the node's.
fn frontend(policy: &Policy, service: &Service, question: &Question) -> Result<Option<Endpoint>, String> {
    let own = service.frontends.iter().filter(|(node, _)| *node == policy.node).map(|(_, frontend)| *frontend);
    let own: Vec<Endpoint> = own.collect();
    match question.frontend {
        Some(asked) if !own.contains(&asked) => {
            let there = own.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let there = if there.is_empty() { "it has none".to_owned() } else { format!("it has {there}") };
            Err(format!("{asked} is no front-end address of service {} on node {}: {there}", service.name, question.node))
        }
        Some(asked) => Ok(Some(asked)),
        None => {
            let can_reach =
                |frontend: &&Endpoint| question.client.is_none_or(|client| client.is_ipv4() == frontend.address.is_ipv4());
            Ok(own.iter().find(can_reach).or(own.first()).copied())
        }
    }
}

fn name(policy: &Policy, target: Target) -> String {
    let NodeId(index) = target.node().unwrap_or(policy.node);
    policy.nodes.get(usize::from(index)).map_or_else(String::new, |node| node.name.clone())
}

/// Names instead of numbers; what follows the local server in order is never asked.
fn candidates(policy: &Policy, targets: &[Target], in_order: bool) -> Vec<String> {
    let local = targets.iter().position(|target| in_order && *target == Target::Local);
    let asked = targets.iter().take(local.map_or(TARGETS_MAX, |local| (local + 1).min(TARGETS_MAX)));
    asked.map(|target| name(policy, *target)).collect()
}

fn chosen(policy: &Policy, explanation: &Explanation) -> Option<Chosen> {
    let choice = &explanation.decision.choice;
    if choice.is_in_order() {
        return None;
    }
    let ranking = choice.ranking(explanation.decision.key);
    let ranked = ranking.unwrap_or_else(|| choice.members().iter().map(|member| (*member, None)).collect());
    let member = |(member, score): &(policy::Member, Option<f64>)| Member {
        node: name(policy, member.target),
        weight: member.weight,
        score: *score,
    };
    Some(Chosen {
        by: choice.by(),
        otherwise: choice.otherwise(),
        key: explanation.key.as_ref().map(|seen| KeySeen {
            key: seen.key.clone(),
            value: seen.value.clone(),
            hash: seen.hash.map(|hash| format!("{hash:016x}")),
        }),
        members: ranked.iter().map(member).collect(),
        depends_on: choice.depends_on(),
    })
}

fn rules(explanation: &Explanation) -> Vec<Rule> {
    let rule = |tried: &crate::policy::Tried| Rule {
        rule: tried.rule.to_string(),
        conditions: tried.conditions.clone(),
        matched: tried.unmet.is_none(),
        unmet: tried.unmet.as_ref().map(|unmet| Unmet {
            condition: unmet.condition.clone(),
            seen: unmet.seen.clone(),
            reason: unmet.reason.clone(),
        }),
    };
    explanation.tried.iter().map(rule).collect()
}
