//! One TCP connection of the control channel and the session on it: moves octets between socket and session.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Instant;

use mio::net::TcpStream;

use crate::control::ending::Ending;
use crate::control::profile::Profile;
use crate::control::session::Session;
use crate::control::socket;
use crate::flow::NodeId;
use crate::limits::{CONNECT_TIMEOUT, FAREWELL_TIMEOUT, SESSION_READ_BUDGET_BYTES};

/// How far a connection is.
#[derive(Debug)]
pub enum Stage {
    /// TCP shakes hands.
    Connecting {
        /// Whom we dial.
        peer: NodeId,
        /// Given up then.
        until: Instant,
    },
    /// A session, from its first octet on.
    Open(Box<Session>),
    /// The session has ended; its last words are on their way. Closing at once could make the kernel answer octets we
    /// have not read with RST, and the other side would lose them.
    Leaving {
        /// The session that has ended.
        session: Box<Session>,
        /// Closed then.
        until: Instant,
        /// Everything has been written, and FIN sent.
        finished: bool,
    },
}

/// A connection. See the module's documentation.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// The other end.
    pub remote: SocketAddr,
    /// How far it is.
    pub stage: Stage,
    /// The socket takes no more until it says that it is writable.
    blocked: bool,
    /// The socket may have more than the budget allowed to read.
    pub unread: bool,
}

impl Connection {
    /// A connection that we opened and that is on its way.
    pub fn connecting(stream: TcpStream, peer: NodeId, remote: SocketAddr, now: Instant) -> Self {
        let stage = Stage::Connecting { peer, until: now + CONNECT_TIMEOUT };
        Self { stream, remote, stage, blocked: true, unread: false }
    }

    /// A connection that somebody opened to us.
    pub fn accepted(stream: TcpStream, remote: SocketAddr, session: Session) -> io::Result<Self> {
        socket::tune(&stream)?;
        Ok(Self { stream, remote, stage: Stage::Open(Box::new(session)), blocked: false, unread: false })
    }

    /// For registration with mio.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Whether TCP is connected by now. Opens the session when it is.
    pub fn connected(&mut self, profile: &Profile, draining: bool, now: Instant) -> Result<bool, Ending> {
        let Stage::Connecting { peer, .. } = self.stage else { return Ok(true) };
        let failed = |error: &io::Error| Ending::io("cannot connect", error);
        if let Some(error) = self.stream.take_error().map_err(|error| failed(&error))? {
            return Err(failed(&error));
        }
        match self.stream.peer_addr() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
            Err(error) => return Err(failed(&error)),
        }
        socket::tune(&self.stream).map_err(|error| failed(&error))?;
        self.stage = Stage::Open(Box::new(Session::dial(profile, peer, draining, now)?));
        self.blocked = false;
        Ok(true)
    }

    /// The socket says that it is writable.
    pub fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Reads until the socket has no more or the budget is used, which leaves `unread` set.
    pub fn read(&mut self, buffer: &mut [u8], profile: &Profile, now: Instant) -> Result<(), Ending> {
        if matches!(self.stage, Stage::Connecting { .. }) {
            return Ok(());
        }
        let mut budget = SESSION_READ_BUDGET_BYTES;
        self.unread = false;
        while budget > 0 {
            let octets = match self.stream.read(buffer) {
                Ok(octets) => octets,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Ending::io("connection lost", &error)),
            };
            budget = budget.saturating_sub(octets);
            match &mut self.stage {
                Stage::Open(_) | Stage::Leaving { .. } if octets == 0 => return Err(Ending::Closed),
                Stage::Open(session) => session.handle_bytes(&buffer[..octets], profile, now)?,
                // What arrives after the end is nobody's; it is read so that the kernel need not answer it with RST.
                Stage::Leaving { .. } => {}
                Stage::Connecting { .. } => return Ok(()),
            }
        }
        self.unread = true;
        Ok(())
    }

    /// Writes what waits, until nothing does or the socket takes no more.
    pub fn write(&mut self, now: Instant) -> Result<(), Ending> {
        let (Stage::Open(session) | Stage::Leaving { session, .. }) = &mut self.stage else { return Ok(()) };
        while !self.blocked {
            let octets = session.outgoing(now);
            if octets.is_empty() {
                break;
            }
            match self.stream.write(octets) {
                Ok(written) => session.advance(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.blocked = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Ending::io("connection lost", &error)),
            }
        }
        if let Stage::Leaving { session, finished, .. } = &mut self.stage
            && !*finished
            && session.backlog() == 0
        {
            *finished = true;
            self.stream.shutdown(Shutdown::Write).map_err(|error| Ending::io("connection lost", &error))?;
        }
        Ok(())
    }

    /// The session has ended; its last words may still leave. False when there is nobody to say them to.
    pub fn leave(&mut self, now: Instant) -> bool {
        let placeholder = Stage::Connecting { peer: NodeId(0), until: now };
        match std::mem::replace(&mut self.stage, placeholder) {
            Stage::Open(session) => {
                self.stage = Stage::Leaving { session, until: now + FAREWELL_TIMEOUT, finished: false };
                true
            }
            Stage::Leaving { .. } | Stage::Connecting { .. } => false,
        }
    }

    /// When something is due.
    pub fn poll_timeout(&self) -> Instant {
        match &self.stage {
            Stage::Connecting { until, .. } | Stage::Leaving { until, .. } => *until,
            Stage::Open(session) => session.poll_timeout(),
        }
    }

    /// The session, while it lasts.
    pub fn session(&self) -> Option<&Session> {
        if let Stage::Open(session) = &self.stage { Some(session) } else { None }
    }

    /// The session, while it lasts.
    pub fn session_mut(&mut self) -> Option<&mut Session> {
        if let Stage::Open(session) = &mut self.stage { Some(session) } else { None }
    }
}
