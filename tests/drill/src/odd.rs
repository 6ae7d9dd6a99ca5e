//! A client that keeps to TCP and does everything else at random: cuts, repeats and overlaps what it says, loses what it
//! hears and reports the holes, closes its window, sends urgent data, closes at odd moments, and, where the server is known
//! to bear it, goes on talking after its FIN.
//!
//! Knows one connection. Must not know sockets or clocks. What it reads must be what the server wrote, whatever it does.

use crate::random::Random;
use crate::segment::{Received, Segment, TcpOption, flag};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// What is not acknowledged is sent again, in other pieces.
const AGAIN: Duration = Duration::from_millis(400);
/// A closed window is opened again.
const CLOSED_WINDOW: Duration = Duration::from_millis(700);
/// How long it answers a FIN that comes again.
const TIME_WAIT: Duration = Duration::from_secs(5);

/// It has said everything and hears nothing for so long: is anybody there (RFC 9293, section 3.8.4)?
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Between two times that it says the same again, at most.
const AGAIN_MAX: Duration = Duration::from_secs(20);
/// A segment begins at most so many octets before its place.
const OVERLAP_MAX: u64 = 20;
/// Options take that much of a segment (RFC 6691).
const OPTIONS_MAX: u64 = 40;
/// Octets it allows the server at once.
const WINDOW: u16 = 20_000;

/// How often it did what.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Oddities {
    /// Segments that carried some of the request.
    pub pieces: u64,
    /// Those of fewer than 100 octets.
    pub small_pieces: u64,
    /// Those that began before their place.
    pub overlaps: u64,
    /// Those that were said twice at once.
    pub repeats: u64,
    /// Flights that were said out of order.
    pub shuffles: u64,
    /// Segments with urgent octets.
    pub urgent: u64,
    /// Segments with octets after the FIN.
    pub after_fin: u64,
    /// Segments of the server's that it took for lost.
    pub holes: u64,
    /// Acknowledgements with SACK blocks.
    pub sacks: u64,
    /// Holes that the server has filled, all of them, behind such an acknowledgement.
    pub recoveries: u64,
    /// FINs that crossed the server's.
    pub simultaneous_closes: u64,
    /// FINs that came with the request.
    pub half_closes: u64,
    /// Times that its window was closed.
    pub closed_windows: u64,
}

impl Oddities {
    /// The names, and how often.
    pub const fn list(&self) -> [(&'static str, u64); 13] {
        [
            ("pieces", self.pieces),
            ("small pieces", self.small_pieces),
            ("overlaps", self.overlaps),
            ("repeats", self.repeats),
            ("shuffles", self.shuffles),
            ("urgent", self.urgent),
            ("after the FIN", self.after_fin),
            ("holes", self.holes),
            ("SACKs", self.sacks),
            ("recoveries", self.recoveries),
            ("simultaneous closes", self.simultaneous_closes),
            ("half-closes", self.half_closes),
            ("closed windows", self.closed_windows),
        ]
    }
}

/// How it closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Closing {
    /// With the last octets of the request (half-close).
    WithRequest,
    /// After the server's FIN.
    Last,
    /// When the server's FIN comes, and without acknowledging it: both cross.
    Crossing,
}

/// The client.
#[derive(Clone, Debug)]
pub struct OddClient {
    client: SocketAddr,
    server: SocketAddr,
    request: Vec<u8>,
    random: Random,
    isn: u32,
    mss: u16,
    has_sack: bool,
    /// TSval ticks in milliseconds; whether the server agreed.
    has_timestamps: bool,
    last_value: u32,
    closing: Closing,
    /// Segments of the server of which one is lost at the first time.
    loses_one_in: u64,
    server_isn: Option<u32>,
    /// Octets of the request that the server has acknowledged, FIN included.
    acknowledged: u32,
    /// Octets in order.
    received: Vec<u8>,
    /// Beyond a hole: where, and what.
    beyond: BTreeMap<u32, Vec<u8>>,
    /// The latest of them, which a SACK option names first (RFC 2018, section 4).
    latest: Option<u32>,
    lost: Vec<u32>,
    /// Whether it closes its window at times. Not together with losses: smoltcp, the server of simulations, forgets what
    /// it has to send again when a window is closed meanwhile.
    closes_window: bool,
    server_end: Option<u32>,
    sends_fin: bool,
    opens_at: Option<Duration>,
    again_at: Duration,
    over_at: Option<Duration>,
    was_reset: bool,
    outgoing: Vec<Vec<u8>>,
    says_urgent: bool,
    /// Waits longer from time to time, asks whether anybody is there, and talks after its FIN.
    is_patient: bool,
    again_after: Duration,
    heard_at: Duration,
    after_fin_left: u32,
    has_sacked: bool,
    /// What it did.
    pub oddities: Oddities,
    /// Some of the request was urgent.
    pub said_urgent: bool,
    /// What the server did that no server may do.
    pub complaint: Option<String>,
    /// What it did, one line each.
    pub trace: Vec<String>,
}

