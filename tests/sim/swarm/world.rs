//! Clients, nodes and what is between them, in virtual time. One thing happens, everybody comes to rest, the next happens.

use super::super::host::set_virtual_clock;
use super::bytes::NAMES;
use super::client::{Peer, Stack};
use super::cluster::{FRONTEND_PORT, client_address, node_address};
use super::control::Sessions;
use super::link::Link;
use super::node::{Input, Node};
use super::odd::Odd;
use super::on_syn::SHARED;
use super::plan::{Fault, Kind, Plan, SECOND};
use super::relabel::Relabel;
use super::rules::{self, Facts, Rule, Seen};
use super::trace::{Place, Trace};
use super::{ecn, errors, fragments};
use baton::control::message::Epoch;
use baton::flow::{Endpoint, FlowKey};
use baton::rewrite::{Segment, ToServerWire};
use drill::random::Random;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long after the last fault everything must be over: a lost owner's clients are reset after 30 s, retransmissions
/// back off to 60 s, and some of them are lost again.
const BOUND: u64 = 3_000 * SECOND;

#[derive(Debug)]
pub enum Event {
    ToClient {
        client: usize,
        packet: Vec<u8>,
    },
    ToNode {
        node: usize,
        packet: Vec<u8>,
    },
    ToProcess {
        node: usize,
        input: Input,
    },
    Dial {
        a: usize,
        b: usize,
    },
    Fault {
        index: usize,
        is_over: bool,
    },
    /// A process that was told to stop looks whether it may end.
    MayEnd {
        node: usize,
        epoch: Epoch,
        lasts: u64,
    },
    Start {
        node: usize,
    },
}

pub struct ClientHost {
    pub peer: Box<dyn Peer>,
    pub up: Link,
    pub down: Link,
    pub is_dirty: bool,
    pub poll_at: Option<u64>,
}

/// How a run ends.
pub struct Outcome {
    pub broken: Option<String>,
    pub trace: Trace,
    pub steps: u64,
    /// Counters of all nodes and lives together.
    pub counters: BTreeMap<String, u64>,
    /// Handoffs whose shifts were made zero.
    pub zero_shifts: u64,
    /// Odd things that happened, and how often.
    pub odd: BTreeMap<&'static str, u64>,
}

pub struct World {
    pub facts: Facts,
    pub now: u64,
    origin: Instant,
    pub random: Random,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    pub nodes: Vec<Node>,
    pub clients: Vec<ClientHost>,
    pub overlay: BTreeMap<(usize, usize), Link>,
    pub sessions: Sessions,
    rules: Vec<Box<dyn Rule>>,
    pub trace: Trace,
    broken: Option<String>,
    pub steps: u64,
    pub relabel: Option<Vec<Relabel>>,
    /// For the relabelling: what front-ends offered, and the SYN-ACKs that clients were sent.
    pub offered: BTreeMap<FlowKey, (u32, u32)>,
    pub syn_acks: BTreeMap<FlowKey, (u32, u32, u64)>,
    pub zero_shifts: u64,
    pub counters: BTreeMap<String, u64>,
    /// Odd things that happened, and how often.
    pub odd: BTreeMap<&'static str, u64>,
    /// The latest packets of clients and datagrams between nodes: what a forger may have seen.
    pub overheard: Vec<Vec<u8>>,
    pub overheard_overlay: Vec<(usize, Vec<u8>)>,
    /// Something done wrong on purpose, to see a rule catch it.
    pub sabotage: Option<super::sabotage::Sabotage>,
}

pub fn is_alias(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..2] == [198, 18],
        IpAddr::V6(address) => address.segments()[..4] == [0xfd00, 0xba70, 0, 0],
    }
}

pub fn destination(packet: &[u8]) -> IpAddr {
    fn octets<const N: usize>(packet: &[u8], at: usize) -> [u8; N] {
        packet[at..at + N].try_into().expect("as many octets as asked for")
    }
    if packet[0] >> 4 == 4 { octets::<4>(packet, 16).into() } else { octets::<16>(packet, 24).into() }
}

