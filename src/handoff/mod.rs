//! The engine: all connections of a node, in both roles. Sans-IO.
//!
//! Packets, messages, answers and the time go in; verdicts, outputs and the next deadline come out. [`btcp`] follows the
//! connections that arrive at this node, [`utcp`] those that this node's kernel serves after a handoff; each has its state
//! diagram at the top. They talk only by the messages of the handoff protocol, also inside one node.

mod btcp;
pub mod chronicle;
mod context;
pub mod counters;
pub mod engine;
pub mod flight;
mod holds;
mod index;
mod initial;
mod links;
mod notes;
pub mod probe;
mod recent;
mod syn_acks;
mod synthetic;
mod timers;
pub mod treatment;
mod utcp;

pub use engine::{Engine, EngineConfig, FlowView, Output, PeerEvent, SocketState, Verdict};
pub use notes::Why;
