//! What happens when nothing happens.

use super::*;

impl Utcp {
    /// A deadline of one of these connections passed.
    pub fn handle_deadline(&mut self, deadline: Deadline, ctx: &mut Context, now: Instant) {
        let slot = deadline.slot;
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if connection.serial != deadline.serial || !connection.alarm.fires(deadline, now, &mut ctx.timers) {
            return;
        }
        match &connection.state {
            State::Replaying(replaying) if now >= replaying.deadline => self.refuse(slot, Refusal::BacklogFull, ctx),
            State::Replaying(replaying) => {
                ctx.write(replayed_syn(&replaying.offer, connection.alias), Why::Replay);
                let again = replaying.deadline.min(now + limits::REPLAY_DEADLINE);
                self.set_alarm(slot, again, ctx);
            }
            State::Prepared(_) => self.purge_and_forget(slot, ctx),
            State::Opening(_) => self.handle_deadline_of_opening(slot, ctx, now),
            State::Delivering(delivering) => {
                if now >= delivering.began + limits::DELIVERY_DEADLINE {
                    // First see whether it can still be returned; deliver again only if the answer is no.
                    self.ask(slot, ctx);
                    self.set_alarm(slot, now + limits::DELIVERY_INTERVAL, ctx);
                } else {
                    ctx.counters.redeliveries += 1;
                    self.deliver(slot, ctx, now);
                }
            }
            State::Returning(_) => {
                self.ask(slot, ctx);
                self.set_alarm(slot, now + limits::DELIVERY_INTERVAL, ctx);
            }
            State::Established(_) => {
                // The answer says when the next question is due; it is no later than this.
                self.ask(slot, ctx);
                self.set_alarm(slot, now + limits::IDLE_CHECK_INTERVAL_MAX, ctx);
            }
            State::Over(_) | State::Abandoned => self.forget(slot, ctx),
            State::Moving => {}
        }
    }

    pub(super) fn set_alarm(&mut self, slot: usize, at: Instant, ctx: &mut Context) {
        let connection = &mut self.connections[slot];
        connection.alarm.set(at, Owner::Utcp, slot, connection.serial, &mut ctx.timers);
    }
}
