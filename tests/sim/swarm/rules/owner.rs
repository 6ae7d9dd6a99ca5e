//! 1. Never do two nodes send payload for one connection.

use super::{Facts, Rule, Seen};
use baton::flow::FlowKey;
use baton::rewrite::{Flags, Segment, ToClientWire};
use std::collections::BTreeMap;

/// A connection is named by its ends and by the ISN its client was told.
#[derive(Default)]
pub struct OneOwner {
    connections: BTreeMap<FlowKey, Vec<(u32, Option<usize>)>>,
}

impl Rule for OneOwner {
    fn name(&self) -> &'static str {
        "1 one owner"
    }

    fn see(&mut self, _: u64, seen: &Seen<'_>, _: &Facts) -> Result<(), String> {
        let Seen::Left { node, packet, .. } = seen else { return Ok(()) };
        let Ok(segment) = Segment::<_, ToClientWire>::parse(*packet) else { return Ok(()) };
        let flow = FlowKey { client: segment.destination(), frontend: segment.source() };
        let connections = self.connections.entry(flow).or_default();
        let seq = segment.seq().raw();
        if segment.flags().contains(Flags::SYN) {
            if !connections.iter().any(|(isn, _)| *isn == seq) {
                connections.push((seq, None));
            }
            return Ok(());
        }
        // A keep-alive probe may carry an octet that was sent before; nobody's answer begins with it.
        if segment.payload().is_empty() {
            return Ok(());
        }
        // The connection whose sequence space it lies in: the one with the nearest ISN below.
        let nearest = connections.iter_mut().min_by_key(|(isn, _)| seq.wrapping_sub(*isn));
        let Some((_, owner)) = nearest else { return Err(format!("node {node} sends payload of {flow}, which has no SYN-ACK")) };
        match owner {
            Some(owner) if owner != node => Err(format!("nodes {owner} and {node} send payload of {flow}: {segment}")),
            _ => {
                *owner = Some(*node);
                Ok(())
            }
        }
    }
}
