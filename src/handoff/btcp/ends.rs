//! How connections end otherwise: given up by the client, lost with their owner, released or reset by us.

use super::*;

impl Btcp {
    /// The owner is gone for good, and with it what it had not yet sent: the client must know.
    pub(super) fn lose(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        if let State::HandedOff(handed_off) = self.connections[slot].state.take() {
            self.by_handoff.remove(&handed_off.id);
            let outcome = Self::outcome_at(handed_off.to, ctx);
            if let Some(pending) = handed_off.pending {
                ctx.first_flight_bytes -= pending.undecided.flight.held_bytes();
                self.count_outcome(slot, Some(handed_off.to), outcome, ctx);
            }
            let end = if ctx.stopping { End::Stopped } else { End::OwnerLost };
            self.tell(slot, Some(handed_off.to), outcome, end, ctx);
            if handed_off.is_linked {
                ctx.outputs.push_back(Output::Unlink(handed_off.to, self.connections[slot].flow));
            }
            let is_linked = handed_off.is_linked;
            let kept_syn = handed_off.kept_syn.filter(|kept| now.saturating_duration_since(kept.0) <= limits::SYN_LIFETIME);
            self.reset_client(slot, handed_off.client, ctx, now);
            if is_linked
                && kept_syn.is_none()
                && let Some(client) = handed_off.client
            {
                self.ask_where_to_reset(slot, (client.next, client.acknowledged), ctx, now);
            }
            if let Some(syn) = kept_syn.map(|kept| kept.1) {
                self.begin_anew(slot, syn, ctx, now);
            }
        }
    }

    /// Nobody may serve it, as the policy says. The kernel is asked first, as before a commit: what it has gone on with it
    /// serves.
    pub(super) fn refuse(&mut self, slot: usize, undecided: Box<Undecided>, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        match undecided.kernel {
            KernelHalf::SynReceived => {
                let flow = connection.flow;
                connection.state = State::Securing(Securing::Reset(undecided));
                ctx.outputs.push_back(Output::AskSocket { local: flow.frontend, remote: flow.client });
            }
            KernelHalf::Purged => self.refuse_purged(slot, &undecided, ctx, now),
        }
    }

    /// The same of one that only BTCP knows: a RST in the front-end's sequence space, where the client expects the next octet.
    pub(super) fn refuse_purged(&mut self, slot: usize, undecided: &Undecided, ctx: &mut Context, now: Instant) {
        ctx.first_flight_bytes -= undecided.flight.held_bytes();
        ctx.counters.resets_by_policy += 1;
        self.reset_unserved(slot, undecided.client, End::ByPolicy, ctx, now);
    }

    /// Nobody has served the connection, and nobody can.
    pub(super) fn reset_unserved(&mut self, slot: usize, client: ClientView, end: End, ctx: &mut Context, now: Instant) {
        self.count_outcome(slot, None, Outcome::Reset, ctx);
        let end = if ctx.stopping { End::Stopped } else { end };
        self.tell(slot, None, Outcome::Reset, end, ctx);
        self.reset_client(slot, Some(client), ctx, now);
    }

    fn reset_client(&mut self, slot: usize, client: Option<ClientView>, ctx: &mut Context, now: Instant) {
        self.assign(slot, None, ctx);
        let connection = &mut self.connections[slot];
        ctx.counters.resets += 1;
        if let Some(client) = client {
            ctx.write(reset(&connection.flow, client.acknowledged), Why::Reset);
        }
        connection.state = State::Lost(Lost::default());
        connection.since = now;
        let linger = ctx.policy.limits.linger;
        self.set_alarm(slot, now + linger, ctx);
    }

    /// Most of what the client has sent, and been sent, passed by here: by what is known of it, its reset may be too old to be
    /// believed. So it gets a segment that it must answer (RFC 9293, section 3.10.7.4: not acceptable), and is reset by what it
    /// answers; until it does it is asked again.
    fn ask_where_to_reset(&mut self, slot: usize, seen: (Seq<Client>, Seq<Wire>), ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        connection.state = State::Lost(Lost { seen: Some(seen), questions_left: limits::RESET_QUESTIONS_MAX });
        self.ask_again(slot, ctx, now);
    }

