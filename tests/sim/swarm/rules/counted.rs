//! 6. Every dropped packet has a counted reason, and every table its limit.

use super::{Facts, Rule, Seen};
use baton::handoff::counters::DropReason;
use baton::handoff::{Engine, Verdict};
use baton::limits;

/// What each engine has dropped, by reason, in this life.
#[derive(Default)]
pub struct Counted {
    dropped: Vec<[u64; DropReason::ALL.len()]>,
}

impl Rule for Counted {
    fn name(&self) -> &'static str {
        "6 all drops are counted"
    }

    fn see(&mut self, _: u64, seen: &Seen<'_>, facts: &Facts) -> Result<(), String> {
        self.dropped.resize(facts.plan.nodes.len(), [0; DropReason::ALL.len()]);
        match seen {
            Seen::Life { node } => self.dropped[*node] = [0; DropReason::ALL.len()],
            Seen::Verdict { node, verdict: Verdict::Drop(reason) } => self.dropped[*node][*reason as usize] += 1,
            Seen::Step { node, engine, .. } => {
                for (reason, seen) in DropReason::ALL.iter().zip(&self.dropped[*node]) {
                    let counted = engine.dropped(*reason);
                    // What a node that is its own back-end says to itself is dropped unseen.
                    // What was kept until an owner was found, or not, has no verdict.
                    let is_kept_first = facts.plan.is_shared()
                        && matches!(
                            reason,
                            DropReason::OwnerUnknown | DropReason::UnexpectedFromKernel | DropReason::OwnerNotAsked
                        );
                    // Asked only where it matters: it is costly.
                    let may_be_unseen = || *reason == DropReason::SynKept || is_kept_first || talks_to_itself(engine);
                    if counted < *seen || counted > *seen && !may_be_unseen() {
                        return Err(format!("node {node} dropped {seen} packets as {}, and counts {counted}", reason.label()));
                    }
                }
                return check_tables(*node, &engine.counters(), facts);
            }
            _ => {}
        }
        Ok(())
    }
}

fn talks_to_itself(engine: &Engine) -> bool {
    engine.counters().iter().any(|(name, count)| name == "replays_to_self_total" && *count > 0)
}

fn check_tables(node: usize, counters: &[(String, u64)], facts: &Facts) -> Result<(), String> {
    let value = |name: &str| counters.iter().find(|(counter, _)| counter == name).map_or(0, |(_, value)| *value);
    // A replay to self has room always, since there is nobody else to ask: one for each connection that arrived here.
    let (front, back) = (value("connections_front_end"), value("connections_back_end"));
    // A SYN that a peer forwarded takes no room until its client has come back.
    let counted = front + back - value("openings_unfinished");
    let bounds = [
        ("connections_front_end", front, facts.plan.connections_max),
        ("connections", counted, 2 * facts.plan.connections_max),
        ("first_flight_bytes", value("first_flight_bytes"), limits::FIRST_FLIGHT_BYTES_DEFAULT as u64),
        ("syns_pending", value("syns_pending"), limits::SYNS_MAX as u64),
        ("openings_pending", value("openings_pending"), limits::OPENINGS_MAX as u64),
        ("openings_unfinished", value("openings_unfinished"), limits::OPENINGS_UNFINISHED_MAX as u64),
        ("owners_known", value("owners_known"), 2 * limits::KNOWN_OWNERS_MAX as u64),
    ];
    match bounds.iter().find(|(_, value, bound)| value > bound) {
        Some((name, value, bound)) => Err(format!("node {node}: {name} is {value}, more than {bound}")),
        None => Ok(()),
    }
}
