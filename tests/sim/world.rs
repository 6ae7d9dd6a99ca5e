//! Two nodes, a client, and the network between them, in virtual time: the real engine with simulated kernels.
//!
//! ```text
//!            SYN, ACK, request               offer, commit (control: ordered, not lost)
//!   client ------------------> node a  ==================================> node b
//!      ^    <-- SYN-ACK ------    |  ----- client packets (overlay) -----> |
//!      |                          |                                        |
//!      '------ answer, direct ----'------------- answer, direct -----------'
//! ```

use super::host::{Client, Host, Server, answer, destroy_socket, set_virtual_clock, socket_state};
use super::offload;
use super::requests::Requests;
use super::swarm::control;
use baton::control::frame::{Frame, FrameBuffer};
use baton::control::message::{Epoch, Message};
use baton::control::seal::{HEADER_BYTES, Keyring, TAG_BYTES};
use baton::flow::{Endpoint, FlowKey, NodeId};
use baton::handoff::{Engine, EngineConfig, Output, PeerEvent, SocketState, Verdict};
use baton::policy::ClusterFile;
use baton::rewrite::{Flags, Offload, Segment, Seq, ToClientWire, ToServerLocal, ToServerWire};
use drill::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The IP version of a whole world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    fn host(self, number: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 77, 0, number).into(),
            Self::V6 => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into()).into(),
        }
    }

    pub fn client(self) -> IpAddr {
        self.host(100)
    }

    pub fn node(self, index: usize) -> IpAddr {
        self.host(index as u8 + 1)
    }

    /// A cluster file that is written for IPv4, in this family.
    fn of_file(self, text: &str) -> String {
        match self {
            Self::V4 => text.to_owned(),
            Self::V6 => {
                let text = text.replace("198.18.0.0/16", "fd00:ba70::/64");
                (1..=2).fold(text, |text, number| {
                    let bracketed = text.replace(&format!("10.77.0.{number}:"), &format!("[fd77::{number}]:"));
                    bracketed.replace(&format!("10.77.0.{number}"), &format!("\"fd77::{number}\""))
                })
            }
        }
    }

    /// Octets of a packet before TCP.
    pub fn header_bytes(self) -> u16 {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }
}

const NAMES: [&str; 2] = ["a", "b"];
const MTU: usize = 1_500;

const CLUSTER: &str = include_str!("cluster.yaml");

/// Takes something out of a SYN-ACK.
pub type Lack = fn(&mut Segment<&mut [u8], ToClientWire>);

/// Whether the hosts of this test program have offload.
pub fn has_offload() -> bool {
    module_path!().starts_with("sim_with_offload")
}

/// A client that is no TCP stack. Times are microseconds.
pub trait ByHand {
    fn receive(&mut self, packet: &[u8], now: u64);
    /// Works, and gives what it has to send.
    fn poll(&mut self, now: u64) -> Vec<Vec<u8>>;
    fn poll_at(&self, now: u64) -> Option<u64>;
}

/// What the network does to packets.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    pub family: Family,
    /// Microseconds between client and nodes, one way.
    pub client_delay: u64,
    /// Microseconds between nodes, one way.
    pub node_delay: u64,
    /// Packets lost per thousand, on every path but the control channel.
    pub loss_permille: u64,
}

impl Default for Network {
    fn default() -> Self {
        Self { family: Family::V4, client_delay: 5_000, node_delay: 100, loss_permille: 0 }
    }
}

impl Network {
    /// The usual one, of this family.
    pub fn of(family: Family) -> Self {
        Self { family, ..Self::default() }
    }
}

enum Event {
    ToClient(Vec<u8>),
    ToNode(usize, Vec<u8>, Offload),
    /// Sealed.
    Overlay {
        to: usize,
        datagram: Vec<u8>,
    },
    /// A frame.
    Control {
        from: usize,
        to: usize,
        octets: Vec<u8>,
    },
}

pub struct Node {
    pub engine: Engine,
    epoch: Epoch,
    keyring: Keyring,
    pub kernel: Host,
    pub server: Server,
    pub guards: BTreeSet<FlowKey>,
    /// Payload octets this node sent to the client.
    pub payload_sent: u64,
    guards_fail: bool,
    requests: Requests,
}

