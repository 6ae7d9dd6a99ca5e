//! Cut again, what was joined is what came.

use super::*;
use crate::rewrite::fixtures::{client, client_v6, server, server_v6, spec};
use crate::rewrite::{Pieces, SegmentSpec, Seq, Timestamp, ToServerWire};
use proptest::prelude::*;

const SEQ: u32 = u32::MAX - 100;

fn packet(v6: bool, offset: u32, payload: &[u8], flags: Flags) -> Vec<u8> {
    let (source, destination) = if v6 { (client_v6(), server_v6()) } else { (client(), server()) };
    let spec = SegmentSpec {
        seq: Seq::new(SEQ).plus(offset),
        flags: Flags::ACK.with(flags),
        payload,
        timestamps: Some((Timestamp::new(1), Timestamp::new(2))),
        ..spec::<ToServerWire>(source, destination)
    };
    spec.build().into_inner()
}

/// Puts the packets into one buffer, with room between them as sealing leaves it: what they become.
fn joined(packets: &[Vec<u8>]) -> Vec<(Vec<u8>, Offload)> {
    let mut told = Vec::new();
    let mut packets = packets.iter().peekable();
    while let Some(first) = packets.next() {
        let mut buffer = first.clone();
        let Some(mut join) = Joined::begin(first, &Offload::NONE) else {
            told.push((buffer, Offload::NONE));
            continue;
        };
        while let Some(next) = packets.peek() {
            buffer.resize(buffer.len() + 28, 0xaa);
            let start = buffer.len();
            buffer.extend_from_slice(next);
            let end = buffer.len();
            if !join.add(&mut buffer, start..end) {
                break;
            }
            packets.next();
        }
        let (length, offload) = join.finish(&mut buffer);
        buffer.truncate(length);
        told.push((buffer, offload));
    }
    told
}

fn cut(packet: &[u8], offload: &Offload) -> Vec<Vec<u8>> {
    let mut pieces = Pieces::of(packet, offload, usize::MAX).unwrap();
    let mut out = vec![0; packet.len()];
    std::iter::from_fn(|| pieces.write_next(&mut out).map(|length| out[..length].to_vec())).collect()
}

fn lengths(packets: &[Vec<u8>]) -> Vec<usize> {
    joined(packets).iter().map(|(packet, offload)| if offload.segment_bytes.is_some() { packet.len() } else { 0 }).collect()
}

#[test]
fn segments_that_follow_each_other_become_one() {
    for v6 in [false, true] {
        let packets = [
            packet(v6, 0, &[1; 100], Flags(0)),
            packet(v6, 100, &[2; 100], Flags(0)),
            packet(v6, 200, &[3; 40], Flags::PSH),
            packet(v6, 240, &[4; 40], Flags(0)),
        ];
        let told = joined(&packets);
        assert_eq!(told.len(), 2, "after PSH another begins");
        assert_eq!(told[0].1.segment_bytes.map(NonZeroU16::get), Some(100));
        assert_eq!(cut(&told[0].0, &told[0].1), numbered(&packets[..3]));
        assert_eq!(told[1], (packets[3].clone(), Offload::NONE));
    }
}

