//! The client: one connection, one request, in one segment or two.

use baton::flow::Endpoint;
use baton::rewrite::{Flags, Segment, SegmentSpec, Seq, ToClientWire, ToServerWire};

const ISN: u32 = 1_000;

/// What the client may send, whenever it applies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Sends {
    Syn,
    Ack,
    /// A part of the request.
    Part(u8),
    Fin,
    /// Its application is killed; or an answer to what comes after a reset.
    Reset,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Client {
    end: Endpoint,
    frontend: Endpoint,
    parts: Vec<Vec<u8>>,
    /// The server's ISN, once it is known.
    pub server_isn: Option<u32>,
    rcv_nxt: u32,
    snd_una: u32,
    pub stream: Vec<u8>,
    /// The server's FIN was read.
    pub is_answered: bool,
    /// The connection was reset, by either side.
    pub is_reset: bool,
    /// A packet came after that, with this acknowledgement: it is answered by a RST.
    poked: Option<u32>,
    /// How often each was sent: SYN, ACK, part 0, part 1, FIN, RST.
    pub sent: [u8; 6],
}

impl Sends {
    pub const fn index(self) -> usize {
        match self {
            Self::Syn => 0,
            Self::Ack => 1,
            Self::Part(part) => 2 + part as usize,
            Self::Fin => 4,
            Self::Reset => 5,
        }
    }
}

impl Client {
    pub fn new(end: Endpoint, frontend: Endpoint, parts: Vec<Vec<u8>>) -> Self {
        Self {
            end,
            frontend,
            parts,
            server_isn: None,
            rcv_nxt: 0,
            snd_una: ISN,
            stream: Vec::new(),
            is_answered: false,
            is_reset: false,
            poked: None,
            sent: [0; 6],
        }
    }

    /// After part `index`.
    fn end_of(&self, index: usize) -> u32 {
        ISN + 1 + self.parts[..=index].iter().map(Vec::len).sum::<usize>() as u32
    }
    fn start_of(&self, index: usize) -> u32 {
        self.end_of(index) - self.parts[index].len() as u32
    }
    fn end_of_request(&self) -> u32 {
        self.end_of(self.parts.len() - 1)
    }
    /// What it has ever sent.
    fn snd_max(&self) -> u32 {
        let is_sent = |sends: Sends| self.sent[sends.index()] > 0;
        let parts = (0..self.parts.len()).filter(|index| is_sent(Sends::Part(*index as u8))).map(|index| self.end_of(index));
        let request = parts.max().unwrap_or(ISN + 1);
        request + u32::from(is_sent(Sends::Fin))
    }

    pub const fn is_over(&self) -> bool {
        self.is_reset || self.is_answered
    }

    /// What it has reason to send now.
    pub fn may_send(&self) -> Vec<Sends> {
        if self.is_reset {
            return if self.poked.is_some() { vec![Sends::Reset] } else { Vec::new() };
        }
        if self.server_isn.is_none() {
            return vec![Sends::Syn];
        }
        if self.snd_una > self.end_of_request() {
            // Its FIN is acknowledged: TIME-WAIT.
            return Vec::new();
        }
        let mut sends: Vec<_> =
            (0..self.parts.len()).filter(|part| self.snd_una < self.end_of(*part)).map(|part| Sends::Part(part as u8)).collect();
        if self.is_answered && self.snd_una == self.end_of_request() {
            sends.push(Sends::Fin);
        }
        sends.push(Sends::Ack);
        sends
    }

    /// The packet, at this moment; also one that was sent long ago.
    pub fn packet(&mut self, sends: Sends) -> Vec<u8> {
        self.sent[sends.index()] = self.sent[sends.index()].saturating_add(1);
        let next = self.snd_una.max(self.snd_max()).max(ISN + 1);
        let data = Flags::ACK.with(Flags::PSH);
        match sends {
            Sends::Syn => self.say(ISN, 0, Flags::SYN, b""),
            Sends::Ack => self.say(next, self.rcv_nxt, Flags::ACK, b""),
            Sends::Part(part) => self.say(self.start_of(part.into()), self.rcv_nxt, data, &self.parts[usize::from(part)]),
            Sends::Fin => self.say(self.end_of_request(), self.rcv_nxt, Flags::ACK.with(Flags::FIN), b""),
            Sends::Reset => match self.poked.take() {
                Some(seq) => self.say(seq, 0, Flags::RST, b""),
                None => {
                    self.is_reset = true;
                    self.say(next, 0, Flags::RST, b"")
                }
            },
        }
    }

    fn say(&self, seq: u32, ack: u32, flags: Flags, payload: &[u8]) -> Vec<u8> {
        SegmentSpec::<ToServerWire> {
            source: self.end,
            destination: self.frontend,
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

    /// A packet reaches the client. What is wrong with it, if anything is.
    pub fn receive(&mut self, packet: &[u8]) -> Result<(), String> {
        let segment = Segment::<_, ToClientWire>::parse(packet).map_err(|malformed| format!("{malformed:?}"))?;
        if !segment.checksums_are_right() {
            return Err("a wrong checksum reaches the client".to_owned());
        }
        let (seq, flags) = (segment.seq().raw(), segment.flags());
        if self.is_reset {
            if !flags.contains(Flags::RST) {
                self.poked = Some(segment.ack().raw());
            }
            return Ok(());
        }
        if flags.contains(Flags::SYN) {
            if self.server_isn.is_none() && segment.ack().raw() == ISN + 1 && !flags.contains(Flags::RST) {
                self.server_isn = Some(seq);
                self.rcv_nxt = seq + 1;
                self.snd_una = ISN + 1;
            }
            return Ok(());
        }
        if flags.contains(Flags::RST) {
            // RFC 5961, section 3.2; before the handshake, RFC 9293, section 3.10.7.3.
            let is_exact = seq == self.rcv_nxt;
            self.is_reset |= if self.server_isn.is_some() { is_exact } else { segment.ack().raw() == ISN + 1 };
            return Ok(());
        }
        let Some(_) = self.server_isn else { return Ok(()) };
        if segment.ack().raw() > self.snd_max() {
            return Err("the client is acknowledged what it never sent".to_owned());
        }
        self.snd_una = self.snd_una.max(segment.ack().raw());
        if seq <= self.rcv_nxt && segment.seq_end().raw() > self.rcv_nxt {
            self.stream.extend_from_slice(&segment.payload()[(self.rcv_nxt - seq) as usize..]);
            self.is_answered |= flags.contains(Flags::FIN);
            self.rcv_nxt = segment.seq_end().raw();
        }
        Ok(())
    }
}
