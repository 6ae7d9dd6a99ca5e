//! One session between two nodes: TLS, Hello, heartbeats, messages. Octets in, octets out; no socket, no clock.
//!
//! ```text
//!  Handshake --TLS complete: our Hello--> Greeting --their Hello is acceptable--> Up
//!      |                                     |                                     |
//!      `------------- any Ending ------------+-------------------------------------'
//! ```
//!
//! Every method that returns an [`Ending`] ends the session: take what [`Session::outgoing`] still has (an alert or a
//! Goodbye tells the other side why), then drop it. Randomness is that of the TLS library.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustls::Connection;

use crate::control::ending::{Ending, Refusing};
use crate::control::frame::{Frame, FrameBuffer, encode_message};
use crate::control::greeting::{Goodbye, Heartbeat, Hello};
use crate::control::key::public_key_to_text;
use crate::control::message::{Epoch, Message};
use crate::control::outbox::Outbox;
use crate::control::profile::Profile;
use crate::control::report::{REPORT_SINCE, Report};
use crate::control::seal::SessionKeys;
use crate::control::settings::Settings;
use crate::control::tls::{is_key_refusal, shown_key, wrong_key};
use crate::control::wire::EncodeError;
use crate::flow::NodeId;
use crate::limits::{AUTHENTICATION_TIMEOUT, PEER_HEARTBEAT_INTERVAL, PEER_SILENCE_MAX};

/// Label of the overlay keys (RFC 9846, exporters); the context says which.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-baton-overlay";
/// Octets turned into TLS records at once while earlier ones still wait: what is queued behind a slow peer stays plain.
const SEAL_BYTES: usize = 256 << 10;

/// What a session has to tell.
#[derive(Debug)]
pub enum SessionEvent {
    /// Both sides have accepted each other.
    Up {
        /// Who it is.
        peer: NodeId,
        /// The peer's life.
        epoch: Epoch,
        /// The peer's kernel.
        settings: Settings,
        /// The version spoken.
        version: u16,
        /// Keys for the overlay.
        keys: SessionKeys,
    },
    /// The peer's kernel has been given other settings.
    Settings(Settings),
    /// The peer says it is draining, or no longer. At first it is not.
    Draining(bool),
    /// What the peer says about itself.
    Report(Report),
    /// A message of the handoff protocol.
    Message(Message),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Handshake,
    Greeting { peer: NodeId },
    Up { peer: NodeId, version: u16 },
}

/// One session. See the module's documentation.
pub struct Session {
    tls: Connection,
    /// Whom we dialled; None when we were dialled.
    dialled: Option<NodeId>,
    phase: Phase,
    opened: Instant,
    heard: Instant,
    heartbeat_due: Instant,
    frames: FrameBuffer,
    events: VecDeque<SessionEvent>,
    plain: Outbox,
    sealed: Outbox,
    draining: bool,
    /// Changed since Hello was said, or may have been; to be told as soon as the session is up.
    changed_settings: Option<Settings>,
    /// What this node says about itself, with every heartbeat.
    report: Option<Rc<Report>>,
    peer_draining: bool,
    /// The latest Heartbeat of the peer (its clock), and when it came.
    echo: Option<(u64, Instant)>,
    round_trip: Option<Duration>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("dialled", &self.dialled).field("phase", &self.phase).finish_non_exhaustive()
    }
}

impl Session {
    /// The dialler's side.
    pub fn dial(profile: &Profile, peer: NodeId, draining: bool, now: Instant) -> Result<Self, Ending> {
        let tls = profile.tls.dial(usize::from(peer.0)).map_err(Ending::Tls)?;
        Ok(Self::new(tls, Some(peer), profile, draining, now))
    }

    /// The listener's side.
    pub fn accept(profile: &Profile, draining: bool, now: Instant) -> Result<Self, Ending> {
        let tls = profile.tls.accept().map_err(Ending::Tls)?;
        Ok(Self::new(tls, None, profile, draining, now))
    }

    fn new(tls: Connection, dialled: Option<NodeId>, profile: &Profile, draining: bool, now: Instant) -> Self {
        Self {
            tls,
            dialled,
            phase: Phase::Handshake,
            opened: now,
            heard: now,
            heartbeat_due: now,
            frames: FrameBuffer::default(),
            events: VecDeque::new(),
            plain: Outbox::default(),
            sealed: Outbox::default(),
            draining,
            changed_settings: None,
            report: profile.report.clone(),
            peer_draining: false,
            echo: None,
            round_trip: None,
        }
    }

