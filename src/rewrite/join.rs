//! Segments that follow each other as one super-segment: the reverse of [`Pieces`](super::Pieces), as the kernel's receive
//! offload does it (`tcp_gro_receive`).
//!
//! Cut again, what was joined comes out as it went in: headers must agree in everything that cutting does not set anew. What
//! says more than its octets (SYN, FIN, RST, URG, CWR, ECE) stays alone, and so does a segment whose checksum is wrong: a
//! super-segment has none of its own, and its receiver would believe it.

use super::checksum::{self, Change, Coverage};
use super::flags::Flags;
use super::ip::{Extent, Family, IpLayout, Upper};
use super::octets::{u16_at, u32_at};
use super::offload::Offload;
use super::segment::{ACCURATE_ECN, field};
use std::num::NonZeroU16;
use std::ops::Range;

/// The longest IP packet: what the 16-bit length of IPv4 can say.
const PACKET_BYTES_MAX: usize = 65_535;
const DONT_FRAGMENT: u8 = 0x40;

/// Segments joined so far, at the start of a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Joined {
    ip: IpLayout,
    /// Octets before the payload.
    headers: usize,
    /// Octets of payload of each segment but the last.
    segment_bytes: usize,
    /// Octets of the packet.
    length: usize,
    count: u16,
    /// A shorter segment, or one with PSH, is the last.
    is_complete: bool,
}

/// What is looked at in a segment that may be joined.
struct Candidate {
    ip: IpLayout,
    headers: usize,
    is_pushed: bool,
}

impl Candidate {
    fn of(packet: &[u8]) -> Option<Self> {
        let ip = IpLayout::locate(packet, Upper::Tcp, Extent::Whole).ok()?;
        let has_plain_header = ip.transport()
            == match ip.family {
                Family::V4 => 20,
                Family::V6 => 40,
            };
        let tcp = packet.get(ip.transport()..ip.end())?;
        let data_offset = *tcp.get(field::DATA_OFFSET)?;
        let headers = ip.transport() + 4 * usize::from(data_offset >> 4);
        let flags = Flags(*tcp.get(field::FLAGS)?);
        let says_no_more = flags.without(Flags::PSH) == Flags::ACK && data_offset & ACCURATE_ECN == 0;
        let is_whole = ip.end() == packet.len() && headers >= ip.transport() + field::OPTIONS && headers < packet.len();
        (has_plain_header && says_no_more && is_whole).then_some(Self { ip, headers, is_pushed: flags.contains(Flags::PSH) })
    }

    fn checksums_are_right(&self, packet: &[u8]) -> bool {
        let (source, destination) = (self.ip.source(packet), self.ip.destination(packet));
        let tcp = &packet[self.ip.transport()..];
        self.ip.header_checksum_is_right(packet)
            && checksum::with_pseudo_header(source, destination, Upper::Tcp.number(self.ip.family), tcp) == 0
    }
}

impl Joined {
    /// This packet alone, if others can follow it.
    pub fn begin(packet: &[u8]) -> Option<Self> {
        let first = Candidate::of(packet)?;
        let segment_bytes = packet.len() - first.headers;
        let begun = Self {
            ip: first.ip,
            headers: first.headers,
            segment_bytes,
            length: packet.len(),
            count: 1,
            is_complete: first.is_pushed,
        };
        (!begun.is_complete).then_some(begun)
    }