impl OddClient {
    /// Connects and asks; what it does besides depends on the seed alone.
    pub fn new(seed: u64, client: SocketAddr, server: SocketAddr, request: Vec<u8>) -> Self {
        let mut random = Random::new(seed);
        let closing = [Closing::WithRequest, Closing::Last, Closing::Crossing][random.below(3) as usize];
        let loses_one_in = [3, 8, 30, u64::MAX][random.below(4) as usize];
        let mut this = Self {
            client,
            server,
            request,
            isn: random.next() as u32,
            mss: [536, 1_000, 1_460][random.below(3) as usize],
            has_sack: !random.one_in(4),
            has_timestamps: random.one_in(2),
            last_value: 0,
            closing,
            loses_one_in,
            closes_window: loses_one_in == u64::MAX,
            server_isn: None,
            acknowledged: 0,
            received: Vec::new(),
            beyond: BTreeMap::new(),
            latest: None,
            lost: Vec::new(),
            server_end: None,
            sends_fin: closing == Closing::WithRequest,
            opens_at: None,
            again_at: Duration::ZERO,
            over_at: None,
            was_reset: false,
            outgoing: Vec::new(),
            says_urgent: random.one_in(3),
            is_patient: false,
            again_after: AGAIN,
            heard_at: Duration::ZERO,
            after_fin_left: 0,
            has_sacked: false,
            oddities: Oddities::default(),
            said_urgent: false,
            complaint: None,
            trace: Vec::new(),
            random,
        };
        this.trace.push(format!("closing {closing:?}, loses one in {}", this.loses_one_in));
        this
    }

    /// The network loses packets too.
    #[must_use]
    pub fn on_a_lossy_network(self) -> Self {
        Self { closes_window: false, ..self }
    }

    /// On a network that may be gone for long, to a server that drops what comes after a FIN as Linux does.
    #[must_use]
    pub fn patient(self, now: Duration) -> Self {
        Self { is_patient: true, after_fin_left: 2, heard_at: now, again_at: now, ..self }
    }

    /// What came in order.
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// The server has reset it.
    pub fn was_reset(&self) -> bool {
        self.was_reset
    }

    /// The handshake is complete.
    pub const fn is_connected(&self) -> bool {
        self.server_isn.is_some()
    }

    /// It answers nothing any more.
    pub fn is_gone(&self, now: Duration) -> bool {
        self.was_reset || self.over_at.is_some_and(|over| now >= over)
    }

    /// Both streams have ended and were acknowledged, or it was reset.
    pub fn is_finished(&self) -> bool {
        self.was_reset || self.over_at.is_some()
    }

    /// When it wants to be asked again.
    pub fn poll_at(&self) -> Option<Duration> {
        if self.is_finished() {
            return None;
        }
        Some(self.opens_at.map_or(self.again_at, |opens| opens.min(self.again_at)))
    }

