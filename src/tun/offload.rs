//! The header with which a TUN with offload hands over packets: `struct virtio_net_hdr`, 10 octets in the machine's order.
//!
//! ```text
//!  0       1          2               4               6                8
//! | flags | gso_type | hdr_len       | gso_size      | csum_start     | csum_offset   |
//! ```
//!
//! Everything in it is checked against the packet behind it. Of what is read nothing but the meaning survives, as an
//! [`Offload`]; what is written is made anew.

use crate::rewrite::{Offload, checksum};
use std::num::NonZeroU16;

/// Octets of the header, and so of the room that a packet needs before it.
pub const HEADER_BYTES: usize = 10;
/// The longest packet IP knows: an IPv6 header and its 16-bit payload length.
pub const PACKET_BYTES_MAX: usize = 40 + 65_535;
/// The longest that can be read or written.
pub const FRAME_BYTES_MAX: usize = HEADER_BYTES + PACKET_BYTES_MAX;

// linux/virtio_net.h
const F_NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

/// Where the checksum is in a TCP header. No other protocol has it there.
const TCP_CHECKSUM: u16 = 16;
/// Where the octet is that tells the length of a TCP header.
const TCP_DATA_OFFSET: usize = 12;

/// A header that does not fit its packet. The kernel writes none; such a packet is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the kernel's header for the packet does not fit it")]
pub struct BadHeader;

/// A packet, room before it for the header, and what is left to do for it.
#[derive(Debug)]
pub struct Frame<'b> {
    bytes: &'b mut [u8],
    offload: Offload,
}

impl<'b> Frame<'b> {
    /// `bytes` are [`HEADER_BYTES`] of room and the packet.
    ///
    /// # Panics
    ///
    /// Without the room: the lengths of buffers are the caller's own.
    pub fn new(bytes: &'b mut [u8], offload: Offload) -> Self {
        assert!(bytes.len() >= HEADER_BYTES, "a frame has room for a header");
        Self { bytes, offload }
    }

    /// The packet.
    pub fn packet(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// The packet, to be rewritten.
    pub fn packet_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[HEADER_BYTES..]
    }

    /// What is left to do for it.
    pub const fn offload(&self) -> Offload {
        self.offload
    }

    /// Header and packet, as the kernel reads them.
    pub(super) fn with_header(&mut self) -> &[u8] {
        let header = header_for(&self.offload, self.packet());
        self.bytes[..HEADER_BYTES].copy_from_slice(&header);
        self.bytes
    }
}

/// What the header at the start of `frame` says about the packet behind it. A partial checksum of another protocol than
/// TCP, which nothing here rewrites, is completed at once.
pub fn read_header(frame: &mut [u8]) -> Result<Offload, BadHeader> {
    let (header, packet) = frame.split_first_chunk_mut::<HEADER_BYTES>().ok_or(BadHeader)?;
    let number = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let (flags, kind, segment_bytes, start, offset) = (header[0], header[1], number(4), number(6), number(8));
    let partial_checksum = match flags & F_NEEDS_CSUM != 0 {
        false => None,
        true => {
            let message = packet.get_mut(usize::from(start)..).ok_or(BadHeader)?;
            let field = usize::from(offset);
            if message.len() < field + 2 {
                return Err(BadHeader);
            }
            if offset == TCP_CHECKSUM {
                Some(start)
            } else {
                let sum = checksum::of(message).to_be_bytes();
                message[field..field + 2].copy_from_slice(&sum);
                None
            }
        }
    };
    let version = packet.first().map(|octet| octet >> 4);
    let segment_bytes = match (kind & !GSO_ECN, version) {
        (GSO_NONE, _) => None,
        (GSO_TCPV4, Some(4)) | (GSO_TCPV6, Some(6)) => Some(NonZeroU16::new(segment_bytes).ok_or(BadHeader)?),
        _ => return Err(BadHeader),
    };
    Ok(Offload { partial_checksum, segment_bytes, ecn: segment_bytes.is_some() && kind & GSO_ECN != 0 })
}

