//! A kernel's TCP and the application above it, as far as ownership is concerned: which sockets there are, what reached
//! the application, and what the kernel says to whom. No windows, no options, no clock: whatever a clock would do is a
//! choice of the explorer ([`Kernel::resend`], [`Kernel::prune`]).

use baton::flow::Endpoint;
use baton::handoff::SocketState;
use baton::rewrite::{Flags, Segment, SegmentSpec, Seq, ToClientLocal, ToServerLocal};

/// What ends a request.
const END: &[u8] = b"\r\n\r\n";
/// Octets of every answer; a FIN follows.
pub const ANSWER_BYTES: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Tcp {
    SynReceived,
    /// The application has it.
    Open,
    TimeWait,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Socket {
    pub local: Endpoint,
    pub remote: Endpoint,
    pub tcp: Tcp,
    pub iss: u32,
    irs: u32,
    rcv_nxt: u32,
    snd_una: u32,
    /// What the application was given.
    received: Vec<u8>,
    is_answered: bool,
    /// The client's FIN was taken.
    is_half_closed: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Kernel {
    name: u8,
    pub sockets: Vec<Socket>,
    /// An application listens.
    pub listens: bool,
    /// The accept queue is full: handshakes are not completed, in silence.
    pub is_full: bool,
    /// SYNs are answered without keeping a request (RFC 4987, section 3.6).
    pub gives_cookies: bool,
    /// Cookies given: ends, the client's ISN, ours.
    cookies: Vec<(Endpoint, Endpoint, u32, u32)>,
    next_iss: u32,
    /// Connections of which the application was given at least an octet, ever.
    pub touched: u8,
}

struct Heard {
    seq: u32,
    end: u32,
    ack: u32,
    flags: Flags,
    payload: Vec<u8>,
}

impl Kernel {
    pub fn new(name: u8, first_iss: u32) -> Self {
        Self {
            name,
            sockets: Vec::new(),
            listens: true,
            is_full: false,
            gives_cookies: false,
            cookies: Vec::new(),
            next_iss: first_iss,
            touched: 0,
        }
    }

    pub fn state(&self, local: Endpoint, remote: Endpoint) -> SocketState {
        match self.find(local, remote).map(|index| self.sockets[index].tcp) {
            None => SocketState::Absent,
            Some(Tcp::SynReceived) => SocketState::SynReceived,
            Some(Tcp::Open) => SocketState::Open,
            Some(Tcp::TimeWait) => SocketState::TimeWait,
        }
    }

    fn find(&self, local: Endpoint, remote: Endpoint) -> Option<usize> {
        self.sockets.iter().position(|socket| (socket.local, socket.remote) == (local, remote))
    }

    pub fn destroy(&mut self, local: Endpoint, remote: Endpoint) {
        self.sockets.retain(|socket| (socket.local, socket.remote) != (local, remote));
    }

    fn iss(&mut self) -> u32 {
        self.next_iss += 1_000;
        self.next_iss
    }

    /// A packet for this kernel; what it says to it.
    pub fn receive(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        let segment = Segment::<_, ToServerLocal>::parse(packet).expect("only TCP");
        assert!(segment.checksums_are_right(), "a wrong checksum reaches a kernel");
        let (local, remote) = (segment.destination(), segment.source());
        let heard = Heard {
            seq: segment.seq().raw(),
            end: segment.seq_end().raw(),
            ack: segment.ack().raw(),
            flags: segment.flags(),
            payload: segment.payload().to_vec(),
        };
        match self.find(local, remote) {
            None => self.without_socket(local, remote, &heard),
            Some(index) if self.sockets[index].tcp == Tcp::SynReceived => self.in_syn_received(index, &heard),
            Some(index) => self.when_open(index, &heard),
        }
    }

    fn without_socket(&mut self, local: Endpoint, remote: Endpoint, heard: &Heard) -> Vec<Vec<u8>> {
        if heard.flags.contains(Flags::RST) {
            return Vec::new();
        }
        if !heard.flags.contains(Flags::ACK) {
            if !heard.flags.contains(Flags::SYN) {
                return Vec::new();
            }
            if !self.listens {
                return vec![say(local, remote, 0, heard.end, Flags::RST.with(Flags::ACK), b"")];
            }
            let iss = self.iss();
            if self.gives_cookies {
                self.cookies.push((local, remote, heard.seq, iss));
                return vec![say(local, remote, iss, heard.end, Flags::SYN.with(Flags::ACK), b"")];
            }
            self.sockets.push(Socket::new(local, remote, Tcp::SynReceived, iss, heard.seq));
            return vec![self.sockets[self.sockets.len() - 1].syn_ack()];
        }
        let is_cookie = |(at, from, irs, iss): &&(Endpoint, Endpoint, u32, u32)| {
            (*at, *from, *irs + 1, *iss + 1) == (local, remote, heard.seq, heard.ack)
        };
        match self.cookies.iter().find(is_cookie).copied() {
            Some(_) if self.is_full => Vec::new(),
            Some((_, _, irs, iss)) if self.listens => {
                self.sockets.push(Socket::new(local, remote, Tcp::Open, iss, irs));
                self.when_open(self.sockets.len() - 1, heard)
            }
            _ => vec![say(local, remote, heard.ack, 0, Flags::RST, b"")],
        }
    }

    fn in_syn_received(&mut self, index: usize, heard: &Heard) -> Vec<Vec<u8>> {
        let socket = &mut self.sockets[index];
        if heard.flags.contains(Flags::RST) {
            if heard.seq == socket.rcv_nxt {
                self.sockets.remove(index);
            }
            return Vec::new();
        }
        if heard.flags.contains(Flags::SYN) {
            return vec![if heard.seq == socket.irs { socket.syn_ack() } else { socket.acknowledge() }];
        }
        if !heard.flags.contains(Flags::ACK) {
            return Vec::new();
        }
        if heard.ack != socket.iss + 1 {
            return vec![say(socket.local, socket.remote, heard.ack, 0, Flags::RST, b"")];
        }
        if heard.seq < socket.rcv_nxt {
            return vec![socket.acknowledge()];
        }
        if self.is_full {
            return Vec::new();
        }
        socket.tcp = Tcp::Open;
        self.when_open(index, heard)
    }

    fn when_open(&mut self, index: usize, heard: &Heard) -> Vec<Vec<u8>> {
        let socket = &mut self.sockets[index];
        if heard.flags.contains(Flags::RST) {
            if heard.seq == socket.rcv_nxt {
                self.sockets.remove(index);
                return Vec::new();
            }
            return vec![socket.acknowledge()];
        }
        if heard.flags.contains(Flags::SYN) || heard.ack > socket.snd_nxt() {
            return vec![socket.acknowledge()];
        }
        socket.snd_una = socket.snd_una.max(heard.ack);
        let says_something = heard.end != heard.seq;
        if heard.seq <= socket.rcv_nxt && heard.end > socket.rcv_nxt && !socket.is_half_closed {
            let fresh = &heard.payload[(socket.rcv_nxt - heard.seq) as usize..];
            if !fresh.is_empty() && socket.received.is_empty() {
                self.touched += 1;
            }
            socket.received.extend_from_slice(fresh);
            socket.is_half_closed = heard.flags.contains(Flags::FIN);
            socket.rcv_nxt = heard.end;
        }
        if socket.is_half_closed && socket.is_answered && socket.snd_una == socket.snd_nxt() {
            socket.tcp = Tcp::TimeWait;
        }
        if says_something { vec![socket.acknowledge()] } else { Vec::new() }
    }

    /// The sockets whose application has a whole request and has not answered.
    pub fn waiting(&self) -> impl Iterator<Item = usize> + '_ {
        let is_waiting = |socket: &Socket| socket.tcp == Tcp::Open && !socket.is_answered && socket.received.ends_with(END);
        self.sockets.iter().enumerate().filter(move |(_, socket)| is_waiting(socket)).map(|(index, _)| index)
    }

    /// The application answers and closes.
    pub fn answer(&mut self, index: usize) -> Vec<u8> {
        self.sockets[index].is_answered = true;
        self.sockets[index].data(self.name)
    }

    /// Sockets with something unacknowledged.
    pub fn owing(&self) -> impl Iterator<Item = usize> + '_ {
        self.sockets.iter().enumerate().filter(|(_, socket)| socket.owes()).map(|(index, _)| index)
    }

    /// The retransmission timer of a socket fires.
    pub fn resend(&self, index: usize) -> Vec<u8> {
        let socket = &self.sockets[index];
        if socket.tcp == Tcp::SynReceived { socket.syn_ack() } else { socket.data(self.name) }
    }

    /// Requests that are no connections yet vanish, as under memory pressure.
    pub fn prune(&mut self) {
        self.sockets.retain(|socket| socket.tcp != Tcp::SynReceived);
    }
}

