//! The eleventh: explicit congestion notification (RFC 3168) is between the client and the kernel that serves it. Nothing is
//! granted that was not asked for; what carries octets is ECN-capable if it was granted, and only then.

use super::super::ecn::bits;
use super::super::plan::Kind;
use super::{Facts, Rule, Seen};
use baton::flow::FlowKey;
use baton::rewrite::{Flags, Segment, ToClientWire};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Ecn {
    /// By flow: the ISN of each SYN that asked, and of each SYN-ACK whether it granted.
    asked: BTreeMap<FlowKey, Vec<u32>>,
    granted: BTreeMap<FlowKey, BTreeMap<u32, bool>>,
}

impl Rule for Ecn {
    fn name(&self) -> &'static str {
        "11 congestion marks"
    }

    fn see(&mut self, _: u64, seen: &Seen<'_>, facts: &Facts) -> Result<(), String> {
        let both = Flags::ECE.with(Flags::CWR);
        match seen {
            Seen::ClientSent { segment } if segment.flags().contains(Flags::SYN.with(both)) => {
                let flow = FlowKey { client: segment.source(), frontend: segment.destination() };
                self.asked.entry(flow).or_default().push(segment.seq().raw());
            }
            Seen::Left { packet, .. } => {
                let Ok(segment) = Segment::<_, ToClientWire>::parse(*packet) else { return Ok(()) };
                let flow = FlowKey { client: segment.destination(), frontend: segment.source() };
                let flags = segment.flags();
                if flags.contains(Flags::RST) {
                    return Ok(());
                }
                let grants = self.granted.entry(flow).or_default();
                if flags.contains(Flags::SYN) {
                    let is_granted = flags.contains(Flags::ECE);
                    let isn = segment.ack().raw().wrapping_sub(1);
                    let is_asked = self.asked.get(&flow).is_some_and(|asked| asked.contains(&isn));
                    grants.insert(segment.seq().raw(), is_granted);
                    // A damaged SYN asks for nothing of the sort: its checksum is wrong.
                    return if is_granted && !is_asked { Err(format!("ECN that nobody asked for: {segment}")) } else { Ok(()) };
                }
                let seq = segment.seq().raw();
                let nearest = grants.iter().min_by_key(|(isn, _)| seq.wrapping_sub(**isn));
                let is_granted = nearest.is_some_and(|(_, is_granted)| *is_granted);
                let is_capable = bits(packet) != 0;
                if !is_granted && (is_capable || flags.intersects(both)) {
                    return Err(format!("ECN on a connection that was not granted it: {segment}"));
                }
                if is_granted && !segment.payload().is_empty() && !is_capable && facts.plan.kinds.contains(&Kind::Ecn) {
                    return Err(format!("octets without ECT where ECN was granted: {segment}"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
