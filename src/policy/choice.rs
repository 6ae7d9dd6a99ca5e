//! Who may answer a connection, and how one of them is chosen: `send_to`.
//!
//! A [`Choice`] is what the file says. What has to be remembered between two choices is in a [`Chooser`], and what the
//! nodes are doing comes from whoever has to choose ([`Nodes`]): the same three in, the same [`Order`] out.

mod canary;
mod chooser;
mod key;
mod locality;
mod order;
mod reader;
mod rendezvous;
#[cfg(test)]
mod tests;

pub(super) use canary::Canary;
pub use chooser::Chooser;
pub(super) use key::Key;
pub use key::KeySeen;
pub use order::{Load, Nodes, Order};
pub use rendezvous::hash as key_hash;

pub(super) use reader::{Recipients, canary, send_to, weight};

use super::Target;
use crate::flow::NodeId;
use std::fmt;
use std::time::Duration;

/// Who may answer, and how one of them is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What is remembered from one choice to the next is kept by it: of the names of service and rule.
    pub(super) id: u64,
    /// In the order of the file, nobody twice.
    pub(super) members: Vec<Member>,
    pub(super) by: By,
    pub(super) otherwise: Otherwise,
}

/// One of those who may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who it is.
    pub target: Target,
    /// Its share; with 0 it is never chosen.
    pub weight: u32,
    /// [`key_hash`] of its name. Of `local` only once the file is compiled for a node.
    pub(super) name_hash: u64,
}

/// How one of several is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The first of the list that can.
    Order,
    RoundRobin,
    Random,
    LeastConnections,
    Hash {
        key: Key,
        /// Hundredths of its fair share of connections, beyond which a node is passed over.
        bound: Option<u32>,
    },
    Locality {
        key: Key,
        limits: Locality,
    },
}

/// When a target of `locality` gets another node. Connections are counted for each unit of weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Locality {
    /// A node with fewer has time for more targets (T_low).
    pub(super) low: u32,
    /// A node with more should not serve alone while there is one with fewer than `low` (T_high).
    pub(super) high: u32,
    /// A set of several nodes that has not changed for so long loses one (K).
    pub(super) decay: Duration,
}

/// What comes after a node that was chosen and cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Otherwise {
    /// The others are asked first.
    pub(super) next: bool,
    pub(super) finally: Finally,
}

/// What becomes of a connection that nobody takes who was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finally {
    /// The local server answers.
    Local,
    /// The client gets a RST; the local server does not answer.
    Reset,
}

impl Otherwise {
    /// What it is when the file does not say.
    pub(super) const DEFAULT: Self = Self { next: true, finally: Finally::Local };

    /// As the file writes it.
    pub(super) const fn word(self) -> &'static str {
        match (self.next, self.finally) {
            (true, Finally::Local) => "next",
            (true, Finally::Reset) => "[next, reset]",
            (false, Finally::Local) => "local",
            (false, Finally::Reset) => "reset",
        }
    }
}

impl Choice {
    /// The local server, and nobody else.
    pub fn local() -> Self {
        Self { id: 0, members: vec![Member::new(Target::Local, 1, "")], by: By::Order, otherwise: Otherwise::DEFAULT }
    }

    /// The members in the order of the file.
    pub fn targets(&self) -> Vec<Target> {
        self.members.iter().map(|member| member.target).collect()
    }

    /// The members in the order of the file.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// How one is chosen, as the file writes it.
    pub fn by(&self) -> String {
        self.by.to_string()
    }

