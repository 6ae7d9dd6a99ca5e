//! A segment as one line, the way tcpdump prints it.

use super::segment::{Flags, Leg, Segment};
use std::fmt;

impl fmt::Display for Flags {
    /// tcpdump's letters: `S` SYN, `F` FIN, `P` PSH, `R` RST, `U` URG, `E` ECE, `W` CWR, `.` ACK.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LETTERS: [(Flags, &str); 8] = [
            (Flags::FIN, "F"),
            (Flags::SYN, "S"),
            (Flags::RST, "R"),
            (Flags::PSH, "P"),
            (Flags::URG, "U"),
            (Flags::ECE, "E"),
            (Flags::CWR, "W"),
            (Flags::ACK, "."),
        ];
        for (flag, letter) in LETTERS {
            if self.contains(flag) {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

impl<B: AsRef<[u8]>, L: Leg> fmt::Display for Segment<B, L> {
    /// Sequence numbers are absolute and in the space of the segment's leg.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} > {} [{}]",
            self.source(),
            self.destination(),
            self.flags()
        )?;
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
