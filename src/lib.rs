//! baton hands established TCP connections from the server that accepted them to the server that should answer.
//!
//! `ARCHITECTURE.md` has the picture. In short: [`node`] is the shell around everything, one mio loop that owns all
//! file descriptors; [`handoff`] is the engine, which owns all decisions and touches no descriptor, clock or random
//! source; [`health`] knows checks and what nodes say about themselves; [`rewrite`] knows TCP/IP headers; [`policy`] knows the cluster file and requests; [`control`] knows how two
//! nodes talk; [`tun`] knows the host's kernel; [`admin`] is what the command line talks to; [`metrics`] is what Prometheus
//! scrapes; [`doctor`]
//! is how refusals and findings are said.

pub mod admin;
pub mod control;
pub mod doctor;
pub mod explain;
pub mod flow;
pub mod handoff;
pub mod health;
pub mod limits;
pub mod metrics;
pub mod node;
pub mod policy;
pub mod rewrite;
pub mod tun;