fn read(text: &str) -> ClusterFile {
    ClusterFile::parse("cluster.yaml", text).unwrap_or_else(|report| panic!("{report}"))
}

/// The ports on which a node's application must listen: those of its front-ends, and where handed-off connections arrive.
fn ports(file: &ClusterFile, node: usize) -> Vec<u16> {
    let policy = file.compile(NAMES[node]).expect("the node is in the file");
    let service = &policy.services[0];
    let own = service.frontends.iter().filter(|(owner, _)| *owner == policy.node).map(|(_, frontend)| frontend.port);
    let ports: BTreeSet<u16> = own.chain(service.server_port(policy.node)).collect();
    ports.into_iter().collect()
}

fn engine(file: &ClusterFile, node: usize, epoch: Epoch, orphans: Vec<FlowKey>, now: Instant) -> Engine {
    let policy = Rc::new(file.compile(NAMES[node]).expect("the node is in the file"));
    let config = EngineConfig { node: NodeId(node as u16), epoch, overlay_overhead: 56, mtu: MTU as u16, orphans };
    Engine::new(config, policy, now)
}

pub struct World {
    /// The cluster file of each node.
    files: [ClusterFile; 2],
    pub now: u64,
    origin: Instant,
    network: Network,
    random: Random,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    pub nodes: Vec<Node>,
    pub client: Host,
    pub clients: Vec<Client>,
    /// Messages said between nodes, by name: the order is part of the trace.
    pub said: Vec<String>,
    /// One line for every packet that reached the client.
    pub trace: Vec<String>,
    /// Every segment that reached the client.
    pub to_client: Vec<Segment<Vec<u8>, ToClientWire>>,
    /// Until then no kernel's answer to a replay comes out of it.
    pub swallow_syn_acks_from_alias_until: u64,
    /// Until then a kernel gets only the first segment of a first flight: the rest is lost on its way into it.
    pub lose_rest_of_flight_until: u64,
    /// Super-segments that an engine was given, and that it had written.
    pub super_segments: (usize, usize),
    /// A kernel completes no replayed handshake, as with a full accept queue.
    pub accept_queues_are_full: bool,
    /// The next packet for the client is lost.
    pub lose_first_to_client: bool,
    /// Round trips that kernels took from completed handshakes, in milliseconds; None where they took none.
    pub samples: Vec<Option<u64>>,
    /// Kernels do not answer a SYN that they have answered already.
    pub ignore_repeated_syns: bool,
    /// Kernels say that they keep no request, as under SYN cookies.
    pub requests_are_cookies: bool,
    /// Clients ask for accurate ECN (RFC 9768) and are granted that of RFC 3168; the simulated kernels know neither.
    pub ecn: bool,
    /// For each node, what its kernel's SYN-ACKs lack, as if it had other settings.
    pub lacks: [Option<Lack>; 2],
    control_is_up: bool,
    /// In place of the client's kernel, and with its address.
    pub by_hand: Option<Box<dyn ByHand>>,
    /// So many there have been.
    sessions: u64,
    /// Messages of these kinds are not delivered.
    pub swallow: Option<fn(&Message) -> bool>,
}

impl World {
    pub fn new(seed: u64, network: Network, body_bytes: usize) -> Self {
        Self::with_files(seed, network, body_bytes, [CLUSTER, CLUSTER])
    }

    /// With a service that has these lines for `frontends` and `servers`.
    pub fn with_service(seed: u64, network: Network, body_bytes: usize, frontends: &str, servers: &str) -> Self {
        let text = text_of_service(frontends, servers);
        Self::with_files(seed, network, body_bytes, [&text, &text])
    }

