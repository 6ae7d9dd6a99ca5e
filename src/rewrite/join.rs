//! Segments that follow each other as one super-segment: the reverse of [`Pieces`](super::Pieces), as the kernel's receive
//! offload does it (`tcp_gro_receive`).
//!
//! Cut again, what was joined comes out as it went in: headers must agree in everything that cutting does not set anew. What
//! says more than its octets (SYN, FIN, RST, URG, CWR, ECE) stays alone, and so does a segment whose checksum is wrong: a
//! super-segment has none of its own, and its receiver would believe it. What comes from a kernel that leaves checksums to us
//! is joined as well, super-segments with what follows them.

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
    /// A shorter segment, or one with PSH that has been sent already, is the last.
    is_complete: bool,
    /// Their checksums are partial: nobody has to vouch for them.
    is_partial: bool,
}

/// What is looked at in a packet that may be joined: a segment, or a super-segment already.
struct Candidate {
    ip: IpLayout,
    headers: usize,
    payload: usize,
    /// Octets of payload of each of its segments but the last.
    segment_bytes: usize,
    is_pushed: bool,
    is_partial: bool,
}

impl Candidate {
    fn of(packet: &[u8], offload: &Offload) -> Option<Self> {
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
        let payload = packet.len().checked_sub(headers)?;
        let segment_bytes = offload.segment_bytes.map_or(payload, |bytes| usize::from(bytes.get()));
        let is_partial = offload.partial_checksum.is_some();
        // A super-segment has no checksum of its own.
        let is_sound = offload.check(ip).is_ok() && !offload.ecn && (is_partial || offload.segment_bytes.is_none());
        (has_plain_header && says_no_more && is_whole && is_sound).then_some(Self {
            ip,
            headers,
            payload,
            segment_bytes,
            is_pushed: flags.contains(Flags::PSH),
            is_partial,
        })
    }

    /// How many segments it is.
    fn count(&self) -> u16 {
        self.payload.div_ceil(self.segment_bytes) as u16
    }

    /// Whether nothing can follow it: its last segment is shorter than those of `segment_bytes`, or it was pushed. A kernel that
    /// leaves its packets to us is one that has not sent them yet, and who sends should make one PSH of several and the segments
    /// as long as they can be (RFC 9293, section 3.9.1.2, SHLD-27).
    const fn is_last(&self, segment_bytes: usize) -> bool {
        (self.is_pushed && !self.is_partial) || !self.payload.is_multiple_of(segment_bytes)
    }
}

fn checksums_are_right(ip: IpLayout, packet: &[u8]) -> bool {
    let (source, destination) = (ip.source(packet), ip.destination(packet));
    let tcp = &packet[ip.transport()..];
    ip.header_checksum_is_right(packet)
        && checksum::with_pseudo_header(source, destination, Upper::Tcp.number(ip.family), tcp) == 0
}

impl Joined {
    /// This packet alone, if others can follow it.
    pub fn begin(packet: &[u8], offload: &Offload) -> Option<Self> {
        let first = Candidate::of(packet, offload)?;
        (!first.is_last(first.segment_bytes)).then_some(Self {
            ip: first.ip,
            headers: first.headers,
            segment_bytes: first.segment_bytes,
            length: packet.len(),
            count: first.count(),
            is_complete: false,
            is_partial: first.is_partial,
        })
    }

    /// Whether nothing can follow any more.
    pub const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Adds the packet at `next` of `buffer`, which begins with what was joined so far; whether it belongs there.
    pub fn add(&mut self, buffer: &mut [u8], next: Range<usize>) -> bool {
        if next.start < self.length {
            return false;
        }
        let (joined, rest) = buffer.split_at_mut(next.start);
        let Some(packet) = rest.get(..next.len()) else { return false };
        let at = self.length;
        if !self.admit(joined, packet, &Offload::NONE) {
            return false;
        }
        buffer.copy_within(next.start + self.headers..next.end, at);
        true
    }

    /// Adds a packet from elsewhere; `buffer` begins with what was joined so far.
    pub fn append(&mut self, buffer: &mut [u8], packet: &[u8], offload: &Offload) -> bool {
        let at = self.length;
        if buffer.len() < PACKET_BYTES_MAX || !self.admit(buffer, packet, offload) {
            return false;
        }
        buffer[at..self.length].copy_from_slice(&packet[self.headers..]);
        true
    }

    /// Whether the packet belongs behind what was joined so far; then it counts, and its payload is the caller's to move.
    fn admit(&mut self, joined: &mut [u8], packet: &[u8], offload: &Offload) -> bool {
        if self.is_complete {
            return false;
        }
        let Some(candidate) = Candidate::of(packet, offload) else { return false };
        let Candidate { payload, .. } = candidate;
        let is_cut_alike = match offload.segment_bytes {
            Some(_) => candidate.segment_bytes == self.segment_bytes,
            None => payload <= self.segment_bytes,
        };
        let fits = candidate.headers == self.headers
            && candidate.is_partial == self.is_partial
            && is_cut_alike
            && self.length + payload <= PACKET_BYTES_MAX
            && self.continues(joined, packet);
        let is_right = |packet: &[u8]| self.is_partial || checksums_are_right(self.ip, packet);
        // The first one is looked at when the second comes.
        if !fits || !is_right(packet) || (self.count == 1 && !joined.get(..self.length).is_some_and(is_right)) {
            return false;
        }
        if candidate.is_pushed {
            joined[self.ip.transport() + field::FLAGS] |= Flags::PSH.0;
        }
        self.is_complete = candidate.is_last(self.segment_bytes);
        self.length += payload;
        self.count += candidate.count();
        true
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
        let alone = Offload { partial_checksum: self.is_partial.then_some(self.ip.transport() as u16), ..Offload::NONE };
        let segment_bytes = u16::try_from(self.segment_bytes).ok().and_then(NonZeroU16::new);
        let (Some(segment_bytes), true) = (segment_bytes, self.count > 1) else { return (self.length, alone) };
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