    /// What was received. Events told before an error are good.
    pub fn handle_bytes(&mut self, mut octets: &[u8], profile: &Profile, now: Instant) -> Result<(), Ending> {
        while !octets.is_empty() {
            let outcome = self.handle_records(&mut octets, profile, now);
            if let Err(ending) = outcome {
                if let Some(goodbye) = ending.goodbye() {
                    self.say_goodbye(goodbye);
                }
                return Err(ending);
            }
        }
        Ok(())
    }

    fn handle_records(&mut self, octets: &mut &[u8], profile: &Profile, now: Instant) -> Result<(), Ending> {
        if self.tls.read_tls(octets).map_err(|error| Ending::io("TLS", &error))? == 0 {
            return Err(Ending::Closed);
        }
        let state = self.tls.process_new_packets().map_err(|error| self.tls_ending(error, profile))?;
        if self.phase == Phase::Handshake && !self.tls.is_handshaking() {
            self.greet(profile)?;
        }
        if state.plaintext_bytes_to_read() > 0 {
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            self.tls.reader().read_exact(&mut plain).map_err(|error| Ending::io("TLS", &error))?;
            self.heard = now;
            self.frames.push(&plain);
        }
        while let Some(frame) = self.frames.next_frame().map_err(Ending::Undecodable)? {
            self.handle_frame(frame, profile, now)?;
        }
        if state.peer_has_closed() { Err(Ending::Closed) } else { Ok(()) }
    }

    fn tls_ending(&self, error: rustls::Error, profile: &Profile) -> Ending {
        if let Some(wrong) = wrong_key(&error) {
            let shown = wrong.shown.map_or_else(|| "(not Ed25519)".to_owned(), |key| public_key_to_text(&key));
            return Ending::Refused(match self.dialled {
                Some(peer) => Refusing::OtherKey { peer: profile.name(peer).to_owned(), shown, pinned: profile.key_text(peer) },
                None => Refusing::UnknownKey { shown, cluster: profile.cluster.clone() },
            });
        }
        match error {
            rustls::Error::AlertReceived(alert) if is_key_refusal(alert) => {
                Ending::KeyRefused { ours: profile.key_text(profile.node), us: profile.name(profile.node).to_owned() }
            }
            error => Ending::Tls(error),
        }
    }

    /// TLS is complete: we know who it is. Says Hello.
    fn greet(&mut self, profile: &Profile) -> Result<(), Ending> {
        let peer = shown_key(&self.tls).and_then(|key| profile.peer_with(&key));
        // The verifier has let no other key pass.
        let peer = peer.ok_or(Ending::OutOfTurn("TLS without a key of the cluster"))?;
        self.phase = Phase::Greeting { peer };
        if self.dialled.is_none() && peer > profile.node {
            return Err(Ending::Refused(Refusing::Direction {
                peer: profile.name(peer).to_owned(),
                us: profile.name(profile.node).to_owned(),
            }));
        }
        let hello = Frame::Hello(Hello {
            versions: profile.versions,
            cluster: profile.cluster.clone(),
            node: profile.name(profile.node).to_owned(),
            epoch: profile.epoch,
            settings: profile.settings.clone(),
        });
        hello
            .encode(self.plain.end())
            .map_err(|error| Ending::Io { what: "a name of the cluster file", error: error.to_string() })
    }

    fn handle_frame(&mut self, frame: Frame, profile: &Profile, now: Instant) -> Result<(), Ending> {
        match (self.phase, frame) {
            (_, Frame::Goodbye(goodbye)) => Err(Ending::Goodbye(goodbye)),
            (Phase::Greeting { peer }, Frame::Hello(hello)) => self.handle_hello(peer, hello, profile, now),
            (Phase::Up { .. }, Frame::Heartbeat(heartbeat)) => {
                self.handle_heartbeat(heartbeat, now);
                Ok(())
            }
            (Phase::Up { .. }, Frame::Settings(settings)) => {
                self.events.push_back(SessionEvent::Settings(settings));
                Ok(())
            }
            (Phase::Up { version: REPORT_SINCE.., .. }, Frame::Report(report)) => {
                self.events.push_back(SessionEvent::Report(report));
                Ok(())
            }
            (Phase::Up { .. }, Frame::Report(_)) => Err(Ending::OutOfTurn("a report, which version 1 does not have")),
            (Phase::Up { .. }, Frame::Message(message)) => {
                self.events.push_back(SessionEvent::Message(message));
                Ok(())
            }
            (Phase::Up { .. }, Frame::Hello(_)) => Err(Ending::OutOfTurn("a second Hello")),
            (Phase::Handshake | Phase::Greeting { .. }, _) => Err(Ending::OutOfTurn("a message before Hello")),
        }
    }