    /// Works, and gives what it has to send.
    pub fn poll(&mut self, now: Duration) -> Vec<Vec<u8>> {
        if self.opens_at.is_some_and(|opens| now >= opens) {
            self.opens_at = None;
            self.acknowledge(now);
        }
        let is_over = self.was_reset || self.over_at.is_some();
        if !is_over && now >= self.again_at {
            self.again_at = now + self.again_after;
            if self.is_patient {
                self.again_after = (self.again_after * 2).min(AGAIN_MAX);
            }
            match self.server_isn {
                None => self.connect(now),
                Some(_) if (self.acknowledged as usize) < self.request.len() + usize::from(self.sends_fin) => self.say(now),
                Some(_) if self.is_patient && now >= self.heard_at + KEEP_ALIVE => {
                    self.heard_at = now;
                    let end = self.request.len() as u32 + u32::from(self.sends_fin);
                    self.send(end.wrapping_sub(1), &[], flag::ACK, 0, now);
                }
                Some(_) => {}
            }
        }
        std::mem::take(&mut self.outgoing)
    }

    /// A packet came. Panics when it is none that a server may send.
    pub fn receive(&mut self, packet: &[u8], now: Duration) {
        let Ok(Received::Segment(segment)) = Segment::parse(packet) else { panic!("no sound segment: {packet:02x?}") };
        assert_eq!((segment.source, segment.destination), (self.server, self.client), "it is for somebody else");
        if segment.has(flag::RST) {
            return self.hear_reset(&segment, now);
        }
        self.heard_at = now;
        if let Some((value, _)) = segment.timestamps() {
            assert!(self.has_timestamps, "timestamps that nobody offered");
            let is_old = (value.wrapping_sub(self.last_value) as i32) < 0 && self.server_isn.is_some();
            if is_old {
                // PAWS; a network may reorder.
                return self.acknowledge(now);
            }
            self.last_value = value;
        }
        if segment.has(flag::SYN) {
            if self.server_isn.is_none() {
                if segment.ack != self.isn.wrapping_add(1) {
                    self.complaint = Some(format!("a SYN-ACK acknowledges {}, and the SYN was {}", segment.ack, self.isn));
                    return;
                }
                let mss =
                    segment.options.iter().find_map(|option| if let TcpOption::Mss(mss) = option { Some(*mss) } else { None });
                self.mss = self.mss.min(mss.unwrap_or(536));
                self.again_after = AGAIN;
                self.server_isn = Some(segment.seq);
                self.has_timestamps &= segment.timestamps().is_some();
                self.has_sack &= segment.options.contains(&TcpOption::SackPermitted);
                if !self.random.one_in(3) {
                    self.acknowledge(now);
                }
                self.again_at = now + Duration::from_millis(self.random.below(30));
            } else {
                self.acknowledge(now);
            }
            return;
        }
        let Some(server_isn) = self.server_isn else { return };
        let acknowledged = segment.ack.wrapping_sub(self.isn.wrapping_add(1));
        let said = self.request.len() as u32 + u32::from(self.sends_fin);
        if acknowledged > said {
            self.complaint = Some(format!("{acknowledged} octets are acknowledged, and {said} were said"));
        }
        if acknowledged > self.acknowledged && acknowledged <= said {
            self.acknowledged = acknowledged;
            self.again_after = AGAIN;
        }
        self.talk_after_fin(now);
        self.hear(&segment, segment.seq.wrapping_sub(server_isn.wrapping_add(1)), now);
        let has_all = self.server_end.is_some_and(|end| end == self.received.len() as u32);
        if has_all && self.acknowledged == said && self.sends_fin && self.over_at.is_none() {
            self.over_at = Some(now + TIME_WAIT);
        }
    }

    /// RFC 5961, section 3.2.
    fn hear_reset(&mut self, segment: &Segment, now: Duration) {
        let Some(server_isn) = self.server_isn else {
            self.was_reset |= segment.ack == self.isn.wrapping_add(1);
            return;
        };
        let has_end = self.server_end.is_some_and(|end| end == self.received.len() as u32);
        let next = server_isn.wrapping_add(1 + self.received.len() as u32 + u32::from(has_end));
        if self.over_at.is_some() {
            // TIME-WAIT is not assassinated (RFC 1337).
        } else if segment.seq == next {
            self.was_reset = true;
        } else if segment.seq.wrapping_sub(next) < u32::from(WINDOW) {
            self.acknowledge(now);
        }
    }

