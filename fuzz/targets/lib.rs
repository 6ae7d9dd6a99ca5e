//! What is fuzzed, and what must be true of it. `docs/fuzzing.md` has the list.
//!
//! Each module has one function `run`, which takes any octets and panics when something is wrong. The shells for libFuzzer
//! in `fuzz_targets/` and the replay of all corpora in `tests/fuzz_corpora.rs` use the same functions.

pub mod admin;
pub mod cluster;
pub mod control;
pub mod engine;
pub mod flight;
pub mod hello;
pub mod http;
pub mod http2;
pub mod icmp;
mod input;
pub mod overlay;
pub mod proxy;
pub mod redis;
pub mod segment;
mod sums;

/// A target: any octets, no panic.
pub type Run = fn(&[u8]);

/// All of them, by name.
pub const ALL: [(&str, Run); 13] = [
    ("admin", admin::run),
    ("cluster", cluster::run),
    ("control", control::run),
    ("engine", engine::run),
    ("flight", flight::run),
    ("hello", hello::run),
    ("http", http::run),
    ("http2", http2::run),
    ("icmp", icmp::run),
    ("overlay", overlay::run),
    ("proxy", proxy::run),
    ("redis", redis::run),
    ("segment", segment::run),
];
