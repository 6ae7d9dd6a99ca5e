//! 3. No untranslated packet of a handed-off connection leaves any node, and no kernel answers for one it has given away.

use super::{Facts, Rule, Seen};
use baton::rewrite::{Flags, Segment, ToClientWire, ToServerWire};

pub struct Untranslated;

impl Rule for Untranslated {
    fn name(&self) -> &'static str {
        "3 nothing untranslated"
    }

    fn see(&mut self, _: u64, seen: &Seen<'_>, facts: &Facts) -> Result<(), String> {
        match seen {
            Seen::Left { node, packet, is_direct, is_guarded } => {
                let segment =
                    Segment::<_, ToClientWire>::parse(*packet).map_err(|error| format!("no TCP leaves node {node}: {error}"))?;
                let (source, client) = (segment.source(), segment.destination());
                if !facts.frontends.contains(&source) {
                    return Err(format!(
                        "{source} is no front-end address: an untranslated packet leaves node {node}: {segment}"
                    ));
                }
                if facts.client_of(client.address).is_none() {
                    return Err(format!("a packet for nobody leaves node {node}: {segment}"));
                }
                if !segment.checksums_are_right() {
                    return Err(format!("a wrong checksum leaves node {node}: {segment}"));
                }
                if *is_direct && *is_guarded && !segment.flags().contains(Flags::SYN) {
                    return Err(format!("the kernel of node {node} answers for what it has given away: {segment}"));
                }
                Ok(())
            }
            Seen::Written { node, packet, is_guarded: true } => {
                let Ok(segment) = Segment::<_, ToServerWire>::parse(*packet) else { return Ok(()) };
                if facts.frontends.contains(&segment.destination()) && !segment.flags().contains(Flags::RST) {
                    // Were the process to die now, the guard would stay, and cut what this begins.
                    return Err(format!("the kernel of node {node} is given a packet of a guarded connection: {segment}"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
