//! A second opinion on checksums and on where things are in a packet: written for reading, not for speed, and sharing no
//! code with `rewrite`.

use std::net::IpAddr;

pub const TCP: u8 = 6;
pub const ICMP: u8 = 1;
pub const ICMP_V6: u8 = 58;

/// The sum of 16-bit words modulo 65,535: one's complement arithmetic in which both zeros are 0.
pub fn residue(octets: &[u8]) -> u32 {
    let word = |word: &[u8]| u32::from(word[0]) << 8 | word.get(1).copied().map_or(0, u32::from);
    octets.chunks(2).map(word).fold(0, |sum, word| (sum + word) % 0xffff)
}

/// The residue of the pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1).
pub fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u32 {
    let address = |address: IpAddr| match address {
        IpAddr::V4(address) => residue(&address.octets()),
        IpAddr::V6(address) => residue(&address.octets()),
    };
    (address(source) + address(destination) + u32::from(protocol) + length as u32 % 0xffff) % 0xffff
}

/// Source and destination of a packet that is one.
pub fn addresses(packet: &[u8]) -> (IpAddr, IpAddr) {
    let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).expect("four octets"));
    let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).expect("sixteen octets"));
    if packet[0] >> 4 == 4 { (v4(12), v4(16)) } else { (v6(8), v6(24)) }
}

/// Octets of the IP header and the extension headers before `protocol`; none if it is not there.
pub fn transport(packet: &[u8], protocol: u8) -> Option<usize> {
    if packet.first()? >> 4 == 4 {
        return (*packet.get(9)? == protocol).then_some(usize::from(packet[0] & 15) * 4);
    }
    let (mut header, mut at) = (*packet.get(6)?, 40);
    for _ in 0..64 {
        if header == protocol {
            return Some(at);
        }
        let length = match header {
            0 | 43 | 60 => 8 + 8 * usize::from(*packet.get(at + 1)?),
            44 => 8,
            _ => return None,
        };
        header = *packet.get(at)?;
        at += length;
    }
    None
}

/// The residue of the IPv4 header: 0 when its checksum is right. IPv6 has none.
pub fn ip_residue(packet: &[u8]) -> u32 {
    if packet[0] >> 4 == 4 { residue(&packet[..usize::from(packet[0] & 15) * 4]) } else { 0 }
}

/// The residue of what an upper-layer checksum covers, the checksum included: 0 when it is right.
pub fn upper_residue(packet: &[u8], at: usize, protocol: u8) -> u32 {
    let (source, destination) = addresses(packet);
    let message = &packet[at..];
    match protocol {
        ICMP => residue(message),
        _ => (pseudo(source, destination, protocol, message.len()) + residue(message)) % 0xffff,
    }
}

/// Writes the checksum that makes `upper_residue` 0 to `field` octets behind `at`, if there is one.
pub fn repair_upper(packet: &mut [u8], at: usize, protocol: u8, field: usize) {
    if packet.len() < at + field + 2 {
        return;
    }
    packet[at + field..at + field + 2].fill(0);
    let sum = upper_residue(packet, at, protocol);
    // Never 0xffff, as no sender writes it; a sum of zero words only does not occur behind an IP header.
    let checksum = if sum == 0 { 0 } else { !(sum as u16) };
    packet[at + field..at + field + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Makes the checksum of an IPv4 header right, if there is a whole header.
pub fn repair_ip(packet: &mut [u8]) {
    let header = packet.first().map_or(0, |first| usize::from(first & 15) * 4);
    if packet.first().is_some_and(|first| first >> 4 == 4) && header >= 20 && packet.len() >= header {
        packet[10..12].fill(0);
        let sum = residue(&packet[..header]);
        let checksum = if sum == 0 { 0 } else { !(sum as u16) };
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Cuts or fills a packet to what its IP header says it is, if that can be.
pub fn declared_len(packet: &[u8]) -> Option<usize> {
    let number = |at: usize| Some(usize::from(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?])));
    match packet.first()? >> 4 {
        4 => number(2),
        6 => Some(number(4)? + 40),
        _ => None,
    }
}
