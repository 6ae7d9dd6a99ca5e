//! What every segment of a server must hold, whatever the script says: checks without being asked.
//!
//! Knows what both ends have promised and said so far. Must not know scripts.

use crate::segment::{Segment, TcpOption, flag};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A clock of milliseconds may seem to run ahead, when the first packet was late.
const CLOCK_AHEAD: u32 = 500;
/// Or behind, when the packet was late.
const CLOCK_BEHIND: u32 = 500;

/// What was said so far.
#[derive(Clone, Debug)]
pub struct Judge {
    client: SocketAddr,
    server: SocketAddr,
    /// Octets the server's application writes.
    answer: Arc<[u8]>,
    /// Of the client's SYN, as last sent.
    pub syn: Option<Segment>,
    /// Of the server, as first received.
    pub syn_ack: Option<Segment>,
    /// The client's timestamps.
    values_sent: BTreeSet<u32>,
    /// The furthest number the client has used, relative.
    sent_to: u32,
    /// The furthest edge of any window the client has shown, relative to the server's ISN.
    window_edge: u32,
    /// The furthest acknowledgement of the server, relative.
    pub acknowledged: u32,
    /// The furthest edge of the server's windows, relative to the client's ISN.
    server_window_edge: u32,
    /// The server's last TSval.
    pub last_value: Option<u32>,
    /// Its first one, and when that came.
    first_value: Option<(u32, Duration)>,
    /// Where the server's FIN is, relative.
    end: Option<u32>,
    /// The furthest payload of the server, relative.
    received_to: u32,
}

fn option<T>(segment: Option<&Segment>, of: impl Fn(&TcpOption) -> Option<T>) -> Option<T> {
    segment?.options.iter().find_map(of)
}

fn scale_of(option: &TcpOption) -> Option<u8> {
    if let TcpOption::WindowScale(shift) = option { Some(*shift) } else { None }
}

fn permits_sack(option: &TcpOption) -> Option<()> {
    matches!(option, TcpOption::SackPermitted).then_some(())
}

/// Whether `a` is behind `b` in sequence space.
fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

impl Judge {
    /// Of a connection between these, whose server says this.
    pub fn new(client: SocketAddr, server: SocketAddr, answer: Arc<[u8]>) -> Self {
        Self {
            client,
            server,
            answer,
            syn: None,
            syn_ack: None,
            values_sent: BTreeSet::new(),
            sent_to: 0,
            window_edge: 0,
            acknowledged: 0,
            server_window_edge: 0,
            last_value: None,
            first_value: None,
            end: None,
            received_to: 0,
        }
    }

    /// The client's ISN.
    pub fn isn(&self) -> u32 {
        self.syn.as_ref().map_or(0, |syn| syn.seq)
    }

    /// The server's.
    pub fn server_isn(&self) -> u32 {
        self.syn_ack.as_ref().map_or(0, |syn_ack| syn_ack.seq)
    }

    /// Whether both have sent timestamps with their SYN (RFC 7323, section 3.2).
    pub fn has_timestamps(&self) -> bool {
        let has = |segment: &Option<Segment>| segment.as_ref().is_some_and(|segment| segment.timestamps().is_some());
        has(&self.syn) && has(&self.syn_ack)
    }

    fn has_sack(&self) -> bool {
        option(self.syn.as_ref(), permits_sack).is_some() && option(self.syn_ack.as_ref(), permits_sack).is_some()
    }

    /// Both scales count only if both were sent (RFC 7323, section 2.2).
    fn scales(&self) -> (u8, u8) {
        let (own, theirs) = (option(self.syn.as_ref(), scale_of), option(self.syn_ack.as_ref(), scale_of));
        own.zip(theirs).unwrap_or((0, 0))
    }

    /// RFC 3168, section 6.1.1.
    fn has_ecn(&self) -> bool {
        let both = flag::ECE | flag::CWR;
        self.syn.as_ref().is_some_and(|syn| syn.flags & both == both)
            && self.syn_ack.as_ref().is_some_and(|syn_ack| syn_ack.flags & both == flag::ECE)
    }

