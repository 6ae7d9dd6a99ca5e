//! One packet: `[ce] P. 1:27(26) ack 1 win 257 urg 3 <nop,nop,TS val 100 ecr 0> payload "..."`.

use super::{Event, OptionSpec, Options, Packet};
use crate::segment::flag;

/// What is still to be read.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn skip(&mut self) {
        self.0 = self.0.trim_start();
    }

    fn eat(&mut self, what: &str) -> bool {
        self.skip();
        let rest = self.0.strip_prefix(what);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn expect(&mut self, what: &str) -> Result<(), String> {
        if self.eat(what) { Ok(()) } else { Err(format!("expected '{what}' at '{}'", self.0)) }
    }

    /// As far as `is` goes.
    fn take(&mut self, is: impl Fn(char) -> bool) -> &'a str {
        self.skip();
        let end = self.0.find(|c| !is(c)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn number<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, String> {
        let at = self.0;
        self.take(|c| c.is_ascii_digit()).parse().map_err(|_| format!("expected {what} at '{}'", at.trim()))
    }

    /// A number, or `...` for any.
    fn number_or_any<T: std::str::FromStr>(&mut self, what: &str) -> Result<Option<T>, String> {
        if self.eat("...") { Ok(None) } else { self.number(what).map(Some) }
    }

    fn word(&mut self) -> &'a str {
        self.take(|c| c.is_ascii_alphanumeric())
    }
}

/// What stands after `<` or `>`.
pub fn packet(text: &str) -> Result<Packet, String> {
    let mut rest = Rest(text);
    let ecn = if rest.eat("[") {
        let word = rest.word();
        rest.expect("]")?;
        Some(match word {
            "noecn" => 0,
            "ect1" => 1,
            "ect0" => 2,
            "ce" => 3,
            _ => return Err(format!("'[{word}]': there are noecn, ect0, ect1 and ce")),
        })
    } else {
        None
    };
    let mut flags = if rest.eat("...") { None } else { Some(read_flags(&mut rest)?) };
    let (seq, length) = range(&mut rest)?;
    let ack = if rest.eat("ack") { Some(rest.number("a number after 'ack'")?) } else { None };
    match (&mut flags, ack) {
        (Some(flags), Some(_)) if *flags & flag::ACK == 0 => return Err("'ack' without the flag '.'".to_owned()),
        (Some(flags), None) if *flags & flag::ACK != 0 => return Err("the flag '.' without 'ack'".to_owned()),
        _ => {}
    }
    let window = if rest.eat("win") { rest.number_or_any("a number after 'win'")? } else { None };
    let urgent = if rest.eat("urg") { Some(rest.number("a number after 'urg'")?) } else { None };
    let options = if rest.eat("<...>") {
        Options::Any
    } else if rest.eat("<") {
        Options::These(read_options(&mut rest)?)
    } else {
        Options::Usual
    };
    let payload = if rest.eat("payload") {
        let quoted = rest.0.trim().strip_prefix('"').and_then(|quoted| quoted.strip_suffix('"'));
        let octets = quoted.ok_or("expected a payload in quotes")?.replace("\\r", "\r").replace("\\n", "\n").into_bytes();
        rest.0 = "";
        if octets.len() != length as usize {
            return Err(format!("a payload of {} octets in a packet that has {length}", octets.len()));
        }
        Some(octets)
    } else {
        None
    };
    rest.skip();
    if !rest.0.is_empty() {
        return Err(format!("'{}' after the packet; the order is: flags, numbers, ack, win, urg, <options>, payload", rest.0));
    }
    Ok(Packet { ecn, flags, seq, length, ack, window, urgent, options, payload })
}

