//! Two engines and the kernels below them, as far as a handoff needs those: everything in memory, one call after the other.

use baton::control::message::Epoch;
use baton::flow::{Endpoint, NodeId};
use baton::handoff::{Engine, EngineConfig, Output, PeerEvent, SocketState, Verdict, Why};
use baton::policy::{ClusterFile, Policy};
use baton::rewrite::{
    Flags, Leg, Offload, Segment, SegmentSpec, Seq, Timestamp, ToClientLocal, ToClientWire, ToServerLocal, ToServerWire,
    WindowScale,
};
use std::fmt::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

pub const CLIENT_ISN: u32 = 1_000;
pub const FRONTEND_ISN: u32 = 2_000;
const BACKEND_ISN: u32 = 3_000;
const REQUEST: &[u8] =
    b"GET /images/cat HTTP/1.1\r\nHost: shop\r\nUser-Agent: a browser of the usual kind\r\nAccept: */*\r\n\r\n";
/// What a connection takes of the clock, so that not all deadlines are the same.
const STEP: Duration = Duration::from_micros(20);

/// The keys of nobody: a file wants one for each node, and different ones.
fn public_key(index: usize) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let mut key = [0x42; 32];
    key[..8].copy_from_slice(&(index as u64).to_be_bytes());
    STANDARD.encode(key)
}

/// A cluster of so many peers of `n0`, the front-end, with so many rules. The last decides: `/images/*` is for all peers in
/// turn.
pub fn policy(node: &str, peers: usize, rules: usize) -> Rc<Policy> {
    let mut text = "cluster: bench\noverlay: { port: 7400, aliases: [\"198.18.0.0/16\"] }\nnodes:\n".to_owned();
    for index in 0..=peers {
        let key = public_key(index);
        let _ = writeln!(text, "  n{index}: {{ address: 10.77.0.{}, public_key: \"{key}\" }}", index + 1);
    }
    let names: Vec<String> = (0..=peers).map(|index| format!("n{index}: {{ port: 8080 }}")).collect();
    let _ = write!(
        text,
        "services:\n  web:\n    frontends: {{ n0: \"10.77.0.1:80\" }}\n    servers: {{ {} }}\n    rules:\n",
        names.join(", ")
    );
    for rule in 1..rules {
        let _ = writeln!(text, "      - {{ when: {{ host: \"tenant-{rule}.example.com\", path: \"/files/*\" }}, send_to: n1 }}");
    }
    let names: Vec<String> = (1..=peers).map(|index| format!("n{index}")).collect();
    let _ = writeln!(
        text,
        "      - {{ when: {{ path: \"/images/*\" }}, send_to: {{ nodes: [{}], by: round_robin }} }}",
        names.join(", ")
    );
    text += "    default: local\nlimits: { connections: 4000000 }\n";
    let file = ClusterFile::parse("cluster.yaml", &text).unwrap_or_else(|report| panic!("{report}"));
    Rc::new(file.compile(node).expect("the node is in the file"))
}

/// The client of a connection: every number gives another one.
pub fn client(index: u32) -> Endpoint {
    let [_, a, b, c] = (index / 50_000).to_be_bytes();
    Endpoint::new([100, 64 + a, b, 1 + c].into(), (index % 50_000) as u16 + 10_000)
}

pub fn frontend() -> Endpoint {
    Endpoint::new([10, 77, 0, 1].into(), 80)
}

/// The front-end's engine and that of the first of its peers, who plays all of them.
pub struct Cluster {
    pub front: Engine,
    pub back: Engine,
    pub now: Instant,
}

