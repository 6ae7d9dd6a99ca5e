//! TCP segments and the ICMP errors about them, built and read from their definitions.
//!
//! Knows RFC 9293, 791, 8200, 792 and 4443. Must not know baton's code: a mistake there must not hide itself here.

use std::net::{IpAddr, SocketAddr};

/// Flags by their bit in the octet.
pub mod flag {
    #![allow(missing_docs)]
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const PSH: u8 = 8;
    pub const ACK: u8 = 16;
    pub const URG: u8 = 32;
    pub const ECE: u8 = 64;
    pub const CWR: u8 = 128;
}

/// A TCP option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TcpOption {
    /// Kind 1.
    Nop,
    /// Kind 0: the rest is padding.
    End,
    /// Kind 2.
    Mss(u16),
    /// Kind 3.
    WindowScale(u8),
    /// Kind 4.
    SackPermitted,
    /// Kind 5: left and right edges.
    Sack(Vec<(u32, u32)>),
    /// Kind 8: TSval and TSecr.
    Timestamps(u32, u32),
    /// Any other kind with its octets.
    Other(u8, Vec<u8>),
}

/// A TCP segment in its IP packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Sender.
    pub source: SocketAddr,
    /// Receiver; same family.
    pub destination: SocketAddr,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// See [`flag`].
    pub flags: u8,
    /// The four bits before them.
    pub reserved: u8,
    /// As on the wire.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// In their order.
    pub options: Vec<TcpOption>,
    /// Octets.
    pub payload: Vec<u8>,
    /// The two ECN bits of the IP header: 0 none, 1 ECT(1), 2 ECT(0), 3 CE.
    pub ecn: u8,
}

/// What came out of a TUN device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Received {
    /// A segment.
    Segment(Segment),
    /// Something else, in words.
    Other(String),
}

impl Segment {
    /// Whether it has one of these flags.
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// Sequence numbers it takes.
    pub fn length(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.has(flag::SYN)) + u32::from(self.has(flag::FIN))
    }

    /// TSval and TSecr.
    pub fn timestamps(&self) -> Option<(u32, u32)> {
        self.options.iter().find_map(|option| match option {
            TcpOption::Timestamps(value, echo) => Some((*value, *echo)),
            _ => None,
        })
    }

    /// The packet, with its checksums.
    pub fn build(&self) -> Vec<u8> {
        let mut tcp = Vec::new();
        tcp.extend(self.source.port().to_be_bytes());
        tcp.extend(self.destination.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        let mut options = Vec::new();
        for option in &self.options {
            append_option(&mut options, option);
        }
        options.resize(options.len().div_ceil(4) * 4, 0);
        tcp.push((((20 + options.len()) / 4) as u8) << 4 | self.reserved);
        tcp.push(self.flags);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0, 0]);
        tcp.extend(self.urgent.to_be_bytes());
        tcp.extend(options);
        tcp.extend(&self.payload);
        let sum = !sum(&tcp, pseudo_header(self.source.ip(), self.destination.ip(), 6, tcp.len()));
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        in_ip(self.source.ip(), self.destination.ip(), 6, self.ecn, &tcp)
    }

    /// # Errors
    ///
    /// What is wrong with it, checksums included.
    pub fn parse(packet: &[u8]) -> Result<Received, String> {
        let (source, destination, protocol, ecn, upper) = open_ip(packet)?;
        if protocol != 6 {
            return Ok(Received::Other(describe_other(protocol, upper)));
        }
        let word = |at: usize| u16::from_be_bytes([upper[at], upper[at + 1]]);
        let long = |at: usize| u32::from(word(at)) << 16 | u32::from(word(at + 2));
        if upper.len() < 20 {
            return Err(format!("a TCP header of {} octets", upper.len()));
        }
        if sum(upper, pseudo_header(source, destination, 6, upper.len())) != 0xffff {
            return Err(format!("a wrong TCP checksum, {:#06x}", word(16)));
        }
        let header = usize::from(upper[12] >> 4) * 4;
        if header < 20 || header > upper.len() {
            return Err(format!("a TCP header of {header} octets in {}", upper.len()));
        }
        Ok(Received::Segment(Self {
            source: SocketAddr::new(source, word(0)),
            destination: SocketAddr::new(destination, word(2)),
            seq: long(4),
            ack: long(8),
            flags: upper[13],
            reserved: upper[12] & 15,
            window: word(14),
            urgent: word(18),
            options: read_options(&upper[20..header])?,
            payload: upper[header..].to_vec(),
            ecn,
        }))
    }
}

