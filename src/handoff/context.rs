//! What both halves of the engine share: the policy, the peers, the way out, timers and counters.

use crate::control::message::{Epoch, HandoffId, Message};
use crate::flow::{Endpoint, NodeId};
use crate::handoff::chronicle::Chronicle;
use crate::handoff::counters::{Counters, DropReason, Fallback};
use crate::handoff::engine::{Output, Verdict};
use crate::handoff::notes::{Remarks, Why};
use crate::handoff::timers::Timers;
use crate::health::{Health, Loads, NodeState};
use crate::policy::{Chooser, Decision, Load, Nodes, Order, Policy, Service};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A peer as the engine knows it.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// A session is up.
    pub up: bool,
    /// The life the peer was last seen in.
    pub epoch: Option<Epoch>,
    /// When the latest session came or went.
    pub since: Option<Instant>,
    /// It said it is draining.
    pub draining: bool,
    /// Sessions so far.
    pub sessions: u64,
    /// Commits were sent to it since it was last told which are settled.
    pub unsettled: bool,
    /// Connections of this front-end that it was offered or owns.
    pub connections: u32,
}

/// The nodes as a choice for one service sees them.
struct Seen<'a> {
    service: &'a str,
    own: NodeId,
    draining: bool,
    peers: &'a [Peer],
    loads: &'a Loads,
    now: Instant,
}

impl Seen<'_> {
    /// All there is to know.
    fn state(&self, node: NodeId) -> NodeState {
        let state = self.loads.state(self.service, node, self.now);
        if node == self.own {
            return NodeState { draining: self.draining, ..state };
        }
        let peer = self.peers.get(usize::from(node.0));
        let (reachable, draining) = peer.map_or((false, false), |peer| (peer.up, peer.draining));
        // Its own word is of up to half a second ago, and has those of other front-ends; ours are of now.
        let connections = state.connections.max(peer.map_or(0, |peer| peer.connections));
        NodeState { reachable, draining, connections, ..state }
    }

    /// Why a node cannot be asked; none if it can.
    fn passed_over(&self, node: NodeId) -> Option<Fallback> {
        let state = self.state(node);
        if node == self.own {
            return (state.health == Health::Down && !self.draining).then_some(Fallback::LocalUnhealthy);
        }
        if self.draining { Some(Fallback::Draining) } else { state.unfit().map(Fallback::from) }
    }
}

impl Nodes for Seen<'_> {
    fn own(&self) -> NodeId {
        self.own
    }

    fn load(&self, node: NodeId) -> Load {
        let NodeState { connections, ramp, .. } = self.state(node);
        Load { takes: self.passed_over(node).is_none(), connections, start: (ramp * f32::from(Load::IDLE.start)) as u16 }
    }
}

/// Shared state; no connection is in here.
#[derive(Clone, Debug)]
pub struct Context {
    /// This node.
    pub node: NodeId,
    /// This life.
    pub epoch: Epoch,
    /// The policy in force.
    pub policy: Rc<Policy>,
    /// Front-end addresses that were this node's under an earlier policy, with the last one that knew them and when they
    /// ceased: connections that came to them go on under it.
    pub retired: BTreeMap<Endpoint, (Rc<Policy>, Instant)>,
    /// Every address that has been a front-end's of this node.
    pub frontend_addresses: BTreeSet<IpAddr>,
    /// By NodeId.
    pub peers: Vec<Peer>,
    /// What all nodes say about their applications.
    pub loads: Loads,
    /// What the engine originates.
    pub outputs: VecDeque<Output>,
    /// What this node says to itself when it is its own back-end.
    pub loopback: VecDeque<Loopback>,
    /// Deadlines.
    pub timers: Timers,
    /// Counted reasons.
    pub counters: Counters,
    /// What is told about connections that are over.
    pub chronicle: Chronicle,
    /// What is said about packets.
    pub remarks: Remarks,
    /// What is remembered from one choice to the next.
    pub chooser: Chooser,
    /// No new handoffs.
    pub draining: bool,
    /// The process ends.
    pub stopping: bool,
    /// Tells connections apart that use the same slot one after the other; also numbers handoffs.
    pub next_serial: u64,
    /// Connections in both roles.
    pub connections: usize,
    /// Octets in all first flights.
    pub first_flight_bytes: usize,
    /// MTU between nodes, and what the overlay takes of it.
    pub mtu: u16,
    /// Octets the overlay adds.
    pub overlay_overhead: u16,
    /// Peers that can be reached over a link without the overlay, with the family: IPv4 (true) or IPv6.
    pub links: BTreeSet<(NodeId, bool)>,
}

