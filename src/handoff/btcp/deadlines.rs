//! What happens when nothing happens.

use super::*;

impl Btcp {
    /// A deadline of one of these connections passed.
    pub fn handle_deadline(&mut self, deadline: Deadline, ctx: &mut Context, now: Instant) {
        let slot = deadline.slot;
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if connection.serial != deadline.serial || !connection.alarm.fires(deadline, now, &mut ctx.timers) {
            return;
        }
        match connection.state.take() {
            State::Handshake(_) | State::Lingering(_) => self.forget(slot, ctx),
            State::Lost(lost) => {
                connection.state = State::Lost(lost);
                self.ask_again(slot, ctx, now);
            }
            State::Asking(asking) => self.give_up_asking(slot, &asking, ctx),
            State::Undecided(undecided) => {
                connection.state = State::Undecided(undecided);
                self.handle_deadline_of_undecided(slot, ctx, now);
            }
            State::Releasing(releasing) => self.release_untimed(slot, releasing, ctx, now),
            State::Offered(offered) => {
                self.by_handoff.remove(&offered.id);
                ctx.say(offered.to, Message::Abort { id: offered.id });
                self.passed_over(slot, offered.to, offered.pending, Fallback::Deadline, ctx, now);
            }
            State::HandedOff(handed_off) => {
                let is_down = handed_off.to != ctx.node && ctx.peer(handed_off.to).is_none_or(|peer| !peer.up);
                connection.state = State::HandedOff(handed_off);
                if is_down {
                    self.lose(slot, ctx, now);
                }
            }
            other => connection.state = other,
        }
    }

    pub(super) fn handle_deadline_of_undecided(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let connection = &self.connections[slot];
        let State::Undecided(undecided) = &connection.state else { return };
        let service = ctx.service_of(connection.flow.frontend);
        let is_late = match (undecided.first_byte, service) {
            (_, None) => true,
            (Some(first_byte), Some(service)) => now >= first_byte + service.inspect_timeout,
            (None, Some(service)) => now >= undecided.entered + service.silence_timeout,
        } || undecided.gives_up_waiting().is_some_and(|at| now >= at);
        if is_late {
            return self.decide_by_default(slot, ctx, now);
        }
        let owes = undecided.flight.owes_acknowledgement()
            && undecided.first_byte.is_some_and(|first_byte| now >= first_byte + limits::EARLY_ACKNOWLEDGEMENT_AFTER);
        if owes {
            self.acknowledge_early(slot, ctx);
        } else if undecided.kernel == KernelHalf::SynReceived && now >= undecided.entered + limits::HOLD_MAX {
            self.park(slot, ctx);
        }
        self.set_alarm_of_undecided(slot, ctx, now);
    }

    pub(super) fn set_alarm_of_undecided(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let Some(connection) = self.connections.get(slot) else { return };
        let State::Undecided(undecided) = &connection.state else { return };
        let Some(service) = ctx.service_of(connection.flow.frontend) else { return };
        let mut at = match undecided.first_byte {
            Some(first_byte) => first_byte + service.inspect_timeout,
            None => undecided.entered + service.silence_timeout,
        };
        if let Some(gives_up) = undecided.gives_up_waiting() {
            at = at.min(gives_up);
        }
        if undecided.kernel == KernelHalf::SynReceived {
            at = at.min(undecided.entered + limits::HOLD_MAX);
        }
        if undecided.flight.owes_acknowledgement()
            && let Some(first_byte) = undecided.first_byte
        {
            at = at.min((first_byte + limits::EARLY_ACKNOWLEDGEMENT_AFTER).max(now + Duration::from_millis(1)));
        }
        self.set_alarm(slot, at, ctx);
    }

    pub(super) fn set_alarm(&mut self, slot: usize, at: Instant, ctx: &mut Context) {
        let connection = &mut self.connections[slot];
        connection.alarm.set(at, Owner::Btcp, slot, connection.serial, &mut ctx.timers);
    }

    /// Guards of an earlier life that no owner has claimed in time.
    pub fn expire_orphans(&mut self, ctx: &mut Context, now: Instant) {
        self.give_up_orphans(|at| at <= now, ctx, now);
    }

    /// SYNs of which nothing came, neither from the kernel nor from whom they were forwarded to.
    pub fn expire_openings(&mut self, now: Instant) {
        self.syns.expire(now);
        self.openings.expire(now);
        self.known.keep_house(now);
    }

    /// Orphans without an owner: their clients are reset when they next speak, or begin anew. Only when they have been silent
    /// for a linger may the kernel answer again.
    pub(super) fn give_up_orphans(&mut self, which: impl Fn(Instant) -> bool, ctx: &mut Context, now: Instant) {
        let expired: Vec<_> = self.orphans.iter().filter(|(_, at)| which(**at)).map(|(flow, _)| *flow).collect();
        for flow in expired {
            self.orphans.remove(&flow);
            let slot = self.insert(flow, State::Lost(Lost::default()), Guard::Written, ctx, now);
            let linger = ctx.policy.limits.linger;
            self.set_alarm(slot, now + linger, ctx);
        }
    }
}
