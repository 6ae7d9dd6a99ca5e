//! The application that takes uploads: reads them, checks every octet, and says what came.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::head::{self, Collector};
use crate::pattern::{PIECE, Pattern};

/// Connections at a time; the measurements have a few.
const CONNECTIONS: usize = 1024;

/// The body of the answer.
pub fn verdict(octets: u64, right: bool) -> String {
    format!("{octets} octets, {}\n", if right { "right" } else { "wrong" })
}

struct Upload {
    stream: TcpStream,
    head: Collector,
    /// Position, length, whether all was right so far. None before the head is complete.
    body: Option<(u64, u64, bool)>,
}

/// Serves until it is ended. `name` is the `X-Server` of the answers.
pub fn serve(name: &str, addresses: &[SocketAddr]) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listeners = Vec::new();
    for address in addresses {
        let mut listener = TcpListener::bind(*address)?;
        poll.registry().register(&mut listener, Token(CONNECTIONS + listeners.len()), Interest::READABLE)?;
        listeners.push(listener);
    }
    println!("ready");
    let pattern = Pattern::new();
    let mut uploads: Vec<Option<Upload>> = (0..CONNECTIONS).map(|_| None).collect();
    let mut buffer = vec![0; PIECE];
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            let slot = event.token().0;
            if let Some(listener) = slot.checked_sub(CONNECTIONS) {
                accept(&listeners[listener], &mut uploads, &poll)?;
            } else if let Some(upload) = &mut uploads[slot]
                && !upload.proceed(name, &pattern, &mut buffer)
            {
                uploads[slot] = None;
            }
        }
    }
}

fn accept(listener: &TcpListener, uploads: &mut [Option<Upload>], poll: &Poll) -> io::Result<()> {
    loop {
        match listener.accept() {
            // Beyond the limit: closed at once, and the client counts an error.
            Ok((mut stream, _)) => {
                if let Some(slot) = uploads.iter().position(Option::is_none) {
                    poll.registry().register(&mut stream, Token(slot), Interest::READABLE)?;
                    uploads[slot] = Some(Upload { stream, head: Collector::default(), body: None });
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // The connection was gone before it was accepted.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}

impl Upload {
    /// False when the connection is over.
    fn proceed(&mut self, name: &str, pattern: &Pattern, buffer: &mut [u8]) -> bool {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(length) => {
                    if !self.read(&buffer[..length], name, pattern) {
                        return false;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    fn read(&mut self, octets: &[u8], name: &str, pattern: &Pattern) -> bool {
        let mut rest = octets;
        if self.body.is_none() {
            match self.head.take(octets) {
                Ok(None) => return true,
                Ok(Some(body)) => {
                    let Some(length) = self.head.text().and_then(head::content_length).ok() else { return false };
                    self.body = Some((0, length, true));
                    rest = body;
                }
                Err(_) => return false,
            }
        }
        let Some((position, length, right)) = &mut self.body else { return false };
        *right &= pattern.has(*position, rest);
        *position += rest.len() as u64;
        if *position < *length {
            return true;
        }
        let body = verdict(*position, *right);
        let answer = format!("HTTP/1.1 200 OK\r\nX-Server: {name}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        self.body = None;
        self.head.clear();
        // A hundred octets always fit into the socket of a connection that was only read from.
        self.stream.write_all(answer.as_bytes()).is_ok()
    }
}
