//! A node's kernel: smoltcp, and around it what Linux does otherwise. Sockets for connections come into being with a SYN, so
//! that none is in the way of another; RST and SYN are judged as RFC 5961 asks; requests are kept, or are cookies.

use super::super::host::{Host, find_socket, socket_state};
use super::super::requests::Requests;
use super::ecn::Ecn;
use super::errors::{self, TooBig};
use super::path::Paths;
use baton::flow::Endpoint;
use baton::handoff::SocketState;
use baton::rewrite::{Client, Flags, Leg, Segment, SegmentSpec, Seq, Timestamp, ToClientWire, ToServerWire, Wire};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Linux gives a request up after five SYN-ACKs more.
const REQUEST_LIFETIME: u64 = 63_000_000;
/// Linux waits for the other end's FIN when nobody reads any more, but not for ever (`tcp_fin_timeout`, 60 s there).
const HALF_CLOSED_LIFETIME: u64 = 240_000_000;
/// Unacknowledged for so long, a connection is given up.
const PATIENCE: Duration = Duration::from_secs(900);

/// A connection, or a request, of a kernel.
#[derive(Clone, Debug)]
pub struct Connection {
    pub handle: SocketHandle,
    pub local: Endpoint,
    pub remote: Endpoint,
    /// Counts the connections of this kernel.
    pub serial: u64,
    began: u64,
    /// In FIN-WAIT-2 since.
    half_closed: Option<u64>,
    /// What was sent last: the next sequence number, what is acknowledged, the window, and timestamps.
    said: Option<Said>,
    /// The latest acknowledgement that was taken, and the window that came with it.
    heard: Option<(Seq<Wire>, u16)>,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    next: Seq<Wire>,
    ack: Seq<Client>,
    window: u16,
    timestamps: Option<(Timestamp<Wire>, Timestamp<Client>)>,
}

pub struct Kernel {
    pub host: Host,
    pub connections: Vec<Connection>,
    pub listening: BTreeSet<u16>,
    pub queue_is_full: bool,
    pub gives_cookies: bool,
    /// Packets dropped for a reason that a kernel counts itself.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Odd things that were taken as Linux takes them.
    pub odd: BTreeMap<&'static str, u64>,
    pub ecn: Ecn,
    paths: Paths,
    requests: Requests,
    receive_bytes: usize,
    serial: u64,
    /// Challenge acknowledgements.
    own: Vec<Vec<u8>>,
}

/// What has nothing to say is said at the end of all that was (`tcp_acceptable_seq`). smoltcp says it where it sends again from,
/// and two that send again to each other take none of the other's acknowledgements, for ever.
pub fn advance_bare<L: Leg>(packet: &mut [u8], next: Seq<L::Sender>) {
    let Ok(mut segment) = Segment::<_, L>::parse(packet) else { return };
    let is_of_this = (1..1 << 20).contains(&next.since(&segment.seq()));
    if segment.seq_len() == 0 && is_of_this && !segment.flags().contains(Flags::RST) {
        segment.set_seq(next);
    }
}

/// An acknowledgement and nothing more.
fn bare(source: Endpoint, destination: Endpoint, seq: Seq<Wire>, ack: Seq<Client>) -> SegmentSpec<'static, ToClientWire> {
    SegmentSpec {
        source,
        destination,
        seq,
        ack,
        flags: Flags::ACK,
        window: 0,
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        traffic_class: 0,
        payload: &[],
    }
}

impl Kernel {
    pub fn new(addresses: &[IpAddr], seed: u64, receive_bytes: usize, clock: u32, gives_cookies: bool) -> Self {
        Self {
            host: Host::with(addresses, seed, 1_500, clock),
            connections: Vec::new(),
            listening: BTreeSet::new(),
            queue_is_full: false,
            gives_cookies,
            dropped: BTreeMap::new(),
            odd: BTreeMap::new(),
            ecn: Ecn::default(),
            paths: Paths::default(),
            requests: Requests::default(),
            receive_bytes,
            serial: 0,
            own: Vec::new(),
        }
    }

    fn drop(&mut self, reason: &'static str) {
        *self.dropped.entry(reason).or_default() += 1;
    }

