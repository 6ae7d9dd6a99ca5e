//! What a choice asks about nodes, and what comes of it.

use crate::flow::NodeId;
use crate::limits::cluster_file::TARGETS_MAX;

/// What is known of the nodes at the moment of a choice.
pub trait Nodes {
    /// The node that chooses: what the file calls `local`.
    fn own(&self) -> NodeId;
    /// What is known of a node, this one included.
    fn load(&self, node: NodeId) -> Load;
}

/// What is known of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// It can be asked: a session is up, it does not drain, its application is well.
    pub takes: bool,
    /// Connections it serves, as far as is known.
    pub connections: u32,
    /// The part of its weight that counts while it starts slowly, in 256ths: 256 is all of it, and 0 counts as 1.
    pub start: u16,
}

impl Load {
    /// A node that does nothing.
    pub const IDLE: Self = Self { takes: true, connections: 0, start: 256 };

    /// Its share of connections.
    pub(super) fn weight(&self, weight: u32) -> u64 {
        u64::from(weight) * u64::from(self.start.clamp(1, 256))
    }
}

/// Nodes in the order in which they are to be asked; the node itself stands for the local server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    nodes: [NodeId; TARGETS_MAX],
    length: u8,
}

impl Order {
    /// Nobody.
    pub const EMPTY: Self = Self { nodes: [NodeId(0); TARGETS_MAX], length: 0 };

    /// Those asked, first to last.
    pub fn as_slice(&self) -> &[NodeId] {
        self.nodes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// One more at the end; there is room for as many as are ever asked.
    pub fn push(&mut self, node: NodeId) {
        if let Some(free) = self.nodes.get_mut(usize::from(self.length)) {
            *free = node;
            self.length += 1;
        }
    }

    pub(super) fn has(&self, node: NodeId) -> bool {
        self.as_slice().contains(&node)
    }

    /// The best ones in order; of two that are equally good the one that comes first.
    pub(super) fn ranked<S: Copy>(scored: impl Iterator<Item = (NodeId, S)>, precedes: impl Fn(&S, &S) -> bool) -> Self {
        let mut order = Self::EMPTY;
        let mut scores: [Option<S>; TARGETS_MAX] = [None; TARGETS_MAX];
        for (node, score) in scored {
            let length = usize::from(order.length);
            let worse = |held: &Option<S>| held.as_ref().is_none_or(|held| precedes(&score, held));
            let Some(at) = scores.iter().take(length + 1).position(worse) else { continue };
            let end = length.min(TARGETS_MAX - 1);
            if at <= end {
                order.nodes.copy_within(at..end, at + 1);
                scores.copy_within(at..end, at + 1);
                order.nodes[at] = node;
                scores[at] = Some(score);
                order.length = (end + 1) as u8;
            }
        }
        order
    }

    /// No more than this many.
    pub(super) fn cut(&mut self, length: usize) {
        self.length = self.length.min(u8::try_from(length).unwrap_or(u8::MAX));
    }
}
