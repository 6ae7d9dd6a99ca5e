//! Properties of rewriting that hold for every packet: IPv4 and IPv6, with any options in any order.
//!
//! etherparse is the second opinion: it computes checksums in full and parses headers on its own.

use baton::flow::{Endpoint, FlowKey};
use baton::rewrite::{
    Flags, Leg, Local, Segment, SegmentSpec, Seq, SeqShift, Shifts, Timestamp, TimestampShift, ToClientLocal, ToClientWire,
    ToServerLocal, ToServerWire, WindowRescale, WindowScale, Wire, checksum::Change, icmp,
};
use etherparse::{IpSlice, Ipv4Header, TcpSlice};
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::IpAddr;

/// A well-formed packet, taken apart.
#[derive(Clone, Debug)]
struct Packet {
    source: Endpoint,
    destination: Endpoint,
    /// 32-bit words of IPv4 options, or destination-option headers of IPv6.
    ip_padding: usize,
    seq: u32,
    ack: u32,
    /// The 16 bits of data offset (ignored), reserved bits and flags.
    flags: u16,
    window: u16,
    urgent: u16,
    /// Padded to whole words.
    options: Vec<u8>,
    payload: Vec<u8>,
}

impl Packet {
    fn to_bytes(&self) -> Vec<u8> {
        let mut tcp = Vec::new();
        tcp.extend_from_slice(&self.source.port.to_be_bytes());
        tcp.extend_from_slice(&self.destination.port.to_be_bytes());
        tcp.extend_from_slice(&self.seq.to_be_bytes());
        tcp.extend_from_slice(&self.ack.to_be_bytes());
        let words = 5 + (self.options.len() / 4) as u16;
        tcp.extend_from_slice(&(words << 12 | self.flags & 0x0fff).to_be_bytes());
        tcp.extend_from_slice(&self.window.to_be_bytes());
        tcp.extend_from_slice(&[0, 0]);
        tcp.extend_from_slice(&self.urgent.to_be_bytes());
        tcp.extend_from_slice(&self.options);
        tcp.extend_from_slice(&self.payload);

        let checksum = full_tcp_checksum(self.source.address, self.destination.address, &tcp);
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        [self.ip_header(tcp.len()), tcp].concat()
    }

    fn ip_header(&self, tcp_length: usize) -> Vec<u8> {
        match (self.source.address, self.destination.address) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header =
                    Ipv4Header::new(0, 64, etherparse::ip_number::TCP, source.octets(), destination.octets()).unwrap();
                header.options = vec![1; 4 * self.ip_padding].as_slice().try_into().unwrap();
                header.set_payload_len(tcp_length).unwrap();
                header.header_checksum = header.calc_header_checksum();
                header.to_bytes().to_vec()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                const TCP: u8 = 6;
                const DESTINATION_OPTIONS: u8 = 60;
                let mut headers = [DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0].repeat(self.ip_padding);
                let first = if self.ip_padding == 0 { TCP } else { DESTINATION_OPTIONS };
                if let Some(last) = self.ip_padding.checked_sub(1) {
                    headers[8 * last] = TCP;
                }
                // Version, traffic class, flow label.
                let mut header = vec![0x6a, 0x5b, 0x1c, 0x2d];
                header.extend_from_slice(&((headers.len() + tcp_length) as u16).to_be_bytes());
                header.extend_from_slice(&[first, 64]);
                header.extend_from_slice(&source.octets());
                header.extend_from_slice(&destination.octets());
                [header, headers].concat()
            }
            _ => unreachable!("strategies keep to one family"),
        }
    }
}

/// etherparse's checksum over a whole segment, whatever its checksum field holds.
/// What is in front of TCP, without addresses and what depends on them.
fn around_the_addresses(packet: &[u8]) -> Vec<u8> {
    let (before, after) = if packet[0] >> 4 == 4 { (10, 20) } else { (8, 40) };
    let extension = match packet[0] >> 4 {
        4 => usize::from(packet[0] & 15) * 4 - after,
        _ if packet[6] == 6 => 0,
        _ => packet[after..].chunks(8).take_while(|header| header[0] != 6).count() * 8 + 8,
    };
    [&packet[..before], &packet[after..after + extension]].concat()
}