    /// A packet for this host's TCP.
    pub fn receive(&mut self, packet: Vec<u8>, now: u64) {
        if errors::is_icmp(&packet) {
            return self.hear_error(&packet);
        }
        let Ok(segment) = Segment::<_, ToServerWire>::parse(packet.as_slice()) else { return self.drop("malformed") };
        if !segment.checksums_are_right() {
            return self.drop("checksum");
        }
        let (local, remote) = (segment.destination(), segment.source());
        let index = self.connections.iter().position(|known| (known.local, known.remote) == (local, remote));
        let state = index.map(|index| self.state(index));
        let flags = segment.flags();
        if flags.contains(Flags::SYN) && !flags.contains(Flags::ACK) {
            return self.receive_syn(index.zip(state), &segment, packet.clone(), now);
        }
        self.ecn.inward::<ToServerWire>(&packet);
        match index.zip(state) {
            Some((index, State::SynReceived)) => {
                if flags.contains(Flags::RST) {
                    // A cookie is nothing that could be purged.
                    if self.gives_cookies {
                        return self.drop("reset of a cookie");
                    }
                    if self.connections[index].said.is_some_and(|said| said.ack != segment.seq()) {
                        return self.challenge(index, "reset not exact");
                    }
                    return self.remove(index);
                }
                if !self.requests.believes(&segment, self.gives_cookies) {
                    return self.drop("echo of nothing");
                }
                let is_first = self.connections[index].said.is_none_or(|said| said.ack == segment.seq());
                if self.gives_cookies && !is_first {
                    // The client's ISN is part of a cookie: only what follows the SYN fits (`__cookie_v4_check`).
                    let reset = SegmentSpec::<ToClientWire> {
                        flags: Flags::RST,
                        timestamps: None,
                        window: 0,
                        ..bare(local, remote, segment.ack(), segment.seq())
                    };
                    self.own.push(reset.build().into_inner());
                    return self.drop("no cookie");
                }
                let is_exact = self.connections[index].said.is_none_or(|said| said.next == segment.ack());
                if is_exact && flags.contains(Flags::ACK) && self.queue_is_full {
                    return self.drop("accept queue full");
                }
                self.feed(packet, now);
                if self.find(local, remote).is_some_and(|index| self.state(index) != State::SynReceived) {
                    self.requests.forget(local, remote);
                }
            }
            Some((index, _)) if flags.contains(Flags::RST) => {
                if self.connections[index].said.is_some_and(|said| said.ack != segment.seq()) {
                    return self.challenge(index, "reset not exact");
                }
                self.feed(packet, now);
            }
            Some((index, state)) => {
                let packet = self.as_taken(index, state, packet);
                self.feed(packet, now);
            }
            None => self.feed(packet, now),
        }
    }

    /// An ICMP error. Only who could have seen the packet knows its sequence number (RFC 5927, section 4; `tcp_v4_err`).
    fn hear_error(&mut self, packet: &[u8]) {
        let interface = &self.host.interface;
        let is_own = |address: IpAddr| {
            interface.has_ip_addr(address) || super::world::is_alias(address) || super::on_syn::is_shared(address)
        };
        let what = match errors::read(packet, is_own) {
            None => "errors that are none",
            Some(TooBig { source, destination, seq, mtu }) => match self.find(source, destination) {
                None => "errors about nothing",
                Some(index) => {
                    let known = &self.connections[index];
                    let next = known.said.map(|said| said.next);
                    let seq = Seq::<Wire>::new(seq);
                    let is_after = known.heard.is_none_or(|(heard, _)| seq.since(&heard) >= 0);
                    if !is_after || next.is_none_or(|next| next.since(&seq) < 0) {
                        "errors outside the window"
                    } else if self.paths.lower(destination.address, mtu) {
                        "path MTUs lowered"
                    } else {
                        "errors again"
                    }
                }
            },
        };
        *self.odd.entry(what).or_default() += 1;
    }