    fn handle_hello(&mut self, peer: NodeId, hello: Hello, profile: &Profile, now: Instant) -> Result<(), Ending> {
        let (name, us) = (profile.name(peer).to_owned(), profile.name(profile.node).to_owned());
        // The version first: of a Hello in a version we do not speak, nothing else may mean what we think.
        let Some(version) = profile.versions.common(hello.versions) else {
            return Err(Ending::Refused(Refusing::Version { peer: name, theirs: hello.versions, us, ours: profile.versions }));
        };
        if hello.cluster != profile.cluster {
            return Err(Ending::Refused(Refusing::Cluster {
                peer: name,
                theirs: hello.cluster,
                us,
                ours: profile.cluster.clone(),
            }));
        }
        if hello.node != name {
            return Err(Ending::Refused(Refusing::Name { peer: name, said: hello.node }));
        }
        let keys = self.export_keys().map_err(Ending::Tls)?;
        self.phase = Phase::Up { peer, version };
        self.heartbeat_due = now;
        self.events.push_back(SessionEvent::Up { peer, epoch: hello.epoch, settings: hello.settings, version, keys });
        Ok(())
    }

    /// Keys are named after who seals with them, so both sides derive the same two.
    fn export_keys(&self) -> Result<SessionKeys, rustls::Error> {
        let key = |context: &[u8]| self.tls.export_keying_material([0; 32], EXPORTER_LABEL, Some(context));
        let session = self.tls.export_keying_material([0; 4], EXPORTER_LABEL, Some(b"session"))?;
        let (dialler, listener) = (key(b"dialler")?, key(b"listener")?);
        let (send, receive) = if self.dialled.is_some() { (dialler, listener) } else { (listener, dialler) };
        Ok(SessionKeys { session: u32::from_be_bytes(session), send, receive })
    }

    fn handle_heartbeat(&mut self, heartbeat: Heartbeat, now: Instant) {
        self.echo = Some((heartbeat.sent, now));
        if heartbeat.echo != 0 {
            let away = Duration::from_micros(self.clock(now).saturating_sub(heartbeat.echo));
            self.round_trip = Some(away.saturating_sub(Duration::from_micros(u64::from(heartbeat.held))));
        }
        if heartbeat.draining != self.peer_draining {
            self.peer_draining = heartbeat.draining;
            self.events.push_back(SessionEvent::Draining(heartbeat.draining));
        }
    }

