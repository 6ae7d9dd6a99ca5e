//! One engine, one input at a time: what it does with it, and what it says, in order.

use baton::control::message::{Accept, Epoch, HandoffId, Message, Offer, OfferedTimestamps, WindowScales};
use baton::flow::{Endpoint, FlowKey, NodeId};
use baton::handoff::{Engine, EngineConfig, Output, PeerEvent, SocketState, Verdict, Why};
use baton::policy::{ClusterFile, Policy};
use baton::rewrite::{
    Flags, Leg, Offload, Segment, SegmentSpec, Seq, Timestamp, ToClientLocal, ToClientWire, ToServerWire, WindowScale, checksum,
};
use std::rc::Rc;
use std::time::{Duration, Instant};

pub const A: NodeId = NodeId(0);
pub const B: NodeId = NodeId(1);
pub const C: NodeId = NodeId(2);
/// What the overlay adds to a packet.
pub const OVERHEAD: u16 = 56;

pub const CLIENT_ISN: u32 = 0xffff_fff0;
pub const FRONTEND_ISN: u32 = 7_000_000;
pub const BACKEND_ISN: u32 = 42;
/// TSvals of SYN and SYN-ACK, and of the owner kernel's SYN-ACK.
pub const CLIENT_TSVAL: u32 = 500;
pub const FRONTEND_TSVAL: u32 = 90_000;
pub const BACKEND_TSVAL: u32 = 3;

pub const FILE: &str = include_str!("cluster.yaml");

pub fn client(port: u16) -> Endpoint {
    Endpoint::new([192, 0, 2, 9].into(), port)
}

pub fn frontend() -> Endpoint {
    Endpoint::new([10, 77, 0, 1].into(), 80)
}

pub fn flow(port: u16) -> FlowKey {
    FlowKey { client: client(port), frontend: frontend() }
}

pub fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n").into_bytes()
}

pub fn policy(node: &str, changes: &[(&str, &str)]) -> Rc<Policy> {
    let text = changes.iter().fold(FILE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    });
    let file = ClusterFile::parse("cluster.yaml", &text).unwrap_or_else(|report| panic!("{report}"));
    Rc::new(file.compile(node).expect("the node is in the file"))
}

pub struct Node {
    pub engine: Engine,
    origin: Instant,
    /// Since the beginning.
    pub now: Duration,
    /// What the kernel says when it is asked about a socket.
    pub socket: SocketState,
    pub can_guard: bool,
    said: Vec<Output>,
}

impl Node {
    /// Node `name` of the file with these changes, in session with both others.
    #[allow(clippy::disallowed_methods)] // An origin; only differences to it are used.
    pub fn of_file(name: &str, changes: &[(&str, &str)], orphans: &[FlowKey]) -> Self {
        let policy = policy(name, changes);
        let origin = Instant::now();
        let node = policy.node;
        let config = EngineConfig { node, epoch: Epoch(11), overlay_overhead: OVERHEAD, mtu: 1_500, orphans: orphans.to_vec() };
        let engine = Engine::new(config, policy, origin);
        let mut node =
            Self { engine, origin, now: Duration::ZERO, socket: SocketState::SynReceived, can_guard: true, said: Vec::new() };
        if orphans.is_empty() {
            for peer in [A, B, C].into_iter().filter(|peer| *peer != NodeId("abc".find(name).expect("a node") as u16)) {
                node.peer(peer, PeerEvent::Up(epoch_of(peer)));
            }
        }
        node.take();
        node
    }

    pub fn new(name: &str) -> Self {
        Self::of_file(name, &[], &[])
    }

    pub fn instant(&self) -> Instant {
        self.origin + self.now
    }