    /// Each node with a cluster file of its own.
    #[allow(clippy::disallowed_methods)] // An origin for virtual time; only differences to it are ever used.
    pub fn with_files(seed: u64, network: Network, body_bytes: usize, files: [&str; 2]) -> Self {
        let origin = Instant::now();
        let files = files.map(|text| read(&network.family.of_file(text)));
        let nodes = (0..2)
            .map(|index| {
                let epoch = Epoch(seed * 2 + index as u64 + 1);
                let mut kernel = Host::new(network.family.node(index), seed * 3 + index as u64);
                let server = Server::new(&mut kernel, NAMES[index], &ports(&files[index], index), 8, body_bytes);
                Node {
                    engine: engine(&files[index], index, epoch, Vec::new(), origin),
                    epoch,
                    keyring: Keyring::default(),
                    kernel,
                    server,
                    guards: BTreeSet::new(),
                    payload_sent: 0,
                    guards_fail: false,
                    requests: Requests::default(),
                }
            })
            .collect();
        let mut world = Self {
            files,
            now: 0,
            origin,
            network,
            random: Random::new(seed),
            events: BTreeMap::new(),
            sequence: 0,
            nodes,
            client: Host::new(network.family.client(), seed * 3 + 2),
            clients: Vec::new(),
            said: Vec::new(),
            trace: Vec::new(),
            to_client: Vec::new(),
            swallow_syn_acks_from_alias_until: 0,
            lose_rest_of_flight_until: 0,
            super_segments: (0, 0),
            accept_queues_are_full: false,
            lose_first_to_client: false,
            samples: Vec::new(),
            ignore_repeated_syns: false,
            requests_are_cookies: false,
            ecn: false,
            lacks: [None; 2],
            control_is_up: false,
            by_hand: None,
            sessions: 0,
            swallow: None,
        };
        set_virtual_clock(0);
        world.connect_control();
        world
    }

    /// The process of a node dies and is born anew: what it knew is gone, the kernel and its guards stay.
    pub fn rebirth(&mut self, node: usize) {
        self.break_control();
        let epoch = Epoch(self.nodes[node].epoch.0 + 1_000);
        let orphans = self.nodes[node].guards.iter().copied().collect();
        self.nodes[node].epoch = epoch;
        self.nodes[node].keyring = Keyring::default();
        self.nodes[node].engine = engine(&self.files[node], node, epoch, orphans, self.instant());
    }

    /// The same, and meanwhile somebody has changed the cluster file.
    pub fn rebirth_with(&mut self, node: usize, changes: &[(&str, &str)]) {
        self.rebirth(node);
        let file = self.changed(changes);
        let orphans = self.nodes[node].guards.iter().copied().collect();
        let now = self.instant();
        self.nodes[node].engine = engine(&file, node, self.nodes[node].epoch, orphans, now);
    }

    /// A node reads another cluster file: the usual one with these words replaced.
    pub fn replace_policy(&mut self, node: usize, changes: &[(&str, &str)]) {
        let file = self.changed(changes);
        let policy = Rc::new(file.compile(NAMES[node]).expect("the node is in the file"));
        let now = self.instant();
        self.nodes[node].engine.replace_policy(policy, now);
        self.drain(node);
        self.settle();
    }