fn full_tcp_checksum(source: IpAddr, destination: IpAddr, tcp: &[u8]) -> u16 {
    let tcp = TcpSlice::from_slice(tcp).unwrap();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => tcp.calc_checksum_ipv4(source.octets(), destination.octets()).unwrap(),
        (IpAddr::V6(source), IpAddr::V6(destination)) => tcp.calc_checksum_ipv6(source.octets(), destination.octets()).unwrap(),
        _ => unreachable!("an IP header has addresses of one family"),
    }
}

/// Asserts that both checksum fields are, to the bit, what a full computation gives.
fn assert_checksums_as_if_computed_anew(packet: &[u8]) {
    let ip = IpSlice::from_slice(packet).unwrap();
    if let Some(ipv4) = ip.ipv4() {
        assert_eq!(ipv4.header().header_checksum(), ipv4.header().to_header().calc_header_checksum());
    }
    let tcp = ip.payload().payload;
    assert_eq!(TcpSlice::from_slice(tcp).unwrap().checksum(), full_tcp_checksum(ip.source_addr(), ip.destination_addr(), tcp));
}

fn endpoint(v6: bool) -> BoxedStrategy<Endpoint> {
    let address =
        if v6 { any::<[u8; 16]>().prop_map(IpAddr::from).boxed() } else { any::<[u8; 4]>().prop_map(IpAddr::from).boxed() };
    (address, any::<u16>()).prop_map(|(address, port)| Endpoint::new(address, port)).boxed()
}

/// One option. Timestamps come apart, so that there is at most one.
fn option() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(vec![1]),
        any::<[u8; 2]>().prop_map(|mss| [&[2, 4][..], &mss].concat()),
        any::<u8>().prop_map(|shift| vec![3, 3, shift]),
        Just(vec![4, 2]),
        (1_usize..=4, any::<[u8; 32]>())
            .prop_map(|(blocks, edges)| [&[5, 2 + 8 * blocks as u8][..], &edges[..8 * blocks]].concat()),
        (prop_oneof![Just(19), Just(30), Just(34), 35_u8..=255], vec(any::<u8>(), 0..12)).prop_map(|(kind, body)| [
            &[kind, 2 + body.len() as u8][..],
            &body
        ]
        .concat()),
    ]
}

/// A list of options in any order, as many as fit, padded to whole words with NOP or END.
fn option_list() -> impl Strategy<Value = Vec<u8>> {
    let timestamps = proptest::option::of(any::<[u8; 8]>());
    (timestamps, vec(option(), 0..8), any::<bool>())
        .prop_flat_map(|(timestamps, mut options, pad_with_end)| {
            options.extend(timestamps.map(|values| [&[8, 10][..], &values].concat()));
            (Just(options).prop_shuffle(), Just(pad_with_end))
        })
        .prop_map(|(options, pad_with_end)| {
            let mut list = Vec::new();
            for option in options {
                if list.len() + option.len() <= 40 {
                    list.extend(option);
                }
            }
            list.resize(list.len().next_multiple_of(4), u8::from(!pad_with_end));
            list
        })
}

fn packet_of(v6: bool) -> impl Strategy<Value = Packet> {
    let ends = (endpoint(v6), endpoint(v6), 0_usize..=4);
    let numbers = any::<(u32, u32, u16, u16)>();
    (ends, numbers, option_list(), vec(any::<u8>(), 0..64), any::<bool>()).prop_map(
        |((source, destination, ip_padding), numbers, options, payload, zero_checksum)| {
            let (seq, ack, flags, window) = numbers;
            let mut packet = Packet { source, destination, ip_padding, seq, ack, flags, window, urgent: 0, options, payload };
            if zero_checksum {
                // Adding the checksum to what it covers makes the sum all ones and the field 0x0000.
                let bytes = packet.to_bytes();
                let ip = IpSlice::from_slice(&bytes).unwrap();
                packet.urgent = TcpSlice::from_slice(ip.payload().payload).unwrap().checksum();
            }
            packet
        },
    )
}