/// ` [1:1001(1000)] icmp unreachable frag_needed mtu 1200`; over IPv6 this is packet too big.
pub fn too_big(text: &str) -> Result<Event, String> {
    let mut rest = Rest(text);
    rest.expect("[")?;
    let (seq, _) = range(&mut rest)?;
    rest.expect("]")?;
    rest.expect("icmp")?;
    rest.expect("unreachable")?;
    rest.expect("frag_needed")?;
    rest.expect("mtu")?;
    let mtu = rest.number("a number after 'mtu'")?;
    rest.skip();
    if rest.0.is_empty() { Ok(Event::SendTooBig { seq, mtu }) } else { Err(format!("'{}' after the error", rest.0)) }
}

fn read_flags(rest: &mut Rest<'_>) -> Result<u8, String> {
    let word = rest.take(|c| !c.is_whitespace());
    let mut flags = 0;
    for letter in word.chars() {
        flags |= match letter {
            'S' => flag::SYN,
            'F' => flag::FIN,
            'R' => flag::RST,
            'P' => flag::PSH,
            '.' => flag::ACK,
            'U' => flag::URG,
            'E' => flag::ECE,
            'W' => flag::CWR,
            other => return Err(format!("'{other}' in the flags '{word}': there are S, F, R, P, '.', U, E and W")),
        };
    }
    Ok(flags)
}

/// `1:1001(1000)`: seq and length; SYN and FIN do not count.
fn range(rest: &mut Rest<'_>) -> Result<(u32, u32), String> {
    let seq: u32 = rest.number("a sequence number")?;
    rest.expect(":")?;
    let end: u32 = rest.number("a sequence number after ':'")?;
    rest.expect("(")?;
    let length: u32 = rest.number("a length in parentheses")?;
    rest.expect(")")?;
    if end.wrapping_sub(seq) != length {
        return Err(format!("{seq}:{end} is {} octets long, and not {length}", end.wrapping_sub(seq)));
    }
    Ok((seq, length))
}

fn read_options(rest: &mut Rest<'_>) -> Result<Vec<OptionSpec>, String> {
    let mut options = Vec::new();
    loop {
        let at = rest.0.trim();
        options.push(match rest.word() {
            "nop" => OptionSpec::Nop,
            "eol" => OptionSpec::End,
            "mss" => OptionSpec::Mss(rest.number_or_any("a number after 'mss'")?),
            "wscale" => OptionSpec::WindowScale(rest.number_or_any("a number after 'wscale'")?),
            "sackOK" => OptionSpec::SackPermitted,
            "sack" => {
                let mut blocks = Vec::new();
                while rest.0.trim_start().starts_with(|c: char| c.is_ascii_digit()) {
                    let left = rest.number("the left edge of a block")?;
                    rest.expect(":")?;
                    blocks.push((left, rest.number("the right edge of a block")?));
                }
                if blocks.is_empty() || blocks.len() > 4 {
                    return Err(format!("{} blocks in a SACK option, which has 1 to 4", blocks.len()));
                }
                OptionSpec::Sack(blocks)
            }
            "TS" => {
                rest.expect("val")?;
                let value = rest.number_or_any("a number or '...' after 'val'")?;
                rest.expect("ecr")?;
                OptionSpec::Timestamps(value, rest.number_or_any("a number or '...' after 'ecr'")?)
            }
            "kind" => {
                let kind = rest.number("a number after 'kind'")?;
                let octets = if rest.eat("0x") { octets(rest.word())? } else { Vec::new() };
                OptionSpec::Other(kind, octets)
            }
            _ => return Err(format!("'{at}': there are nop, eol, mss, wscale, sackOK, sack, TS and kind")),
        });
        if rest.eat(">") {
            return Ok(options);
        }
        rest.expect(",")?;
    }
}

fn octets(digits: &str) -> Result<Vec<u8>, String> {
    if !digits.len().is_multiple_of(2) {
        return Err(format!("'0x{digits}' has half an octet"));
    }
    let octet = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| format!("'0x{digits}' is not hexadecimal"));
    (0..digits.len()).step_by(2).map(octet).collect()
}
