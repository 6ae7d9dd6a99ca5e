//! The host: the TUN device, capture rules, guards, sockets of the kernel. Everything here is undone on exit.
//!
//! [`device`], with [`offload`], and [`capture`] are what the shell uses; [`sock_diag`] answers questions about the kernel's own sockets.
//! Below them: `routing` speaks rtnetlink for `steering`, `nft` and `guard` speak nf_tables (one as text, once; one as netlink
//! messages, per handoff), `sysctl` and `first_values` know settings and what they were before us. Nothing in here
//! knows what a handoff is.

pub mod capture;
pub mod cleanup;
pub mod device;
pub mod examine;
mod family;
mod firewall;
mod first_values;
mod forwarding;
mod guard;
mod heartbeat;
mod host_lock;
pub mod learned;
mod left_files;
pub mod link;
mod netlink;
mod nft;
pub mod offload;
mod preflight;
mod probe;
pub mod requirements;
mod routing;
pub mod sock_diag;
mod steering;
mod sysctl;
mod undo;
