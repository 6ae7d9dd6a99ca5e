//! Clients driven by hand (`drill::odd`), one for each errand: what no TCP stack does by itself. A host around them drops what
//! is damaged and answers what nobody asked for with a RST.

use super::bytes::answer_length;
use super::client::{Ending, Event, Peer};
use super::cluster::{FRONTEND_PORT, client_address, node_address};
use super::errors;
use super::path::Paths;
use super::plan::{ClientPlan, Errand};
use baton::rewrite::{Flags, Segment, SegmentSpec, ToClientWire, ToServerWire};
use drill::odd::OddClient;
use drill::random::Random;
use std::net::SocketAddr;
use std::time::Duration;

struct Connection {
    errand: Errand,
    tcp: Option<OddClient>,
    is_connected: bool,
    /// Octets that have been reported.
    read: usize,
    is_over: bool,
}

pub struct Odd {
    client: usize,
    is_v6: bool,
    /// The network loses packets: then no window is closed besides (see `drill::odd`).
    is_lossy: bool,
    random: Random,
    connections: Vec<Connection>,
    outgoing: Vec<Vec<u8>>,
    paths: Paths,
    events: Vec<Event>,
}

impl Odd {
    pub fn new(client: usize, is_lossy: bool, plan: &ClientPlan, errands: Vec<Errand>, seed: u64) -> Self {
        let connections = errands
            .into_iter()
            .map(|errand| Connection { errand, tcp: None, is_connected: false, read: 0, is_over: false })
            .collect();
        Self {
            client,
            is_v6: plan.is_v6,
            is_lossy,
            random: Random::of(seed, "odd client"),
            connections,
            outgoing: Vec::new(),
            paths: Paths::default(),
            events: Vec::new(),
        }
    }

    fn start(&mut self, index: usize, now: u64) {
        let connection = &mut self.connections[index];
        let errand = &connection.errand;
        let client = SocketAddr::new(client_address(self.client, self.is_v6), errand.port);
        let server = SocketAddr::new(node_address(errand.frontend, self.is_v6), FRONTEND_PORT);
        let request = errand.requests.iter().flat_map(super::bytes::Request::octets).collect();
        let tcp = OddClient::new(self.random.next(), client, server, request).patient(Duration::from_micros(now));
        connection.tcp = Some(if self.is_lossy { tcp.on_a_lossy_network() } else { tcp });
    }
}

impl Connection {
    fn tell(&mut self, events: &mut Vec<Event>) {
        let (Some(tcp), errand) = (&mut self.tcp, self.errand.number) else { return };
        if !self.is_connected && tcp.is_connected() {
            self.is_connected = true;
            events.push(Event::Connected { errand });
        }
        let fresh = &tcp.received()[self.read..];
        if !fresh.is_empty() {
            events.push(Event::Read { errand, octets: fresh.to_vec() });
            self.read = tcp.received().len();
        }
        if let Some(what) = tcp.complaint.take() {
            events.push(Event::Complaint { errand, what });
        }
        if tcp.is_finished() && !self.is_over {
            self.is_over = true;
            let (mut rest, mut answers) = (tcp.received(), 0);
            while let Some(length) = answer_length(rest).filter(|length| *length <= rest.len()) {
                (rest, answers) = (&rest[length..], answers + 1);
            }
            let ending = match tcp.was_reset() {
                _ if answers == self.errand.requests.len() => Ending::Complete,
                true => Ending::Reset,
                false => Ending::Short,
            };
            events.push(Event::Ended { errand, ending });
        }
    }
}

impl Peer for Odd {
    fn receive(&mut self, packet: Vec<u8>, now: u64) {
        if errors::is_icmp(&packet) {
            if let Some(error) = errors::read(&packet, |own| own == client_address(self.client, self.is_v6)) {
                self.paths.lower(error.destination.address, error.mtu);
            }
            return;
        }
        let Ok(segment) = Segment::<_, ToClientWire>::parse(packet.as_slice()) else { return };
        let (server, client) = (segment.source(), segment.destination());
        if !segment.checksums_are_right() || client.address != client_address(self.client, self.is_v6) {
            return;
        }
        let now = Duration::from_micros(now);
        let is_it = |errand: &Errand| (errand.port, node_address(errand.frontend, self.is_v6)) == (client.port, server.address);
        let known = self.connections.iter_mut().find(|connection| is_it(&connection.errand));
        match known.and_then(|connection| connection.tcp.as_mut()).filter(|tcp| !tcp.is_gone(now)) {
            Some(tcp) => tcp.receive(&packet, now),
            None if segment.flags().contains(Flags::RST) => {}
            None => {
                let reset = SegmentSpec::<ToServerWire> {
                    source: client,
                    destination: server,
                    seq: segment.ack(),
                    ack: segment.seq_end(),
                    flags: Flags::RST,
                    window: 0,
                    mss: None,
                    window_scale: None,
                    sack_permitted: false,
                    timestamps: None,
                    traffic_class: 0,
                    payload: &[],
                };
                self.outgoing.push(reset.build().into_inner());
            }
        }
    }

    fn poll(&mut self, now: u64) -> Vec<Vec<u8>> {
        for index in 0..self.connections.len() {
            let connection = &self.connections[index];
            if connection.tcp.is_none() && connection.errand.starts <= now {
                self.start(index, now);
            }
            let connection = &mut self.connections[index];
            if let Some(tcp) = &mut connection.tcp {
                self.outgoing.extend(tcp.poll(Duration::from_micros(now)));
            }
            connection.tell(&mut self.events);
        }
        std::mem::take(&mut self.outgoing).into_iter().flat_map(|packet| self.paths.fit(packet)).collect()
    }

    fn poll_at(&mut self, _: u64) -> Option<u64> {
        let at = self.connections.iter().filter_map(|connection| match &connection.tcp {
            None => Some(connection.errand.starts),
            Some(tcp) => tcp.poll_at().map(|at| at.as_nanos().div_ceil(1_000) as u64),
        });
        at.min()
    }

    fn is_finished(&self) -> bool {
        self.connections.iter().all(|connection| connection.is_over)
    }

    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn odd(&self) -> Vec<(&'static str, u64)> {
        let tcps = self.connections.iter().filter_map(|connection| connection.tcp.as_ref());
        tcps.flat_map(|tcp| tcp.oddities.list()).collect()
    }
}
