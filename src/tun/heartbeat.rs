//! The packets that show the kernel that the process lives.
//!
//! UDP from the discard port to a service's port. A rule consumes them in prerouting; should somebody have flushed the
//! rules, they go nowhere: IPv4 ones are between loopback addresses, which routing takes for martians, IPv6 ones in the
//! discard prefix (a loopback address would not even reach the rule).

use crate::flow::Endpoint;
use etherparse::PacketBuilder;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The discard port (RFC 863).
pub(super) const SOURCE_PORT: u16 = 9;
const HOP_LIMIT: u8 = 64;
/// Source and destination of IPv4 heartbeats.
pub(super) const ADDRESS_V4: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Source and destination of IPv6 heartbeats, in the discard-only prefix (RFC 6666).
pub(super) const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 9);

/// One packet per service port, and one of the other version per port where that version has front-ends.
pub(super) fn packets(frontends: &[Endpoint]) -> Vec<Vec<u8>> {
    let all: BTreeSet<u16> = frontends.iter().map(|frontend| frontend.port).collect();
    let over_v6 = frontends.iter().filter(|frontend| frontend.address.is_ipv6()).map(|frontend| frontend.port);
    let v4 = all.iter().map(|&port| {
        let address = ADDRESS_V4.octets();
        packet(PacketBuilder::ipv4(address, address, HOP_LIMIT).udp(SOURCE_PORT, port))
    });
    let v6 = over_v6.collect::<BTreeSet<u16>>().into_iter().map(|port| {
        let address = ADDRESS_V6.octets();
        packet(PacketBuilder::ipv6(address, address, HOP_LIMIT).udp(SOURCE_PORT, port))
    });
    v4.chain(v6).collect()
}

fn packet(builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>) -> Vec<u8> {
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &[]).expect("a vector takes every packet, and an empty payload always fits");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    #[test]
    fn each_port_has_a_packet_with_valid_checksums() {
        let a = Endpoint::new([10, 0, 0, 1].into(), 80);
        let b = Endpoint::new([10, 0, 0, 2].into(), 80);
        let c = Endpoint::new("fd00::1".parse().unwrap(), 443);
        let packets = packets(&[a, b, c]);
        assert_eq!(packets.len(), 3);
        let mut ports = Vec::new();
        for packet in &packets {
            let sliced = SlicedPacket::from_ip(packet).unwrap();
            let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("not UDP") };
            assert_eq!(udp.source_port(), 9);
            let header = udp.to_header();
            match sliced.net.unwrap() {
                NetSlice::Ipv4(ip) => {
                    let ip = ip.header().to_header();
                    assert_eq!(ip.calc_header_checksum(), ip.header_checksum);
                    assert_eq!(header.calc_checksum_ipv4(&ip, &[]).unwrap(), header.checksum);
                }
                NetSlice::Ipv6(ip) => {
                    let ip = ip.header().to_header();
                    assert_eq!(header.calc_checksum_ipv6(&ip, &[]).unwrap(), header.checksum);
                }
                NetSlice::Arp(_) => panic!("not IP"),
            }
            ports.push(udp.destination_port());
        }
        assert_eq!(ports, [80, 443, 443]);
    }
}
