//! The checksum field itself, computed from scratch: a wrong one goes unnoticed where a kernel trusts it.

use super::*;
use crate::flow::Endpoint;
use crate::rewrite::fixtures::{client, client_v6, server, server_v6, spec};
use crate::rewrite::{
    Leg, Segment, SegmentSpec, Seq, SeqShift, Shifts, Timestamp, TimestampShift, ToClientLocal, ToServerWire, WindowRescale,
    WindowScale,
};
use etherparse::{IpSlice, TcpSlice};
use proptest::prelude::*;
use std::net::IpAddr;

/// The sum over the pseudo-header, folded, not inverted: in the plainest way there is.
fn pseudo_header_sum(packet: &[u8]) -> u16 {
    let (addresses, tcp_bytes) = match packet[0] >> 4 {
        4 => (&packet[12..20], packet.len() - 20),
        _ => (&packet[8..40], packet.len() - 40),
    };
    let words = addresses.chunks(2).map(|word| u64::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum = words.sum::<u64>() + 6 + tcp_bytes as u64;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn tcp_at(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 20 } else { 40 }
}

fn field_of(packet: &[u8]) -> u16 {
    u16_at(packet, tcp_at(packet) + field::CHECKSUM)
}

/// What etherparse thinks the whole checksum is.
fn full_checksum(packet: &[u8]) -> u16 {
    let tcp = TcpSlice::from_slice(&packet[tcp_at(packet)..]).unwrap();
    match IpSlice::from_slice(packet).unwrap() {
        IpSlice::Ipv4(ip) => tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()).unwrap(),
        IpSlice::Ipv6(ip) => tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()).unwrap(),
    }
}

