//! Clients: whatever takes packets and gives packets. The one here is smoltcp on a host with one address of one family; `odd`
//! has one that is driven by hand.

use super::super::host::Host;
use super::bytes::answer_length;
use super::cluster::{FRONTEND_PORT, client_address, node_address};
use super::ecn::Ecn;
use super::errors;
use super::kernel::advance_bare;
use super::path::Paths;
use super::plan::{ClientPlan, Errand};
use baton::flow::Endpoint;
use baton::rewrite::{Client, Flags, Segment, Seq, ToClientWire, ToServerWire};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::Duration;
use smoltcp::wire::IpAddress;
use std::collections::BTreeMap;

/// A client that waits asks now and then whether anybody is there. Where packets are lost, not as often as things are sent
/// again: an acknowledgement of nothing new makes smoltcp forget that.
const KEEP_ALIVE: Duration = Duration::from_secs(7);
const KEEP_ALIVE_WHERE_LOSSY: Duration = Duration::from_secs(75);
/// How long a client may be silent behind its last answer before it closes.
const LINGERING: u64 = 20_000;

/// How long the other end may take to close.
const CLOSING_MAX: u64 = 60_000_000;

/// One end of client connections: a whole stack, or a TCP driven by hand.
pub trait Peer {
    fn receive(&mut self, packet: Vec<u8>, now: u64);
    /// Works, and gives what it has to send.
    fn poll(&mut self, now: u64) -> Vec<Vec<u8>>;
    fn poll_at(&mut self, now: u64) -> Option<u64>;
    /// Nothing more comes of it.
    fn is_finished(&self) -> bool;
    /// What happened since it was asked last.
    fn events(&mut self) -> Vec<Event>;
    /// Odd things it did, and how often.
    fn odd(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// How a connection ended, for its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// All answers, and closed.
    Complete,
    /// Closed by the server in order, before all answers were there.
    Short,
    Reset,
    /// The client itself reset it.
    Aborted,
}

#[derive(Clone, Debug)]
pub enum Event {
    Connected {
        errand: usize,
    },
    Read {
        errand: usize,
        octets: Vec<u8>,
    },
    Ended {
        errand: usize,
        ending: Ending,
    },
    /// The server did what no server may do.
    Complaint {
        errand: usize,
        what: String,
    },
}

enum Stage {
    Waiting,
    Open(Open),
    Over(u64),
}

struct Open {
    handle: SocketHandle,
    since: u64,
    is_connected: bool,
    /// Octets of each request, and how many of all have been written.
    requests: Vec<Vec<u8>>,
    written: usize,
    next_write: u64,
    received: usize,
    unread: Vec<u8>,
    answers: usize,
    paused_until: Option<u64>,
    is_reset: bool,
    /// The server has said that it is done: a reset after that takes nothing away.
    saw_fin: bool,
    aborted: bool,
    close_at: Option<u64>,
    has_closed: bool,
}

/// Clients as whole TCP stacks.
pub struct Stack {
    plan: ClientPlan,
    host: Host,
    errands: Vec<(Errand, Stage)>,
    /// Sockets that are over for the errand; some are in TIME-WAIT.
    old: Vec<(SocketHandle, u16, usize)>,
    keep_alive: Duration,
    events: Vec<Event>,
    /// The end of what each connection has sent.
    next: BTreeMap<(Endpoint, Endpoint), Seq<Client>>,
    ecn: Ecn,
    paths: Paths,
    lowered: u64,
}

impl Stack {
    pub fn new(client: usize, is_lossy: bool, has_ecn: bool, plan: &ClientPlan, errands: Vec<Errand>, seed: u64) -> Self {
        let keep_alive = if is_lossy { KEEP_ALIVE_WHERE_LOSSY } else { KEEP_ALIVE };
        let address = client_address(client, plan.is_v6);
        let host = Host::with(&[address], seed, plan.mtu, plan.clock);
        let errands = errands.into_iter().map(|errand| (errand, Stage::Waiting)).collect();
        Self {
            plan: plan.clone(),
            host,
            errands,
            old: Vec::new(),
            keep_alive,
            events: Vec::new(),
            next: BTreeMap::new(),
            ecn: Ecn::new(has_ecn),
            paths: Paths::default(),
            lowered: 0,
        }
    }

    fn starts(&self, errand: &Errand) -> Option<u64> {
        let Some(before) = errand.after else { return Some(errand.starts) };
        self.errands.iter().find(|(other, _)| other.number == before).and_then(|(_, stage)| match stage {
            Stage::Over(at) => Some(at + errand.starts),
            Stage::Waiting | Stage::Open(_) => None,
        })
    }

