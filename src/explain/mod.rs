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

pub use answer::{Answer, Chosen, Forwarding, KeySeen, Member, Outcome, Rule, Unmet};
pub use bytes::Bytes;
pub use text::text;

use crate::flow::{Endpoint, NodeId};
use crate::limits::cluster_file::TARGETS_MAX;
use crate::node::{StartError, load};
use crate::policy::{self, Decision, Explanation, Finally, Mode, Origin, Policy, Service, Target};
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
    /// Nodes that cannot be asked: they are down, drain, or cannot be reached. All others are taken to be well.
    pub down: Vec<String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// The file is wrong, or has no such thing.
    File(StartError),
    /// It depends on what the client sends, and that was not said.
    NothingSent(String),
    /// It does not depend on what the client sends, and that was said.
    NothingRead(String),
}

/// Asks a cluster file.
pub fn ask(cluster: &Path, question: &Question) -> Result<Answer, Unanswered> {
    let (policy, _) = load(cluster, &question.node).map_err(Unanswered::File)?;
    let on_syn = policy.service_named(&question.service).is_some_and(Service::decides_on_syn);
    if on_syn && !matches!(question.bytes, Bytes::Nothing) {
        return Err(Unanswered::NothingRead(format!("service {} has `inspect: none`: the SYN decides", question.service)));
    }
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
    let down = down(policy, service, &question.down)?;
    let course = Course::of(decision, ranking.as_deref(), policy.node, &down);
    let names = |targets: &[Target]| targets.iter().map(|target| name(policy, *target)).collect::<Vec<_>>();
    let candidates = names(&course.asked);
    let or_reset = decision.choice.finally() == Finally::Reset;
    let mode = service.mode();
    let forward = frontend
        .filter(|_| {
            course.asked.iter().chain(&course.instead).any(|target| target.node().is_some_and(|node| node != policy.node))
        })
        .map(|frontend| Forwarding {
            configured: service.forward.word(),
            overlay_because: policy.overlay_because(frontend, question.client),
        });
    Ok(Answer {
        forward,
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
            (Mode::Route, _) if candidates.is_empty() => (!or_reset).then(|| question.node.clone()),
            (Mode::Route, Some(_)) => candidates.first().cloned(),
            (Mode::Route, None) => None,
        },
        candidates,
        // Nobody is known to be down where nobody is checked.
        while_local_is_down: if service.health.is_some() { names(&course.instead) } else { Vec::new() },
        down: down.iter().map(|node| name(policy, Target::Node(*node))).collect(),
        or_reset,
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

/// The nodes of these names.
fn down(policy: &Policy, service: &Service, names: &[String]) -> Result<Vec<NodeId>, String> {
    let mut down = Vec::new();
    for name in names {
        let node = policy.node_named(name).ok_or_else(|| {
            let nodes: Vec<&str> = policy.nodes.iter().map(|node| &*node.name).collect();
            format!("there is no node `{name}` to be down; the nodes are {}", nodes.join(", "))
        })?;
        if node == policy.node && service.health.is_none() {
            return Err(format!(
                "service {} has no `health`: node {name} does not know whether its own application is down, and asks it all the same",
                service.name
            ));
        }
        down.push(node);
    }
    down.sort_unstable();
    down.dedup();
    Ok(down)
}

/// Who is asked.
#[derive(Debug, Default)]
struct Course {
    /// In order if there is one, else any of them.
    asked: Vec<Target>,
    /// Those asked after the local server, which answers unless its application is known to be down.
    instead: Vec<Target>,
}

impl Course {
    fn of(decision: &Decision, ranking: Option<&[(policy::Member, Option<f64>)]>, own: NodeId, down: &[NodeId]) -> Self {
        let is_down = |target: &Target| down.contains(&target.node().unwrap_or(own));
        let Some(ranking) = ranking else {
            let able = decision.choice.members().iter().filter(|member| member.weight > 0).map(|member| member.target);
            return Self { asked: able.filter(|target| !is_down(target)).take(TARGETS_MAX).collect(), instead: Vec::new() };
        };
        let asked = if decision.choice.asks_next() { TARGETS_MAX } else { 1 };
        let order: Vec<Target> = ranking.iter().map(|(member, _)| member.target).take(asked).collect();
        // Down as it is the local server answers when nobody else does.
        let is_last_resort = |target: &Target| *target == Target::Local && order.last() == Some(target);
        let able = order.iter().filter(|target| !is_down(target) || is_last_resort(target)).copied();
        let mut course = Self::default();
        for target in able {
            if course.asked.last() == Some(&Target::Local) {
                course.instead.push(target);
            } else {
                course.asked.push(target);
            }
        }
        course
    }
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