    /// Answers what must be answered at once, as the shell does.
    fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            self.said.push(output.clone());
            let now = self.instant();
            match output {
                Output::Guard(flow) => self.engine.handle_guard(flow, self.can_guard, now),
                Output::AskSocket { local, remote } => self.engine.handle_socket(local, remote, self.socket, now),
                _ => {}
            }
        }
    }

    /// What was said since the last time, but for what is said once a second.
    pub fn take(&mut self) -> Vec<Output> {
        let said = std::mem::take(&mut self.said);
        said.into_iter().filter(|output| !matches!(output, Output::Message(_, Message::Settled { .. }))).collect()
    }

    /// The same, everything.
    pub fn take_all(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.said)
    }

    pub fn tun(&mut self, packet: &mut [u8]) -> Verdict {
        let verdict = self.engine.handle_tun(packet, Offload::NONE, self.instant());
        self.drain();
        verdict
    }

    /// A packet read from the TUN: what becomes of it, and how it looks then.
    pub fn read<L: Leg>(&mut self, spec: &SegmentSpec<'_, L>) -> (Verdict, Vec<u8>) {
        let mut packet = spec.build().into_inner();
        (self.tun(&mut packet), packet)
    }

    pub fn verdict<L: Leg>(&mut self, spec: &SegmentSpec<'_, L>) -> Verdict {
        self.read(spec).0
    }

    /// A client's packet from the overlay.
    pub fn overlay(&mut self, from: NodeId, spec: &SegmentSpec<'_, ToServerWire>) -> (Verdict, Vec<u8>) {
        let mut packet = spec.build().into_inner();
        let verdict = self.engine.handle_overlay(from, &mut packet, self.instant());
        self.drain();
        (verdict, packet)
    }

    pub fn hear(&mut self, from: NodeId, message: Message) {
        self.engine.handle_message(from, message, self.instant());
        self.drain();
    }

    pub fn peer(&mut self, peer: NodeId, event: PeerEvent) {
        self.engine.handle_peer(peer, event, self.instant());
        self.drain();
    }

    pub fn stall(&mut self) {
        self.engine.handle_stall(self.instant());
        self.drain();
    }

    pub fn drain_node(&mut self) {
        self.engine.drain(self.instant());
        self.drain();
    }

    pub fn reset_all(&mut self) {
        self.engine.reset_all(self.instant());
        self.drain();
    }

    pub fn replace_policy(&mut self, name: &str, changes: &[(&str, &str)]) {
        self.engine.replace_policy(policy(name, changes), self.instant());
        self.drain();
    }

    /// Time passes, every deadline on its way is met.
    pub fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= self.origin + end) {
            self.now = self.now.max(at - self.origin);
            self.engine.handle_timeout(self.instant());
            self.drain();
        }
        self.now = end;
    }

    pub fn counter(&self, name: &str) -> u64 {
        let counters = self.engine.counters();
        counters.into_iter().find(|(counted, _)| counted == name).unwrap_or_else(|| panic!("no counter {name}")).1
    }

    /// State and treatment of each connection.
    pub fn states(&self) -> Vec<(&'static str, &'static str)> {
        self.engine.flows(self.instant()).iter().map(|view| (view.state, view.treatment)).collect()
    }

    // ---- A connection at its front-end, step by step ----------------------------------------------------------------

    pub fn handshake_of(&mut self, port: u16) {
        assert_eq!(self.verdict(&syn(port)), Verdict::Write);
        assert_eq!(self.verdict(&syn_ack(port)), Verdict::Write);
        assert_eq!(self.verdict(&ack(port)), Verdict::Consumed);
    }

    /// A whole request.
    pub fn ask_of(&mut self, port: u16, request: &[u8]) {
        assert_eq!(self.verdict(&SegmentSpec { payload: request, ..ack(port) }), Verdict::Consumed);
    }

    /// A connection that node b was asked to take.
    pub fn offered(&mut self, port: u16) -> HandoffId {
        self.handshake_of(port);
        self.take();
        self.ask_of(port, &get("/images/cat"));
        let said = self.take();
        let [Output::Message(B, Message::Offer(offer))] = said.as_slice() else { panic!("{said:?}") };
        offer.id
    }

    /// A connection that node b serves.
    pub fn handed_off(&mut self, port: u16) -> HandoffId {
        let id = self.offered(port);
        self.hear(B, accept(id));
        assert!(commits(&self.take(), B).contains(&id));
        id
    }

    // ---- A connection at its owner ----------------------------------------------------------------------------------

    /// Offered by a, replayed and accepted: the alias.
    pub fn prepared(&mut self, offer: &Offer) -> Endpoint {
        self.hear(A, Message::Offer(Box::new(offer.clone())));
        let said = self.take();
        let [Output::Packet(replay, Why::Replay)] = said.as_slice() else { panic!("{said:?}") };
        let alias = segment::<ToServerWire>(replay).destination();
        assert_eq!(self.verdict(&kernel_syn_ack(alias)), Verdict::Consumed);
        assert!(self.take().iter().any(|output| matches!(output, Output::Message(A, Message::Accept(_)))));
        alias
    }

    /// Committed, and in the kernel.
    pub fn established(&mut self, offer: &Offer) -> Endpoint {
        let alias = self.prepared(offer);
        self.hear(A, Message::Commit { id: offer.id, more: Vec::new() });
        self.socket = SocketState::Open;
        let acknowledges =
            SegmentSpec { ack: Seq::new(CLIENT_ISN).plus(1 + offer.first_flight.len() as u32), ..from_kernel(alias) };
        assert_eq!(self.verdict(&acknowledges), Verdict::Write);
        assert!(self.take().iter().any(|output| matches!(output, Output::Message(A, Message::Delivered { .. }))));
        alias
    }
}

