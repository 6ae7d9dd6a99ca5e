//! Kernels made to count as their clients were promised: constants added at the edge so that every shift is zero.
//!
//! Independent of the translation under test: plain octets, and checksums made anew.

use baton::flow::Endpoint;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug)]
struct Constants {
    isn: u32,
    seq: u32,
    clock: u32,
}

/// Constants of each replayed connection of a kernel, by its ends.
#[derive(Default)]
pub struct Relabel {
    by_ends: BTreeMap<(Endpoint, Endpoint), Constants>,
}

impl Relabel {
    /// The kernel's own SYN-ACK: from now on its ISN is `isn`, and its clock shows `tsval` at this moment.
    pub fn learn(&mut self, ends: (Endpoint, Endpoint), kernel: (u32, u32), promised: (u32, u32)) {
        let constants =
            Constants { isn: kernel.0, seq: promised.0.wrapping_sub(kernel.0), clock: promised.1.wrapping_sub(kernel.1) };
        self.by_ends.insert(ends, constants);
    }

    /// Whether that ISN of the kernel is the one that was learned.
    pub fn knows(&self, ends: (Endpoint, Endpoint), isn: u32) -> bool {
        self.by_ends.get(&ends).is_some_and(|constants| constants.isn == isn)
    }

    /// A packet of the kernel.
    pub fn outward(&self, ends: (Endpoint, Endpoint), packet: &mut [u8]) {
        let Some(constants) = self.by_ends.get(&ends) else { return };
        change(packet, |tcp| {
            add(tcp, 4, constants.seq);
            for (kind, at) in options(tcp) {
                if kind == 8 {
                    add(tcp, at + 2, constants.clock);
                }
            }
        });
    }

    /// An ICMP error for the kernel, about what a connection sent.
    pub fn inward_error(&self, ends: (Endpoint, Endpoint), packet: &mut [u8]) {
        if let Some(constants) = self.by_ends.get(&ends) {
            super::errors::relabel(packet, constants.seq.wrapping_neg());
        }
    }

    /// A packet for the kernel.
    pub fn inward(&self, ends: (Endpoint, Endpoint), packet: &mut [u8]) {
        let Some(constants) = self.by_ends.get(&ends) else { return };
        change(packet, |tcp| {
            if tcp[13] & 0x10 != 0 {
                add(tcp, 8, constants.seq.wrapping_neg());
            }
            for (kind, at) in options(tcp) {
                let echo = u32::from_be_bytes([tcp[at + 6], tcp[at + 7], tcp[at + 8], tcp[at + 9]]);
                match kind {
                    8 if echo != 0 => add(tcp, at + 6, constants.clock.wrapping_neg()),
                    5 => {
                        for block in (at + 2..at + usize::from(tcp[at + 1])).step_by(4) {
                            add(tcp, block, constants.seq.wrapping_neg());
                        }
                    }
                    _ => {}
                }
            }
        });
    }
}

/// Kind and place of the options that are changed.
fn options(tcp: &[u8]) -> Vec<(u8, usize)> {
    let end = usize::from(tcp[12] >> 4) * 4;
    let (mut at, mut found) = (20, Vec::new());
    while at < end {
        match tcp[at] {
            0 => break,
            1 => at += 1,
            kind => {
                if kind == 8 || kind == 5 {
                    found.push((kind, at));
                }
                at += usize::from(tcp[at + 1]).max(2);
            }
        }
    }
    found
}

fn add(tcp: &mut [u8], at: usize, constant: u32) {
    let number = u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]).wrapping_add(constant);
    tcp[at..at + 4].copy_from_slice(&number.to_be_bytes());
}

/// Changes a packet whose checksum is right, and makes it right again.
fn change(packet: &mut [u8], how: impl FnOnce(&mut [u8])) {
    let (addresses, at) = if packet[0] >> 4 == 4 { (12..20, 20) } else { (8..40, 40) };
    let pseudo: u32 = sum(&packet[addresses]) + 6 + (packet.len() - at) as u32;
    let tcp = &mut packet[at..];
    if fold(pseudo + sum(tcp)) != 0xffff {
        return;
    }
    how(tcp);
    tcp[16..18].fill(0);
    let checksum = !fold(pseudo + sum(tcp));
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
}

fn sum(octets: &[u8]) -> u32 {
    octets.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
