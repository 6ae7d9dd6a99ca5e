//! The server against real sockets: a loop of its own, no node behind it.

use super::*;
use crate::admin::protocol::{Change, State};
use mio::{Events, Poll};
use std::os::unix::net::UnixStream as Blocking;

struct Loop {
    poll: Poll,
    server: Server,
    now: Instant,
    directory: tempfile::TempDir,
}

impl Loop {
    #[allow(clippy::disallowed_methods)]
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut server = Server::bind(&directory.path().join("run/a.sock")).unwrap();
        let poll = Poll::new().unwrap();
        server.register(poll.registry(), 7).unwrap();
        Self { poll, server, now: Instant::now(), directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("run/a.sock")
    }

    fn connect(&self) -> Blocking {
        let stream = Blocking::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream
    }

    fn turn(&mut self) {
        let mut events = Events::with_capacity(8);
        self.poll.poll(&mut events, Some(Duration::from_millis(20))).unwrap();
        for event in &events {
            assert!(self.server.owns(event.token()));
            self.server.handle_event(event, self.poll.registry(), self.now);
        }
        self.server.handle_timeout(self.poll.registry(), self.now);
    }

    fn request(&mut self) -> Option<(ClientId, Request)> {
        for _ in 0..50 {
            self.turn();
            if let Some(request) = self.server.poll_request() {
                return Some(request);
            }
        }
        None
    }

    fn clients(&self) -> usize {
        self.server.clients.iter().flatten().count()
    }
}

fn answer(stream: &mut Blocking) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_request_is_answered_and_the_connection_closed() {
    let mut node = Loop::new();
    let mut client = node.connect();
    client.write_all(b"{\"command\": \"dr").unwrap();
    node.turn();
    client.write_all(b"ain\"}\n").unwrap();
    let (from, request) = node.request().unwrap();
    assert_eq!(request, Request::Drain);
    let reply = Reply::State(Change { state: State::Draining, live: 3 });
    node.server.reply(from, &reply, node.poll.registry(), node.now);
    assert_eq!(answer(&mut client), "{\"state\":{\"state\":\"draining\",\"live\":3}}\n");
    assert_eq!(node.clients(), 0);
}

#[test]
fn a_wrong_request_is_answered_with_an_error() {
    let mut node = Loop::new();
    let mut client = node.connect();
    client.write_all(b"hello\n").unwrap();
    assert_eq!(node.request(), None);
    assert!(answer(&mut client).starts_with("{\"error\":\"cannot read the request"));
}

#[test]
fn a_client_that_says_too_much_or_nothing_is_dropped() {
    let mut node = Loop::new();
    let mut long = node.connect();
    long.write_all(&[b'x'; crate::limits::ADMIN_REQUEST_BYTES_MAX + 2000]).unwrap();
    let _silent = node.connect();
    for _ in 0..5 {
        node.turn();
    }
    assert_eq!(node.clients(), 1);
    assert!(node.server.poll_timeout().is_some());
    node.now += CLIENT_PATIENCE;
    node.turn();
    assert_eq!(node.clients(), 0);
    assert_eq!(node.server.poll_timeout(), None);
}

#[test]
fn a_large_reply_goes_out_as_the_client_reads() {
    let mut node = Loop::new();
    let mut client = node.connect();
    client.write_all(b"{\"command\": \"flows\"}\n").unwrap();
    let (from, _) = node.request().unwrap();
    let text = "x".repeat(2 << 20);
    node.server.reply(from, &Reply::Error(text), node.poll.registry(), node.now);
    client.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let (mut chunk, mut total) = ([0; 65536], 0);
    loop {
        match client.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => total += read,
            Err(_) => node.turn(),
        }
    }
    assert_eq!(total, (2 << 20) + "{\"error\":\"\"}\n".len());
}

#[test]
fn a_client_that_hangs_up_while_it_waits_is_forgotten_and_its_reply_goes_to_nobody_else() {
    let mut node = Loop::new();
    let mut first = node.connect();
    first.write_all(b"{\"command\": \"stop\"}\n").unwrap();
    let (gone, _) = node.request().unwrap();
    drop(first);
    while node.clients() > 0 {
        node.turn();
    }
    let mut second = node.connect();
    second.write_all(b"{\"command\": \"status\"}\n").unwrap();
    let (next, _) = node.request().unwrap();
    assert_eq!(next.slot, gone.slot);
    node.server.reply(gone, &Reply::Error("for the first".into()), node.poll.registry(), node.now);
    node.server.reply(next, &Reply::Error("for the second".into()), node.poll.registry(), node.now);
    assert_eq!(answer(&mut second), "{\"error\":\"for the second\"}\n");
}

#[test]
fn more_clients_than_slots_are_told_to_come_again() {
    let mut node = Loop::new();
    let _waiting: Vec<_> = (0..crate::limits::ADMIN_CLIENTS_MAX).map(|_| node.connect()).collect();
    while node.clients() < crate::limits::ADMIN_CLIENTS_MAX {
        node.turn();
    }
    let mut late = node.connect();
    // One turn takes up to eight events, and there are twice as many.
    (0..5).for_each(|_| node.turn());
    assert!(answer(&mut late).contains("try again"));
}

#[test]
fn only_this_user_may_connect_and_the_socket_is_removed_at_the_end() {
    let node = Loop::new();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&node.path()), 0o600);
    assert_eq!(mode(node.path().parent().unwrap()), 0o700);
    let path = node.path();
    drop(node.server);
    assert!(!path.exists());
}

#[test]
fn a_path_that_is_too_long_is_said_with_the_bound() {
    let directory = tempfile::tempdir().unwrap();
    let error = Server::bind(&directory.path().join("s".repeat(120))).unwrap_err().to_string();
    assert!(error.contains("107 bytes at most"), "{error}");
}

#[test]
fn a_live_socket_is_respected_and_a_stale_one_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.sock");
    let first = Server::bind(&path).unwrap();
    let error = Server::bind(&path).unwrap_err().to_string();
    assert!(error.starts_with("already running"), "{error}");
    drop(first);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    Server::bind(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert!(Server::bind(&path).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn whoever_waits_for_the_end_can_start_the_next_daemon_at_once() {
    let mut node = Loop::new();
    let mut client = node.connect();
    client.write_all(b"{\"command\": \"stop\"}\n").unwrap();
    // Half a hang-up, as `nc` does.
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let (from, _) = node.request().unwrap();
    node.turn();
    let path = node.path();
    node.server.farewell(&[from], &Reply::Error("bye".into()), node.poll.registry(), node.now);
    assert_eq!(answer(&mut client), "{\"error\":\"bye\"}\n");
    assert!(!path.exists());
}
