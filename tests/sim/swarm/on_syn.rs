//! Services that decide on the SYN (`inspect: none`): one seed in ten has one instead of rules that ask for a request, and in half of
//! these several nodes have one address together, to which a connection's packets come by different ways.

use super::bytes::NAMES;
use super::cluster::node_address;
use super::plan::{Errand, MILLISECOND, NodePlan};
use super::world::{World, destination};
use baton::rewrite::{Flags, Segment, ToServerWire};
use drill::random::Random;
use std::net::IpAddr;

/// Stands for a node where it is said which front-end address is meant: that which several have.
pub const SHARED: usize = 200;

/// Where the next packet to the shared address comes in.
#[derive(Clone, Copy, Debug)]
pub enum Entry {
    /// SYNs at one node, all else at the next.
    SynsElsewhere,
    /// Anywhere.
    EachPacket,
    /// Everything at one node for so many microseconds, then at the next.
    Turns(u64),
}

/// Who shall have a client's connections.
#[derive(Clone, Copy, Debug)]
enum To {
    Local,
    Node(usize),
    /// By a hash of its address, of all.
    Hash,
    /// Whoever has the fewest connections.
    Fewest,
    /// The first of all that will.
    First,
}

#[derive(Clone, Debug)]
pub struct OnSyn {
    pub entry: Option<Entry>,
    /// Of each client.
    to: Vec<To>,
}

impl OnSyn {
    pub fn of(seed: u64, clients: usize, nodes: &mut [NodePlan], errands: &mut [Errand]) -> Self {
        let mut random = Random::of(seed, "decides on syn");
        let entry = random.permille(600).then(|| match random.below(3) {
            0 => Entry::SynsElsewhere,
            1 => Entry::EachPacket,
            _ => Entry::Turns(*random.pick(&[3, 40, 700, 5_000]) * MILLISECOND),
        });
        let count = nodes.len() as u64;
        let to = (0..clients).map(|_| match random.below(8) {
            0 => To::Local,
            1 | 2 => To::Hash,
            3 => To::Fewest,
            4 => To::First,
            _ => To::Node(random.below(count) as usize),
        });
        let to = to.collect();
        if entry.is_some() {
            nodes[1].has_frontend = true;
            let ends: Vec<(usize, u16, usize)> =
                errands.iter().map(|errand| (errand.client, errand.port, errand.frontend)).collect();
            for errand in errands {
                // One port to two front-ends at a time stays so.
                let is_alone = ends.iter().all(|end| (end.0, end.1) != (errand.client, errand.port) || end.2 == errand.frontend);
                if is_alone {
                    errand.frontend = SHARED;
                }
            }
        }
        Self { entry, to }
    }

    /// The rules of a cluster file for these nodes; each is moved on by `step`.
    pub fn rules(&self, step: usize, nodes: usize, absent: Option<usize>) -> String {
        let all: Vec<&str> = (0..nodes).filter(|node| Some(*node) != absent).map(|node| NAMES[node]).collect();
        let all = all.join(", ");
        let rule = |(client, to): (usize, &To)| {
            let to = match to {
                To::Local => "local".to_owned(),
                To::Node(node) if Some((node + step) % nodes) == absent => return String::new(),
                To::Node(node) => NAMES[(node + step) % nodes].to_owned(),
                To::Hash => format!("{{ nodes: [{all}], by: hash(client) }}"),
                To::Fewest => format!("{{ nodes: [{all}], by: least_connections }}"),
                To::First => format!("[{all}, local]"),
            };
            let [v4, v6] = [false, true].map(|is_v6| super::cluster::client_address(client, is_v6));
            format!("      - {{ name: client-{client}, when: {{ client: [\"{v4}\", \"{v6}\"] }}, send_to: {to} }}\n")
        };
        self.to.iter().enumerate().map(rule).collect()
    }
}

pub fn is_shared(address: IpAddr) -> bool {
    [false, true].iter().any(|is_v6| node_address(SHARED, *is_v6) == address)
}

impl World {
    /// Whether this is an address of the node.
    pub fn has_address(&self, node: usize, address: IpAddr) -> bool {
        let plan = &self.facts.plan;
        self.node_of(address) == Some(node) || is_shared(address) && plan.is_shared() && plan.nodes[node].has_frontend
    }

    /// The node at which a packet comes in.
    pub fn way(&mut self, packet: &[u8]) -> Option<usize> {
        let to = destination(packet);
        let entry = self.facts.plan.on_syn.as_ref().and_then(|on_syn| on_syn.entry);
        let Some(entry) = entry.filter(|_| is_shared(to)) else { return self.node_of(to) };
        let owners: Vec<usize> = (0..self.nodes.len()).filter(|node| self.facts.plan.nodes[*node].has_frontend).collect();
        let turn = match entry {
            Entry::EachPacket => self.random.below(owners.len() as u64) as usize,
            Entry::Turns(lasts) => (self.now / lasts) as usize,
            Entry::SynsElsewhere => match Segment::<_, ToServerWire>::parse(packet) {
                Ok(segment) => usize::from(segment.source().port) + usize::from(!segment.flags().contains(Flags::SYN)),
                Err(_) => 0,
            },
        };
        Some(owners[turn % owners.len()])
    }
}
