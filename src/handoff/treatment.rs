//! What the packets of a connection need from now on: the one thing a faster data path has to know.

use crate::flow::NodeId;
use crate::rewrite::Shifts;

/// What the packets of a connection need from now on.
///
/// The process does it itself today. Whatever does it faster (sets in nftables, the kernel's forwarding, an eBPF program)
/// is told the same and may forget it at any time: the packets then come through the TUN again.
///
/// A connection that needs nothing is not kept, so it has no treatment: see [`crate::handoff::Verdict::Local`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Treatment {
    /// The engine must see every packet: undecided, handed over at this moment, or ending.
    Inspect,
    /// Client packets go to this node, unchanged. Nothing comes back this way.
    Forward(NodeId),
    /// The same, over the link that both nodes are on, without encapsulation.
    ForwardOnLink(NodeId),
    /// Both directions are translated by these shifts.
    Translate(Shifts),
}

impl Treatment {
    /// Its name in `baton flows`.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Inspect => "inspect",
            Self::Forward(_) => "forward",
            Self::ForwardOnLink(_) => "forward-on-link",
            Self::Translate(_) => "translate",
        }
    }
}
