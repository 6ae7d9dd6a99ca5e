//! The daemon's end of the admin socket. Driven by the node's loop, never blocks it: a client that is slow to ask or to
//! read is dropped.

use super::protocol::{self, Reply, Request};
use mio::event::Event;
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A client gets this long to send its line, and again to read the reply.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);

/// Tokens the server uses from its first one.
pub const TOKENS: usize = 1 + crate::limits::ADMIN_CLIENTS_MAX;

/// Names a client for the reply; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientId {
    slot: usize,
    serial: u64,
}

/// The kernel's field for it has 108 bytes, the last of them zero.
const SOCKET_PATH_MAX: usize = 107;

/// Why the socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A daemon answers there.
    #[error("already running: a daemon answers at {0}; stop it with `baton stop --socket {0}`, or choose another --socket")]
    AlreadyRunning(String),
    /// Anything else.
    #[error("cannot listen at {path}: {error}; choose another place with --socket PATH")]
    Io {
        /// Where.
        path: String,
        /// Why.
        error: io::Error,
    },
}

/// The listener and its clients. Removes the socket when dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    /// None: removed already, and what is there now is somebody else's.
    path: Option<PathBuf>,
    first_token: usize,
    clients: [Option<Client>; crate::limits::ADMIN_CLIENTS_MAX],
    serial: u64,
    requests: VecDeque<(ClientId, Request)>,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    serial: u64,
    stage: Stage,
}

/// What a client is doing; each stage owns what it needs.
#[derive(Debug)]
enum Stage {
    /// Sends its line.
    Asking { line: Vec<u8>, deadline: Instant },
    /// Its request is with the loop.
    Waiting,
    /// Reads the reply.
    Reading { line: Vec<u8>, sent: usize, deadline: Instant },
}

impl Server {
    /// Binds the socket, readable by this user only. A socket left over from a crash is replaced, a live one is not.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        check(path)?;
        let place = path.display().to_string();
        let io_error = |error| BindError::Io { path: place.clone(), error };
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io_error)?;
        }
        remove_socket(path).map_err(io_error)?;
        Ok(Self {
            listener: listen(path).map_err(io_error)?,
            path: Some(path.to_owned()),
            first_token: 0,
            clients: Default::default(),
            serial: 0,
            requests: VecDeque::new(),
        })
    }

    /// Begins to take clients, with [`TOKENS`] tokens from `first_token` on.
    pub fn register(&mut self, registry: &Registry, first_token: usize) -> io::Result<()> {
        self.first_token = first_token;
        registry.register(&mut self.listener, Token(first_token), Interest::READABLE)
    }

    /// Whether the token is one of the server's.
    pub fn owns(&self, token: Token) -> bool {
        (self.first_token..self.first_token + TOKENS).contains(&token.0)
    }

    /// Readiness of one of the server's tokens.
    pub fn handle_event(&mut self, event: &Event, registry: &Registry, now: Instant) {
        match event.token().0 - self.first_token {
            0 => self.accept(registry, now),
            // Half a hang-up is fine: `nc` closes its sending side behind the request.
            slot if event.is_write_closed() => self.close(slot - 1, registry),
            slot => self.progress(slot - 1, registry),
        }
    }

    /// Drops clients whose time is over.
    pub fn handle_timeout(&mut self, registry: &Registry, now: Instant) {
        for slot in 0..crate::limits::ADMIN_CLIENTS_MAX {
            if self.clients[slot].as_ref().and_then(Client::deadline).is_some_and(|deadline| deadline <= now) {
                log::debug!("admin client dropped: too slow");
                self.close(slot, registry);
            }
        }
    }

    /// When to call [`Server::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.clients.iter().flatten().filter_map(Client::deadline).min()
    }

    /// The next request to answer.
    pub fn poll_request(&mut self) -> Option<(ClientId, Request)> {
        self.requests.pop_front()
    }

    /// Answers a request. Nothing happens when the client has gone.
    pub fn reply(&mut self, to: ClientId, reply: &Reply, registry: &Registry, now: Instant) {
        if let Some(client) = self.clients[to.slot].as_mut().filter(|client| client.serial == to.serial) {
            client.stage = Stage::Reading { line: protocol::to_line(reply), sent: 0, deadline: now + CLIENT_PATIENCE };
            self.progress(to.slot, registry);
        }
    }

    /// The last reply, to all who wait for the end. The socket is gone before they read it.
    pub fn farewell(mut self, to: &[ClientId], reply: &Reply, registry: &Registry, now: Instant) {
        self.remove();
        for client in to {
            self.reply(*client, reply, registry, now);
        }
    }

    fn remove(&mut self) {
        let Some(path) = self.path.take() else { return };
        if let Err(error) = remove_socket(&path) {
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }

    fn accept(&mut self, registry: &Registry, now: Instant) {
        // Edge-triggered: until WouldBlock. Bounded all the same, since every client beyond the table is closed at once.
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::warn!("admin socket: cannot accept: {error}");
                    return;
                }
            };
            let Some(slot) = self.clients.iter().position(Option::is_none) else {
                let busy = Reply::Error(format!("{} others are asking already; try again", crate::limits::ADMIN_CLIENTS_MAX));
                let _ = stream.write(&protocol::to_line(&busy));
                continue;
            };
            let token = Token(self.first_token + 1 + slot);
            if let Err(error) = registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE) {
                log::warn!("admin socket: cannot register a client: {error}");
                continue;
            }
            self.serial += 1;
            let stage = Stage::Asking { line: Vec::new(), deadline: now + CLIENT_PATIENCE };
            self.clients[slot] = Some(Client { stream, serial: self.serial, stage });
            self.progress(slot, registry);
        }
    }

    fn progress(&mut self, slot: usize, registry: &Registry) {
        let Some(client) = self.clients[slot].as_mut() else {
            return;
        };
        match client.progress() {
            Progress::Blocked => {}
            Progress::Over => self.close(slot, registry),
            Progress::Asked(request) => {
                self.requests.push_back((ClientId { slot, serial: client.serial }, request));
            }
        }
    }

    fn close(&mut self, slot: usize, registry: &Registry) {
        if let Some(mut client) = self.clients[slot].take() {
            let _ = registry.deregister(&mut client.stream);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Whether the socket can be bound, as far as that can be known without doing so.
pub fn check(path: &Path) -> Result<(), BindError> {
    let place = path.display().to_string();
    let io_error = |error| BindError::Io { path: place.clone(), error };
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        let message = format!("a socket's path can have {SOCKET_PATH_MAX} bytes at most");
        return Err(io_error(io::Error::new(io::ErrorKind::InvalidInput, message)));
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(BindError::AlreadyRunning(place));
    }
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(io_error(io::Error::other("something that is not a socket is there")))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(error)),
        _ => Ok(()),
    }
}

