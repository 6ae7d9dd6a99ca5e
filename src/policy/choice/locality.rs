//! Which nodes served a target last: the table of `by: locality`.
//!
//! Locality-aware request distribution with replication (LARD/R: Pai et al., "Locality-Aware Request Distribution in
//! Cluster-based Network Servers", ASPLOS 1998): a target stays with the node that has it in its cache; a node
//! that is overloaded by a target shares it, and a set of nodes that has not changed for a while gives one of them up.
//!
//! It differs in one thing. There the one front-end chooses the least loaded node for a target that it does not know. Here
//! every node is a front-end with a table of its own, and the first choice is that of the rendezvous hash unless that node is
//! overloaded: so they agree without talking, and each target is in one cache.

use super::order::{Load, Nodes, Order};
use super::rendezvous::Score;
use super::{Choice, Locality, Member};
use crate::flow::NodeId;
use crate::limits::LOCALITY_REPLICAS_MAX;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::time::Instant;

/// The targets that were asked for last, of all choices together.
#[derive(Clone, Debug)]
pub(super) struct Targets {
    /// What is hashed are hashes.
    by_key: HashMap<u64, usize, FixedState>,
    entries: Vec<Entry>,
    newest: usize,
    oldest: usize,
    most: usize,
}

/// A target and its nodes.
#[derive(Clone, Debug)]
struct Entry {
    key: u64,
    newer: usize,
    older: usize,
    nodes: [NodeId; LOCALITY_REPLICAS_MAX],
    count: u8,
    changed: Instant,
}

const NONE: usize = usize::MAX;

impl Targets {
    /// Clients choose the keys: the seed keeps them from choosing ones that all lie in one place of the table.
    pub(super) fn new(most: usize, seed: u64) -> Self {
        Self { by_key: HashMap::with_hasher(FixedState::with_seed(seed)), entries: Vec::new(), newest: NONE, oldest: NONE, most }
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The nodes to ask for a key, the one that serves it first.
    pub(super) fn choose(&mut self, choice: &Choice, limits: &Locality, key: u64, nodes: &impl Nodes, now: Instant) -> Order {
        let able = |member: &Member| {
            let node = member.target.node().unwrap_or_else(|| nodes.own());
            let load = nodes.load(node);
            (member.weight > 0 && load.takes).then_some(Candidate { node, load, member: *member })
        };
        let all = || choice.members.iter().filter_map(able);
        let Some(idlest) = all().min_by(Candidate::by_load) else { return Order::EMPTY };
        let ranking =
            Order::ranked(all().filter_map(|candidate| Some((candidate.node, candidate.member.score(key)?))), Score::precedes);
        let entry = self.touch(key ^ choice.id, now);
        entry.keep(|node| all().any(|candidate| candidate.node == node));
        let served_by = |entry: &Entry| {
            let set = entry.nodes;
            let count = usize::from(entry.count);
            all().filter(move |candidate| set.iter().take(count).any(|node| *node == candidate.node))
        };
        let chosen = match served_by(entry).min_by(Candidate::by_load) {
            None => {
                let first = ranking.as_slice().first().and_then(|first| all().find(|candidate| candidate.node == *first));
                let chosen = first.filter(|first| !first.is_above(limits.high)).unwrap_or(idlest);
                entry.add(chosen.node, now);
                chosen.node
            }
            Some(least) => {
                let most = served_by(entry).max_by(Candidate::by_load);
                let is_overloaded = least.is_above(limits.high) && idlest.is_below(limits.low);
                let chosen = if is_overloaded || least.reaches(limits.high.saturating_mul(2)) { idlest } else { least };
                let is_old = now.saturating_duration_since(entry.changed) > limits.decay;
                entry.add(chosen.node, now);
                if let Some(most) = most.filter(|most| most.node != chosen.node)
                    && entry.count > 1
                    && is_old
                {
                    entry.keep(|node| node != most.node);
                    entry.changed = now;
                }
                chosen.node
            }
        };
        let mut order = Order::EMPTY;
        order.push(chosen);
        let replicas =
            Order::ranked(served_by(entry).map(|candidate| (candidate.node, candidate)), |one, other| one.by_load(other).is_lt());
        for node in replicas.as_slice().iter().chain(ranking.as_slice()) {
            if !order.has(*node) {
                order.push(*node);
            }
        }
        order
    }

    /// The entry of a key, a new one if there is none, which is the newest from now on. The oldest makes room for it.
    fn touch(&mut self, key: u64, now: Instant) -> &mut Entry {
        let at = match self.by_key.get(&key).copied() {
            Some(at) => {
                self.unlink(at);
                at
            }
            None => {
                let entry =
                    Entry { key, newer: NONE, older: NONE, nodes: [NodeId(0); LOCALITY_REPLICAS_MAX], count: 0, changed: now };
                let at = if self.entries.len() < self.most {
                    self.entries.push(entry);
                    self.entries.len() - 1
                } else {
                    let at = self.oldest;
                    self.unlink(at);
                    self.by_key.remove(&self.entries[at].key);
                    self.entries[at] = entry;
                    at
                };
                self.by_key.insert(key, at);
                at
            }
        };
        self.entries[at].older = self.newest;
        self.entries[at].newer = NONE;
        match self.newest {
            NONE => self.oldest = at,
            newest => self.entries[newest].newer = at,
        }
        self.newest = at;
        &mut self.entries[at]
    }

    fn unlink(&mut self, at: usize) {
        let Entry { newer, older, .. } = self.entries[at];
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older].newer = newer,
        }
    }
}

impl Entry {
    fn keep(&mut self, wanted: impl Fn(NodeId) -> bool) {
        let mut kept = 0;
        for at in 0..usize::from(self.count) {
            if wanted(self.nodes[at]) {
                self.nodes[kept] = self.nodes[at];
                kept += 1;
            }
        }
        self.count = kept as u8;
    }

    /// A full set stays as it is: its nodes are as overloaded as that one soon would be.
    fn add(&mut self, node: NodeId, now: Instant) {
        let count = usize::from(self.count);
        if self.nodes.iter().take(count).any(|other| *other == node) {
            return;
        }
        if let Some(free) = self.nodes.get_mut(count) {
            *free = node;
            self.count += 1;
            self.changed = now;
        }
    }
}

/// A member that can be asked.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    node: NodeId,
    load: Load,
    member: Member,
}

impl Candidate {
    fn weight(&self) -> u64 {
        self.load.weight(self.member.weight)
    }

    /// Fewer connections for its weight first.
    fn by_load(&self, other: &Self) -> std::cmp::Ordering {
        let one = u64::from(self.load.connections) * other.weight();
        one.cmp(&(u64::from(other.load.connections) * self.weight()))
    }

    /// Connections and a limit for each unit of weight, in the same unit.
    fn against(&self, limit: u32) -> (u64, u64) {
        (u64::from(self.load.connections) * 256, u64::from(limit) * self.weight())
    }

    fn is_above(&self, limit: u32) -> bool {
        let (load, limit) = self.against(limit);
        load > limit
    }

    fn is_below(&self, limit: u32) -> bool {
        let (load, limit) = self.against(limit);
        load < limit
    }

    fn reaches(&self, limit: u32) -> bool {
        !self.is_below(limit)
    }
}
