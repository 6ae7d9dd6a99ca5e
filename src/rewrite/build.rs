//! Building the few segments baton originates: replayed SYNs, handshake-completing segments, purging RSTs, early acknowledgements.

use super::checksum;
use super::coordinates::{Seq, WindowScale};
use super::ip::{Family, Upper};
use super::options::{kind, length};
use super::segment::{Flags, Leg, Segment, TimestampPair, field};
use crate::flow::Endpoint;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HOP_LIMIT: u8 = 64;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// What a header has room for (RFC 9293, section 3.1).
const OPTIONS_MAX: usize = 40;

/// A SACK block: left edge, and right edge after the last octet (RFC 2018, section 3).
pub type Block<S> = (Seq<S>, Seq<S>);

/// A segment to be built. Checksums are computed, IPv4 gets DF and identification 0 (RFC 6864), hop limit 64.
#[derive(Clone, Debug)]
pub struct SegmentSpec<'a, L: Leg> {
    /// Sender's end.
    pub source: Endpoint,
    /// Receiver's end; same family.
    pub destination: Endpoint,
    /// Sequence number.
    pub seq: Seq<L::Sender>,
    /// Acknowledgement number; written as 0 when the flags have no ACK.
    pub ack: Seq<L::Receiver>,
    /// Flags.
    pub flags: Flags,
    /// Window field, unscaled.
    pub window: u16,
    /// MSS option.
    pub mss: Option<u16>,
    /// Window scale option.
    pub window_scale: Option<WindowScale>,
    /// SACK-permitted option.
    pub sack_permitted: bool,
    /// Timestamp option.
    pub timestamps: Option<TimestampPair<L>>,
    /// DSCP and ECN byte.
    pub traffic_class: u8,
    /// Payload; with the headers at most 65,535 octets.
    pub payload: &'a [u8],
}

