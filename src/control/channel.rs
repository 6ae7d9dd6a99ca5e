//! All sessions of a node: listener, dialling, TLS, heartbeats, back-off. Driven by the shell's mio loop.
//!
//! Of two nodes the one whose name sorts first dials, so a pair has one session. Sockets are read in
//! [`Channel::handle_event`] and written in [`Channel::flush`], nowhere else.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Interest, Registry, Token};

use crate::control::complaints::Complaints;
use crate::control::connection::{Connection, Stage};
use crate::control::ending::Ending;
use crate::control::greeting::{Goodbye, Parting};
use crate::control::message::{Epoch, Message};
use crate::control::overlay::SessionKeys;
use crate::control::peer::Peer;
use crate::control::profile::Profile;
use crate::control::report::Report;
use crate::control::session::SessionEvent;
pub use crate::control::settings::Settings;
use crate::control::socket;
use crate::flow::NodeId;
use crate::limits::{CONNECT_TIMEOUT, SESSION_BACKLOG_BYTES_MAX, UNAUTHENTICATED_MAX};

mod admission;

/// Read from a socket at once.
const READ_BYTES: usize = 64 << 10;

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
#[allow(missing_docs)] // The variants say it; a field name that needed more would be a wrong one.
#[derive(Debug)]
pub enum ChannelEvent {
    /// A session is up, with the keys for its overlay.
    Up {
        /// With whom.
        peer: NodeId,
        /// The peer's life.
        epoch: Epoch,
        /// The peer's kernel.
        settings: Settings,
        /// The version spoken.
        version: u16,
        /// The peer's control address, as the cluster file has it.
        address: SocketAddr,
        /// For the overlay.
        keys: SessionKeys,
    },
    /// The session is gone, and why (for the log and `peers`).
    Down {
        /// With whom.
        peer: NodeId,
        /// Why.
        reason: String,
    },
    /// The peer's kernel has been given other settings since the session is up.
    Settings {
        /// Who.
        peer: NodeId,
        /// All of them.
        settings: Settings,
    },
    /// The peer says it is draining, or no longer. At the start of a session it is not.
    Draining {
        /// Who.
        peer: NodeId,
        /// Whether.
        draining: bool,
    },
    /// What a peer says about itself, with every heartbeat.
    Report {
        /// Who.
        peer: NodeId,
        /// What.
        report: Report,
    },
    /// A message of the handoff protocol.
    Message {
        /// From whom.
        peer: NodeId,
        /// The message.
        message: Message,
    },
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
pub struct Channel {
    profile: Profile,
    node: NodeId,
    first_token: usize,
    listener: Option<TcpListener>,
    /// The accept budget was used up: more may wait.
    accept_again: bool,
    /// One slot per token behind the listener's.
    connections: Vec<Option<Connection>>,
    peers: Vec<Peer>,
    events: VecDeque<ChannelEvent>,
    complaints: Complaints,
    draining: bool,
    /// The latest time anybody told us.
    now: Instant,
    buffer: Vec<u8>,
}

impl Channel {
    /// Binds the listener (clear error when the port is occupied) and starts dialling peers.
    pub fn start(config: ChannelConfig, registry: &Registry, now: Instant) -> anyhow::Result<Self> {
        let ChannelConfig { cluster, node, nodes, key, epoch, settings, first_token } = config;
        let known = nodes.iter().map(|(name, _, key)| (name.clone(), *key)).collect();
        let profile = Profile::new(cluster, node, known, &key, epoch, settings)?;
        let mut listener = socket::listen(nodes[usize::from(node.0)].1)?;
        registry.register(&mut listener, Token(first_token), Interest::READABLE)?;
        let slots = 2 * nodes.len() + UNAUTHENTICATED_MAX;
        let peers = nodes
            .into_iter()
            .zip(0..)
            .map(|((name, address, _), index)| {
                let peer = NodeId(index);
                let seed = epoch.0 ^ u64::from(node.0) << 48 ^ u64::from(index) << 32;
                Peer::new(name, address, seed, (peer > node).then_some(now), now)
            })
            .collect();
        Ok(Self {
            profile,
            node,
            first_token,
            listener: Some(listener),
            accept_again: false,
            connections: (0..slots).map(|_| None).collect(),
            peers,
            events: VecDeque::new(),
            complaints: Complaints::default(),
            draining: false,
            now,
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Whether the token is one of the channel's.
    pub fn owns(&self, token: Token) -> bool {
        (self.first_token..=self.first_token + self.connections.len()).contains(&token.0)
    }

    /// Readiness of one of the channel's tokens.
    pub fn handle_event(&mut self, event: &mio::event::Event, registry: &Registry, now: Instant) {
        self.now = now;
        let Some(slot) = event.token().0.checked_sub(self.first_token) else { return };
        let Some(slot) = slot.checked_sub(1) else { return self.accept(registry, now) };
        let Some(Some(connection)) = self.connections.get_mut(slot) else { return };
        if event.is_writable() {
            match connection.connected(&self.profile, self.draining, now) {
                Ok(true) => connection.unblock(),
                Ok(false) => return,
                Err(ending) => return self.end(slot, &ending, now),
            }
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(slot, now);
        }
    }

    /// A deadline passed: heartbeats, dialling, peers that fell silent.
    pub fn handle_timeout(&mut self, registry: &Registry, now: Instant) {
        self.now = now;
        // Not only when the budget was used up: after a want of descriptors nothing else would wake the listener.
        self.accept_again = false;
        self.accept(registry, now);
        for slot in 0..self.connections.len() {
            let Some(connection) = &self.connections[slot] else { continue };
            let due = connection.poll_timeout() <= now;
            // What waits in the socket counts as heard: it may be us who did not run.
            if due || connection.unread {
                self.read(slot, now);
            }
            if due {
                self.handle_deadline(slot, now);
            }
        }
        for index in 0..self.peers.len() {
            if self.listener.is_some() && self.peers[index].dial_at.is_some_and(|at| at <= now) {
                self.dial(index, registry, now);
            }
        }
    }

    /// When to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.accept_again || !self.events.is_empty() {
            return Some(self.now);
        }
        let connections = self.connections.iter().flatten();
        let deadlines = connections.map(|connection| if connection.unread { self.now } else { connection.poll_timeout() });
        deadlines.chain(self.peers.iter().filter_map(|peer| peer.dial_at)).min()
    }

    /// What happened, until None.
    pub fn poll_event(&mut self) -> Option<ChannelEvent> {
        let event = self.events.pop_front()?;
        if let ChannelEvent::Up { peer, .. } = &event {
            self.peers[usize::from(peer.0)].tell();
        }
        Some(event)
    }

    /// Queues a message; false when there is no session (the message is lost). A session whose `Up` has not been polled
    /// counts as none: a message meant for the session before must not reach the peer's next life.
    pub fn send(&mut self, peer: NodeId, message: &Message) -> bool {
        let Some(slot) = self.peers.get(usize::from(peer.0)).and_then(Peer::known_session) else { return false };
        let Some(session) = self.connections[slot].as_mut().and_then(Connection::session_mut) else { return false };
        if let Err(error) = session.send(message) {
            log::error!("peer={} message not sent: {error}", self.profile.name(peer));
            return false;
        }
        let backlog = session.backlog();
        if backlog > SESSION_BACKLOG_BYTES_MAX {
            self.end(slot, &Ending::Backlog(backlog), self.now);
            return false;
        }
        true
    }

    /// Writes what is queued, one write per peer; called once after each batch.
    pub fn flush(&mut self, _registry: &Registry, now: Instant) {
        self.now = now;
        for slot in 0..self.connections.len() {
            if let Some(connection) = &mut self.connections[slot]
                && let Err(ending) = connection.write(now)
            {
                self.end(slot, &ending, now);
            }
        }
    }

    /// Tells all peers (now and at every new session) whether this node drains.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
        for session in self.connections.iter_mut().flatten().filter_map(Connection::session_mut) {
            session.set_draining(draining);
        }
    }

