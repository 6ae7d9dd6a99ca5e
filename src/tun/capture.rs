//! Capture: addresses, rules, routes, sysctls and nft tables that bring a service's packets into the TUN.
use crate::flow::{Endpoint, FlowKey};
use std::net::IpAddr;
/// What to capture.
#[derive(Clone, Debug)]
pub struct CaptureConfig {
    /// The TUN's name.
    pub device: String,
    /// This node's front-end addresses.
    pub frontends: Vec<Endpoint>,
    /// Alias prefixes.
    pub aliases: Vec<ipnet::IpNet>,
    /// UDP port of the overlay.
    pub overlay_port: u16,
    /// Where first values are kept for a start after a crash, usually under `/run/baton`.
    pub state_directory: std::path::PathBuf,
    /// Guards the set must hold.
    pub guards_max: usize,
}
/// An installed capture.
#[derive(Debug)]
pub struct Capture {}
impl Capture {
    /// Checks the host, then changes it; idempotent, also after a crash. On error the host is as it was.
    pub fn install(config: CaptureConfig) -> anyhow::Result<Self> { let _ = config; todo!() }
    /// Guards found in the kernel, from an earlier life.
    pub fn guards_found(&self) -> &[FlowKey] { todo!() }
    /// Adds and removes guards in one transaction.
    pub fn change_guards(&mut self, add: &[FlowKey], remove: &[FlowKey]) -> std::io::Result<()> { let _ = (add, remove); todo!() }
    /// The packets that show the kernel this process is alive, one per service port; write them to the TUN every `limits::HEARTBEAT_INTERVAL`.
    pub fn heartbeats(&self) -> &[Vec<u8>] { todo!() }
    /// Stops capturing new and undecided connections; guards and aliases stay.
    pub fn release(&mut self) -> anyhow::Result<()> { todo!() }
    /// Puts the host back as it was.
    pub fn restore(self) -> anyhow::Result<()> { todo!() }
    /// The smallest MTU of links that lead to these addresses (the overlay must fit).
    pub fn mtu_towards(&self, peers: &[IpAddr]) -> anyhow::Result<u16> { let _ = peers; todo!() }
}