fn packet() -> impl Strategy<Value = Packet> {
    any::<bool>().prop_flat_map(packet_of)
}

/// One call of a setter.
#[derive(Clone, Debug)]
enum Edit {
    Source(Endpoint),
    Destination(Endpoint),
    Seq(u32),
    Ack(u32),
    Window(u16),
    Flags(u8),
    ClearAccurateEcn,
    ClampMss(u16),
    Timestamps(u32, u32),
    Blank(u8),
    MapSack(u32),
}

impl Edit {
    fn apply(&self, segment: &mut Segment<Vec<u8>, ToServerWire>) {
        match *self {
            Self::Source(to) => segment.set_source(to),
            Self::Destination(to) => segment.set_destination(to),
            Self::Seq(to) => segment.set_seq(Seq::new(to)),
            Self::Ack(to) => segment.set_ack(Seq::new(to)),
            Self::Window(to) => segment.set_window(to),
            Self::Flags(to) => segment.set_flags(Flags(to)),
            Self::ClearAccurateEcn => segment.clear_accurate_ecn(),
            Self::ClampMss(limit) => segment.clamp_mss(limit),
            Self::Timestamps(tsval, tsecr) => {
                segment.set_timestamps(Timestamp::new(tsval), Timestamp::new(tsecr));
            }
            Self::Blank(kind) => {
                segment.blank_option(kind);
            }
            Self::MapSack(by) => segment.map_sack(|edge| edge.plus(by)),
        }
    }

    fn assert_reads_back(&self, segment: &Segment<Vec<u8>, ToServerWire>) {
        match *self {
            Self::Source(to) => assert_eq!(segment.source(), to),
            Self::Destination(to) => assert_eq!(segment.destination(), to),
            Self::Seq(to) => assert_eq!(segment.seq().raw(), to),
            Self::Ack(to) => assert_eq!(segment.ack().raw(), to),
            Self::Window(to) => assert_eq!(segment.window(), to),
            Self::Flags(to) => assert_eq!(segment.flags(), Flags(to)),
            Self::ClearAccurateEcn => assert!(!segment.accurate_ecn()),
            Self::ClampMss(limit) => assert!(segment.mss().is_none_or(|mss| mss <= limit)),
            Self::Timestamps(tsval, tsecr) => {
                if let Some(pair) = segment.timestamps() {
                    assert_eq!(pair, (Timestamp::new(tsval), Timestamp::new(tsecr)));
                }
            }
            Self::Blank(kind) => assert!(!segment.has_option(kind)),
            Self::MapSack(_) => {}
        }
    }
}

fn edit(v6: bool) -> impl Strategy<Value = Edit> {
    prop_oneof![
        endpoint(v6).prop_map(Edit::Source),
        endpoint(v6).prop_map(Edit::Destination),
        any::<u32>().prop_map(Edit::Seq),
        any::<u32>().prop_map(Edit::Ack),
        any::<u16>().prop_map(Edit::Window),
        any::<u8>().prop_map(Edit::Flags),
        Just(Edit::ClearAccurateEcn),
        any::<u16>().prop_map(Edit::ClampMss),
        any::<(u32, u32)>().prop_map(|(tsval, tsecr)| Edit::Timestamps(tsval, tsecr)),
        prop_oneof![2_u8..=8, Just(30), Just(34), any::<u8>()].prop_map(Edit::Blank),
        any::<u32>().prop_map(Edit::MapSack),
    ]
}