    fn start(&mut self, index: usize, now: u64) {
        let errand = self.errands[index].0.clone();
        // Whoever binds the port of a connection in TIME-WAIT (SO_REUSEADDR) pushes it out.
        let (sockets, old) = (&mut self.host.sockets, &mut self.old);
        old.retain(|(handle, port, frontend)| {
            let is_other = (*port, *frontend) != (errand.port, errand.frontend);
            if !is_other {
                sockets.remove(*handle);
            }
            is_other
        });
        let handle = self.host.add_own_socket(self.plan.receive_bytes);
        let socket = self.host.sockets.get_mut::<Socket>(handle);
        socket.set_nagle_enabled(errand.number.is_multiple_of(4));
        socket.set_keep_alive(Some(self.keep_alive));
        let remote = (IpAddress::from(node_address(errand.frontend, self.plan.is_v6)), FRONTEND_PORT);
        socket.connect(self.host.interface.context(), remote, errand.port).expect("a fresh socket connects");
        self.errands[index].1 = Stage::Open(Open {
            handle,
            since: now,
            is_connected: false,
            requests: errand.requests.iter().map(|request| request.octets()).collect(),
            written: 0,
            next_write: 0,
            received: 0,
            unread: Vec::new(),
            answers: 0,
            paused_until: None,
            is_reset: false,
            saw_fin: false,
            aborted: false,
            close_at: None,
            has_closed: false,
        });
    }
}

impl Peer for Stack {
    fn receive(&mut self, packet: Vec<u8>, _: u64) {
        if errors::is_icmp(&packet) {
            let address = |own| self.host.interface.has_ip_addr(own);
            if let Some(error) = errors::read(&packet, address) {
                self.lowered += u64::from(self.paths.lower(error.destination.address, error.mtu));
            }
            return;
        }
        self.ecn.inward::<ToClientWire>(&packet);
        if let Ok(segment) = Segment::<_, ToClientWire>::parse(packet.as_slice())
            && segment.flags().contains(Flags::RST)
            && segment.checksums_are_right()
        {
            for (errand, stage) in &mut self.errands {
                let is_it = errand.port == segment.destination().port
                    && node_address(errand.frontend, self.plan.is_v6) == segment.source().address;
                if let Stage::Open(open) = stage
                    && is_it
                {
                    open.is_reset = true;
                }
            }
        }
        self.host.wire.incoming.push_back(packet);
    }

    fn poll(&mut self, now: u64) -> Vec<Vec<u8>> {
        for _ in 0..2 {
            for index in 0..self.errands.len() {
                let (errand, stage) = &self.errands[index];
                if matches!(stage, Stage::Waiting) && self.starts(errand).is_some_and(|at| at <= now) {
                    self.start(index, now);
                }
            }
            self.host.poll(now);
            for (errand, stage) in &mut self.errands {
                let Stage::Open(open) = stage else { continue };
                let socket = self.host.sockets.get_mut::<Socket>(open.handle);
                if let Some(ending) = open.run(errand, socket, now, &mut self.events) {
                    self.events.push(Event::Ended { errand: errand.number, ending });
                    self.old.push((open.handle, errand.port, errand.frontend));
                    *stage = Stage::Over(now);
                }
            }
            self.host.poll(now);
        }
        let sockets = &mut self.host.sockets;
        self.old.retain(|(handle, ..)| {
            let is_closed = sockets.get::<Socket>(*handle).state() == State::Closed;
            if is_closed {
                sockets.remove(*handle);
            }
            !is_closed
        });
        let mut sent = std::mem::take(&mut self.host.wire.outgoing);
        for packet in &mut sent {
            self.ecn.outward::<ToServerWire>(packet);
            let Ok(segment) = Segment::<_, ToServerWire>::parse(packet.as_slice()) else { continue };
            let (ends, end) = ((segment.source(), segment.destination()), segment.seq_end());
            if segment.flags().contains(Flags::RST) {
                continue;
            }
            let is_ahead = segment.flags().contains(Flags::SYN) || self.next.get(&ends).is_none_or(|next| next.is_before(&end));
            if is_ahead {
                self.next.insert(ends, end);
            } else {
                advance_bare::<ToServerWire>(packet, self.next[&ends]);
            }
        }
        sent.into_iter().flat_map(|packet| self.paths.fit(packet)).collect()
    }

    fn poll_at(&mut self, now: u64) -> Option<u64> {
        let starts = self.errands.iter().filter(|(_, stage)| matches!(stage, Stage::Waiting));
        let starts = starts.filter_map(|(errand, _)| self.starts(errand)).min();
        let own = self.errands.iter().filter_map(|(errand, stage)| match stage {
            Stage::Open(open) => open.poll_at(errand, now),
            Stage::Waiting | Stage::Over(_) => None,
        });
        let own = own.min();
        [self.host.poll_at(now), starts, own].into_iter().flatten().min()
    }

    fn is_finished(&self) -> bool {
        self.errands.iter().all(|(_, stage)| matches!(stage, Stage::Over(_)))
    }

