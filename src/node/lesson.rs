//! The packet by which the kernel learns a connection of the local server (`tun/nft/bypass.rs`).
//!
//! From that packet on the kernel takes the connection's packets past the TUN: those that are in the TUN by then are overtaken.
//! So it is an acknowledgement without data, and the last packet that the TUN had: it waits here until that is known.

use crate::rewrite::{Flags, Offload, Segment, ToServerWire};
use crate::tun::offload::{Frame, HEADER_BYTES};

/// An IPv6 header and the longest TCP header: what has no data is no longer.
const BYTES_MAX: usize = 40 + 60;

/// Room for one packet that may teach.
#[derive(Debug)]
pub struct Lesson {
    bytes: [u8; HEADER_BYTES + BYTES_MAX],
    /// Of the packet; 0: there is none.
    length: usize,
    offload: Offload,
}

impl Lesson {
    pub const fn none() -> Self {
        Self { bytes: [0; HEADER_BYTES + BYTES_MAX], length: 0, offload: Offload::NONE }
    }

    /// Whether there is none.
    pub const fn is_none(&self) -> bool {
        self.length == 0
    }

    /// Whether `frame` may teach; then it is copied here, and whoever calls has it taken again.
    ///
    /// # Panics
    ///
    /// If there is one already.
    pub fn keep(&mut self, frame: &Frame<'_>) -> bool {
        assert_eq!(self.length, 0, "one at a time");
        let packet = frame.packet();
        if !is_pure_acknowledgement(packet, frame.offload()) {
            return false;
        }
        (self.length, self.offload) = (packet.len(), frame.offload());
        self.bytes[HEADER_BYTES..HEADER_BYTES + packet.len()].copy_from_slice(packet);
        true
    }

    /// The packet, if there is one.
    pub fn take(&mut self) -> Option<Frame<'_>> {
        let length = std::mem::take(&mut self.length);
        (length > 0).then(|| Frame::new(&mut self.bytes[..HEADER_BYTES + length], self.offload))
    }
}

fn is_pure_acknowledgement(packet: &[u8], offload: Offload) -> bool {
    let ends = Flags::SYN.with(Flags::FIN).with(Flags::RST);
    packet.len() <= BYTES_MAX
        && Segment::<_, ToServerWire>::parse_offloaded(packet, offload).is_ok_and(|segment| {
            segment.payload().is_empty() && segment.flags().contains(Flags::ACK) && !segment.flags().intersects(ends)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Endpoint;
    use crate::rewrite::{SegmentSpec, Seq};

    fn packet(flags: Flags, payload: &[u8]) -> Vec<u8> {
        let spec = SegmentSpec::<ToServerWire> {
            source: Endpoint::new([192, 0, 2, 1].into(), 40_000),
            destination: Endpoint::new([10, 77, 0, 1].into(), 80),
            seq: Seq::new(1),
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

    #[test]
    fn only_an_acknowledgement_without_data_waits() {
        let mut lesson = Lesson::none();
        for (flags, payload) in
            [(Flags::ACK, &b"x"[..]), (Flags::ACK.with(Flags::FIN), b""), (Flags::RST, b""), (Flags::SYN, b"")]
        {
            assert!(!lesson.keep(&Frame::new(&mut packet(flags, payload), Offload::NONE)), "{flags} {payload:?}");
            assert!(lesson.take().is_none());
        }
        let mut bytes = packet(Flags::ACK, b"");
        assert!(lesson.keep(&Frame::new(&mut bytes, Offload::NONE)));
        assert_eq!(lesson.take().map(|frame| frame.packet().to_vec()), Some(bytes[HEADER_BYTES..].to_vec()));
        assert!(lesson.take().is_none(), "once");
    }
}