    /// Tells all peers (now and at every new session) what this node's kernel has been set to.
    pub fn set_settings(&mut self, settings: &Settings) {
        self.profile.settings = settings.clone();
        for session in self.connections.iter_mut().flatten().filter_map(Connection::session_mut) {
            session.set_settings(settings.clone());
        }
    }

    /// Tells all peers with the next heartbeat (and at every new session) what this node says about itself; what is urgent
    /// they are told at once.
    pub fn set_report(&mut self, report: Report, is_urgent: bool) {
        let report = Rc::new(report);
        self.profile.report = Some(Rc::clone(&report));
        for session in self.connections.iter_mut().flatten().filter_map(Connection::session_mut) {
            session.set_report(Rc::clone(&report), is_urgent);
        }
    }

    /// For `baton peers`.
    pub fn peers(&self) -> Vec<PeerView> {
        let others = self.peers.iter().zip(0..).filter(|(_, index)| *index != self.node.0);
        others
            .map(|(peer, index)| {
                let session = peer.session.and_then(|slot| self.connections[slot].as_ref()?.session());
                peer.view(NodeId(index), session)
            })
            .collect()
    }

    /// Says goodbye and closes everything.
    pub fn close(&mut self, registry: &Registry) {
        if let Some(mut listener) = self.listener.take() {
            let _ = registry.deregister(&mut listener);
        }
        for connection in self.connections.iter_mut().filter_map(Option::take) {
            farewell(connection, &mut self.buffer, &self.profile, self.now);
        }
        for peer in &mut self.peers {
            peer.session = None;
            peer.dial_at = None;
        }
        self.accept_again = false;
    }