    fn changed(&self, changes: &[(&str, &str)]) -> ClusterFile {
        let text = changes.iter().fold(CLUSTER.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        let text = self.network.family.of_file(&text);
        ClusterFile::parse("changed.yaml", &text).unwrap_or_else(|report| panic!("{report}"))
    }

    fn instant(&self) -> Instant {
        self.origin + Duration::from_micros(self.now)
    }

    pub fn connect_control(&mut self) {
        self.control_is_up = true;
        self.sessions += 1;
        for index in 0..2 {
            let peer = 1 - index;
            let keys = control::keys(self.sessions, 0, index == 0);
            self.nodes[index].keyring.set_keys(NodeId(peer as u16), &keys);
        }
        for index in 0..2 {
            let peer = 1 - index;
            let up = PeerEvent::Up(self.nodes[peer].epoch);
            let now = self.instant();
            self.nodes[index].engine.handle_peer(NodeId(peer as u16), up, now);
            self.drain(index);
        }
    }

    /// The control session breaks; what was on its way is lost.
    pub fn break_control(&mut self) {
        self.control_is_up = false;
        self.events.retain(|_, event| !matches!(event, Event::Control { .. }));
        for index in 0..2 {
            let now = self.instant();
            self.nodes[index].engine.handle_peer(NodeId(1 - index as u16), PeerEvent::Down, now);
            self.drain(index);
        }
    }

    pub fn let_guards_fail(&mut self, node: usize) {
        self.nodes[node].guards_fail = true;
    }

    pub fn connect_client(&mut self, port: u16, pieces: Vec<(u64, Vec<u8>)>) -> usize {
        self.connect_client_to(80, port, pieces)
    }

    /// To a front-end port of node a, from `port`.
    pub fn connect_client_to(&mut self, frontend: u16, port: u16, pieces: Vec<(u64, Vec<u8>)>) -> usize {
        let pieces = pieces.into_iter().map(|(after, bytes)| (self.now + after, bytes)).collect();
        self.clients.push(Client::connect(&mut self.client, (self.network.family.node(0), frontend), port, pieces));
        self.clients.len() - 1
    }

    /// A packet that reaches a node's kernel without passing its engine, as a fragment does.
    pub fn slip_to_kernel(&mut self, node: usize, packet: Vec<u8>) {
        self.nodes[node].kernel.wire.incoming.push_back(packet);
        self.settle();
    }

    /// The next packet of the client that is on its way to a node, taken off the wire.
    pub fn intercept(&mut self) -> Option<Vec<u8>> {
        let key = *self.events.iter().find(|(_, event)| matches!(event, Event::ToNode(..)))?.0;
        match self.events.remove(&key) {
            Some(Event::ToNode(_, packet, offload)) => offload::plain(&packet, &offload).pop(),
            _ => None,
        }
    }

    pub fn send_to_node(&mut self, node: usize, packet: Vec<u8>) {
        self.post(0, Event::ToNode(node, packet, Offload::NONE));
    }

    fn post(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + delay, self.sequence), event);
    }

    fn is_lost(&mut self) -> bool {
        self.random.next() % 1_000 < self.network.loss_permille
    }

    // ---- One node ---------------------------------------------------------------------------------------------------

    /// A packet for the TUN of a node, read by its engine.
    fn tun_to_engine(&mut self, node: usize, mut packet: Vec<u8>, offload: Offload) {
        self.super_segments.0 += usize::from(offload.segment_bytes.is_some());
        let now = self.instant();
        let before = packet.clone();
        let verdict = self.nodes[node].engine.handle_tun(&mut packet, offload, now);
        if verdict == Verdict::Cut {
            assert_eq!(packet, before, "what is to be cut was touched");
            for piece in offload::plain(&packet, &offload) {
                self.tun_to_engine(node, piece, Offload::NONE);
            }
            return;
        }
        self.obey(node, verdict, packet, offload);
        self.drain(node);
    }

    fn obey(&mut self, node: usize, verdict: Verdict, packet: Vec<u8>, offload: Offload) {
        match verdict {
            Verdict::Write | Verdict::Local => {
                self.super_segments.1 += usize::from(offload.segment_bytes.is_some());
                // Where its packets go the host cuts what no device cuts for it.
                for packet in self.plain(packet, offload) {
                    self.write_to_tun(node, packet);
                }
            }
            Verdict::Forward(to) => {
                for packet in self.plain(packet, offload) {
                    self.send_overlay(node, usize::from(to.0), packet);
                }
            }
            Verdict::Cut => panic!("a plain packet cannot be cut"),
            Verdict::Consumed | Verdict::Drop(_) => {}
        }
    }

    fn plain(&self, packet: Vec<u8>, offload: Offload) -> Vec<Vec<u8>> {
        if offload == Offload::NONE { vec![packet] } else { offload::plain(&packet, &offload) }
    }

    fn send_overlay(&mut self, from: usize, to: usize, packet: Vec<u8>) {
        let mut datagram = vec![0; HEADER_BYTES + packet.len() + TAG_BYTES];
        let sealed = self.nodes[from].keyring.seal(NodeId(to as u16), &packet, &mut datagram);
        if sealed.is_ok() && !self.is_lost() {
            self.post(self.network.node_delay, Event::Overlay { to, datagram });
        }
    }

    fn drain(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].engine.poll_output() {
            let now = self.instant();
            match output {
                Output::Packet(packet, _) => {
                    assert_plain(&packet);
                    self.write_to_tun(node, packet);
                }
                Output::Forward(to, packet, _) => {
                    assert_plain(&packet);
                    self.send_overlay(node, usize::from(to.0), packet);
                }
                Output::Message(to, message) => {
                    self.said.push(format!("{} {}", NAMES[node], name_of(&message)));
                    let is_swallowed = self.swallow.is_some_and(|swallow| swallow(&message));
                    if self.control_is_up && !is_swallowed {
                        let delay = self.network.node_delay;
                        let octets = control::message(&message);
                        self.post(delay, Event::Control { from: node, to: usize::from(to.0), octets });
                    }
                }
                Output::Guard(flow) => {
                    let written = !self.nodes[node].guards_fail;
                    if written {
                        self.nodes[node].guards.insert(flow);
                    }
                    self.nodes[node].engine.handle_guard(flow, written, now);
                }
                Output::Unguard(flow) => {
                    self.nodes[node].guards.remove(&flow);
                }
                Output::AskSocket { local, remote } => {
                    self.nodes[node].kernel.poll(self.now);
                    let mut state = socket_state(&self.nodes[node].kernel, local.into(), remote.into());
                    if self.requests_are_cookies && state == SocketState::SynReceived {
                        state = SocketState::Absent;
                    }
                    self.nodes[node].engine.handle_socket(local, remote, state, now);
                }
                Output::DestroySocket { local, remote } => {
                    destroy_socket(&mut self.nodes[node].kernel, local.into(), remote.into())
                }
            }
        }
    }

    /// The host's routing of what baton writes: to its own kernel, or out to the client.
    fn write_to_tun(&mut self, node: usize, packet: Vec<u8>) {
        let destination = destination(&packet);
        if destination == self.network.family.client() {
            return self.leave(node, packet);
        }
        assert!(destination == self.network.family.node(node) || is_alias(destination), "a packet to nowhere: {destination}");
        let segment = Segment::<_, ToServerWire>::parse(packet.as_slice());
        assert!(!segment.is_ok_and(|segment| segment.accurate_ecn()), "a kernel is asked for accurate ECN");
        if destination == self.network.family.node(node)
            && let Ok(segment) = Segment::<_, ToServerWire>::parse(packet.as_slice())
            && segment.flags().contains(Flags::RST)
        {
            // Anything but the one number the kernel still expects is a purge by luck (RFC 5961, section 3.2).
            let ends = (segment.destination().port, segment.source().port);
            let mut syn_acks = self.to_client.iter().rev().filter(|heard| heard.flags().contains(Flags::SYN));
            let expected = syn_acks.find(|heard| (heard.source().port, heard.destination().port) == ends).map(Segment::ack);
            assert_eq!(Some(segment.seq()), expected, "a purge at a wrong number");
        }
        if is_alias(destination)
            && self.accept_queues_are_full
            && let Ok(segment) = Segment::<_, ToServerLocal>::parse(packet.as_slice())
            && !segment.flags().intersects(Flags::SYN.with(Flags::RST))
        {
            return;
        }
        if is_alias(destination)
            && self.now < self.lose_rest_of_flight_until
            && let Ok(segment) = Segment::<_, ToServerLocal>::parse(packet.as_slice())
            && let Some(syn_ack) = self.to_client.first()
            && !segment.payload().is_empty()
            && segment.seq() != syn_ack.ack()
        {
            return;
        }
        if destination == self.network.family.node(node)
            && let Ok(segment) = Segment::<_, ToServerWire>::parse(packet.as_slice())
            && !segment.flags().contains(Flags::RST)
        {
            // Were the process to die now, the guard would stay, and cut a connection that the local kernel serves.
            let flow = FlowKey { client: segment.source(), frontend: segment.destination() };
            assert!(!self.nodes[node].guards.contains(&flow), "{flow} reaches the kernel while it is guarded");
        }
        if self.is_answered_by_request(node, &packet) {
            return;
        }
        self.nodes[node].kernel.wire.incoming.push_back(packet);
    }

    /// What Linux does with a segment for a request of its, and smoltcp does not.
    fn is_answered_by_request(&mut self, node: usize, packet: &[u8]) -> bool {
        let Ok(segment) = Segment::<_, ToServerWire>::parse(packet) else { return false };
        self.nodes[node].kernel.poll(self.now);
        let (local, remote) = (segment.destination(), segment.source());
        if socket_state(&self.nodes[node].kernel, local.into(), remote.into()) != SocketState::SynReceived {
            return false;
        }
        let Node { requests, kernel, .. } = &mut self.nodes[node];
        if segment.flags().contains(Flags::SYN) {
            if !self.ignore_repeated_syns {
                kernel.wire.outgoing.extend(requests.answer_again(&segment, self.now));
            }
            return true;
        }
        if let Some(sample) = requests.complete(&segment, self.now, self.requests_are_cookies) {
            self.samples.push(sample);
        }
        false
    }

    /// A packet leaves a node for the client: only with the address the client connected to.
    fn leave(&mut self, node: usize, packet: Vec<u8>) {
        let source = source(&packet);
        assert_eq!(source, self.network.family.node(0), "an untranslated packet left node {}", NAMES[node]);
        let segment = Segment::<_, ToClientWire>::parse(packet.as_slice()).expect("only TCP leaves");
        let is_frontend = |frontend: &(NodeId, Endpoint)| *frontend == (NodeId(0), segment.source());
        let policy = self.files[node].compile(NAMES[0]).expect("the node is in the file");
        assert!(policy.services[0].frontends.iter().any(is_frontend), "port {} left node {node}", segment.source().port);
        assert!(segment.checksums_are_right(), "wrong checksum left node {}", NAMES[node]);
        self.nodes[node].payload_sent += segment.payload().len() as u64;
        let is_lost = std::mem::take(&mut self.lose_first_to_client) || self.is_lost();
        if !is_lost {
            self.post(self.network.client_delay, Event::ToClient(packet));
        }
    }

    /// What a kernel emits: captured if it comes from an alias, or is a SYN-ACK of the service; else it simply leaves.
    fn route_from_kernel(&mut self, node: usize) {
        let mut to_engine = Vec::new();
        for mut packet in std::mem::take(&mut self.nodes[node].kernel.wire.outgoing) {
            let source = source(&packet);
            let mut segment = Segment::<_, ToClientWire>::parse(packet.as_mut_slice()).ok();
            let syn_ack = segment.as_mut().filter(|segment| segment.flags().contains(Flags::SYN.with(Flags::ACK)));
            let is_syn_ack = syn_ack.is_some();
            if let Some(syn_ack) = syn_ack {
                if self.ecn {
                    syn_ack.set_flags(syn_ack.flags().with(Flags::ECE));
                }
                if let Some(lack) = self.lacks[node] {
                    lack(syn_ack);
                }
            }
            if is_syn_ack {
                self.nodes[node].requests.hear(&packet, self.now);
            }
            if is_alias(source) && is_syn_ack && self.now < self.swallow_syn_acks_from_alias_until {
                continue;
            }
            if is_alias(source) || is_syn_ack {
                to_engine.push(packet);
            } else {
                self.leave(node, packet);
            }
        }
        for (packet, offload) in as_given_to_a_device(to_engine) {
            self.tun_to_engine(node, packet, offload);
        }
    }

    // ---- Time -------------------------------------------------------------------------------------------------------

    fn settle(&mut self) {
        for _ in 0..100 {
            let now = self.now;
            self.client.poll(now);
            for client in &mut self.clients {
                client.run(&mut self.client, now);
            }
            self.client.poll(now);
            let family = self.network.family;
            let mut sent = std::mem::take(&mut self.client.wire.outgoing);
            if let Some(by_hand) = &mut self.by_hand {
                sent = by_hand.poll(now);
            }
            sent.retain(|packet| !self.is_lost() && destination(packet) == family.node(0));
            if self.ecn {
                sent.iter_mut().for_each(|packet| ask_for_accurate_ecn(packet));
            }
            for (packet, offload) in as_given_to_a_device(sent) {
                self.post(self.network.client_delay, Event::ToNode(0, packet, offload));
            }
            let mut is_quiet = true;
            for node in 0..self.nodes.len() {
                let Node { kernel, server, .. } = &mut self.nodes[node];
                kernel.poll(now);
                server.run(kernel);
                kernel.poll(now);
                is_quiet &= kernel.wire.outgoing.is_empty();
                self.route_from_kernel(node);
                is_quiet &= self.nodes[node].kernel.wire.incoming.is_empty();
            }
            if is_quiet {
                return;
            }
        }
        panic!("the hosts do not come to rest");
    }

    /// Runs until `until` (microseconds of virtual time) or until `is_done` says so.
    pub fn run_until(&mut self, until: u64, is_done: impl Fn(&Self) -> bool) {
        loop {
            self.settle();
            if is_done(self) || self.now >= until {
                return;
            }
            let next_event = self.events.keys().next().map(|(at, _)| *at);
            let next_timeout = self
                .nodes
                .iter()
                .filter_map(|node| node.engine.poll_timeout())
                .map(|at| at.saturating_duration_since(self.origin).as_micros() as u64)
                .min();
            let now = self.now;
            let next_poll = self.nodes.iter_mut().filter_map(|node| node.kernel.poll_at(now)).min();
            let next_client = self.client.poll_at(now);
            let next_piece = self.clients.iter().filter_map(Client::next_piece_at).filter(|at| *at > now).min();
            let next_by_hand = self.by_hand.as_ref().and_then(|by_hand| by_hand.poll_at(now));
            let nexts = [next_event, next_timeout, next_poll, next_client, next_piece, next_by_hand];
            let next = nexts.into_iter().flatten().min().unwrap_or(until);
            self.now = next.max(self.now + 1).min(until);
            set_virtual_clock(self.now);
            for node in 0..self.nodes.len() {
                let now = self.instant();
                if self.nodes[node].engine.poll_timeout().is_some_and(|at| at <= now) {
                    self.nodes[node].engine.handle_timeout(now);
                    self.drain(node);
                }
            }
            while let Some(entry) = self.events.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let event = entry.remove();
                self.happen(event);
            }
        }
    }

    fn happen(&mut self, event: Event) {
        let now = self.instant();
        match event {
            Event::ToClient(packet) => {
                let segment = Segment::<_, ToClientWire>::parse(packet.clone()).expect("only TCP reaches the client");
                self.trace.push(format!("{} {segment}", self.now));
                self.to_client.push(segment);
                match &mut self.by_hand {
                    Some(by_hand) => by_hand.receive(&packet, self.now),
                    None => self.client.wire.incoming.push_back(packet),
                }
            }
            Event::ToNode(node, packet, offload) => self.tun_to_engine(node, packet, offload),
            Event::Overlay { to, mut datagram } => {
                // Sealed for an earlier life, it is lost.
                let Ok((from, range)) = self.nodes[to].keyring.open(&mut datagram) else { return };
                let mut packet = datagram[range].to_vec();
                let verdict = self.nodes[to].engine.handle_overlay(from, &mut packet, now);
                self.obey(to, verdict, packet, Offload::NONE);
                self.drain(to);
            }
            Event::Control { from, to, octets } => {
                let mut frames = FrameBuffer::default();
                frames.push(&octets);
                let Ok(Some(Frame::Message(message))) = frames.next_frame() else { panic!("what was said cannot be read") };
                self.nodes[to].engine.handle_message(NodeId(from as u16), message, now);
                self.drain(to);
            }
        }
        self.settle();
    }

    // ---- Questions --------------------------------------------------------------------------------------------------

    pub fn counter(&self, node: usize, name: &str) -> u64 {
        let counters = self.nodes[node].engine.counters();
        counters.iter().find(|(counter, _)| counter == name).unwrap_or_else(|| panic!("no counter {name}")).1
    }

    /// All fall-backs of a node, by reason, those that happened.
    pub fn fallbacks(&self, node: usize) -> Vec<(String, u64)> {
        let counters = self.nodes[node].engine.counters();
        counters.into_iter().filter(|(name, count)| name.starts_with("fallbacks_total") && *count > 0).collect()
    }

    /// What the front-end's own kernel has of a client's connection.
    pub fn socket_at_frontend(&self, port: u16) -> SocketState {
        let family = self.network.family;
        socket_state(&self.nodes[0].kernel, (family.node(0), 80).into(), (family.client(), port).into())
    }

    /// The ISN of a client, from the SYN-ACK it got.
    pub fn isn_of_client(&self, port: u16) -> Seq<baton::rewrite::Client> {
        let is_syn_ack = |segment: &&Segment<Vec<u8>, ToClientWire>| {
            segment.flags().contains(Flags::SYN) && segment.destination().port == port
        };
        self.to_client.iter().find(is_syn_ack).expect("a SYN-ACK").ack().plus(u32::MAX)
    }

    pub fn was_answered_by(&self, client: usize, name: &str, body_bytes: usize) -> bool {
        self.clients[client].received == answer(name, body_bytes)
    }
}