/// As a kernel leaves it to a device.
fn left_to_device(mut packet: Vec<u8>) -> (Vec<u8>, Offload) {
    let at = tcp_at(&packet);
    let sum = pseudo_header_sum(&packet);
    packet[at + field::CHECKSUM..at + field::CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    (packet, Offload { partial_checksum: Some(at as u16), ..Offload::NONE })
}

fn partial<L: Leg>(spec: &SegmentSpec<'_, L>) -> Segment<Vec<u8>, L> {
    let (packet, offload) = left_to_device(spec.build().into_inner());
    Segment::parse_offloaded(packet, offload).unwrap()
}

/// The field is the pseudo-header's sum, and what a device makes of it is right.
fn assert_field_is_right<L: Leg>(segment: &Segment<Vec<u8>, L>) {
    assert_eq!(field_of(segment.packet()), pseudo_header_sum(segment.packet()));
    let completed = segment.completed();
    assert_eq!(field_of(&completed), full_checksum(&completed));
    assert!(segment.checksums_are_right());
}

fn alias(v6: bool) -> Endpoint {
    if v6 { Endpoint::new([0xfd00, 0xba70, 0, 0, 0, 0, 0, 9].into(), 8080) } else { Endpoint::new([198, 18, 0, 9].into(), 8080) }
}

fn ends(v6: bool) -> (Endpoint, Endpoint) {
    if v6 { (client_v6(), server_v6()) } else { (client(), server()) }
}

#[test]
fn the_field_that_a_kernel_writes_is_reproduced() {
    // 192.0.2.7 > 198.51.100.1, protocol 6, 25 octets: c000 + 0207 + c633 + 6401 + 0006 + 0019 = 1ec5a, folded ec5b.
    let segment = partial(&spec::<ToServerWire>(client(), server()));
    assert_eq!(field_of(segment.packet()), 0xec5b);
    assert_field_is_right(&segment);
}

#[test]
fn nothing_in_the_segment_touches_the_field() {
    for v6 in [false, true] {
        let (client, server) = ends(v6);
        let with_options = SegmentSpec {
            flags: Flags::SYN.with(Flags::ACK),
            mss: Some(1_460),
            window_scale: Some(WindowScale::new(7)),
            sack_permitted: true,
            timestamps: Some((Timestamp::new(1), Timestamp::new(2))),
            ..spec::<ToServerWire>(client, server)
        };
        let mut segment = partial(&with_options);
        let before = field_of(segment.packet());
        segment.set_seq(Seq::new(0xdead_beef));
        segment.set_ack(Seq::new(7));
        segment.set_window(9);
        segment.set_flags(Flags::ACK.with(Flags::PSH));
        segment.clamp_mss(536);
        segment.set_timestamps(Timestamp::new(77), Timestamp::new(0xffff_fff0));
        segment.blank_option(3);
        segment.set_source(Endpoint { port: 1, ..client });
        segment.set_destination(Endpoint { port: 2, ..server });
        assert_eq!(field_of(segment.packet()), before);
        assert_field_is_right(&segment);
    }
}

#[test]
fn a_partial_sack_is_shifted_without_touching_the_field() {
    let (packet, offload) = left_to_device(crate::rewrite::fixtures::with_options(&[
        1, 1, 5, 18, 0, 0, 0, 101, 0, 0, 0, 111, 0, 0, 1, 1, 0, 0, 1, 2,
    ]));
    let mut segment = Segment::<_, ToServerWire>::parse_offloaded(packet, offload).unwrap();
    let before = field_of(segment.packet());
    segment.map_sack(|edge| edge.plus(12_345));
    assert_eq!(field_of(segment.packet()), before);
    assert_field_is_right(&segment);
}

#[test]
fn a_wrong_partial_checksum_stays_wrong() {
    let (mut packet, offload) = left_to_device(spec::<ToServerWire>(client(), server()).build().into_inner());
    packet[36] ^= 0x10;
    let mut segment = Segment::<_, ToServerWire>::parse_offloaded(packet, offload).unwrap();
    segment.set_destination(alias(false));
    let completed = segment.completed();
    assert_ne!(field_of(&completed), full_checksum(&completed));
    let complete = Segment::<_, ToServerWire>::parse(completed).unwrap();
    assert!(!complete.checksums_are_right());
}

#[test]
fn what_does_not_fit_the_packet_is_refused() {
    let (packet, _) = left_to_device(spec::<ToServerWire>(client(), server()).build().into_inner());
    let elsewhere = Offload { partial_checksum: Some(24), ..Offload::NONE };
    assert_eq!(Segment::<_, ToServerWire>::parse_offloaded(packet.as_slice(), elsewhere).unwrap_err(), Malformed::Offload);
    assert_eq!(Pieces::of(&packet, &elsewhere, usize::MAX).unwrap_err(), Malformed::Offload);

    let syn = SegmentSpec { flags: Flags::SYN, ..spec::<ToServerWire>(client(), server()) }.build().into_inner();
    let cut = |bytes| Offload { segment_bytes: NonZeroU16::new(bytes), ..Offload::NONE };
    assert_eq!(Segment::<_, ToServerWire>::parse_offloaded(syn.as_slice(), cut(2)).unwrap_err(), Malformed::Offload);
    assert!(Segment::<_, ToServerWire>::parse_offloaded(syn.as_slice(), cut(5)).is_ok(), "nothing to cut");
}

#[test]
fn flags_and_identification_of_pieces_are_as_the_kernel_has_them() {
    let all = Flags::ACK.with(Flags::PSH).with(Flags::FIN).with(Flags::CWR).with(Flags::ECE);
    let mut packet =
        SegmentSpec { flags: all, payload: b"0123456789", ..spec::<ToServerWire>(client(), server()) }.build().into_inner();
    packet[4..6].copy_from_slice(&[0xff, 0xff]);
    let (packet, offload) = left_to_device(packet);
    let offload = Offload { segment_bytes: NonZeroU16::new(4), ecn: true, ..offload };
    let mut pieces = Pieces::of(&packet, &offload, usize::MAX).unwrap();
    let mut told = Vec::new();
    let mut out = [0; 100];
    while let Some(length) = pieces.write_next(&mut out) {
        let piece = Segment::<_, ToServerWire>::parse(&out[..length]).unwrap();
        assert!(piece.checksums_are_right());
        told.push((u16_at(&out, 4), piece.seq().raw(), piece.flags().to_string(), piece.payload().to_vec()));
    }
    let piece = |identification, seq, flags: &str, payload: &[u8]| (identification, seq, flags.to_owned(), payload.to_vec());
    assert_eq!(told, [piece(0xffff, 1_000, "EW.", b"0123"), piece(0, 1_004, "E.", b"4567"), piece(1, 1_008, "FPE.", b"89")]);
}

#[test]
fn a_piece_without_room_is_not_written() {
    let packet = spec::<ToServerWire>(client(), server()).build().into_inner();
    let mut pieces = Pieces::of(&packet, &Offload::NONE, usize::MAX).unwrap();
    assert_eq!(pieces.write_next(&mut [0; 44]), None);
    assert_eq!(pieces.write_next(&mut [0; 45]), Some(45));
    assert_eq!(pieces.write_next(&mut [0; 45]), None);
}

#[test]
fn what_is_no_super_segment_stays_in_one_piece_as_it_is() {
    for mut packet in [
        spec::<ToServerWire>(client(), server()).build().into_inner(),
        spec::<ToServerWire>(client_v6(), server_v6()).build().into_inner(),
    ] {
        // Right or wrong.
        *packet.last_mut().unwrap() ^= 1;
        let mut out = vec![0; packet.len()];
        assert_eq!(Pieces::of(&packet, &Offload::NONE, 10).unwrap().write_next(&mut out), Some(packet.len()));
        assert_eq!(out, packet);
    }
}

fn shifts(v6: bool, seq: u32, timestamps: u32, scales: (u8, u8)) -> Shifts {
    Shifts {
        frontend: ends(v6).1,
        alias: alias(v6),
        seq: SeqShift::between(Seq::new(seq), Seq::new(7)),
        timestamps: Some(TimestampShift::between(Timestamp::new(timestamps), Timestamp::new(9))),
        window: WindowRescale { kernel: WindowScale::new(scales.0), promised: WindowScale::new(scales.1), mss: 1_460 },
    }
}

proptest! {
    #[test]
    fn a_translated_partial_checksum_is_that_of_the_translated_packet(
        v6: bool, low: u16, port: u16, seq: u32, ack: u32, window: u16, flags in 0_u8..64, tsval: u32, tsecr: u32,
        shift: u32, clock: u32, scales in (0_u8..15, 0_u8..15), payload in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let (mut client, frontend) = ends(v6);
        client.port = port;
        client.address = match client.address {
            IpAddr::V4(address) => IpAddr::V4((u32::from(address) & 0xffff_0000 | u32::from(low)).into()),
            IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !0xffff | u128::from(low)).into()),
        };
        let shifts = shifts(v6, shift, clock, scales);
        let spec = SegmentSpec::<ToClientLocal> {
            source: shifts.alias, destination: client, seq: Seq::new(seq), ack: Seq::new(ack), flags: Flags(flags), window,
            mss: None, window_scale: None, sack_permitted: false, traffic_class: 0, payload: &payload,
            timestamps: Some((Timestamp::new(tsval), Timestamp::new(tsecr))),
        };
        let translated = shifts.to_client(partial(&spec));
        assert_field_is_right(&translated);
        // The same as if the checksum had been complete all the way.
        let complete = shifts.to_client(spec.build());
        prop_assert_eq!(translated.completed(), complete.into_inner());

        let spec = SegmentSpec::<ToServerWire> {
            source: client, destination: frontend, seq: Seq::new(seq), ack: Seq::new(ack), flags: Flags(flags), window,
            mss: None, window_scale: None, sack_permitted: false, traffic_class: 0, payload: &payload,
            timestamps: Some((Timestamp::new(tsval), Timestamp::new(tsecr))),
        };
        let translated = shifts.to_server(partial(&spec));
        assert_field_is_right(&translated);
        let complete = shifts.to_server(spec.build());
        prop_assert_eq!(translated.completed(), complete.into_inner());
    }

    #[test]
    fn pieces_are_the_super_segment_in_segments_with_right_checksums(
        v6: bool, is_partial: bool, seq: u32, segment_bytes in 1_u16..2_000, most in 60_usize..3_000,
        payload in proptest::collection::vec(any::<u8>(), 1..5_000),
    ) {
        let (client, server) = ends(v6);
        let spec = SegmentSpec {
            seq: Seq::new(seq), flags: Flags::ACK.with(Flags::FIN), payload: &payload,
            timestamps: Some((Timestamp::new(1), Timestamp::new(2))),
            ..spec::<ToServerWire>(client, server)
        };
        let (packet, offload) = match is_partial {
            true => left_to_device(spec.build().into_inner()),
            false => (spec.build().into_inner(), Offload::NONE),
        };
        let offload = Offload { segment_bytes: NonZeroU16::new(segment_bytes), ..offload };
        let mut pieces = Pieces::of(&packet, &offload, most).unwrap();
        let (mut out, mut together, mut fins) = (vec![0; 6_000], Vec::new(), 0);
        while let Some(length) = pieces.write_next(&mut out) {
            let piece = Segment::<_, ToServerWire>::parse(&out[..length]).unwrap();
            prop_assert_eq!(piece.packet().len(), length);
            prop_assert_eq!(field_of(piece.packet()), full_checksum(piece.packet()));
            prop_assert!(piece.checksums_are_right());
            prop_assert_eq!(piece.seq(), Seq::new(seq).plus(together.len() as u32));
            prop_assert_eq!((piece.source(), piece.destination(), piece.ack()), (client, server, Seq::new(5_000)));
            prop_assert_eq!(piece.timestamps(), spec.timestamps);
            prop_assert!(length <= most.max(packet.len() - payload.len() + 1));
            prop_assert!(!piece.payload().is_empty() && piece.payload().len() <= usize::from(segment_bytes));
            fins += usize::from(piece.flags().contains(Flags::FIN));
            together.extend_from_slice(piece.payload());
        }
        prop_assert_eq!(&together, &payload);
        prop_assert_eq!(fins, 1);
    }

    #[test]
    fn no_octets_and_no_offload_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), start: u16, cut: u16, ecn: bool) {
        let offload = Offload { partial_checksum: Some(start % 100), segment_bytes: NonZeroU16::new(cut), ecn };
        for offload in [offload, Offload { partial_checksum: None, ..offload }] {
            if let Ok(mut pieces) = Pieces::of(&bytes, &offload, 100) {
                while pieces.write_next(&mut [0; 300]).is_some() {}
            }
            if let Ok(segment) = Segment::<_, ToServerWire>::parse_offloaded(bytes.as_slice(), offload) {
                segment.completed();
            }
        }
    }
}