impl World {
    #[allow(clippy::disallowed_methods)] // An origin for virtual time; only differences to it are ever used.
    pub fn new(plan: Plan, is_kept: bool, is_relabelled: bool) -> Self {
        set_virtual_clock(0);
        let frontends = (0..plan.nodes.len()).filter(|node| plan.nodes[*node].has_frontend);
        let frontends = frontends.chain(plan.is_shared().then_some(SHARED));
        let frontends =
            frontends.flat_map(|node| [false, true].map(|is_v6| Endpoint::new(node_address(node, is_v6), FRONTEND_PORT)));
        let facts = Facts { frontends: frontends.collect(), plan };
        let plan = &facts.plan;
        let count = plan.nodes.len();
        let nodes = (0..count).map(|node| Node::new(node, plan)).collect();
        let clients = plan.clients.iter().enumerate().map(|(index, client)| {
            let errands = plan.errands.iter().filter(|errand| errand.client == index).cloned().collect();
            let is_lossy =
                plan.has_any(&[Kind::Loss, Kind::Bursts, Kind::Corruption, Kind::ClientPartition, Kind::OverlayPartition]);
            let seed = plan.seed.wrapping_mul(37).wrapping_add(index as u64);
            let peer: Box<dyn Peer> = if client.is_odd {
                Box::new(Odd::new(index, !plan.is_gentle(), client, errands, seed))
            } else {
                Box::new(Stack::new(index, is_lossy, plan.kinds.contains(&Kind::Ecn), client, errands, seed))
            };
            ClientHost { peer, up: Link::new(client.up), down: Link::new(client.down), is_dirty: true, poll_at: None }
        });
        let pairs = (0..count).flat_map(|a| (0..count).map(move |b| (a, b))).filter(|(a, b)| a != b);
        let mut world = Self {
            now: 0,
            origin: Instant::now(),
            random: Random::of(plan.seed, "network"),
            events: BTreeMap::new(),
            sequence: 0,
            nodes,
            clients: clients.collect(),
            overlay: pairs.clone().map(|pair| (pair, Link::new(plan.overlay))).collect(),
            sessions: Sessions::default(),
            rules: rules::all(&facts),
            trace: Trace::kept(is_kept),
            broken: None,
            steps: 0,
            relabel: is_relabelled.then(|| (0..count).map(|_| Relabel::default()).collect()),
            offered: BTreeMap::new(),
            syn_acks: BTreeMap::new(),
            zero_shifts: 0,
            counters: BTreeMap::new(),
            odd: BTreeMap::new(),
            overheard: Vec::new(),
            overheard_overlay: Vec::new(),
            sabotage: None,
            facts,
        };
        let now = world.instant();
        for node in 0..count {
            world.nodes[node].start(node, &world.facts.plan, now);
        }
        for (a, b) in pairs.filter(|(a, b)| a < b) {
            world.dial(a, b);
        }
        let faults: Vec<u64> = world.facts.plan.faults.iter().map(|(at, _)| *at).collect();
        for (index, at) in faults.into_iter().enumerate() {
            world.post_at(at, Event::Fault { index, is_over: false });
        }
        world
    }

    pub fn instant(&self) -> Instant {
        self.origin + Duration::from_micros(self.now)
    }

    pub fn post(&mut self, delay: u64, event: Event) {
        self.post_at(self.now + delay, event);
    }

