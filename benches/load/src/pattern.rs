//! The content of every file and upload: octet `n` is known for every `n`, so that each octet that arrives can be checked
//! without a copy of the file.

/// The pattern repeats after a prime number of octets: no piece that a network or program handles, whatever its size, can be
/// lost, repeated or swapped with another unnoticed.
const PERIOD: usize = 1_048_573;

/// Most octets that are compared or sent at once.
pub const PIECE: usize = 256 * 1024;

/// One period and a piece more, so that a piece may begin anywhere.
pub struct Pattern(Vec<u8>);

impl Pattern {
    /// The same in every process.
    pub fn new() -> Self {
        // xorshift64*: what it makes has no short repetitions, and compression or chance does not hit it.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut octets = Vec::with_capacity(PERIOD + PIECE);
        octets.resize_with(PERIOD, || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56) as u8
        });
        octets.extend_from_within(..PIECE);
        Self(octets)
    }

    /// At most `PIECE` octets from `position` on, up to `end`.
    pub fn piece(&self, position: u64, end: u64) -> &[u8] {
        let start = (position % PERIOD as u64) as usize;
        let length = (end - position).min(PIECE as u64) as usize;
        &self.0[start..start + length]
    }

    /// Whether `octets` are those at `position`.
    pub fn has(&self, position: u64, octets: &[u8]) -> bool {
        let mut position = position;
        octets.chunks(PIECE).all(|chunk| {
            let expected = self.piece(position, position + chunk.len() as u64);
            position += chunk.len() as u64;
            expected == chunk
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_a_repeated_and_a_changed_octet_are_noticed_anywhere() {
        let pattern = Pattern::new();
        for position in [0, 1, PERIOD as u64 - 1, PERIOD as u64, 3 * PERIOD as u64 - 7, 1 << 40] {
            let octets = pattern.piece(position, position + 1000).to_vec();
            assert!(pattern.has(position, &octets), "{position}");
            assert!(!pattern.has(position + 1, &octets), "one was lost before {position}");
            assert!(!pattern.has(position - position.min(1) + u64::from(position == 0), &octets), "one was repeated");
            let mut changed = octets.clone();
            changed[999] ^= 1;
            assert!(!pattern.has(position, &changed), "{position}");
        }
    }

    #[test]
    fn what_programs_lose_at_once_is_noticed() {
        let pattern = Pattern::new();
        for lost in [512, 1448, 4096, 16 * 1024, 64 * 1024, 1 << 20, 1 << 24] {
            assert!(!pattern.has(lost, pattern.piece(0, 1000)), "{lost}");
        }
    }
}