    /// A segment as Linux takes it, where smoltcp does otherwise.
    ///
    /// smoltcp drops what comes with an acknowledgement older than the last one. Its octets are good all the same (RFC 9293,
    /// section 3.10.7.4, \"If the ACK is a duplicate, it can be ignored\"; RFC 5961, section 5.2): so it gets the latest one.
    /// And smoltcp takes octets after a FIN for a part of the stream; Linux drops them (`tcp_rcv_state_process`).
    fn as_taken(&mut self, index: usize, state: State, mut packet: Vec<u8>) -> Vec<u8> {
        let known = &mut self.connections[index];
        let Some(said) = known.said else { return packet };
        let Ok(mut segment) = Segment::<_, ToServerWire>::parse(packet.as_mut_slice()) else { return packet };
        if !segment.flags().contains(Flags::ACK) {
            return packet;
        }
        let is_sent = said.next.since(&segment.ack()) >= 0;
        match known.heard {
            Some((heard, window)) if (1..1 << 20).contains(&heard.since(&segment.ack())) => {
                segment.set_ack(heard);
                segment.set_window(window);
                *self.odd.entry("old acknowledgements").or_default() += 1;
            }
            _ if is_sent => known.heard = Some((segment.ack(), segment.window())),
            _ => {}
        }
        let has_ended = matches!(state, State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        let is_behind = (0..1 << 20).contains(&segment.seq().since(&said.ack));
        if has_ended && is_behind && !segment.payload().is_empty() {
            let nothing = SegmentSpec::<ToServerWire> {
                source: known.remote,
                destination: known.local,
                seq: said.ack,
                ack: segment.ack(),
                flags: Flags::ACK,
                window: segment.window(),
                mss: None,
                window_scale: None,
                sack_permitted: false,
                timestamps: segment.timestamps(),
                traffic_class: 0,
                payload: &[],
            };
            *self.odd.entry("octets after a FIN").or_default() += 1;
            return nothing.build().into_inner();
        }
        packet
    }

    fn receive_syn<B: AsRef<[u8]>>(
        &mut self,
        known: Option<(usize, State)>,
        syn: &Segment<B, ToServerWire>,
        packet: Vec<u8>,
        now: u64,
    ) {
        let (local, remote) = (syn.destination(), syn.source());
        match known {
            Some((index, State::SynReceived)) if !self.gives_cookies => {
                if self.connections[index].said.is_some_and(|said| said.ack == syn.seq().plus(1)) {
                    self.own.extend(self.requests.answer_again(syn, now));
                } else {
                    self.challenge(index, "other SYN for a request");
                }
                return;
            }
            // A request that is a cookie is none, and TIME-WAIT gives way to a newer connection (RFC 6191).
            Some((index, State::SynReceived | State::TimeWait)) => self.remove(index),
            Some((index, _)) => return self.challenge(index, "SYN on a connection"),
            None => {}
        }
        if !self.listening.contains(&local.port) {
            return self.feed(packet, now);
        }
        if self.queue_is_full {
            return self.drop("accept queue full");
        }
        self.ecn.inward::<ToServerWire>(&packet);
        let handle = self.host.add_own_socket(self.receive_bytes);
        let socket = self.host.sockets.get_mut::<Socket>(handle);
        socket.set_timeout(Some(PATIENCE));
        socket.set_nagle_enabled(false);
        socket.listen(local.port).expect("a fresh socket listens");
        self.serial += 1;
        self.connections.push(Connection {
            handle,
            local,
            remote,
            serial: self.serial,
            began: now,
            half_closed: None,
            said: None,
            heard: None,
        });
        self.feed(packet, now);
    }

    fn feed(&mut self, packet: Vec<u8>, now: u64) {
        self.host.wire.incoming.push_back(packet);
        self.poll(now);
    }

    /// Says where the connection stands (RFC 5961, sections 3.2 and 4.2).
    fn challenge(&mut self, index: usize, reason: &'static str) {
        self.drop(reason);
        let Connection { local, remote, said: Some(said), .. } = self.connections[index] else { return };
        let challenge = SegmentSpec::<ToClientWire> {
            window: said.window,
            timestamps: said.timestamps,
            ..bare(local, remote, said.next, said.ack)
        };
        self.own.push(challenge.build().into_inner());
    }

    pub fn state(&self, index: usize) -> State {
        self.host.sockets.get::<Socket>(self.connections[index].handle).state()
    }

    pub fn find(&self, local: Endpoint, remote: Endpoint) -> Option<usize> {
        self.connections.iter().position(|known| (known.local, known.remote) == (local, remote))
    }

    /// Whether a connection with these ends of the client's can still be spoken on, under whatever address of ours.
    pub fn serves(&self, remote: Endpoint) -> bool {
        let is_open = |index: usize| matches!(self.state(index), State::Established | State::CloseWait);
        (0..self.connections.len()).any(|index| self.connections[index].remote == remote && is_open(index))
    }

    fn remove(&mut self, index: usize) {
        let connection = self.connections.remove(index);
        self.requests.forget(connection.local, connection.remote);
        self.host.sockets.remove(connection.handle);
    }

    /// Lets TCP work, and forgets what is over.
    pub fn poll(&mut self, now: u64) {
        self.host.poll(now);
        let mut index = 0;
        while index < self.connections.len() {
            let is_old = now.saturating_sub(self.connections[index].began) > REQUEST_LIFETIME;
            let state = self.state(index);
            let half_closed = &mut self.connections[index].half_closed;
            *half_closed = (state == State::FinWait2).then(|| half_closed.unwrap_or(now));
            let is_left = half_closed.is_some_and(|since| now - since > HALF_CLOSED_LIFETIME);
            match state {
                State::Listen => self.remove(index),
                State::SynReceived if is_old => self.remove(index),
                State::FinWait2 if is_left => self.remove(index),
                // The application has its own look first.
                _ => index += 1,
            }
        }
    }

    /// Forgets connections that are closed; the application has seen it.
    pub fn sweep(&mut self) {
        let mut index = 0;
        while index < self.connections.len() {
            if self.state(index) == State::Closed { self.remove(index) } else { index += 1 }
        }
    }

    pub fn poll_at(&mut self, now: u64) -> Option<u64> {
        let is_request = |kernel: &Self, index| kernel.state(index) == State::SynReceived;
        let oldest = (0..self.connections.len()).filter(|index| is_request(self, *index));
        let request = oldest.map(|index| self.connections[index].began + REQUEST_LIFETIME + 1).min();
        let left = self.connections.iter().filter_map(|known| known.half_closed);
        let left = left.map(|since| since + HALF_CLOSED_LIFETIME + 1).min();
        [self.host.poll_at(now), request, left].into_iter().flatten().min()
    }

    /// What it has to send.
    pub fn outgoing(&mut self, now: u64) -> Vec<Vec<u8>> {
        let mut sent = std::mem::take(&mut self.own);
        for mut packet in std::mem::take(&mut self.host.wire.outgoing) {
            let segment = Segment::<_, ToClientWire>::parse(packet.as_slice()).expect("smoltcp sends TCP only here");
            let (local, remote) = (segment.source(), segment.destination());
            let is_syn_ack = segment.flags().contains(Flags::SYN);
            // What answers a stray is not about the connection.
            if !segment.flags().contains(Flags::RST)
                && let Some(known) = self.connections.iter_mut().find(|known| (known.local, known.remote) == (local, remote))
            {
                let is_repeated = known.said.is_some();
                if is_syn_ack && is_repeated && self.gives_cookies {
                    // Who remembers nothing repeats nothing.
                    continue;
                }
                let next = segment.seq_end();
                let next = known.said.map_or(next, |said| if said.next.is_before(&next) { next } else { said.next });
                // smoltcp answers what has no timestamps with none, whatever was agreed on (RFC 7323, section 3.2: each
                // segment has them; a stranger's has not).
                let agreed = known.said.and_then(|said| said.timestamps);
                let timestamps = segment.timestamps().or(agreed);
                known.said = Some(Said { next, ack: segment.ack(), window: segment.window(), timestamps });
                if segment.timestamps() != timestamps && segment.payload().is_empty() {
                    let spec = bare(local, remote, segment.seq(), segment.ack());
                    let spec =
                        SegmentSpec::<ToClientWire> { window: segment.window(), flags: segment.flags(), timestamps, ..spec };
                    packet = spec.build().into_inner();
                }
                advance_bare::<ToClientWire>(&mut packet, next);
            }
            self.ecn.outward::<ToClientWire>(&mut packet);
            if is_syn_ack {
                self.requests.hear(&packet, now);
            }
            sent.extend(self.paths.fit(packet));
        }
        sent
    }

    /// What `sock_diag` says.
    pub fn socket_state(&mut self, local: Endpoint, remote: Endpoint, now: u64) -> SocketState {
        self.poll(now);
        match socket_state(&self.host, local.into(), remote.into()) {
            SocketState::SynReceived if self.gives_cookies => SocketState::Absent,
            state => state,
        }
    }

    /// What `sock_diag` destroys. The RST goes the way of all packets.
    pub fn destroy(&mut self, local: Endpoint, remote: Endpoint) {
        if let Some(handle) = find_socket(&self.host, local.into(), remote.into()) {
            self.host.sockets.get_mut::<Socket>(handle).abort();
        }
    }

    /// The listener is gone, and with it, without a word, what was not complete.
    pub fn forget_requests(&mut self) {
        for index in (0..self.connections.len()).rev() {
            if self.state(index) == State::SynReceived {
                self.remove(index);
            }
        }
    }

    /// Connections with a local end that satisfies this are gone without a word.
    pub fn destroy_all(&mut self, is_meant: impl Fn(Endpoint) -> bool) {
        for index in (0..self.connections.len()).rev() {
            if is_meant(self.connections[index].local) {
                self.remove(index);
            }
        }
    }
}
