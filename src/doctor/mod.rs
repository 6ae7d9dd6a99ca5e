//! What is said about a host and a configuration: refusals of a start, and the list of `baton doctor`.
//!
//! Pure words. The checks themselves are where the knowledge is: of the host in [`crate::tun`], of a node in
//! [`crate::node`]. A start and `baton doctor` call the same functions, so both say the same.

mod findings;
mod refusal;

pub use findings::{Finding, Findings, Outcome};
pub use refusal::{Refusal, refusal};
