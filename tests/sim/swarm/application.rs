//! A server: answers each request with its own name and a body that no other server has.

use super::bytes::{Head, answer, head};
use super::kernel::Kernel;
use baton::flow::Endpoint;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};
use std::collections::{BTreeMap, VecDeque};

/// Longer than that a connection with nothing to do is not kept. Some retransmissions are 60 s apart.
const IDLE_MAX: u64 = 240_000_000;

/// What an application has to tell.
#[derive(Clone, Debug)]
pub enum Event {
    /// Octets were read.
    Read { serial: u64, remote: Endpoint, octets: Vec<u8> },
    /// The head of a request is complete.
    Request { id: (usize, usize) },
}

struct Serving {
    handle: SocketHandle,
    remote: Endpoint,
    unread: Vec<u8>,
    head: Option<Head>,
    upload_left: usize,
    answers: VecDeque<u8>,
    closes: bool,
    touched: u64,
}

pub struct Application {
    pub node: usize,
    pub ports: Vec<u16>,
    pub is_running: bool,
    serving: BTreeMap<u64, Serving>,
}

impl Application {
    pub fn new(node: usize, ports: Vec<u16>) -> Self {
        Self { node, ports, is_running: false, serving: BTreeMap::new() }
    }

    pub fn start(&mut self, kernel: &mut Kernel) {
        self.is_running = true;
        kernel.listening = self.ports.iter().copied().collect();
    }

    /// Killed: its connections are reset, its listeners gone.
    pub fn stop(&mut self, kernel: &mut Kernel) {
        self.is_running = false;
        kernel.listening.clear();
        self.serving.clear();
        kernel.forget_requests();
        for connection in &kernel.connections {
            kernel.host.sockets.get_mut::<Socket>(connection.handle).abort();
        }
    }

    /// Reads, answers, closes.
    pub fn run(&mut self, kernel: &mut Kernel, now: u64, events: &mut Vec<Event>) {
        if !self.is_running {
            return;
        }
        let node = self.node;
        for connection in kernel.connections.clone() {
            let socket = kernel.host.sockets.get_mut::<Socket>(connection.handle);
            let is_accepted = !matches!(socket.state(), State::Listen | State::SynReceived | State::Closed);
            if is_accepted && !self.serving.contains_key(&connection.serial) {
                let fresh = Serving {
                    handle: connection.handle,
                    remote: connection.remote,
                    unread: Vec::new(),
                    head: None,
                    upload_left: 0,
                    answers: VecDeque::new(),
                    closes: false,
                    touched: now,
                };
                self.serving.insert(connection.serial, fresh);
            }
            if let Some(serving) = self.serving.get_mut(&connection.serial) {
                serving.run(node, connection.serial, socket, now, events);
            }
        }
        self.serving.retain(|serial, _| kernel.connections.iter().any(|connection| connection.serial == *serial));
    }

    pub fn poll_at(&self) -> Option<u64> {
        self.serving.values().filter(|serving| !serving.closes).map(|serving| serving.touched + IDLE_MAX).min()
    }
}

impl Serving {
    fn run(&mut self, node: usize, serial: u64, socket: &mut Socket<'_>, now: u64, events: &mut Vec<Event>) {
        debug_assert_ne!(socket.state(), State::Listen, "{:?}", self.handle);
        while socket.can_recv() {
            let octets = socket.recv(|octets| (octets.len(), octets.to_vec())).unwrap_or_default();
            self.touched = now;
            self.unread.extend_from_slice(&octets);
            events.push(Event::Read { serial, remote: self.remote, octets });
            self.serve(node, socket, events);
        }
        if !self.answers.is_empty() && socket.can_send() {
            self.touched = now;
            let (front, _) = self.answers.as_slices();
            let sent = socket.send_slice(front).unwrap_or(0);
            self.answers.drain(..sent);
            if !self.answers.is_empty() && socket.can_send() {
                let (front, _) = self.answers.as_slices();
                let sent = socket.send_slice(front).unwrap_or(0);
                self.answers.drain(..sent);
            }
        }
        self.closes |= now >= self.touched + IDLE_MAX || socket.state() == State::CloseWait && self.head.is_none();
        if self.closes && self.answers.is_empty() {
            socket.close();
        }
    }

    fn serve(&mut self, node: usize, socket: &mut Socket<'_>, events: &mut Vec<Event>) {
        loop {
            if self.closes {
                self.unread.clear();
                return;
            }
            let request = match self.head {
                Some(request) => request,
                None => match head(&self.unread) {
                    None => return,
                    // Rule 2 tells; this is not what anybody wrote.
                    Some(Err(())) => return socket.abort(),
                    Some(Ok(request)) => {
                        self.unread.drain(..request.head_bytes);
                        self.head = Some(request);
                        self.upload_left = request.upload_bytes;
                        events.push(Event::Request { id: request.id });
                        if request.is_answered_early {
                            self.answers.extend(answer(node, request.id, request.answer_bytes));
                        }
                        request
                    }
                },
            };
            let taken = self.upload_left.min(self.unread.len());
            self.unread.drain(..taken);
            self.upload_left -= taken;
            if self.upload_left > 0 {
                return;
            }
            if !request.is_answered_early {
                self.answers.extend(answer(node, request.id, request.answer_bytes));
            }
            self.closes |= request.is_last;
            self.head = None;
        }
    }
}
