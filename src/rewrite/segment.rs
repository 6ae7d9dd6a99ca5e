//! A validated TCP segment in its IP packet, read and rewritten in place.
//!
//! [`Segment::parse`] is the border: it looks at every length once and keeps where things are. Getters and setters
//! trust it, allocate nothing and cannot fail. The setters are in `segment/set.rs`.

use super::checksum;
use super::coordinates::{Seq, Timestamp, WindowScale};
use super::ip::{Extent, IpLayout, Upper};
use super::octets::{u16_at, u32_at};
use super::offload::{Offload, Pieces};
use super::options::{Options, Place, kind, length};
use crate::flow::Endpoint;
use std::marker::PhantomData;

mod set;

pub use super::flags::Flags;
pub use super::leg::{Leg, ToClientLocal, ToClientWire, ToServerLocal, ToServerWire};

/// Octets from the start of the TCP header (RFC 9293, section 3.1).
pub(super) mod field {
    pub(crate) const SOURCE_PORT: usize = 0;
    pub(crate) const DESTINATION_PORT: usize = 2;
    pub(crate) const SEQ: usize = 4;
    pub(crate) const ACK: usize = 8;
    pub(crate) const DATA_OFFSET: usize = 12;
    pub(crate) const FLAGS: usize = 13;
    pub(crate) const WINDOW: usize = 14;
    pub(crate) const CHECKSUM: usize = 16;
    pub(crate) const OPTIONS: usize = 20;
}

/// The AE flag, in the octet it shares with the data offset.
pub(super) const ACCURATE_ECN: u8 = 0x01;

/// Why bytes are not a TCP segment we can handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// Shorter than its own lengths say, or lengths that contradict each other.
    #[error("packet is shorter than its lengths say")]
    Truncated,
    /// Neither IPv4 nor IPv6.
    #[error("neither IPv4 nor IPv6")]
    Version,
    /// Not TCP (for IPv6: after walking extension headers).
    #[error("not the protocol expected")]
    Protocol,
    /// An IP fragment.
    #[error("an IP fragment")]
    Fragment,
    /// A TCP option list that runs over its end.
    #[error("TCP options run over their end")]
    Options,
    /// What is said to be left to do for the packet does not fit it.
    #[error("checksum or segmentation left to do where the packet has none")]
    Offload,
}

/// Where things are in a packet that has been validated.
#[derive(Clone, Copy, Debug)]
struct Layout {
    ip: IpLayout,
    /// Octets of the TCP header, 20 to 60.
    header: u8,
    /// Octets from the start of the option list to the last timestamp option.
    timestamps: Option<u8>,
    /// Whether there is a SACK option; without one, nothing needs to look for it again.
    has_sack: bool,
}

impl Layout {
    fn locate(bytes: &[u8]) -> Result<Self, Malformed> {
        let ip = IpLayout::locate(bytes, Upper::Tcp, Extent::Whole)?;
        let tcp = &bytes[ip.transport()..ip.end()];
        let header = 4 * (tcp.get(field::DATA_OFFSET).ok_or(Malformed::Truncated)? >> 4);
        if usize::from(header) < field::OPTIONS || usize::from(header) > tcp.len() {
            return Err(Malformed::Truncated);
        }
        let mut layout = Self { ip, header, timestamps: None, has_sack: false };
        for option in Options::new(&tcp[field::OPTIONS..usize::from(header)]) {
            let option = option?;
            if option.is(kind::TIMESTAMPS, length::TIMESTAMPS) {
                layout.timestamps = Some(option.start as u8);
            }
            layout.has_sack |= option.kind == kind::SACK;
        }
        Ok(layout)
    }

    fn header(&self) -> usize {
        usize::from(self.header)
    }
}

/// TSval and TSecr of a segment on leg `L`.
pub type TimestampPair<L> = (Timestamp<<L as Leg>::Sender>, Timestamp<<L as Leg>::Receiver>);

/// A TCP segment inside its IP packet, validated once; `B` is `&[u8]`, `&mut [u8]` or `Vec<u8>`.
#[derive(Debug, Clone)]
pub struct Segment<B, L: Leg> {
    bytes: B,
    layout: Layout,
    offload: Offload,
    leg: PhantomData<L>,
}

impl<B: AsRef<[u8]>, L: Leg> Segment<B, L> {
    /// Validates lengths, version and options. Bytes behind the IP total length are ignored. Checksums are not verified here.
    ///
    /// An IPv6 packet whose routing header still has segments left is refused as [`Malformed::Protocol`]: it is not at
    /// its destination yet, and its pseudo-header is not about the addresses in its IP header.
    pub fn parse(bytes: B) -> Result<Self, Malformed> {
        Self::parse_offloaded(bytes, Offload::NONE)
    }

    /// The same for a packet that may have a partial checksum, or be a super-segment.
    pub fn parse_offloaded(bytes: B, offload: Offload) -> Result<Self, Malformed> {
        let layout = Layout::locate(bytes.as_ref())?;
        offload.check(layout.ip)?;
        let segment = Self { bytes, layout, offload, leg: PhantomData };
        // Nobody makes one with SYN; it would be kept, and then written whole.
        if segment.is_super_segment() && segment.flags().contains(Flags::SYN) {
            return Err(Malformed::Offload);
        }
        Ok(segment)
    }

