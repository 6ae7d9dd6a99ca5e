//! Securing: before the kernel's half of a connection is purged, the guard is written and the kernel asked.

use super::*;

impl Btcp {
    pub(super) fn park_excess(&mut self, frontend: Endpoint, ctx: &mut Context) {
        let connections = &self.connections;
        let is_held = |slot: usize, serial: u64| {
            connections.get(slot).is_some_and(|connection| {
                connection.serial == serial
                    && matches!(&connection.state, State::Undecided(undecided) if undecided.kernel == KernelHalf::SynReceived)
            })
        };
        if let Some(slot) = self.holds.excess(frontend, is_held) {
            self.park(slot, ctx);
        }
    }

    /// Takes an undecided connection out of the kernel, for as long as its client likes to be silent. First the guard.
    /// Afterwards it may be gone.
    pub(super) fn park(&mut self, slot: usize, ctx: &mut Context) {
        let connection = &mut self.connections[slot];
        let observes = ctx.service_of(connection.flow.frontend).is_some_and(|service| service.mode() == Mode::Observe);
        match connection.state.take() {
            // Whoever only looks on takes nothing out of the kernel.
            State::Undecided(undecided) if undecided.kernel == KernelHalf::SynReceived && observes => {
                ctx.counters.observed_undecided += 1;
                self.release(slot, undecided, ctx);
            }
            State::Undecided(undecided) if undecided.kernel == KernelHalf::SynReceived => {
                connection.secure(Securing::Park(undecided), ctx);
            }
            other => connection.state = other,
        }
    }

    pub(super) fn acknowledge_early(&mut self, slot: usize, ctx: &mut Context) {
        let connection = &mut self.connections[slot];
        let flow = connection.flow;
        let State::Undecided(undecided) = &mut connection.state else { return };
        match undecided.kernel {
            KernelHalf::SynReceived => {
                undecided.acknowledge_when_parked = true;
                self.park(slot, ctx);
            }
            KernelHalf::Purged => {
                undecided.flight.acknowledge_all();
                ctx.counters.early_acknowledgements += 1;
                ctx.write(undecided.acknowledgement(&flow), Why::EarlyAcknowledgement);
            }
        }
    }

    /// The guard of a connection was written, or could not be.
    pub fn handle_guard(&mut self, flow: FlowKey, written: bool, ctx: &mut Context) {
        let Some(slot) = self.slot_of(&flow) else {
            if written {
                ctx.outputs.push_back(Output::Unguard(flow));
            }
            return;
        };
        let connection = &mut self.connections[slot];
        connection.guard = if written { Guard::Written } else { Guard::None };
        if !matches!(connection.state, State::Securing(_)) {
            return;
        }
        if written {
            // From here on nothing reaches the kernel without us; before, a fragment or a pause of ours may have let
            // something through.
            ctx.outputs.push_back(Output::AskSocket { local: flow.frontend, remote: flow.client });
        } else {
            // What cannot be guarded can be neither parked nor handed off: the local server answers.
            self.take_back(slot, Fallback::GuardFailed, ctx);
        }
    }

    /// What the kernel says of its own half, now that nothing can change it any more.
    pub fn handle_socket(&mut self, flow: FlowKey, socket: SocketState, ctx: &mut Context, now: Instant) {
        if self.judge_question(flow, socket, ctx) || self.judge_claim(flow, socket, ctx, now) {
            return;
        }
        let Some(slot) = self.slot_of(&flow) else { return self.judge_opening(flow, socket, ctx) };
        if matches!(self.connections[slot].state, State::Asking(_)) {
            if let State::Asking(asking) = self.connections[slot].state.take() {
                self.judge_asking(slot, asking, socket, ctx, now);
            }
            return;
        }
        let goes_on = matches!(socket, SocketState::Open | SocketState::TimeWait);
        if goes_on && !matches!(self.connections[slot].state, State::Releasing(_)) {
            if matches!(self.connections[slot].state, State::Securing(_)) {
                self.take_back(slot, Fallback::KernelWentOn, ctx);
            }
            return;
        }
        let connection = &mut self.connections[slot];
        match connection.state.take() {
            State::Releasing(releasing) => self.judge_release(slot, releasing, socket, ctx, now),
            State::Securing(Securing::Commit(offered)) => self.commit(slot, *offered, ctx, now),
            State::Securing(Securing::Reset(mut undecided)) => {
                purge(&flow, &mut undecided, &mut self.holds, ctx);
                self.refuse_purged(slot, &undecided, ctx, now);
            }
            State::Securing(Securing::Park(mut undecided)) => {
                purge(&flow, &mut undecided, &mut self.holds, ctx);
                ctx.counters.parked += 1;
                let acknowledge = std::mem::take(&mut undecided.acknowledge_when_parked);
                connection.state = State::Undecided(undecided);
                if acknowledge {
                    self.acknowledge_early(slot, ctx);
                }
                self.set_alarm_of_undecided(slot, ctx, now);
            }
            other => connection.state = other,
        }
    }

    /// Takes an undecided connection back for good: whoever was asked is told, and the kernel, which knows it, serves it.
    pub(super) fn take_back(&mut self, slot: usize, reason: Fallback, ctx: &mut Context) {
        let connection = &mut self.connections[slot];
        let undecided = match connection.state.take() {
            State::Undecided(undecided)
            | State::Securing(Securing::Park(undecided) | Securing::Reset(undecided))
            | State::Releasing(Releasing { undecided, .. }) => undecided,
            State::Offered(offered) | State::Securing(Securing::Commit(offered)) => {
                ctx.say(offered.to, Message::Abort { id: offered.id });
                self.by_handoff.remove(&offered.id);
                offered.pending.undecided
            }
            other => {
                connection.state = other;
                return;
            }
        };
        ctx.counters.fall_back(reason);
        self.note_fallback(slot, None, reason);
        self.release(slot, undecided, ctx);
    }
}
