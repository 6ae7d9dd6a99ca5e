//! What must hold after every step, and what has to be remembered to tell.

use crate::kernel::Tcp;
use crate::world::{World, flow, is_alias};
use baton::control::message::{HandoffId, Message};
use baton::flow::Endpoint;
use baton::handoff::Output;
use baton::rewrite::{Flags, Segment, ToClientWire, ToServerWire};
use std::collections::BTreeMap;

/// What has happened.
#[derive(Clone, Default)]
pub struct Seen {
    /// The handoff that a has committed to a peer, and that has neither come back nor ended.
    pub given: Option<HandoffId>,
    /// The front-end has given the connection up and said so to the client.
    gave_up: bool,
    /// Nodes that have sent payload to the client.
    sent_payload: [bool; 2],
    /// How often each commit was applied.
    applied: BTreeMap<HandoffId, u64>,
    /// Messages said and packets that left: whether something could be noticed from outside.
    pub noticed: u32,
    /// The first rule that was broken.
    pub broken: Option<String>,
}

impl Seen {
    /// What tells two worlds apart.
    pub fn memory(&self) -> impl std::hash::Hash + '_ {
        (self.given, self.gave_up, self.sent_payload, &self.applied)
    }

    pub fn blame(&mut self, what: impl Into<String>) {
        self.broken.get_or_insert(what.into());
    }
}

impl World {
    pub fn notice_output(&mut self, node: usize, output: &Output) {
        let Output::Message(_, message) = output else { return };
        self.seen.noticed += 1;
        match message {
            Message::Offer(_) if node == 0 && self.seen.given.is_some() => {
                self.seen.blame("the front-end takes back what it has committed: it asks somebody else");
            }
            Message::Commit { id, .. } if node == 0 => {
                if self.seen.given.is_some_and(|given| given != *id) {
                    self.seen.blame("two commits for one connection");
                }
                self.seen.given = Some(*id);
            }
            Message::Returned { .. } => {
                let is_here = |socket: &crate::kernel::Socket| is_alias(socket.local) && socket.tcp != Tcp::TimeWait;
                if self.nodes[node].kernel.sockets.iter().any(is_here) {
                    self.seen.blame("returned, and still in the owner's kernel");
                }
                if self.nodes[node].kernel.touched > 0 {
                    self.seen.blame("returned, and the owner's application has seen the request");
                }
            }
            _ => {}
        }
    }

    /// Commits applied by this node so far, if that is the question.
    pub fn notice_hearing(&self, node: usize, message: &Message) -> u64 {
        let Message::Commit { .. } = message else { return 0 };
        let counters = self.nodes[node].engine.iter().flat_map(|engine| engine.counters());
        counters.filter(|(name, _)| name == "handoffs_accepted_total").map(|(_, count)| count).sum()
    }

    pub fn notice_heard(&mut self, node: usize, message: &Message, before: u64) {
        match message {
            Message::Commit { id, .. } if self.is_alive(node) => {
                let applied = self.notice_hearing(node, message).saturating_sub(before);
                let times = self.seen.applied.entry(*id).or_default();
                *times += applied;
                if *times > 1 {
                    self.seen.blame("a commit was applied twice");
                }
            }
            Message::Returned { id } | Message::Closed { id } if node == 0 && self.seen.given == Some(*id) => {
                self.seen.given = None;
            }
            Message::OwnedEnd if node == 0 && self.labels(0).contains(&("front-end", "lingering")) => self.seen.given = None,
            _ => {}
        }
    }

    pub fn notice_crash(&mut self, node: usize) {
        if node == 0 {
            self.seen.given = None;
        }
    }

    /// Something is written to a kernel, through the TUN.
    pub fn notice_written(&mut self, node: usize, packet: &[u8]) {
        let Ok(segment) = Segment::<_, ToServerWire>::parse(packet) else { return };
        if segment.destination() != flow().frontend || segment.flags().intersects(Flags::RST.with(Flags::SYN)) {
            return;
        }
        if self.nodes[node].is_guarded {
            self.seen.blame("the front-end's kernel is given a packet of a guarded connection");
        }
        if self.seen.given.is_some() {
            self.seen.blame("the front-end takes back what it has committed: its own kernel gets the client's packets");
        }
    }

    /// A packet leaves a node for the client; untouched if it came straight from the kernel.
    pub fn notice_leaving(&mut self, node: usize, packet: &[u8], is_untouched: bool) {
        self.seen.noticed += 1;
        let Ok(segment) = Segment::<_, ToClientWire>::parse(packet) else { return };
        if segment.source() != flow().frontend {
            self.seen.blame(format!("an untranslated packet leaves node {node}"));
        }
        if !segment.payload().is_empty() {
            self.seen.sent_payload[node] = true;
        }
        let is_kernels_reset = is_untouched && segment.flags().contains(Flags::RST);
        if is_kernels_reset && !self.seen.gave_up && !self.client.is_over() && (0..2).any(|owner| self.serves(owner).is_some()) {
            self.seen.blame("a kernel answers for a connection it has given away");
        }
    }

    /// The alias on which a node's kernel has the connection, if what it sends for it gets out.
    pub fn serves(&self, node: usize) -> Option<Endpoint> {
        let node = &self.nodes[node];
        let has = |alias: Endpoint| {
            let is_it = |socket: &crate::kernel::Socket| socket.local == alias && socket.tcp == Tcp::Open;
            node.kernel.sockets.iter().any(is_it)
        };
        let views = node.engine.iter().flat_map(|engine| engine.flows(node.now));
        let serving = views.filter(|view| view.role == "back-end" && matches!(view.state, "delivering" | "established"));
        serving.filter_map(|view| view.socket).find(|alias| has(*alias))
    }

    /// What holds at every moment.
    pub fn check(&mut self) {
        self.seen.gave_up |= self.labels(0).contains(&("front-end", "lost"));
        let own = self.nodes[0].kernel.sockets.iter().find(|socket| socket.local == flow().frontend);
        let is_clients = own.is_some_and(|own| self.client.server_isn.is_none_or(|isn| isn == own.iss));
        let serves_locally = is_clients && own.is_some_and(|own| own.tcp == Tcp::Open);
        let owners = usize::from(serves_locally) + (0..2).filter(|node| self.serves(*node).is_some()).count();
        if owners > 1 {
            self.seen.blame("two kernels may send payload for one connection");
        }
        if is_clients && own.is_some_and(|own| own.tcp != Tcp::TimeWait) && (0..2).any(|node| self.serves(node).is_some()) {
            self.seen.blame("the front-end's kernel still has what another kernel serves");
        }
        if self.seen.sent_payload == [true, true] {
            self.seen.blame("two nodes have sent payload for one connection");
        }
        if self.nodes.iter().map(|node| node.kernel.touched).sum::<u8>() > 1 {
            self.seen.blame("one request has reached two applications");
        }
        let is_prefix = |name: u8| [name; crate::kernel::ANSWER_BYTES].starts_with(&self.client.stream);
        if !is_prefix(b'A') && !is_prefix(b'B') {
            self.seen.blame("the client has read what no one server has written");
        }
    }
}
