//! Building the few segments baton originates: replayed SYNs, handshake-completing segments, purging RSTs, early acknowledgements.

use crate::flow::Endpoint;
use crate::rewrite::coordinates::{Seq, Timestamp, WindowScale};
use crate::rewrite::segment::{Flags, Leg, Segment};

/// A segment to be built. Checksums are computed, IPv4 gets DF and identification 0 (RFC 6864), hop limit 64.
#[derive(Clone, Debug)]
pub struct SegmentSpec<'a, L: Leg> {
    /// Sender's end.
    pub source: Endpoint,
    /// Receiver's end; same family.
    pub destination: Endpoint,
    /// Sequence number.
    pub seq: Seq<L::Sender>,
    /// Acknowledgement number; written as 0 when the flags have no ACK.
    pub ack: Seq<L::Receiver>,
    /// Flags.
    pub flags: Flags,
    /// Window field, unscaled.
    pub window: u16,
    /// MSS option.
    pub mss: Option<u16>,
    /// Window scale option.
    pub window_scale: Option<WindowScale>,
    /// SACK-permitted option.
    pub sack_permitted: bool,
    /// Timestamp option.
    pub timestamps: Option<(Timestamp<L::Sender>, Timestamp<L::Receiver>)>,
    /// DSCP and ECN byte.
    pub traffic_class: u8,
    /// Payload.
    pub payload: &'a [u8],
}

impl<L: Leg> SegmentSpec<'_, L> {
    /// The packet. Options are laid out and padded as Linux does (MSS, SACK-permitted + timestamps, NOP + window scale).
    pub fn build(&self) -> Segment<Vec<u8>, L> { todo!() }
}