    fn read(&mut self, slot: usize, now: Instant) {
        let Some(connection) = &mut self.connections[slot] else { return };
        let outcome = connection.read(&mut self.buffer, &self.profile, now);
        self.drain_session(slot, now);
        if let Err(ending) = outcome {
            self.end(slot, &ending, now);
        }
    }

    /// Turns what a session has to tell into events, in order.
    fn drain_session(&mut self, slot: usize, now: Instant) {
        loop {
            let Some(session) = self.connections[slot].as_mut().and_then(Connection::session_mut) else { return };
            let (Some(peer), Some(event)) = (session.peer(), session.poll_event()) else { return };
            let event = match event {
                SessionEvent::Message(message) => ChannelEvent::Message { peer, message },
                SessionEvent::Draining(draining) => ChannelEvent::Draining { peer, draining },
                SessionEvent::Settings(settings) => ChannelEvent::Settings { peer, settings },
                SessionEvent::Report(report) => ChannelEvent::Report { peer, report },
                SessionEvent::Up { peer, epoch, settings, version, keys } => {
                    let address = self.come_up(slot, peer, epoch, now);
                    ChannelEvent::Up { peer, epoch, settings, version, address, keys }
                }
            };
            self.events.push_back(event);
        }
    }

    /// The session in `slot` is the peer's from now on. An older one ends first, so nothing of it can come after.
    fn come_up(&mut self, slot: usize, peer: NodeId, epoch: Epoch, now: Instant) -> SocketAddr {
        let index = usize::from(peer.0);
        if let Some(older) = self.peers[index].session {
            self.end(older, &Ending::Replaced, now);
        }
        self.peers[index].come_up(slot, now);
        let name = self.profile.name(peer);
        let address = self.peers[index].address;
        log::info!("peer={name} session=up epoch={:016x} address={address}", epoch.0);
        address
    }

    fn handle_deadline(&mut self, slot: usize, now: Instant) {
        let Some(connection) = &mut self.connections[slot] else { return };
        let outcome = match &mut connection.stage {
            Stage::Connecting { until, .. } if now >= *until => {
                Err(Ending::TooSlow { what: "connecting", limit: CONNECT_TIMEOUT })
            }
            Stage::Leaving { until, .. } if now >= *until => {
                self.connections[slot] = None;
                return;
            }
            Stage::Connecting { .. } | Stage::Leaving { .. } => Ok(()),
            Stage::Open(session) => session.handle_timeout(now),
        };
        if let Err(ending) = outcome {
            self.end(slot, &ending, now);
        }
    }