#[test]
fn a_completed_super_segment_is_whole() {
    for v6 in [false, true] {
        let (source, destination) = ends(v6);
        let payload = [7; 5_000];
        let spec = SegmentSpec { payload: &payload, ..spec::<ToServerWire>(source, destination) };
        let (packet, offload) = left_to_device(spec.build().into_inner());
        let offload = Offload { segment_bytes: std::num::NonZeroU16::new(1_000), ..offload };
        let segment = Segment::<_, ToServerWire>::parse_offloaded(packet, offload).unwrap();
        assert!(segment.is_super_segment());
        assert_eq!(segment.completed(), spec.build().into_inner());
    }
}

#[test]
fn what_has_no_whole_tcp_header_is_not_cut() {
    for v6 in [false, true] {
        let (source, destination) = ends(v6);
        let whole = SegmentSpec { payload: &[], ..spec::<ToServerWire>(source, destination) }.build().into_inner();
        for data_offset in [0, 4, 6, 15] {
            let mut packet = whole.clone();
            packet[tcp_at(&whole) + field::DATA_OFFSET] = data_offset << 4;
            assert_eq!(Pieces::of(&packet, &Offload::NONE, 1_500).err(), Some(Malformed::Truncated), "{data_offset}");
        }
        assert!(Pieces::of(&whole, &Offload::NONE, 1_500).is_ok());
    }
}
