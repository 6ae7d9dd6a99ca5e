//! What a packet still needs from whoever sends it: its checksum completed, and to be cut into segments.
//!
//! A kernel that hands packets to a device with checksum and segmentation offload leaves both to the device. So do packets
//! on their way through this process: they are read with an [`Offload`], rewritten in place, and written with the same.
//! Whatever is kept, or sent elsewhere than back to the kernel, is made plain first ([`Pieces`]).

use super::checksum::{self, Change, Coverage};
use super::flags::Flags;
use super::ip::{Extent, Family, IpLayout, Upper};
use super::octets::{u16_at, u32_at};
use super::segment::{Malformed, field};
use std::num::NonZeroU16;

/// What is left to do for a packet. [`Offload::NONE`]: nothing, it is plain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offload {
    /// The TCP header begins at this octet, and its checksum field holds the pseudo-header's sum only, not inverted.
    pub partial_checksum: Option<u16>,
    /// A super-segment: to be cut into segments with so many octets of payload.
    pub segment_bytes: Option<NonZeroU16>,
    /// Whoever cuts must know that CWR is for the first segment only (RFC 3168, section 6.1.2).
    pub ecn: bool,
}

impl Offload {
    /// A complete packet that fits the path.
    pub const NONE: Self = Self { partial_checksum: None, segment_bytes: None, ecn: false };

    /// Whether a segment whose TCP header begins where `ip` says can need this.
    pub(super) fn check(&self, ip: IpLayout) -> Result<(), Malformed> {
        match self.partial_checksum {
            Some(start) if usize::from(start) != ip.transport() => Err(Malformed::Offload),
            _ => Ok(()),
        }
    }

    /// What the checksum field holds.
    pub(super) const fn checksum(&self) -> checksum::Field {
        if self.partial_checksum.is_some() { checksum::Field::Partial } else { checksum::Field::Complete }
    }
}

/// A packet as plain ones: complete checksums, and a super-segment cut, as `tcp_gso_segment` of the kernel does it.
///
/// | field | in the pieces |
/// |---|---|
/// | lengths, checksums | their own |
/// | seq | grows by the payload |
/// | FIN, PSH | on the last only |
/// | CWR | on the first only |
/// | IPv4 identification | grows by one |
/// | all else | as in the super-segment |
#[derive(Debug)]
pub struct Pieces<'p> {
    packet: &'p [u8],
    ip: IpLayout,
    checksum: checksum::Field,
    /// Octets before the payload.
    headers: usize,
    /// Octets of payload of each but the last.
    payload_bytes: usize,
    /// Octets of payload that are done.
    done: usize,
    /// Pieces that are done.
    count: u16,
}

impl<'p> Pieces<'p> {
    /// Cuts at `offload.segment_bytes`, or at less where a piece would be longer than `packet_bytes_max`. What is no
    /// super-segment stays in one piece, however long.
    ///
    /// # Errors
    ///
    /// When the packet is no TCP segment, or its TCP header is not where `offload` says.
    pub fn of(packet: &'p [u8], offload: &Offload, packet_bytes_max: usize) -> Result<Self, Malformed> {
        let ip = IpLayout::locate(packet, Upper::Tcp, Extent::Whole)?;
        let tcp = &packet[ip.transport()..ip.end()];
        let headers = ip.transport() + 4 * usize::from(tcp.get(field::DATA_OFFSET).ok_or(Malformed::Truncated)? >> 4);
        if headers < ip.transport() + field::OPTIONS || headers > ip.end() {
            return Err(Malformed::Truncated);
        }
        offload.check(ip)?;
        let payload_bytes = match offload.segment_bytes {
            Some(segment_bytes) => usize::from(segment_bytes.get()).min(packet_bytes_max.saturating_sub(headers)).max(1),
            None => usize::MAX,
        };
        Ok(Self { packet: &packet[..ip.end()], ip, checksum: offload.checksum(), headers, payload_bytes, done: 0, count: 0 })
    }

    /// Writes the next piece to the start of `out` and tells its length; None when there is none left, or no room.
    pub fn write_next(&mut self, out: &mut [u8]) -> Option<usize> {
        let payload = &self.packet[self.headers..];
        if self.count > 0 && self.done >= payload.len() {
            return None;
        }
        let rest = &payload[self.done..];
        let (is_first, is_last) = (self.count == 0, rest.len() <= self.payload_bytes);
        let taken = &rest[..rest.len().min(self.payload_bytes)];
        let length = self.headers + taken.len();
        let out = out.get_mut(..length)?;
        out[..self.headers].copy_from_slice(&self.packet[..self.headers]);
        out[self.headers..].copy_from_slice(taken);
        if !(is_first && is_last) {
            self.set_ip_header(out);
            self.set_tcp_header(out, is_first, is_last);
        }
        match self.checksum {
            checksum::Field::Partial => self.finish_checksum(out),
            // As it came, right or wrong.
            checksum::Field::Complete if is_first && is_last => {}
            checksum::Field::Complete => self.compute_checksum(out),
        }
        self.done += taken.len();
        self.count = self.count.saturating_add(1);
        Some(length)
    }

    fn set_tcp_header(&self, out: &mut [u8], is_first: bool, is_last: bool) {
        let tcp = &mut out[self.ip.transport()..];
        let seq = u32_at(tcp, field::SEQ).wrapping_add(self.done as u32);
        tcp[field::SEQ..field::SEQ + 4].copy_from_slice(&seq.to_be_bytes());
        let mut flags = Flags(tcp[field::FLAGS]);
        if !is_last {
            flags = flags.without(Flags::FIN.with(Flags::PSH));
        }
        if !is_first {
            flags = flags.without(Flags::CWR);
        }
        tcp[field::FLAGS] = flags.0;
    }

    /// Adds the segment to the pseudo-header's sum, in which the length is now the piece's. A wrong sum gives a wrong
    /// checksum.
    fn finish_checksum(&self, out: &mut [u8]) {
        let before = (self.packet.len() - self.ip.transport()) as u32;
        let tcp = &mut out[self.ip.transport()..];
        let change = Change::at(0, before.to_be_bytes(), (tcp.len() as u32).to_be_bytes());
        let sum = checksum::updated(u16_at(tcp, field::CHECKSUM), checksum::Field::Partial, change, Coverage::PseudoHeader);
        tcp[field::CHECKSUM..field::CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
        let checksum = checksum::of(tcp);
        tcp[field::CHECKSUM..field::CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
    }

    fn compute_checksum(&self, out: &mut [u8]) {
        let (source, destination) = (self.ip.source(out), self.ip.destination(out));
        let tcp = &mut out[self.ip.transport()..];
        tcp[field::CHECKSUM..field::CHECKSUM + 2].fill(0);
        let checksum = checksum::with_pseudo_header(source, destination, Upper::Tcp.number(self.ip.family), tcp);
        tcp[field::CHECKSUM..field::CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
    }

    fn set_ip_header(&self, out: &mut [u8]) {
        match self.ip.family {
            Family::V4 => {
                let length = out.len() as u16;
                let identification = u16_at(out, 4).wrapping_add(self.count);
                out[2..4].copy_from_slice(&length.to_be_bytes());
                out[4..6].copy_from_slice(&identification.to_be_bytes());
                out[10..12].fill(0);
                let sum = checksum::of(&out[..self.ip.transport()]);
                out[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            Family::V6 => {
                let length = (out.len() - 40) as u16;
                out[4..6].copy_from_slice(&length.to_be_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests;