/// An ICMP error of `router` that quotes the beginning of a packet.
pub fn too_big(router: IpAddr, quoted: &[u8], mtu: u16) -> Vec<u8> {
    let to = open_ip(quoted).map(|opened| opened.0).unwrap_or(router);
    let mut message = match router {
        // Destination unreachable, fragmentation needed and DF set (RFC 1191, section 4).
        IpAddr::V4(_) => vec![3, 4, 0, 0, 0, 0, (mtu >> 8) as u8, mtu as u8],
        // Packet too big (RFC 4443, section 3.2).
        IpAddr::V6(_) => vec![2, 0, 0, 0, 0, 0, (mtu >> 8) as u8, mtu as u8],
    };
    // IPv4: the header and 8 octets (RFC 792). IPv6: as much as fits.
    let quote = if router.is_ipv4() { 28 } else { 1_000 };
    message.extend(&quoted[..quoted.len().min(quote)]);
    let protocol = if router.is_ipv4() { 1 } else { 58 };
    let start = if router.is_ipv4() { 0 } else { pseudo_header(router, to, protocol, message.len()) };
    let sum = !sum(&message, start);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    in_ip(router, to, protocol, 0, &message)
}

/// The receiver of a packet, if it is one.
pub fn destination_of(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?)),
        6 => Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?)),
        _ => None,
    }
}

fn append_option(to: &mut Vec<u8>, option: &TcpOption) {
    match option {
        TcpOption::Nop => to.push(1),
        TcpOption::End => to.push(0),
        TcpOption::Mss(octets) => {
            to.extend([2, 4]);
            to.extend(octets.to_be_bytes());
        }
        TcpOption::WindowScale(shift) => to.extend([3, 3, *shift]),
        TcpOption::SackPermitted => to.extend([4, 2]),
        TcpOption::Sack(blocks) => {
            to.extend([5, 2 + 8 * blocks.len() as u8]);
            for (left, right) in blocks {
                to.extend(left.to_be_bytes());
                to.extend(right.to_be_bytes());
            }
        }
        TcpOption::Timestamps(value, echo) => {
            to.extend([8, 10]);
            to.extend(value.to_be_bytes());
            to.extend(echo.to_be_bytes());
        }
        TcpOption::Other(kind, octets) => {
            to.extend([*kind, 2 + octets.len() as u8]);
            to.extend(octets);
        }
    }
}

fn read_options(mut octets: &[u8]) -> Result<Vec<TcpOption>, String> {
    let mut options = Vec::new();
    while let Some(kind) = octets.first() {
        let length = match kind {
            0 => {
                options.push(TcpOption::End);
                break;
            }
            1 => {
                options.push(TcpOption::Nop);
                octets = &octets[1..];
                continue;
            }
            _ => usize::from(*octets.get(1).ok_or("an option without length")?),
        };
        let body = octets.get(2..length).ok_or_else(|| format!("an option of kind {kind} and length {length}"))?;
        let long = |at: usize| u32::from_be_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
        options.push(match (kind, body.len()) {
            (2, 2) => TcpOption::Mss(u16::from_be_bytes([body[0], body[1]])),
            (3, 1) => TcpOption::WindowScale(body[0]),
            (4, 0) => TcpOption::SackPermitted,
            (5, 8 | 16 | 24 | 32) => {
                TcpOption::Sack((0..body.len() / 8).map(|block| (long(block * 8), long(block * 8 + 4))).collect())
            }
            (8, 8) => TcpOption::Timestamps(long(0), long(4)),
            _ => TcpOption::Other(*kind, body.to_vec()),
        });
        octets = &octets[length..];
    }
    Ok(options)
}

fn describe_other(protocol: u8, upper: &[u8]) -> String {
    match protocol {
        1 | 58 => format!("ICMP type {} code {}", upper.first().unwrap_or(&0), upper.get(1).unwrap_or(&0)),
        _ => format!("a packet of protocol {protocol}"),
    }
}

