//! Probes of the way through each peer: when each is due, where its answers are heard, and what people are told.
//!
//! The client of a probe is this node: an address of its own, a port that no kernel gives away. Packets that come for it are
//! from an address of this host, too, so the kernel has no use for them; they are heard on the devices, before it drops them.

use super::stop::Phase;
use super::{Node, token};
use crate::control::message::HandoffId;
use crate::flow::{Endpoint, FlowKey, NodeId};
use crate::handoff::probe::{ProbeEvent, ProbeFailure, ProbeSpec, Step};
use crate::health::{Asker, Exchange, Health, Judge};
use crate::limits::{PROBE_PORTS, PROBES_AT_ONCE};
use crate::policy::{Policy, ProbePlan, Question, Service};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Packets of one ear before others get their turn.
const PACKETS_AT_ONCE: usize = 64;

/// Everything that is probed, and the probes under way.
#[derive(Debug)]
pub struct Probes {
    ways: Vec<Way>,
    ears: [Option<Ear>; PROBES_AT_ONCE],
    next_port: u16,
}

/// From this node through a peer to its application.
#[derive(Debug)]
struct Way {
    service: String,
    peer: NodeId,
    plan: ProbePlan,
    question: Question,
    frontend: Endpoint,
    client: IpAddr,
    judge: Judge,
    due: Instant,
    last: Option<Result<Duration, ProbeFailure>>,
    last_ok: Option<Instant>,
}

/// Where the answers of a probe are heard.
#[derive(Debug)]
struct Ear {
    id: HandoffId,
    way: usize,
    socket: Socket,
}

/// What `baton peers` shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// What became of the last one, and how long it took.
    pub last: Result<Duration, ProbeFailure>,
    /// When one was last answered.
    pub last_ok: Option<Instant>,
}

impl Probes {
    /// All ways are due, one shortly after the other.
    pub fn new(policy: &Policy, now: Instant) -> Self {
        let mut ways: Vec<Way> = policy.services.iter().flat_map(|service| ways(policy, service, now)).collect();
        for (way, number) in ways.iter_mut().zip(0..) {
            way.due += Duration::from_millis(20) * number;
        }
        Self { ways, ears: Default::default(), next_port: *PROBE_PORTS.start() }
    }

    /// Other services are in force. What is known of ways that stay is kept; probes under way are forgotten.
    pub fn replace(&mut self, policy: &Policy, registry: &Registry, now: Instant) {
        for ear in self.ears.iter_mut().filter_map(Option::take) {
            let _ = registry.deregister(&mut SourceFd(&ear.socket.as_raw_fd()));
        }
        let next = Self { next_port: self.next_port, ..Self::new(policy, now) };
        let before = std::mem::replace(self, next);
        for known in before.ways {
            let ends = |way: &Way| (way.peer, way.frontend.address.is_ipv4());
            let same = |way: &&mut Way| way.service == known.service && ends(way) == ends(&known);
            if let Some(way) = self.ways.iter_mut().find(same) {
                let mut judge = known.judge;
                judge.adjust(way.plan.rise, way.plan.fall);
                (way.judge, way.last, way.last_ok) = (judge, known.last, known.last_ok);
            }
        }
    }

    /// A session is up: the ways through that peer are due.
    pub fn come_up(&mut self, peer: NodeId, now: Instant) {
        for way in self.ways.iter_mut().filter(|way| way.peer == peer) {
            way.due = way.due.min(now + Duration::from_millis(100));
        }
    }

    /// When the next one is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let has_room = self.ears.iter().any(Option::is_none);
        self.ways.iter().map(|way| way.due).min().filter(|_| has_room)
    }

    /// Whether the token is one of a probe's.
    pub fn owns(&self, token: Token) -> bool {
        (token::PROBE_FIRST..token::PROBE_FIRST + PROBES_AT_ONCE).contains(&token.0)
    }

    /// What is known of the way through a peer; of that of one family if the other's is broken. None before the first probe.
    pub fn view(&self, service: &str, peer: NodeId) -> Option<View> {
        let ways = || self.ways.iter().filter(|way| way.service == service && way.peer == peer && way.last.is_some());
        let way = ways().find(|way| matches!(way.last, Some(Err(_)))).or_else(|| ways().next())?;
        Some(View { last: way.last.clone()?, last_ok: way.last_ok })
    }

    /// Whether a way through a peer is broken, and this counts.
    fn passes_over(&self, service: &str, peer: NodeId) -> bool {
        let mut ways = self.ways.iter().filter(|way| way.service == service && way.peer == peer);
        ways.any(|way| way.plan.enforce && way.judge.verdict() == Health::Down)
    }

    /// A port that has not been used for longest.
    fn port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = if port == *PROBE_PORTS.end() { *PROBE_PORTS.start() } else { port + 1 };
        port
    }
}