    /// What the client is about to send.
    pub fn sends(&mut self, segment: &Segment) {
        if segment.has(flag::SYN) && self.syn_ack.is_none() {
            self.syn = Some(segment.clone());
        }
        if let Some((value, _)) = segment.timestamps() {
            self.values_sent.insert(value);
        }
        let end = segment.seq.wrapping_sub(self.isn()).wrapping_add(segment.length());
        if before(self.sent_to, end) && !segment.has(flag::RST) {
            self.sent_to = end;
        }
        if segment.has(flag::ACK) && self.syn_ack.is_some() && !segment.has(flag::RST | flag::SYN) {
            let window = u32::from(segment.window) << self.scales().0;
            let edge = segment.ack.wrapping_sub(self.server_isn()).wrapping_add(window);
            if before(self.window_edge, edge) {
                self.window_edge = edge;
            }
        }
    }

    /// # Errors
    ///
    /// What no server may do.
    pub fn receives(&mut self, segment: &Segment, now: Duration) -> Result<(), String> {
        if (segment.source, segment.destination) != (self.server, self.client) {
            return Err(format!(
                "from {} to {}, and not from {} to {}",
                segment.source, segment.destination, self.server, self.client
            ));
        }
        if segment.reserved != 0 {
            return Err(format!("reserved bits {:#06b} (RFC 9293, section 3.1)", segment.reserved));
        }
        if self.syn.is_none() {
            return Err("a packet before the SYN".to_owned());
        }
        if segment.has(flag::SYN) {
            self.syn_ack(segment)?;
        } else {
            self.other_options(segment)?;
        }
        self.ecn(segment)?;
        if segment.has(flag::RST) {
            return Ok(());
        }
        self.clock(segment, now)?;
        self.acknowledgement(segment)?;
        self.payload(segment)
    }

    fn syn_ack(&mut self, segment: &Segment) -> Result<(), String> {
        let syn = self.syn.as_ref();
        if !segment.has(flag::ACK) || segment.ack != self.isn().wrapping_add(1) {
            return Err("a SYN that does not acknowledge exactly ours (RFC 9293, section 3.10.7.3)".to_owned());
        }
        for one in &segment.options {
            let (what, is_offered) = match one {
                TcpOption::SackPermitted => ("SACK-permitted", option(syn, permits_sack).is_some()),
                TcpOption::WindowScale(_) => ("window scale", option(syn, scale_of).is_some()),
                TcpOption::Timestamps(..) => ("timestamps", syn.is_some_and(|syn| syn.timestamps().is_some())),
                TcpOption::Mss(_) | TcpOption::Nop | TcpOption::End => ("", true),
                TcpOption::Sack(_) | TcpOption::Other(..) => ("an option that was not offered", false),
            };
            if !is_offered {
                return Err(format!("the SYN-ACK has {what}, the SYN had not"));
            }
        }
        match &self.syn_ack {
            None => {
                self.syn_ack = Some(segment.clone());
                // The window of a SYN is not scaled (RFC 7323, section 2.2).
                self.window_edge = syn.map_or(0, |syn| u32::from(syn.window)) + 1;
                self.received_to = 1;
            }
            Some(first) if first.seq != segment.seq => return Err("another SYN-ACK with another ISN".to_owned()),
            Some(_) => {}
        }
        Ok(())
    }

    fn other_options(&self, segment: &Segment) -> Result<(), String> {
        for one in &segment.options {
            match one {
                TcpOption::Nop | TcpOption::End => {}
                TcpOption::Timestamps(..) if self.has_timestamps() => {}
                TcpOption::Sack(blocks) if self.has_sack() => {
                    for (left, right) in blocks {
                        let (left, right) = (left.wrapping_sub(self.isn()), right.wrapping_sub(self.isn()));
                        if !before(left, right) || before(self.sent_to, right) || left == 0 {
                            return Err(format!(
                                "SACK {left}:{right}, and the client has sent 1:{} (RFC 2018, section 4)",
                                self.sent_to
                            ));
                        }
                    }
                }
                other => return Err(format!("the option {other:?}, which nobody has agreed on")),
            }
        }
        // RFC 7323, section 3.2: in every segment but a RST.
        if self.has_timestamps() && segment.timestamps().is_none() && !segment.has(flag::RST) {
            return Err("no timestamps, which were agreed on (RFC 7323, section 3.2)".to_owned());
        }
        let room = option(self.syn.as_ref(), |one| if let TcpOption::Mss(octets) = one { Some(*octets) } else { None });
        let options: usize = segment
            .options
            .iter()
            .map(|one| match one {
                TcpOption::Timestamps(..) => 12,
                TcpOption::Sack(blocks) => 4 + 8 * blocks.len(),
                _ => 0,
            })
            .sum();
        // Without the option 536, or what fits 1280 octets of IPv6 (RFC 9293, section 3.7.1). Linux sends no less than 48
        // octets at a time, options included: smaller ones are a way to exhaust it (CVE-2019-11479).
        let room = usize::from(room.unwrap_or(if self.client.is_ipv4() { 536 } else { 1_220 }).max(48));
        if segment.payload.len() + options > room {
            return Err(format!(
                "{} octets of payload and {options} of options; the client's MSS is {room}",
                segment.payload.len()
            ));
        }
        Ok(())
    }

