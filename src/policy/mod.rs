//! The cluster file and the decisions it asks for. Pure: text and bytes in, decisions out.

use crate::flow::{Endpoint, NodeId};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

/// A loaded cluster file, compiled for one node. (API the engine and the shell use; the author of this module may add to it.)
#[derive(Debug)]
pub struct Policy {
    /// Cluster name.
    pub cluster: String,
    /// This node.
    pub node: NodeId,
    /// All nodes, index = NodeId, sorted by name.
    pub nodes: Vec<Node>,
    /// All services.
    pub services: Vec<Service>,
    /// UDP and TCP port nodes talk on.
    pub overlay_port: u16,
    /// Alias prefixes, at most one per family.
    pub aliases: Vec<ipnet::IpNet>,
    /// Limits of the cluster file.
    pub limits: Limits,
}
/// A node of the cluster file.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Address other nodes reach it at.
    pub address: IpAddr,
    /// Raw Ed25519 public key.
    pub public_key: [u8; 32],
}
/// Limits of the cluster file.
#[derive(Debug, Clone)]
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
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Front-end addresses, with the node each belongs to.
    pub frontends: Vec<(NodeId, Endpoint)>,
    /// Which node's application listens on which port for handed-off connections. None: the node serves nothing of it.
    pub servers: Vec<(NodeId, u16)>,
    /// From the client's first byte.
    pub inspect_timeout: Duration,
    /// Most bytes looked at.
    pub inspect_bytes_max: usize,
    /// From the handshake to the first byte.
    pub silence_timeout: Duration,
    /// Bound of a whole handoff.
    pub handoff_timeout: Duration,
}
/// What should be done with a connection, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Name of the rule, or `default`.
    pub rule: Rc<str>,
    /// Tried in order; when all fail (or the list is empty) the local server answers.
    pub targets: Vec<Target>,
}
/// Who may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The node the connection arrived at.
    Local,
    /// A peer (never the node itself: that is `Local`).
    Node(NodeId),
}
/// What the first bytes of a connection say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Examination {
    /// Not enough yet.
    NeedMore,
    /// Decided.
    Decided(Decision),
}
impl Policy {
    /// The service of a front-end address, whoever's node it is.
    pub fn service_of(&self, frontend: Endpoint) -> Option<&Service> { let _ = frontend; todo!() }
    /// The service of this name.
    pub fn service_named(&self, name: &str) -> Option<&Service> { let _ = name; todo!() }
    /// The node of this name.
    pub fn node_named(&self, name: &str) -> Option<NodeId> { let _ = name; todo!() }
    /// The aliases of a front-end address on every node: `limits::ALIASES_PER_FRONTEND` addresses of the family's prefix,
    /// those of two front-end addresses never overlap. Empty when the family has no prefix.
    pub fn aliases_of(&self, frontend: Endpoint) -> Vec<IpAddr> { let _ = frontend; todo!() }
    /// Whether the address lies in an alias prefix.
    pub fn is_alias(&self, address: IpAddr) -> bool { let _ = address; todo!() }
}
impl Service {
    /// Looks at the first bytes of a connection (all that arrived in order so far).
    pub fn examine(&self, first_flight: &[u8], client: Endpoint) -> Examination { let _ = (first_flight, client); todo!() }
    /// What the default says: for clients that say nothing, too much, or something unreadable.
    pub fn by_default(&self) -> Decision { todo!() }
    /// The port this node's application listens on for handed-off connections.
    pub fn server_port(&self, node: NodeId) -> Option<u16> { let _ = node; todo!() }
}