/// One's complement sum of 16-bit words (RFC 1071), begun with `start`.
fn sum(octets: &[u8], start: u64) -> u16 {
    let words = octets.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    let mut sum = start + words.sum::<u64>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u64 {
    let of = |address: IpAddr| match address {
        IpAddr::V4(address) => u64::from(sum(&address.octets(), 0)),
        IpAddr::V6(address) => u64::from(sum(&address.octets(), 0)),
    };
    of(source) + of(destination) + u64::from(protocol) + length as u64
}

fn in_ip(source: IpAddr, destination: IpAddr, protocol: u8, ecn: u8, upper: &[u8]) -> Vec<u8> {
    let mut packet;
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet = vec![0x45, ecn, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
            packet[2..4].copy_from_slice(&(20 + upper.len() as u16).to_be_bytes());
            packet.extend(source.octets());
            packet.extend(destination.octets());
            let sum = !sum(&packet, 0);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet = vec![0x60, ecn << 4, 0, 0, 0, 0, protocol, 64];
            packet[4..6].copy_from_slice(&(upper.len() as u16).to_be_bytes());
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        _ => panic!("{source} and {destination} are of different families"),
    }
    packet.extend(upper);
    packet
}

type Opened<'a> = (IpAddr, IpAddr, u8, u8, &'a [u8]);

/// Source, destination, protocol, ECN and what is inside.
fn open_ip(packet: &[u8]) -> Result<Opened<'_>, String> {
    let version = packet.first().map_or(0, |first| first >> 4);
    let word = |at: usize| usize::from(packet[at]) << 8 | usize::from(packet[at + 1]);
    match version {
        4 if packet.len() >= 20 => {
            let header = usize::from(packet[0] & 15) * 4;
            let total = word(2);
            if header < 20 || total < header || total > packet.len() {
                return Err(format!("an IPv4 header of {header} octets that tells {total} of {}", packet.len()));
            }
            if sum(&packet[..header], 0) != 0xffff {
                return Err("a wrong IPv4 header checksum".to_owned());
            }
            let address = |at: usize| IpAddr::from([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
            Ok((address(12), address(16), packet[9], packet[1] & 3, &packet[header..total]))
        }
        6 if packet.len() >= 40 => {
            let end = 40 + word(4);
            let upper = packet.get(40..end).ok_or_else(|| format!("an IPv6 packet of {end} octets in {}", packet.len()))?;
            let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap_or_default());
            Ok((address(8), address(24), packet[6], packet[1] >> 4 & 3, upper))
        }
        _ => Err(format!("no IP packet: {} octets, version {version}", packet.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(family: u8) -> Segment {
        let ends = if family == 4 { ["192.0.2.7:1024", "198.51.100.1:80"] } else { ["[2001:db8::7]:1024", "[2001:db8::1]:80"] };
        let [source, destination] = ends.map(|end| end.parse().expect("an endpoint"));
        Segment {
            source,
            destination,
            seq: 0xffff_fff0,
            ack: 17,
            flags: flag::ACK | flag::PSH,
            reserved: 0,
            window: 257,
            urgent: 0,
            options: vec![
                TcpOption::Nop,
                TcpOption::Nop,
                TcpOption::Timestamps(1, 2),
                TcpOption::Nop,
                TcpOption::Nop,
                TcpOption::Sack(vec![(5, 6), (7, 8)]),
            ],
            payload: b"odd".to_vec(),
            ecn: 2,
        }
    }

    #[test]
    fn what_is_built_reads_back() {
        for family in [4, 6] {
            assert_eq!(Segment::parse(&segment(family).build()), Ok(Received::Segment(segment(family))));
        }
    }

    #[test]
    fn a_changed_bit_behind_the_version_is_seen() {
        let packet = segment(4).build();
        for bit in 8..packet.len() * 8 {
            let mut damaged = packet.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Segment::parse(&damaged).is_err(), "bit {bit}");
        }
    }

    /// The example of RFC 1071, section 3.
    #[test]
    fn the_sum_is_that_of_the_rfc() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0), 0xddf2);
    }
}
