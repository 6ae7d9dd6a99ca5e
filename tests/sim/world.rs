//! Two nodes, a client, and the network between them, in virtual time: the real engine with simulated kernels.
//!
//! ```text
//!            SYN, ACK, request               offer, commit (control: ordered, not lost)
//!   client ------------------> node a  ==================================> node b
//!      ^    <-- SYN-ACK ------    |  ----- client packets (overlay) -----> |
//!      |                          |                                        |
//!      '------ answer, direct ----'------------- answer, direct -----------'
//! ```

mod network;
mod node;
mod packets;
mod time;

pub use self::network::{Family, Network};
use super::host::{Client, Host, Server, answer, set_virtual_clock, socket_state};
use super::offload;
use super::requests::Requests;
use super::swarm::control;
use baton::control::message::{Epoch, Message};
use baton::control::seal::Keyring;
use baton::flow::{Endpoint, FlowKey, NodeId};
use baton::handoff::{Engine, EngineConfig, PeerEvent, SocketState};
use baton::policy::ClusterFile;
use baton::rewrite::{Flags, Offload, Segment, Seq, ToClientWire};
use drill::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

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

/// The client's end.
pub fn client_end(family: Family, port: u16) -> Endpoint {
    Endpoint::new(family.client(), port)
}