impl Way {
    /// Takes in what became of a probe, and tells people what changed; whether the verdict did.
    fn conclude(&mut self, outcome: Result<Duration, ProbeFailure>, name: &str, now: Instant) -> bool {
        let was_known = self.judge.verdict() != Health::Unknown;
        let is_changed = self.judge.hear(outcome.is_ok());
        let (service, frontend) = (&self.service, self.frontend);
        match &outcome {
            Ok(_) if is_changed && was_known => log::info!("peer={name} service={service} frontend={frontend} probe=ok again"),
            Ok(took) => log::debug!("peer={name} service={service} frontend={frontend} probe=ok took={took:?}"),
            Err(ProbeFailure { step, why }) if is_changed => log::warn!(
                "peer={name} service={service} frontend={frontend} probe=failed at={:?}: {why}{}",
                step.label(),
                if self.plan.enforce { "; the peer is passed over" } else { "" }
            ),
            Err(ProbeFailure { step, why }) => {
                log::debug!("peer={name} service={service} frontend={frontend} probe=failed at={:?}: {why}", step.label());
            }
        }
        if outcome.is_ok() {
            self.last_ok = Some(now);
        }
        self.last = Some(outcome);
        is_changed
    }
}

/// From this node's first front-end address of each family of a service through each peer that its connections may be handed to.
fn ways(policy: &Policy, service: &Service, now: Instant) -> Vec<Way> {
    let own = policy.node;
    let (Some(plan), Some(health)) = (&service.probe, &service.health) else { return Vec::new() };
    let owned = || service.frontends.iter().filter(|(owner, _)| *owner == own).map(|(_, frontend)| *frontend);
    let frontends = [true, false].map(|is_ipv4| owned().find(|frontend| frontend.address.is_ipv4() == is_ipv4));
    let address = policy.nodes[usize::from(own.0)].address;
    let client_of = |frontend: Endpoint| {
        if address.is_ipv4() == frontend.address.is_ipv4() { address } else { frontend.address }
    };
    let peers = || service.servers.iter().map(|(peer, _)| *peer).filter(|peer| policy.hands_off(own, *peer));
    // What answers on another port is not at the end of the way.
    let question = if health.port.is_some() { Question::Tcp } else { health.question.clone() };
    let way = |peer, frontend| Way {
        service: service.name.clone(),
        peer,
        plan: plan.clone(),
        question: question.clone(),
        frontend,
        client: client_of(frontend),
        judge: Judge::new(plan.rise, plan.fall),
        due: now,
        last: None,
        last_ok: None,
    };
    frontends.into_iter().flatten().flat_map(|frontend| peers().map(move |peer| way(peer, frontend))).collect()
}

impl Ear {
    fn open(id: HandoffId, way: usize, flow: &FlowKey, token: Token, registry: &Registry) -> io::Result<Self> {
        let is_ipv4 = flow.client.address.is_ipv4();
        let kind = if is_ipv4 { libc::ETH_P_IP } else { libc::ETH_P_IPV6 } as u16;
        let protocol = Protocol::from(i32::from(kind.to_be()));
        // Without link headers: a packet begins with its IP header.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking().cloexec(), Some(protocol))?;
        let filter: Vec<_> = filter(flow).iter().map(|(code, yes, no, k)| SockFilter::new(*code, *yes, *no, *k)).collect();
        socket.attach_filter(&filter)?;
        registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { id, way, socket })
    }
}

