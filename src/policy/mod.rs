//! The cluster file and the decisions it asks for. Pure: text and bytes in, decisions out.
//!
//! A [`ClusterFile`] is what the file says, the same on every node; a [`Policy`] is what it means for one of them. The
//! one function that touches a file is [`ClusterFile::read`].
//!
//! | module | knows |
//! |---|---|
//! | `yaml` | serde_yaml, and where in the text a value is |
//! | `reader`, `units`, `examples` | shapes and sizes of fields, and how each is written; bounds are in [`crate::limits::cluster_file`] |
//! | `syntax` | what is wrong with a text that is no YAML |
//! | `choice` | which of several nodes, and what is remembered from one choice to the next |
//! | `cluster`, `service`, `health`, `rule`, `condition`, `check` | the format of the cluster file, part by part |
//! | `report` | how a problem is shown |
//! | `difference` | what two files say differently |
//! | `file`, `hash` | all of a file; its meaning as a hash |
//! | `compile`, `alias` | what the file means for one node |
//! | `inspect` | which protocol the first bytes of a connection are |
//! | `auto`, `proxy` | which of them, where any may come; who the client is, where a proxy says so |
//! | `http2`, `hpack`, `huffman`, `redis`, `prefix` | what is read of HTTP/2, Redis, and anything else |
//! | `http`, `request`, `body`, `json`, `tls`, `ambiguity` | what they ask for |
//! | `looks` | what one look at growing bytes tells the next |
//! | `summary` | what a client asked for, in a few words |
//! | `when`, `matchers`, `pattern`, `expression`, `name`, `truth` | what a rule asks, and whether it holds |
//! | `subject`, `index`, `decide` | what rules are compared with; which may match, and which one does |
//! | `explain` | why it does, and why those before it do not |

mod alias;
mod ambiguity;
mod auto;
mod body;
mod check;
mod choice;
mod cluster;
mod compile;
mod condition;
mod decide;
mod difference;
mod examples;
mod explain;
mod expression;
mod file;
mod hash;
mod health;
mod hpack;
mod http;
mod http2;
mod huffman;
mod index;
#[cfg(test)]
mod index_tests;
mod inspect;
mod json;
mod looks;
mod matchers;
mod name;
mod pattern;
mod prefix;
mod proxy;
mod reader;
mod redis;
mod report;
mod request;
mod rule;
mod service;
mod subject;
mod summary;
mod syntax;
#[cfg(test)]
mod testing;
mod tls;
mod truth;
mod units;
mod when;
mod whole;
mod yaml;

pub use ambiguity::Ambiguity;
pub use choice::{Choice, Chooser, Finally, KeySeen, Load, Member, Nodes, Order, key_hash};
pub use compile::{Policy, UnknownNode};
pub use decide::{Decision, Examination, Target};
pub use difference::{Difference, differences};
pub use explain::{Explanation, Tried, Unmet};
pub use file::ClusterFile;
pub use hash::PolicyHash;
pub use health::{HealthCheck, HttpQuestion, ProbePlan, Question};
pub use inspect::Protocol;
pub use looks::Looks;
pub use report::{Problem, Report, Severity};
pub use subject::Origin;
pub use summary::Summary;
pub use tls::Hello;

use crate::flow::{Endpoint, NodeId};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

/// A node of the cluster file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Address other nodes reach it at.
    pub address: IpAddr,
    /// Raw Ed25519 public key.
    pub public_key: [u8; 32],
}

/// Limits of the cluster file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `limits.connections`
    pub connections: usize,
    /// `limits.first_flight_bytes`
    pub first_flight_bytes: usize,
    /// `limits.linger`: how long a connection that is over is remembered
    pub linger: Duration,
    /// `limits.drain_timeout`: how long `stop` waits for handed-off connections
    pub drain_timeout: Duration,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Front-end addresses, with the node each belongs to; sorted.
    pub frontends: Vec<(NodeId, Endpoint)>,
    /// Which node's application listens on which port for handed-off connections; sorted. A node that is not here serves
    /// nothing of it; every node with a front-end address is here.
    pub servers: Vec<(NodeId, u16)>,
    /// How the first bytes are read.
    inspect: Protocol,
    /// What rules ask about, where that depends.
    asked: inspect::Asked,
    /// Networks from which connections begin with a PROXY header.
    proxies: Vec<ipnet::IpNet>,
    /// From the client's first byte.
    pub inspect_timeout: Duration,
    /// Most bytes looked at.
    pub inspect_bytes_max: usize,
    /// From the handshake to the first byte.
    pub silence_timeout: Duration,
    /// Bound of a whole handoff.
    pub handoff_timeout: Duration,
    /// How long a server that has recovered gets less than its share.
    pub slow_start: Duration,
    /// How each node checks its own application; if it does.
    pub health: Option<HealthCheck>,
    /// How the way through each peer is probed; if it is.
    pub probe: Option<ProbePlan>,
    /// Tried in order.
    rules: Vec<rule::Rule>,
    /// Finds those that may match.
    index: Rc<index::Index>,
    /// The JSON fields they ask for; sorted.
    pointers: Vec<json::Pointer>,
    /// Where connections go that no rule matches: a rule without conditions.
    default: rule::Rule,
    mode: Mode,
    /// How clients' packets reach the node that answers.
    pub forward: Forward,
}

/// How the packets of handed-off connections reach their owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// Sealed, in UDP: everywhere.
    Overlay,
    /// As they are, over the link that both are on; an operator who writes this wants to know where that is not so.
    Link,
    /// The same, where it can be.
    Auto,
}

impl Forward {
    /// The word for it in the cluster file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Link => "link",
            Self::Auto => "auto",
        }
    }

    /// Whether packets may go over the link.
    pub const fn may_use_link(self) -> bool {
        matches!(self, Self::Link | Self::Auto)
    }
}

/// Whether decisions are acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    Route,
    /// They are counted, and the local server answers.
    Observe,
}

impl Mode {
    /// The word for it in the cluster file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Observe => "observe",
        }
    }
}
