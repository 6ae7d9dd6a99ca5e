//! Two nodes with the real engine, two kernels, a client, and what is on its way between them. Cloneable, so that every
//! choice can be tried from the same moment.
//!
//! A node's engine has a clock of its own, which only moves when the explorer says so: nothing is assumed about how long
//! anything takes, nor that two clocks run alike.

use crate::client::Client;
use crate::kernel::Kernel;
use crate::rules::Seen;
use baton::control::message::{Epoch, Message};
use baton::flow::{Endpoint, FlowKey, NodeId};
use baton::handoff::{Engine, EngineConfig, Output, PeerEvent, Verdict};
use baton::policy::{ClusterFile, Policy};
use baton::rewrite::{Flags, Offload, Segment, ToClientWire, ToServerWire};
use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Instant;

pub const NODES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2)];
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// Client packets on their way between nodes at once; one more pushes out the oldest (a loss).
const OVERLAY_MAX: usize = 3;

/// The files a node may have: the first at the start, the others by a reload.
#[derive(Debug)]
pub struct Policies {
    by_node: [Vec<Rc<Policy>>; 2],
    pub origin: Instant,
}

const CLUSTER: &str = include_str!("../sim/cluster.yaml");
/// Images are not b's any more; node a's front-end address ceases.
const RELOADED: [&[(&str, &str)]; 2] = [
    &[("send_to: b", "send_to: local")],
    &[
        (r#"{ a: "10.77.0.1:80", b: "10.77.0.2:80" }"#, r#"{ b: "10.77.0.2:80" }"#),
        ("    rules:", "    servers: { a: { port: 80 }, b: { port: 80 } }\n    rules:"),
    ],
];

impl Policies {
    #[allow(clippy::disallowed_methods)] // An origin for virtual time; only differences to it are ever used.
    pub fn new() -> Rc<Self> {
        let changed = |changes: &[(&str, &str)]| {
            changes.iter().fold(CLUSTER.to_owned(), |text, (from, to)| {
                assert!(text.contains(from), "{from}");
                text.replace(from, to)
            })
        };
        let texts = [changed(&[]), changed(RELOADED[0]), changed(RELOADED[1])];
        let compile = |name: &str| {
            let file = |text: &String| ClusterFile::parse("cluster.yaml", text).unwrap_or_else(|report| panic!("{report}"));
            texts.iter().map(|text| Rc::new(file(text).compile(name).expect("the node is in the file"))).collect()
        };
        Rc::new(Self { by_node: [compile("a"), compile("b")], origin: Instant::now() })
    }

    pub fn get(&self, node: usize, number: u8) -> Rc<Policy> {
        Rc::clone(&self.by_node[node][usize::from(number)])
    }
}

#[derive(Clone)]
pub struct Node {
    /// None while the process is dead.
    pub engine: Option<Engine>,
    pub life: u64,
    pub now: Instant,
    pub kernel: Kernel,
    /// The kernel has a guard for the connection.
    pub is_guarded: bool,
    /// What the TUN has for the process.
    pub tun: VecDeque<Vec<u8>>,
    /// The process stands still, and its capture has noticed.
    pub is_hung: bool,
    pub policy: u8,
    /// Packets for node a's front-end address are steered into the TUN.
    pub captures: bool,
}

/// The control session. It may be broken before either end has noticed; what was not read by then is lost.
#[derive(Clone, Default)]
pub struct Session {
    pub is_intact: bool,
    /// Which nodes believe in it.
    pub is_up: [bool; 2],
    /// What is on its way to each.
    pub to: [VecDeque<Message>; 2],
}

/// What is told to the engine when it has said everything.
type Answer = Box<dyn FnOnce(&mut Engine, Instant)>;

/// The process of a node dies before it does what it says after so many things said.
pub type Armed = Option<(usize, u8)>;

#[derive(Clone)]
pub struct World {
    pub policies: Rc<Policies>,
    pub nodes: [Node; 2],
    pub client: Client,
    pub session: Session,
    /// Client packets between the nodes, from a to b: any order, any loss.
    pub overlay: Vec<Vec<u8>>,
    /// The next packet for the client is lost.
    pub loses_next: bool,
    pub armed: Armed,
    pub seen: Seen,
}

pub fn flow() -> FlowKey {
    FlowKey { client: Endpoint::new(IpAddr::V4(CLIENT), 50_000), frontend: Endpoint::new(IpAddr::V4(NODES[0]), 80) }
}

pub fn is_alias(endpoint: Endpoint) -> bool {
    matches!(endpoint.address, IpAddr::V4(address) if address.octets()[..2] == [198, 18])
}

fn engine(policy: Rc<Policy>, node: usize, life: u64, orphans: Vec<FlowKey>, now: Instant) -> Engine {
    let epoch = Epoch(10 * life + node as u64 + 1);
    let config = EngineConfig { node: NodeId(node as u16), epoch, overlay_overhead: 56, mtu: 1_500, orphans };
    Engine::new(config, policy, now)
}

impl World {
    /// Both nodes run, and their session is up. The client's request is for node b, in these parts.
    pub fn new(policies: &Rc<Policies>, parts: &[&str]) -> Self {
        let node = |index: usize| Node {
            engine: Some(engine(policies.get(index, 0), index, 0, Vec::new(), policies.origin)),
            life: 0,
            now: policies.origin,
            kernel: Kernel::new(b"AB"[index], 100_000 * (index as u32 + 1)),
            is_guarded: false,
            tun: VecDeque::new(),
            is_hung: false,
            policy: 0,
            captures: true,
        };
        let parts = parts.iter().map(|part| part.as_bytes().to_vec()).collect();
        let mut world = Self {
            policies: Rc::clone(policies),
            nodes: [node(0), node(1)],
            client: Client::new(flow().client, flow().frontend, parts),
            session: Session::default(),
            overlay: Vec::new(),
            loses_next: false,
            armed: None,
            seen: Seen::default(),
        };
        world.session.is_intact = true;
        for node in 0..2 {
            world.up(node);
        }
        for node in 0..2 {
            while !world.session.to[node].is_empty() {
                world.hear(node, false);
            }
        }
        world
    }

    pub fn is_alive(&self, node: usize) -> bool {
        self.nodes[node].engine.is_some()
    }
    /// Its capture is in place, and the process shows that it lives.
    pub fn captures(&self, node: usize) -> bool {
        self.runs(node) && self.nodes[node].captures
    }
    /// The process runs and may be given something to do.
    pub fn runs(&self, node: usize) -> bool {
        self.is_alive(node) && !self.nodes[node].is_hung
    }

    /// One input for the engine of a node, and everything that follows from it at once.
    pub fn with_engine(&mut self, node: usize, input: impl FnOnce(&mut Engine, Instant)) {
        let now = self.nodes[node].now;
        if let Some(engine) = &mut self.nodes[node].engine {
            input(engine, now);
            self.obey_outputs(node);
        }
    }

    // ---- What the engine says ---------------------------------------------------------------------------------------

    /// As the shell does it: everything that was said, then one answer, until there is neither.
    pub fn obey_outputs(&mut self, node: usize) {
        let mut answers: VecDeque<Answer> = VecDeque::new();
        loop {
            while let Some(output) = self.nodes[node].engine.as_mut().and_then(Engine::poll_output) {
                if let Some((_, left)) = self.armed.as_mut().filter(|(armed, _)| *armed == node) {
                    if *left == 0 {
                        return self.crash(node);
                    }
                    *left -= 1;
                }
                self.notice_output(node, &output);
                match output {
                    Output::Packet(packet, _) | Output::Local(packet, _) => self.write_to_tun(node, &packet),
                    Output::Forward(_, packet, _) => self.send_overlay(node, packet),
                    Output::Message(_, message) => {
                        if self.session.is_intact && self.session.is_up[node] {
                            self.session.to[1 - node].push_back(message);
                        }
                    }
                    Output::Guard(guarded) => {
                        assert_eq!(guarded, flow());
                        self.nodes[node].is_guarded = true;
                        answers.push_back(Box::new(move |engine, now| engine.handle_guard(guarded, true, now)));
                    }
                    Output::Unguard(_) => self.nodes[node].is_guarded = false,
                    Output::Unlink(..) | Output::LinkAnswered { .. } => {}
                    Output::AskSocket { local, remote } => {
                        let state = self.nodes[node].kernel.state(local, remote);
                        answers.push_back(Box::new(move |engine, now| engine.handle_socket(local, remote, state, now)));
                    }
                    Output::DestroySocket { local, remote } => self.nodes[node].kernel.destroy(local, remote),
                }
            }
            let now = self.nodes[node].now;
            match (answers.pop_front(), &mut self.nodes[node].engine) {
                (Some(answer), Some(engine)) => answer(engine, now),
                _ => return,
            }
        }
    }

    fn obey_verdict(&mut self, node: usize, verdict: Verdict, packet: Vec<u8>) {
        match verdict {
            Verdict::Write | Verdict::Local => self.write_to_tun(node, &packet),
            Verdict::Forward(_) | Verdict::ForwardOnLink(_) => self.send_overlay(node, packet),
            Verdict::Cut | Verdict::Consumed | Verdict::Drop(_) => {}
        }
    }

    fn send_overlay(&mut self, node: usize, packet: Vec<u8>) {
        assert_eq!(node, 0, "the client's packets arrive at a");
        if !self.overlay.contains(&packet) {
            if self.overlay.len() == OVERLAY_MAX {
                self.overlay.remove(0);
            }
            self.overlay.push(packet);
        }
    }

    /// The host's routing of what baton writes: to its own kernel, or out to the client.
    fn write_to_tun(&mut self, node: usize, packet: &[u8]) {
        let destination = Segment::<_, ToServerWire>::parse(packet).expect("only TCP").destination();
        if destination == flow().client {
            return self.leave(node, packet, false);
        }
        self.notice_written(node, packet);
        self.give_to_kernel(node, packet);
    }

    pub fn give_to_kernel(&mut self, node: usize, packet: &[u8]) {
        for said in self.nodes[node].kernel.receive(packet) {
            self.route_from_kernel(node, said);
        }
    }

    /// Captured if it comes from an alias, or is a SYN-ACK of the service while the process shows that it lives.
    pub fn route_from_kernel(&mut self, node: usize, packet: Vec<u8>) {
        let segment = Segment::<_, ToClientWire>::parse(packet.as_slice()).expect("only TCP");
        let (source, is_syn_ack) = (segment.source(), segment.flags().contains(Flags::SYN.with(Flags::ACK)));
        if is_alias(source) {
            // Without a process its blackhole takes it.
            if self.is_alive(node) {
                self.nodes[node].tun.push_back(packet);
            }
        } else if is_syn_ack && self.captures(node) {
            self.nodes[node].tun.push_back(packet);
        } else {
            self.leave(node, &packet, true);
        }
    }

    fn leave(&mut self, node: usize, packet: &[u8], is_untouched: bool) {
        self.notice_leaving(node, packet, is_untouched);
        if !std::mem::take(&mut self.loses_next)
            && let Err(what) = self.client.receive(packet)
        {
            self.seen.blame(what);
        }
    }

    // ---- What happens to a node -------------------------------------------------------------------------------------

    /// A packet of the client reaches node a.
    pub fn arrive(&mut self, packet: Vec<u8>) {
        let Node { is_guarded, is_hung, .. } = self.nodes[0];
        match (self.is_alive(0), is_guarded) {
            (true, true) if !is_hung => self.read_packet(0, packet),
            (true, false) if self.captures(0) => self.read_packet(0, packet),
            // A guarded connection's packets go to the TUN in any case, or into the blackhole when it is gone.
            (true, true) => self.nodes[0].tun.push_back(packet),
            (false, true) => {}
            (_, false) => self.give_to_kernel(0, &packet),
        }
    }

    pub fn read_packet(&mut self, node: usize, mut packet: Vec<u8>) {
        let now = self.nodes[node].now;
        let Some(engine) = &mut self.nodes[node].engine else { return };
        let verdict = engine.handle_tun(&mut packet, Offload::NONE, now);
        self.obey_verdict(node, verdict, packet);
        self.obey_outputs(node);
    }

    pub fn take_from_overlay(&mut self, index: usize) {
        let mut packet = self.overlay.remove(index);
        let now = self.nodes[1].now;
        let Some(engine) = &mut self.nodes[1].engine else { return };
        let verdict = engine.handle_overlay(NodeId(0), &mut packet, now);
        self.obey_verdict(1, verdict, packet);
        self.obey_outputs(1);
    }

    /// A node hears the next message; `again` leaves it there to be heard once more.
    pub fn hear(&mut self, node: usize, again: bool) {
        let message = if again { self.session.to[node].front().cloned() } else { self.session.to[node].pop_front() };
        let Some(message) = message else { return };
        let before = self.notice_hearing(node, &message);
        self.with_engine(node, |engine, now| engine.handle_message(NodeId(1 - node as u16), message.clone(), now));
        self.notice_heard(node, &message, before);
    }

    pub fn notice_break(&mut self, node: usize) {
        self.session.is_up[node] = false;
        self.session.to[node].clear();
        self.with_engine(node, |engine, now| engine.handle_peer(NodeId(1 - node as u16), PeerEvent::Down, now));
    }

    pub fn up(&mut self, node: usize) {
        self.session.is_up[node] = true;
        let peer = 1 - node;
        let epoch = Epoch(10 * self.nodes[peer].life + peer as u64 + 1);
        self.with_engine(node, |engine, now| engine.handle_peer(NodeId(peer as u16), PeerEvent::Up(epoch), now));
    }

    /// The process dies; the kernel, its guards and its sockets stay.
    pub fn crash(&mut self, node: usize) {
        let dying = &mut self.nodes[node];
        (dying.engine, dying.is_hung) = (None, false);
        dying.tun.clear();
        (self.session.is_up[node], self.session.is_intact) = (false, false);
        self.session.to[node].clear();
        self.armed = None;
        self.notice_crash(node);
    }

    /// A process without memory: it destroys sockets on aliases, and finds the guards.
    pub fn restart(&mut self, node: usize) {
        let reborn = &mut self.nodes[node];
        reborn.life += 1;
        // The last policy has no such front-end address.
        reborn.captures = reborn.policy != 2;
        reborn.kernel.sockets.retain(|socket| !is_alias(socket.local));
        let orphans = if reborn.is_guarded { vec![flow()] } else { Vec::new() };
        let policy = self.policies.get(node, reborn.policy);
        reborn.engine = Some(engine(policy, node, reborn.life, orphans, reborn.now));
    }

    pub fn resume(&mut self, node: usize) {
        self.nodes[node].is_hung = false;
        self.with_engine(node, Engine::handle_stall);
    }

    pub fn reload(&mut self, node: usize, number: u8) {
        self.nodes[node].policy = number;
        let policy = self.policies.get(node, number);
        self.with_engine(node, |engine, now| engine.replace_policy(policy, now));
    }

    /// The next deadline of a node comes; whether its engine hears of it at once.
    pub fn pass_time(&mut self, node: usize, is_heard: bool) {
        let Some(at) = self.nodes[node].engine.as_ref().and_then(Engine::poll_timeout) else { return };
        self.nodes[node].now = self.nodes[node].now.max(at);
        if is_heard {
            self.with_engine(node, Engine::handle_timeout);
        }
    }

    /// States of the connection at a node, in both roles.
    pub fn labels(&self, node: usize) -> BTreeSet<(&'static str, &'static str)> {
        let Node { engine, now, .. } = &self.nodes[node];
        engine.iter().flat_map(|engine| engine.flows(*now)).map(|view| (view.role, view.state)).collect()
    }
}
