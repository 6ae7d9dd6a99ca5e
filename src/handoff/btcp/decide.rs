//! Inspection and decision.

use super::*;
use crate::health::Health;

impl Btcp {
    pub(super) fn examine(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let flow = connection.flow;
        let State::Undecided(undecided) = &mut connection.state else { return };
        let policy = Rc::clone(ctx.policy_of(flow.frontend));
        let Some(service) = policy.service_of(flow.frontend) else { return self.decide_by_default(slot, ctx, now) };
        match service.examine(undecided.flight.bytes(), flow.client) {
            Examination::Decided(decision) => self.decide(slot, decision, ctx, now),
            Examination::NeedMore => {
                let is_all = !undecided.flight.may_grow() || undecided.flight.bytes().len() >= service.inspect_bytes_max;
                if is_all {
                    return self.decide_by_default(slot, ctx, now);
                }
                if undecided.flight.initial_window_is_used_up() {
                    self.acknowledge_early(slot, ctx);
                }
                self.set_alarm_of_undecided(slot, ctx, now);
            }
        }
    }

    pub(super) fn decide_by_default(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let flow = self.connections[slot].flow;
        let decision = ctx
            .service_of(flow.frontend)
            .map_or_else(|| Decision { rule: "default".into(), targets: Vec::new(), note: None }, |service| service.by_default());
        self.decide(slot, decision, ctx, now);
    }

    pub(super) fn decide(&mut self, slot: usize, decision: Decision, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let undecided = match connection.state.take() {
            State::Undecided(undecided) => undecided,
            other => {
                connection.state = other;
                return;
            }
        };
        let policy = Rc::clone(ctx.policy_of(connection.flow.frontend));
        let service = policy.service_of(connection.flow.frontend);
        let timeout = service.map_or(Duration::from_secs(1), |service| service.handoff_timeout);
        let service_name: Rc<str> = service.map_or("", |service| service.name.as_str()).into();
        ctx.counters.decide(&service_name, &decision.rule);
        if let Some(ambiguity) = decision.note {
            ctx.counters.note(ambiguity.label());
        }
        log::debug!("decided flow={} rule={:?} targets={:?}", connection.flow, decision.rule, decision.targets);
        ctx.remarks.say(|| format!("decided by rule {:?}", decision.rule));
        connection.rule = Some(decision.rule);
        connection.alarm.clear();
        let targets = unknown_last(decision.targets, |node| ctx.node_state(&service_name, node, now).health);
        let pending = Pending { undecided, targets, next: 0, deadline: now + timeout };
        self.try_next(slot, pending, ctx, now);
    }

    /// Asks the next candidate; when there is none left the local server answers.
    pub(super) fn try_next(&mut self, slot: usize, mut pending: Pending, ctx: &mut Context, now: Instant) {
        while let Some(target) = pending.targets.get(pending.next).copied() {
            pending.next += 1;
            let node = target.node().unwrap_or(ctx.node);
            let service = ctx.service_of(self.connections[slot].flow.frontend).map_or("", |service| &service.name);
            let state = ctx.node_state(service, node, now);
            let passed_over = if node == ctx.node {
                // Down as it is it serves when nobody else does, so it is passed over only for others.
                let has_others = pending.targets[pending.next..].iter().any(|target| target.node().is_some());
                if state.health != Health::Down || ctx.draining || !has_others {
                    break;
                }
                Some(Fallback::LocalUnhealthy)
            } else if ctx.draining {
                Some(Fallback::Draining)
            } else {
                state.unfit().map(Fallback::from)
            };
            match passed_over {
                Some(reason) => {
                    ctx.remark(node, |name| format!("{name} passed over: {}", reason.label()));
                    log::debug!("passed over flow={} node={} reason={}", self.connections[slot].flow, node.0, reason.label());
                    ctx.counters.fall_back(reason);
                }
                None => return self.offer(slot, node, pending, ctx, now),
            }
        }
        self.serve_locally(slot, pending, ctx, now);
    }
}

/// Peers of which nobody knows whether they can serve are tried after those that can, and still before what the rule says is
/// to be tried after all peers: `local`.
fn unknown_last(mut targets: Vec<Target>, health: impl Fn(NodeId) -> Health) -> Vec<Target> {
    let end = targets.iter().position(|target| target.node().is_none()).unwrap_or(targets.len());
    targets[..end].sort_by_key(|target| target.node().is_some_and(|node| health(node) == Health::Unknown));
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_nobody_knows_about_come_after_those_that_are_up_and_before_the_local_server() {
        let [b, c, d, e] = [1, 2, 3, 4].map(|node| Target::Node(NodeId(node)));
        let health = |node: NodeId| if node.0 % 2 == 1 { Health::Unknown } else { Health::Up };
        assert_eq!(unknown_last(vec![b, c, d, Target::Local, e], health), [c, b, d, Target::Local, e]);
        assert_eq!(unknown_last(vec![b, Target::Local, c], health), [b, Target::Local, c]);
        assert_eq!(unknown_last(Vec::new(), health), []);
    }
}
