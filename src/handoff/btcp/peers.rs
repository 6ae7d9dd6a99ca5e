//! What sessions that come and go mean for connections handed to a peer.

use super::*;

impl Btcp {
    /// A session with the peer is up. If the peer was born anew, whatever it owned is lost.
    pub fn handle_peer_up(&mut self, peer: NodeId, born_anew: bool, ctx: &mut Context, now: Instant) {
        for slot in self.slots_at(peer) {
            let State::HandedOff(handed_off) = &self.connections[slot].state else { continue };
            if born_anew {
                self.lose(slot, ctx, now);
            } else if let Some(pending) = &handed_off.pending {
                let more = pending.undecided.flight.bytes().get(handed_off.offered_bytes..).unwrap_or_default().to_vec();
                ctx.say(peer, Message::Commit { id: handed_off.id, more });
            }
        }
    }

    /// The session is gone: whatever was only offered is taken back.
    pub fn handle_peer_down(&mut self, peer: NodeId, ctx: &mut Context, now: Instant) {
        for slot in self.slots_at(peer) {
            match self.connections[slot].state.take() {
                State::Offered(offered) => {
                    self.by_handoff.remove(&offered.id);
                    self.passed_over(slot, peer, offered.pending, Fallback::PeerDown, ctx, now);
                }
                State::HandedOff(handed_off) => {
                    self.connections[slot].state = State::HandedOff(handed_off);
                    self.set_alarm(slot, now + limits::OWNER_LOST_AFTER, ctx);
                }
                other => self.connections[slot].state = other,
            }
        }
    }

    /// The peer owns this connection: one we know, one guarded in an earlier life, or one whose SYN it was given.
    pub fn handle_owned(&mut self, from: NodeId, id: HandoffId, flow: FlowKey, ctx: &mut Context, now: Instant) {
        let session = ctx.peer(from).map_or(0, |peer| peer.sessions);
        if let Some(handed_off) = self.handed_off_mut(from, id) {
            handed_off.confirmed_in = session;
            return;
        }
        let is_orphan = self.orphans.remove(&flow).is_some();
        let decides_on_syn = ctx.service_of(flow.frontend).is_some_and(|service| service.decides_on_syn());
        if !is_orphan && decides_on_syn && ctx.is_own_frontend(flow.frontend) {
            return self.handle_opened(from, id, flow, ctx, now);
        }
        if !is_orphan || self.slot_of(&flow).is_some() || self.by_handoff.contains_key(&id) {
            // Given up here, its client reset: the owner must not send for it any more.
            return ctx.say(from, Message::Disowned { id });
        }
        let state = State::HandedOff(HandedOff {
            to: from,
            id,
            client: None,
            pending: None,
            offered_bytes: 0,
            confirmed_in: session,
            kept_syn: None,
            is_linked: false,
        });
        let slot = self.insert(flow, state, Guard::Written, ctx, now);
        self.connections[slot].story = ctx.chronicle.adopt();
        self.by_handoff.insert(id, slot);
        self.assign(slot, Some(from), ctx);
        ctx.counters.adopted += 1;
    }

    /// The peer named all it owns. What it did not name, and had confirmed in an earlier session, is over. When all peers
    /// have spoken, orphans that nobody named have no owner.
    pub fn handle_owned_end(&mut self, from: NodeId, ctx: &mut Context, now: Instant) {
        self.heard_from.insert(from);
        let others = ctx.policy.nodes.len().saturating_sub(1);
        if self.heard_from.len() >= others {
            self.give_up_orphans(|_| true, ctx, now);
        }
        let session = ctx.peer(from).map_or(0, |peer| peer.sessions);
        for slot in self.slots_at(from) {
            if let State::HandedOff(handed_off) = &self.connections[slot].state
                && handed_off.confirmed_in < session
            {
                let id = handed_off.id;
                self.handle_closed(from, id, ctx, now);
            }
        }
    }

    /// The lowest serial whose commit to this peer may yet be repeated.
    pub fn settled_below(&mut self, peer: NodeId, ctx: &Context) -> u64 {
        self.forget_settled(peer, ctx);
        let first = self.offered_to.get(&peer).and_then(|offered| offered.front());
        first.copied().unwrap_or(ctx.next_serial)
    }

    /// Remembers an offer until its commit is settled, so that nobody has to look through all connections for it.
    pub(super) fn note_offer(&mut self, to: NodeId, id: HandoffId, ctx: &Context) {
        // This node tells itself nothing.
        if to != ctx.node {
            self.forget_settled(to, ctx);
            self.offered_to.entry(to).or_default().push_back(id.serial);
        }
    }

    fn forget_settled(&mut self, peer: NodeId, ctx: &Context) {
        let Some(offered) = self.offered_to.get(&peer) else { return };
        let is_settled = |serial: &u64| !self.may_be_repeated(HandoffId { epoch: ctx.epoch, serial: *serial });
        let settled = offered.iter().take_while(|serial| is_settled(serial)).count();
        if let Some(offered) = self.offered_to.get_mut(&peer) {
            offered.drain(..settled);
        }
    }

    /// Whether the commit of this offer may yet be sent, or sent again.
    fn may_be_repeated(&self, id: HandoffId) -> bool {
        let connection = self.by_handoff.get(&id).and_then(|slot| self.connections.get(*slot));
        connection.is_some_and(|connection| match &connection.state {
            State::HandedOff(handed_off) => handed_off.id == id && handed_off.pending.is_some(),
            State::Offered(offered) | State::Securing(Securing::Commit(offered)) => offered.id == id,
            _ => false,
        })
    }

    pub(super) fn slots_at(&self, peer: NodeId) -> Vec<usize> {
        self.connections
            .iter()
            .filter(|(_, connection)| match &connection.state {
                State::Offered(offered) | State::Securing(Securing::Commit(offered)) => offered.to == peer,
                State::HandedOff(handed_off) => handed_off.to == peer,
                _ => false,
            })
            .map(|(slot, _)| slot)
            .collect()
    }
}