/// The usual file with other lines for `frontends` and `servers`.
pub fn text_of_service(frontends: &str, servers: &str) -> String {
    let usual = "frontends: { a: \"10.77.0.1:80\", b: \"10.77.0.2:80\" }";
    assert!(CLUSTER.contains(usual));
    CLUSTER.replace(usual, &format!("frontends: {{ {frontends} }}\n    servers: {{ {servers} }}"))
}

/// What a client with accurate ECN (RFC 9768) has in its SYN.
fn ask_for_accurate_ecn(packet: &mut [u8]) {
    if let Ok(mut syn) = Segment::<_, ToServerWire>::parse(&mut *packet)
        && syn.flags() == Flags::SYN
    {
        syn.set_flags(Flags::SYN.with(Flags::ECE).with(Flags::CWR));
        set_accurate_ecn(packet);
    }
}

/// Sets AE, the lowest bit of the octet of the data offset, in a packet with nothing between IP header and TCP.
fn set_accurate_ecn(packet: &mut [u8]) {
    let tcp = if packet[0] >> 4 == 4 { &mut packet[20..] } else { &mut packet[40..] };
    tcp[12] |= 1;
    let sum = u32::from(!u16::from_be_bytes([tcp[16], tcp[17]])) + 0x0100;
    tcp[16..18].copy_from_slice(&(!((sum + (sum >> 16)) as u16)).to_be_bytes());
}

