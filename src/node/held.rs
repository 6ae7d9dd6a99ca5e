//! Segments of one connection that were read one after the other leave in one write.
//!
//! The local kernel makes short super-segments for a client whose round trip looks long (`tcp_tso_rtt_log` of ip-sysctl), and
//! gives them to the TUN one by one: each costs a way through the host's forwarding, and an acknowledgement of the client. So a
//! packet waits here until it is known whether what was read next continues it: never longer than the TUN has packets, and
//! nothing else is done before it has left.

use crate::limits;
use crate::rewrite::{Joined, Offload};
use crate::tun::offload::{FRAME_BYTES_MAX, Frame, HEADER_BYTES};

/// What waits to be continued.
#[derive(Debug)]
pub struct Held {
    buffer: Box<[u8]>,
    joined: Option<Joined>,
    /// Packets that were joined to the one before.
    pub joined_packets: u64,
}

impl Held {
    pub fn new() -> Self {
        Self { buffer: vec![0; FRAME_BYTES_MAX].into_boxed_slice(), joined: None, joined_packets: 0 }
    }

    /// Adds a packet to what waits, if it continues that.
    pub fn add(&mut self, frame: &Frame<'_>) -> bool {
        let Some(joined) = &mut self.joined else { return false };
        let is_added = joined.append(&mut self.buffer[HEADER_BYTES..], frame.packet(), &frame.offload());
        self.joined_packets += u64::from(is_added);
        is_added
    }

    /// Lets a packet wait, if another can continue it, and if that is worth the copy: only what the kernel has left work for.
    ///
    /// # Panics
    ///
    /// If one waits already.
    pub fn keep(&mut self, frame: &Frame<'_>) -> bool {
        assert!(self.joined.is_none(), "one at a time");
        let packet = frame.packet();
        if packet.len() > limits::HELD_PACKET_BYTES_MAX || frame.offload() == Offload::NONE {
            return false;
        }
        self.joined = Joined::begin(packet, &frame.offload());
        let is_kept = self.joined.is_some();
        if is_kept {
            self.buffer[HEADER_BYTES..HEADER_BYTES + packet.len()].copy_from_slice(packet);
        }
        is_kept
    }

    /// What waits, as one packet.
    pub fn take(&mut self) -> Option<Frame<'_>> {
        let (length, offload) = self.joined.take()?.finish(&mut self.buffer[HEADER_BYTES..]);
        Some(Frame::new(&mut self.buffer[..HEADER_BYTES + length], offload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Endpoint;
    use crate::rewrite::{Flags, SegmentSpec, Seq, ToClientWire};
    use std::num::NonZeroU16;

    /// As a kernel with offload hands it over (what its checksum field holds is not looked at).
    fn packet(seq: u32, payload: &[u8], flags: Flags) -> Vec<u8> {
        let spec = SegmentSpec::<ToClientWire> {
            source: Endpoint::new([10, 77, 0, 1].into(), 80),
            destination: Endpoint::new([192, 0, 2, 1].into(), 40_000),
            seq: Seq::new(seq),
            ack: Seq::new(2),
            flags,
            window: 100,
            mss: None,
            window_scale: None,
            sack_permitted: false,
            timestamps: None,
            traffic_class: 0,
            payload,
        };
        [vec![0; HEADER_BYTES], spec.build().into_inner()].concat()
    }

    const fn partial(segment_bytes: u16) -> Offload {
        Offload { partial_checksum: Some(20), segment_bytes: NonZeroU16::new(segment_bytes), ecn: false }
    }

    #[test]
    fn what_continues_waits_and_leaves_as_one() {
        let mut held = Held::new();
        assert!(held.keep(&Frame::new(&mut packet(1, &[1; 200], Flags::ACK), partial(100))));
        assert!(held.add(&Frame::new(&mut packet(201, &[2; 300], Flags::ACK), partial(100))));
        assert!(!held.add(&Frame::new(&mut packet(502, &[2; 300], Flags::ACK), partial(100))), "a hole");
        assert!(held.add(&Frame::new(&mut packet(501, &[3; 50], Flags::ACK.with(Flags::PSH)), partial(0))), "the end");
        assert!(!held.add(&Frame::new(&mut packet(551, &[3; 50], Flags::ACK), partial(0))), "behind the end");
        let frame = held.take().unwrap();
        assert_eq!(frame.offload(), partial(100));
        assert_eq!(frame.packet().len(), 40 + 550);
        assert_eq!(frame.packet()[33], Flags::ACK.with(Flags::PSH).0);
        assert_eq!(frame.packet()[40..], [&[1; 200][..], &[2; 300], &[3; 50]].concat());
        assert!(held.take().is_none(), "once");
        assert_eq!(held.joined_packets, 2);
    }

    #[test]
    fn what_stays_alone_leaves_as_it_came() {
        let mut held = Held::new();
        let mut bytes = packet(1, &[1; 200], Flags::ACK);
        assert!(held.keep(&Frame::new(&mut bytes, partial(100))));
        let frame = held.take().unwrap();
        assert_eq!(frame.offload(), partial(100));
        assert_eq!(frame.packet().len(), bytes.len() - HEADER_BYTES);
    }

    #[test]
    fn what_cannot_be_continued_does_not_wait() {
        let mut held = Held::new();
        let flags = [Flags::ACK.with(Flags::FIN), Flags::SYN.with(Flags::ACK), Flags::RST];
        for flags in flags {
            assert!(!held.keep(&Frame::new(&mut packet(1, &[1; 200], flags), partial(100))), "{flags}");
        }
        let whole = packet(1, &[1; 200], Flags::ACK);
        assert!(!held.keep(&Frame::new(&mut whole.clone(), Offload::NONE)), "nothing left to do: no offload here");
        assert!(!held.keep(&Frame::new(&mut packet(1, &[1; 150], Flags::ACK), partial(100))), "its last segment is a short one");
        let long = vec![1; limits::HELD_PACKET_BYTES_MAX.next_multiple_of(100)];
        assert!(!held.keep(&Frame::new(&mut packet(1, &long, Flags::ACK), partial(100))), "a copy would cost more");
        assert!(!held.add(&Frame::new(&mut whole.clone(), partial(100))) && held.take().is_none());
    }
}
