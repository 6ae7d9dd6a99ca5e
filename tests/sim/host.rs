//! A simulated host: smoltcp as its TCP, and either a client that asks or a server that answers with its own name.

use baton::handoff::SocketState;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::Instant as Moment;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use std::cell::Cell;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

thread_local! {
    static VIRTUAL_MILLISECONDS: Cell<u32> = const { Cell::new(0) };
    /// How far the clock of the host that is at work is ahead.
    static AHEAD: Cell<u32> = const { Cell::new(0) };
}

/// The clock behind every simulated host's timestamps.
pub fn set_virtual_clock(microseconds: u64) {
    VIRTUAL_MILLISECONDS.with(|clock| clock.set((microseconds / 1_000) as u32));
}

fn timestamp_of_server_a() -> u32 {
    VIRTUAL_MILLISECONDS.with(Cell::get).wrapping_add(0xffff_f000)
}
fn timestamp_of_server_b() -> u32 {
    VIRTUAL_MILLISECONDS.with(Cell::get).wrapping_add(77_000_000)
}
fn timestamp_of_client() -> u32 {
    VIRTUAL_MILLISECONDS.with(Cell::get).wrapping_add(5_000)
}

fn timestamp_of_host() -> u32 {
    VIRTUAL_MILLISECONDS.with(Cell::get).wrapping_add(AHEAD.with(Cell::get))
}

/// A wire with two ends in memory.
pub struct Wire {
    pub incoming: VecDeque<Vec<u8>>,
    pub outgoing: Vec<Vec<u8>>,
    mtu: usize,
}

pub struct Received(Vec<u8>);
impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}
pub struct Sending<'a>(&'a mut Vec<Vec<u8>>);
impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut packet = vec![0; length];
        let result = f(&mut packet);
        self.0.push(packet);
        result
    }
}
impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;
    fn receive(&mut self, _: Moment) -> Option<(Received, Sending<'_>)> {
        let packet = self.incoming.pop_front()?;
        Some((Received(packet), Sending(&mut self.outgoing)))
    }
    fn transmit(&mut self, _: Moment) -> Option<Sending<'_>> {
        Some(Sending(&mut self.outgoing))
    }
    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        // Both ways: a segment with a wrong checksum is dropped, as by a real kernel.
        capabilities.checksum = ChecksumCapabilities::default();
        capabilities
    }
}

/// A host with its sockets.
pub struct Host {
    pub wire: Wire,
    pub interface: Interface,
    pub sockets: SocketSet<'static>,
    ahead: u32,
}

impl Host {
    pub fn new(address: IpAddr, seed: u64) -> Self {
        Self::with(&[address], seed, 1_500, 0)
    }

    /// With at most one address of each family, and a clock that is so many milliseconds ahead.
    pub fn with(addresses: &[IpAddr], seed: u64, mtu: usize, ahead: u32) -> Self {
        let mut wire = Wire { incoming: VecDeque::new(), outgoing: Vec::new(), mtu };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wire, Moment::from_micros(0));
        for &address in addresses {
            interface.update_ip_addrs(|addresses| {
                let length = if address.is_ipv4() { 24 } else { 64 };
                addresses.push(IpCidr::new(IpAddress::from(address), length)).expect("room for an address of each family");
            });
            let routes = interface.routes_mut();
            let former = match address {
                IpAddr::V4(address) => routes.add_default_ipv4_route(address),
                IpAddr::V6(address) => routes.add_default_ipv6_route(address),
            };
            assert!(former.expect("room for a route of each family").is_none());
        }
        // Aliases are local too.
        interface.set_any_ip(true);
        Self { wire, interface, sockets: SocketSet::new(Vec::new()), ahead }
    }

    pub fn poll(&mut self, now: u64) {
        AHEAD.with(|ahead| ahead.set(self.ahead));
        self.interface.poll(Moment::from_micros(now as i64), &mut self.wire, &mut self.sockets);
    }

    pub fn poll_at(&mut self, now: u64) -> Option<u64> {
        let at = self.interface.poll_at(Moment::from_micros(now as i64), &self.sockets)?;
        Some(at.total_micros() as u64)
    }

    fn add_socket(&mut self, clock: fn() -> u32) -> SocketHandle {
        self.sockets.add(socket(clock, 65_535))
    }

    /// A socket whose timestamps are this host's clock. It must be polled at the same time as the host.
    pub fn add_own_socket(&mut self, receive_bytes: usize) -> SocketHandle {
        self.sockets.add(socket(timestamp_of_host, receive_bytes))
    }
}