pub fn epoch_of(peer: NodeId) -> Epoch {
    Epoch(1_000 + u64::from(peer.0))
}

pub fn segment<L: Leg>(packet: &[u8]) -> Segment<Vec<u8>, L> {
    Segment::parse(packet.to_vec()).unwrap_or_else(|malformed| panic!("{malformed:?}"))
}

pub fn accept(id: HandoffId) -> Message {
    Message::Accept(Accept { id, backend_isn: BACKEND_ISN, window_scale: Some(WindowScale::new(7)), tsval: Some(BACKEND_TSVAL) })
}

/// The handoffs that were committed to a peer.
pub fn commits(said: &[Output], to: NodeId) -> Vec<HandoffId> {
    let committed = |output: &Output| match output {
        Output::Message(peer, Message::Commit { id, .. }) if *peer == to => Some(*id),
        _ => None,
    };
    said.iter().filter_map(committed).collect()
}

/// The packets that were written for one reason.
pub fn written(said: &[Output], why: Why) -> Vec<Vec<u8>> {
    let of_reason = |output: &Output| match output {
        Output::Packet(packet, reason) | Output::Local(packet, reason) if *reason == why => Some(packet.clone()),
        _ => None,
    };
    said.iter().filter_map(of_reason).collect()
}

// ---- Packets --------------------------------------------------------------------------------------------------------

pub fn syn(port: u16) -> SegmentSpec<'static, ToServerWire> {
    SegmentSpec {
        source: client(port),
        destination: frontend(),
        seq: Seq::new(CLIENT_ISN),
        ack: Seq::new(0),
        flags: Flags::SYN,
        window: 64_240,
        mss: Some(1_460),
        window_scale: Some(WindowScale::new(9)),
        sack_permitted: true,
        timestamps: Some((Timestamp::new(CLIENT_TSVAL), Timestamp::new(0))),
        traffic_class: 0,
        payload: &[],
    }
}

/// The front-end kernel's.
pub fn syn_ack(port: u16) -> SegmentSpec<'static, ToClientWire> {
    SegmentSpec {
        source: frontend(),
        destination: client(port),
        seq: Seq::new(FRONTEND_ISN),
        ack: Seq::new(CLIENT_ISN).plus(1),
        flags: Flags::SYN.with(Flags::ACK),
        window: 65_160,
        mss: Some(1_460),
        window_scale: Some(WindowScale::new(7)),
        sack_permitted: true,
        timestamps: Some((Timestamp::new(FRONTEND_TSVAL), Timestamp::new(CLIENT_TSVAL))),
        traffic_class: 0,
        payload: &[],
    }
}