    fn odd(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("path MTUs lowered by clients", self.lowered),
            ("marks that reached clients", self.ecn.marks),
            ("marks that servers echoed", self.ecn.echoes),
        ]
    }

    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}

impl Open {
    /// Writes, reads, closes; how it ended, once it has.
    fn run(&mut self, errand: &Errand, socket: &mut Socket<'_>, now: u64, events: &mut Vec<Event>) -> Option<Ending> {
        if !self.is_connected && socket.may_send() {
            self.is_connected = true;
            self.next_write = now + errand.silence;
            events.push(Event::Connected { errand: errand.number });
        }
        self.saw_fin |= matches!(socket.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        let is_over = self.saw_fin && socket.state() == State::Closed;
        if is_over || self.paused_until.is_none_or(|until| until <= now) {
            self.read(errand, socket, now, events);
        }
        if let Some((octets, patience)) = errand.aborts
            && !self.aborted
            && (self.received >= octets && self.received > 0 || now >= self.since + patience)
        {
            self.aborted = true;
            socket.abort();
            return Some(Ending::Aborted);
        }
        self.write(errand, socket, now);
        if self.close_at.is_some_and(|at| now >= at + CLOSING_MAX) {
            // It has what it wanted, and is not interested in how the other end closes.
            socket.abort();
            return Some(Ending::Complete);
        }
        let is_complete = self.answers == self.requests.len();
        if is_complete {
            self.close_at.get_or_insert(now + LINGERING);
        }
        if is_complete && !self.has_closed && socket.state() == State::Established {
            let close_at = self.close_at.unwrap_or(now);
            let server_closes = errand.requests.last().is_some_and(|request| request.is_last);
            if !server_closes && close_at <= now {
                self.has_closed = true;
                socket.close();
            }
        }
        if socket.state() == State::CloseWait && !socket.can_recv() && self.paused_until.is_none_or(|until| until <= now) {
            self.has_closed = true;
            socket.close();
        }
        match socket.state() {
            // Whoever reads slowly reads all the same.
            State::TimeWait if socket.can_recv() => None,
            State::Closed | State::TimeWait => Some(if is_complete {
                Ending::Complete
            } else if self.saw_fin {
                Ending::Short
            } else if self.is_reset || socket.state() == State::Closed && !self.has_closed {
                Ending::Reset
            } else {
                Ending::Short
            }),
            _ => None,
        }
    }

    fn read(&mut self, errand: &Errand, socket: &mut Socket<'_>, now: u64, events: &mut Vec<Event>) {
        while socket.can_recv() {
            let octets = socket.recv(|octets| (octets.len(), octets.to_vec())).unwrap_or_default();
            let before = self.received;
            self.received += octets.len();
            self.unread.extend_from_slice(&octets);
            events.push(Event::Read { errand: errand.number, octets });
            while let Some(length) = answer_length(&self.unread)
                && self.unread.len() >= length
            {
                self.unread.drain(..length);
                self.answers += 1;
            }
            if let Some((at, lasts)) = errand.pauses
                && (before..self.received).contains(&at)
            {
                self.paused_until = Some(now + lasts);
                if socket.state() != State::Closed {
                    return;
                }
            }
        }
    }

    fn write(&mut self, errand: &Errand, socket: &mut Socket<'_>, now: u64) {
        let mut boundary = 0;
        let mut allowed = 0;
        for (index, request) in self.requests.iter().enumerate() {
            boundary += request.len();
            if errand.is_pipelined || index <= self.answers {
                allowed = boundary;
            }
        }
        while self.is_connected && socket.can_send() && self.written < allowed && self.next_write <= now {
            let piece = errand.pieces.map_or(usize::MAX, |(octets, _)| octets);
            let (mut from, mut rest) = (self.written, &[][..]);
            for request in &self.requests {
                if from < request.len() {
                    rest = &request[from..];
                    break;
                }
                from -= request.len();
            }
            let sent = socket.send_slice(&rest[..rest.len().min(piece)]).unwrap_or(0);
            self.written += sent;
            if let Some((_, gap)) = errand.pieces {
                self.next_write = now + gap;
            }
            if sent == 0 {
                break;
            }
        }
        if errand.half_closes && self.written == boundary && !self.has_closed && self.is_connected {
            self.has_closed = true;
            socket.close();
        }
    }

    fn poll_at(&self, errand: &Errand, now: u64) -> Option<u64> {
        let write = (self.is_connected && self.next_write > now).then_some(self.next_write);
        let abort = errand.aborts.map(|(_, patience)| self.since + patience);
        let pause = self.paused_until.filter(|until| *until > now);
        let close = self.close_at.map(|at| if at > now { at } else { at + CLOSING_MAX });
        [write, abort, pause, close].into_iter().flatten().filter(|at| *at > now).min()
    }
}