fn as_given_to_a_device(packets: Vec<Vec<u8>>) -> Vec<(Vec<u8>, Offload)> {
    if has_offload() { offload::joined(packets) } else { packets.into_iter().map(|packet| (packet, Offload::NONE)).collect() }
}

/// What the engine kept or made leaves nothing to do for anybody.
fn assert_plain(packet: &[u8]) {
    assert!(packet.len() <= MTU, "it does not fit the path");
    let segment = Segment::<_, ToServerWire>::parse(packet).expect("the engine makes and keeps TCP only");
    assert!(segment.checksums_are_right(), "its checksum is wrong");
}

fn is_alias(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..2] == [198, 18],
        IpAddr::V6(address) => address.segments()[..4] == [0xfd00, 0xba70, 0, 0],
    }
}

fn source(packet: &[u8]) -> IpAddr {
    if packet[0] >> 4 == 4 { address::<4>(packet, 12).into() } else { address::<16>(packet, 8).into() }
}

fn destination(packet: &[u8]) -> IpAddr {
    if packet[0] >> 4 == 4 { address::<4>(packet, 16).into() } else { address::<16>(packet, 24).into() }
}

fn address<const OCTETS: usize>(packet: &[u8], at: usize) -> [u8; OCTETS] {
    packet[at..at + OCTETS].try_into().expect("as many octets as asked for")
}

fn name_of(message: &Message) -> &'static str {
    match message {
        Message::Offer(_) => "offer",
        Message::Accept(_) => "accept",
        Message::Refuse { .. } => "refuse",
        Message::Commit { .. } => "commit",
        Message::Abort { .. } => "abort",
        Message::Delivered { .. } => "delivered",
        Message::Returned { .. } => "returned",
        Message::Closed { .. } => "closed",
        Message::Owned { .. } => "owned",
        Message::OwnedEnd => "owned-end",
        Message::Settled { .. } => "settled",
        Message::Disowned { .. } => "disowned",
        Message::SynRefused { .. } => "syn-refused",
        Message::WhoOwns { .. } => "who-owns",
        Message::Owner { .. } => "owner",
    }
}

/// The client's end.
pub fn client_end(family: Family, port: u16) -> Endpoint {
    Endpoint::new(family.client(), port)
}
