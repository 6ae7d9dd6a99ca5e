//! A segment as one line, the way tcpdump prints it.

use super::segment::{Flags, Leg, Segment};
use std::fmt;

impl<B: AsRef<[u8]>, L: Leg> fmt::Display for Segment<B, L> {
    /// Sequence numbers are absolute and in the space of the segment's leg.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {} [{}]", self.source(), self.destination(), self.flags())?;
        write!(f, " seq {}", self.seq().raw())?;
        if self.seq_len() > 0 {
            write!(f, ":{}", self.seq_end().raw())?;
        }
        if self.flags().contains(Flags::ACK) {
            write!(f, " ack {}", self.ack().raw())?;
        }
        write!(f, " win {}", self.window())?;
        if let Some(mss) = self.mss() {
            write!(f, " mss {mss}")?;
        }
        if let Some(scale) = self.window_scale() {
            write!(f, " wscale {}", scale.shift())?;
        }
        if self.sack_permitted() {
            f.write_str(" sackOK")?;
        }
        if let Some((tsval, tsecr)) = self.timestamps() {
            write!(f, " TS val {} ecr {}", tsval.raw(), tsecr.raw())?;
        }
        for (left, right) in self.sack_blocks() {
            write!(f, " sack {{{}:{}}}", left.raw(), right.raw())?;
        }
        write!(f, " length {}", self.payload().len())
    }
}

#[cfg(test)]
mod tests {
    use crate::rewrite::fixtures::{client, server, spec};
    use crate::rewrite::{Flags, SegmentSpec, Seq, Timestamp, ToServerWire, WindowScale};

    #[test]
    fn a_syn_reads_as_in_tcpdump() {
        let syn = SegmentSpec::<ToServerWire> {
            flags: Flags::SYN,
            mss: Some(1460),
            window_scale: Some(WindowScale::new(7)),
            sack_permitted: true,
            timestamps: Some((Timestamp::new(100), Timestamp::new(0))),
            payload: &[],
            ..spec(client(), server())
        };
        assert_eq!(
            syn.build().to_string(),
            "192.0.2.7:40000 > 198.51.100.1:80 [S] seq 1000:1001 win 502 mss 1460 wscale 7 sackOK \
             TS val 100 ecr 0 length 0"
        );
    }

    #[test]
    fn a_segment_with_payload_shows_both_ends_of_it() {
        let request = SegmentSpec::<ToServerWire> {
            flags: Flags::ACK.with(Flags::PSH),
            ack: Seq::new(7),
            payload: b"GET /",
            ..spec(client(), server())
        };
        assert_eq!(request.build().to_string(), "192.0.2.7:40000 > 198.51.100.1:80 [P.] seq 1000:1005 ack 7 win 502 length 5");
    }
}