    /// Our clock as heartbeats show it; never 0, which stands for "none".
    fn clock(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.opened).as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// A deadline passed. First show the session what the socket has: if we were the ones who slept, the peer has not
    /// been silent.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Ending> {
        match self.phase {
            Phase::Up { .. } if now >= self.heard + PEER_SILENCE_MAX => Err(Ending::Silent(now - self.heard)),
            Phase::Handshake | Phase::Greeting { .. } if now >= self.opened + AUTHENTICATION_TIMEOUT => {
                Err(Ending::TooSlow { what: "authentication", limit: AUTHENTICATION_TIMEOUT })
            }
            _ => {
                self.queue_heartbeat(now);
                Ok(())
            }
        }
    }

    fn queue_heartbeat(&mut self, now: Instant) {
        if !self.is_up() || now < self.heartbeat_due {
            return;
        }
        self.heartbeat_due = now + PEER_HEARTBEAT_INTERVAL;
        let (echo, held) = self.echo.map_or((0, 0), |(echo, came)| {
            (echo, u32::try_from(now.saturating_duration_since(came).as_micros()).unwrap_or(u32::MAX))
        });
        let heartbeat = Heartbeat { sent: self.clock(now), echo, held, draining: self.draining, load: 0 };
        // A heartbeat has a fixed length, so it can always be written.
        let _ = Frame::Heartbeat(heartbeat).encode(self.plain.end());
        if let (Phase::Up { version: REPORT_SINCE.., .. }, Some(report)) = (self.phase, &self.report) {
            // Its parts are a cluster file's, which has the same bounds, so it can always be written.
            let _ = Frame::Report((**report).clone()).encode(self.plain.end());
        }
    }

    /// When a heartbeat or the end is due.
    pub fn poll_timeout(&self) -> Instant {
        match self.phase {
            Phase::Up { .. } => self.heartbeat_due.min(self.heard + PEER_SILENCE_MAX),
            Phase::Handshake | Phase::Greeting { .. } => self.opened + AUTHENTICATION_TIMEOUT,
        }
    }

    /// What happened, until None.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// Queues a message. Only when the session is up.
    pub fn send(&mut self, message: &Message) -> Result<(), EncodeError> {
        debug_assert!(self.is_up());
        encode_message(message, self.plain.end())
    }

    /// Tells the peer with the next octets that leave.
    pub fn set_draining(&mut self, draining: bool) {
        if self.draining != draining {
            self.draining = draining;
            self.heartbeat_due = self.opened;
        }
    }

    /// Tells the peer with the next heartbeat; what is urgent goes with the next octets that leave.
    pub fn set_report(&mut self, report: Rc<Report>, is_urgent: bool) {
        self.report = Some(report);
        if is_urgent {
            self.heartbeat_due = self.opened;
        }
    }

    /// Tells the peer with the next octets that leave, once the session is up.
    pub fn set_settings(&mut self, settings: Settings) {
        self.changed_settings = Some(settings);
    }

    /// Queues the last words. Nothing can be said after them.
    pub fn say_goodbye(&mut self, goodbye: Goodbye) {
        if !self.tls.is_handshaking() {
            // A text is cut to its limit, so a Goodbye can always be written.
            let _ = Frame::Goodbye(goodbye).encode(self.plain.end());
            let _ = self.tls.writer().write_all(self.plain.waiting());
            self.plain.clear();
            self.tls.send_close_notify();
        }
    }

    /// Octets for the peer, as TLS records; a heartbeat among them when it is due. Tell by [`Session::advance`] how
    /// many were written, and ask again until none are left.
    pub fn outgoing(&mut self, now: Instant) -> &[u8] {
        self.queue_heartbeat(now);
        if self.is_up()
            && let Some(settings) = self.changed_settings.take()
        {
            // Settings have a fixed length, so they can always be written.
            let _ = Frame::Settings(settings).encode(self.plain.end());
        }
        if self.sealed.len() < SEAL_BYTES && !self.plain.is_empty() && !self.tls.is_handshaking() {
            let piece = self.plain.len().min(SEAL_BYTES);
            // Without a buffer limit the TLS library takes everything.
            let _ = self.tls.writer().write_all(&self.plain.waiting()[..piece]);
            self.plain.advance(piece);
        }
        while self.tls.wants_write() {
            if !matches!(self.tls.write_tls(self.sealed.end()), Ok(1..)) {
                break;
            }
        }
        self.sealed.waiting()
    }

    /// The first `octets` of [`Session::outgoing`] have been written.
    pub fn advance(&mut self, octets: usize) {
        self.sealed.advance(octets);
    }

    /// Octets queued and not yet written.
    pub fn backlog(&self) -> usize {
        self.plain.len() + self.sealed.len()
    }

    /// Who the other side has proved to be, or whom we dialled.
    pub const fn peer(&self) -> Option<NodeId> {
        match self.phase {
            Phase::Greeting { peer } | Phase::Up { peer, .. } => Some(peer),
            Phase::Handshake => self.dialled,
        }
    }

    /// Whether we dialled.
    pub const fn dialled(&self) -> bool {
        self.dialled.is_some()
    }

    /// Whether the other side has proved to hold a key of the cluster.
    pub const fn is_authenticated(&self) -> bool {
        !matches!(self.phase, Phase::Handshake)
    }

    /// Whether messages can be sent.
    pub const fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up { .. })
    }

    /// The version spoken, when up.
    pub const fn version(&self) -> Option<u16> {
        match self.phase {
            Phase::Up { version, .. } => Some(version),
            Phase::Handshake | Phase::Greeting { .. } => None,
        }
    }

    /// When the session was opened.
    pub const fn opened(&self) -> Instant {
        self.opened
    }

    /// Round-trip time by the latest heartbeat.
    pub const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Whether the peer says it drains.
    pub const fn peer_draining(&self) -> bool {
        self.peer_draining
    }
}

#[cfg(test)]
mod tests;
