//! The overlay: client packets to their owner, sealed with AES-256-GCM, in UDP. One socket on top of [`seal`].
//!
//! [`seal`]: crate::control::seal

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ops::Range;

pub use crate::control::seal::{HEADER_BYTES, SessionKeys};
use crate::control::seal::{Keyring, OpenError, SealError, TAG_BYTES};
use crate::control::socket;
use crate::flow::NodeId;
use crate::limits::OVERLAY_REJECTED_PER_WAKE;
use crate::rewrite::{Offload, Pieces};

const OUTER_V4_BYTES: u16 = 20 + 8;
/// Octets a sealed packet is longer than the packet it carries, outer IPv4 and UDP header included (20 more for IPv6).
pub const OVERHEAD_V4: u16 = OUTER_V4_BYTES + HEADER_BYTES as u16 + TAG_BYTES as u16;
/// The same over IPv6.
pub const OVERHEAD_V6: u16 = OVERHEAD_V4 + 20;

/// The largest datagram UDP can carry.
const DATAGRAM_BYTES_MAX: usize = 65_507;

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
    /// Super-segments cut so that their pieces could be sent.
    pub cut: u64,
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
pub struct Overlay {
    socket: mio::net::UdpSocket,
    keyring: Keyring,
    /// Where peers are, as told with their keys. Where a packet came from never changes that: an attacker on the path
    /// could re-send an authentic one from elsewhere.
    addresses: HashMap<NodeId, SocketAddr>,
    counters: OverlayCounters,
    /// Longest packet that fits a datagram on the way to all peers without being fragmented.
    packet_bytes_max: usize,
    out: Vec<u8>,
    piece: Vec<u8>,
}

/// How much may be taken from the socket before the rest of the loop gets its turn.
#[derive(Debug)]
pub struct Turn {
    packets_left: usize,
    rejected_left: usize,
}

impl Turn {
    /// At most this many packets; and of what is rejected, a bounded number too.
    pub fn new(packets_max: usize) -> Self {
        Self { packets_left: packets_max, rejected_left: OVERLAY_REJECTED_PER_WAKE }
    }
}

/// What the socket had.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A packet of this peer, and where in the buffer it is, with [`HEADER_BYTES`] before it that nobody needs any more.
    Packet(NodeId, Range<usize>),
    /// Nothing any more. Only after this does mio tell of what comes next.
    Empty,
    /// There may be more, genuine packets behind a flood of rubbish among it: to be asked again in the next wake.
    TurnIsOver,
}

impl Overlay {
    /// Binds the UDP port.
    pub fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self {
            socket: socket::overlay(address)?,
            keyring: Keyring::default(),
            addresses: HashMap::new(),
            counters: OverlayCounters::default(),
            packet_bytes_max: DATAGRAM_BYTES_MAX,
            piece: vec![0; DATAGRAM_BYTES_MAX],
            out: vec![0; DATAGRAM_BYTES_MAX],
        })
    }

    /// For registration with mio.
    pub fn source(&mut self) -> &mut mio::net::UdpSocket {
        &mut self.socket
    }

    /// Uses these keys for the peer from now on; keys of the session before stay good for receiving.
    pub fn set_keys(&mut self, peer: NodeId, address: SocketAddr, keys: SessionKeys) {
        self.keyring.set_keys(peer, &keys);
        self.addresses.insert(peer, address);
    }

    /// Pieces of super-segments shall not be longer, so that their datagrams need no fragments.
    pub fn set_packet_bytes_max(&mut self, bytes: usize) {
        self.packet_bytes_max = bytes;
    }

    /// Sends a packet for which something is left to do: a peer gets plain packets.
    ///
    /// The pieces go one by one. Here is where they could go in one call (UDP GSO): all but the last are equally long.
    pub fn send_offloaded(&mut self, peer: NodeId, packet: &[u8], offload: &Offload) {
        if *offload == Offload::NONE {
            return self.send(peer, packet);
        }
        let Ok(mut pieces) = Pieces::of(packet, offload, self.packet_bytes_max) else {
            self.counters.send_failed += 1;
            return;
        };
        self.counters.cut += u64::from(offload.segment_bytes.is_some());
        let mut piece = std::mem::take(&mut self.piece);
        while let Some(length) = pieces.write_next(&mut piece) {
            self.send(peer, &piece[..length]);
        }
        self.piece = piece;
    }

    /// Seals and sends; counts what goes wrong (nothing TCP would not recover).
    pub fn send(&mut self, peer: NodeId, packet: &[u8]) {
        let counters = &mut self.counters;
        let Some(&address) = self.addresses.get(&peer) else {
            counters.no_key += 1;
            return;
        };
        let length = match self.keyring.seal(peer, packet, &mut self.out) {
            Ok(length) => length,
            Err(SealError::NoKey) => {
                counters.no_key += 1;
                return;
            }
            Err(SealError::BufferTooSmall | SealError::Exhausted) => {
                counters.send_failed += 1;
                return;
            }
        };
        match self.socket.send_to(&self.out[..length], address) {
            Ok(_) => {
                counters.sent_packets += 1;
                counters.sent_bytes += packet.len() as u64;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS) => {
                counters.send_buffer_full += 1;
            }
            Err(error) => {
                counters.send_failed += 1;
                log::trace!("overlay peer={peer:?} packet_bytes={} not sent: {error}", packet.len());
            }
        }
    }

    /// The next packet, opened in place. Datagrams that are rejected on the way are counted.
    pub fn receive(&mut self, buffer: &mut [u8], turn: &mut Turn) -> Received {
        while turn.packets_left > 0 && turn.rejected_left > 0 {
            let opened = match self.socket.recv_from(buffer) {
                Ok((length, _)) => self.keyring.open(&mut buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Received::Empty,
                Err(error) => {
                    log::debug!("overlay receive: {error}");
                    turn.rejected_left -= 1;
                    continue;
                }
            };
            match opened {
                Ok((peer, packet)) => {
                    turn.packets_left -= 1;
                    self.counters.received_packets += 1;
                    self.counters.received_bytes += packet.len() as u64;
                    return Received::Packet(peer, packet);
                }
                Err(OpenError::Unknown) => self.counters.unknown += 1,
                Err(OpenError::Forged) => self.counters.forged += 1,
                Err(OpenError::Replayed) => self.counters.replayed += 1,
            }
            turn.rejected_left -= 1;
        }
        Received::TurnIsOver
    }

    /// What became of datagrams.
    pub fn counters(&self) -> &OverlayCounters {
        &self.counters
    }
}
