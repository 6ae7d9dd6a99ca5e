//! ICMP errors, as routers write and hosts read them (RFC 792, RFC 4443): "fragmentation needed" and "packet too big". Shares
//! no code with what is tested.

use baton::flow::Endpoint;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets of the packet that are quoted: what any router quotes, and more than the 8 octets of TCP that it must.
const QUOTED: usize = 64;
/// Below that nothing is lowered: Linux's `min_pmtu`, and the least MTU of IPv6 (RFC 8200, section 5).
const MTU_MIN: [usize; 2] = [552, 1_280];

/// What a router said of a packet.
#[derive(Clone, Copy, Debug)]
pub struct TooBig {
    /// Who sent the packet, and to whom.
    pub source: Endpoint,
    pub destination: Endpoint,
    pub seq: u32,
    pub mtu: usize,
}

/// That this packet is larger than `mtu`, to its sender.
pub fn too_big(packet: &[u8], mtu: usize) -> Vec<u8> {
    let is_v6 = packet[0] >> 4 == 6;
    let mut message = if is_v6 { vec![2, 0, 0, 0] } else { vec![3, 4, 0, 0] };
    message.extend((mtu as u32).to_be_bytes());
    message.extend(&packet[..packet.len().min(QUOTED)]);
    if is_v6 {
        let router = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 0xffff).octets();
        let mut error = vec![0x60, 0, 0, 0, 0, 0, 58, 64];
        error[4..6].copy_from_slice(&(message.len() as u16).to_be_bytes());
        error.extend(router);
        error.extend(&packet[8..24]);
        let pseudo = sum(&error[8..40]) + 58 + message.len() as u32;
        let checksum = !fold(pseudo + sum(&message));
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        error.extend(message);
        error
    } else {
        let checksum = !fold(sum(&message));
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        let mut error = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0];
        error.extend(Ipv4Addr::new(10, 99, 255, 254).octets());
        error.extend(&packet[12..16]);
        let length = 20 + message.len() as u16;
        error[2..4].copy_from_slice(&length.to_be_bytes());
        let checksum = !fold(sum(&error));
        error[10..12].copy_from_slice(&checksum.to_be_bytes());
        error.extend(message);
        error
    }
}

/// Whether it is an ICMP message at all, right or wrong.
pub fn is_icmp(packet: &[u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) => packet.len() >= 28 && packet[9] == 1,
        Some(6) => packet.len() >= 48 && packet[6] == 58,
        _ => false,
    }
}

/// What it says, if it is for this host and its checksums are right.
pub fn read(packet: &[u8], is_own: impl Fn(IpAddr) -> bool) -> Option<TooBig> {
    if !is_icmp(packet) {
        return None;
    }
    let is_v6 = packet[0] >> 4 == 6;
    let at = if is_v6 { 40 } else { 20 };
    let message = &packet[at..];
    let pseudo = if is_v6 { sum(&packet[8..40]) + 58 + message.len() as u32 } else { 0 };
    let is_right = fold(pseudo + sum(message)) == 0xffff && (is_v6 || fold(sum(&packet[..20])) == 0xffff);
    let is_too_big = if is_v6 { message[0] == 2 } else { message[..2] == [3, 4] };
    if !is_right || !is_too_big || !is_own(super::world::destination(packet)) {
        return None;
    }
    let mtu = u32::from_be_bytes([message[4], message[5], message[6], message[7]]) as usize;
    let quote = &message[8..];
    let tcp = quote.get(at..)?;
    let address = |range: std::ops::Range<usize>| -> Option<IpAddr> {
        let octets = quote.get(range)?;
        <[u8; 4]>::try_from(octets).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
    };
    let (source, destination) = if is_v6 { (address(8..24)?, address(24..40)?) } else { (address(12..16)?, address(16..20)?) };
    let port = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
    let seq = u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?);
    Some(TooBig {
        source: Endpoint::new(source, port(0)?),
        destination: Endpoint::new(destination, port(2)?),
        seq,
        mtu: mtu.max(MTU_MIN[usize::from(is_v6)]),
    })
}

/// Adds to the quoted sequence number, and makes the checksum right if it was.
pub fn relabel(packet: &mut [u8], constant: u32) {
    let is_right = read(packet, |_| true).is_some();
    let is_v6 = packet[0] >> 4 == 6;
    let at = if is_v6 { 40 } else { 20 };
    let seq_at = at + 8 + at + 4;
    if !is_right {
        return;
    }
    let Some(octets) = packet.get(seq_at..seq_at + 4) else { return };
    let seq = u32::from_be_bytes([octets[0], octets[1], octets[2], octets[3]]).wrapping_add(constant);
    packet[seq_at..seq_at + 4].copy_from_slice(&seq.to_be_bytes());
    packet[at + 2..at + 4].fill(0);
    let pseudo = if is_v6 { sum(&packet[8..40]) + 58 + (packet.len() - at) as u32 } else { 0 };
    let checksum = !fold(pseudo + sum(&packet[at..]));
    packet[at + 2..at + 4].copy_from_slice(&checksum.to_be_bytes());
}

pub fn sum(octets: &[u8]) -> u32 {
    octets.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]))).sum()
}

pub fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
