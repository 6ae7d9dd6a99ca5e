//! The whole engine of one node: packets of clients and kernels, messages and packets of peers, answers of the host, a new
//! policy, and any amount of time between them.
//!
//! The choices are biased towards what leads somewhere (`cast`): segments near the numbers a connection has, messages about
//! handoffs that exist. What must hold after every step is in `checks`.

mod cast;
mod checks;

use super::control;
use super::input::Input;
use baton::control::message::{Accept, Epoch, HandoffId, Message, Refusal};
use baton::flow::{Endpoint, NodeId};
use baton::handoff::{Engine, EngineConfig, PeerEvent, SocketState};
use baton::policy::{ClusterFile, Policy};
use baton::rewrite::{Offload, WindowScale};
use cast::{Cast, FLOWS};
use checks::Host;
use std::rc::Rc;
use std::time::{Duration, Instant};

const STEPS_MAX: usize = 300;
const CLUSTER: &str = include_str!("engine.yaml");
const NODE: NodeId = NodeId(0);
const PEERS: [NodeId; 2] = [NodeId(1), NodeId(2)];
/// How long everything must be forgotten after: an owner is lost for half a minute, a client silent for ten seconds, a
/// socket asked about every minute.
const LONG: Duration = Duration::from_secs(600);

/// The policies a node may be given one after the other.
fn policies() -> [Rc<Policy>; 2] {
    thread_local! {
        static POLICIES: [Rc<Policy>; 2] = {
            let fewer = CLUSTER.replace("a: \"10.77.0.1:81\", ", "").replace("a: { port: 81 }, ", "").replace("/images/*", "/i*");
            assert!(fewer.len() < CLUSTER.len());
            [CLUSTER, &fewer].map(|text| {
                let file = ClusterFile::parse("engine.yaml", text).unwrap_or_else(|report| panic!("{report}"));
                Rc::new(file.compile("a").expect("node a"))
            })
        };
    }
    POLICIES.with(Clone::clone)
}

#[allow(clippy::disallowed_methods)] // Only differences to the moment are used.
pub fn run(octets: &[u8]) {
    let mut input = Input::new(octets);
    let now = Instant::now();
    let orphans: Vec<_> = (0..input.below(4)).map(|flow| FLOWS[flow].into()).collect();
    let config = EngineConfig { node: NODE, epoch: Epoch(7), overlay_overhead: 56, mtu: 1_500, orphans: orphans.clone() };
    let engine = Engine::new(config, Rc::clone(&policies()[0]), now);
    let mut world = World { cast: Cast::default(), host: Host::new(engine, now, orphans), up: [false; 2] };
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.end(&mut input);
}