/// Peers of which nobody knows whether they can serve are asked after those that can, and still before what is to be asked
/// after all of these: the local server, and what follows it.
fn unknown_last(order: &Order, own: NodeId, health: impl Fn(NodeId) -> Health) -> Order {
    let nodes = order.as_slice();
    let (peers, rest) = nodes.split_at(nodes.iter().position(|node| *node == own).unwrap_or(nodes.len()));
    if peers.iter().all(|node| health(*node) != Health::Unknown) {
        return *order;
    }
    let (mut known, unknown): (Vec<NodeId>, Vec<NodeId>) = peers.iter().partition(|node| health(**node) != Health::Unknown);
    known.extend(unknown.iter().chain(rest));
    let mut sorted = Order::EMPTY;
    for node in known {
        sorted.push(node);
    }
    sorted
}

/// All services by name, and how slowly their servers start.
pub fn slow_starts(policy: &Policy) -> impl Iterator<Item = (&str, Duration)> {
    policy.services.iter().map(|service| (service.name.as_str(), service.slow_start))
}

/// What this node says to itself.
#[derive(Clone, Debug)]
pub enum Loopback {
    /// A message of the handoff protocol.
    Message(Message),
    /// A client's packet for a connection this node owns.
    Packet(Vec<u8>, Why),
}

impl Context {
    /// A fresh context.
    pub fn new(config: &crate::handoff::EngineConfig, policy: Rc<Policy>, now: Instant) -> Self {
        let peers = vec![Peer { since: Some(now), ..Peer::default() }; policy.nodes.len()];
        Self {
            node: config.node,
            epoch: config.epoch,
            // A guard may be older than the policy: its connection goes on all the same.
            retired: (config.orphans.iter().map(|flow| flow.frontend))
                .filter(|frontend| !policy.is_own_frontend(*frontend))
                .map(|frontend| (frontend, (Rc::clone(&policy), now)))
                .collect(),
            frontend_addresses: policy.own_frontends().iter().map(|frontend| frontend.address).collect(),
            loads: Loads::new(config.node, peers.len(), slow_starts(&policy)),
            policy,
            peers,
            outputs: VecDeque::new(),
            loopback: VecDeque::new(),
            timers: Timers::default(),
            counters: Counters::default(),
            chronicle: Chronicle::default(),
            remarks: Remarks::default(),
            chooser: Chooser::new(config.epoch.0),
            draining: false,
            stopping: false,
            next_serial: 1,
            connections: 0,
            first_flight_bytes: 0,
            mtu: config.mtu,
            overlay_overhead: config.overlay_overhead,
            links: BTreeSet::new(),
        }
    }

    /// The policy for connections to a front-end address of this node: the one in force, or the last that knew it.
    pub fn policy_of(&self, frontend: Endpoint) -> &Rc<Policy> {
        self.retired.get(&frontend).map_or(&self.policy, |(policy, _)| policy)
    }

    /// Also an address that was one: its connections go on, and packets of others are the local stack's.
    pub fn is_own_frontend(&self, endpoint: Endpoint) -> bool {
        self.policy.is_own_frontend(endpoint) || self.retired.contains_key(&endpoint)
    }

    /// The service for connections to a front-end address of this node.
    pub fn service_of(&self, frontend: Endpoint) -> Option<&Service> {
        self.policy_of(frontend).service_of(frontend)
    }

    /// The name of the service for connections to a front-end address; empty if it is none's any more.
    pub fn service_name(&self, frontend: Endpoint) -> Rc<str> {
        self.service_of(frontend).map_or("", |service| service.name.as_str()).into()
    }

    /// A number never used before in this life.
    pub fn serial(&mut self) -> u64 {
        let serial = self.next_serial;
        self.next_serial += 1;
        serial
    }

    /// A new handoff of this node.
    pub fn handoff_id(&mut self) -> HandoffId {
        HandoffId { epoch: self.epoch, serial: self.serial() }
    }

    /// Says something to a node, this one included.
    pub fn say(&mut self, to: NodeId, message: Message) {
        if to == self.node {
            self.loopback.push_back(Loopback::Message(message));
        } else {
            self.outputs.push_back(Output::Message(to, message));
        }
    }

    /// Sends a client's packet to a connection's owner, this node included.
    pub fn forward(&mut self, to: NodeId, packet: Vec<u8>, why: Why) {
        if to == self.node {
            self.loopback.push_back(Loopback::Packet(packet, why));
        } else {
            self.outputs.push_back(Output::Forward(to, packet, why));
        }
    }

    /// Remarks something about a node.
    pub fn remark(&mut self, node: NodeId, text: impl FnOnce(&str) -> String) {
        let name = self.policy.nodes.get(usize::from(node.0)).map_or("a peer", |node| node.name.as_str());
        self.remarks.say(|| text(name));
    }

