//! Counted reasons. Every dropped packet and every fall-back has one.

/// Why a packet went nowhere. The names are metric labels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum DropReason {
    /// placeholder; the engine's author fills this in
    Malformed,
}
