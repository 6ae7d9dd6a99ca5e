//! Where things are in an IP packet, for both families.
//!
//! Knows IPv4 with options and IPv6 with extension headers, as far as one must to find the header behind them and to
//! rewrite addresses.

use super::checksum::Change;
use super::octets::{array_at, replace, u16_at};
use super::segment::Malformed;
use etherparse::ip_number as number;
use std::net::IpAddr;

// Extension headers (RFC 8200, section 4), by the number that announces them.
const HOP_BY_HOP: u8 = number::IPV6_HOP_BY_HOP.0;
const ROUTING: u8 = number::IPV6_ROUTE.0;
const FRAGMENT: u8 = number::IPV6_FRAG.0;
const DESTINATION_OPTIONS: u8 = number::IPV6_DEST_OPTIONS.0;

const IPV4_HEADER_CHECKSUM: usize = 10;
const IPV6_HEADER: usize = 40;

/// IP version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    V4,
    V6,
}

/// The protocol somebody looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Upper {
    Tcp,
    /// ICMP in IPv4, ICMPv6 in IPv6.
    Icmp,
}

impl Upper {
    /// Protocol number.
    pub(super) const fn number(self, family: Family) -> u8 {
        match (self, family) {
            (Self::Tcp, _) => number::TCP.0,
            (Self::Icmp, Family::V4) => number::ICMP.0,
            (Self::Icmp, Family::V6) => number::IPV6_ICMP.0,
        }
    }
}

/// How much of a packet there must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Extent {
    /// All of it, in one piece.
    Whole,
    /// As much as an ICMP error quotes; of a fragmented packet, the first fragment.
    Quoted,
}

/// Where the upper-layer header begins and the packet ends; valid for the bytes it was located in.
#[derive(Clone, Copy, Debug)]
pub(super) struct IpLayout {
    pub(super) family: Family,
    transport: u16,
    end: u32,
}

/// What rewriting an address changes.
pub(super) struct AddressChange {
    /// The sum over the pseudo-header.
    pub(super) pseudo_header: Change,
    /// The sum over the IP header itself (IPv4: including its own checksum, which moved too).
    pub(super) header: Change,
}

