//! Inspection and decision.

use super::*;

impl Btcp {
    pub(super) fn examine(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let flow = connection.flow;
        let State::Undecided(undecided) = &mut connection.state else { return };
        let policy = Rc::clone(ctx.policy_of(flow.frontend));
        let Some(service) = policy.service_of(flow.frontend) else { return self.decide_by_default(slot, ctx, now) };
        match service.look(undecided.flight.bytes(), flow, &mut undecided.looks) {
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
                undecided.awaits_server = undecided.looks.awaits_server().then_some(now);
                if undecided.flight.initial_window_is_used_up() {
                    self.acknowledge_early(slot, ctx);
                }
                self.set_alarm_of_undecided(slot, ctx, now);
            }
        }
    }

    pub(super) fn decide_by_default(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let flow = self.connections[slot].flow;
        let decision =
            ctx.service_of(flow.frontend).map_or_else(|| Decision::local("default".into()), |service| service.by_default(flow));
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
        let mode = service.map_or(Mode::Route, |service| service.mode());
        if let Some(first_byte) = undecided.first_byte {
            ctx.chronicle.decision.observe(now.saturating_duration_since(first_byte));
        }
        if let Some(story) = &mut connection.story {
            story.decide(now);
        }
        if let Some(ambiguity) = decision.note {
            ctx.counters.note(ambiguity.label());
        }
        let service_name = service.map_or("", |service| service.name.as_str());
        let order = ctx.choose(service_name, &decision, now);
        // A node that drains routes nothing any more: its own server answers.
        let finally = if ctx.draining { Finally::Local } else { decision.choice.finally() };
        let mut pending = Pending { undecided, order, next: 0, finally, deadline: now + timeout, decided: now };
        let mut looked_over = 0;
        let first = next_step(service_name, &pending, &mut looked_over, ctx, now, |_, _, _| {});
        ctx.counters.decide(service_name, &decision.rule, first.node(ctx), mode);
        let flow = connection.flow;
        log::debug!("decided flow={flow} rule={:?} order={:?} mode={}", decision.rule, order.as_slice(), mode.word());
        ctx.remarks.say(|| format!("decided by rule {:?}", decision.rule));
        connection.rule = Some(decision.rule);
        connection.alarm.clear();
        if mode == Mode::Observe {
            (pending.order, pending.finally) = (Order::EMPTY, Finally::Local);
        }
        self.try_next(slot, pending, ctx, now);
    }

    /// Asks the next candidate; when there is none left the local server answers, or nobody.
    pub(super) fn try_next(&mut self, slot: usize, mut pending: Pending, ctx: &mut Context, now: Instant) {
        let mut next = pending.next;
        let flow = self.connections[slot].flow;
        let policy = Rc::clone(ctx.policy_of(flow.frontend));
        let service = policy.service_of(flow.frontend).map_or("", |service| service.name.as_str());
        let step = next_step(service, &pending, &mut next, ctx, now, |node, reason, ctx| {
            log::debug!("passed over flow={flow} node={} reason={}", node.0, reason.label());
            ctx.remark(node, |name| format!("{name} passed over: {}", reason.label()));
            ctx.counters.fall_back(reason);
            self.note_fallback(slot, Some(node), reason);
        });
        pending.next = next;
        match step {
            Step::Offer(node) => self.offer(slot, node, pending, ctx, now),
            Step::Local => self.serve_locally(slot, pending, ctx, now),
            Step::Reset => self.refuse(slot, pending.undecided, ctx, now),
        }
    }
}

/// What is done next for a connection that is decided.
#[derive(Clone, Copy, Debug)]
enum Step {
    Offer(NodeId),
    Local,
    Reset,
}

impl Step {
    /// Who answers if all goes well.
    const fn node(self, ctx: &Context) -> Option<NodeId> {
        match self {
            Self::Offer(node) => Some(node),
            Self::Local => Some(ctx.node),
            Self::Reset => None,
        }
    }
}

/// The next candidate that can be asked, counted up in `next`; `tell` hears of those that cannot.
fn next_step(
    service: &str,
    pending: &Pending,
    next: &mut usize,
    ctx: &mut Context,
    now: Instant,
    mut tell: impl FnMut(NodeId, Fallback, &mut Context),
) -> Step {
    while let Some(node) = pending.order.as_slice().get(*next).copied() {
        *next += 1;
        // Down as it is the local server answers when nobody else does: it is passed over only for others.
        let is_last = node == ctx.node && pending.order.as_slice().len() == *next;
        match ctx.passed_over(service, node, now).filter(|_| !is_last) {
            Some(reason) => tell(node, reason, ctx),
            None if node == ctx.node => return Step::Local,
            None => return Step::Offer(node),
        }
    }
    match pending.finally {
        Finally::Local => Step::Local,
        Finally::Reset => Step::Reset,
    }
}