    /// Whether nothing can follow any more.
    pub const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Adds the packet at `next` of `buffer`, which begins with what was joined so far; whether it belongs there.
    pub fn add(&mut self, buffer: &mut [u8], next: Range<usize>) -> bool {
        if self.is_complete || next.start < self.length {
            return false;
        }
        let (joined, rest) = buffer.split_at_mut(next.start);
        let Some(packet) = rest.get(..next.len()) else { return false };
        let Some(candidate) = Candidate::of(packet) else { return false };
        let payload = packet.len() - candidate.headers;
        let fits = candidate.headers == self.headers
            && candidate.ip.family == self.ip.family
            && payload <= self.segment_bytes
            && self.length + payload <= PACKET_BYTES_MAX
            && self.continues(joined, packet);
        if !fits || !candidate.checksums_are_right(packet) || (self.count == 1 && !self.is_right(joined)) {
            return false;
        }
        buffer.copy_within(next.start + self.headers..next.end, self.length);
        if candidate.is_pushed {
            buffer[self.ip.transport() + field::FLAGS] |= Flags::PSH.0;
        }
        self.length += payload;
        self.count += 1;
        self.is_complete = candidate.is_pushed || payload < self.segment_bytes;
        true
    }

    /// Whether the first segment, before anything was added to it, is what its checksums say.
    fn is_right(&self, joined: &[u8]) -> bool {
        let first = Candidate { ip: self.ip, headers: self.headers, is_pushed: false };
        joined.get(..self.length).is_some_and(|packet| first.checksums_are_right(packet))
    }

    /// Whether the packet's headers say what the next piece's would.
    fn continues(&self, joined: &[u8], packet: &[u8]) -> bool {
        let same = |range: Range<usize>| joined[range.clone()] == packet[range];
        let ip = match self.ip.family {
            Family::V4 => {
                let identification = u16_at(joined, 4).wrapping_add(self.count);
                // It means nothing where nobody may fragment (RFC 6864, section 4.1).
                let follows = joined[6] & DONT_FRAGMENT != 0 || u16_at(packet, 4) == identification;
                same(0..2) && follows && same(6..10) && same(12..20)
            }
            Family::V6 => same(0..4) && same(6..40),
        };
        let tcp = self.ip.transport();
        let seq = u32_at(&joined[tcp..], field::SEQ).wrapping_add((self.length - self.headers) as u32);
        ip && same(tcp..tcp + field::SEQ)
            && u32_at(&packet[tcp..], field::SEQ) == seq
            && same(tcp + field::ACK..tcp + field::FLAGS)
            && same(tcp + field::WINDOW..tcp + field::CHECKSUM)
            // Urgent pointer and options.
            && same(tcp + field::CHECKSUM + 2..self.headers)
    }

    /// Makes the start of `buffer` one packet: its length, and what is left to do for it. What nothing was added to stays as it
    /// is.
    pub fn finish(self, buffer: &mut [u8]) -> (usize, Offload) {
        let segment_bytes = u16::try_from(self.segment_bytes).ok().and_then(NonZeroU16::new);
        let (Some(segment_bytes), true) = (segment_bytes, self.count > 1) else { return (self.length, Offload::NONE) };
        let packet = &mut buffer[..self.length];
        match self.ip.family {
            Family::V4 => {
                packet[2..4].copy_from_slice(&(self.length as u16).to_be_bytes());
                packet[10..12].fill(0);
                let sum = checksum::of(&packet[..20]);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            Family::V6 => packet[4..6].copy_from_slice(&((self.length - 40) as u16).to_be_bytes()),
        }
        let tcp_bytes = self.length - self.ip.transport();
        let (source, destination) = (self.ip.source(packet), self.ip.destination(packet));
        // The sum over the pseudo-header of an empty message, not inverted; then the length.
        let empty = !checksum::with_pseudo_header(source, destination, Upper::Tcp.number(self.ip.family), &[]);
        let change = Change::at(0, [0; 4], (tcp_bytes as u32).to_be_bytes());
        let sum = checksum::updated(empty, checksum::Field::Partial, change, Coverage::PseudoHeader);
        let at = self.ip.transport() + field::CHECKSUM;
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let offload =
            Offload { partial_checksum: Some(self.ip.transport() as u16), segment_bytes: Some(segment_bytes), ecn: false };
        (self.length, offload)
    }
}

#[cfg(test)]
mod tests;
