//! The handoff itself, from the offer to the end of the connection at its owner.

use super::*;

impl Btcp {
    pub(super) fn offer(&mut self, slot: usize, to: NodeId, mut pending: Pending, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let id = ctx.handoff_id();
        let undecided = &mut pending.undecided;
        let service = ctx.service_of(connection.flow.frontend).map_or_else(String::new, |service| service.name.clone());
        let offer = undecided.initial.offer(
            id,
            connection.flow,
            &service,
            &undecided.client,
            undecided.round_trip,
            undecided.flight.was_acknowledged(),
            undecided.flight.bytes(),
            now,
        );
        let offered_bytes = offer.first_flight.len();
        if to != ctx.node {
            ctx.counters.offers_sent += 1;
        }
        ctx.remark(to, |name| format!("offered to {name}"));
        ctx.say(to, Message::Offer(Box::new(offer)));
        // The time left is shared among the peers that can still be asked; the local server's share comes on top, and it
        // has nobody to make room for.
        let peers_left = 1 + pending.order.as_slice().iter().skip(pending.next).filter(|node| **node != ctx.node).count();
        let share = pending.deadline.saturating_duration_since(now) / u32::try_from(peers_left).unwrap_or(u32::MAX);
        let least = if to == ctx.node { limits::DELIVERY_PATIENCE } else { limits::REPLAY_DEADLINE };
        let deadline = now + share.max(least + limits::REPLAY_DEADLINE / 4);
        self.by_handoff.insert(id, slot);
        connection.since = now;
        connection.state = State::Offered(Box::new(Offered { pending, id, to, offered_bytes }));
        self.note_offer(to, id, ctx);
        self.assign(slot, Some(to), ctx);
        self.set_alarm(slot, deadline, ctx);
    }

    /// The candidate is ready: guard first, then the commit.
    pub fn handle_accept(&mut self, from: NodeId, accept: &Accept, ctx: &mut Context, now: Instant) {
        let Some(slot) = self.by_handoff.get(&accept.id).copied() else {
            return ctx.say(from, Message::Abort { id: accept.id });
        };
        let connection = &mut self.connections[slot];
        match connection.state.take() {
            State::Offered(offered) if offered.to == from => {
                connection.alarm.clear();
                match offered.pending.undecided.kernel {
                    KernelHalf::Purged => self.commit(slot, *offered, ctx, now),
                    KernelHalf::SynReceived => connection.secure(Securing::Commit(offered), ctx),
                }
            }
            other => connection.state = other,
        }
    }

    /// The point of no return: from here on only the owner can give the connection back.
    pub(super) fn commit(&mut self, slot: usize, mut offered: Offered, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let (to, id) = (offered.to, offered.id);
        let undecided = &mut offered.pending.undecided;
        purge(&connection.flow, undecided, &mut self.holds, ctx);
        let more = undecided.flight.bytes().get(offered.offered_bytes..).unwrap_or_default().to_vec();
        ctx.say(to, Message::Commit { id, more });
        for packet in undecided.flight.take_segments_beyond() {
            ctx.forward(to, packet, Why::Follows);
        }
        if to == ctx.node {
            ctx.counters.replays_to_self += 1;
        } else {
            ctx.counters.handoffs_committed += 1;
            ctx.chronicle.handoff.observe(now.saturating_duration_since(offered.pending.decided));
            if let Some(peer) = ctx.peer_mut(to) {
                peer.unsettled = true;
            }
        }
        ctx.remark(to, |name| format!("handed off to {name}"));
        log::debug!("handed off flow={} id={} to={}", connection.flow, id.serial, to.0);
        if let Some(story) = &mut connection.story {
            let sent = undecided.client.next.since(&undecided.initial.client_isn.plus(1));
            story.commit(u32::try_from(sent).unwrap_or(0), now);
        }
        connection.since = now;
        connection.alarm.clear();
        connection.state = State::HandedOff(HandedOff {
            to,
            id,
            client: Some(undecided.client),
            pending: Some(Box::new(offered.pending)),
            offered_bytes: offered.offered_bytes,
            confirmed_in: u64::MAX,
            kept_syn: None,
            is_linked: false,
        });
    }

    /// The candidate will not take it.
    pub fn handle_refuse(&mut self, from: NodeId, id: HandoffId, reason: Refusal, ctx: &mut Context, now: Instant) {
        let Some(slot) = self.by_handoff.get(&id).copied() else { return };
        let connection = &mut self.connections[slot];
        match connection.state.take() {
            State::Offered(offered) if offered.to == from => {
                self.by_handoff.remove(&id);
                self.passed_over(slot, from, offered.pending, reason.into(), ctx, now);
            }
            other => connection.state = other,
        }
    }