fn socket(clock: fn() -> u32, receive_bytes: usize) -> Socket<'static> {
    let mut socket = Socket::new(SocketBuffer::new(vec![0; receive_bytes]), SocketBuffer::new(vec![0; 65_535]));
    socket.set_tsval_generator(Some(clock));
    socket.set_ack_delay(None);
    socket.set_congestion_control(CongestionControl::Cubic);
    socket
}

/// The application of a server: answers every request with its name and a body, then closes.
pub struct Server {
    pub name: &'static str,
    body_bytes: usize,
    connections: Vec<Serving>,
    /// Requests that reached this application, whole.
    pub requests: Vec<Vec<u8>>,
    /// Clients that connections were accepted from, as the application saw them.
    pub accepted_from: Vec<(IpAddr, u16)>,
    /// The ports they were accepted on.
    pub accepted_on: Vec<u16>,
}

struct Serving {
    handle: SocketHandle,
    port: u16,
    request: Vec<u8>,
    answer: Vec<u8>,
    sent: usize,
    is_accepted: bool,
}

impl Server {
    /// Listens on each of the ports, for so many clients at once.
    pub fn new(host: &mut Host, name: &'static str, ports: &[u16], listeners: usize, body_bytes: usize) -> Self {
        let clock = if name == "a" { timestamp_of_server_a } else { timestamp_of_server_b };
        let ports = ports.iter().flat_map(|port| std::iter::repeat_n(*port, listeners));
        let connections = ports
            .map(|port| {
                let handle = host.add_socket(clock);
                Serving::listen(host, handle, port)
            })
            .collect();
        Self { name, body_bytes, connections, requests: Vec::new(), accepted_from: Vec::new(), accepted_on: Vec::new() }
    }

    pub fn run(&mut self, host: &mut Host) {
        for serving in &mut self.connections {
            let socket = host.sockets.get_mut::<Socket>(serving.handle);
            if socket.state() == State::Established && !serving.is_accepted {
                serving.is_accepted = true;
                if let Some(remote) = socket.remote_endpoint() {
                    self.accepted_from.push((remote.addr.into(), remote.port));
                    self.accepted_on.push(serving.port);
                }
            }
            while socket.can_recv() {
                let taken = socket.recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap_or_default();
                serving.request.extend_from_slice(&taken);
                if serving.answer.is_empty() && serving.request.ends_with(b"\r\n\r\n") {
                    self.requests.push(serving.request.clone());
                    serving.answer = answer(self.name, self.body_bytes);
                }
            }
            if serving.sent < serving.answer.len() && socket.can_send() {
                serving.sent += socket.send_slice(&serving.answer[serving.sent..]).unwrap_or(0);
                if serving.sent == serving.answer.len() {
                    socket.close();
                }
            }
            if socket.state() == State::CloseWait && serving.answer.is_empty() {
                socket.close();
            }
            if socket.state() == State::Closed {
                *serving = Serving::listen(host, serving.handle, serving.port);
            }
        }
    }

    /// Connections that its kernel has.
    pub fn open_connections(&self, host: &Host) -> usize {
        let is_open = |serving: &&Serving| host.sockets.get::<Socket>(serving.handle).is_active();
        self.connections.iter().filter(is_open).count()
    }

    /// Stops listening, as an application that was killed.
    pub fn stop(&mut self, host: &mut Host) {
        for serving in self.connections.drain(..) {
            host.sockets.get_mut::<Socket>(serving.handle).abort();
            host.sockets.remove(serving.handle);
        }
    }
}