/// From that front-end to that client, whole packets of TCP only: instructions of classic BPF (code, how far to jump when it is
/// true and when it is not, operand).
fn filter(flow: &FlowKey) -> Vec<(u16, u8, u8, u32)> {
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_WORD: u16 = 0x20;
    const LOAD_WORD_BEHIND_X: u16 = 0x40;
    const X_IS_IPV4_HEADER: u16 = 0xb1;
    const IF_EQUAL: u16 = 0x15;
    const IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    let ports = u32::from(flow.frontend.port) << 16 | u32::from(flow.client.port);
    let words = |address: IpAddr| -> Vec<u32> {
        match address {
            IpAddr::V4(address) => vec![u32::from(address)],
            IpAddr::V6(address) => {
                address.octets().chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap_or_default())).collect()
            }
        }
    };
    // What is loaded, from where, and what it must be.
    let (protocol_at, addresses_at) = if flow.client.address.is_ipv4() { (9, 12) } else { (6, 8) };
    let mut tests = vec![(LOAD_BYTE, protocol_at, libc::IPPROTO_TCP as u32)];
    let addresses = [words(flow.frontend.address), words(flow.client.address)].concat();
    tests.extend(addresses.iter().zip(0..).map(|(word, index)| (LOAD_WORD, addresses_at + 4 * index, *word)));
    let mut program: Vec<(u16, u32, Option<u32>, bool)> =
        tests.into_iter().map(|(load, at, wanted)| (load, at, Some(wanted), true)).collect();
    if flow.client.address.is_ipv4() {
        program.push((LOAD_HALF, 6, Some(0x3fff), false));
        program.push((X_IS_IPV4_HEADER, 0, None, true));
        program.push((LOAD_WORD_BEHIND_X, 0, Some(ports), true));
    } else {
        program.push((LOAD_WORD, 40, Some(ports), true));
    }
    let length: usize = program.iter().map(|(_, _, wanted, _)| if wanted.is_some() { 2 } else { 1 }).sum();
    let mut instructions = Vec::with_capacity(length + 2);
    for (load, at, wanted, must_equal) in program {
        instructions.push((load, 0, 0, at));
        if let Some(wanted) = wanted {
            // Over what follows, and over the instruction that accepts.
            let refuse = (length - instructions.len()) as u8;
            instructions.push(match must_equal {
                true => (IF_EQUAL, 0, refuse, wanted),
                false => (IF_SET, refuse, 0, wanted),
            });
        }
    }
    instructions.extend([(RETURN, 0, 0, u32::MAX), (RETURN, 0, 0, 0)]);
    instructions
}

impl Node {
    /// Begins the probes that are due, and hears what became of others.
    pub(super) fn probe_peers(&mut self, now: Instant) {
        self.hear_probes(now);
        while let Some(slot) = self.probes.ears.iter().position(Option::is_none) {
            let due = (0..self.probes.ways.len()).filter(|way| self.probes.ways[*way].due <= now);
            let Some(way) = due.min_by_key(|way| self.probes.ways[*way].due) else { break };
            self.begin_probe(slot, way, now);
        }
        self.hear_probes(now);
    }

    fn begin_probe(&mut self, slot: usize, way: usize, now: Instant) {
        let (peer, interval) = (self.probes.ways[way].peer, self.probes.ways[way].plan.interval);
        self.probes.ways[way].due = now + interval;
        let view = self.channel.peers().into_iter().find(|view| view.peer == peer);
        let can_be_probed = view.is_some_and(|view| view.version >= Some(crate::control::report::REPORT_SINCE) && !view.draining);
        let is_under_way = self.probes.ears.iter().flatten().any(|ear| ear.way == way);
        if !can_be_probed || is_under_way || !matches!(self.phase, Phase::Running) {
            return;
        }
        let port = self.probes.port();
        let way_of = &self.probes.ways[way];
        let flow = FlowKey { client: Endpoint::new(way_of.client, port), frontend: way_of.frontend };
        let spec = ProbeSpec {
            service: way_of.service.clone(),
            to: peer,
            flow,
            exchange: Exchange::new(&way_of.question, Asker::Probe),
            timeout: way_of.plan.timeout,
        };
        // The ear first: an answer cannot come before the offer has left.
        let unnamed = HandoffId { epoch: self.identity.epoch, serial: 0 };
        match Ear::open(unnamed, way, &flow, Token(token::PROBE_FIRST + slot), self.poll.registry()) {
            Ok(ear) => {
                let id = self.engine.begin_probe(spec, now);
                self.probes.ears[slot] = Some(Ear { id, ..ear });
                self.settle(now);
            }
            Err(error) => {
                let why = format!("this node cannot listen for answers (a packet socket, which needs CAP_NET_RAW): {error}");
                self.conclude_probe(way, Err(ProbeFailure { step: Step::WayBack, why }), now);
            }
        }
    }

    /// Packets have come for a probe's client.
    pub(super) fn handle_probe(&mut self, token: Token, now: Instant) {
        let slot = token.0 - token::PROBE_FIRST;
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..PACKETS_AT_ONCE {
            let Some(ear) = &self.probes.ears[slot] else { break };
            match (&ear.socket).read(&mut buffer) {
                Ok(octets) => {
                    self.engine.handle_probe_answer(&mut buffer[..octets], now);
                    self.settle(now);
                    self.hear_probes(now);
                }
                Err(_) => break,
            }
        }
        self.buffer = buffer;
    }

