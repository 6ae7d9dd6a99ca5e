//! The peer: goes through a script line by line.
//!
//! Knows one connection of one script. Must not know sockets or clocks: whoever drives it calls [`Peer::receive`] with
//! what came, [`Peer::answered`] with what the application said, and [`Peer::step`] until that says to wait.

mod compare;
mod make;

use crate::judge::Judge;
use crate::notation::{App, Event, Line, Packet, Script, Time};
use crate::segment::{Received, Segment, flag};
use crate::{show, stream};
use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// After the last line nothing may come for so long.
const QUIET_AT_THE_END: Duration = Duration::from_millis(60);
/// Packets in a report.
const TRACE_LINES_SHOWN: usize = 60;

/// One connection.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The client's end.
    pub client: SocketAddr,
    /// The server's.
    pub server: SocketAddr,
    /// Who sends ICMP errors.
    pub router: IpAddr,
    /// What the client's stream says.
    pub stream: Arc<[u8]>,
    /// What the server's stream says.
    pub answer: Arc<[u8]>,
    /// The MSS in the SYN-ACK, where a script says 1460: the one number that depends on the family and on who shakes hands.
    pub server_mss: u16,
    /// The client's initial sequence number, unless the script says one.
    pub isn: u32,
}

impl Setup {
    /// A sequence number that depends on a name; for some names it wraps within the first octets.
    pub fn isn_of(name: &str) -> u32 {
        let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, octet| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193));
        if hash.is_multiple_of(3) { 0u32.wrapping_sub(1 + hash % 5_000) } else { hash }
    }
}

/// What is to be done next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Send this packet.
    Send(Vec<u8>),
    /// Ask the application, and say what it answered.
    Ask(App),
    /// Come back then, or when something came.
    WaitUntil(Duration),
    /// The script is over.
    Done(Result<(), Box<Failure>>),
}

/// Why a script failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The script.
    pub file: String,
    /// The line that was being played.
    pub line: usize,
    /// In words.
    pub what: String,
    /// The line as it is written.
    pub expected: String,
    /// What came, if something came.
    pub got: Option<String>,
    /// What was sent and received, in order.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:{}: {}", self.file, self.line, self.what)?;
        writeln!(f, "    line     {}", self.expected)?;
        if let Some(got) = &self.got {
            writeln!(f, "    came     {got}")?;
        }
        let skipped = self.trace.len().saturating_sub(TRACE_LINES_SHOWN);
        if skipped > 0 {
            writeln!(f, "    ... {skipped} packets")?;
        }
        for line in &self.trace[skipped..] {
            writeln!(f, "    {line}")?;
        }
        Ok(())
    }
}

/// A segment that came and no line has asked for yet.
#[derive(Clone, Debug)]
struct Arrival {
    at: Duration,
    packet: Result<Segment, String>,
    raw: Vec<u8>,
}

/// One connection of one script.
#[derive(Clone, Debug)]
pub struct Peer {
    script: Arc<Script>,
    setup: Setup,
    judge: Judge,
    /// The line to be played.
    next: usize,
    /// When the line before it was over.
    since: Duration,
    arrivals: VecDeque<Arrival>,
    /// Every packet that came: what ICMP errors quote.
    quotable: Vec<(u32, Vec<u8>)>,
    /// How much of the expected payload of this line has come, in several segments.
    come: u32,
    /// The application was asked and has not answered.
    is_asking: bool,
    /// Octets the application has read.
    read: u32,
    /// The octets that are not in the stream: urgent ones that were taken out of it.
    urgent: Option<u32>,
    is_urgent_inline: bool,
    /// TSval of the SYN, and when it was sent: the peer's clock.
    clock: Option<(u32, Duration)>,
    /// What to add to a TSval as the script has it.
    server_clock: Option<u32>,
    broken: Option<Box<Failure>>,
    trace: Vec<String>,
    outline: Vec<String>,
    is_over: bool,
}