    /// Octets behind its own FIN, which nobody may take for a part of the request (RFC 9293, section 3.10.7.4, seventh).
    fn talk_after_fin(&mut self, now: Duration) {
        let end = self.request.len() as u32 + 1;
        if self.after_fin_left > 0 && self.sends_fin && self.acknowledged == end && self.over_at.is_none() {
            self.after_fin_left -= 1;
            self.oddities.after_fin += 1;
            let octets = vec![b'!'; 1 + self.random.below(200) as usize];
            self.send(end, &octets, flag::ACK | flag::PSH, 0, now);
        }
    }

    fn hear(&mut self, segment: &Segment, at: u32, now: Duration) {
        let has_octets = !segment.payload.is_empty();
        if has_octets || segment.has(flag::FIN) {
            if !self.lost.contains(&at) && self.random.one_in(self.loses_one_in) {
                self.lost.push(at);
                self.oddities.holes += 1;
                self.trace.push(format!("loses {at}"));
                return;
            }
            self.take(at, &segment.payload);
            if segment.has(flag::FIN) {
                self.server_end = Some(at + segment.payload.len() as u32);
            }
            let has_all = self.server_end.is_some_and(|end| end == self.received.len() as u32);
            if has_all && !self.sends_fin {
                self.sends_fin = true;
                if self.closing == Closing::Crossing {
                    self.oddities.simultaneous_closes += 1;
                    // The FIN leaves as if the server's had not come yet.
                    self.send(self.request.len() as u32, &[], flag::FIN | flag::ACK, 1, now);
                    self.again_at = now + AGAIN;
                    return;
                }
                self.say(now);
            }
            self.acknowledge(now);
        }
    }

    fn take(&mut self, at: u32, octets: &[u8]) {
        let have = self.received.len() as u32;
        if at > have {
            if !octets.is_empty() {
                self.beyond.insert(at, octets.to_vec());
                self.latest = Some(at);
            }
            return;
        }
        if let Some(fresh) = octets.get((have - at) as usize..) {
            self.received.extend_from_slice(fresh);
        }
        let had_holes = !self.beyond.is_empty();
        while let Some(entry) = self.beyond.first_entry().filter(|entry| *entry.key() <= self.received.len() as u32) {
            let (at, octets) = entry.remove_entry();
            let have = self.received.len();
            if let Some(fresh) = octets.get(have - at as usize..) {
                self.received.extend_from_slice(fresh);
            }
        }
        if had_holes && self.beyond.is_empty() && std::mem::take(&mut self.has_sacked) {
            self.oddities.recoveries += 1;
        }
    }

    fn connect(&mut self, now: Duration) {
        let mut options = vec![TcpOption::Mss(self.mss)];
        if self.has_sack {
            options.push(TcpOption::SackPermitted);
        }
        if self.has_timestamps {
            options.push(TcpOption::Timestamps(self.clock(now), 0));
        }
        let syn = Segment { seq: self.isn, flags: flag::SYN, options, ..self.segment() };
        self.outgoing.push(syn.build());
    }

    /// What is not acknowledged yet, cut, repeated and shuffled.
    fn say(&mut self, now: Duration) {
        let length = self.request.len() as u32;
        let from = self.acknowledged.min(length);
        let mut pieces = Vec::new();
        let mut at = from;
        while at < length {
            let end = length.min(
                at + 1
                    + self.random.below(
                        [1, 7, 100, u64::from(self.mss).saturating_sub(OVERLAP_MAX + OPTIONS_MAX).max(1)]
                            [self.random.clone().below(4) as usize],
                    ) as u32,
            );
            // Begins before its place now and then.
            let overlap = if self.random.one_in(3) { self.random.below(OVERLAP_MAX) as u32 } else { 0 };
            self.oddities.overlaps += u64::from(overlap > 0 && at > 0);
            self.oddities.small_pieces += u64::from(end - at < 100);
            pieces.push((at.saturating_sub(overlap), end));
            if self.random.one_in(4) {
                self.oddities.repeats += 1;
                pieces.push((at, end));
            }
            at = end;
        }
        self.oddities.pieces += pieces.len() as u64;
        if self.random.one_in(2) {
            self.oddities.shuffles += u64::from(pieces.len() > 1);
            for index in (1..pieces.len()).rev() {
                pieces.swap(index, self.random.below(index as u64 + 1) as usize);
            }
        }
        let mut has_ended = false;
        for (at, end) in pieces {
            let mut flags = flag::ACK;
            if self.random.one_in(2) {
                flags |= flag::PSH;
            }
            if self.says_urgent && self.random.one_in(6) {
                self.said_urgent = true;
                self.oddities.urgent += 1;
                flags |= flag::URG;
            }
            if end == length && self.sends_fin {
                flags |= flag::FIN;
                has_ended = true;
            }
            let octets = self.request[at as usize..end as usize].to_vec();
            self.send(at, &octets, flags, 0, now);
        }
        if self.closing == Closing::WithRequest {
            self.oddities.half_closes = 1;
        }
        if self.sends_fin && !has_ended {
            self.send(length, &[], flag::ACK | flag::FIN, 0, now);
        }
    }

