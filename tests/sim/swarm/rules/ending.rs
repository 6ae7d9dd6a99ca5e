//! 5. Nothing hangs: every connection ends, answered or reset, and no connection stays in a passing state beyond its bound.

use super::{ClientEvent, Ending, Facts, Fault, Rule, Seen};
use baton::limits;
use std::collections::BTreeMap;
use std::time::Duration;

pub struct Ends {
    ended: BTreeMap<usize, Ending>,
    steps: u64,
    /// How late a process may be because it stood still.
    late: Duration,
}

impl Ends {
    pub fn new(facts: &Facts) -> Self {
        let hangs = facts.plan.faults.iter().map(|(_, fault)| match fault {
            Fault::Hang { lasts, .. } => *lasts,
            _ => 0,
        });
        Self { ended: BTreeMap::new(), steps: 0, late: Duration::from_micros(hangs.sum::<u64>()) + Duration::from_millis(20) }
    }
}

/// How long a connection may be in a state.
fn bound(role: &str, state: &str) -> Option<Duration> {
    Some(match (role, state) {
        ("front-end", "handshake") => limits::HANDSHAKE_LIFETIME,
        ("front-end", "undecided") => limits::HOLD_MAX,
        ("front-end", "offered") => limits::cluster_file::HANDOFF_TIMEOUT_DEFAULT + limits::DELIVERY_PATIENCE,
        ("front-end", "releasing") => limits::HOLD_MAX + limits::RELEASE_PATIENCE,
        ("front-end", "asking") => limits::OWNER_PATIENCE,
        ("front-end", "securing") => Duration::ZERO,
        ("back-end", "replaying") => limits::DELIVERY_PATIENCE + limits::REPLAY_DEADLINE,
        ("back-end", "prepared") => limits::PREPARED_LIFETIME,
        ("back-end", "delivering") => 2 * limits::DELIVERY_PATIENCE,
        ("back-end", "returning") => limits::DELIVERY_DEADLINE,
        _ => return None,
    })
}

impl Rule for Ends {
    fn name(&self) -> &'static str {
        "5 nothing hangs"
    }

    fn see(&mut self, _: u64, seen: &Seen<'_>, facts: &Facts) -> Result<(), String> {
        match seen {
            Seen::Client { event: ClientEvent::Ended { errand, ending } } => {
                self.ended.insert(*errand, *ending);
                if facts.plan.is_harmless() && matches!(ending, Ending::Short | Ending::Reset) {
                    return Err(format!("without a fault, errand {errand} ends {ending:?}"));
                }
            }
            Seen::Step { node, engine, now } => {
                self.steps += 1;
                if !self.steps.is_multiple_of(8) {
                    return Ok(());
                }
                for view in engine.flows(*now) {
                    if bound(view.role, view.state).is_some_and(|bound| view.age > bound + self.late) {
                        return Err(format!("node {node}: {} is {} for {:?}", view.flow, view.state, view.age));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, now: u64, facts: &Facts) -> Result<(), String> {
        let hanging: Vec<usize> =
            facts.plan.errands.iter().map(|errand| errand.number).filter(|number| !self.ended.contains_key(number)).collect();
        if hanging.is_empty() { Ok(()) } else { Err(format!("errands {hanging:?} hang at {} s", now / 1_000_000)) }
    }
}