    /// Reads the same bytes as another leg, for packets whose direction is known only after a look-up.
    pub fn reinterpret<M: Leg>(self) -> Segment<B, M> {
        Segment { bytes: self.bytes, layout: self.layout, offload: self.offload, leg: PhantomData }
    }

    /// The packet, exactly IP total length long.
    pub fn packet(&self) -> &[u8] {
        &self.bytes.as_ref()[..self.layout.ip.end()]
    }

    /// The underlying buffer.
    pub fn into_inner(self) -> B {
        self.bytes
    }

    /// Whether it has to be cut before it can be sent.
    pub fn is_super_segment(&self) -> bool {
        self.offload.segment_bytes.is_some_and(|bytes| self.payload().len() > usize::from(bytes.get()))
    }

    /// A copy of the packet, uncut, with a complete checksum.
    pub fn completed(&self) -> Vec<u8> {
        let offload = Offload { segment_bytes: None, ..self.offload };
        let mut copy = vec![0; self.packet().len()];
        if let Ok(mut pieces) = Pieces::of(self.packet(), &offload, usize::MAX) {
            pieces.write_next(&mut copy);
        }
        copy
    }

    /// Sender's end.
    pub fn source(&self) -> Endpoint {
        Endpoint::new(self.layout.ip.source(self.packet()), u16_at(self.tcp(), field::SOURCE_PORT))
    }

    /// Receiver's end.
    pub fn destination(&self) -> Endpoint {
        Endpoint::new(self.layout.ip.destination(self.packet()), u16_at(self.tcp(), field::DESTINATION_PORT))
    }

    /// Flags, without AE.
    pub fn flags(&self) -> Flags {
        Flags(self.tcp()[field::FLAGS])
    }

    /// The AE flag (RFC 9768; formerly NS).
    pub fn accurate_ecn(&self) -> bool {
        self.tcp()[field::DATA_OFFSET] & ACCURATE_ECN != 0
    }

    /// Sequence number.
    pub fn seq(&self) -> Seq<L::Sender> {
        Seq::new(u32_at(self.tcp(), field::SEQ))
    }

    /// Acknowledgement number; meaningless without ACK.
    pub fn ack(&self) -> Seq<L::Receiver> {
        Seq::new(u32_at(self.tcp(), field::ACK))
    }

    /// The window field, unscaled.
    pub fn window(&self) -> u16 {
        u16_at(self.tcp(), field::WINDOW)
    }

    /// Payload.
    pub fn payload(&self) -> &[u8] {
        &self.tcp()[self.layout.header()..]
    }

    /// Octets of sequence space: payload, plus one each for SYN and FIN.
    pub fn seq_len(&self) -> u32 {
        let flags = self.flags();
        self.payload().len() as u32 + u32::from(flags.contains(Flags::SYN)) + u32::from(flags.contains(Flags::FIN))
    }

    /// Sequence number after this segment.
    pub fn seq_end(&self) -> Seq<L::Sender> {
        self.seq().plus(self.seq_len())
    }

    /// MSS option.
    pub fn mss(&self) -> Option<u16> {
        self.last_option(kind::MSS, length::MSS).map(|option| u16_at(self.options(), option.body().start))
    }

    /// Window scale option.
    pub fn window_scale(&self) -> Option<WindowScale> {
        self.last_option(kind::WINDOW_SCALE, length::WINDOW_SCALE)
            .map(|option| WindowScale::new(self.options()[option.body().start]))
    }

    /// SACK-permitted option.
    pub fn sack_permitted(&self) -> bool {
        self.last_option(kind::SACK_PERMITTED, length::SACK_PERMITTED).is_some()
    }

    /// The blocks of the SACK option as left and right edge (RFC 2018, section 3); the edge after the last octet.
    pub fn sack_blocks(&self) -> impl Iterator<Item = (Seq<L::Receiver>, Seq<L::Receiver>)> {
        let places = self.layout.has_sack.then(|| self.places()).into_iter().flatten();
        places.filter(|option| is_sack(*option)).flat_map(|option| {
            self.options()[option.body()]
                .chunks_exact(length::SACK_BLOCK)
                .map(|block| (Seq::new(u32_at(block, 0)), Seq::new(u32_at(block, 4))))
        })
    }

    /// TSval and TSecr.
    pub fn timestamps(&self) -> Option<TimestampPair<L>> {
        let start = usize::from(self.layout.timestamps?);
        let tsval = u32_at(self.options(), start + 2);
        let tsecr = u32_at(self.options(), start + 6);
        Some((Timestamp::new(tsval), Timestamp::new(tsecr)))
    }

    /// Whether an option of this kind is present (TFO 34, MPTCP 30, MD5 19, AO 29).
    pub fn has_option(&self, kind: u8) -> bool {
        self.places().any(|option| option.kind == kind)
    }

