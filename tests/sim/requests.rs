//! What Linux keeps of handshakes that are not complete, where smoltcp does otherwise: it answers a repeated SYN, believes
//! echoes of its own SYN-ACKs only, and takes the client's round trip from the acknowledgement that completes the handshake.

use baton::flow::Endpoint;
use baton::rewrite::{Flags, Segment, Timestamp, ToClientWire, ToServerWire, Wire};
use std::collections::BTreeMap;

/// Requests, by the kernel's end and the client's.
#[derive(Default)]
pub struct Requests {
    by_ends: BTreeMap<(Endpoint, Endpoint), Request>,
}

struct Request {
    syn_ack: Vec<u8>,
    first_at: u64,
    first: Option<Timestamp<Wire>>,
    newest: Option<Timestamp<Wire>>,
    is_repeated: bool,
    answered_again: bool,
}

impl Requests {
    /// The kernel made a SYN-ACK.
    pub fn hear(&mut self, packet: &[u8], now: u64) {
        let Ok(segment) = Segment::<_, ToClientWire>::parse(packet) else { return };
        let tsval = segment.timestamps().map(|(tsval, _)| tsval);
        let ends = (segment.source(), segment.destination());
        let known = self.by_ends.get_mut(&ends).filter(|request| {
            let former = Segment::<_, ToClientWire>::parse(request.syn_ack.as_slice()).expect("parsed before");
            (former.seq(), former.ack()) == (segment.seq(), segment.ack())
        });
        if let Some(request) = known {
            request.newest = tsval;
            request.is_repeated = true;
            return;
        }
        let syn_ack = packet.to_vec();
        let request = Request { syn_ack, first_at: now, first: tsval, newest: tsval, is_repeated: false, answered_again: false };
        self.by_ends.insert(ends, request);
    }

    /// The SYN-ACK once more, with the time of day; Linux answers no faster than twice a second.
    pub fn answer_again<B: AsRef<[u8]>>(&mut self, syn: &Segment<B, ToServerWire>, now: u64) -> Option<Vec<u8>> {
        let request = self.by_ends.get_mut(&(syn.destination(), syn.source()))?;
        let mut packet = request.syn_ack.clone();
        let mut segment = Segment::<_, ToClientWire>::parse(packet.as_mut_slice()).expect("parsed before");
        if segment.ack() != syn.seq().plus(1) || std::mem::replace(&mut request.answered_again, true) {
            return None;
        }
        if let (Some(first), Some((_, tsecr))) = (request.first, segment.timestamps()) {
            let tsval = first.plus(((now - request.first_at) / 1_000) as u32);
            request.newest = Some(tsval);
            segment.set_timestamps(tsval, tsecr);
        }
        request.is_repeated = true;
        Some(packet)
    }

    /// Whether Linux would take this for an answer to its SYN-ACK: it drops an echo of what it never sent.
    pub fn believes<B: AsRef<[u8]>>(&self, segment: &Segment<B, ToServerWire>, is_cookie: bool) -> bool {
        let Some(request) = self.by_ends.get(&(segment.destination(), segment.source())) else { return true };
        let Some((echo, first)) = segment.timestamps().map(|(_, tsecr)| tsecr).zip(request.first) else { return true };
        let newest = request.newest.expect("like the first");
        let is_believed = echo.since(&first) >= 0 && newest.since(&echo) >= 0;
        if is_cookie { echo == first } else { is_believed || echo.raw() == 0 }
    }

    /// Nothing is kept of these ends any more.
    pub fn forget(&mut self, local: Endpoint, remote: Endpoint) {
        self.by_ends.remove(&(local, remote));
    }

    /// A segment completes the handshake: the round trip that Linux takes from it (`tcp_check_req`, `tcp_synack_rtt_meas`).
    pub fn complete<B: AsRef<[u8]>>(
        &mut self,
        segment: &Segment<B, ToServerWire>,
        now: u64,
        is_cookie: bool,
    ) -> Option<Option<u64>> {
        if !segment.flags().contains(Flags::ACK) || segment.flags().contains(Flags::RST) {
            return None;
        }
        let request = self.by_ends.remove(&(segment.destination(), segment.source()))?;
        let echo = segment.timestamps().map(|(_, tsecr)| tsecr).zip(request.first);
        if let Some((echo, first)) = echo {
            let newest = request.newest.expect("like the first");
            // A cookie gives back what was negotiated only from its own timestamp.
            assert!(!is_cookie || echo == first, "an echo of {} from another cookie", echo.raw());
            let is_believed = echo.since(&first) >= 0 && newest.since(&echo) >= 0;
            assert!(is_believed || echo.raw() == 0, "Linux drops an echo of {}", echo.raw());
        }
        let elapsed = (now - request.first_at) / 1_000;
        Some(match echo {
            _ if !request.is_repeated => Some(elapsed),
            Some((echo, first)) if echo.raw() != 0 => Some(elapsed.saturating_sub(echo.since(&first) as u64).max(1)),
            _ => None,
        })
    }
}