impl Cluster {
    #[allow(clippy::disallowed_methods)] // An origin; only differences to it are used.
    pub fn new(peers: usize, rules: usize) -> Self {
        let now = Instant::now();
        let engine = |name: &str, peers: usize, rules: usize| {
            let policy = policy(name, peers, rules);
            let config =
                EngineConfig { node: policy.node, epoch: Epoch(7), overlay_overhead: 56, mtu: 1_500, orphans: Vec::new() };
            let count = policy.nodes.len();
            let mut engine = Engine::new(config, policy, now);
            for peer in (0..count).map(|index| NodeId(index as u16)) {
                engine.handle_peer(peer, PeerEvent::Up(Epoch(7)), now);
            }
            while engine.poll_output().is_some() {}
            engine
        };
        Self { front: engine("n0", peers, rules), back: engine("n1", 1, 1), now }
    }

    /// A connection that the peer serves, its request delivered. Its alias.
    pub fn hand_off(&mut self, index: u32) -> Endpoint {
        self.now += STEP;
        let now = self.now;
        assert_eq!(self.read_at_front(&syn(index)), Verdict::Write);
        assert_eq!(self.read_at_front(&syn_ack(index)), Verdict::Write);
        assert_eq!(self.read_at_front(&from_client(index, 0, &[])), Verdict::Consumed);
        assert_eq!(self.read_at_front(&from_client(index, 0, REQUEST)), Verdict::Consumed);
        let mut alias = None;
        let mut to_back = Vec::new();
        let mut to_front = Vec::new();
        let mut served_by = NodeId(0);
        loop {
            while let Some(output) = self.front.poll_output() {
                match output {
                    Output::Guard(flow) => self.front.handle_guard(flow, true, now),
                    Output::AskSocket { local, remote } => {
                        self.front.handle_socket(local, remote, SocketState::SynReceived, now);
                    }
                    Output::Message(to, message) => {
                        served_by = to;
                        to_back.push(message);
                    }
                    Output::Packet(_, Why::Purge) => {}
                    other => panic!("{other:?}"),
                }
            }
            for message in to_back.drain(..) {
                self.back.handle_message(NodeId(0), message, now);
            }
            while let Some(output) = self.back.poll_output() {
                match output {
                    Output::Packet(packet, Why::Replay) => {
                        let syn = Segment::<_, ToServerLocal>::parse(packet).expect("a SYN");
                        let local = syn.destination();
                        alias = Some(local);
                        let verdict = self.read_at_back(&kernel_syn_ack(index, local));
                        assert_eq!(verdict, Verdict::Consumed);
                    }
                    Output::AskSocket { local, remote } => {
                        self.back.handle_socket(local, remote, SocketState::SynReceived, now);
                    }
                    Output::Packet(_, Why::FirstFlight) => {
                        let local = alias.expect("a replay came before");
                        assert_eq!(self.read_at_back(&from_kernel(index, local, 0, &[])), Verdict::Write);
                    }
                    Output::Packet(_, Why::RepeatedSyn) => {}
                    Output::Message(_, message) => to_front.push(message),
                    other => panic!("{other:?}"),
                }
            }
            if to_front.is_empty() {
                break;
            }
            for message in to_front.drain(..) {
                self.front.handle_message(served_by, message, now);
            }
        }
        assert!(self.front.poll_output().is_none());
        alias.expect("an alias")
    }

    /// A connection that the local server answers, and that is forgotten.
    pub fn serve_locally(&mut self, index: u32) {
        let now = self.now;
        assert_eq!(self.read_at_front(&syn(index)), Verdict::Write);
        assert_eq!(self.read_at_front(&syn_ack(index)), Verdict::Write);
        assert_eq!(self.read_at_front(&from_client(index, 0, &[])), Verdict::Consumed);
        let request = b"GET /else HTTP/1.1\r\nHost: shop\r\n\r\n";
        assert_eq!(self.read_at_front(&from_client(index, 0, request)), Verdict::Consumed);
        while let Some(output) = self.front.poll_output() {
            if let Output::AskSocket { local, remote } = output {
                self.front.handle_socket(local, remote, SocketState::SynReceived, now);
            }
        }
    }

    fn read_at_front<L: Leg>(&mut self, spec: &SegmentSpec<'_, L>) -> Verdict {
        self.front.handle_tun(&mut spec.build().into_inner(), Offload::NONE, self.now)
    }

