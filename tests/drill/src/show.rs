//! Segments in the notation of scripts, which is nearly that of tcpdump.

use crate::segment::{Segment, TcpOption, flag};
use std::fmt::Write as _;

/// The flags.
pub fn flags(flags: u8) -> String {
    let letters = [
        (flag::SYN, 'S'),
        (flag::FIN, 'F'),
        (flag::RST, 'R'),
        (flag::PSH, 'P'),
        (flag::URG, 'U'),
        (flag::ECE, 'E'),
        (flag::CWR, 'W'),
        (flag::ACK, '.'),
    ];
    letters.into_iter().filter(|(bit, _)| flags & bit != 0).map(|(_, letter)| letter).collect()
}

/// The two ECN bits.
pub fn ecn(bits: u8) -> &'static str {
    ["[noecn]", "[ect1]", "[ect0]", "[ce]"][usize::from(bits & 3)]
}

/// A segment; its sequence numbers relative to its sender's ISN, its acknowledgements to its receiver's.
pub fn segment(segment: &Segment, sender_isn: u32, receiver_isn: u32) -> String {
    let mut text = with_flags(segment, segment.flags, sender_isn, receiver_isn);
    let _ = write!(text, " win {}", segment.window);
    if segment.has(flag::URG) {
        let _ = write!(text, " urg {}", segment.urgent);
    }
    if !segment.options.is_empty() {
        let options: Vec<String> = segment.options.iter().map(|one| option(one, receiver_isn)).collect();
        let _ = write!(text, " <{}>", options.join(","));
    }
    text
}

/// What of a segment must be the same whoever serves: everything but times, windows and PSH. (Where a kernel cuts a long
/// write, and sets PSH, depends on how fast it thinks the path is.)
pub fn outline(segment: &Segment, sender_isn: u32, receiver_isn: u32) -> String {
    with_flags(segment, segment.flags & !flag::PSH, sender_isn, receiver_isn)
}

fn with_flags(segment: &Segment, shown: u8, sender_isn: u32, receiver_isn: u32) -> String {
    let mut text = String::new();
    if segment.ecn != 0 {
        let _ = write!(text, "{} ", ecn(segment.ecn));
    }
    let seq = segment.seq.wrapping_sub(sender_isn);
    let length = segment.payload.len() as u32;
    let _ = write!(text, "{} {seq}:{}({length})", flags(shown), seq.wrapping_add(length));
    if segment.has(flag::ACK) {
        let _ = write!(text, " ack {}", segment.ack.wrapping_sub(receiver_isn));
    }
    text
}

/// The SACK option of a segment, if it has one.
pub fn sack(segment: &Segment, receiver_isn: u32) -> String {
    let sack = segment.options.iter().find(|one| matches!(one, TcpOption::Sack(_)));
    sack.map(|one| option(one, receiver_isn)).unwrap_or_default()
}

fn option(one: &TcpOption, receiver_isn: u32) -> String {
    match one {
        TcpOption::Nop => "nop".to_owned(),
        TcpOption::End => "eol".to_owned(),
        TcpOption::Mss(octets) => format!("mss {octets}"),
        TcpOption::WindowScale(shift) => format!("wscale {shift}"),
        TcpOption::SackPermitted => "sackOK".to_owned(),
        TcpOption::Sack(blocks) => {
            let blocks: Vec<String> = blocks
                .iter()
                .map(|(left, right)| format!("{}:{}", left.wrapping_sub(receiver_isn), right.wrapping_sub(receiver_isn)))
                .collect();
            format!("sack {}", blocks.join(" "))
        }
        TcpOption::Timestamps(value, echo) => format!("TS val {value} ecr {echo}"),
        TcpOption::Other(kind, octets) => {
            format!("kind {kind} 0x{}", octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>())
        }
    }
}
