//! From what a script says to a segment.

use super::Peer;
use crate::notation::{OptionSpec, Options, Packet};
use crate::segment::{Segment, TcpOption, flag};
use std::time::Duration;

impl Peer {
    /// With the usual options and nothing said.
    pub(super) fn segment(&self, flags: u8, now: Duration) -> Segment {
        let mut options = Vec::new();
        if self.judge.has_timestamps() {
            options.extend([TcpOption::Nop, TcpOption::Nop, self.timestamps(None, None, now)]);
        }
        Segment {
            source: self.setup.client,
            destination: self.setup.server,
            seq: self.judge.isn(),
            ack: self.judge.server_isn(),
            flags,
            reserved: 0,
            window: u16::MAX,
            urgent: 0,
            options,
            payload: Vec::new(),
            ecn: 0,
        }
    }

    pub(super) fn make(&mut self, packet: &Packet, now: Duration) -> Segment {
        let flags = packet.flags.unwrap_or(flag::ACK);
        let isn = match &self.judge.syn {
            Some(syn) => syn.seq,
            None => self.script.settings.isn.unwrap_or(self.setup.isn),
        };
        if flags & flag::SYN != 0 && self.clock.is_none() {
            self.clock = Some((said_value(packet).unwrap_or_default(), now));
        }
        let mut segment = self.segment(flags, now);
        segment.seq = isn.wrapping_add(packet.seq);
        segment.ack = packet.ack.map_or(0, |ack| self.judge.server_isn().wrapping_add(ack));
        segment.window = packet.window.unwrap_or(u16::MAX);
        segment.ecn = packet.ecn.unwrap_or_default();
        segment.urgent = packet.urgent.unwrap_or_default();
        if let Some(urgent) = packet.urgent
            && flags & flag::URG != 0
        {
            // The pointer points behind the urgent octet, whatever RFC 1122 wanted (RFC 6093, section 3.1); the stream
            // begins at 1.
            self.urgent = Some((packet.seq + u32::from(urgent)).saturating_sub(2));
        }
        segment.payload = packet.payload.clone().unwrap_or_else(|| self.said(packet.seq, packet.length));
        match &packet.options {
            Options::Usual if flags & flag::SYN != 0 => segment.options.clear(),
            Options::Usual | Options::Any => {}
            Options::These(options) => segment.options = options.iter().map(|option| self.option(option, now)).collect(),
        }
        segment
    }

    /// Octets of the client's stream, by their relative sequence number.
    fn said(&self, seq: u32, length: u32) -> Vec<u8> {
        (0..length).map(|at| self.octet(seq.wrapping_add(at).wrapping_sub(1))).collect()
    }

    fn option(&self, option: &OptionSpec, now: Duration) -> TcpOption {
        match option {
            OptionSpec::Nop => TcpOption::Nop,
            OptionSpec::End => TcpOption::End,
            OptionSpec::Mss(octets) => TcpOption::Mss(octets.unwrap_or(1_460)),
            OptionSpec::WindowScale(shift) => TcpOption::WindowScale(shift.unwrap_or(7)),
            OptionSpec::SackPermitted => TcpOption::SackPermitted,
            OptionSpec::Sack(blocks) => {
                let raw = |edge: &u32| edge.wrapping_add(self.judge.server_isn());
                TcpOption::Sack(blocks.iter().map(|(left, right)| (raw(left), raw(right))).collect())
            }
            OptionSpec::Timestamps(value, echo) => self.timestamps(*value, *echo, now),
            OptionSpec::Other(kind, octets) => TcpOption::Other(*kind, octets.clone()),
        }
    }

    /// What is not said is the peer's clock, and the last TSval that came.
    fn timestamps(&self, value: Option<u32>, echo: Option<u32>, now: Duration) -> TcpOption {
        let ticking = self.clock.map_or(0, |(first, since)| first.wrapping_add(now.saturating_sub(since).as_millis() as u32));
        let last = self.judge.last_value.unwrap_or_default();
        let echo = echo.map_or(last, |echo| self.server_clock.map_or(echo, |shift| echo.wrapping_add(shift)));
        TcpOption::Timestamps(value.unwrap_or(ticking), echo)
    }
}

fn said_value(packet: &Packet) -> Option<u32> {
    let Options::These(options) = &packet.options else { return None };
    options.iter().find_map(|option| if let OptionSpec::Timestamps(value, _) = option { *value } else { None })
}
