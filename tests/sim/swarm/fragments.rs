//! IPv4 fragments (RFC 791, section 3.2): a path that makes them, and a host that puts them together.

use super::errors::{fold, sum};
use std::collections::BTreeMap;

const HEADER: usize = 20;
/// Linux waits that long for the rest (`ipfrag_time`).
const PATIENCE: u64 = 30_000_000;

pub fn is_fragment(packet: &[u8]) -> bool {
    packet.len() >= HEADER && packet[0] == 0x45 && u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0
}

/// Whether it has the ports.
pub fn is_first(packet: &[u8]) -> bool {
    u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff == 0
}

/// An IPv4 packet in two pieces; the first has so many octets behind its IP header, rounded down to eight.
pub fn cut(packet: &[u8], first: usize, id: u16) -> [Vec<u8>; 2] {
    let first = first & !7;
    let piece = |range: std::ops::Range<usize>, has_more: bool| {
        let mut piece = packet[..HEADER].to_vec();
        piece.extend(&packet[HEADER + range.start..HEADER + range.end]);
        let field = (range.start / 8) as u16 | if has_more { 0x2000 } else { 0 };
        let length = piece.len() as u16;
        piece[2..4].copy_from_slice(&length.to_be_bytes());
        piece[4..6].copy_from_slice(&id.to_be_bytes());
        piece[6..8].copy_from_slice(&field.to_be_bytes());
        set_checksum(&mut piece);
        piece
    };
    [piece(0..first, true), piece(first..packet.len() - HEADER, false)]
}

fn set_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let checksum = !fold(sum(&packet[..HEADER]));
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Fragments that wait for others, by addresses, protocol and identification.
#[derive(Default)]
pub struct Reassembly {
    waiting: BTreeMap<Vec<u8>, (u64, Vec<Vec<u8>>)>,
}

impl Reassembly {
    /// The whole packet, if this was the last of its fragments to come.
    pub fn take(&mut self, fragment: Vec<u8>, now: u64) -> Option<Vec<u8>> {
        if fold(sum(&fragment[..HEADER])) != 0xffff
            || usize::from(u16::from_be_bytes([fragment[2], fragment[3]])) != fragment.len()
        {
            return None;
        }
        self.waiting.retain(|_, (since, _)| now < *since + PATIENCE);
        let key = [&fragment[4..6], &fragment[9..10], &fragment[12..20]].concat();
        let (_, pieces) = self.waiting.entry(key.clone()).or_insert((now, Vec::new()));
        pieces.push(fragment);
        pieces.sort_by_key(|piece| u16::from_be_bytes([piece[6], piece[7]]) & 0x1fff);
        let mut whole = pieces[0][..HEADER].to_vec();
        let mut is_complete = false;
        for piece in pieces.iter() {
            let field = u16::from_be_bytes([piece[6], piece[7]]);
            let at = usize::from(field & 0x1fff) * 8;
            // What came twice is whole all the same.
            if HEADER + at < whole.len() {
                continue;
            }
            if HEADER + at > whole.len() {
                return None;
            }
            whole.extend(&piece[HEADER..]);
            is_complete = field & 0x2000 == 0;
        }
        if !is_complete {
            return None;
        }
        self.waiting.remove(&key);
        let length = whole.len() as u16;
        whole[2..4].copy_from_slice(&length.to_be_bytes());
        whole[6..8].fill(0);
        set_checksum(&mut whole);
        Some(whole)
    }
}