    fn ecn(&self, segment: &Segment) -> Result<(), String> {
        if segment.has(flag::SYN) {
            let asked = self.syn.as_ref().is_some_and(|syn| syn.has(flag::ECE) && syn.has(flag::CWR));
            if segment.has(flag::CWR) || (segment.has(flag::ECE) && !asked) || segment.ecn != 0 {
                return Err("ECN in a SYN-ACK that was not asked for it, or marked itself (RFC 3168, section 6.1.1)".to_owned());
            }
        } else if !self.has_ecn() && (segment.ecn != 0 || segment.has(flag::ECE | flag::CWR)) {
            return Err("ECN on a connection without it".to_owned());
        } else if segment.ecn != 0 && segment.payload.is_empty() {
            return Err("ECT on a packet without payload (RFC 3168, section 6.1.4)".to_owned());
        }
        Ok(())
    }

    fn clock(&mut self, segment: &Segment, now: Duration) -> Result<(), String> {
        let Some((value, echo)) = segment.timestamps() else { return Ok(()) };
        if !self.values_sent.contains(&echo) {
            return Err(format!("TSecr {echo} echoes what the client never sent"));
        }
        if let Some(last) = self.last_value
            && before(value, last)
        {
            return Err(format!("TSval {value} after {last}: a client discards that (RFC 7323, section 5.2)"));
        }
        self.last_value = Some(value);
        let (first, since) = *self.first_value.get_or_insert((value, now));
        let ticked = value.wrapping_sub(first);
        let passed = now.saturating_sub(since).as_millis() as u32;
        if ticked > passed + CLOCK_AHEAD || ticked + CLOCK_BEHIND < passed {
            return Err(format!("TSval went on by {ticked} in {passed} ms"));
        }
        Ok(())
    }

    fn acknowledgement(&mut self, segment: &Segment) -> Result<(), String> {
        if !segment.has(flag::ACK) {
            return Err("neither ACK nor RST (RFC 9293, section 3.10.7.4)".to_owned());
        }
        let ack = segment.ack.wrapping_sub(self.isn());
        if before(self.sent_to, ack) {
            return Err(format!("acknowledges {ack}, and the client has sent up to {}", self.sent_to));
        }
        if before(ack, self.acknowledged) {
            return Err(format!("acknowledges {ack} after {}", self.acknowledged));
        }
        self.acknowledged = ack;
        let scale = if segment.has(flag::SYN) { 0 } else { self.scales().1 };
        let edge = ack.wrapping_add(u32::from(segment.window) << scale);
        // RFC 9293, section 3.8.6: a window should not shrink; it is told in units of its scale.
        if before(edge.wrapping_add(1 << scale), self.server_window_edge) {
            return Err(format!("the window ends at {edge} and ended at {} before", self.server_window_edge));
        }
        if before(self.server_window_edge, edge) {
            self.server_window_edge = edge;
        }
        Ok(())
    }

    fn payload(&mut self, segment: &Segment) -> Result<(), String> {
        let seq = segment.seq.wrapping_sub(self.server_isn());
        let end = seq.wrapping_add(segment.payload.len() as u32);
        if !segment.payload.is_empty() {
            if before(self.window_edge, end) {
                return Err(format!("octets up to {end}, and the client's window ends at {}", self.window_edge));
            }
            let said = seq.checked_sub(1).and_then(|from| self.answer.get(from as usize..end as usize - 1));
            if said != Some(segment.payload.as_slice()) {
                return Err(format!("the octets {seq}:{end} are not those that the application wrote"));
            }
            if before(self.received_to, end) {
                self.received_to = end;
            }
        }
        if segment.has(flag::FIN) && *self.end.get_or_insert(end) != end {
            return Err(format!("a FIN at {end}, and one at {} before", self.end.unwrap_or_default()));
        }
        if let Some(fin) = self.end
            && before(fin, self.received_to)
        {
            return Err(format!("octets up to {}, and the FIN is at {fin}", self.received_to));
        }
        Ok(())
    }
}
