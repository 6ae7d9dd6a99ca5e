//! The engine: all connections of a node, in both roles. Sans-IO.

pub mod counters;
pub mod engine;

pub use engine::{Engine, EngineConfig, Output, PeerEvent, SocketState, Verdict};