impl Socket {
    fn new(local: Endpoint, remote: Endpoint, tcp: Tcp, iss: u32, irs: u32) -> Self {
        Self {
            local,
            remote,
            tcp,
            iss,
            irs,
            rcv_nxt: irs + 1,
            snd_una: iss + 1,
            received: Vec::new(),
            is_answered: false,
            is_half_closed: false,
        }
    }
    const fn snd_nxt(&self) -> u32 {
        self.iss + 1 + if self.is_answered { ANSWER_BYTES as u32 + 1 } else { 0 }
    }
    fn owes(&self) -> bool {
        self.tcp == Tcp::SynReceived || (self.tcp == Tcp::Open && self.snd_una < self.snd_nxt())
    }
    fn syn_ack(&self) -> Vec<u8> {
        say(self.local, self.remote, self.iss, self.rcv_nxt, Flags::SYN.with(Flags::ACK), b"")
    }
    fn acknowledge(&self) -> Vec<u8> {
        say(self.local, self.remote, self.snd_nxt(), self.rcv_nxt, Flags::ACK, b"")
    }
    fn data(&self, name: u8) -> Vec<u8> {
        let flags = Flags::ACK.with(Flags::PSH).with(Flags::FIN);
        say(self.local, self.remote, self.iss + 1, self.rcv_nxt, flags, &[name; ANSWER_BYTES])
    }
}

fn say(local: Endpoint, remote: Endpoint, seq: u32, ack: u32, flags: Flags, payload: &[u8]) -> Vec<u8> {
    SegmentSpec::<ToClientLocal> {
        source: local,
        destination: remote,
        seq: Seq::new(seq),
        ack: Seq::new(ack),
        flags,
        window: 64_240,
        mss: flags.contains(Flags::SYN).then_some(1_460),
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        traffic_class: 0,
        payload,
    }
    .build()
    .into_inner()
}