    /// A candidate failed before or after the commit, provably untouched: the next one, or a reset if even the local
    /// server could not take it.
    pub(super) fn passed_over(
        &mut self,
        slot: usize,
        candidate: NodeId,
        mut pending: Pending,
        reason: Fallback,
        ctx: &mut Context,
        now: Instant,
    ) {
        self.assign(slot, None, ctx);
        ctx.counters.fall_back(reason);
        self.note_fallback(slot, Some(candidate), reason);
        ctx.remark(candidate, |name| format!("{name} does not take it: {}", reason.label()));
        log::debug!("fell back flow={} candidate={} reason={}", self.connections[slot].flow, candidate.0, reason.label());
        if candidate == ctx.node {
            self.reset_unserved(slot, pending.undecided.client, End::NoServer, ctx, now);
            ctx.first_flight_bytes -= pending.undecided.flight.held_bytes();
            return;
        }
        pending.deadline = pending.deadline.max(now);
        self.try_next(slot, pending, ctx, now);
    }

    /// The owner's kernel has the first flight.
    pub fn handle_delivered(&mut self, from: NodeId, id: HandoffId, ctx: &mut Context) {
        let session = ctx.peer(from).map_or(0, |peer| peer.sessions);
        if let Some(handed_off) = self.handed_off_mut(from, id) {
            handed_off.confirmed_in = session;
            if let Some(pending) = handed_off.pending.take() {
                ctx.first_flight_bytes -= pending.undecided.flight.held_bytes();
                if let Some(slot) = self.by_handoff.get(&id) {
                    self.count_outcome(*slot, Some(from), Self::outcome_at(from, ctx), ctx);
                }
            }
        }
    }

    /// The owner gives it back, untouched.
    pub fn handle_returned(&mut self, from: NodeId, id: HandoffId, ctx: &mut Context, now: Instant) {
        let Some(slot) = self.by_handoff.get(&id).copied() else { return };
        let Some(handed_off) = self.handed_off_mut(from, id) else { return };
        let Some(mut pending) = handed_off.pending.take() else {
            // Handed off in an earlier life of this process: what the client sent is not known any more.
            return self.lose(slot, ctx, now);
        };
        pending.deadline = now + limits::REPLAY_DEADLINE * 2;
        if let Some(client) = handed_off.client {
            pending.undecided.client = client;
        }
        self.by_handoff.remove(&id);
        self.passed_over(slot, from, *pending, Fallback::Returned, ctx, now);
    }

    /// The owner says the connection is over. A SYN that came meanwhile begins the next one.
    pub fn handle_closed(&mut self, from: NodeId, id: HandoffId, ctx: &mut Context, now: Instant) {
        let Some(slot) = self.by_handoff.get(&id).copied() else { return };
        let flow = self.connections[slot].flow;
        let Some(handed_off) = self.handed_off_mut(from, id) else { return };
        let kept_syn = handed_off.kept_syn.take().filter(|kept| now.saturating_duration_since(kept.0) <= limits::SYN_LIFETIME);
        if handed_off.is_linked {
            ctx.outputs.push_back(Output::Unlink(from, flow));
        }
        let outcome = Self::outcome_at(from, ctx);
        if let Some(pending) = handed_off.pending.take() {
            ctx.first_flight_bytes -= pending.undecided.flight.held_bytes();
            self.count_outcome(slot, Some(from), outcome, ctx);
        }
        self.tell(slot, Some(from), outcome, End::Closed, ctx);
        self.by_handoff.remove(&id);
        self.assign(slot, None, ctx);
        let connection = &mut self.connections[slot];
        connection.state = State::Lingering(from);
        connection.since = now;
        if from != ctx.node {
            ctx.counters.handoffs_closed += 1;
        }
        let linger = ctx.policy.limits.linger;
        self.set_alarm(slot, now + linger, ctx);
        let Some(syn) = kept_syn.map(|kept| kept.1) else { return };
        if from != ctx.node && ctx.service_of(flow.frontend).is_some_and(|service| service.decides_on_syn()) {
            self.forget(slot, ctx);
            self.reopened_by(from, flow, syn, ctx, now);
        } else {
            self.begin_anew(slot, syn, ctx, now);
        }
    }

    pub(super) fn handed_off_mut(&mut self, from: NodeId, id: HandoffId) -> Option<&mut HandedOff> {
        let slot = *self.by_handoff.get(&id)?;
        match &mut self.connections.get_mut(slot)?.state {
            State::HandedOff(handed_off) if handed_off.to == from && handed_off.id == id => Some(handed_off),
            _ => None,
        }
    }
}