impl Peer {
    /// Before its first line, at time zero.
    pub fn new(script: Arc<Script>, setup: Setup) -> Self {
        let judge = Judge::new(setup.client, setup.server, setup.answer.clone());
        Self {
            script,
            setup,
            judge,
            next: 0,
            since: Duration::ZERO,
            arrivals: VecDeque::new(),
            quotable: Vec::new(),
            come: 0,
            is_asking: false,
            read: 0,
            urgent: None,
            is_urgent_inline: false,
            clock: None,
            server_clock: None,
            broken: None,
            trace: Vec::new(),
            outline: Vec::new(),
            is_over: false,
        }
    }

    /// Every packet, sent or received, one line each.
    pub fn trace(&self) -> &[String] {
        &self.trace
    }

    /// What of the packets that lines expected must be the same whoever serves.
    pub fn outline(&self) -> &[String] {
        &self.outline
    }

    /// A packet came.
    pub fn receive(&mut self, packet: &[u8], at: Duration) {
        let read = Segment::parse(packet).and_then(|received| match received {
            Received::Segment(segment) => Ok(segment),
            Received::Other(what) => Err(what),
        });
        let judged = match &read {
            Ok(segment) => {
                let judged = self.judge.receives(segment, at);
                let (sender, receiver) = (self.judge.server_isn(), self.judge.isn());
                self.note(at, '>', &show::segment(segment, sender, receiver));
                if !segment.payload.is_empty() {
                    self.quotable.push((segment.seq.wrapping_sub(sender), packet.to_vec()));
                }
                judged
            }
            Err(what) => {
                self.note(at, '>', what);
                Err(what.clone())
            }
        };
        if let Err(what) = judged
            && self.broken.is_none()
            && !self.is_over
        {
            self.broken = Some(self.failure(format!("no server may send this: {what}"), self.trace.last().cloned()));
        }
        self.arrivals.push_back(Arrival { at, packet: read, raw: packet.to_vec() });
    }

    /// The application has answered the last question: what `scripted_server.py` says.
    pub fn answered(&mut self, answer: &str, at: Duration) {
        assert!(std::mem::take(&mut self.is_asking), "nothing was asked");
        self.note(at, ' ', &format!("app: {}", answer.chars().take(60).collect::<String>()));
        let Some(line) = self.line() else { return };
        let Event::App(app) = line.event.clone() else { return };
        match self.is_answer(&app, answer) {
            Ok(()) => self.next += 1,
            Err(what) => self.broken = self.broken.take().or_else(|| Some(self.failure(what, None))),
        }
    }

    /// What is to be done now. To be called again until it says to wait or that it is over.
    pub fn step(&mut self, now: Duration) -> Step {
        if let Some(failure) = self.broken.clone() {
            self.is_over = true;
            return Step::Done(Err(failure));
        }
        if self.is_asking {
            return Step::WaitUntil(now + Duration::from_millis(10));
        }
        let Some(line) = self.line().cloned() else { return self.end(now) };
        let due = match line.time {
            Time::After(after) => self.since + after,
            Time::Between(from, _) => self.since + from,
            Time::Any => self.since,
        };
        match &line.event {
            Event::Expect(packet) => return self.expect(packet, &line, now),
            Event::Allow(packet) => return self.allow(packet, &line, now),
            Event::Silence => {
                if let Some(arrival) = self.arrivals.front() {
                    let got = self.show(arrival);
                    return self.fail("a packet where none was expected".to_owned(), Some(got));
                }
                if now < due {
                    return Step::WaitUntil(due);
                }
                self.since = due;
                self.next += 1;
                return self.step(now);
            }
            Event::Send(_) | Event::SendTooBig { .. } | Event::App(_) => {}
        }
        if now < due {
            return Step::WaitUntil(due);
        }
        self.since = now;
        match line.event {
            Event::Send(packet) => {
                self.next += 1;
                let segment = self.make(&packet, now);
                self.judge.sends(&segment);
                self.note(now, '<', &show::segment(&segment, self.judge.isn(), self.judge.server_isn()));
                Step::Send(segment.build())
            }
            Event::SendTooBig { seq, mtu } => {
                let Some((_, quoted)) = self.quotable.iter().rev().find(|(came, _)| *came == seq) else {
                    return self.fail(format!("no segment with seq {seq} has come that could be too big"), None);
                };
                let packet = crate::segment::too_big(self.setup.router, quoted, mtu);
                self.next += 1;
                self.note(now, '<', &format!("ICMP: {seq} is too big, {mtu} octets fit"));
                Step::Send(packet)
            }
            Event::App(app) => {
                self.is_asking = true;
                self.note(now, ' ', &line.text);
                Step::Ask(app)
            }
            _ => unreachable!("these were dealt with above"),
        }
    }