    /// The connection in `slot` is over: says so to the log, the peer's line and the engine, and lets the last words
    /// leave. Also the end of a connection that is already leaving.
    fn end(&mut self, slot: usize, ending: &Ending, now: Instant) {
        let Some(connection) = &mut self.connections[slot] else { return };
        let remote = connection.remote;
        let (peer, dialled) = match &connection.stage {
            Stage::Connecting { peer, .. } => (Some(*peer), true),
            Stage::Open(session) => (session.peer(), session.dialled()),
            Stage::Leaving { .. } => {
                self.connections[slot] = None;
                return;
            }
        };
        if let (Ending::Replaced, Some(session)) = (ending, connection.session_mut())
            && let Some(goodbye) = ending.goodbye()
        {
            session.say_goodbye(goodbye);
        }
        // Somebody who does not answer, or is not there any more, gets no last words.
        let leaving = match ending {
            Ending::Silent(_) | Ending::Io { .. } | Ending::Backlog(_) | Ending::Closed => false,
            _ => connection.leave(now),
        };
        if !leaving {
            self.connections[slot] = None;
        }
        // A stranger at a node's address is most likely that node with a wrong key or cluster file.
        let index = match peer {
            Some(peer) => Some(usize::from(peer.0)),
            None => self.peer_at(remote).filter(|_| ending.is_refusal()),
        };
        let was_up = index.is_some_and(|index| self.peers[index].session == Some(slot));
        self.report(peer, remote, ending, was_up, now);
        let Some(index) = index else { return };
        let failed_dial = dialled && self.peers[index].session.is_none_or(|session| session == slot);
        let peer = &mut self.peers[index];
        if was_up {
            self.events.push_back(ChannelEvent::Down { peer: NodeId(index as u16), reason: ending.to_string() });
        }
        if was_up || peer.session.is_none() {
            peer.go_down(ending, failed_dial, now);
        }
    }

    fn report(&mut self, peer: Option<NodeId>, remote: SocketAddr, ending: &Ending, was_up: bool, now: Instant) {
        let who = match peer {
            Some(peer) => format!("peer={} address={}", self.profile.name(peer), remote.ip()),
            None => format!("peer=unknown address={}", remote.ip()),
        };
        if ending.needs_attention() {
            let text = format!("{who} session=ended reason={ending}");
            log::log!(self.complaints.level(&text, now), "{text}");
        } else if was_up {
            log::info!("{who} session=down reason={ending}");
        } else {
            log::debug!("{who} session=failed reason={ending}");
        }
    }

    /// The only node with this IP address, if there is one.
    fn peer_at(&self, remote: SocketAddr) -> Option<usize> {
        let at = |peer: &Peer| peer.address.ip() == remote.ip();
        let index = self.peers.iter().position(at)?;
        (index != usize::from(self.node.0) && !self.peers[index + 1..].iter().any(at)).then_some(index)
    }

    fn dial(&mut self, index: usize, registry: &Registry, now: Instant) {
        let peer = NodeId(index as u16);
        let (from, to) = (self.peers[usize::from(self.node.0)].address.ip(), self.peers[index].address);
        self.peers[index].begin_dialling(now);
        let Some(slot) = self.free_slot() else { return self.peers[index].go_down(&Ending::Closed, true, now) };
        let opened = socket::dial(from, to).and_then(|mut stream| {
            registry.register(&mut stream, self.token(slot), Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        });
        match opened {
            Ok(stream) => self.connections[slot] = Some(Connection::connecting(stream, peer, to, now)),
            Err(error) => {
                let ending = Ending::io("cannot connect", &error);
                self.report(Some(peer), to, &ending, false, now);
                self.peers[index].go_down(&ending, true, now);
            }
        }
    }

    /// A free slot; if there is none, that of the connection that has been leaving for longest.
    fn free_slot(&mut self) -> Option<usize> {
        let slots = &mut self.connections;
        slots.iter().position(Option::is_none).or_else(|| {
            let leaving = |slot: &usize| matches!(&slots[*slot], Some(Connection { stage: Stage::Leaving { .. }, .. }));
            (0..slots.len()).filter(leaving).min_by_key(|slot| slots[*slot].as_ref().map(Connection::poll_timeout))
        })
    }

    const fn token(&self, slot: usize) -> Token {
        Token(self.first_token + 1 + slot)
    }
}

/// Says goodbye on a connection and closes it, as far as that goes without waiting.
fn farewell(mut connection: Connection, buffer: &mut [u8], profile: &Profile, now: Instant) {
    if let Some(session) = connection.session_mut() {
        session.say_goodbye(Goodbye { reason: Parting::Stopping, text: "the process stops".into() });
    }
    connection.leave(now);
    let _ = connection.write(now);
    let _ = connection.read(buffer, profile, now);
}