impl Serving {
    fn listen(host: &mut Host, handle: SocketHandle, port: u16) -> Self {
        host.sockets.get_mut::<Socket>(handle).listen(port).expect("a closed socket listens");
        Self { handle, port, request: Vec::new(), answer: Vec::new(), sent: 0, is_accepted: false }
    }
}

/// What a server answers: a head that names it, and a body that no other server has.
pub fn answer(name: &str, body_bytes: usize) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\nX-Server: {name}\r\nContent-Length: {body_bytes}\r\n\r\n").into_bytes();
    let salt = u32::from(name.as_bytes()[0]);
    answer.extend((0..body_bytes as u32).map(|index| (index.wrapping_mul(2_654_435_761).wrapping_add(salt) >> 13) as u8));
    answer
}

/// A client with one connection: sends pieces of a request at given times, reads to the end.
pub struct Client {
    pub handle: SocketHandle,
    pieces: VecDeque<(u64, Vec<u8>)>,
    pub received: Vec<u8>,
    pub is_done: bool,
}

impl Client {
    /// Connects from `port`; `pieces` are sent at (microseconds after now, bytes).
    pub fn connect(host: &mut Host, server: (IpAddr, u16), port: u16, pieces: Vec<(u64, Vec<u8>)>) -> Self {
        let handle = host.add_socket(timestamp_of_client);
        let socket = host.sockets.get_mut::<Socket>(handle);
        socket.set_nagle_enabled(false);
        let remote = (IpAddress::from(server.0), server.1);
        socket.connect(host.interface.context(), remote, port).expect("a fresh socket connects");
        Self { handle, pieces: pieces.into(), received: Vec::new(), is_done: false }
    }

    pub fn run(&mut self, host: &mut Host, now: u64) {
        let socket = host.sockets.get_mut::<Socket>(self.handle);
        while socket.can_send() && self.pieces.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, bytes)) = self.pieces.pop_front() {
                let sent = socket.send_slice(&bytes).unwrap_or(0);
                assert_eq!(sent, bytes.len(), "requests are smaller than the send buffer");
            }
        }
        while socket.can_recv() {
            let taken = socket.recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap_or_default();
            self.received.extend_from_slice(&taken);
        }
        if socket.state() == State::CloseWait {
            socket.close();
        }
        let has_ended = matches!(socket.state(), State::Closed | State::TimeWait);
        if has_ended && !self.is_done {
            self.is_done = true;
        }
    }

    pub fn next_piece_at(&self) -> Option<u64> {
        self.pieces.front().map(|(at, _)| *at)
    }
}

/// The state of the socket with these ends, in the words of the engine.
pub fn socket_state(host: &Host, local: SocketAddr, remote: SocketAddr) -> SocketState {
    let Some(handle) = find_socket(host, local, remote) else { return SocketState::Absent };
    match host.sockets.get::<Socket>(handle).state() {
        State::Closed | State::Listen => SocketState::Absent,
        State::SynReceived => SocketState::SynReceived,
        State::TimeWait => SocketState::TimeWait,
        _ => SocketState::Open,
    }
}

/// Destroys the socket with these ends; like the kernel's, the RST it sends finds no way out.
pub fn destroy_socket(host: &mut Host, local: SocketAddr, remote: SocketAddr) {
    if let Some(handle) = find_socket(host, local, remote) {
        host.sockets.get_mut::<Socket>(handle).abort();
    }
}

pub fn find_socket(host: &Host, local: SocketAddr, remote: SocketAddr) -> Option<SocketHandle> {
    let is = |end: Option<smoltcp::wire::IpEndpoint>, address: SocketAddr| {
        end.is_some_and(|end| (IpAddr::from(end.addr), end.port) == (address.ip(), address.port()))
    };
    host.sockets
        .iter()
        .find(|(_, socket)| {
            let smoltcp::socket::Socket::Tcp(socket) = socket;
            is(socket.local_endpoint(), local) && is(socket.remote_endpoint(), remote)
        })
        .map(|(handle, _)| handle)
}
