//! Fixed-size reads from a packet whose lengths have been validated, and the one write.

use super::checksum::Change;

/// `N` octets at `at`. The caller has validated that they are there.
pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// The 16-bit number at `at`.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array_at(bytes, at))
}

/// The 32-bit number at `at`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array_at(bytes, at))
}

/// Overwrites `N` octets at `at`; the returned change must go into every checksum that covers them.
///
/// `at` counts from an even place of whatever the checksum is summed over. Everything here does: IP headers and TCP
/// headers are whole numbers of 32-bit words long, and an ICMP header is 8 octets.
pub(super) fn replace<const N: usize>(bytes: &mut [u8], at: usize, new: [u8; N]) -> Change {
    let old = array_at(bytes, at);
    bytes[at..at + N].copy_from_slice(&new);
    Change::at(at, old, new)
}
