//! The overlay: client packets to their owner, sealed with AES-256-GCM, in UDP. One socket on top of [`seal`].
//!
//! What goes to one peer is gathered, and leaves in one call as long as all datagrams but the last are equally long (UDP GSO):
//! the pieces of a super-segment, or acknowledgements one after the other. What arrives in one call (UDP GRO) is opened in
//! place, and joined again where segments follow each other ([`Joined`]). A kernel that has neither gets one call for each
//! datagram.
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
use crate::limits::{OVERLAY_DATAGRAMS_PER_CALL, OVERLAY_REJECTED_PER_WAKE};
use crate::rewrite::{Joined, Offload, Pieces};

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
    /// Calls in which they were sent.
    pub send_calls: u64,
    /// Calls in which they were received.
    pub receive_calls: u64,
    /// Received packets that were joined to the one before.
    pub joined: u64,
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
    /// Whether the kernel cuts and joins datagrams.
    offload: UdpOffload,
    batch: Batch,
}

/// What the kernel does for datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpOffload {
    /// It takes several in one call.
    pub sends: bool,
    /// It hands over several in one call.
    pub receives: bool,
}

/// Datagrams for one peer that have not been sent.
#[derive(Debug)]
struct Batch {
    /// Room for what one call takes, and for a datagram that turns out to belong into the next.
    bytes: Box<[u8]>,
    used: usize,
    /// Of each but the last.
    datagram_bytes: usize,
    count: usize,
    /// A shorter one is the last.
    is_complete: bool,
    to: Option<(NodeId, SocketAddr)>,
}

impl Batch {
    fn new() -> Self {
        let bytes = vec![0; 2 * DATAGRAM_BYTES_MAX + HEADER_BYTES + TAG_BYTES].into_boxed_slice();
        Self { bytes, used: 0, datagram_bytes: 0, count: 0, is_complete: false, to: None }
    }

    /// Whether a datagram of this length goes into the same call as those that are here.
    fn takes(&self, length: usize) -> bool {
        self.count == 0 || (length <= self.datagram_bytes && self.used + length <= DATAGRAM_BYTES_MAX)
    }

    /// Whether nothing fits any more.
    fn is_full(&self) -> bool {
        self.is_complete || self.count >= OVERLAY_DATAGRAMS_PER_CALL
    }

    fn clear(&mut self) {
        (self.used, self.count, self.is_complete, self.to) = (0, 0, false, None);
    }
}

/// What was received in one call and not yet taken.
#[derive(Debug, Default)]
pub struct Inbox {
    buffer: Box<[u8]>,
    /// Where the next datagram begins, and where the last one ends.
    next: usize,
    end: usize,
    datagram_bytes: usize,
    /// Opened, and not joined to what came before it.
    opened: Option<(NodeId, Range<usize>)>,
    joins: bool,
}

impl Inbox {
    /// Empty, with room for what one call gives. Packets are joined only where somebody takes super-segments.
    pub fn new() -> Self {
        Self { buffer: vec![0; 1 << 16].into_boxed_slice(), ..Self::default() }
    }

    /// Whether segments that follow each other become one from now on.
    pub fn set_joins(&mut self, joins: bool) {
        self.joins = joins;
    }

    /// The packet, with `room` of the octets before it, of which there are [`HEADER_BYTES`].
    pub fn packet(&mut self, packet: Range<usize>, room: usize) -> &mut [u8] {
        &mut self.buffer[packet.start - room..packet.end]
    }
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

    fn is_over(&self) -> bool {
        self.packets_left == 0 || self.rejected_left == 0
    }
}

/// What the socket had.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A packet of this peer, where in the inbox it is, and what is left to do for it.
    Packet(NodeId, Range<usize>, Offload),
    /// Nothing any more. Only after this does mio tell of what comes next.
    Empty,
    /// There may be more, genuine packets behind a flood of rubbish among it: to be asked again in the next wake.
    TurnIsOver,
}