    fn hear_probes(&mut self, now: Instant) {
        while let Some(event) = self.engine.poll_probe() {
            let id = match &event {
                ProbeEvent::Verdict(id, _) | ProbeEvent::Over(id) => *id,
            };
            // One of before the last reload is nobody's.
            let Some(slot) = self.probes.ears.iter().position(|ear| ear.as_ref().is_some_and(|ear| ear.id == id)) else {
                continue;
            };
            match event {
                ProbeEvent::Verdict(_, outcome) => {
                    if let Some(way) = self.probes.ears[slot].as_ref().map(|ear| ear.way) {
                        self.conclude_probe(way, outcome, now);
                    }
                }
                ProbeEvent::Over(_) => {
                    if let Some(ear) = self.probes.ears[slot].take() {
                        let _ = self.poll.registry().deregister(&mut SourceFd(&ear.socket.as_raw_fd()));
                    }
                }
            }
        }
    }

    fn conclude_probe(&mut self, way: usize, outcome: Result<Duration, ProbeFailure>, now: Instant) {
        let name = self.name_of(self.probes.ways[way].peer);
        self.probes.ways[way].conclude(outcome, &name, now);
        let way = &self.probes.ways[way];
        self.engine.handle_probe_verdict(&way.service, way.peer, self.probes.passes_over(&way.service, way.peer));
    }

    /// After a reload verdicts may count that did not, and the other way round.
    pub(super) fn tell_probe_verdicts(&mut self) {
        for service in &self.policy.services {
            for (peer, _) in &service.servers {
                self.engine.handle_probe_verdict(&service.name, *peer, self.probes.passes_over(&service.name, *peer));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine for as much of classic BPF as the filter uses.
    fn takes(flow: &FlowKey, packet: &[u8]) -> bool {
        let program = filter(flow);
        let (mut at, mut a, mut x) = (0, 0u32, 0usize);
        loop {
            let (code, yes, no, k) = program[at];
            at += 1;
            let word = |from: usize, octets: usize| {
                packet.get(from..from + octets).map(|octets| octets.iter().fold(0, |word, octet| word << 8 | u32::from(*octet)))
            };
            let loaded = match code {
                0x30 => word(k as usize, 1),
                0x28 => word(k as usize, 2),
                0x20 => word(k as usize, 4),
                0x40 => word(x + k as usize, 4),
                _ => Some(a),
            };
            let Some(loaded) = loaded else { return false };
            a = loaded;
            match code {
                0xb1 => x = usize::from(packet[0] & 0x0f) * 4,
                0x15 => at += usize::from(if a == k { yes } else { no }),
                0x45 => at += usize::from(if a & k != 0 { yes } else { no }),
                0x06 => return k != 0,
                _ => {}
            }
        }
    }

    fn packet(from: &str, to: &str) -> Vec<u8> {
        let end = |text: &str| Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap());
        crate::rewrite::SegmentSpec::<crate::rewrite::ToClientWire> {
            source: end(from),
            destination: end(to),
            seq: crate::rewrite::Seq::new(1),
            ack: crate::rewrite::Seq::new(1),
            flags: crate::rewrite::Flags::ACK,
            window: 1,
            mss: None,
            window_scale: None,
            sack_permitted: false,
            timestamps: None,
            traffic_class: 0,
            payload: b"answer",
        }
        .build()
        .into_inner()
    }

    #[test]
    fn an_ear_hears_whole_segments_from_its_front_end_to_its_client_and_nothing_else() {
        let end = |text: &str| Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap());
        for (frontend, client, others) in [
            ("10.77.0.1:80", "10.77.0.9:512", ["10.77.0.2:80", "10.77.0.1:81", "10.77.0.9:513", "10.77.0.8:512"]),
            ("[fd77::1]:80", "[fd77::9]:512", ["[fd77::2]:80", "[fd77::1]:81", "[fd77::9]:513", "[fd77:1::9]:512"]),
        ] {
            let flow = FlowKey { client: end(client), frontend: end(frontend) };
            assert!(takes(&flow, &packet(frontend, client)));
            assert!(!takes(&flow, &packet(client, frontend)));
            for (index, other) in others.iter().enumerate() {
                let other = if index < 2 { packet(other, client) } else { packet(frontend, other) };
                assert!(!takes(&flow, &other), "{other:?}");
            }
            for length in 0..44 {
                takes(&flow, &packet(frontend, client)[..length]);
            }
        }
        let flow = FlowKey { client: end("10.77.0.9:512"), frontend: end("10.77.0.1:80") };
        for (at, octet) in [(6, 0x20), (7, 1), (9, 17)] {
            let mut packet = packet("10.77.0.1:80", "10.77.0.9:512");
            packet[at] = octet;
            assert!(!takes(&flow, &packet), "octet {at} is {octet}");
        }
    }
}
