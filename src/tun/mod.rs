//! The host: the TUN device, capture rules, guards, sockets of the kernel. Everything here is undone on exit.

pub mod capture;
pub mod device;
pub mod sock_diag;