fn shifts(v6: bool) -> impl Strategy<Value = Shifts> {
    let numbers = any::<(u32, u32, u32, u32)>();
    (endpoint(v6), endpoint(v6), numbers, 0_u8..=14, 0_u8..=14).prop_map(
        |(frontend, alias, (wire, local, wire_clock, local_clock), kernel, promised)| Shifts {
            frontend,
            alias,
            seq: SeqShift::between(Seq::new(wire), Seq::new(local)),
            timestamps: Some(TimestampShift::between(Timestamp::new(wire_clock), Timestamp::new(local_clock))),
            window: WindowRescale { kernel: WindowScale::new(kernel), promised: WindowScale::new(promised), mss: 1460 },
        },
    )
}

/// The shifts that undo `shifts`, scales being equal.
fn undoing(shifts: &Shifts) -> Shifts {
    let origin = (Seq::<Wire>::new(0), Timestamp::<Wire>::new(0));
    let seq = Seq::new(shifts.seq.to_local(origin.0).raw());
    let clock = shifts.timestamps.map(|shift| Timestamp::new(shift.to_local(origin.1).raw()));
    Shifts {
        frontend: shifts.alias,
        alias: shifts.frontend,
        seq: SeqShift::between(seq, Seq::<Local>::new(0)),
        timestamps: clock.map(|clock| TimestampShift::between(clock, Timestamp::<Local>::new(0))),
        window: shifts.window,
    }
}

/// The TCP segment with everything blanked that translation may change in either direction: ports, numbers, window, checksum,
/// and what stands in SACK and timestamp options.
fn what_must_stay<L: Leg>(segment: &Segment<Vec<u8>, L>) -> Vec<u8> {
    let ip = IpSlice::from_slice(segment.packet()).unwrap();
    let mut tcp = ip.payload().payload.to_vec();
    for field in [0..12, 14..18] {
        tcp[field].fill(0);
    }
    let (mut at, end) = (20, 4 * usize::from(tcp[12] >> 4));
    while at < end && tcp[at] != 0 {
        let length = if tcp[at] == 1 { 1 } else { usize::from(tcp[at + 1]) };
        if matches!(tcp[at], 5 | 8) {
            tcp[at + 2..at + length].fill(0);
        }
        at += length;
    }
    tcp
}

/// Runs everything that reads or writes a segment; only a panic matters.
fn exercise(bytes: &[u8], shifts: &Shifts, edits: &[Edit]) {
    let mut error = bytes.to_vec();
    let _: Result<FlowKey, _> = icmp::quoted_flow(&error);
    let _ = icmp::translate_quoted(&mut error, shifts);

    let Ok(segment) = Segment::<_, ToServerWire>::parse(bytes.to_vec()) else {
        return;
    };
    let _ = (segment.to_string(), segment.checksums_are_right(), segment.seq_end());
    let same_family = segment.source().address.is_ipv4() == shifts.alias.address.is_ipv4();
    if same_family {
        let _ = shifts.to_server(segment.clone());
        let _ = shifts.to_client(segment.clone().reinterpret());
        let mut segment = segment;
        for edit in edits {
            edit.apply(&mut segment);
            let _ = segment.to_string();
        }
    }
}

