//! Inspection and decision.

use super::*;

impl Btcp {
    pub(super) fn examine(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let flow = connection.flow;
        let State::Undecided(undecided) = &mut connection.state else { return };
        let policy = Rc::clone(ctx.policy_of(flow.frontend));
        let Some(service) = policy.service_of(flow.frontend) else { return self.decide_by_default(slot, ctx, now) };
        match service.examine(undecided.flight.bytes(), flow) {
            Examination::Decided(decision) => {
                if let Some(story) = &mut connection.story {
                    story.summary = service.summary(undecided.flight.bytes(), flow);
                }
                self.decide(slot, decision, ctx, now);
            }
            Examination::NeedMore => {
                let is_all = !undecided.flight.may_grow() || undecided.flight.bytes().len() >= service.inspect_bytes_max;
                if is_all {
                    return self.decide_by_default(slot, ctx, now);
                }
                undecided.awaits_server = service.awaits_server(undecided.flight.bytes(), flow).then_some(now);
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
        if let Some(first_byte) = undecided.first_byte {
            ctx.chronicle.decision.observe(now.saturating_duration_since(first_byte));
        }
        if let Some(story) = &mut connection.story {
            story.decide(now);
        }
        if let Some(ambiguity) = decision.note {
            ctx.counters.note(ambiguity.label());
        }
        log::debug!("decided flow={} rule={:?} targets={:?}", connection.flow, decision.rule, decision.targets);
        ctx.remarks.say(|| format!("decided by rule {:?}", decision.rule));
        connection.rule = Some(decision.rule);
        connection.alarm.clear();
        let pending = Pending { undecided, targets: decision.targets, next: 0, deadline: now + timeout, decided: now };
        self.try_next(slot, pending, ctx, now);
    }

    /// Asks the next candidate; when there is none left the local server answers.
    pub(super) fn try_next(&mut self, slot: usize, mut pending: Pending, ctx: &mut Context, now: Instant) {
        while let Some(target) = pending.targets.get(pending.next).copied() {
            pending.next += 1;
            let Target::Node(node) = target else { break };
            if node == ctx.node {
                break;
            }
            let passed_over = match ctx.peer(node) {
                _ if ctx.draining => Some(Fallback::Draining),
                Some(peer) if peer.up && peer.draining => Some(Fallback::PeerDraining),
                Some(peer) if peer.up => None,
                _ => Some(Fallback::PeerDown),
            };
            match passed_over {
                Some(reason) => {
                    ctx.remark(node, |name| format!("{name} passed over: {}", reason.label()));
                    ctx.counters.fall_back(reason);
                    self.note_fallback(slot, Some(node), reason);
                }
                None => return self.offer(slot, node, pending, ctx, now),
            }
        }
        self.serve_locally(slot, pending, ctx, now);
    }
}