    /// Type of service / traffic class byte (DSCP and ECN).
    pub fn traffic_class(&self) -> u8 {
        self.layout.ip.traffic_class(self.packet())
    }

    /// Whether IP (v4) header and TCP checksums are right. A partial checksum is: the kernel that left it to a device
    /// vouches for the segment.
    pub fn checksums_are_right(&self) -> bool {
        let (packet, ip) = (self.packet(), self.layout.ip);
        let tcp = Upper::Tcp.number(ip.family);
        let is_partial = self.offload.checksum() == checksum::Field::Partial;
        ip.header_checksum_is_right(packet)
            && (is_partial || checksum::with_pseudo_header(ip.source(packet), ip.destination(packet), tcp, self.tcp()) == 0)
    }

    /// TCP header and payload.
    fn tcp(&self) -> &[u8] {
        &self.packet()[self.layout.ip.transport()..]
    }

    /// The option list.
    fn options(&self) -> &[u8] {
        &self.tcp()[field::OPTIONS..self.layout.header()]
    }

    /// All options; parsing has seen that there is no error among them.
    fn places(&self) -> impl Iterator<Item = Place> {
        Options::new(self.options()).map_while(Result::ok)
    }

    /// The last option of this kind and length, which is the one that counts.
    fn last_option(&self, kind: u8, length: usize) -> Option<Place> {
        self.places().filter(|option| option.is(kind, length)).last()
    }
}

/// Whether this is a SACK option of whole blocks.
fn is_sack(option: Place) -> bool {
    option.kind == kind::SACK && option.body().len().is_multiple_of(length::SACK_BLOCK)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{client, extended, packet, packet_v6, server, spec, with_options};
    use super::*;
    use crate::rewrite::SegmentSpec;

    fn parse(bytes: &[u8]) -> Result<Segment<&[u8], ToServerWire>, Malformed> {
        Segment::parse(bytes)
    }

    #[test]
    fn nothing_is_truncated() {
        assert_eq!(parse(&[]).unwrap_err(), Malformed::Truncated);
    }

    #[test]
    fn every_shortened_packet_is_truncated() {
        for whole in [packet(), packet_v6(), extended(60, &[6, 0, 1, 4, 0, 0, 0, 0])] {
            assert!(parse(&whole).is_ok());
            for length in 0..whole.len() {
                assert_eq!(parse(&whole[..length]).unwrap_err(), Malformed::Truncated, "{length}");
            }
        }
    }

    #[test]
    fn bytes_behind_the_packet_are_no_payload() {
        for mut bytes in [packet(), packet_v6()] {
            let length = bytes.len();
            bytes.extend_from_slice(b"ethernet padding");
            let segment = parse(&bytes).unwrap();
            assert_eq!(segment.payload(), b"hello");
            assert_eq!(segment.packet().len(), length);
            assert!(segment.checksums_are_right());
        }
    }

    #[test]
    fn header_lengths_that_contradict_each_other_are_truncated() {
        let mut short_ip = packet();
        short_ip[0] = 0x44;
        assert_eq!(parse(&short_ip).unwrap_err(), Malformed::Truncated);
        let mut short_tcp = packet();
        short_tcp[20 + field::DATA_OFFSET] = 0x40;
        assert_eq!(parse(&short_tcp).unwrap_err(), Malformed::Truncated);
        let mut long_tcp = packet();
        long_tcp[20 + field::DATA_OFFSET] = 0xf0;
        assert_eq!(parse(&long_tcp).unwrap_err(), Malformed::Truncated);
    }

    #[test]
    fn syn_and_fin_take_sequence_space() {
        let with = |flags| SegmentSpec::<ToServerWire> { flags, ..spec(client(), server()) }.build();
        assert_eq!(with(Flags::ACK).seq_len(), 5);
        assert_eq!(with(Flags::SYN).seq_len(), 6);
        assert_eq!(with(Flags::SYN.with(Flags::FIN)).seq_len(), 7);
        assert_eq!(with(Flags::FIN).seq_end(), Seq::new(1_006));
    }

    #[test]
    fn of_repeated_options_the_last_counts_and_misshapen_ones_do_not() {
        let options = [2, 4, 5, 180, 2, 3, 9, 2, 4, 2, 0, 1];
        let bytes = with_options(&options);
        assert_eq!(parse(&bytes).unwrap().mss(), Some(512));
    }

    #[test]
    fn an_option_list_that_runs_over_its_end_is_malformed() {
        assert_eq!(parse(&with_options(&[1, 1, 8, 10])).unwrap_err(), Malformed::Options);
    }

    #[test]
    fn a_broken_checksum_is_noticed() {
        for (mut bytes, ip) in [(packet(), 20), (packet_v6(), 40)] {
            bytes[ip + field::WINDOW] ^= 1;
            assert!(!parse(&bytes).unwrap().checksums_are_right());
        }
        let mut bytes = packet();
        bytes[8] ^= 1;
        assert!(!parse(&bytes).unwrap().checksums_are_right());
    }
}