/// The numbers of `docs/rewriting.md`.
#[test]
fn the_round_trip_in_the_documentation_is_exact() {
    let client = Endpoint::new([192, 0, 2, 7].into(), 40_000);
    let shifts = Shifts {
        frontend: Endpoint::new([198, 51, 100, 1].into(), 80),
        alias: Endpoint::new([198, 18, 0, 1].into(), 8080),
        seq: SeqShift::between(Seq::new(3_000_000_000), Seq::new(500)),
        timestamps: Some(TimestampShift::between(Timestamp::new(70_000), Timestamp::new(4_294_967_000))),
        window: WindowRescale { kernel: WindowScale::new(10), promised: WindowScale::new(7), mss: 1460 },
    };

    let sent = SegmentSpec::<ToClientLocal> {
        source: shifts.alias,
        destination: client,
        seq: Seq::new(501),
        ack: Seq::new(1_101),
        flags: Flags::ACK,
        window: 63,
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: Some((Timestamp::new(4_294_967_040), Timestamp::new(12_345))),
        traffic_class: 0,
        payload: &[b'x'; 1_448],
    };
    assert_eq!(
        shifts.to_client(sent.build()).to_string(),
        "198.51.100.1:80 > 192.0.2.7:40000 [.] seq 3000000001:3000001449 ack 1101 win 504 \
         TS val 70040 ecr 12345 length 1448"
    );

    let timestamps = [&[8, 10][..], &12_360_u32.to_be_bytes(), &70_040_u32.to_be_bytes()].concat();
    let left = 3_000_002_897_u32.to_be_bytes();
    let right = 3_000_004_345_u32.to_be_bytes();
    let answer = Packet {
        source: client,
        destination: shifts.frontend,
        ip_padding: 0,
        seq: 1_101,
        ack: 3_000_001_449,
        flags: 0x10,
        window: 501,
        urgent: 0,
        options: [&[1, 1][..], &timestamps, &[1, 1, 5, 10], &left, &right].concat(),
        payload: Vec::new(),
    };
    let answer = Segment::parse(answer.to_bytes()).unwrap();
    assert_eq!(
        shifts.to_server(answer).to_string(),
        "192.0.2.7:40000 > 198.18.0.1:8080 [.] seq 1101 ack 1949 win 501 \
         TS val 12360 ecr 4294967040 sack {3397:4845} length 0"
    );

    let change = Change::at(4, 501_u32.to_be_bytes(), 3_000_000_001_u32.to_be_bytes());
    assert_eq!(change.apply(0x1c46), 0x0d69);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn etherparse_reads_the_same(packet in packet()) {
        let bytes = packet.to_bytes();
        assert_checksums_as_if_computed_anew(&bytes);
        let segment = Segment::<_, ToServerWire>::parse(&bytes[..]).unwrap();
        let ip = IpSlice::from_slice(&bytes).unwrap();
        let tcp = TcpSlice::from_slice(ip.payload().payload).unwrap();
        prop_assert_eq!(segment.source(), Endpoint::new(ip.source_addr(), tcp.source_port()));
        prop_assert_eq!(segment.destination(), Endpoint::new(ip.destination_addr(), tcp.destination_port()));
        prop_assert_eq!(segment.seq().raw(), tcp.sequence_number());
        prop_assert_eq!(segment.ack().raw(), tcp.acknowledgment_number());
        prop_assert_eq!(segment.window(), tcp.window_size());
        prop_assert_eq!(segment.flags().contains(Flags::SYN), tcp.syn());
        prop_assert_eq!(segment.flags().contains(Flags::CWR), tcp.cwr());
        prop_assert_eq!(segment.accurate_ecn(), tcp.ns());
        prop_assert_eq!(segment.payload(), tcp.payload());
        prop_assert!(segment.checksums_are_right());
    }

    #[test]
    fn every_setter_leaves_the_checksums_a_full_computation_gives(
        (packet, edits) in any::<bool>().prop_flat_map(|v6| (packet_of(v6), vec(edit(v6), 1..8)))
    ) {
        let mut segment = Segment::parse(packet.to_bytes()).unwrap();
        for edit in edits {
            edit.apply(&mut segment);
            edit.assert_reads_back(&segment);
            assert_checksums_as_if_computed_anew(segment.packet());
            prop_assert!(segment.checksums_are_right());
            prop_assert_eq!(segment.payload(), &packet.payload[..]);
        }
        // What was kept about the packet is still what one would find now.
        let anew = Segment::<_, ToServerWire>::parse(segment.packet()).unwrap();
        prop_assert_eq!(anew.timestamps(), segment.timestamps());
        prop_assert_eq!(anew.sack_blocks().collect::<Vec<_>>(), segment.sack_blocks().collect::<Vec<_>>());
    }

    #[test]
    fn a_corrupt_segment_is_never_made_sound(
        (packet, edits, at, flip) in any::<bool>().prop_flat_map(|v6| {
            (packet_of(v6), vec(edit(v6), 1..8), any::<prop::sample::Index>(), 1_u8..=255)
        })
    ) {
        prop_assume!(!packet.payload.is_empty());
        let mut bytes = packet.to_bytes();
        let start = bytes.len() - packet.payload.len();
        bytes[start + at.index(packet.payload.len())] ^= flip;
        let mut segment = Segment::parse(bytes).unwrap();
        // One octet differs, so the sums differ: 0xff00 and 0x00ff are no multiples of 0xffff.
        for edit in edits {
            edit.apply(&mut segment);
            prop_assert!(!segment.checksums_are_right());
        }
    }

    #[test]
    fn translating_moves_every_number_and_nothing_else(
        (packet, shifts) in any::<bool>().prop_flat_map(|v6| (packet_of(v6), shifts(v6)))
    ) {
        let local = Segment::<_, ToClientLocal>::parse(packet.to_bytes()).unwrap();
        let wire = shifts.to_client(local.clone());
        assert_checksums_as_if_computed_anew(wire.packet());
        prop_assert_eq!(around_the_addresses(wire.packet()), around_the_addresses(local.packet()));
        prop_assert_eq!(wire.source(), shifts.frontend);
        prop_assert_eq!(wire.destination(), local.destination());
        prop_assert_eq!(wire.seq(), shifts.seq.to_wire(local.seq()));
        prop_assert_eq!(wire.ack(), local.ack());
        prop_assert_eq!(what_must_stay(&wire), what_must_stay(&local));
        prop_assert_eq!(wire.sack_blocks().collect::<Vec<_>>(), local.sack_blocks().collect::<Vec<_>>());

        let wire = Segment::<_, ToServerWire>::parse(packet.to_bytes()).unwrap();
        let local = shifts.to_server(wire.clone());
        assert_checksums_as_if_computed_anew(local.packet());
        prop_assert_eq!(around_the_addresses(local.packet()), around_the_addresses(wire.packet()));
        prop_assert_eq!(local.source(), wire.source());
        prop_assert_eq!(local.destination(), shifts.alias);
        prop_assert_eq!(local.seq(), wire.seq());
        prop_assert_eq!(local.window(), wire.window());
        prop_assert_eq!(what_must_stay(&local), what_must_stay(&wire));
        prop_assert_eq!(local.timestamps().map(|pair| pair.0), wire.timestamps().map(|pair| pair.0));
        if wire.flags().contains(Flags::ACK) {
            prop_assert_eq!(local.ack(), shifts.seq.to_local(wire.ack()));
            for (before, after) in wire.sack_blocks().zip(local.sack_blocks()) {
                prop_assert_eq!(after.0, shifts.seq.to_local(before.0));
                prop_assert_eq!(after.1, shifts.seq.to_local(before.1));
            }
        } else {
            prop_assert_eq!(local.ack().raw(), wire.ack().raw());
        }
    }

    #[test]
    fn what_is_translated_and_back_is_the_same_to_the_bit(
        (mut packet, mut shifts) in any::<bool>().prop_flat_map(|v6| (packet_of(v6), shifts(v6)))
    ) {
        shifts.window.promised = shifts.window.kernel;
        let back = undoing(&shifts);

        packet.source = shifts.alias;
        let local = Segment::<_, ToClientLocal>::parse(packet.to_bytes()).unwrap();
        let there = shifts.to_client(local);
        let and_back = back.to_client(there.reinterpret());
        prop_assert_eq!(and_back.packet(), packet.to_bytes());

        packet.destination = shifts.frontend;
        let wire = Segment::<_, ToServerWire>::parse(packet.to_bytes()).unwrap();
        let tsecr = wire.timestamps().map(|pair| pair.1);
        let there = shifts.to_server(wire);
        // An echo that becomes zero is no echo any more and does not come back.
        prop_assume!(tsecr.is_none_or(|tsecr| tsecr.raw() == 0) || there.timestamps().unwrap().1.raw() != 0);
        let and_back = back.to_server(there.reinterpret());
        prop_assert_eq!(and_back.packet(), packet.to_bytes());
    }

    #[test]
    fn what_the_client_acknowledges_is_what_the_kernel_sent(
        (mut packet, shifts) in any::<bool>().prop_flat_map(|v6| (packet_of(v6), shifts(v6)))
    ) {
        packet.source = shifts.alias;
        let sent = Segment::<_, ToClientLocal>::parse(packet.to_bytes()).unwrap();
        let received: Segment<_, ToClientWire> = shifts.to_client(sent.clone());
        let answer = SegmentSpec::<ToServerWire> {
            source: received.destination(),
            destination: received.source(),
            seq: received.ack(),
            ack: received.seq_end(),
            flags: Flags::ACK,
            window: 502,
            mss: None,
            window_scale: None,
            sack_permitted: false,
            timestamps: received.timestamps().map(|(tsval, tsecr)| (tsecr, tsval)),
            traffic_class: 0,
            payload: &[],
        };
        let acknowledged: Segment<_, ToServerLocal> = shifts.to_server(answer.build());
        prop_assert_eq!(acknowledged.destination(), shifts.alias);
        prop_assert_eq!(acknowledged.ack(), sent.seq_end());
        prop_assert_eq!(acknowledged.seq(), sent.ack());
        if let (Some(echo), Some(sent), Some(wire)) =
            (acknowledged.timestamps(), sent.timestamps(), received.timestamps())
        {
            prop_assert!(echo.1 == sent.0 || wire.0.raw() == 0);
        }
    }

    #[test]
    fn built_segments_read_back_and_etherparse_agrees(
        (source, destination) in any::<bool>().prop_flat_map(|v6| (endpoint(v6), endpoint(v6))),
        (seq, ack, flags, window, traffic_class) in any::<(u32, u32, u8, u16, u8)>(),
        (mss, scale, sack_permitted, timestamps)
            in any::<(Option<u16>, Option<u8>, bool, Option<(u32, u32)>)>(),
        payload in vec(any::<u8>(), 0..64),
    ) {
        let spec = SegmentSpec::<ToServerLocal> {
            source,
            destination,
            seq: Seq::new(seq),
            ack: Seq::new(ack),
            flags: Flags(flags),
            window,
            mss,
            window_scale: scale.map(WindowScale::new),
            sack_permitted,
            timestamps: timestamps.map(|(tsval, tsecr)| (Timestamp::new(tsval), Timestamp::new(tsecr))),
            traffic_class,
            payload: &payload,
        };
        let built = spec.build();
        assert_checksums_as_if_computed_anew(built.packet());
        let anew = Segment::<_, ToServerLocal>::parse(built.packet()).unwrap();
        prop_assert_eq!((anew.source(), anew.destination()), (source, destination));
        prop_assert_eq!((anew.seq(), anew.flags(), anew.window()), (spec.seq, spec.flags, window));
        let ack = if anew.flags().contains(Flags::ACK) { ack } else { 0 };
        prop_assert_eq!(anew.ack().raw(), ack);
        prop_assert_eq!((anew.mss(), anew.window_scale()), (mss, spec.window_scale));
        prop_assert_eq!((anew.sack_permitted(), anew.timestamps()), (sack_permitted, spec.timestamps));
        prop_assert_eq!((anew.traffic_class(), anew.payload()), (traffic_class, &payload[..]));

        let ip = IpSlice::from_slice(built.packet()).unwrap();
        let tcp = TcpSlice::from_slice(ip.payload().payload).unwrap();
        prop_assert!(tcp.options_iterator().all(|option| option.is_ok()));
    }

    #[test]
    fn no_bytes_panic(
        bytes in vec(any::<u8>(), 0..128),
        version in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()],
        protocol in prop_oneof![Just(1_u8), Just(6), Just(58), Just(44), Just(60), any::<u8>()],
        (shifts, edits) in any::<bool>().prop_flat_map(|v6| (shifts(v6), vec(edit(v6), 0..4))),
    ) {
        let mut bytes = bytes;
        for (at, octet) in [(0, version), (6, protocol), (9, protocol), (2, 0), (4, 0)] {
            if let Some(place) = bytes.get_mut(at) {
                *place = octet;
            }
        }
        let edits: Vec<_> = edits;
        exercise(&bytes, &shifts, &edits);
    }

    #[test]
    fn no_damaged_packet_panics(
        (packet, shifts, edits) in any::<bool>()
            .prop_flat_map(|v6| (packet_of(v6), shifts(v6), vec(edit(v6), 0..6))),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        keep in any::<prop::sample::Index>(),
        whole in any::<bool>(),
        quoted in any::<bool>(),
    ) {
        let mut bytes = packet.to_bytes();
        if quoted {
            bytes = error_quoting(&packet, &bytes);
        }
        for (at, octet) in damage {
            let at = at.index(bytes.len());
            bytes[at] = octet;
        }
        if !whole {
            bytes.truncate(keep.index(bytes.len()));
        }
        let v6 = bytes.first().is_some_and(|octet| octet >> 4 == 6);
        let edits = if v6 == packet.source.address.is_ipv6() { edits } else { Vec::new() };
        exercise(&bytes, &shifts, &edits);
    }

    #[test]
    fn an_error_about_a_translated_packet_becomes_one_about_the_kernels_own(
        (mut packet, shifts) in any::<bool>().prop_flat_map(|v6| (packet_of(v6), shifts(v6))),
        keep in any::<prop::sample::Index>(),
    ) {
        packet.source = shifts.alias;
        packet.options.clear();
        let local = Segment::<_, ToClientLocal>::parse(packet.to_bytes()).unwrap();
        let wire = Shifts { timestamps: None, ..shifts }.to_client(local.clone());
        let headers = wire.packet().len() - packet.payload.len() - 20;
        let kept = headers + 8 + keep.index(wire.packet().len() - headers - 7);

        let on_the_wire = Packet { source: shifts.frontend, ..packet.clone() };
        let mut error = error_quoting(&on_the_wire, &wire.packet()[..kept]);
        prop_assert_eq!(
            icmp::quoted_flow(&error),
            Ok(FlowKey { client: packet.destination, frontend: shifts.frontend })
        );
        icmp::translate_quoted(&mut error, &shifts).unwrap();
        let quote = &error[error.len() - kept..];
        prop_assert_eq!(&quote[..headers + 8], &local.packet()[..headers + 8]);

        // The window stays as the client saw it; so the quoted sum is checked over what is quoted.
        if kept == wire.packet().len() {
            assert_checksums_as_if_computed_anew(quote);
        }
        let again = error_quoting(&packet, quote);
        prop_assert_eq!(error, again);
    }
}

