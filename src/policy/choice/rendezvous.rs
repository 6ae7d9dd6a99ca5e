//! Weighted rendezvous hashing: every node ranks the members of a pool alike for the same key, and a member that comes or
//! goes moves no key but its own (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998).
//!
//! Each member draws a number from the key and its own *name*; it is turned into the time of a first arrival, at a rate that
//! is the member's weight, and the earliest comes first: `-log2(draw) / weight`. All of it is integer arithmetic, so that
//! nodes with different processors and libraries agree to the last bit. `docs/policy.md` describes it with the numbers that
//! the tests here have: a change of it moves every key of every cluster that is being upgraded.

/// Binary places of a [`cost`].
const PLACES: u32 = 32;

/// The hash of a key, or of a node's name: FNV-1a, then [`mix`].
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv =
        bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    mix(fnv)
}

/// One step of SplitMix64: every bit of the outcome depends on every bit that goes in, and none is lost.
pub(super) const fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What the member draws for the key, both as [`hash`] made them.
pub(super) const fn draw(key: u64, member: u64) -> u64 {
    mix(key ^ member.rotate_left(32))
}

/// `-log2` of a draw taken for a fraction of 2^64, with 32 binary places: from 1 to 2^38.
pub(super) fn cost(draw: u64) -> u64 {
    // Zero has no logarithm.
    let draw = draw | 1;
    let zeros = draw.leading_zeros();
    // From 1 to 2, with 63 places. Squaring it doubles its logarithm, whose next place is then in front of the point.
    let mut power = draw << zeros;
    let mut fraction = 0_u64;
    for _ in 0..PLACES {
        let square = (u128::from(power) * u128::from(power)) >> 63;
        let carries = square >> 64 != 0;
        fraction = fraction << 1 | u64::from(carries);
        power = (square >> u32::from(carries)) as u64;
    }
    ((u64::from(zeros) + 1) << PLACES) - fraction
}

/// A member's place in the ranking for a key: the lower, the earlier.
#[derive(Clone, Copy, Debug)]
pub(super) struct Score {
    cost: u64,
    weight: u32,
}

impl Score {
    /// Of a member with this weight, which is not zero.
    pub(super) fn new(key: u64, member: u64, weight: u32) -> Self {
        Self { cost: cost(draw(key, member)), weight }
    }

    /// Whether it comes before the other one.
    pub(super) fn precedes(&self, other: &Self) -> bool {
        u128::from(self.cost) * u128::from(other.weight) < u128::from(other.cost) * u128::from(self.weight)
    }

    /// For people.
    pub(super) fn as_f64(&self) -> f64 {
        self.cost as f64 / 2_f64.powi(PLACES as i32) / f64::from(self.weight.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_what_the_documentation_says() {
        assert_eq!(hash(b""), mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        let documentation = include_str!("../../../docs/policy.md");
        for text in ["a", "b", "c", "/images/cat.jpg"] {
            let line = format!("`{text}` | `{:016x}`", hash(text.as_bytes()));
            assert!(documentation.contains(&line), "{line}");
        }
        for node in ["a", "b", "c"] {
            let draw = draw(hash(b"/images/cat.jpg"), hash(node.as_bytes()));
            let line = format!("`{node}` | `{draw:016x}` | `{:x}`", cost(draw));
            assert!(documentation.contains(&line), "{line}");
        }
    }

    #[test]
    fn a_cost_is_the_negative_logarithm() {
        assert_eq!((cost(u64::MAX), cost(1 << 63)), (1, 1 << 32));
        assert_eq!((cost(1), cost(0)), (64 << 32, 64 << 32));
        for draw in [3, 0x1234_5678_9abc_def0, 0xdead_beef_0000_0000, u64::MAX / 3] {
            let exact = -((draw as f64) / 2_f64.powi(64)).log2();
            let here = cost(draw) as f64 / 2_f64.powi(32);
            assert!((exact - here).abs() < 1e-8, "{draw}: {exact} {here}");
        }
    }
}
