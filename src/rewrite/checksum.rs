//! The Internet checksum (RFC 1071): full sums for segments we build and verify, differences (RFC 1624) for the rest.
//!
//! A checksum field holds the inverted one's complement sum of 16-bit words. In that arithmetic 0x0000 and 0xffff are
//! both zero. A full sum over anything with a word that is not zero comes out as 0xffff, never 0x0000, so the *field*
//! of a correct header is never 0xffff. RFC 1624, equation 3, keeps it that way; the older equation of RFC 1141 does
//! not, which is why there is no subtraction here.

use etherparse::checksum::Sum16BitWords;
use std::net::IpAddr;

/// What overwriting octets does to a one's complement sum over them: `~m + m'` of RFC 1624, folded.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Change(u16);

impl Change {
    /// `old` becomes `new`, the first octet being `offset` octets into what is summed.
    pub fn at<const N: usize>(offset: usize, old: [u8; N], new: [u8; N]) -> Self {
        let sum =
            old.chunks(2).map(|word| u32::from(!word_of(word))).chain(new.chunks(2).map(|word| u32::from(word_of(word)))).sum();
        let change = fold(sum);
        // Octets that start in the middle of a word contribute the same sum with its halves exchanged
        // (RFC 1071, section 2 B). TCP options may lie anywhere.
        Self(if offset.is_multiple_of(2) { change } else { change.swap_bytes() })
    }

    /// Both changes.
    pub fn and(self, other: Self) -> Self {
        Self(fold(u32::from(self.0) + u32::from(other.0)))
    }

    /// The checksum field after the change: `~(~HC + ~m + m')`, RFC 1624, equation 3.
    #[must_use]
    pub fn apply(self, checksum: u16) -> u16 {
        !fold(u32::from(!checksum) + u32::from(self.0))
    }
}

/// What a TCP checksum field holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field {
    /// The checksum of RFC 9293, section 3.1: the inverted sum over pseudo-header and segment.
    Complete,
    /// The sum over the pseudo-header alone, folded and **not inverted**. A device with checksum offload adds the segment
    /// itself.
    Partial,
}

/// How a TCP checksum comes to cover what changes. Every update states which of the two it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coverage {
    /// In the TCP header or payload.
    Segment,
    /// In the pseudo-header: addresses, protocol, length (RFC 9293, section 3.1; RFC 8200, section 8.1).
    PseudoHeader,
}

/// A segment's TCP checksum field after `change`. All updates of TCP checksums go through here.
///
/// A partial checksum follows the pseudo-header only, and without inversion: what changes in the segment is added later, by
/// the device. Like a complete one it keeps its one spelling of zero: a pseudo-header has a word that is not zero, so the
/// sum is 0xffff and never 0x0000.
#[must_use]
pub fn updated(checksum: u16, field: Field, change: Change, coverage: Coverage) -> u16 {
    match (field, coverage) {
        (Field::Complete, Coverage::Segment | Coverage::PseudoHeader) => change.apply(checksum),
        (Field::Partial, Coverage::PseudoHeader) => fold(u32::from(checksum) + u32::from(change.0)),
        (Field::Partial, Coverage::Segment) => checksum,
    }
}

/// The checksum over `bytes`, whose own checksum field is zero; or zero, when the field is in place and right.
#[must_use]
pub fn of(bytes: &[u8]) -> u16 {
    finish(&Sum16BitWords::new().add_slice(bytes))
}

/// The checksum over `message` and the pseudo-header of its addresses and `protocol`; zero, when the field is in
/// place and right.
///
/// `message` is at most 65,535 octets, as IP has it; addresses are of one family.
#[must_use]
pub fn with_pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, message: &[u8]) -> u16 {
    let length = message.len() as u32;
    // The halves of a 32-bit length are summed like two words, so one pseudo-header serves both families.
    let sum = add_address(add_address(Sum16BitWords::new(), source), destination)
        .add_2bytes([0, protocol])
        .add_slice(&length.to_be_bytes())
        .add_slice(message);
    finish(&sum)
}

fn add_address(mut sum: Sum16BitWords, address: IpAddr) -> Sum16BitWords {
    match address {
        IpAddr::V4(address) => sum.add_4bytes(address.octets()),
        IpAddr::V6(address) => sum.add_16bytes(address.octets()),
    }
}

fn finish(sum: &Sum16BitWords) -> u16 {
    // `Sum16BitWords` adds words in the machine's byte order; so is its result.
    u16::from_be(sum.ones_complement())
}

fn word_of(octets: &[u8]) -> u16 {
    u16::from_be_bytes([octets[0], octets.get(1).copied().unwrap_or(0)])
}

/// Adds carries back in. Three additions would do for any `u32`; two do, since the first leaves at most 0x1fffe.
fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_sums_as_printed_there() {
        assert_eq!(of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn an_odd_last_octet_is_padded_with_zero_on_the_right() {
        assert_eq!(of(&[0x12, 0x34, 0x56]), of(&[0x12, 0x34, 0x56, 0x00]));
    }

    #[test]
    fn the_example_of_rfc_1624_gives_zero_where_rfc_1141_gave_all_ones() {
        // Section 4: HC = 0xdd2f, m = 0x5555, m' = 0x3285.
        let change = Change::at(0, [0x55, 0x55], [0x32, 0x85]);
        assert_eq!(change.apply(0xdd2f), 0x0000);
    }

    #[test]
    fn changing_nothing_keeps_every_field_but_the_one_no_sender_writes() {
        let nothing = Change::at(0, [0xab, 0xcd], [0xab, 0xcd]);
        for field in 0..0xffff {
            assert_eq!(nothing.apply(field), field);
        }
        // 0xffff means the same as 0x0000, and comes out in its usual spelling.
        assert_eq!(nothing.apply(0xffff), 0x0000);
    }

    #[test]
    fn every_incremental_update_of_a_word_equals_the_full_sum() {
        for new in 0..=u16::MAX {
            let old = new.wrapping_mul(40_503).rotate_left(3);
            let mut packet = [0x45, 0, 0, 0, 0x12, 0x34];
            packet[2..4].copy_from_slice(&old.to_be_bytes());
            let before = of(&packet);
            packet[2..4].copy_from_slice(&new.to_be_bytes());
            assert_eq!(Change::at(2, old.to_be_bytes(), new.to_be_bytes()).apply(before), of(&packet));
        }
    }

    #[test]
    fn a_change_at_an_odd_place_exchanges_the_halves() {
        let mut packet = [0x45, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07];
        let before = of(&packet);
        packet[3..7].copy_from_slice(&[0xff, 0x80, 0x00, 0x7f]);
        let change = Change::at(3, [0x03, 0x04, 0x05, 0x06], [0xff, 0x80, 0x00, 0x7f]);
        assert_eq!(change.apply(before), of(&packet));
    }

    #[test]
    fn a_single_octet_at_an_odd_place_is_the_low_half() {
        let before = of(&[0x45, 0x10]);
        assert_eq!(Change::at(1, [0x10], [0xfe]).apply(before), of(&[0x45, 0xfe]));
    }

    #[test]
    fn two_changes_together_are_one_change() {
        let first = Change::at(0, [1, 2], [3, 4]);
        let second = Change::at(0, [5, 6], [7, 8]);
        assert_eq!(first.and(second).apply(0x1234), second.apply(first.apply(0x1234)));
    }
}