fn header_for(offload: &Offload, packet: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let mut put = |at: usize, value: u16| header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    let mut headers = 0;
    if let Some(start) = offload.partial_checksum {
        let data_offset = packet.get(usize::from(start) + TCP_DATA_OFFSET).map_or(0, |octet| u16::from(octet >> 4));
        headers = start.saturating_add(4 * data_offset);
        put(6, start);
        put(8, TCP_CHECKSUM);
    }
    if let Some(segment_bytes) = offload.segment_bytes {
        put(2, headers);
        put(4, segment_bytes.get());
    }
    if offload.partial_checksum.is_some() {
        header[0] = F_NEEDS_CSUM;
    }
    if offload.segment_bytes.is_some() {
        let kind = if packet.first().is_some_and(|octet| octet >> 4 == 6) { GSO_TCPV6 } else { GSO_TCPV4 };
        header[1] = kind | if offload.ecn { GSO_ECN } else { 0 };
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A header and a packet of this version, 200 octets long.
    fn frame(flags: u8, kind: u8, numbers: [u16; 4], version: u8) -> Vec<u8> {
        let mut frame = vec![flags, kind];
        frame.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
        frame.push(version << 4);
        frame.resize(HEADER_BYTES + 200, 0x50);
        frame
    }

    #[test]
    fn a_plain_packet_needs_nothing_and_its_header_is_zero() {
        assert_eq!(read_header(&mut frame(0, 0, [0; 4], 4)), Ok(Offload::NONE));
        assert_eq!(header_for(&Offload::NONE, &[0x45; 40]), [0; HEADER_BYTES]);
        // That a device has verified the checksum is no work left to do.
        assert_eq!(read_header(&mut frame(2, 0, [0; 4], 4)), Ok(Offload::NONE));
    }

    #[test]
    fn what_is_read_is_written_with_the_length_of_the_headers_made_anew() {
        for (version, kind) in [(4, GSO_TCPV4), (6, GSO_TCPV6), (6, GSO_TCPV6 | GSO_ECN)] {
            let mut bytes = frame(F_NEEDS_CSUM, kind, [9_999, 1_400, 40, 16], version);
            let offload = read_header(&mut bytes).unwrap();
            assert_eq!(offload.partial_checksum, Some(40));
            assert_eq!(offload.segment_bytes.map(NonZeroU16::get), Some(1_400));
            assert_eq!(offload.ecn, kind & GSO_ECN != 0);
            let written = Frame::new(&mut bytes, offload).with_header().to_vec();
            assert_eq!(written, frame(F_NEEDS_CSUM, kind, [40 + 20, 1_400, 40, 16], version));
        }
    }

    #[test]
    fn a_header_that_does_not_fit_its_packet_is_refused() {
        for (flags, kind, numbers, version) in [
            (0, GSO_TCPV4, [0, 0, 0, 0], 4),
            (0, GSO_TCPV4, [0, 1_400, 0, 0], 6),
            (0, GSO_TCPV6, [0, 1_400, 0, 0], 4),
            (0, 3, [0, 1_400, 0, 0], 4),
            (0, 5, [0, 1_400, 0, 0], 4),
            (F_NEEDS_CSUM, 0, [0, 0, 183, 16], 4),
            (F_NEEDS_CSUM, 0, [0, 0, 201, 16], 4),
            (F_NEEDS_CSUM, 0, [0, 0, 20, u16::MAX], 4),
        ] {
            assert_eq!(read_header(&mut frame(flags, kind, numbers, version)), Err(BadHeader), "{flags} {kind} {numbers:?}");
        }
        assert_eq!(read_header(&mut [0; HEADER_BYTES - 1]), Err(BadHeader));
    }

    #[test]
    fn a_partial_checksum_of_another_protocol_is_completed_at_once() {
        use etherparse::PacketBuilder;
        let (source, destination) = ([192, 0, 2, 1], [192, 0, 2, 2]);
        let mut packet = Vec::new();
        PacketBuilder::ipv4(source, destination, 64).udp(9, 53).write(&mut packet, b"question").unwrap();
        let right = packet[26..28].to_vec();
        // The pseudo-header's sum: addresses, protocol, length.
        let sum = 0xc000 + 0x0201 + 0xc000 + 0x0202 + 17 + 16_u32;
        let sum = (sum & 0xffff) + (sum >> 16);
        packet[26..28].copy_from_slice(&(sum as u16).to_be_bytes());
        let header = frame(F_NEEDS_CSUM, 0, [0, 0, 20, 6], 4);
        let mut bytes = [&header[..HEADER_BYTES], &packet].concat();
        assert_eq!(read_header(&mut bytes), Ok(Offload::NONE));
        assert_eq!(bytes[HEADER_BYTES + 26..HEADER_BYTES + 28], right);
    }

    proptest! {
        #[test]
        fn no_header_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..100), start in 0_u16..100, offset in 0_u16..100) {
            if let Some(numbers) = bytes.get_mut(6..HEADER_BYTES) {
                numbers[..2].copy_from_slice(&start.to_ne_bytes());
                numbers[2..].copy_from_slice(&offset.to_ne_bytes());
            }
            if let Ok(offload) = read_header(&mut bytes) {
                Frame::new(&mut bytes, offload).with_header();
            }
        }
    }
}
