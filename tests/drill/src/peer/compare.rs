//! Whether a segment is the one that a script says.

use super::Peer;
use crate::notation::{OptionSpec, Options, Packet};
use crate::segment::{Segment, TcpOption, flag};
use crate::show;

/// A TSval that a script says may be off by so many milliseconds.
const CLOCK_TOLERANCE: i32 = 200;
/// What a script says for the MSS of a server's SYN-ACK; see `Setup::server_mss`.
const USUAL_MSS: u16 = 1_460;

impl Peer {
    /// Whether the packet of this line has come as a whole with this segment; false: more of it is to come. What a script
    /// calls one packet may come as several segments of full size, for a kernel may leave the cutting to a device.
    pub(super) fn compare(&mut self, said: &Packet, segment: &Segment) -> Result<bool, String> {
        let seq = segment.seq.wrapping_sub(self.judge.server_isn());
        let length = segment.payload.len() as u32;
        same("seq", said.seq.wrapping_add(self.come), seq)?;
        let left = said.length - self.come;
        let is_last = length == left;
        if length > left || (length < left && (length == 0 || !self.is_full(segment))) {
            return Err(format!("length: expected {left}, came {length}"));
        }
        if let Some(flags) = said.flags {
            let came = segment.flags;
            let fits = if is_last {
                // PSH may be set on any payload (RFC 9293, section 3.9.1.2), but where it is said it must be.
                came == flags || (came == flags | flag::PSH && length > 0)
            } else {
                came | flag::PSH == (flags | flag::PSH) & !flag::FIN
            };
            if !fits {
                return Err(format!("flags: expected {}, came {}", show::flags(flags), show::flags(came)));
            }
        }
        if let Some(ack) = said.ack {
            same("ack", ack, segment.ack.wrapping_sub(self.judge.isn()))?;
        }
        if let Some(window) = said.window {
            same("win", u32::from(window), u32::from(segment.window))?;
        }
        if let Some(urgent) = said.urgent {
            same("urg", u32::from(urgent), u32::from(segment.urgent))?;
        }
        if let Some(ecn) = said.ecn
            && ecn != segment.ecn
        {
            return Err(format!("ECN: expected {}, came {}", show::ecn(ecn), show::ecn(segment.ecn)));
        }
        self.compare_options(&said.options, segment)?;
        self.come += length;
        Ok(is_last)
    }

    fn is_full(&self, segment: &Segment) -> bool {
        let mss = self.judge.syn.as_ref().and_then(|syn| {
            syn.options.iter().find_map(|option| if let TcpOption::Mss(octets) = option { Some(*octets) } else { None })
        });
        let options = if segment.timestamps().is_some() { 12 } else { 0 };
        segment.payload.len() + options == usize::from(mss.unwrap_or(536))
    }

    fn compare_options(&mut self, said: &Options, segment: &Segment) -> Result<(), String> {
        let came = || segment.options.iter().filter(|option| !matches!(option, TcpOption::Nop | TcpOption::End));
        let said = match said {
            Options::Any => return Ok(()),
            Options::Usual => {
                // Whether timestamps are there is judged already.
                return match came().find(|option| !matches!(option, TcpOption::Timestamps(..))) {
                    Some(option) => Err(format!("options: {option:?}, and the line names none")),
                    None => Ok(()),
                };
            }
            Options::These(said) => said.iter().filter(|option| !matches!(option, OptionSpec::Nop | OptionSpec::End)),
        };
        let (said, came): (Vec<_>, Vec<_>) = (said.collect(), came().collect());
        if said.len() != came.len() {
            return Err(format!("options: expected {}, came {}", said.len(), came.len()));
        }
        for (said, came) in said.into_iter().zip(came) {
            self.compare_option(said, came, segment)?;
        }
        Ok(())
    }

    fn compare_option(&mut self, said: &OptionSpec, came: &TcpOption, segment: &Segment) -> Result<(), String> {
        match (said, came) {
            (OptionSpec::Mss(None), TcpOption::Mss(_))
            | (OptionSpec::WindowScale(None), TcpOption::WindowScale(_))
            | (OptionSpec::SackPermitted, TcpOption::SackPermitted) => Ok(()),
            (OptionSpec::Mss(Some(said)), TcpOption::Mss(came)) => {
                let is_usual = segment.has(flag::SYN) && *said == USUAL_MSS;
                same("mss", u32::from(if is_usual { self.setup.server_mss } else { *said }), u32::from(*came))
            }
            (OptionSpec::WindowScale(Some(said)), TcpOption::WindowScale(came)) => {
                same("wscale", u32::from(*said), u32::from(*came))
            }
            (OptionSpec::Sack(said), TcpOption::Sack(came)) => {
                let isn = self.judge.isn();
                let came: Vec<(u32, u32)> = came.iter().map(|(l, r)| (l.wrapping_sub(isn), r.wrapping_sub(isn))).collect();
                if *said == came { Ok(()) } else { Err(format!("sack: expected {said:?}, came {came:?}")) }
            }
            (OptionSpec::Timestamps(value, echo), TcpOption::Timestamps(came, came_echo)) => {
                if let Some(value) = value {
                    let shift = *self.server_clock.get_or_insert(came.wrapping_sub(*value));
                    let off = came.wrapping_sub(value.wrapping_add(shift)) as i32;
                    if off.abs() > CLOCK_TOLERANCE {
                        return Err(format!("TS val: expected {value}, came {}", came.wrapping_sub(shift)));
                    }
                }
                echo.map_or(Ok(()), |echo| same("TS ecr", echo, *came_echo))
            }
            (OptionSpec::Other(kind, octets), TcpOption::Other(came, came_octets)) if kind == came && octets == came_octets => {
                Ok(())
            }
            _ => Err(format!("options: expected {said:?}, came {came:?}")),
        }
    }
}

fn same(what: &str, expected: u32, came: u32) -> Result<(), String> {
    if expected == came { Ok(()) } else { Err(format!("{what}: expected {expected}, came {came}")) }
}
