//! What both halves of the engine share: the policy, the peers, the way out, timers and counters.

use crate::control::message::{Epoch, HandoffId, Message};
use crate::flow::{Endpoint, NodeId};
use crate::handoff::chronicle::Chronicle;
use crate::handoff::counters::{Counters, DropReason, Fallback};
use crate::handoff::engine::{Output, Verdict};
use crate::handoff::notes::{Remarks, Why};
use crate::handoff::timers::Timers;
use crate::policy::{Chooser, Decision, Load, Nodes, Order, Policy, Service};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

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

/// The nodes as a choice sees them.
struct Seen<'a> {
    own: NodeId,
    draining: bool,
    peers: &'a [Peer],
}

impl Seen<'_> {
    /// Why a node cannot be asked; none if it can.
    fn passed_over(&self, node: NodeId) -> Option<Fallback> {
        match self.peers.get(usize::from(node.0)) {
            _ if node == self.own => None,
            _ if self.draining => Some(Fallback::Draining),
            Some(peer) if peer.up && peer.draining => Some(Fallback::PeerDraining),
            Some(peer) if peer.up => None,
            _ => Some(Fallback::PeerDown),
        }
    }
}

impl Nodes for Seen<'_> {
    fn own(&self) -> NodeId {
        self.own
    }

    fn load(&self, node: NodeId) -> Load {
        let connections = self.peers.get(usize::from(node.0)).map_or(0, |peer| peer.connections);
        Load { takes: self.passed_over(node).is_none(), connections, ..Load::IDLE }
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
        let headers = match address {
            IpAddr::V4(_) => 20 + 20,
            IpAddr::V6(_) => 40 + 20,
        };
        self.mtu.saturating_sub(self.overlay_overhead).saturating_sub(headers).max(536)
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
    pub fn choose(&mut self, decision: &Decision, now: Instant) -> Order {
        let seen = Seen { own: self.node, draining: self.draining, peers: &self.peers };
        self.chooser.choose(&decision.choice, decision.key, &seen, now)
    }

    /// Why a node that was chosen cannot be asked; none if it can.
    pub fn passed_over(&self, node: NodeId) -> Option<Fallback> {
        Seen { own: self.node, draining: self.draining, peers: &self.peers }.passed_over(node)
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