    pub fn post_at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((at.max(self.now), self.sequence), event);
    }

    /// All rules look at it.
    pub fn see(&mut self, seen: &Seen<'_>) {
        if self.broken.is_some() {
            return;
        }
        for rule in &mut self.rules {
            if let Err(what) = rule.see(self.now, seen, &self.facts) {
                self.broken = Some(format!("rule {}: {what}", rule.name()));
                return;
            }
        }
    }

    pub fn blame(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    // ---- Everybody comes to rest ------------------------------------------------------------------------------------

    fn settle(&mut self) {
        for _ in 0..200 {
            let mut is_quiet = true;
            for client in 0..self.clients.len() {
                if std::mem::take(&mut self.clients[client].is_dirty) {
                    is_quiet = false;
                    self.run_client(client);
                }
            }
            for node in 0..self.nodes.len() {
                if std::mem::take(&mut self.nodes[node].is_dirty) {
                    is_quiet = false;
                    self.run_kernel(node);
                }
            }
            if is_quiet || self.broken.is_some() {
                return;
            }
        }
        self.blame("the hosts do not come to rest".to_owned());
    }

    fn run_client(&mut self, client: usize) {
        let now = self.now;
        let host = &mut self.clients[client];
        let sent = host.peer.poll(now);
        let events = host.peer.events();
        host.poll_at = host.peer.poll_at(now);
        for event in events {
            self.trace.say(now, || match &event {
                super::client::Event::Read { errand, octets } => {
                    format!("client {client}: errand {errand} reads {}", octets.len())
                }
                event => format!("client {client}: {event:?}"),
            });
            if let super::client::Event::Ended { .. } = event {
                self.clients[client].is_dirty = true;
            }
            self.see(&Seen::Client { event: &event });
        }
        for packet in sent {
            self.trace.packet(now, Place::Client(client), false, &packet);
            let Ok(segment) = Segment::<_, ToServerWire>::parse(packet.as_slice()) else { continue };
            self.trace.say(now, || format!("client {client} > {segment}"));
            self.see(&Seen::ClientSent { segment: &segment });
            let Some(node) = self.way(&packet) else { continue };
            self.overheard.push(packet.clone());
            for packet in self.pass_router(client, true, packet) {
                for (at, packet) in self.clients[client].up.carry(packet, now, &mut self.random) {
                    self.post_at(at, Event::ToNode { node, packet });
                }
            }
        }
    }

    /// What a router between a client and the nodes makes of a packet: an error, fragments, or the packet, marked or not.
    pub fn pass_router(&mut self, client: usize, is_up: bool, mut packet: Vec<u8>) -> Vec<Vec<u8>> {
        let now = self.now;
        let host = &mut self.clients[client];
        let link = if is_up { &host.up } else { &host.down };
        if packet.len() > link.mtu {
            *self.odd.entry(if is_up { "errors for clients" } else { "errors for servers" }).or_default() += 1;
            if self.sabotage == Some(super::sabotage::Sabotage::ErrorsLost) {
                return Vec::new();
            }
            let error = errors::too_big(&packet, link.mtu);
            let to = self.way(&error);
            let host = &mut self.clients[client];
            let back = if is_up { &mut host.down } else { &mut host.up };
            for (at, packet) in back.carry(error, now, &mut self.random) {
                match to {
                    Some(node) => self.post_at(at, Event::ToNode { node, packet }),
                    None => self.post_at(at, Event::ToClient { client, packet }),
                }
            }
            return Vec::new();
        }
        if self.random.permille(self.facts.plan.ce_permille) && ecn::bits(&packet) == ecn::ECT {
            ecn::mark(&mut packet, ecn::CE);
            *self.odd.entry(if is_up { "marks for servers" } else { "marks for clients" }).or_default() += 1;
        }
        if self.random.permille(link.fragment_permille) && packet[0] == 0x45 && packet.len() >= 128 {
            *self.odd.entry("packets cut into fragments").or_default() += 1;
            let first = self.random.between(8, packet.len() as u64 - 40) as usize;
            return fragments::cut(&packet, first.max(24), self.random.next() as u16).into();
        }
        vec![packet]
    }

    pub fn node_of(&self, address: IpAddr) -> Option<usize> {
        (0..self.nodes.len()).find(|node| [false, true].iter().any(|is_v6| node_address(*node, *is_v6) == address))
    }

    // ---- Time -------------------------------------------------------------------------------------------------------

    fn next_time(&self) -> Option<u64> {
        let event = self.events.keys().next().map(|(at, _)| *at);
        let engines = self.nodes.iter().filter(|node| node.is_awake()).filter_map(|node| {
            let at = node.life.as_ref()?.engine.poll_timeout()?;
            Some(self.microseconds(at))
        });
        let hosts = self.nodes.iter().filter_map(|node| node.poll_at);
        let clients = self.clients.iter().filter_map(|client| client.poll_at);
        event.into_iter().chain(engines).chain(hosts).chain(clients).min()
    }

    /// Rounded up: a deadline is not heard before it has come.
    fn microseconds(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.origin).as_nanos().div_ceil(1_000) as u64
    }

    /// Runs to the end, and tells how it was.
    pub fn run(mut self) -> Outcome {
        let errands_end = self.facts.plan.errands.iter().map(|errand| errand.starts + errand.silence).sum::<u64>();
        let limit = self.facts.plan.faults_end() + errands_end + BOUND;
        let mut over_at = None;
        loop {
            self.settle();
            if self.broken.is_some() {
                break;
            }
            let is_over = self.clients.iter().all(|client| client.peer.is_finished());
            if is_over && over_at.is_none() {
                // Late packets, lingering, and owners that are lost.
                over_at = Some(self.now.max(self.facts.plan.faults_end()) + self.quiet_time());
            }
            let until = over_at.unwrap_or(limit);
            let next = self.next_time().unwrap_or(until);
            if next > until {
                self.now = until;
                break;
            }
            self.now = next.max(self.now);
            set_virtual_clock(self.now);
            self.wake();
        }
        self.finish(over_at.is_some())
    }

    /// How long everything may take to be forgotten when all clients have what they wanted.
    fn quiet_time(&self) -> u64 {
        let linger = self.facts.plan.linger_seconds * SECOND;
        // An idle connection is looked up once a minute; an application drops it after four; so does a kernel that waits for a FIN.
        if self.facts.plan.is_calm() { linger + 30 * SECOND } else { linger + 700 * SECOND }
    }

    fn wake(&mut self) {
        let (now, instant) = (self.now, self.instant());
        for node in &mut self.nodes {
            node.is_dirty |= node.poll_at.is_some_and(|at| at <= now);
        }
        for client in &mut self.clients {
            client.is_dirty |= client.poll_at.is_some_and(|at| at <= now);
        }
        // What came in time is read before deadlines are heard.
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > now || self.broken.is_some() {
                break;
            }
            let event = entry.remove();
            self.happen(event);
            self.settle();
        }
        for node in 0..self.nodes.len() {
            let is_due = |life: &super::node::Life| life.engine.poll_timeout().is_some_and(|at| at <= instant);
            if self.nodes[node].is_awake() && self.nodes[node].life.as_ref().is_some_and(is_due) {
                self.hear_deadlines(node);
                self.settle();
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToClient { client, packet } => {
                self.trace.packet(self.now, Place::Client(client), true, &packet);
                self.trace.to_clients.push((self.now, client, packet.clone()));
                self.clients[client].peer.receive(packet, self.now);
                self.clients[client].is_dirty = true;
            }
            Event::ToNode { node, packet } => self.arrive(node, packet),
            Event::ToProcess { node, input } => self.give(node, input),
            Event::Dial { a, b } => self.dial(a, b),
            Event::MayEnd { node, epoch, lasts } => self.look_for_end(node, epoch, lasts),
            Event::Start { node } => self.start(node),
            Event::Fault { index, is_over } => {
                let fault = self.facts.plan.faults[index].1.clone();
                self.trace.say(self.now, || format!("{} {fault:?}", if is_over { "OVER" } else { "FAULT" }));
                self.see(&Seen::Fault { fault: &fault });
                self.apply(index, &fault, is_over);
            }
        }
    }

    /// A client's address and index, for packets on their way to it.
    pub fn client_of(&self, address: IpAddr) -> Option<usize> {
        let clients = self.facts.plan.clients.iter().enumerate();
        clients
            .map(|(index, client)| (index, client_address(index, client.is_v6)))
            .find(|(_, its)| *its == address)
            .map(|(index, _)| index)
    }

    fn finish(mut self, is_over: bool) -> Outcome {
        if self.broken.is_none() {
            for rule in &mut self.rules {
                if let Err(what) = rule.end(self.now, &self.facts) {
                    self.broken = Some(format!("rule {}: {what}", rule.name()));
                    break;
                }
            }
        }
        for node in 0..self.nodes.len() {
            self.collect_counters(node);
        }
        if self.broken.is_none() && is_over {
            self.broken = self.remains();
        }
        let of_clients = self.clients.iter().flat_map(|client| client.peer.odd());
        let of_kernels = self.nodes.iter().flat_map(|node| {
            let ecn = &node.kernel.ecn;
            let marks = [("marks that reached servers", ecn.marks), ("marks that clients echoed", ecn.echoes)];
            node.kernel.odd.iter().map(|(what, count)| (*what, *count)).chain(marks)
        });
        for (what, count) in of_clients.chain(of_kernels) {
            *self.odd.entry(what).or_default() += count;
        }
        Outcome {
            odd: self.odd,
            broken: self.broken,
            trace: self.trace,
            steps: self.steps,
            counters: self.counters,
            zero_shifts: self.zero_shifts,
        }
    }

    /// Counters of a life that is over.
    pub fn collect_counters(&mut self, node: usize) {
        let Some(life) = &self.nodes[node].life else { return };
        for (name, value) in life.engine.counters() {
            if name.contains("_total") && value > 0 {
                *self.counters.entry(name).or_default() += value;
            }
        }
    }

    /// What is left where nothing may be.
    fn remains(&self) -> Option<String> {
        // smoltcp forgets now and then to send a FIN again, also to a client that takes what it likes for lost: then the kernel has the connection, and baton is right to know it.
        let has_replay = |node: &Node| node.kernel.connections.iter().any(|known| is_alias(known.local.address));
        if !self.facts.plan.kinds.iter().all(|kind| *kind == Kind::OnSyn) && self.nodes.iter().any(has_replay) {
            return None;
        }
        for (node, its) in self.nodes.iter().enumerate() {
            let Some(life) = &its.life else { continue };
            let name = NAMES[node];
            for gauge in
                ["connections_front_end", "connections_back_end", "connections_lingering", "first_flight_bytes", "orphans"]
            {
                let counters = life.engine.counters();
                let value = counters.iter().find(|(counter, _)| counter == gauge).map_or(0, |(_, value)| *value);
                if value > 0 {
                    return Some(format!(
                        "at the end, {gauge} of node {name} is {value}: {:?}",
                        life.engine.flows(self.instant())
                    ));
                }
            }
            if !its.guards.is_empty() {
                return Some(format!("at the end, node {name} has guards: {:?}", its.guards));
            }
        }
        if self.facts.plan.is_calm() {
            let wrong = |(name, value): (&String, &u64)| {
                let is_wrong = name.starts_with("fallbacks_total") || name == "resets_total" || name == "disowned_total";
                (is_wrong && *value > 0).then(|| format!("without a fault, {name} is {value}"))
            };
            return self.counters.iter().find_map(wrong);
        }
        None
    }

    pub fn fault_over(&mut self, index: usize, lasts: u64) {
        self.post(lasts, Event::Fault { index, is_over: true });
    }

    /// Whether a fault of this kind still holds for a node, by another entry of the plan than `index`.
    pub fn still(&self, index: usize, is_it: impl Fn(&Fault) -> Option<u64>) -> bool {
        let others = self.facts.plan.faults.iter().enumerate().filter(|(other, _)| *other != index);
        others.filter_map(|(_, (at, fault))| is_it(fault).map(|lasts| *at..*at + lasts)).any(|span| span.contains(&self.now))
    }
}
