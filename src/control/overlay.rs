//! The overlay: client packets to their owner, sealed with AES-256-GCM, in UDP. Pure sealing below, one socket on top.
use crate::flow::NodeId;
use std::net::SocketAddr;

/// Octets a sealed packet is longer than the packet it carries, outer IPv4 and UDP header included (20 more for IPv6).
pub const OVERHEAD_V4: u16 = 20 + 8 + 12 + 16;
/// The same over IPv6.
pub const OVERHEAD_V6: u16 = OVERHEAD_V4 + 20;

/// Both directions' keys of one control session, exported from it (RFC 9846, exporters).
#[derive(Clone)]
pub struct SessionKeys {
    /// Names the session in packet headers; both sides derive the same.
    pub session: u32,
    /// Seals what we send.
    pub send: [u8; 32],
    /// Opens what we receive.
    pub receive: [u8; 32],
}
impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "SessionKeys({:08x})", self.session) }
}
/// What became of overlay datagrams. Counted by the overlay.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct OverlayCounters {
    /// Packets sealed and sent.
    pub sent_packets: u64,
    /// Their octets before sealing.
    pub sent_bytes: u64,
    /// Packets opened.
    pub received_packets: u64,
    /// Their octets after opening.
    pub received_bytes: u64,
    /// Not sent: no key for that peer.
    pub no_key: u64,
    /// Not sent: socket buffer full.
    pub send_buffer_full: u64,
    /// Not sent: any other error.
    pub send_failed: u64,
    /// Received: too short, unknown session, unknown type.
    pub unknown: u64,
    /// Received: authentication failed.
    pub forged: u64,
    /// Received: already seen, or older than the replay window.
    pub replayed: u64,
}
/// The UDP socket and the keys of all peers.
#[derive(Debug)]
pub struct Overlay {}
impl Overlay {
    /// Binds the UDP port.
    pub fn bind(address: SocketAddr) -> anyhow::Result<Self> { let _ = address; todo!() }
    /// For registration with mio.
    pub fn source(&mut self) -> &mut mio::net::UdpSocket { todo!() }
    /// Uses these keys for the peer from now on; keys of the session before stay good for receiving.
    pub fn set_keys(&mut self, peer: NodeId, address: SocketAddr, keys: SessionKeys) { let _ = (peer, address, keys); todo!() }
    /// Seals and sends; counts what goes wrong (nothing TCP would not recover).
    pub fn send(&mut self, peer: NodeId, packet: &[u8]) { let _ = (peer, packet); todo!() }
    /// The next packet, opened in place inside `buffer`; None when the socket has no more.
    pub fn receive<'b>(&mut self, buffer: &'b mut [u8]) -> Option<(NodeId, &'b mut [u8])> { let _ = buffer; todo!() }
    /// What became of datagrams.
    pub fn counters(&self) -> &OverlayCounters { todo!() }
}
