//! Just enough HTTP/1.1 (RFC 9112) for a scraper: one request a connection, `GET /metrics`. Driven by the node's loop and
//! never blocks it: a client that is slow to ask or to read is dropped.

use super::exposition::CONTENT_TYPE;
use crate::limits;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A client gets this long to ask, and again to read the answer.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);

/// Tokens the server uses from its first one.
pub const TOKENS: usize = 1 + limits::METRICS_CLIENTS_MAX;

/// Names a client for the answer; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientId {
    slot: usize,
    serial: u64,
}

/// The listener and its clients.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    first_token: usize,
    clients: [Option<Client>; limits::METRICS_CLIENTS_MAX],
    serial: u64,
    /// Those that have asked for the metrics.
    asked: Vec<ClientId>,
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    serial: u64,
    deadline: Instant,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Sends its request.
    Asking(Vec<u8>),
    /// Its request is with the loop.
    Waiting { head_only: bool },
    /// Reads the answer.
    Reading { answer: Vec<u8>, sent: usize },
    /// Has the answer; so many octets that it still sends are read, so that no reset overtakes what it has not read yet.
    Leaving { left: usize },
}

impl Server {
    /// Binds the address.
    pub fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).map_err(|error| {
            let remedy = match error.kind() {
                io::ErrorKind::AddrInUse => "something else listens there; choose another port",
                io::ErrorKind::AddrNotAvailable => "this host does not have the address; choose one of its own, or 127.0.0.1",
                _ => "choose another address",
            };
            anyhow::anyhow!("cannot serve metrics at {address}: {error}; {remedy} with --metrics ADDRESS:PORT")
        })?;
        Ok(Self { listener, first_token: 0, clients: Default::default(), serial: 0, asked: Vec::new() })
    }

    /// Begins to take clients, with [`TOKENS`] tokens from `first_token` on.
    pub fn register(&mut self, registry: &Registry, first_token: usize) -> io::Result<()> {
        self.first_token = first_token;
        registry.register(&mut self.listener, Token(first_token), Interest::READABLE)
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Whether the token is one of the server's.
    pub fn owns(&self, token: Token) -> bool {
        (self.first_token..self.first_token + TOKENS).contains(&token.0)
    }

    /// Readiness of one of the server's tokens.
    pub fn handle_event(&mut self, event: &Event, registry: &Registry, now: Instant) {
        match event.token().0 - self.first_token {
            0 => self.accept(registry, now),
            slot => self.progress(slot - 1, registry),
        }
    }

    /// Drops clients whose time is over.
    pub fn handle_timeout(&mut self, registry: &Registry, now: Instant) {
        for slot in 0..limits::METRICS_CLIENTS_MAX {
            if self.clients[slot].as_ref().is_some_and(|client| client.deadline <= now) {
                self.close(slot, registry);
            }
        }
    }

    /// When to call [`Server::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.clients.iter().flatten().map(|client| client.deadline).min()
    }

    /// Whom to [`Server::answer`].
    pub fn poll_asked(&mut self) -> Option<ClientId> {
        self.asked.pop()
    }

    /// Gives the metrics to one that asked. Nothing happens when it has gone.
    pub fn answer(&mut self, to: ClientId, metrics: &str, registry: &Registry, now: Instant) {
        let Some(client) = self.clients[to.slot].as_mut().filter(|client| client.serial == to.serial) else { return };
        if let Stage::Waiting { head_only } = client.stage {
            client.stage = Stage::reading("200 OK", CONTENT_TYPE, metrics, head_only);
            client.deadline = now + CLIENT_PATIENCE;
            self.progress(to.slot, registry);
        }
    }

    fn accept(&mut self, registry: &Registry, now: Instant) {
        // Edge-triggered: until WouldBlock. Whoever comes while the table is full is closed at once; so many at a time that nobody
        // can keep the loop here, and the rest when the next one comes.
        for _ in 0..limits::METRICS_ACCEPTED_PER_WAKE {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => continue,
                Err(error) => {
                    log::warn!("metrics: cannot accept: {error}");
                    return;
                }
            };
            let Some(slot) = self.clients.iter().position(Option::is_none) else { continue };
            let token = Token(self.first_token + 1 + slot);
            if let Err(error) = registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE) {
                log::warn!("metrics: cannot register a client: {error}");
                continue;
            }
            self.serial += 1;
            let stage = Stage::Asking(Vec::new());
            self.clients[slot] = Some(Client { stream, serial: self.serial, deadline: now + CLIENT_PATIENCE, stage });
            self.progress(slot, registry);
        }
    }

    fn progress(&mut self, slot: usize, registry: &Registry) {
        let Some(client) = self.clients[slot].as_mut() else { return };
        let was_asking = matches!(client.stage, Stage::Asking(_));
        if client.progress().is_err() {
            return self.close(slot, registry);
        }
        if was_asking && matches!(client.stage, Stage::Waiting { .. }) {
            self.asked.push(ClientId { slot, serial: client.serial });
        }
    }

    fn close(&mut self, slot: usize, registry: &Registry) {
        if let Some(mut client) = self.clients[slot].take() {
            let _ = registry.deregister(&mut client.stream);
        }
    }
}

