//! Clients, kernels and peers that make packets and messages near the numbers their connections have.

use super::super::input::Input;
use super::super::sums;
use super::{id_of, v4, v6};
use baton::control::message::{Message, Offer, OfferedTimestamps, WindowScales};
use baton::flow::{Endpoint, FlowKey, NodeId};
use baton::rewrite::{Flags, Leg, Offload, SegmentSpec, Seq, Timestamp, ToClientLocal, ToClientWire, ToServerWire, WindowScale};
use std::num::NonZeroU16;
use std::time::Duration;

/// A client's end and a front-end's.
#[derive(Clone, Copy)]
pub struct Flow(pub Endpoint, pub Endpoint);

impl From<Flow> for FlowKey {
    fn from(flow: Flow) -> Self {
        Self { client: flow.0, frontend: flow.1 }
    }
}

const CLIENT: [u8; 4] = [192, 0, 2, 7];

/// The connections there can be: of this node first, then of its peers. One has no front-end at all.
pub const FLOWS: [Flow; 10] = [
    Flow(v4(CLIENT, 40_000), v4([10, 77, 0, 1], 80)),
    Flow(v4(CLIENT, 40_001), v4([10, 77, 0, 1], 80)),
    Flow(v4(CLIENT, 40_000), v4([10, 77, 0, 1], 81)),
    Flow(v6(0x2001, 7, 40_000), v6(0xfd77, 1, 80)),
    Flow(v4(CLIENT, 40_002), v4([10, 77, 0, 1], 81)),
    Flow(v4([192, 0, 2, 8], 40_000), v4([10, 77, 0, 1], 80)),
    Flow(v4(CLIENT, 40_000), v4([10, 77, 0, 2], 80)),
    Flow(v4(CLIENT, 40_000), v4([10, 77, 0, 2], 81)),
    Flow(v6(0x2001, 7, 40_000), v6(0xfd77, 2, 80)),
    Flow(v4(CLIENT, 40_000), v4([10, 77, 0, 3], 80)),
];

/// Of `FLOWS`, those of peers.
const OF_PEERS: std::ops::Range<usize> = 6..FLOWS.len();

const REQUESTS: [&[u8]; 6] = [
    b"GET /images/cat HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /c HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /images/cat HTTP/1.1\r\nHo",
    b"st: a\r\n\r\n",
    b"\x16\x03\x01",
];

/// What one connection's ends last said.
#[derive(Clone, Copy, Default)]
struct Course {
    isn: u32,
    server_isn: u32,
    sent: u32,
    ticks: u32,
    has_timestamps: bool,
}

/// A replay: the kernel's socket and what the SYN said.
#[derive(Clone, Copy)]
pub struct Replay {
    pub alias: Endpoint,
    pub client: Endpoint,
    pub isn: u32,
}

#[derive(Default)]
pub struct Cast {
    courses: [Course; FLOWS.len()],
    /// The flow of the latest SYN.
    latest: usize,
    serial: u64,
}

fn spec<L: Leg>(source: Endpoint, destination: Endpoint, seq: u32, ack: u32, flags: Flags) -> SegmentSpec<'static, L> {
    SegmentSpec {
        source,
        destination,
        seq: Seq::new(seq),
        ack: Seq::new(ack),
        flags,
        window: 502,
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        traffic_class: 0,
        payload: &[],
    }
}

/// Options of a SYN or SYN-ACK; never an MSS that makes packets longer than a link takes.
fn with_options<L: Leg>(spec: &mut SegmentSpec<'_, L>, choice: u8, tsval: u32, tsecr: u32) {
    spec.mss = (choice & 1 == 0).then_some(if choice & 2 == 0 { 1_400 } else { 536 });
    spec.window_scale = (choice & 4 == 0).then_some(WindowScale::new(choice >> 5));
    spec.sack_permitted = choice & 8 == 0;
    spec.timestamps = (choice & 16 == 0).then_some((Timestamp::new(tsval), Timestamp::new(tsecr)));
    spec.window = 64_000;
}

impl Cast {
    fn flow(&mut self, input: &mut Input<'_>) -> usize {
        // The connection that is being made, most of the time.
        let choice = input.u8();
        if choice < 128 { self.latest } else { usize::from(choice) % FLOWS.len() }
    }

