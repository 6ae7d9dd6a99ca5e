//! Explicit congestion notification (RFC 3168) around smoltcp, which has none: the handshake, ECT on what carries octets, the
//! echo of marks, and CWR. That a sender slows down is left out.

use super::errors::{fold, sum};
use baton::flow::Endpoint;
use baton::rewrite::{Flags, Leg, Segment};
use std::collections::BTreeMap;

/// The ECN bits of an IP header.
pub const ECT: u8 = 2;
pub const CE: u8 = 3;

#[derive(Clone, Copy, Default)]
struct State {
    /// The SYN asked for it.
    is_asked: bool,
    is_agreed: bool,
    /// A mark came, and no CWR since.
    echoes: bool,
    /// The other end echoes a mark that was not answered yet.
    owes_cwr: bool,
}

/// One host's connections, by its own end and the other.
#[derive(Default)]
pub struct Ecn {
    connections: BTreeMap<(Endpoint, Endpoint), State>,
    pub is_spoken: bool,
    /// Marks that came.
    pub marks: u64,
    /// Marks that the other end said came.
    pub echoes: u64,
}

impl Ecn {
    pub fn new(is_spoken: bool) -> Self {
        Self { is_spoken, ..Self::default() }
    }

    /// A packet that the host sends.
    pub fn outward<L: Leg>(&mut self, packet: &mut [u8]) {
        if !self.is_spoken {
            return;
        }
        let Ok(mut segment) = Segment::<_, L>::parse(&mut *packet) else { return };
        let (ends, flags) = ((segment.source(), segment.destination()), segment.flags());
        if flags.contains(Flags::RST) {
            return;
        }
        let state = self.connections.entry(ends).or_default();
        let both = Flags::ECE.with(Flags::CWR);
        let (add, has_octets) = match (flags.contains(Flags::SYN), flags.contains(Flags::ACK)) {
            (true, false) => {
                *state = State { is_asked: true, ..State::default() };
                (both, false)
            }
            (true, true) if state.is_asked => {
                state.is_agreed = true;
                (Flags::ECE, false)
            }
            (false, _) if state.is_agreed => {
                let mut add = if state.echoes { Flags::ECE } else { Flags(0) };
                let has_octets = !segment.payload().is_empty();
                if has_octets && std::mem::take(&mut state.owes_cwr) {
                    add = add.with(Flags::CWR);
                }
                (add, has_octets)
            }
            _ => return,
        };
        segment.set_flags(flags.with(add));
        if has_octets {
            mark(packet, ECT);
        }
    }

    /// A sound packet that the host receives.
    pub fn inward<L: Leg>(&mut self, packet: &[u8]) {
        let Ok(segment) = Segment::<_, L>::parse(packet) else { return };
        if !self.is_spoken || !segment.checksums_are_right() {
            return;
        }
        let (ends, flags) = ((segment.destination(), segment.source()), segment.flags());
        let state = self.connections.entry(ends).or_default();
        if flags.contains(Flags::SYN) {
            let both = Flags::ECE.with(Flags::CWR);
            if !flags.contains(Flags::ACK) {
                *state = State { is_asked: flags.contains(both), ..State::default() };
            } else if state.is_asked && flags.contains(Flags::ECE) && !flags.contains(Flags::CWR) {
                state.is_agreed = true;
            }
            return;
        }
        if !state.is_agreed {
            return;
        }
        if flags.contains(Flags::CWR) {
            state.echoes = false;
        }
        if bits(packet) == CE {
            self.marks += 1;
            state.echoes = true;
        }
        if flags.contains(Flags::ECE) {
            self.echoes += 1;
            state.owes_cwr = true;
        }
    }
}

pub fn bits(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 { packet[1] & 3 } else { packet[1] >> 4 & 3 }
}

/// Sets the ECN bits, and an IPv4 header's checksum.
pub fn mark(packet: &mut [u8], to: u8) {
    if packet[0] >> 4 == 4 {
        packet[1] = packet[1] & !3 | to;
        packet[10..12].fill(0);
        let checksum = !fold(sum(&packet[..20]));
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        packet[1] = packet[1] & !0x30 | to << 4;
    }
}