/// The client's, which completes the handshake.
pub fn ack(port: u16) -> SegmentSpec<'static, ToServerWire> {
    SegmentSpec {
        seq: Seq::new(CLIENT_ISN).plus(1),
        ack: Seq::new(FRONTEND_ISN).plus(1),
        flags: Flags::ACK,
        window: 502,
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: Some((Timestamp::new(CLIENT_TSVAL + 1), Timestamp::new(FRONTEND_TSVAL))),
        ..syn(port)
    }
}

/// Some of the client's octets, the first being `offset` octets after its SYN.
pub fn octets(port: u16, offset: u32, payload: &[u8]) -> SegmentSpec<'_, ToServerWire> {
    SegmentSpec { seq: Seq::new(CLIENT_ISN).plus(1 + offset), payload, ..ack(port) }
}

pub fn offer(port: u16) -> Offer {
    Offer {
        id: HandoffId { epoch: epoch_of(A), serial: u64::from(port) },
        flow: flow(port),
        service: "web".into(),
        client_isn: Seq::new(CLIENT_ISN),
        frontend_isn: Seq::new(FRONTEND_ISN),
        client_mss: 1_460,
        window_scales: Some(WindowScales { client: WindowScale::new(9), frontend: WindowScale::new(7) }),
        sack: true,
        timestamps: Some(OfferedTimestamps { client: Timestamp::new(CLIENT_TSVAL), frontend: Timestamp::new(FRONTEND_TSVAL) }),
        ecn: false,
        syn_window: 64_240,
        window: 502,
        round_trip: milliseconds(20),
        acknowledged_early: false,
        probe: false,
        first_flight: get("/images/cat"),
    }
}

/// The owner kernel's answer to a replay.
pub fn kernel_syn_ack(alias: Endpoint) -> SegmentSpec<'static, ToClientLocal> {
    SegmentSpec {
        flags: Flags::SYN.with(Flags::ACK),
        seq: Seq::new(BACKEND_ISN),
        window: 65_160,
        mss: Some(1_460),
        window_scale: Some(WindowScale::new(7)),
        sack_permitted: true,
        timestamps: Some((Timestamp::new(BACKEND_TSVAL), Timestamp::new(CLIENT_TSVAL))),
        ..from_kernel(alias)
    }
}

/// A bare acknowledgement of the owner's kernel.
pub fn from_kernel(alias: Endpoint) -> SegmentSpec<'static, ToClientLocal> {
    SegmentSpec {
        source: alias,
        destination: client(50_000),
        seq: Seq::new(BACKEND_ISN).plus(1),
        ack: Seq::new(CLIENT_ISN).plus(1),
        flags: Flags::ACK,
        window: 510,
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: Some((Timestamp::new(BACKEND_TSVAL + 10), Timestamp::new(CLIENT_TSVAL))),
        traffic_class: 0,
        payload: &[],
    }
}

/// The packet with further options (whole 32-bit words) behind its own, and right checksums.
pub fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let whole = segment::<ToServerWire>(packet);
    let header = usize::from(packet[32] >> 4) * 4;
    let mut tcp = packet[20..20 + header].to_vec();
    tcp.extend_from_slice(options);
    tcp[12] += ((options.len() / 4) << 4) as u8;
    tcp.extend_from_slice(&packet[20 + header..]);
    tcp[16..18].fill(0);
    let sum = checksum::with_pseudo_header(whole.source().address, whole.destination().address, 6, &tcp);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut packet = [&packet[..20], &tcp].concat();
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[10..12].fill(0);
    let sum = checksum::of(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    assert!(segment::<ToServerWire>(&packet).checksums_are_right());
    packet
}