    /// A client's SYN, sometimes with what a handoff cannot carry.
    pub fn syn(&mut self, input: &mut Input<'_>) -> (Vec<u8>, Offload) {
        let index = usize::from(input.u8()) % OF_PEERS.start;
        self.latest = index;
        let choice = input.u8();
        let course = &mut self.courses[index];
        if choice & 0x40 == 0 {
            course.isn = u32::from(input.u16()) << 16 | 0xfff0;
        }
        course.sent = 0;
        course.has_timestamps = choice & 16 == 0;
        let Flow(client, frontend) = FLOWS[index];
        let mut syn = spec::<ToServerWire>(client, frontend, course.isn, 0, Flags::SYN);
        with_options(&mut syn, choice, course.ticks, 0);
        let extra = input.u8();
        if extra & 1 != 0 {
            syn.flags = syn.flags.with(Flags::ECE).with(Flags::CWR);
        }
        if extra & 2 != 0 {
            syn.payload = REQUESTS[0];
        }
        let mut packet = syn.build().into_inner();
        if extra & 0x0c == 0x0c {
            const KINDS: [u8; 4] = [34, 30, 19, 29];
            add_option(&mut packet, &[KINDS[usize::from(extra >> 4 & 3)], 4, 1, 2]);
        }
        (packet, Offload::NONE)
    }

    /// The local kernel's answer to a SYN.
    pub fn kernel_syn_ack(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let index = self.flow(input);
        let choice = input.u8();
        let course = &mut self.courses[index];
        let Flow(client, frontend) = FLOWS[index];
        if choice & 0x40 == 0 {
            course.server_isn = u32::from(choice) << 24 | 0xffff_ff00 >> 8;
        }
        course.ticks = course.ticks.wrapping_add(3);
        let mut syn_ack =
            spec::<ToClientWire>(frontend, client, course.server_isn, course.isn.wrapping_add(1), Flags::SYN.with(Flags::ACK));
        with_options(&mut syn_ack, choice & !0x40, course.ticks.wrapping_add(1 << 20), course.ticks);
        if choice & 0x80 != 0 {
            syn_ack.flags = syn_ack.flags.with(Flags::ECE);
        }
        syn_ack.build().into_inner()
    }

    /// The third packet of the latest handshake.
    pub fn acknowledgement(&mut self) -> Vec<u8> {
        let (course, Flow(client, frontend)) = (self.courses[self.latest], FLOWS[self.latest]);
        let (seq, ack) = (course.isn.wrapping_add(1), course.server_isn.wrapping_add(1));
        let mut segment = spec::<ToServerWire>(client, frontend, seq, ack, Flags::ACK);
        segment.timestamps = self.timestamps(self.latest);
        segment.build().into_inner()
    }

    fn timestamps<A, B>(&self, index: usize) -> Option<(Timestamp<A>, Timestamp<B>)> {
        let course = &self.courses[index];
        course.has_timestamps.then(|| (Timestamp::new(course.ticks), Timestamp::new(course.ticks.wrapping_add(1 << 20))))
    }

    /// Anything a client may send: mostly the next octets, sometimes anywhere, sometimes as a super-segment, or corrupt.
    pub fn client_segment(&mut self, input: &mut Input<'_>) -> (Vec<u8>, Offload) {
        const FLAGS: [u8; 8] = [0x10, 0x18, 0x10, 0x11, 0x04, 0x14, 0x02, 0x00];
        let index = self.flow(input);
        let Flow(client, frontend) = FLOWS[index];
        let (choice, flags) = (input.u8(), Flags(input.pick(&FLAGS)));
        let course = &mut self.courses[index];
        course.ticks = course.ticks.wrapping_add(1);
        let at = match choice & 7 {
            0..=4 => course.sent,
            5 => 0,
            6 => course.sent.wrapping_add(u32::from(input.u8())).wrapping_sub(128),
            _ => input.u32(),
        };
        let acknowledged = match choice >> 3 & 7 {
            0..=5 => 0,
            6 => u32::from(input.u8()),
            _ => input.u32(),
        };
        let (seq, ack) =
            (course.isn.wrapping_add(1).wrapping_add(at), course.server_isn.wrapping_add(1 + acknowledged % 0x1_0000));
        let ack = if choice >> 3 & 7 == 7 { acknowledged } else { ack };
        let made_up = vec![choice; usize::from(input.u16() % 5_000)];
        let payload: &[u8] = match input.u8() % 8 {
            number @ 0..=5 => REQUESTS[usize::from(number)],
            6 => &made_up,
            _ => &[],
        };
        course.sent = at.wrapping_add(payload.len() as u32);
        let mut segment = spec::<ToServerWire>(client, frontend, seq, ack, flags);
        segment.payload = payload;
        segment.timestamps = self.timestamps(index);
        finish(segment.build().into_inner(), choice, payload.len())
    }