struct World {
    cast: Cast,
    host: Host,
    up: [bool; 2],
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 24 {
            0 => {
                let (packet, offload) = self.cast.syn(input);
                self.host.tun(input, packet, offload);
            }
            1 => {
                let packet = self.cast.kernel_syn_ack(input);
                self.host.tun(input, packet, Offload::NONE);
            }
            // A client connects: three packets that belong together.
            2 | 3 => {
                let (packet, offload) = self.cast.syn(input);
                self.host.tun(input, packet, offload);
                let packet = self.cast.kernel_syn_ack(input);
                self.host.tun(input, packet, Offload::NONE);
                let packet = self.cast.acknowledgement();
                self.host.tun(input, packet, Offload::NONE);
            }
            4..=7 => {
                let (packet, offload) = self.cast.client_segment(input);
                self.host.tun(input, packet, offload);
            }
            8 => {
                let packet = self.cast.replay_answer(input, &self.host.replays);
                self.host.tun(input, packet, Offload::NONE);
            }
            9 | 10 => {
                let (packet, offload) = self.cast.kernel_segment(input, &self.host.replays);
                self.host.tun(input, packet, offload);
            }
            11 => self.peer_event(input),
            12 | 13 => self.answer_of_peer(input),
            14 => {
                let from = input.pick(&PEERS);
                let offer = self.cast.offer(input, from);
                self.tell(input, from, Message::Offer(Box::new(offer)));
            }
            15 => {
                let from = input.pick(&PEERS);
                let message = self.cast.follow_up(input, from);
                self.tell(input, from, message);
            }
            16 => {
                let (from, message) = (input.pick(&PEERS), control::message(input));
                self.tell(input, from, message);
            }
            17 => {
                let from = input.pick(&PEERS);
                let (packet, _) = self.cast.client_segment(input);
                self.host.overlay(input, from, packet);
            }
            18 => {
                let from = input.bool().then(|| input.pick(&PEERS));
                let packet = match input.below(3) {
                    0 => input.short().to_vec(),
                    1 => self.cast.icmp_error(input),
                    _ => self.cast.fragment(input),
                };
                match from {
                    Some(from) => self.host.overlay(input, from, packet),
                    None => self.host.tun(input, packet, Offload::NONE),
                }
            }
            19..=21 => {
                const STEPS: [u64; 10] = [0, 1, 5, 20, 60, 110, 250, 1_100, 2_600, 31_000];
                let step = input.pick(&STEPS);
                self.host.pass(input, Duration::from_millis(step));
            }
            22 => self.host.pass_until_next(input),
            _ => self.rare(input),
        }
    }

    fn rare(&mut self, input: &mut Input<'_>) {
        let host = &mut self.host;
        match input.below(6) {
            0 => host.engine.handle_stall(host.now),
            1 => host.engine.drain(host.now),
            2 => host.engine.undrain(),
            3 => host.replace_policy(Rc::clone(&policies()[input.below(2)])),
            4 => host.engine.handle_backlog(FLOWS[input.below(FLOWS.len())].1, u32::from(input.u8())),
            _ => host.engine.reset_all(host.now),
        }
        host.drain(input);
    }

    fn peer_event(&mut self, input: &mut Input<'_>) {
        let index = input.below(2);
        let event = match input.below(8) {
            0 => PeerEvent::Up(Epoch(u64::from(input.u8()))),
            1 => PeerEvent::Down,
            2 => PeerEvent::Draining(input.bool()),
            _ => PeerEvent::Up(Epoch(100 + index as u64)),
        };
        self.event(input, index, event);
    }

    fn event(&mut self, input: &mut Input<'_>, index: usize, event: PeerEvent) {
        match event {
            PeerEvent::Up(_) => self.up[index] = true,
            PeerEvent::Down => self.up[index] = false,
            PeerEvent::Draining(_) => {}
        }
        self.host.engine.handle_peer(PEERS[index], event, self.host.now);
        self.host.drain(input);
    }

    /// A message arrives only from a peer with a session.
    fn tell(&mut self, input: &mut Input<'_>, from: NodeId, message: Message) {
        if self.up[usize::from(from.0) - 1] {
            self.host.engine.handle_message(from, message, self.host.now);
            self.host.drain(input);
        }
    }

    /// What a back-end says about something it was offered; not always the one that was asked.
    fn answer_of_peer(&mut self, input: &mut Input<'_>) {
        let offers = &self.host.offers;
        if offers.is_empty() {
            return;
        }
        let (mut from, id, flow) = offers[offers.len() - 1 - input.below(offers.len())];
        let choice = input.u8();
        if choice & 0xf0 == 0xf0 {
            from = input.pick(&PEERS);
        }
        let message = match choice & 7 {
            0..=2 => Message::Accept(Accept {
                id,
                backend_isn: input.u32(),
                window_scale: input.bool().then(|| WindowScale::new(input.u8() % 15)),
                tsval: input.bool().then(|| input.u32()),
            }),
            3 => {
                const REASONS: [Refusal; 3] = [Refusal::Promise, Refusal::BacklogFull, Refusal::NotAServer];
                Message::Refuse { id, reason: input.pick(&REASONS) }
            }
            4 => Message::Delivered { id },
            5 => Message::Returned { id },
            6 => Message::Closed { id },
            _ if input.bool() => Message::Owned { id, flow },
            _ => Message::OwnedEnd,
        };
        self.tell(input, from, message);
    }

    /// Time runs on and nobody says anything more: everything is forgotten.
    fn end(&mut self, input: &mut Input<'_>) {
        for index in 0..2 {
            // In another life: nobody is left who could repeat a commit.
            self.event(input, index, PeerEvent::Up(Epoch(0xffff)));
            self.event(input, index, PeerEvent::Down);
        }
        self.host.sockets_are = Some(if input.bool() { SocketState::Absent } else { SocketState::TimeWait });
        let end = self.host.now + LONG;
        for _ in 0..20_000 {
            if self.host.now >= end || self.host.is_empty() {
                break;
            }
            self.host.pass_until_next(input);
        }
        assert!(self.host.now < end, "not forgotten: {:?}", self.host.engine.flows(self.host.now));
        assert!(self.host.is_empty(), "deadlines without end");
        self.host.engine.undrain();
        self.host.has_forgotten(&mut self.cast);
    }
}

/// An endpoint of the host.
const fn v4(last: [u8; 4], port: u16) -> Endpoint {
    Endpoint::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(last[0], last[1], last[2], last[3])), port)
}

const fn v6(first: u16, last: u16, port: u16) -> Endpoint {
    Endpoint::new(std::net::IpAddr::V6(std::net::Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last)), port)
}

/// Names a handoff of a peer.
fn id_of(from: NodeId, serial: u64) -> HandoffId {
    HandoffId { epoch: Epoch(99 + u64::from(from.0)), serial }
}
