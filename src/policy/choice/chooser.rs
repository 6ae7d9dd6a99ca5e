//! Chooses, and remembers what it must from one choice to the next: whose turn it is, where targets were served, the next
//! random number. Outlives the cluster file it began with: what it remembers is kept by the names of service and rule.

use super::locality::Targets;
use super::order::{Load, Nodes, Order};
use super::rendezvous::{self, Score};
use super::{By, Choice, Member};
use crate::flow::NodeId;
use crate::limits::LOCALITY_TARGETS_MAX;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::time::Instant;

/// What is remembered between choices.
#[derive(Clone, Debug)]
pub struct Chooser {
    /// By choice: how much each node is owed (`round_robin`).
    turns: HashMap<u64, Vec<(NodeId, i64)>, FixedState>,
    targets: Targets,
    random: u64,
    /// Choices so far: who comes first among equals.
    count: u64,
}

/// A member that can be asked.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    node: NodeId,
    /// With what it lacks of it while it starts slowly; not zero.
    weight: u64,
    connections: u64,
}

impl Candidate {
    /// Whether it has fewer connections for its weight, one more included.
    fn is_idler_than(&self, other: &Self) -> bool {
        (self.connections + 1) * other.weight < (other.connections + 1) * self.weight
    }
}

impl Chooser {
    /// One that has not chosen yet. Of two with the same seed, nobody can tell which is which.
    pub fn new(seed: u64) -> Self {
        Self { turns: HashMap::default(), targets: Targets::new(LOCALITY_TARGETS_MAX, seed), random: seed, count: 0 }
    }

    /// Forgets what belongs to choices that are no more.
    pub fn keep<'a>(&mut self, choices: impl Iterator<Item = &'a Choice>) {
        let ids: std::collections::HashSet<u64> = choices.map(|choice| choice.id).collect();
        self.turns.retain(|id, _| ids.contains(id));
    }

    /// Targets whose nodes are remembered (`locality`).
    pub fn targets_remembered(&self) -> usize {
        self.targets.len()
    }

    /// Who is to be asked, in order. When all have failed, or if there is nobody, [`Choice::finally`] follows. `key` is what
    /// the decision says.
    pub fn choose(&mut self, choice: &Choice, key: Option<u64>, nodes: &impl Nodes, now: Instant) -> Order {
        self.count = self.count.wrapping_add(1);
        let key = key.unwrap_or_default();
        let mut order = match &choice.by {
            By::Order => in_order(choice, nodes),
            By::RoundRobin => self.round_robin(choice, nodes),
            By::Random => self.random(choice, nodes),
            By::LeastConnections => self.least_connections(choice, nodes),
            By::Hash { bound, .. } => hashed(choice, key, *bound, nodes),
            By::Locality { limits, .. } => self.targets.choose(choice, limits, key, nodes, now),
        };
        if !choice.otherwise.next {
            order.cut(1);
        }
        order
    }

    /// Smooth weighted round robin: each member is owed its weight at every turn, the one that is owed most has it and pays
    /// for all. So `{ a: 3, b: 1 }` is a a b a, and not a a a b.
    fn round_robin(&mut self, choice: &Choice, nodes: &impl Nodes) -> Order {
        let owed = self.turns.entry(choice.id).or_default();
        owed.retain(|(node, _)| choice.members.iter().any(|member| node_of(member, nodes) == *node));
        let mut total = 0;
        for candidate in able(choice, nodes) {
            let weight = i64::try_from(candidate.weight).unwrap_or(i64::MAX);
            total += weight;
            match owed.iter_mut().find(|(node, _)| *node == candidate.node) {
                Some((_, owed)) => *owed += weight,
                None => owed.push((candidate.node, weight)),
            }
        }
        let scored = able(choice, nodes).filter_map(|candidate| owed.iter().find(|(node, _)| *node == candidate.node).copied());
        let order = Order::ranked(scored, |one, other| one > other);
        let winner = order.as_slice().first();
        if let Some((_, owed)) = owed.iter_mut().find(|(node, _)| winner == Some(node)) {
            *owed -= total;
        }
        order
    }

    /// Of two that are drawn by weight, the one with fewer connections: nearly as even as if all were compared, and front-ends
    /// that know as little as each other do not all run to the same node (Mitzenmacher, "The power of two choices in
    /// randomized load balancing", 2001).
    fn random(&mut self, choice: &Choice, nodes: &impl Nodes) -> Order {
        let total: u64 = able(choice, nodes).map(|candidate| candidate.weight).sum();
        let Some(one) = pick(able(choice, nodes), self.below(total)) else { return Order::EMPTY };
        let others = || able(choice, nodes).filter(|candidate| candidate.node != one.node);
        let Some(other) = pick(others(), self.below(total - one.weight)) else {
            return Order::ranked(std::iter::once((one.node, ())), |(), ()| false);
        };
        let (first, second) = if other.is_idler_than(&one) { (other, one) } else { (one, other) };
        let rest = others().filter(|candidate| candidate.node != other.node);
        let mut order = Order::EMPTY;
        order.push(first.node);
        order.push(second.node);
        for node in Order::ranked(rest.map(|candidate| (candidate.node, candidate)), Candidate::is_idler_than).as_slice() {
            order.push(*node);
        }
        order
    }

    /// The fewest connections for the weight first; among equals each in turn.
    fn least_connections(&mut self, choice: &Choice, nodes: &impl Nodes) -> Order {
        let first = usize::try_from(self.count % choice.members.len().max(1) as u64).unwrap_or_default();
        let (front, back) = choice.members.split_at(first.min(choice.members.len()));
        let rotated = back.iter().chain(front).filter_map(|member| candidate(member, nodes));
        Order::ranked(rotated.map(|candidate| (candidate.node, candidate)), Candidate::is_idler_than)
    }

    /// A number below `end`; nothing if that is 0.
    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let drawn = rendezvous::mix(self.random);
        ((u128::from(drawn) * u128::from(end)) >> 64) as u64
    }
}