    /// A kernel's answer to a replayed SYN.
    pub fn replay_answer(&mut self, input: &mut Input<'_>, replays: &[Replay]) -> Vec<u8> {
        let Some(replay) = replays.len().checked_sub(1).map(|last| replays[last - input.below(last + 1).min(last)]) else {
            return Vec::new();
        };
        let choice = input.u8();
        let (flags, ack) = match choice & 0xc0 {
            0xc0 => (Flags::RST.with(Flags::ACK), replay.isn.wrapping_add(1)),
            0x80 => (Flags::SYN.with(Flags::ACK).with(Flags::ECE), replay.isn.wrapping_add(u32::from(input.u8() & 3))),
            _ => (Flags::SYN.with(Flags::ACK), replay.isn.wrapping_add(1)),
        };
        let mut syn_ack = spec::<ToClientLocal>(replay.alias, replay.client, replay.isn ^ 0x5a5a_5a5a, ack, flags);
        with_options(&mut syn_ack, choice & 0x3f, 9_000, 0);
        syn_ack.build().into_inner()
    }

    /// Anything a kernel may send on a replayed connection.
    pub fn kernel_segment(&mut self, input: &mut Input<'_>, replays: &[Replay]) -> (Vec<u8>, Offload) {
        const FLAGS: [u8; 6] = [0x10, 0x18, 0x11, 0x10, 0x14, 0x04];
        let Some(replay) = replays.len().checked_sub(1).map(|last| replays[last - input.below(last + 1).min(last)]) else {
            return (Vec::new(), Offload::NONE);
        };
        let (choice, flags) = (input.u8(), Flags(input.pick(&FLAGS)));
        let offset = if choice & 7 == 7 { input.u32() } else { u32::from(input.u8()) };
        let acknowledged = if choice >> 3 & 7 == 7 { input.u32() } else { u32::from(input.u8()) };
        let (seq, ack) = ((replay.isn ^ 0x5a5a_5a5a).wrapping_add(1 + offset % 4_096), replay.isn.wrapping_add(1));
        let payload = vec![0x55; usize::from(input.u16() % 5_000) * usize::from(choice & 1)];
        let mut segment = spec::<ToClientLocal>(replay.alias, replay.client, seq, ack.wrapping_add(acknowledged), flags);
        segment.payload = &payload;
        segment.timestamps = (choice & 2 == 0).then_some((Timestamp::new(9_000 + offset % 100), Timestamp::new(5)));
        finish(segment.build().into_inner(), choice, payload.len())
    }

    /// What another front-end asks this node to take.
    pub fn offer(&mut self, input: &mut Input<'_>, from: NodeId) -> Offer {
        let index = OF_PEERS.start + input.below(OF_PEERS.len());
        let index = if input.u8() > 240 { input.below(FLOWS.len()) } else { index };
        self.latest = index;
        self.serial += u64::from(input.u8() < 250);
        let course = &mut self.courses[index];
        let choice = input.u8();
        course.isn = u32::from(choice) << 24 | 0xff_fff8;
        course.server_isn = 77;
        course.has_timestamps = choice & 16 == 0;
        let Flow(client, frontend) = FLOWS[index];
        let scale = |shift: u8| WindowScale::new(shift % 15);
        let first_flight = match input.u8() % 4 {
            0 => Vec::new(),
            1 => vec![choice; usize::from(input.u16())],
            number => REQUESTS[usize::from(number)].to_vec(),
        };
        course.sent = first_flight.len() as u32;
        Offer {
            id: id_of(from, self.serial),
            flow: FlowKey { client, frontend },
            service: if choice & 0x60 == 0x60 { "narrow" } else { "web" }.to_owned(),
            client_isn: Seq::new(course.isn),
            frontend_isn: Seq::new(course.server_isn),
            client_mss: if choice & 1 == 0 { 1_400 } else { u16::from(choice) },
            window_scales: (choice & 4 == 0).then(|| WindowScales { client: scale(choice), frontend: scale(choice >> 3) }),
            sack: choice & 8 == 0,
            timestamps: (choice & 16 == 0)
                .then(|| OfferedTimestamps { client: Timestamp::new(5), frontend: Timestamp::new(5_000) }),
            ecn: choice & 0x80 != 0,
            syn_window: 64_000,
            window: 502,
            round_trip: Duration::from_micros(u64::from(input.u16()) * 8),
            acknowledged_early: choice & 2 != 0,
            probe: choice & 4 != 0,
            first_flight,
        }
    }