    /// A question is due, or all were asked and the connection is forgotten.
    pub(super) fn ask_again(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let State::Lost(lost) = &mut connection.state else { return };
        let Some((next, acknowledged)) = lost.seen.filter(|_| lost.questions_left > 0) else { return self.forget(slot, ctx) };
        lost.questions_left -= 1;
        let flow = connection.flow;
        let wait = if lost.questions_left > 0 { limits::RESET_QUESTION_INTERVAL } else { ctx.policy.limits.linger };
        ctx.write(bare::<ToClientWire>(flow.frontend, flow.client, acknowledged.plus(u32::MAX), next, Flags::ACK), Why::Question);
        self.set_alarm(slot, now + wait, ctx);
    }

    /// The client itself has ended an undecided connection.
    pub(super) fn abandon(&mut self, slot: usize, ctx: &mut Context) {
        let flow = self.connections[slot].flow;
        let mut undecided = match self.connections[slot].state.take() {
            State::Undecided(undecided)
            | State::Securing(Securing::Park(undecided) | Securing::Reset(undecided))
            | State::Releasing(Releasing { undecided, .. }) => undecided,
            State::Offered(offered) | State::Securing(Securing::Commit(offered)) => {
                self.by_handoff.remove(&offered.id);
                ctx.say(offered.to, Message::Abort { id: offered.id });
                offered.pending.undecided
            }
            other => {
                self.connections[slot].state = other;
                return;
            }
        };
        ctx.first_flight_bytes -= undecided.flight.held_bytes();
        purge(&flow, &mut undecided, &mut self.holds, ctx);
        self.count_outcome(slot, None, Outcome::Abandoned, ctx);
        self.tell(slot, None, Outcome::Abandoned, End::ResetByClient, ctx);
        self.forget(slot, ctx);
    }

    /// The kernel may have gone on without us: no undecided connection that it knows may be handed off.
    pub fn handle_stall(&mut self, ctx: &mut Context, now: Instant) {
        self.syns.clear();
        self.stood_still = Some(now);
        self.release_undecided(Fallback::Stalled, ctx);
    }

    /// No new handoffs: what the kernel still knows goes to the local server.
    pub fn drain(&mut self, ctx: &mut Context) {
        self.syns.clear();
        self.release_undecided(Fallback::Draining, ctx);
    }

    pub(super) fn release_undecided(&mut self, reason: Fallback, ctx: &mut Context) {
        let slots: Vec<_> = self.connections.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            match self.connections[slot].state.take() {
                State::Handshake(_) => self.forget(slot, ctx),
                State::Undecided(undecided) if undecided.kernel == KernelHalf::SynReceived => self.release(slot, undecided, ctx),
                State::Releasing(Releasing { undecided, .. }) => self.release(slot, undecided, ctx),
                State::Offered(offered) if offered.pending.undecided.kernel == KernelHalf::SynReceived => {
                    ctx.counters.fall_back(reason);
                    self.note_fallback(slot, None, reason);
                    ctx.say(offered.to, Message::Abort { id: offered.id });
                    self.by_handoff.remove(&offered.id);
                    self.release(slot, offered.pending.undecided, ctx);
                }
                other => self.connections[slot].state = other,
            }
        }
    }

    /// Resets every connection that only this process keeps alive.
    pub fn reset_all(&mut self, ctx: &mut Context, now: Instant) {
        let slots: Vec<_> = self.connections.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let flow = self.connections[slot].flow;
            match self.connections[slot].state.take() {
                State::HandedOff(handed_off) => {
                    if let Some(client) = &handed_off.client {
                        ctx.forward(handed_off.to, reset_of_client(&flow, client), Why::Reset);
                    }
                    self.connections[slot].state = State::HandedOff(handed_off);
                    self.lose(slot, ctx, now);
                }
                State::Undecided(undecided) if undecided.kernel == KernelHalf::SynReceived => self.release(slot, undecided, ctx),
                State::Releasing(Releasing { undecided, .. }) => self.release(slot, undecided, ctx),
                State::Offered(offered) | State::Securing(Securing::Commit(offered)) => {
                    let Offered { pending, id, to, .. } = *offered;
                    ctx.say(to, Message::Abort { id });
                    self.by_handoff.remove(&id);
                    if pending.undecided.kernel == KernelHalf::SynReceived {
                        self.release(slot, pending.undecided, ctx);
                    } else {
                        ctx.first_flight_bytes -= pending.undecided.flight.held_bytes();
                        self.reset_unserved(slot, pending.undecided.client, End::NoServer, ctx, now);
                    }
                }
                State::Undecided(undecided) => {
                    ctx.first_flight_bytes -= undecided.flight.held_bytes();
                    self.reset_unserved(slot, undecided.client, End::NoServer, ctx, now);
                }
                other => self.connections[slot].state = other,
            }
        }
    }
}