/// Sets time to live, or hop limit, of a packet that was parsed before, and keeps an IPv4 header checksum right.
pub fn set_hop_limit(packet: &mut [u8], to: u8) {
    match packet.first().map(|octet| octet >> 4) {
        Some(4) if packet.len() >= 20 => {
            // The other half of the word is the protocol.
            let change = replace(packet, 8, [to, packet[9]]);
            let checksum = change.apply(u16_at(packet, IPV4_HEADER_CHECKSUM));
            packet[IPV4_HEADER_CHECKSUM..IPV4_HEADER_CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        Some(6) if packet.len() >= IPV6_HEADER => packet[7] = to,
        _ => {}
    }
}

impl IpLayout {
    /// Finds `upper` in the IP packet that begins with `bytes`.
    pub(super) fn locate(bytes: &[u8], upper: Upper, extent: Extent) -> Result<Self, Malformed> {
        match bytes.first().ok_or(Malformed::Truncated)? >> 4 {
            4 => Self::locate_v4(bytes, upper, extent),
            6 => Self::locate_v6(bytes, upper, extent),
            _ => Err(Malformed::Version),
        }
    }

    fn locate_v4(bytes: &[u8], upper: Upper, extent: Extent) -> Result<Self, Malformed> {
        let fixed: &[u8; 20] = bytes.first_chunk().ok_or(Malformed::Truncated)?;
        let transport = usize::from(fixed[0] & 0x0f) * 4;
        let end = extent.end(usize::from(u16_at(fixed, 2)), bytes)?;
        if transport < fixed.len() || transport > end {
            return Err(Malformed::Truncated);
        }
        if fixed[9] != upper.number(Family::V4) {
            return Err(Malformed::Protocol);
        }
        let fragment = u16_at(fixed, 6);
        extent.accept_fragment(fragment & 0x1fff, fragment & 0x2000 != 0)?;
        Ok(Self { family: Family::V4, transport: transport as u16, end: end as u32 })
    }

    fn locate_v6(bytes: &[u8], upper: Upper, extent: Extent) -> Result<Self, Malformed> {
        let fixed: &[u8; IPV6_HEADER] = bytes.first_chunk().ok_or(Malformed::Truncated)?;
        let end = extent.end(IPV6_HEADER + usize::from(u16_at(fixed, 4)), bytes)?;
        let wanted = upper.number(Family::V6);
        let (mut header, mut at) = (fixed[6], IPV6_HEADER);
        for _ in 0..=crate::limits::EXTENSION_HEADERS_MAX {
            if header == wanted {
                return Ok(Self { family: Family::V6, transport: at as u16, end: end as u32 });
            }
            if !is_walkable(header) {
                return Err(Malformed::Protocol);
            }
            let extension: &[u8; 8] = bytes[..end].get(at..).and_then(<[u8]>::first_chunk).ok_or(Malformed::Truncated)?;
            let following = extension[0];
            at += match header {
                FRAGMENT => {
                    let fragment = u16_at(extension, 2);
                    let (offset, more) = (fragment >> 3, fragment & 1 != 0);
                    // Later fragments do not tell what follows an extension header; it may be what is wanted.
                    if following == wanted || is_walkable(following) {
                        // One fragment that is the whole packet is no fragment (RFC 6946, section 4).
                        extent.accept_fragment(offset, more)?;
                    }
                    8
                }
                // Not yet at its final destination (RFC 8200, section 4.4), which the pseudo-header is about.
                ROUTING if extension[3] != 0 => return Err(Malformed::Protocol),
                _ => 8 + 8 * usize::from(extension[1]),
            };
            if at > end {
                return Err(Malformed::Truncated);
            }
            header = following;
        }
        Err(Malformed::Protocol)
    }

    /// Octets before the upper-layer header; even.
    pub(super) const fn transport(self) -> usize {
        self.transport as usize
    }

    /// Octets of the packet, or of what is quoted of it.
    pub(super) const fn end(self) -> usize {
        self.end as usize
    }

    pub(super) fn source(self, bytes: &[u8]) -> IpAddr {
        self.address(bytes, self.source_at())
    }

    pub(super) fn destination(self, bytes: &[u8]) -> IpAddr {
        self.address(bytes, self.destination_at())
    }

    /// Rewrites the source address and keeps an IPv4 header checksum right; `None`, and nothing rewritten, when `to`
    /// is of the other family.
    pub(super) fn set_source(self, bytes: &mut [u8], to: IpAddr) -> Option<AddressChange> {
        self.set_address(bytes, self.source_at(), to)
    }

    /// Like [`IpLayout::set_source`], for the destination address.
    pub(super) fn set_destination(self, bytes: &mut [u8], to: IpAddr) -> Option<AddressChange> {
        self.set_address(bytes, self.destination_at(), to)
    }

    /// Type of service, or traffic class.
    pub(super) fn traffic_class(self, bytes: &[u8]) -> u8 {
        match self.family {
            Family::V4 => bytes[1],
            Family::V6 => bytes[0] << 4 | bytes[1] >> 4,
        }
    }

    /// Whether the IPv4 header checksum is right; IPv6 has none.
    pub(super) fn header_checksum_is_right(self, bytes: &[u8]) -> bool {
        match self.family {
            Family::V4 => super::checksum::of(&bytes[..self.transport()]) == 0,
            Family::V6 => true,
        }
    }

    const fn source_at(self) -> usize {
        match self.family {
            Family::V4 => 12,
            Family::V6 => 8,
        }
    }

    const fn destination_at(self) -> usize {
        match self.family {
            Family::V4 => 16,
            Family::V6 => 24,
        }
    }

    fn address(self, bytes: &[u8], at: usize) -> IpAddr {
        match self.family {
            Family::V4 => IpAddr::from(array_at::<4>(bytes, at)),
            Family::V6 => IpAddr::from(array_at::<16>(bytes, at)),
        }
    }

    fn set_address(self, bytes: &mut [u8], at: usize, to: IpAddr) -> Option<AddressChange> {
        match (self.family, to) {
            (Family::V4, IpAddr::V4(to)) => {
                let pseudo_header = replace(bytes, at, to.octets());
                let checksum = pseudo_header.apply(u16_at(bytes, IPV4_HEADER_CHECKSUM));
                let header = pseudo_header.and(replace(bytes, IPV4_HEADER_CHECKSUM, checksum.to_be_bytes()));
                Some(AddressChange { pseudo_header, header })
            }
            (Family::V6, IpAddr::V6(to)) => {
                let change = replace(bytes, at, to.octets());
                Some(AddressChange { pseudo_header: change, header: change })
            }
            (Family::V4, IpAddr::V6(_)) | (Family::V6, IpAddr::V4(_)) => None,
        }
    }
}

impl Extent {
    /// Where a packet of `declared` octets ends in `bytes`.
    fn end(self, declared: usize, bytes: &[u8]) -> Result<usize, Malformed> {
        match self {
            Self::Whole if declared > bytes.len() => Err(Malformed::Truncated),
            Self::Whole => Ok(declared),
            Self::Quoted => Ok(declared.min(bytes.len())),
        }
    }

    fn accept_fragment(self, offset: u16, more: bool) -> Result<(), Malformed> {
        match (self, offset, more) {
            (_, 0, false) | (Self::Quoted, 0, true) => Ok(()),
            _ => Err(Malformed::Fragment),
        }
    }
}

/// Extension headers one can look behind. Not those of IPsec: what they authenticate or hide cannot be rewritten.
const fn is_walkable(header: u8) -> bool {
    matches!(header, HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING | FRAGMENT)
}

#[cfg(test)]
mod tests {
    use crate::rewrite::fixtures::{client_v6, extended, packet, packet_v6, server_v6};
    use crate::rewrite::{Malformed, Segment, ToServerWire};

    fn parse(bytes: &[u8]) -> Result<Segment<&[u8], ToServerWire>, Malformed> {
        Segment::parse(bytes)
    }

    #[test]
    fn a_hop_limit_is_set_and_nothing_else() {
        let mut v4 = packet();
        let before = v4.clone();
        super::set_hop_limit(&mut v4, 255);
        assert_eq!(v4[8], 255);
        assert!(parse(&v4).unwrap().checksums_are_right());
        super::set_hop_limit(&mut v4, before[8]);
        assert_eq!(v4, before);
        let mut v6 = packet_v6();
        super::set_hop_limit(&mut v6, 255);
        assert_eq!(v6[7], 255);
        assert!(parse(&v6).unwrap().checksums_are_right());
        super::set_hop_limit(&mut [0x45; 8], 255);
        super::set_hop_limit(&mut [0x60; 7], 255);
        super::set_hop_limit(&mut [], 255);
    }

    #[test]
    fn first_and_later_ipv4_fragments_are_fragments() {
        for field in [0x2000_u16, 0x2001, 0x0001, 0x1fff] {
            let mut fragment = packet();
            fragment[6..8].copy_from_slice(&field.to_be_bytes());
            assert_eq!(parse(&fragment).unwrap_err(), Malformed::Fragment);
        }
    }

    #[test]
    fn first_and_later_ipv6_fragments_are_fragments() {
        for field in [0x0001_u16, 0x0008, 0x0009, 0x2000, 0xfff8] {
            let [high, low] = field.to_be_bytes();
            let fragment = extended(44, &[6, 0, high, low, 0, 0, 0, 1]);
            assert_eq!(parse(&fragment).unwrap_err(), Malformed::Fragment);
        }
        // A later fragment that begins with destination options may be TCP; one of UDP is not.
        assert_eq!(parse(&extended(44, &[60, 0, 0, 8, 0, 0, 0, 1])).unwrap_err(), Malformed::Fragment);
        assert_eq!(parse(&extended(44, &[17, 0, 0, 8, 0, 0, 0, 1])).unwrap_err(), Malformed::Protocol);
    }

    #[test]
    fn an_ipv6_fragment_that_is_the_whole_packet_is_no_fragment() {
        let bytes = extended(44, &[6, 0, 0, 0, 0, 0, 0, 1]);
        let atomic = parse(&bytes).unwrap();
        assert_eq!(atomic.payload(), b"hello");
        assert!(atomic.checksums_are_right());
    }

    #[test]
    fn extension_headers_are_walked() {
        let headers = [
            &[60, 0, 1, 4, 0, 0, 0, 0][..],                      // hop-by-hop, then
            &[43, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], // destination options, then
            &[6, 0, 0, 0, 0, 0, 0, 0],                           // a routing header with nothing left, then TCP
        ]
        .concat();
        let bytes = extended(0, &headers);
        let segment = parse(&bytes).unwrap();
        assert_eq!((segment.source(), segment.destination()), (client_v6(), server_v6()));
        assert_eq!(segment.payload(), b"hello");
        assert!(segment.checksums_are_right());
    }

    #[test]
    fn a_packet_still_under_way_by_a_routing_header_is_refused() {
        let bytes = extended(43, &[6, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(parse(&bytes).unwrap_err(), Malformed::Protocol);
    }

    #[test]
    fn a_chain_of_extension_headers_has_an_end() {
        let chain = |length: usize| {
            let mut headers = [60, 0, 1, 4, 0, 0, 0, 0].repeat(length);
            headers[8 * (length - 1)] = 6;
            extended(60, &headers)
        };
        assert!(parse(&chain(8)).is_ok());
        assert_eq!(parse(&chain(9)).unwrap_err(), Malformed::Protocol);
    }

    #[test]
    fn what_ipsec_covers_is_not_for_us() {
        for protected in [50, 51] {
            let bytes = extended(protected, &[6, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(parse(&bytes).unwrap_err(), Malformed::Protocol);
        }
    }

    #[test]
    fn other_versions_and_protocols_are_named_as_such() {
        assert_eq!(parse(&[0x55; 60]).unwrap_err(), Malformed::Version);
        let mut udp = packet();
        udp[9] = 17;
        assert_eq!(parse(&udp).unwrap_err(), Malformed::Protocol);
        let mut udp = packet_v6();
        udp[6] = 17;
        assert_eq!(parse(&udp).unwrap_err(), Malformed::Protocol);
    }
}