    /// Writes a packet to the TUN.
    pub fn write(&mut self, packet: Vec<u8>, why: Why) {
        self.outputs.push_back(Output::Packet(packet, why));
    }

    /// The largest MSS a client may use so that its segments fit into the overlay.
    pub fn mss_max(&self, address: IpAddr) -> u16 {
        self.mss_max_below(address, self.overlay_overhead)
    }

    pub(super) fn mss_max_below(&self, address: IpAddr, overhead: u16) -> u16 {
        let headers = match address {
            IpAddr::V4(_) => 20 + 20,
            IpAddr::V6(_) => 40 + 20,
        };
        self.mtu.saturating_sub(overhead).saturating_sub(headers).max(536)
    }

    /// A peer, if it is one of the cluster.
    pub fn peer_mut(&mut self, peer: NodeId) -> Option<&mut Peer> {
        self.peers.get_mut(usize::from(peer.0))
    }

    /// A peer's state.
    pub fn peer(&self, peer: NodeId) -> Option<&Peer> {
        self.peers.get(usize::from(peer.0))
    }

    /// Whom to ask for a connection, in order.
    pub fn choose(&mut self, service: &str, decision: &Decision, now: Instant) -> Order {
        let Self { node, draining, ref peers, ref loads, .. } = *self;
        let seen = Seen { service, own: node, draining, peers, loads, now };
        let order = self.chooser.choose(&decision.choice, decision.key, &seen, now);
        // A key stays with its node until that is known to be unable: what it has, others may not.
        if decision.key.is_some() { order } else { unknown_last(&order, node, |node| seen.state(node).health) }
    }

    /// Why a node that was chosen for a service cannot be asked; none if it can.
    pub fn passed_over(&self, service: &str, node: NodeId, now: Instant) -> Option<Fallback> {
        self.seen(service, now).passed_over(node)
    }

    /// What a choice knows about a node in a service.
    pub fn node_state(&self, service: &str, node: NodeId, now: Instant) -> NodeState {
        self.seen(service, now).state(node)
    }

    fn seen<'a>(&'a self, service: &'a str, now: Instant) -> Seen<'a> {
        Seen { service, own: self.node, draining: self.draining, peers: &self.peers, loads: &self.loads, now }
    }

    /// Counts a dropped packet.
    pub fn drop(&mut self, reason: DropReason) -> Verdict {
        self.counters.drop(reason);
        Verdict::Drop(reason)
    }

    /// Whether there is room for one more connection.
    pub fn has_room(&self) -> bool {
        self.connections < self.policy.limits.connections
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_nobody_knows_about_come_after_those_that_are_up_and_before_the_local_server() {
        let order = |nodes: &[u16]| {
            let mut order = Order::EMPTY;
            nodes.iter().for_each(|node| order.push(NodeId(*node)));
            order
        };
        let sorted = |nodes: &[u16]| -> Vec<u16> {
            let health = |node: NodeId| if node.0 % 2 == 1 { Health::Unknown } else { Health::Up };
            unknown_last(&order(nodes), NodeId(0), health).as_slice().iter().map(|node| node.0).collect()
        };
        assert_eq!(sorted(&[1, 2, 3, 0, 5, 4]), [2, 1, 3, 0, 5, 4]);
        assert_eq!(sorted(&[1, 0, 2]), [1, 0, 2]);
        assert_eq!(sorted(&[3, 1, 2]), [2, 3, 1]);
        assert_eq!(sorted(&[]), [0; 0]);
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // Only differences to the moment are used.
    fn a_node_that_starts_slowly_is_given_its_share_of_what_an_idle_one_is() {
        let (origin, slow_start) = (Instant::now(), Duration::from_secs(10));
        let mut loads = Loads::new(NodeId(0), 2, [("web", slow_start)].into_iter());
        loads.hear_own("web", crate::control::report::Told::Down, 0, origin);
        loads.hear_own("web", crate::control::report::Told::Up, 3, origin);
        let load = |now, draining| {
            let seen = Seen { service: "web", own: NodeId(0), draining, peers: &[], loads: &loads, now };
            (seen.load(NodeId(0)), seen.state(NodeId(0)).draining)
        };
        let (Load { takes, connections, start }, draining) = load(origin + slow_start / 2, true);
        assert_eq!((takes, connections, draining), (true, 3, true));
        assert!(start.abs_diff(Load::IDLE.start / 2) <= 1, "{start}");
        assert_eq!(load(origin + slow_start, false), (Load { takes: true, connections: 3, ..Load::IDLE }, false));
    }
}