/// What cutting gives IPv4 packets: one number after the other.
fn numbered(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let first = u16_at(&packets[0], 4);
    let number = |(index, packet): (usize, &Vec<u8>)| {
        let mut packet = packet.clone();
        if packet[0] >> 4 == 4 {
            packet[4..6].copy_from_slice(&first.wrapping_add(index as u16).to_be_bytes());
            packet[10..12].fill(0);
            let sum = checksum::of(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        packet
    };
    packets.iter().enumerate().map(number).collect()
}

#[test]
fn what_does_not_follow_or_says_more_stays_alone() {
    for v6 in [false, true] {
        let transport = if v6 { 40 } else { 20 };
        let first = packet(v6, 0, &[1; 100], Flags(0));
        let alone = |second: &[u8], why: &str| assert_eq!(lengths(&[first.clone(), second.to_vec()]), [0, 0], "{why}");
        alone(&packet(v6, 101, &[2; 100], Flags(0)), "a hole");
        alone(&packet(v6, 0, &[2; 100], Flags(0)), "once more");
        alone(&packet(v6, 100, &[2; 101], Flags(0)), "a longer one");
        alone(&packet(v6, 100, &[], Flags(0)), "an acknowledgement");
        for flags in [Flags::FIN, Flags::SYN, Flags::RST, Flags::URG, Flags::ECE, Flags::CWR] {
            alone(&packet(v6, 100, &[2; 100], flags), &flags.to_string());
        }
        // Each with right checksums, so that nothing but the field itself keeps it alone.
        let next = packet(v6, 100, &[2; 100], Flags(0));
        let fields = [
            (transport, "source port"),
            (transport + 3, "destination port"),
            (transport + 11, "acknowledgement"),
            (transport + 15, "window"),
            (transport + 19, "urgent pointer"),
            (transport + 27, "timestamp"),
            (if v6 { 7 } else { 8 }, "hops left"),
            (1, "class"),
        ];
        for (at, field) in fields {
            let mut other = next.clone();
            other[at] ^= if v6 && at == 1 { 0x10 } else { 1 };
            alone(&summed(other, v6), field);
        }
        let mut accurate = next.clone();
        accurate[transport + field::DATA_OFFSET] |= ACCURATE_ECN;
        alone(&summed(accurate, v6), "AE");
        assert_eq!(lengths(&[first.clone(), summed(next, v6)]), [first.len() + 100]);
    }
}

/// With right checksums.
fn summed(mut packet: Vec<u8>, v6: bool) -> Vec<u8> {
    let transport = if v6 { 40 } else { 20 };
    let ip = IpLayout::locate(&packet, Upper::Tcp, Extent::Whole).unwrap();
    let (source, destination) = (ip.source(&packet), ip.destination(&packet));
    packet[transport + 16..transport + 18].fill(0);
    let sum = checksum::with_pseudo_header(source, destination, 6, &packet[transport..]);
    packet[transport + 16..transport + 18].copy_from_slice(&sum.to_be_bytes());
    if !v6 {
        packet[10..12].fill(0);
        let sum = checksum::of(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

#[test]
fn a_wrong_checksum_is_not_made_right() {
    for v6 in [false, true] {
        for damaged in 0..2 {
            let mut packets = [packet(v6, 0, &[1; 100], Flags(0)), packet(v6, 100, &[2; 100], Flags(0))];
            *packets[damaged].last_mut().unwrap() ^= 1;
            let told = joined(&packets);
            assert_eq!(told.iter().map(|(packet, _)| packet.clone()).collect::<Vec<_>>(), packets);
        }
    }
}

#[test]
fn identifications_matter_where_routers_may_fragment() {
    let with_identification = |offset: u32, identification: u16, flags: u8| {
        let mut packet = packet(false, offset, &[1; 100], Flags(0));
        packet[4..6].copy_from_slice(&identification.to_be_bytes());
        packet[6] = flags;
        summed(packet, false)
    };
    let both =
        |second: u16, flags: u8| lengths(&[with_identification(0, 7, flags), with_identification(100, second, flags)]).len();
    assert_eq!((both(8, 0), both(7, 0), both(9, 0)), (1, 2, 2));
    assert_eq!((both(8, DONT_FRAGMENT), both(7, DONT_FRAGMENT)), (1, 1));
}

#[test]
fn no_packet_is_longer_than_ip_allows() {
    let packets: Vec<_> = (0..48).map(|index| packet(false, index * 1_400, &[index as u8; 1_400], Flags(0))).collect();
    let told = joined(&packets);
    assert_eq!(told.iter().map(|(packet, _)| packet.len()).collect::<Vec<_>>(), [52 + 46 * 1_400, 52 + 2 * 1_400]);
}

#[test]
fn what_is_no_whole_segment_stays_alone() {
    for v6 in [false, true] {
        let transport = if v6 { 40 } else { 20 };
        let whole = packet(v6, 0, &[1; 100], Flags(0));
        let begins = |packet: &[u8]| Joined::begin(packet, &Offload::NONE).is_some();
        assert!(begins(&whole));
        assert!(!begins(&[&whole[..], &[0]].concat()), "an octet behind it");
        for words in 0..5 {
            let mut short = whole.clone();
            short[transport + field::DATA_OFFSET] = words << 4;
            assert!(!begins(&short), "a header of {words} words");
        }
        // Shorter than the headers of the one before, and of the other family.
        let second = SegmentSpec {
            seq: Seq::new(SEQ).plus(100),
            flags: Flags::ACK,
            payload: &[2; 5],
            ..spec::<ToServerWire>(client(), server())
        };
        assert_eq!(lengths(&[whole.clone(), second.build().into_inner()]), [0, 0]);
        assert_eq!(lengths(&[whole.clone(), packet(!v6, 100, &[2; 100], Flags(0))]), [0, 0]);
    }
}

#[test]
fn what_lies_directly_behind_is_added_and_what_lies_before_is_not() {
    let (first, second) = (packet(false, 0, &[1; 100], Flags(0)), packet(false, 100, &[2; 50], Flags(0)));
    let mut buffer = [&first[..], &second].concat();
    let mut join = Joined::begin(&first, &Offload::NONE).unwrap();
    assert!(!join.add(&mut buffer, 0..first.len()) && !join.is_complete());
    assert!(join.add(&mut buffer, first.len()..first.len() + second.len()));
    assert!(join.is_complete(), "it ended with a shorter one");
    assert_eq!(join.finish(&mut buffer).0, first.len() + 50);
}

/// As a kernel that leaves checksums to us hands it over.
fn partial(mut packet: Vec<u8>, v6: bool) -> (Vec<u8>, Offload) {
    let transport = if v6 { 40 } else { 20 };
    packet[transport + 16..transport + 18].copy_from_slice(&[0x12, 0x34]);
    (packet, Offload { partial_checksum: Some(transport as u16), ..Offload::NONE })
}

fn super_segment(v6: bool, offset: u32, payload: &[u8], segment_bytes: u16, flags: Flags) -> (Vec<u8>, Offload) {
    let (packet, offload) = partial(packet(v6, offset, payload, flags), v6);
    (packet, Offload { segment_bytes: NonZeroU16::new(segment_bytes), ..offload })
}

/// Appends them one after the other: what they become, and how many were taken.
fn appended(packets: &[(Vec<u8>, Offload)]) -> (Vec<u8>, Offload, usize) {
    let mut buffer = packets[0].0.clone();
    buffer.resize(PACKET_BYTES_MAX, 0xaa);
    let mut join = Joined::begin(&packets[0].0, &packets[0].1).expect("others can follow");
    let taken = packets[1..].iter().take_while(|(packet, offload)| join.append(&mut buffer, packet, offload)).count();
    let (length, offload) = join.finish(&mut buffer);
    buffer.truncate(length);
    (buffer, offload, 1 + taken)
}

#[test]
fn super_segments_of_the_kernel_become_one_and_several_pushes_one() {
    for v6 in [false, true] {
        let packets = [
            super_segment(v6, 0, &[1; 300], 100, Flags::PSH),
            super_segment(v6, 300, &[2; 100], 100, Flags(0)),
            partial(packet(v6, 400, &[3; 100], Flags::PSH), v6),
            super_segment(v6, 500, &[4; 250], 100, Flags(0)),
        ];
        let (whole, offload, taken) = appended(&packets);
        let expected = packet(v6, 0, &[&[1; 300][..], &[2; 100], &[3; 100], &[4; 250]].concat(), Flags::PSH);
        assert_eq!((taken, offload.segment_bytes.map(NonZeroU16::get), offload.ecn), (4, Some(100), false));
        let (cut_joined, cut_alone) = (cut(&whole, &offload), cut(&expected, &super_segment(v6, 0, &[], 100, Flags(0)).1));
        assert_eq!(cut_joined.len(), 8);
        for (joined, alone) in cut_joined.iter().zip(&cut_alone) {
            assert_eq!(summed(joined.clone(), v6), *joined, "a right checksum");
            assert_eq!(joined[if v6 { 40 } else { 20 }..].get(20..), alone[if v6 { 40 } else { 20 }..].get(20..));
        }
    }
}

#[test]
fn what_is_alone_leaves_with_what_was_left_to_do_for_it() {
    for v6 in [false, true] {
        for alone in [super_segment(v6, 0, &[1; 300], 100, Flags::PSH), partial(packet(v6, 0, &[1; 100], Flags(0)), v6)] {
            let (same, offload, _) = appended(std::slice::from_ref(&alone));
            assert_eq!((offload, same.len()), (alone.1, alone.0.len()));
            assert_eq!(Joined::begin(&same, &offload).map(|join| join.length), Some(alone.0.len()));
        }
    }
}

#[test]
fn what_would_be_cut_otherwise_stays_alone() {
    for v6 in [false, true] {
        let first = super_segment(v6, 0, &[1; 300], 100, Flags(0));
        let taken = |second: (Vec<u8>, Offload)| appended(&[first.clone(), second]).2 == 2;
        assert!(
            taken(super_segment(v6, 300, &[2; 300], 100, Flags(0))) && taken(partial(packet(v6, 300, &[2; 7], Flags(0)), v6))
        );
        assert!(!taken(super_segment(v6, 300, &[2; 300], 99, Flags(0))), "shorter segments");
        assert!(!taken(super_segment(v6, 300, &[2; 300], 150, Flags(0))), "longer segments");
        assert!(!taken(partial(packet(v6, 300, &[2; 101], Flags(0)), v6)), "a longer segment");
        assert!(!taken((packet(v6, 300, &[2; 100], Flags(0)), Offload::NONE)), "a checksum of its own");
        let mut reduced = super_segment(v6, 300, &[2; 300], 100, Flags(0));
        reduced.1.ecn = true;
        assert!(!taken(reduced.clone()) && Joined::begin(&reduced.0, &reduced.1).is_none(), "CWR");
        let (bytes, offload) = super_segment(v6, 300, &[2; 300], 100, Flags(0));
        let elsewhere = Offload { partial_checksum: offload.partial_checksum.map(|start| start + 4), ..offload };
        assert!(!taken((bytes.clone(), elsewhere)), "a header elsewhere");
        let whole = Offload { partial_checksum: None, ..offload };
        assert!(Joined::begin(&bytes, &whole).is_none(), "a super-segment with a checksum");
        let ends = super_segment(v6, 0, &[1; 250], 100, Flags(0));
        assert!(Joined::begin(&ends.0, &ends.1).is_none(), "its last segment is a short one");
        // Behind a short one nothing is taken, and without room neither.
        let short = partial(packet(v6, 300, &[2; 7], Flags(0)), v6);
        assert_eq!(appended(&[first.clone(), short, partial(packet(v6, 307, &[2; 7], Flags(0)), v6)]).2, 2);
        let mut join = Joined::begin(&first.0, &first.1).unwrap();
        let second = super_segment(v6, 300, &[2; 300], 100, Flags(0));
        assert!(!join.append(&mut first.0.clone(), &second.0, &second.1), "no room");
    }
}

proptest! {
    #[test]
    fn joined_and_cut_again_is_what_came(
        v6: bool, payload in proptest::collection::vec(any::<u8>(), 1..6_000), sizes in proptest::collection::vec(1_usize..1_500, 1..12),
        pushes in proptest::collection::vec(any::<bool>(), 12), repeat: bool,
    ) {
        let mut packets = Vec::new();
        let mut at = 0;
        for (index, size) in sizes.iter().cycle().take(200).enumerate() {
            // The same size twice, so that something can be joined.
            let size = if repeat { sizes[0] } else { *size }.min(payload.len() - at);
            if size == 0 { break }
            let flags = if pushes[index % pushes.len()] && !repeat { Flags::PSH } else { Flags(0) };
            packets.push(packet(v6, at as u32, &payload[at..at + size], flags));
            at += size;
        }
        let again: Vec<_> = joined(&packets).iter().flat_map(|(packet, offload)| cut(packet, offload)).collect();
        prop_assert_eq!(again.len(), packets.len());
        for (again, came) in again.iter().zip(&packets) {
            // But for the identification, which means nothing under DF, and the header's checksum with it.
            let from = if v6 { 0 } else { 12 };
            prop_assert_eq!(&again[from..], &came[from..]);
        }
    }

    #[test]
    fn no_octets_panic(first in proptest::collection::vec(any::<u8>(), 0..120), second in proptest::collection::vec(any::<u8>(), 0..120)) {
        joined(&[first, second]);
    }
}
