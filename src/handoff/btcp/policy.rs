//! What a new policy means for connections that are here already. Whatever is decided stays decided.

use super::*;
use std::collections::BTreeSet;

impl Btcp {
    /// These front-end addresses are this node's no longer. What the kernel knows is the local server's from now on, and so
    /// is what only BTCP knows but nobody was asked about; what was handed off goes on.
    pub fn retire(&mut self, frontends: &BTreeSet<Endpoint>, ctx: &mut Context, now: Instant) {
        self.syns.forget_frontends(frontends);
        let is_theirs = |connection: &Connection| frontends.contains(&connection.flow.frontend);
        let slots: Vec<_> =
            self.connections.iter().filter(|(_, connection)| is_theirs(connection)).map(|(slot, _)| slot).collect();
        for slot in slots {
            match self.connections[slot].state.take() {
                State::Handshake(_) => self.forget(slot, ctx),
                State::Undecided(undecided) => {
                    let service = ctx.service_of(self.connections[slot].flow.frontend);
                    let rule = service.map_or_else(|| Rc::from("default"), |service| service.by_default(None).rule);
                    self.connections[slot].state = State::Undecided(undecided);
                    // A parked one is replayed to this node's own kernel, under the policy that it came with.
                    self.decide(slot, Decision::local(rule), ctx, now);
                }
                State::Offered(offered) if offered.pending.undecided.kernel == KernelHalf::SynReceived => {
                    self.connections[slot].state = State::Offered(offered);
                    self.take_back(slot, Fallback::FrontendRemoved, ctx);
                }
                other => self.connections[slot].state = other,
            }
        }
    }

    /// Looks at all undecided connections again, with the policy that is in force now.
    pub fn reconsider(&mut self, ctx: &mut Context, now: Instant) {
        let is_undecided = |connection: &Connection| matches!(connection.state, State::Undecided(_));
        let slots: Vec<_> =
            self.connections.iter().filter(|(_, connection)| is_undecided(connection)).map(|(slot, _)| slot).collect();
        for slot in slots {
            if let State::Undecided(undecided) = &mut self.connections[slot].state {
                undecided.looks = Looks::default();
            }
            self.examine(slot, ctx, now);
        }
    }

    /// Whether any connection, however long over, came to this front-end address.
    pub fn knows_frontend(&self, frontend: Endpoint) -> bool {
        self.connections.iter().any(|(_, connection)| connection.flow.frontend == frontend)
    }
}
