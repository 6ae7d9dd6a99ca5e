//! What a kernel with offload does to the packets it gives to a device, and takes from one.

use baton::rewrite::{Flags, Offload, Pieces, Segment, ToClientWire};
use std::num::NonZeroU16;

/// Largest super-segment.
const BYTES_MAX: usize = 65_000;
// Octets from the start of the TCP header.
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;

/// Joins neighbours that are one stretch of one connection, as GRO and TSO do, and leaves all checksums to the device.
pub fn joined(packets: Vec<Vec<u8>>) -> Vec<(Vec<u8>, Offload)> {
    let mut groups: Vec<Vec<Vec<u8>>> = Vec::new();
    for packet in packets {
        match groups.last_mut() {
            Some(group) if continues(group, &packet) => group.push(packet),
            _ => groups.push(vec![packet]),
        }
    }
    groups.into_iter().map(join).collect()
}

fn parse(packet: &[u8]) -> Segment<&[u8], ToClientWire> {
    Segment::parse(packet).expect("simulated kernels send TCP only")
}

fn continues(group: &[Vec<u8>], packet: &[u8]) -> bool {
    let (first, last, next) = (parse(&group[0]), parse(&group[group.len() - 1]), parse(packet));
    let ends_here = Flags::FIN.with(Flags::PSH).with(Flags::SYN).with(Flags::RST);
    let bytes: usize = group.iter().map(Vec::len).sum();
    (first.source(), first.destination()) == (next.source(), next.destination())
        && next.seq() == last.seq_end()
        && !last.flags().intersects(ends_here)
        && !next.flags().intersects(Flags::SYN.with(Flags::RST))
        && (last.ack(), last.window(), last.timestamps()) == (next.ack(), next.window(), next.timestamps())
        && last.payload().len() == first.payload().len()
        && !next.payload().is_empty()
        && next.payload().len() <= first.payload().len()
        && bytes + packet.len() <= BYTES_MAX
}

fn join(group: Vec<Vec<u8>>) -> (Vec<u8>, Offload) {
    let headers = group[0].len() - parse(&group[0]).payload().len();
    let mut packet = group[0].clone();
    for more in &group[1..] {
        packet.extend_from_slice(parse(more).payload());
    }
    let tcp_at = tcp_at(&packet);
    packet[tcp_at + FLAGS] = group[group.len() - 1][tcp_at + FLAGS];
    if tcp_at == 20 {
        let length = packet.len() as u16;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[10..12].fill(0);
        let sum = !folded(&packet[..20], 0);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        let length = (packet.len() - tcp_at) as u16;
        packet[4..6].copy_from_slice(&length.to_be_bytes());
    }
    let sum = pseudo_header_sum(&packet);
    packet[tcp_at + CHECKSUM..tcp_at + CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    let segment_bytes = (group.len() > 1).then(|| NonZeroU16::new((group[0].len() - headers) as u16)).flatten();
    (packet, Offload { partial_checksum: Some(tcp_at as u16), segment_bytes, ecn: false })
}

/// Simulated kernels have neither IPv4 options nor extension headers.
fn tcp_at(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 20 } else { 40 }
}

/// What a host makes of a packet written to the TUN. A partial checksum must be right to the bit: local delivery would not
/// notice, a client would.
pub fn plain(packet: &[u8], offload: &Offload) -> Vec<Vec<u8>> {
    if offload.partial_checksum.is_some() {
        let at = tcp_at(packet) + CHECKSUM;
        let field = u16::from_be_bytes([packet[at], packet[at + 1]]);
        assert_eq!(field, pseudo_header_sum(packet), "a wrong partial checksum");
    }
    let mut pieces = Pieces::of(packet, offload, usize::MAX).expect("what is left to do for it fits the packet");
    let mut all = Vec::new();
    let mut out = vec![0; packet.len()];
    while let Some(length) = pieces.write_next(&mut out) {
        all.push(out[..length].to_vec());
    }
    all
}

fn pseudo_header_sum(packet: &[u8]) -> u16 {
    let tcp_at = tcp_at(packet);
    let addresses = if tcp_at == 20 { &packet[12..20] } else { &packet[8..40] };
    folded(addresses, 6 + (packet.len() - tcp_at) as u32)
}

fn folded(octets: &[u8], start: u32) -> u16 {
    let words = octets.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum = start + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
