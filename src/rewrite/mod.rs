//! Reading and rewriting TCP/IP headers in place.
//!
//! Knows packets and coordinate systems. Must not know connections, states, policy or any I/O.

pub mod build;
pub mod checksum;
pub mod coordinates;
pub mod icmp;
pub mod options;
pub mod segment;
pub mod translate;

pub use build::SegmentSpec;
pub use coordinates::{Client, Local, Seq, SeqShift, Timestamp, TimestampShift, Wire, WindowRescale, WindowScale};
pub use segment::{Flags, Leg, Malformed, Segment, ToClientLocal, ToClientWire, ToServerLocal, ToServerWire};
pub use translate::Shifts;
