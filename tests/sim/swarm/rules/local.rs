//! 8. Connections released to the local server survive whatever happens to the process.

use super::super::on_syn::SHARED;
use super::{ClientEvent, Ending, Facts, Fault, Rule, Seen};
use baton::flow::FlowKey;
use baton::rewrite::{Flags, Segment, ToClientWire};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct LocalSurvives {
    /// Errands that are open, by the ends of their connections.
    open: BTreeMap<FlowKey, usize>,
    /// Those whose front-end's kernel answers them itself.
    local: BTreeSet<usize>,
    /// Nodes whose application was stopped.
    stopped: BTreeSet<usize>,
}

impl Rule for LocalSurvives {
    fn name(&self) -> &'static str {
        "8 local connections survive"
    }

    fn see(&mut self, _: u64, seen: &Seen<'_>, facts: &Facts) -> Result<(), String> {
        let errand_of =
            |number: &usize| facts.plan.errands.iter().find(|errand| errand.number == *number).expect("a known errand");
        match seen {
            Seen::Fault { fault: Fault::StopApplication { node, .. } } => {
                self.stopped.insert(*node);
            }
            Seen::Client { event: ClientEvent::Connected { errand } } => {
                self.open.insert(facts.flow_of(errand_of(errand)), *errand);
            }
            Seen::Left { packet, is_direct: true, .. } => {
                let Ok(segment) = Segment::<_, ToClientWire>::parse(*packet) else { return Ok(()) };
                let flow = FlowKey { client: segment.destination(), frontend: segment.source() };
                if let Some(errand) = self.open.get(&flow)
                    && !segment.flags().intersects(Flags::RST.with(Flags::SYN))
                    && !segment.payload().is_empty()
                {
                    self.local.insert(*errand);
                }
            }
            Seen::Client { event: ClientEvent::Ended { errand, ending } } => {
                let planned = errand_of(errand);
                self.open.remove(&facts.flow_of(planned));
                if planned.frontend == SHARED {
                    // Where a process is gone, packets of connections that are elsewhere reach the kernel.
                    return Ok(());
                }
                if facts.plan.nodes[planned.frontend].cookies {
                    // A kernel that gives cookies resets what does not follow the SYN, whether it was overtaken or not.
                    return Ok(());
                }
                if *ending == Ending::Reset && self.local.contains(errand) && !self.stopped.contains(&planned.frontend) {
                    return Err(format!("errand {errand} was served by its front-end's own server, and is reset"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