    /// A reset that ends what the script left: exactly where the server expects its next octet (RFC 5961, section 3.2).
    pub fn final_reset(&mut self, now: Duration) -> Option<Vec<u8>> {
        self.judge.syn_ack.as_ref()?;
        let mut segment = self.segment(flag::RST, now);
        segment.seq = self.judge.isn().wrapping_add(self.judge.acknowledged);
        segment.ack = 0;
        Some(segment.build())
    }

    fn line(&self) -> Option<&Line> {
        self.script.lines.get(self.next)
    }

    fn end(&mut self, now: Duration) -> Step {
        if let Some(arrival) = self.arrivals.front() {
            let got = self.show(arrival);
            return self.fail("a packet after the last line".to_owned(), Some(got));
        }
        let end = self.since + QUIET_AT_THE_END;
        if now < end {
            return Step::WaitUntil(end);
        }
        self.is_over = true;
        Step::Done(Ok(()))
    }

    fn expect(&mut self, packet: &Packet, line: &Line, now: Duration) -> Step {
        let (from, to) = self.span(line.time);
        let Some(arrival) = self.arrivals.front().cloned() else {
            return match to {
                Some(to) if now > to => self.fail(format!("nothing came in {:.3} s", (now - self.since).as_secs_f64()), None),
                Some(to) => Step::WaitUntil(to + Duration::from_millis(1)),
                None => Step::WaitUntil(now + Duration::from_secs(1)),
            };
        };
        let compared = match &arrival.packet {
            Ok(segment) => self.compare(packet, segment),
            Err(what) => Err(what.clone()),
        };
        let is_whole = match compared {
            Ok(is_whole) => is_whole,
            Err(what) => {
                let got = self.show(&arrival);
                return self.fail(what, Some(got));
            }
        };
        let after = |at: Duration| at.saturating_sub(self.since).as_secs_f64();
        if arrival.at < from || to.is_some_and(|to| arrival.at > to) {
            let when = if arrival.at < from { "early" } else { "late" };
            let what = format!("came too {when}: after {:.4} s", after(arrival.at));
            let got = self.show(&arrival);
            return self.fail(what, Some(got));
        }
        self.arrivals.pop_front();
        if let Ok(segment) = &arrival.packet {
            let (sender, receiver) = (self.judge.server_isn(), self.judge.isn());
            let sack = show::sack(segment, receiver);
            self.outline.push(format!("{} {sack}", show::outline(segment, sender, receiver)).trim_end().to_owned());
        }
        if is_whole {
            self.come = 0;
            self.next += 1;
            self.since = arrival.at;
        }
        self.step(now)
    }

    /// Takes the packet if it is the next one; goes on without it when another came, or none in time.
    fn allow(&mut self, packet: &Packet, line: &Line, now: Duration) -> Step {
        let (_, to) = self.span(line.time);
        match self.arrivals.front().cloned() {
            None if to.is_some_and(|to| now > to) => {}
            None => return Step::WaitUntil(to.unwrap_or(now) + Duration::from_millis(1)),
            Some(arrival) => {
                if let Ok(segment) = &arrival.packet
                    && self.compare(packet, segment) == Ok(true)
                {
                    self.arrivals.pop_front();
                    self.since = arrival.at;
                }
            }
        }
        self.come = 0;
        self.next += 1;
        self.step(now)
    }

