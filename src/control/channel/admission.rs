//! Whom the listener lets in: anybody, within bounds, since who it is shows only later.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Instant;

use mio::{Interest, Registry};

use super::Channel;
use crate::control::connection::Connection;
use crate::control::session::Session;
use crate::limits::UNAUTHENTICATED_MAX;

/// Connections accepted before others get their turn.
const ACCEPT_BUDGET: usize = 64;

impl Channel {
    /// Accepts what waits at the listener, or as much of it as the budget allows.
    pub(super) fn accept(&mut self, registry: &Registry, now: Instant) {
        for _ in 0..ACCEPT_BUDGET {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, remote)) => self.admit(stream, remote, registry, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Of one connection that is already gone, or for want of descriptors: asked again at the next deadline.
                Err(error) => {
                    log::debug!("accept: {error}");
                    if error.raw_os_error() == Some(libc::EMFILE) || error.raw_os_error() == Some(libc::ENFILE) {
                        return self.complain_of_descriptors(now);
                    }
                }
            }
        }
        self.accept_again = true;
    }

    fn complain_of_descriptors(&mut self, now: Instant) {
        let text = "control channel cannot accept: no file descriptors left; raise LimitNOFILE (ulimit -n)";
        log::log!(self.complaints.level(text, now), "{text}");
    }

    /// A connection from anywhere. When too many have not come up, one from a node's address takes the place of the
    /// oldest from elsewhere, so strangers cannot keep nodes out.
    fn admit(&mut self, stream: mio::net::TcpStream, remote: SocketAddr, registry: &Registry, now: Instant) {
        let strangers =
            |connection: &Connection| connection.session().is_some_and(|session| !session.dialled() && !session.is_up());
        let is_node = |address: SocketAddr| self.peers.iter().any(|peer| peer.address.ip() == address.ip());
        let inside = self.connections.iter().flatten().filter(|connection| strangers(connection)).count();
        if inside >= UNAUTHENTICATED_MAX {
            let elsewhere = (0..self.connections.len())
                .filter(|slot| {
                    let connection = self.connections[*slot].as_ref();
                    connection.is_some_and(|connection| strangers(connection) && !is_node(connection.remote))
                })
                .min_by_key(|slot| self.connections[*slot].as_ref().map(Connection::poll_timeout));
            match elsewhere {
                Some(slot) if is_node(remote) => self.connections[slot] = None,
                _ => {
                    let text = format!(
                        "control channel has {UNAUTHENTICATED_MAX} connections that show no key; refusing more: \
                         keep strangers from the port with a firewall"
                    );
                    return log::log!(self.complaints.level(&text, now), "{text}");
                }
            }
        }
        let Some(slot) = self.free_slot() else { return };
        let Ok(session) = Session::accept(&self.profile, self.draining, now) else { return };
        let token = self.token(slot);
        let admitted = Connection::accepted(stream, remote, session).and_then(|mut connection| {
            registry.register(connection.stream(), token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(connection)
        });
        match admitted {
            Ok(connection) => self.connections[slot] = Some(connection),
            Err(error) => log::debug!("address={} not admitted: {error}", remote.ip()),
        }
    }
}
