//! What the command line and the daemon say to each other: one JSON line each way over a Unix socket.
//!
//! `docs/admin.md` explains every field. [`protocol`] and [`text`] are pure; [`server`] is driven by the node's loop and
//! never blocks it; [`client`] blocks, it is the command line's end.

pub mod client;
pub mod protocol;
pub mod server;
pub mod text;
