//! Tables and dispatch.

use crate::control::message::{Epoch, Message};
use crate::flow::{Endpoint, FlowKey, NodeId};
use crate::handoff::counters::DropReason;
use std::time::Instant;

/// What becomes of the packet in hand. It was rewritten in place.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Write it to the TUN.
    Write,
    /// Send it to this peer through the overlay.
    Forward(NodeId),
    /// The engine kept or used it.
    Consumed,
    /// Drop it; already counted.
    Drop(DropReason),
}

/// What the engine originates. Drained to empty after every input, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Write a packet to the TUN.
    Packet(Vec<u8>),
    /// Send a packet to a peer through the overlay.
    Forward(NodeId, Vec<u8>),
    /// Send a control message. If there is no session it is lost, and `PeerEvent::Down` has been or will be told.
    Message(NodeId, Message),
    /// Write a guard and tell the result by [`Engine::handle_guard`].
    Guard(FlowKey),
    /// Remove a guard.
    Unguard(FlowKey),
    /// Ask the kernel about a socket and tell the answer by [`Engine::handle_socket`].
    AskSocket { local: Endpoint, remote: Endpoint },
    /// Destroy a socket whose connection is lost.
    DestroySocket { local: Endpoint, remote: Endpoint },
}

/// What the kernel says about one 4-tuple.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketState {
    /// No socket but perhaps a listener.
    Absent,
    /// A request socket: the handshake is not complete.
    SynReceived,
    /// Any synchronised state but TIME-WAIT.
    Open,
    /// TIME-WAIT.
    TimeWait,
}

/// What happened to the session with a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerEvent {
    /// A session is up; the peer is in this life.
    Up(Epoch),
    /// The session is gone.
    Down,
    /// The peer says it is draining (true) or no longer (false): no new offers to it.
    Draining(bool),
}

/// What an engine must be told at start.
#[derive(Debug)]
pub struct EngineConfig {
    /// This node.
    pub node: NodeId,
    /// This life.
    pub epoch: Epoch,
    /// Octets by which the overlay makes a packet longer than the packet it carries, outer IP header included.
    pub overlay_overhead: u16,
    /// MTU of the links to peers.
    pub mtu: u16,
    /// Guards found in the kernel, from an earlier life.
    pub orphans: Vec<FlowKey>,
}

/// The engine. One mutation, then [`Engine::poll_output`] until it is empty, then the next mutation.
#[derive(Debug)]
pub struct Engine {}

impl Engine {
    /// An engine without connections.
    pub fn new(config: EngineConfig, policy: std::rc::Rc<crate::policy::Policy>, now: Instant) -> Self { let _ = (config, policy, now); todo!() }
    /// A packet read from the TUN.
    pub fn handle_tun(&mut self, packet: &mut [u8], now: Instant) -> Verdict { let _ = (packet, now); todo!() }
    /// A packet that came from a peer through the overlay.
    pub fn handle_overlay(&mut self, from: NodeId, packet: &mut [u8], now: Instant) -> Verdict { let _ = (from, packet, now); todo!() }
    /// A control message.
    pub fn handle_message(&mut self, from: NodeId, message: Message, now: Instant) { let _ = (from, message, now); todo!() }
    /// A session came or went.
    pub fn handle_peer(&mut self, peer: NodeId, event: PeerEvent, now: Instant) { let _ = (peer, event, now); todo!() }
    /// The result of [`Output::Guard`].
    pub fn handle_guard(&mut self, flow: FlowKey, written: bool, now: Instant) { let _ = (flow, written, now); todo!() }
    /// The answer to [`Output::AskSocket`].
    pub fn handle_socket(&mut self, local: Endpoint, remote: Endpoint, state: SocketState, now: Instant) { let _ = (local, remote, state, now); todo!() }
    /// The backlog of the listener behind a front-end address, whenever the shell has asked the kernel.
    pub fn handle_backlog(&mut self, frontend: Endpoint, backlog: u32) { let _ = (frontend, backlog); todo!() }
    /// The loop did not run for longer than `limits::STALL`: the kernel may have served held connections meanwhile.
    pub fn handle_stall(&mut self, now: Instant) { let _ = now; todo!() }
    /// A deadline passed.
    pub fn handle_timeout(&mut self, now: Instant) { let _ = now; todo!() }
    /// When to call [`Engine::handle_timeout`]; changes after every input.
    pub fn poll_timeout(&mut self) -> Option<Instant> { todo!() }
    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> { todo!() }
    /// No new handoffs from or to here; undecided connections are released to the local server.
    pub fn drain(&mut self, now: Instant) { let _ = now; todo!() }
    /// Takes new handoffs again.
    pub fn undrain(&mut self) { todo!() }
    /// Connections that would be cut if the process ended now (lingering ones do not count).
    pub fn live(&self) -> usize { todo!() }
    /// Resets every connection that would be cut, both ends: the last thing before the process ends.
    pub fn reset_all(&mut self, now: Instant) { let _ = now; todo!() }
    /// All counters, for `baton stats`; flat, stable names such as `handoffs_committed_total`, `fallbacks_total{reason="peer_down"}`.
    pub fn counters(&self) -> Vec<(String, u64)> { todo!() }
    /// All connections, for `baton flows`.
    pub fn flows(&self, now: Instant) -> Vec<FlowView> { let _ = now; todo!() }
}

/// One connection as `baton flows` shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowView {
    /// Client and front-end address.
    pub flow: FlowKey,
    /// `front-end` or `back-end`.
    pub role: &'static str,
    /// The state's name.
    pub state: &'static str,
    /// The other node of the handoff, if any.
    pub peer: Option<NodeId>,
    /// The rule that decided, if known here.
    pub rule: Option<String>,
    /// Since when in this state.
    pub age: std::time::Duration,
}