    /// What a front-end says after an offer; mostly about the latest.
    pub fn follow_up(&mut self, input: &mut Input<'_>, from: NodeId) -> Message {
        let choice = input.u8();
        let back = if choice & 0x80 == 0 { 0 } else { u64::from(input.u8() % 8) };
        let id = id_of(from, self.serial.saturating_sub(back));
        match choice & 7 {
            0..=3 => Message::Commit { id, more: input.octets(usize::from(choice >> 3 & 7)).to_vec() },
            4 => Message::Abort { id },
            5 => Message::Settled { below: id.serial + u64::from(input.u8() & 1) },
            6 => Message::Disowned { id },
            _ => Message::OwnedEnd,
        }
    }

    /// A router's complaint about a packet to a client.
    pub fn icmp_error(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let index = self.flow(input);
        let (Flow(client, frontend), course) = (FLOWS[index], self.courses[index]);
        let mut quoted = spec::<ToClientWire>(frontend, client, course.server_isn, course.isn, Flags::ACK);
        quoted.payload = b"more than eight octets";
        let mut quoted = quoted.build().into_inner();
        quoted.truncate(if input.bool() { 28 + 20 * (index % 2) } else { quoted.len() });
        let router = if client.address.is_ipv4() { v4([192, 0, 2, 1], 0) } else { v6(0x2001, 1, 0) };
        icmp(router, frontend, input.u8(), &quoted)
    }

    /// A fragment of a client's segment.
    pub fn fragment(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let (mut packet, _) = self.client_segment(input);
        if packet.first().is_some_and(|first| first >> 4 == 4) {
            packet[6..8].copy_from_slice(&(0x2000 | u16::from(input.u8() & 3)).to_be_bytes());
            sums::repair_ip(&mut packet);
        }
        packet
    }
}

/// Long packets are super-segments, with or without a partial checksum; some short ones are corrupt.
fn finish(mut packet: Vec<u8>, choice: u8, payload: usize) -> (Vec<u8>, Offload) {
    let at = if packet[0] >> 4 == 4 { 20 } else { 40 };
    let segment_bytes = (payload > 1_400 || choice & 0xc0 == 0xc0).then(|| NonZeroU16::new(1_300).expect("not zero"));
    if choice & 0xc0 == 0x40 && payload <= 1_400 {
        let last = packet.len() - 1;
        packet[last] ^= 0x55;
        return (packet, Offload::NONE);
    }
    if choice & 0xc0 == 0x80 || segment_bytes.is_some() {
        let (source, destination) = sums::addresses(&packet);
        let sum = match sums::pseudo(source, destination, sums::TCP, packet.len() - at) {
            0 => 0xffff,
            sum => sum as u16,
        };
        packet[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
        return (packet, Offload { partial_checksum: Some(at as u16), segment_bytes, ecn: false });
    }
    (packet, Offload::NONE)
}

fn add_option(packet: &mut Vec<u8>, option: &[u8; 4]) {
    let at = if packet[0] >> 4 == 4 { 20 } else { 40 };
    packet.splice(at + 20..at + 20, *option);
    packet[at + 12] += 0x10;
    let length = if at == 20 { (2, packet.len()) } else { (4, packet.len() - 40) };
    packet[length.0..length.0 + 2].copy_from_slice(&(length.1 as u16).to_be_bytes());
    sums::repair_ip(packet);
    sums::repair_upper(packet, at, sums::TCP, 16);
}

fn icmp(from: Endpoint, to: Endpoint, choice: u8, quoted: &[u8]) -> Vec<u8> {
    // An empty segment lends its IP header.
    let mut packet = spec::<ToClientWire>(from, to, 0, 0, Flags::ACK).build().into_inner();
    let (at, protocol) = if packet[0] >> 4 == 4 { (20, sums::ICMP) } else { (40, sums::ICMP_V6) };
    packet.truncate(at);
    let kind = if choice < 200 { if at == 20 { 3 } else { 2 } } else { choice };
    packet.extend_from_slice(&[kind, 4, 0, 0, 0, 0, 5, 0]);
    packet.extend_from_slice(quoted);
    let (field, protocol_at) = if at == 20 { ((2, packet.len()), 9) } else { ((4, packet.len() - 40), 6) };
    packet[field.0..field.0 + 2].copy_from_slice(&(field.1 as u16).to_be_bytes());
    packet[protocol_at] = protocol;
    sums::repair_ip(&mut packet);
    sums::repair_upper(&mut packet, at, protocol, 2);
    packet
}