fn node_of(member: &Member, nodes: &impl Nodes) -> NodeId {
    member.target.node().unwrap_or_else(|| nodes.own())
}

fn candidate(member: &Member, nodes: &impl Nodes) -> Option<Candidate> {
    let node = node_of(member, nodes);
    let load = nodes.load(node);
    let is_able = member.weight > 0 && load.takes;
    is_able.then(|| Candidate { node, weight: load.weight(member.weight), connections: load.connections.into() })
}

/// Those that can be asked now.
fn able<'a>(choice: &'a Choice, nodes: &'a impl Nodes) -> impl Iterator<Item = Candidate> + 'a {
    choice.members.iter().filter_map(|member| candidate(member, nodes))
}

/// The one in whose part of all weights the number lies.
fn pick(mut candidates: impl Iterator<Item = Candidate>, mut at: u64) -> Option<Candidate> {
    candidates.find(|candidate| match at.checked_sub(candidate.weight) {
        Some(rest) => {
            at = rest;
            false
        }
        None => true,
    })
}

/// As they are written. Those that cannot are passed over by whoever asks, and counted with the reason.
fn in_order(choice: &Choice, nodes: &impl Nodes) -> Order {
    let mut order = Order::EMPTY;
    for member in &choice.members {
        order.push(node_of(member, nodes));
    }
    order
}

/// Likewise: a key whose node is down is that node's all the same, and goes on to the next of its own ranking.
fn hashed(choice: &Choice, key: u64, bound: Option<u32>, nodes: &impl Nodes) -> Order {
    let scored = choice.members.iter().filter_map(|member| Some((member, member.score(key)?)));
    let Some(bound) = bound else {
        return Order::ranked(scored.map(|(member, score)| (node_of(member, nodes), score)), Score::precedes);
    };
    // Consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2018): nobody gets more than its share of
    // all connections, this one included, times the bound.
    let (mut weights, mut connections) = (0, 1);
    for member in choice.members.iter().filter(|member| member.weight > 0) {
        let Load { takes, connections: load, .. } = nodes.load(node_of(member, nodes));
        if takes {
            weights += u128::from(member.weight);
            connections += u128::from(load);
        }
    }
    let is_full = |member: &Member| {
        let load = u128::from(nodes.load(node_of(member, nodes)).connections);
        // Rounded up: a share of less than one connection is room for one.
        let room = (u128::from(bound) * connections * u128::from(member.weight)).div_ceil((100 * weights).max(1));
        load >= room
    };
    let scored = scored.map(|(member, score)| (node_of(member, nodes), (is_full(member), score)));
    Order::ranked(scored, |(full, score), (other_full, other)| match (full, other_full) {
        (false, true) => true,
        (true, false) => false,
        _ => score.precedes(other),
    })
}