/// An ICMP error to the source of `packet`, quoting `quote`; checksums computed in full.
fn error_quoting(packet: &Packet, quote: &[u8]) -> Vec<u8> {
    use etherparse::{Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, Ipv6Header};
    match packet.source.address {
        IpAddr::V4(to) => {
            let kind = Icmpv4Type::Unknown { type_u8: 3, code_u8: 4, bytes5to8: [0, 0, 5, 120] };
            let message = [&Icmpv4Header::with_checksum(kind, quote).to_bytes()[..], quote].concat();
            let mut ip =
                Ipv4Header::new(message.len() as u16, 64, etherparse::ip_number::ICMP, [203, 0, 113, 1], to.octets()).unwrap();
            ip.header_checksum = ip.calc_header_checksum();
            [&ip.to_bytes()[..], &message].concat()
        }
        IpAddr::V6(to) => {
            let router = [0x20; 16];
            let kind = Icmpv6Type::PacketTooBig { mtu: 1400 };
            let icmp = Icmpv6Header::with_checksum(kind, router, to.octets(), quote).unwrap();
            let message = [&icmp.to_bytes()[..], quote].concat();
            let ip = Ipv6Header {
                payload_length: message.len() as u16,
                next_header: etherparse::ip_number::IPV6_ICMP,
                hop_limit: 64,
                source: router,
                destination: to.octets(),
                ..Ipv6Header::default()
            };
            [&ip.to_bytes()[..], &message].concat()
        }
    }
}