    /// From when to when a packet may come.
    fn span(&self, time: Time) -> (Duration, Option<Duration>) {
        let settings = &self.script.settings;
        match time {
            Time::Any => (Duration::ZERO, None),
            Time::After(Duration::ZERO) => (Duration::ZERO, Some(self.since + settings.late)),
            Time::After(after) => ((self.since + after).saturating_sub(settings.early), Some(self.since + after + settings.late)),
            Time::Between(from, to) => (self.since + from, Some(self.since + to)),
        }
    }

    fn show(&self, arrival: &Arrival) -> String {
        let text = match &arrival.packet {
            Ok(segment) => show::segment(segment, self.judge.server_isn(), self.judge.isn()),
            Err(what) => format!("{what} ({} octets)", arrival.raw.len()),
        };
        format!("+{:.4} > {text}", arrival.at.saturating_sub(self.since).as_secs_f64())
    }

    fn fail(&mut self, what: String, got: Option<String>) -> Step {
        self.broken = Some(self.failure(what, got));
        self.step(Duration::ZERO)
    }

    fn failure(&self, what: String, got: Option<String>) -> Box<Failure> {
        let last = self.script.lines.last();
        let (line, expected) = match self.line() {
            Some(line) => (line.number, line.text.clone()),
            None => (last.map_or(0, |line| line.number), "(the end)".to_owned()),
        };
        Box::new(Failure { file: self.script.file.clone(), line, what, expected, got, trace: self.trace.clone() })
    }

    fn note(&mut self, at: Duration, direction: char, what: &str) {
        self.trace.push(format!("{:9.4} {direction} {what}", at.as_secs_f64()));
    }

    /// Whether the application's answer is what its line asks for.
    fn is_answer(&mut self, app: &App, answer: &str) -> Result<(), String> {
        let expected = match app {
            App::Read(octets) => return self.is_read(*octets, answer),
            App::ReadUrgent => {
                let at = self.urgent.ok_or("nothing urgent was sent")?;
                if !self.is_urgent_inline {
                    // From now on it is not in the stream.
                    format!("data {:02x}", self.octet(at))
                } else {
                    return Err("an urgent octet that is inline is read like the others".to_owned());
                }
            }
            App::ReadEnd => "eof".to_owned(),
            App::ReadNothing => "nothing".to_owned(),
            App::ReadError(error) | App::WriteError(error) => format!("error {error}"),
            App::State(state) => format!("state {state}"),
            App::Info(name, value) => format!("info {name} {value}"),
            App::Set(name, _) => {
                self.is_urgent_inline |= name == "oobinline";
                "ok".to_owned()
            }
            App::Write(_) | App::Shutdown(_) | App::Close | App::Reset => "ok".to_owned(),
        };
        if answer == expected { Ok(()) } else { Err(format!("the application says '{answer}', and not '{expected}'")) }
    }

    fn octet(&self, at: u32) -> u8 {
        self.setup.stream.get(at as usize).copied().unwrap_or_default()
    }

    fn is_read(&mut self, octets: u32, answer: &str) -> Result<(), String> {
        let Some(read) = answer.strip_prefix("data ") else {
            return Err(format!("the application says '{answer}', and not {octets} octets"));
        };
        let mut expected = String::new();
        for _ in 0..octets {
            if self.urgent == Some(self.read) && !self.is_urgent_inline {
                self.read += 1;
            }
            expected += &format!("{:02x}", self.octet(self.read));
            self.read += 1;
        }
        if read.len() != expected.len() {
            return Err(format!("the application read {} octets, and not {octets}", read.len() / 2));
        }
        match read.bytes().zip(expected.bytes()).position(|(one, other)| one != other) {
            None => Ok(()),
            Some(digit) => {
                Err(format!("the application read something else than was sent, from octet {} of these on", digit / 2))
            }
        }
    }
}

/// What the client says to be served by whoever serves this path.
pub fn request(path: &str) -> Arc<[u8]> {
    stream::of_client(path, 1 << 17).into()
}
