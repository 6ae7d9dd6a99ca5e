//! TCP flags, and their letters.

use std::fmt;

/// TCP flags (RFC 9293, section 3.1), the low byte of the flags field. The ninth flag (AE, formerly NS) has its own accessor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flags(pub u8);
#[allow(missing_docs)]
impl Flags {
    pub const FIN: Self = Self(0x01);
    pub const SYN: Self = Self(0x02);
    pub const RST: Self = Self(0x04);
    pub const PSH: Self = Self(0x08);
    pub const ACK: Self = Self(0x10);
    pub const URG: Self = Self(0x20);
    pub const ECE: Self = Self(0x40);
    pub const CWR: Self = Self(0x80);
    pub const fn contains(self, all: Self) -> bool {
        self.0 & all.0 == all.0
    }
    pub const fn intersects(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }
    #[must_use]
    pub const fn with(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }
    #[must_use]
    pub const fn without(self, less: Self) -> Self {
        Self(self.0 & !less.0)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_a_set() {
        let both = Flags::SYN.with(Flags::ACK);
        assert_eq!(both.with(Flags::SYN), both);
        assert_eq!(both.without(Flags::SYN).without(Flags::SYN), Flags::ACK);
    }
}