enum Progress {
    Blocked,
    Over,
    Asked(Request),
}

impl Client {
    fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Asking { deadline, .. } | Stage::Reading { deadline, .. } => Some(deadline),
            Stage::Waiting => None,
        }
    }

    /// Reads or writes until the socket blocks or the stage is over.
    fn progress(&mut self) -> Progress {
        match &mut self.stage {
            Stage::Asking { line, deadline } => match read_line(&mut self.stream, line) {
                Line::Partial => Progress::Blocked,
                Line::Over => Progress::Over,
                Line::Whole => match protocol::parse_request(line) {
                    Ok(request) => {
                        self.stage = Stage::Waiting;
                        Progress::Asked(request)
                    }
                    Err(error) => {
                        let (line, deadline) = (protocol::to_line(&Reply::Error(error)), *deadline);
                        self.stage = Stage::Reading { line, sent: 0, deadline };
                        self.progress()
                    }
                },
            },
            Stage::Waiting => Progress::Blocked,
            Stage::Reading { line, sent, .. } => {
                while *sent < line.len() {
                    match self.stream.write(&line[*sent..]) {
                        Ok(0) => return Progress::Over,
                        Ok(written) => *sent += written,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            return Progress::Blocked;
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(_) => return Progress::Over,
                    }
                }
                Progress::Over
            }
        }
    }
}

enum Line {
    Partial,
    Whole,
    Over,
}

/// Reads until the line is whole, the socket blocks, or the client has hung up or says too much.
fn read_line(stream: &mut UnixStream, line: &mut Vec<u8>) -> Line {
    let mut chunk = [0; 1024];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Line::Over,
            Ok(read) => {
                line.extend_from_slice(&chunk[..read]);
                if line.ends_with(b"\n") {
                    return Line::Whole;
                }
                if line.len() > crate::limits::ADMIN_REQUEST_BYTES_MAX {
                    return Line::Over;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Line::Partial,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Line::Over,
        }
    }
}

/// Nobody can connect before `listen`, and by then the permissions are right.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    socket.listen(crate::limits::ADMIN_CLIENTS_MAX as i32)?;
    socket.set_nonblocking(true)?;
    Ok(UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into()))
}

fn remove_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::other("something that is not a socket is there")),
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