impl<L: Leg> SegmentSpec<'_, L> {
    /// The packet. Options are laid out and padded as Linux does (MSS, SACK-permitted + timestamps, NOP + window scale).
    ///
    /// # Panics
    ///
    /// When the endpoints are of different families or the payload is longer than an IP packet: both are the caller's
    /// own numbers, never ones that came from the network.
    pub fn build(&self) -> Segment<Vec<u8>, L> {
        self.build_with_sack(&[])
    }

    /// The same with a SACK option: as many of these blocks as there is room for, the first ones.
    ///
    /// # Panics
    ///
    /// As [`SegmentSpec::build`].
    pub fn build_with_sack(&self, blocks: &[Block<L::Receiver>]) -> Segment<Vec<u8>, L> {
        let mut packet = Vec::with_capacity(IPV6_HEADER + field::OPTIONS + OPTIONS_MAX + self.payload.len());
        let transport = match (self.source.address, self.destination.address) {
            (IpAddr::V4(_), IpAddr::V4(_)) => IPV4_HEADER,
            (IpAddr::V6(_), IpAddr::V6(_)) => IPV6_HEADER,
            _ => panic!("a segment from {} to {} mixes IP families", self.source, self.destination),
        };
        packet.resize(transport, 0);
        self.append_tcp_header(&mut packet, blocks);
        packet.extend_from_slice(self.payload);

        let (source, destination) = (self.source.address, self.destination.address);
        let tcp = &mut packet[transport..];
        let sum = checksum::with_pseudo_header(source, destination, Upper::Tcp.number(Family::V4), tcp);
        tcp[field::CHECKSUM..field::CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());

        let Ok(length) = u16::try_from(packet.len()) else {
            panic!("a payload of {} octets does not fit an IP packet", self.payload.len());
        };
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                packet[..IPV4_HEADER].copy_from_slice(&self.ipv4_header(source, destination, length));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let length = length - IPV6_HEADER as u16;
                packet[..IPV6_HEADER].copy_from_slice(&self.ipv6_header(source, destination, length));
            }
            _ => unreachable!("families were compared above"),
        }
        match Segment::parse(packet) {
            Ok(segment) => segment,
            Err(reason) => unreachable!("a built segment is well-formed, yet {reason}"),
        }
    }

    fn ipv4_header(&self, source: Ipv4Addr, destination: Ipv4Addr, total_length: u16) -> [u8; IPV4_HEADER] {
        let mut header = [0; IPV4_HEADER];
        header[0] = 0x45;
        header[1] = self.traffic_class;
        header[2..4].copy_from_slice(&total_length.to_be_bytes());
        // Don't fragment: the packet is atomic, so its identification means nothing (RFC 6864, section 4.1).
        header[6] = 0x40;
        header[8] = HOP_LIMIT;
        header[9] = Upper::Tcp.number(Family::V4);
        header[12..16].copy_from_slice(&source.octets());
        header[16..20].copy_from_slice(&destination.octets());
        let sum = checksum::of(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn ipv6_header(&self, source: Ipv6Addr, destination: Ipv6Addr, payload_length: u16) -> [u8; IPV6_HEADER] {
        let mut header = [0; IPV6_HEADER];
        header[0] = 0x60 | self.traffic_class >> 4;
        header[1] = self.traffic_class << 4;
        header[4..6].copy_from_slice(&payload_length.to_be_bytes());
        header[6] = Upper::Tcp.number(Family::V6);
        header[7] = HOP_LIMIT;
        header[8..24].copy_from_slice(&source.octets());
        header[24..40].copy_from_slice(&destination.octets());
        header
    }

    /// Header and options, checksum 0.
    fn append_tcp_header(&self, packet: &mut Vec<u8>, blocks: &[Block<L::Receiver>]) {
        let start = packet.len();
        let ack = if self.flags.contains(Flags::ACK) { self.ack.raw() } else { 0 };
        packet.extend_from_slice(&self.source.port.to_be_bytes());
        packet.extend_from_slice(&self.destination.port.to_be_bytes());
        packet.extend_from_slice(&self.seq.raw().to_be_bytes());
        packet.extend_from_slice(&ack.to_be_bytes());
        packet.extend_from_slice(&[0, self.flags.0]);
        packet.extend_from_slice(&self.window.to_be_bytes());
        packet.extend_from_slice(&[0; 4]);
        self.append_options(packet);
        append_sack(packet, start + field::OPTIONS, blocks);
        let words = (packet.len() - start) / 4;
        packet[start + field::DATA_OFFSET] = (words as u8) << 4;
    }

    /// The layout of Linux. Its fast path for established connections expects exactly NOP, NOP, timestamps.
    fn append_options(&self, packet: &mut Vec<u8>) {
        const NOP: u8 = kind::NO_OPERATION;
        if let Some(mss) = self.mss {
            packet.extend_from_slice(&[kind::MSS, 4]);
            packet.extend_from_slice(&mss.to_be_bytes());
        }
        match (self.sack_permitted, self.timestamps.is_some()) {
            (true, true) => packet.extend_from_slice(&[kind::SACK_PERMITTED, 2]),
            (true, false) => packet.extend_from_slice(&[NOP, NOP, kind::SACK_PERMITTED, 2]),
            (false, true) => packet.extend_from_slice(&[NOP, NOP]),
            (false, false) => {}
        }
        if let Some((tsval, tsecr)) = self.timestamps {
            packet.extend_from_slice(&[kind::TIMESTAMPS, 10]);
            packet.extend_from_slice(&tsval.raw().to_be_bytes());
            packet.extend_from_slice(&tsecr.raw().to_be_bytes());
        }
        if let Some(scale) = self.window_scale {
            packet.extend_from_slice(&[NOP, kind::WINDOW_SCALE, 3, scale.shift()]);
        }
    }
}

/// As many of these blocks as fit behind the options that begin at `options`; laid out as Linux does.
fn append_sack<S>(packet: &mut Vec<u8>, options: usize, blocks: &[Block<S>]) {
    const NOP: u8 = kind::NO_OPERATION;
    let room = OPTIONS_MAX.saturating_sub(packet.len() - options + 4) / length::SACK_BLOCK;
    let blocks = &blocks[..blocks.len().min(room)];
    if blocks.is_empty() {
        return;
    }
    packet.extend_from_slice(&[NOP, NOP, kind::SACK, (2 + blocks.len() * length::SACK_BLOCK) as u8]);
    for (left, right) in blocks {
        packet.extend_from_slice(&left.raw().to_be_bytes());
        packet.extend_from_slice(&right.raw().to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::fixtures::{client, client_v6, server, server_v6, spec};
    use crate::rewrite::{Timestamp, ToServerLocal};

    fn syn() -> SegmentSpec<'static, ToServerLocal> {
        SegmentSpec {
            flags: Flags::SYN,
            mss: Some(1460),
            window_scale: Some(WindowScale::new(7)),
            sack_permitted: true,
            timestamps: Some((Timestamp::new(0x0102_0304), Timestamp::new(0))),
            payload: &[],
            ..spec(client(), server())
        }
    }

    fn options(spec: &SegmentSpec<'_, ToServerLocal>) -> Vec<u8> {
        let packet = spec.build().into_inner();
        packet[IPV4_HEADER + field::OPTIONS..packet.len() - spec.payload.len()].to_vec()
    }

    #[test]
    fn options_lie_where_linux_puts_them() {
        assert_eq!(options(&syn()), [2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]);
        let without_timestamps = SegmentSpec { timestamps: None, ..syn() };
        assert_eq!(options(&without_timestamps), [2, 4, 5, 180, 1, 1, 4, 2, 1, 3, 3, 7]);
        let without_sack = SegmentSpec { sack_permitted: false, mss: None, ..syn() };
        assert_eq!(options(&without_sack), [1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]);
        assert_eq!(options(&spec(client(), server())), Vec::<u8>::new());
    }

    #[test]
    fn what_was_asked_for_reads_back() {
        for (source, destination) in [(client(), server()), (client_v6(), server_v6())] {
            let asked = SegmentSpec { source, destination, traffic_class: 0xb9, ..syn() };
            let built = asked.build();
            assert_eq!((built.source(), built.destination()), (source, destination));
            assert_eq!((built.seq(), built.flags()), (asked.seq, asked.flags));
            assert_eq!((built.mss(), built.window_scale()), (asked.mss, asked.window_scale));
            assert_eq!((built.timestamps(), built.sack_permitted()), (asked.timestamps, true));
            assert_eq!((built.window(), built.traffic_class()), (502, 0xb9));
            assert!(built.checksums_are_right());
        }
    }

    #[test]
    fn as_many_sack_blocks_as_there_is_room_for() {
        let blocks: Vec<(Seq<crate::rewrite::Local>, Seq<crate::rewrite::Local>)> =
            (1..=5).map(|block: u32| (Seq::new(block * 100), Seq::new(block * 100 + 50))).collect();
        for (timestamps, room) in [(syn().timestamps, 3), (None, 4)] {
            let asked = SegmentSpec { flags: Flags::ACK, timestamps, ..spec::<ToServerLocal>(client(), server()) };
            for count in 0..=5 {
                let built = asked.build_with_sack(&blocks[..count]);
                assert_eq!(built.sack_blocks().collect::<Vec<_>>(), blocks[..count.min(room)]);
                assert_eq!(built.timestamps(), timestamps);
                assert!(built.checksums_are_right());
            }
        }
        let asked = SegmentSpec { flags: Flags::ACK, ..spec::<ToServerLocal>(client(), server()) };
        let packet = asked.build_with_sack(&[(Seq::new(0x0102_0304), Seq::new(0x0506_0708))]).into_inner();
        let options = &packet[IPV4_HEADER + field::OPTIONS..packet.len() - asked.payload.len()];
        assert_eq!(options, [1, 1, 5, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn without_the_ack_flag_the_acknowledgement_number_is_zero() {
        assert_eq!(syn().build().ack(), Seq::new(0));
        let ack = SegmentSpec { flags: Flags::ACK, ..syn() };
        assert_eq!(ack.build().ack(), Seq::new(5_000));
    }

    #[test]
    fn an_ipv4_packet_may_not_be_fragmented_and_needs_no_identification() {
        let packet = syn().build().into_inner();
        assert_eq!(packet[4..9], [0, 0, 0x40, 0, HOP_LIMIT]);
    }

    #[test]
    #[should_panic(expected = "mixes IP families")]
    fn mixing_families_is_a_bug_of_the_caller() {
        let _ = SegmentSpec { destination: server_v6(), ..syn() }.build();
    }
}
