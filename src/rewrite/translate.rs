//! Translation of a handed-off connection's segments between the client's view and the owner kernel's.

use crate::flow::Endpoint;
use crate::rewrite::coordinates::{SeqShift, TimestampShift, WindowRescale};
use crate::rewrite::segment::{Segment, ToClientLocal, ToClientWire, ToServerLocal, ToServerWire};

/// Everything needed to translate a connection's segments; constant for the connection's life at one owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shifts {
    /// The front-end address the client knows.
    pub frontend: Endpoint,
    /// The address the owner's kernel knows instead: an alias, and the port its application listens on.
    pub alias: Endpoint,
    /// Sequence numbers.
    pub seq: SeqShift,
    /// Timestamps, when both sides use them.
    pub timestamps: Option<TimestampShift>,
    /// Windows of the owner's kernel.
    pub window: WindowRescale,
}

impl Shifts {
    /// What the owner's kernel sent becomes what the client must see.
    pub fn to_client<B: AsRef<[u8]> + AsMut<[u8]>>(&self, segment: Segment<B, ToClientLocal>) -> Segment<B, ToClientWire> { let _ = segment; todo!() }
    /// What the client sent becomes what the owner's kernel must see.
    pub fn to_server<B: AsRef<[u8]> + AsMut<[u8]>>(&self, segment: Segment<B, ToServerWire>) -> Segment<B, ToServerLocal> { let _ = segment; todo!() }
}