/// The connection is over, one way or the other.
struct Over;

impl Client {
    /// Reads or writes until the socket blocks or somebody else has to act.
    fn progress(&mut self) -> Result<(), Over> {
        loop {
            match &mut self.stage {
                Stage::Asking(head) => {
                    let Some(chunk) = read(&mut self.stream, &mut [0; 1024])? else { return Ok(()) };
                    head.extend_from_slice(&chunk);
                    if let Some(next) = asked(head) {
                        self.stage = next;
                    }
                }
                Stage::Waiting { .. } => return Ok(()),
                Stage::Reading { answer, sent } => match self.stream.write(&answer[*sent..]) {
                    Ok(0) => return Err(Over),
                    Ok(written) => {
                        *sent += written;
                        if *sent == answer.len() {
                            self.stream.shutdown(std::net::Shutdown::Write).map_err(|_| Over)?;
                            self.stage = Stage::Leaving { left: limits::METRICS_REQUEST_BYTES_MAX };
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return Err(Over),
                },
                Stage::Leaving { left } => {
                    let Some(chunk) = read(&mut self.stream, &mut [0; 1024])? else { return Ok(()) };
                    *left = left.checked_sub(chunk.len()).ok_or(Over)?;
                }
            }
        }
    }
}

/// What there is to read; none for now.
fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<Option<Vec<u8>>, Over> {
    loop {
        return match stream.read(buffer) {
            Ok(0) => Err(Over),
            Ok(read) => Ok(buffer.get(..read).map(<[u8]>::to_vec)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => Err(Over),
        };
    }
}

/// What follows what was sent so far; none while the head is not complete.
fn asked(head: &[u8]) -> Option<Stage> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let refused = |status: &str, text: &str| Some(Stage::reading(status, "text/plain; charset=utf-8", text, false));
    match request.parse(head) {
        Ok(httparse::Status::Partial) if head.len() > limits::METRICS_REQUEST_BYTES_MAX => {
            refused("431 Request Header Fields Too Large", "the request's head is too long\n")
        }
        Ok(httparse::Status::Partial) => None,
        Ok(httparse::Status::Complete(_)) => {
            let path = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
            match (request.method.unwrap_or_default(), path) {
                (method @ ("GET" | "HEAD"), "/metrics") => Some(Stage::Waiting { head_only: method == "HEAD" }),
                ("GET" | "HEAD", _) => refused("404 Not Found", "baton's metrics are at /metrics\n"),
                _ => refused("405 Method Not Allowed\r\nAllow: GET, HEAD", "only GET and HEAD\n"),
            }
        }
        Err(error) => refused("400 Bad Request", &format!("this is not HTTP/1.1: {error}\n")),
    }
}

impl Stage {
    fn reading(status: &str, content_type: &str, body: &str, head_only: bool) -> Self {
        let length = body.len();
        let mut answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nCache-Control: no-store\r\n\
             Connection: close\r\n\r\n"
        );
        if !head_only {
            answer.push_str(body);
        }
        Self::Reading { answer: answer.into_bytes(), sent: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(head: &str) -> String {
        match asked(head.as_bytes()) {
            Some(Stage::Reading { answer, .. }) => String::from_utf8(answer).unwrap(),
            Some(Stage::Waiting { head_only }) => format!("metrics, head only: {head_only}"),
            None => "more".to_owned(),
            Some(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn metrics_are_at_their_path() {
        assert_eq!(answer("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"), "metrics, head only: false");
        assert_eq!(answer("GET /metrics?x=1 HTTP/1.0\r\n\r\n"), "metrics, head only: false");
        assert_eq!(answer("HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n"), "metrics, head only: true");
        assert_eq!(answer("GET /metrics HTTP/1.1\r\nHost: a\r\n"), "more");
    }

    #[test]
    fn anything_else_is_told_what_is_wrong() {
        assert!(answer("GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        let not_allowed = answer("POST /metrics HTTP/1.1\r\n\r\n");
        assert!(not_allowed.starts_with("HTTP/1.1 405 ") && not_allowed.contains("\r\nAllow: GET, HEAD\r\n"));
        assert!(answer("\x16\x03\x01 \r\n\r\n").starts_with("HTTP/1.1 400 "));
        let endless = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(limits::METRICS_REQUEST_BYTES_MAX));
        assert!(answer(&endless).starts_with("HTTP/1.1 431 "));
    }
}
