//! All sessions of a node: listener, dialling, TLS, heartbeats, back-off. Driven by the shell's mio loop.
use crate::control::message::{Epoch, Message};
use crate::control::overlay::SessionKeys;
use crate::flow::NodeId;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What a node tells its peers when a session opens; compared on both sides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `net.ipv4.tcp_sack`
    pub sack: bool,
    /// `net.ipv4.tcp_timestamps`
    pub timestamps: bool,
    /// `net.ipv4.tcp_window_scaling`
    pub window_scaling: bool,
    /// `net.ipv4.tcp_ecn`
    pub ecn: u8,
}
/// What the channel needs to start.
#[derive(Debug)]
pub struct ChannelConfig {
    /// Name of the cluster; a peer of another is refused.
    pub cluster: String,
    /// This node.
    pub node: NodeId,
    /// All nodes (index = NodeId): name, control address, raw public key.
    pub nodes: Vec<(String, SocketAddr, [u8; 32])>,
    /// This node's key.
    pub key: crate::control::key::PrivateKey,
    /// This life.
    pub epoch: Epoch,
    /// This node's settings.
    pub settings: Settings,
    /// First mio token the channel may use; it uses `first_token..first_token + 1 + 2 * nodes + 64`.
    pub first_token: usize,
}
/// What happened.
#[derive(Debug)]
pub enum ChannelEvent {
    /// A session is up, with the keys for its overlay.
    Up { peer: NodeId, epoch: Epoch, settings: Settings, address: SocketAddr, keys: SessionKeys },
    /// The session is gone, and why (for the log and `peers`).
    Down { peer: NodeId, reason: String },
    /// The peer says it is draining, or no longer.
    Draining { peer: NodeId, draining: bool },
    /// A message of the handoff protocol.
    Message { peer: NodeId, message: Message },
}
/// One line of `baton peers`.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// Which.
    pub peer: NodeId,
    /// `up`, `connecting`, `waiting`, `refused`.
    pub state: &'static str,
    /// Since when.
    pub since: Instant,
    /// Last error, if not up.
    pub error: Option<String>,
    /// Control round-trip time by heartbeat.
    pub round_trip: Option<Duration>,
    /// Protocol version in use.
    pub version: Option<u16>,
    /// The peer drains.
    pub draining: bool,
    /// Sessions established since start.
    pub sessions: u64,
}
/// All sessions of a node.
#[derive(Debug)]
pub struct Channel {}
impl Channel {
    /// Binds the listener (clear error when the port is occupied) and starts dialling peers.
    pub fn start(config: ChannelConfig, registry: &mio::Registry, now: Instant) -> anyhow::Result<Self> { let _ = (config, registry, now); todo!() }
    /// Whether the token is one of the channel's.
    pub fn owns(&self, token: mio::Token) -> bool { let _ = token; todo!() }
    /// Readiness of one of the channel's tokens.
    pub fn handle_event(&mut self, event: &mio::event::Event, registry: &mio::Registry, now: Instant) { let _ = (event, registry, now); todo!() }
    /// A deadline passed: heartbeats, dialling, peers that fell silent.
    pub fn handle_timeout(&mut self, registry: &mio::Registry, now: Instant) { let _ = (registry, now); todo!() }
    /// When to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Instant> { todo!() }
    /// What happened, until None.
    pub fn poll_event(&mut self) -> Option<ChannelEvent> { todo!() }
    /// Queues a message; false when there is no session (the message is lost).
    pub fn send(&mut self, peer: NodeId, message: &Message) -> bool { let _ = (peer, message); todo!() }
    /// Writes what is queued, one write per peer; called once after each batch.
    pub fn flush(&mut self, registry: &mio::Registry, now: Instant) { let _ = (registry, now); todo!() }
    /// Tells all peers (now and at every new session) whether this node drains.
    pub fn set_draining(&mut self, draining: bool) { let _ = draining; todo!() }
    /// For `baton peers`.
    pub fn peers(&self) -> Vec<PeerView> { todo!() }
    /// Says goodbye and closes everything.
    pub fn close(&mut self, registry: &mio::Registry) { let _ = registry; todo!() }
}
