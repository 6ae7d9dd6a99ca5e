//! What an ingress is told and what it says beside the handoff itself.

use super::*;

impl Utcp {
    /// A session with an ingress is up: it is told what this node owns of what arrives there, and what is over.
    pub fn handle_peer_up(&mut self, peer: NodeId, epoch: Epoch, born_anew: bool, ctx: &mut Context) {
        self.complaints.retain(|(from, _)| *from != peer);
        if born_anew {
            // Nobody is left who could repeat a commit of an earlier life.
            self.applied.retain(|(from, id)| *from != peer || id.epoch == epoch);
        }
        for (_, connection) in self.connections.iter().filter(|(_, connection)| connection.ingress == peer) {
            let id = connection.id;
            match &connection.state {
                State::Delivering(_) | State::Returning(_) | State::Established(_) => {
                    ctx.say(peer, Message::Owned { id, flow: connection.flow });
                }
                State::Opening(opening) if opening.is_completed() => {
                    ctx.say(peer, Message::Owned { id, flow: connection.flow });
                }
                State::Over(_) => ctx.say(peer, Message::Closed { id }),
                State::Replaying(_) | State::Prepared(_) | State::Opening(_) | State::Abandoned | State::Moving => {}
            }
        }
        ctx.say(peer, Message::OwnedEnd);
    }

    /// The ingress has given this connection up and reset its client: nothing may be sent for it any more. (The client may
    /// use its port again already, so it is not reset from here.)
    pub fn handle_disowned(&mut self, from: NodeId, id: HandoffId, ctx: &mut Context, now: Instant) {
        let Some(slot) = self.slot_of_handoff(id) else { return };
        let connection = &mut self.connections[slot];
        if connection.ingress != from {
            return;
        }
        if !matches!(connection.state, State::Delivering(_) | State::Returning(_) | State::Opening(_) | State::Established(_)) {
            return;
        }
        ctx.counters.disowned += 1;
        ctx.outputs.push_back(Output::DestroySocket { local: connection.alias, remote: connection.flow.client });
        connection.state = State::Abandoned;
        connection.since = now;
        let linger = ctx.policy.limits.linger;
        self.set_alarm(slot, now + linger, ctx);
    }

    /// The ingress will not repeat these commits any more.
    pub fn handle_settled(&mut self, from: NodeId, epoch: Epoch, below: u64) {
        self.applied.retain(|(front_end, id)| *front_end != from || id.epoch != epoch || id.serial >= below);
    }
}