    /// What comes after one that cannot, as the file writes it.
    pub fn otherwise(&self) -> &'static str {
        self.otherwise.word()
    }

    /// What becomes of a connection that nobody takes.
    pub fn finally(&self) -> Finally {
        self.otherwise.finally
    }

    /// Whether the nodes are tried in the order of the file.
    pub fn is_in_order(&self) -> bool {
        self.by == By::Order
    }

    /// Whether the others are asked when one that was chosen cannot.
    pub fn asks_next(&self) -> bool {
        self.otherwise.next
    }

    /// The piece of the request that it goes by, if it goes by any.
    pub(super) fn key(&self) -> Option<&Key> {
        match &self.by {
            By::Hash { key, .. } | By::Locality { key, .. } => Some(key),
            By::Order | By::RoundRobin | By::Random | By::LeastConnections => None,
        }
    }

    /// The order in which members are asked whatever the nodes are doing, with their scores for a key: the lower, the
    /// earlier. None if the choice depends on more than the key.
    pub fn ranking(&self, key: Option<u64>) -> Option<Vec<(Member, Option<f64>)>> {
        match &self.by {
            By::Order => Some(self.members.iter().map(|member| (*member, None)).collect()),
            By::Hash { .. } | By::Locality { .. } => {
                let mut ranked: Vec<_> = self.members.iter().filter_map(|member| Some((*member, member.score(key?)?))).collect();
                ranked.sort_by(|(_, one), (_, other)| match (one.precedes(other), other.precedes(one)) {
                    (true, _) => std::cmp::Ordering::Less,
                    (_, true) => std::cmp::Ordering::Greater,
                    _ => std::cmp::Ordering::Equal,
                });
                key.map(|_| ranked.into_iter().map(|(member, score)| (member, Some(score.as_f64()))).collect())
            }
            By::RoundRobin | By::Random | By::LeastConnections => None,
        }
    }

    /// What the choice depends on beside the file and the request; none if nothing.
    pub fn depends_on(&self) -> Option<&'static str> {
        match &self.by {
            By::Order | By::Hash { bound: None, .. } => None,
            By::RoundRobin => Some("whose turn it is at this node"),
            By::Random => Some("chance, and the connections of the two nodes that are drawn"),
            By::LeastConnections => Some("the connections of each node at that moment"),
            By::Hash { bound: Some(_), .. } => Some("the connections of each node: one above its bound is passed over"),
            By::Locality { .. } => Some("which nodes served this key last from here, and their connections"),
        }
    }

    /// The choice with a node's own name replaced by `local`, and nobody in it twice.
    pub(super) fn seen_from(&self, node: NodeId, name: &str) -> Self {
        let mut members: Vec<Member> = Vec::with_capacity(self.members.len());
        for member in &self.members {
            let own = matches!(member.target, Target::Local) || member.target == Target::Node(node);
            let member = if own { Member::new(Target::Local, member.weight, name) } else { *member };
            match members.iter_mut().find(|earlier| earlier.target == member.target) {
                Some(earlier) => earlier.weight = earlier.weight.saturating_add(member.weight),
                None => members.push(member),
            }
        }
        Self { members, ..self.clone() }
    }
}

impl By {
    /// With what else belongs to it.
    pub(super) fn spelt(&self) -> String {
        match self {
            Self::Hash { bound: Some(bound), .. } => format!("{self} bound {bound}"),
            Self::Locality { limits: Locality { low, high, decay }, .. } => {
                format!("{self} low {low} high {high} decay {}", decay.as_nanos())
            }
            _ => self.to_string(),
        }
    }
}

impl Member {
    pub(super) fn new(target: Target, weight: u32, name: &str) -> Self {
        Self { target, weight, name_hash: rendezvous::hash(name.as_bytes()) }
    }

    /// None if it is never chosen.
    fn score(&self, key: u64) -> Option<rendezvous::Score> {
        (self.weight > 0).then(|| rendezvous::Score::new(key, self.name_hash, self.weight))
    }
}

/// As the file writes it.
impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Order => f.write_str("order"),
            Self::RoundRobin => f.write_str("round_robin"),
            Self::Random => f.write_str("random"),
            Self::LeastConnections => f.write_str("least_connections"),
            Self::Hash { key, .. } => write!(f, "hash({key})"),
            Self::Locality { key, .. } => write!(f, "locality({key})"),
        }
    }
}