    fn read_at_back(&mut self, spec: &SegmentSpec<'_, ToClientLocal>) -> Verdict {
        self.back.handle_tun(&mut spec.build().into_inner(), Offload::NONE, self.now)
    }

    /// Lets those deadlines pass that belong to handoffs, and not the minute after which an idle connection is looked at.
    pub fn pass_deadlines(&mut self) {
        self.now += Duration::from_secs(10);
        self.front.handle_timeout(self.now);
        self.back.handle_timeout(self.now);
        while let Some(output) = self.back.poll_output() {
            if let Output::AskSocket { local, remote } = output {
                self.back.handle_socket(local, remote, SocketState::Open, self.now);
            }
        }
        while self.front.poll_output().is_some() {}
    }

    /// Connections that end with their process.
    pub fn live(&self) -> (usize, usize) {
        (self.front.live(), self.back.live())
    }
}

fn syn(index: u32) -> SegmentSpec<'static, ToServerWire> {
    SegmentSpec {
        source: client(index),
        destination: frontend(),
        seq: Seq::new(CLIENT_ISN),
        ack: Seq::new(0),
        flags: Flags::SYN,
        window: 64_240,
        mss: Some(1_460),
        window_scale: Some(WindowScale::new(9)),
        sack_permitted: true,
        timestamps: Some((Timestamp::new(10), Timestamp::new(0))),
        traffic_class: 0,
        payload: &[],
    }
}

fn syn_ack(index: u32) -> SegmentSpec<'static, ToClientWire> {
    SegmentSpec {
        source: frontend(),
        destination: client(index),
        seq: Seq::new(FRONTEND_ISN),
        ack: Seq::new(CLIENT_ISN).plus(1),
        flags: Flags::SYN.with(Flags::ACK),
        window: 65_160,
        mss: Some(1_460),
        window_scale: Some(WindowScale::new(7)),
        sack_permitted: true,
        timestamps: Some((Timestamp::new(20), Timestamp::new(10))),
        traffic_class: 0,
        payload: &[],
    }
}

/// A segment of the client so many octets behind its handshake, acknowledging all of its server's handshake.
pub fn from_client(index: u32, offset: u32, payload: &[u8]) -> SegmentSpec<'_, ToServerWire> {
    SegmentSpec {
        seq: Seq::new(CLIENT_ISN).plus(1 + offset),
        ack: Seq::new(FRONTEND_ISN).plus(1),
        flags: Flags::ACK,
        window: 502,
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: Some((Timestamp::new(11), Timestamp::new(20))),
        payload,
        ..syn(index)
    }
}

fn kernel_syn_ack(index: u32, alias: Endpoint) -> SegmentSpec<'static, ToClientLocal> {
    SegmentSpec {
        source: alias,
        destination: client(index),
        seq: Seq::new(BACKEND_ISN),
        ack: Seq::new(CLIENT_ISN).plus(1),
        flags: Flags::SYN.with(Flags::ACK),
        window: 65_160,
        mss: Some(1_460),
        window_scale: Some(WindowScale::new(7)),
        sack_permitted: true,
        timestamps: Some((Timestamp::new(30), Timestamp::new(10))),
        traffic_class: 0,
        payload: &[],
    }
}

/// A segment of the owner's kernel, so many octets behind its handshake, acknowledging the request.
pub fn from_kernel(index: u32, alias: Endpoint, offset: u32, payload: &[u8]) -> SegmentSpec<'_, ToClientLocal> {
    SegmentSpec {
        seq: Seq::new(BACKEND_ISN).plus(1 + offset),
        ack: Seq::new(CLIENT_ISN).plus(1 + REQUEST.len() as u32),
        flags: Flags::ACK,
        window: 510,
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: Some((Timestamp::new(31), Timestamp::new(11))),
        payload,
        ..kernel_syn_ack(index, alias)
    }
}

/// Where the client's octets behind its request begin.
pub const BEHIND_REQUEST: u32 = REQUEST.len() as u32;
