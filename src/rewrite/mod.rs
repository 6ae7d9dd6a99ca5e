//! Reading and rewriting TCP/IP headers in place.
//!
//! Knows packets and coordinate systems. Must not know connections, states, policy or any I/O. `docs/rewriting.md`
//! tells the whole story with numbers.
//!
//! The way of a packet: [`Segment::parse`] validates it once, [`Segment`]'s getters and setters trust what was found,
//! [`Shifts`] moves it between the client's view and the owner kernel's. Setters keep checksums right by adding the
//! difference, never by recomputing: a packet that arrived corrupt leaves corrupt and is judged by its receiver.

pub mod build;
pub mod checksum;
pub mod coordinates;
mod display;
#[cfg(test)]
mod fixtures;
mod flags;
pub mod icmp;
mod ip;
pub mod join;
mod leg;
mod octets;
pub mod offload;
pub mod options;
pub mod segment;
pub mod translate;

pub use build::SegmentSpec;
pub use coordinates::{Client, Local, Seq, SeqShift, Timestamp, TimestampShift, WindowRescale, WindowScale, Wire};
pub use ip::set_hop_limit;
pub use join::Joined;
pub use offload::{Offload, Pieces};
pub use segment::{Flags, Leg, Malformed, Segment, TimestampPair, ToClientLocal, ToClientWire, ToServerLocal, ToServerWire};
pub use translate::Shifts;