    fn acknowledge(&mut self, now: Duration) {
        let at = self.request.len().min(self.acknowledged as usize) as u32;
        let at = if self.sends_fin && self.acknowledged as usize > self.request.len() { at + 1 } else { at };
        self.send(at, &[], flag::ACK, 0, now);
    }

    /// `behind`: how much less than all is acknowledged.
    fn send(&mut self, at: u32, octets: &[u8], flags: u8, behind: u32, now: Duration) {
        let Some(server_isn) = self.server_isn else { return };
        let has_end = self.server_end.is_some_and(|end| end == self.received.len() as u32);
        let have = self.received.len() as u32 + u32::from(has_end) - behind.min(u32::from(has_end));
        if self.closes_window && self.opens_at.is_none() && !has_end && self.random.one_in(40) {
            self.opens_at = Some(now + CLOSED_WINDOW);
            self.oddities.closed_windows += 1;
            self.trace.push("closes its window".to_owned());
        }
        let mut options = Vec::new();
        if self.has_timestamps {
            options.extend([TcpOption::Nop, TcpOption::Nop, TcpOption::Timestamps(self.clock(now), self.last_value)]);
        }
        if self.has_sack && !self.beyond.is_empty() {
            options.extend([TcpOption::Nop, TcpOption::Nop, TcpOption::Sack(self.blocks(server_isn))]);
            self.oddities.sacks += 1;
            self.has_sacked = true;
        }
        // What is on its way is read all the same.
        let window = if self.opens_at.is_some() { 0 } else { WINDOW };
        let segment = Segment {
            seq: self.isn.wrapping_add(1).wrapping_add(at),
            ack: server_isn.wrapping_add(1).wrapping_add(have),
            flags,
            window,
            urgent: if flags & flag::URG != 0 { octets.len() as u16 } else { 0 },
            options,
            payload: octets.to_vec(),
            ..self.segment()
        };
        self.outgoing.push(segment.build());
    }

    /// The latest first, at most three.
    fn blocks(&self, server_isn: u32) -> Vec<(u32, u32)> {
        let mut joined: Vec<(u32, u32)> = Vec::new();
        for (at, octets) in &self.beyond {
            let end = at + octets.len() as u32;
            match joined.last_mut() {
                Some(last) if last.1 >= *at => last.1 = last.1.max(end),
                _ => joined.push((*at, end)),
            }
        }
        let latest = self.latest.unwrap_or_default();
        joined.sort_by_key(|(left, right)| !(*left <= latest && latest < *right));
        let raw = |edge: u32| edge.wrapping_add(server_isn).wrapping_add(1);
        joined.into_iter().take(3).map(|(left, right)| (raw(left), raw(right))).collect()
    }

    fn clock(&self, now: Duration) -> u32 {
        // Wraps soon.
        0xffff_ff00_u32.wrapping_add(now.as_millis() as u32)
    }

    fn segment(&self) -> Segment {
        Segment {
            source: self.client,
            destination: self.server,
            seq: 0,
            ack: 0,
            flags: 0,
            reserved: 0,
            window: WINDOW,
            urgent: 0,
            options: Vec::new(),
            payload: Vec::new(),
            ecn: 0,
        }
    }
}