impl Overlay {
    /// Binds the UDP port.
    pub fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let socket = socket::overlay(address)?;
        let offload = UdpOffload { sends: socket::cuts_datagrams(&socket), receives: socket::join_datagrams(&socket) };
        if offload != (UdpOffload { sends: true, receives: true }) {
            log::info!(
                "overlay: this kernel takes several datagrams in one call: {}, hands over several: {}; going on with one call for \
                 each, which costs throughput and nothing else",
                offload.sends,
                offload.receives
            );
        }
        Ok(Self {
            socket,
            keyring: Keyring::default(),
            addresses: HashMap::new(),
            counters: OverlayCounters::default(),
            packet_bytes_max: DATAGRAM_BYTES_MAX,
            offload,
            batch: Batch::new(),
        })
    }

    /// For registration with mio.
    pub fn source(&mut self) -> &mut mio::net::UdpSocket {
        &mut self.socket
    }

    /// What the kernel does for datagrams now.
    pub fn offload(&self) -> UdpOffload {
        self.offload
    }

    /// From now on each datagram is sent in a call of its own.
    pub fn send_one_by_one(&mut self) {
        self.flush();
        self.offload.sends = false;
    }

    /// Uses these keys for the peer from now on; keys of the session before stay good for receiving.
    pub fn set_keys(&mut self, peer: NodeId, address: SocketAddr, keys: SessionKeys) {
        self.flush();
        self.keyring.set_keys(peer, &keys);
        self.addresses.insert(peer, address);
    }

    /// Pieces of super-segments shall not be longer, so that their datagrams need no fragments.
    pub fn set_packet_bytes_max(&mut self, bytes: usize) {
        self.packet_bytes_max = bytes;
    }

    /// Seals a packet for which something is left to do: a peer gets plain packets. They are sent with those before them, at
    /// the next [`Overlay::flush`] at the latest.
    pub fn send_offloaded(&mut self, peer: NodeId, packet: &[u8], offload: &Offload) {
        if *offload == Offload::NONE {
            return self.send(peer, packet);
        }
        let Ok(mut pieces) = Pieces::of(packet, offload, self.packet_bytes_max) else {
            self.counters.send_failed += 1;
            return;
        };
        self.counters.cut += u64::from(offload.segment_bytes.is_some());
        while self.add(peer, |out| pieces.write_next(out)) {}
    }

    /// The same for a plain packet. What goes wrong is counted (nothing TCP would not recover).
    pub fn send(&mut self, peer: NodeId, packet: &[u8]) {
        if packet.len() > DATAGRAM_BYTES_MAX - HEADER_BYTES - TAG_BYTES {
            self.counters.send_failed += 1;
            return;
        }
        self.add(peer, |out| {
            out[..packet.len()].copy_from_slice(packet);
            Some(packet.len())
        });
    }

    /// Adds the packet that `write` writes to the batch; false when it writes none.
    fn add(&mut self, peer: NodeId, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        if self.batch.is_full() || self.batch.to.is_some_and(|(to, _)| to != peer) {
            self.flush();
        }
        let mut at = self.batch.used;
        let room = at + HEADER_BYTES..self.batch.bytes.len() - TAG_BYTES;
        let Some(packet_bytes) = write(&mut self.batch.bytes[room]) else { return false };
        let address = match self.batch.to {
            Some((_, address)) => address,
            None => match self.addresses.get(&peer) {
                Some(address) => *address,
                None => {
                    self.counters.no_key += 1;
                    return true;
                }
            },
        };
        let length = HEADER_BYTES + packet_bytes + TAG_BYTES;
        if !self.batch.takes(length) {
            self.flush();
            self.batch.bytes.copy_within(at..at + length, 0);
            at = 0;
        }
        match self.keyring.seal_in_place(peer, &mut self.batch.bytes[at..at + length]) {
            Ok(()) => {}
            Err(SealError::NoKey) => {
                self.counters.no_key += 1;
                return true;
            }
            Err(SealError::BufferTooSmall | SealError::Exhausted) => {
                self.counters.send_failed += 1;
                return true;
            }
        }
        let batch = &mut self.batch;
        if batch.count == 0 {
            batch.datagram_bytes = length;
            batch.to = Some((peer, address));
        }
        batch.is_complete = length < batch.datagram_bytes;
        batch.used = at + length;
        batch.count += 1;
        if !self.offload.sends {
            self.flush();
        }
        true
    }

    /// Sends what is gathered.
    pub fn flush(&mut self) {
        let Some((peer, address)) = self.batch.to else { return };
        let datagrams = &self.batch.bytes[..self.batch.used];
        let (count, datagram_bytes) = (self.batch.count, self.batch.datagram_bytes);
        self.counters.send_calls += 1;
        let result = match u16::try_from(datagram_bytes) {
            Ok(datagram_bytes) if count > 1 => socket::send_datagrams(&self.socket, datagrams, datagram_bytes, address),
            _ => self.socket.send_to(datagrams, address),
        };
        let is_refused = |error: &std::io::Error| {
            let refusals = [libc::EIO, libc::EINVAL, libc::EMSGSIZE, libc::EOPNOTSUPP, libc::ENOPROTOOPT];
            count > 1 && error.raw_os_error().is_some_and(|code| refusals.contains(&code))
        };
        match result {
            Err(error) if is_refused(&error) => {
                // A datagram that is too long for the way is lost alone; the others need not go with it.
                let is_too_long = matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EMSGSIZE));
                if !is_too_long {
                    self.offload.sends = false;
                    log::info!(
                        "overlay: the way to peers takes no more than one datagram in one call ({error}); going on with one call \
                         for each, which costs throughput and nothing else"
                    );
                }
                for datagram in datagrams.chunks(datagram_bytes) {
                    self.counters.send_calls += 1;
                    let result = self.socket.send_to(datagram, address);
                    count_sent(&mut self.counters, peer, 1, datagram.len(), &result);
                }
            }
            result => count_sent(&mut self.counters, peer, count, datagrams.len(), &result),
        }
        self.batch.clear();
    }

    /// The next packet, opened in place, with what follows it joined to it. Datagrams that are rejected on the way are counted.
    pub fn receive(&mut self, inbox: &mut Inbox, turn: &mut Turn) -> Received {
        let (peer, packet) = loop {
            if let Some(opened) = inbox.opened.take().or_else(|| self.open_next(inbox, turn)) {
                break opened;
            }
            if turn.is_over() {
                return Received::TurnIsOver;
            }
            self.counters.receive_calls += 1;
            match socket::receive_datagrams(&self.socket, &mut inbox.buffer) {
                Ok((length, datagram_bytes)) => {
                    (inbox.next, inbox.end, inbox.datagram_bytes) = (0, length, datagram_bytes);
                    if length == 0 {
                        // An empty datagram is one, too.
                        self.counters.unknown += 1;
                        turn.rejected_left -= 1;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Received::Empty,
                Err(error) => {
                    log::debug!("overlay receive: {error}");
                    turn.rejected_left -= 1;
                }
            }
        };
        let begun = if inbox.joins && inbox.next < inbox.end {
            Joined::begin(&inbox.buffer[packet.clone()], &Offload::NONE)
        } else {
            None
        };
        let Some(mut joined) = begun else { return Received::Packet(peer, packet, Offload::NONE) };
        while !joined.is_complete()
            && let Some((sender, next)) = self.open_next(inbox, turn)
        {
            let (start, end) = (next.start - packet.start, next.end - packet.start);
            if sender != peer || !joined.add(&mut inbox.buffer[packet.start..], start..end) {
                inbox.opened = Some((sender, next));
                break;
            }
            self.counters.joined += 1;
        }
        let (length, offload) = joined.finish(&mut inbox.buffer[packet.start..]);
        Received::Packet(peer, packet.start..packet.start + length, offload)
    }

    /// Opens the next datagram of those that were received together.
    fn open_next(&mut self, inbox: &mut Inbox, turn: &mut Turn) -> Option<(NodeId, Range<usize>)> {
        while inbox.next < inbox.end && !turn.is_over() {
            let start = inbox.next;
            let end = (start + inbox.datagram_bytes).min(inbox.end);
            inbox.next = end;
            match self.keyring.open(&mut inbox.buffer[start..end]) {
                Ok((peer, packet)) => {
                    turn.packets_left -= 1;
                    self.counters.received_packets += 1;
                    self.counters.received_bytes += packet.len() as u64;
                    return Some((peer, start + packet.start..start + packet.end));
                }
                Err(OpenError::Unknown) => self.counters.unknown += 1,
                Err(OpenError::Forged) => self.counters.forged += 1,
                Err(OpenError::Replayed) => self.counters.replayed += 1,
            }
            turn.rejected_left -= 1;
        }
        None
    }

    /// What became of datagrams.
    pub fn counters(&self) -> &OverlayCounters {
        &self.counters
    }
}

/// What became of so many datagrams of so many octets together.
fn count_sent(counters: &mut OverlayCounters, peer: NodeId, count: usize, bytes: usize, result: &std::io::Result<usize>) {
    match result {
        Ok(_) => {
            counters.sent_packets += count as u64;
            counters.sent_bytes += (bytes - count * (HEADER_BYTES + TAG_BYTES)) as u64;
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS) => {
            counters.send_buffer_full += count as u64;
        }
        Err(error) => {
            counters.send_failed += count as u64;
            log::trace!("overlay peer={peer:?} datagrams={count} bytes={bytes} not sent: {error}");
        }
    }
}
