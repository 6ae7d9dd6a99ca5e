//! A TCP peer that does what a script says, and requires of the other end what the script says: for what no TCP does by
//! itself, such as losing a chosen segment, closing simultaneously or sending data after its FIN.
//!
//! It owns no socket and no clock: packets, the application's answers and the time come in; packets, questions to the
//! application and the next deadline go out ([`Peer`]). So the same scripts run against real kernels (`src/main.rs`) and
//! in virtual time. It shares no code with baton. `docs/packet-scripts.md` has the notation.

pub mod judge;
pub mod notation;
pub mod odd;
pub mod peer;
pub mod random;
pub mod segment;
pub mod show;
pub mod stream;

pub use notation::Script;
pub use peer::{Failure, Peer, Setup, Step};
