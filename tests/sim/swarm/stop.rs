//! `baton stop`: capture ends first, what was handed off may finish, the rest is reset, and the host is as it was.

use super::bytes::NAMES;
use super::rules::Seen;
use super::world::{Event, World};
use baton::control::message::Epoch;
use baton::limits::STOP_INTERVAL;

impl World {
    pub fn begin_stop(&mut self, node: usize, patience: u64, lasts: u64) {
        let now = self.now;
        let Some(life) = self.nodes[node].life.as_mut().filter(|life| life.hung.is_none() && life.stops_at.is_none()) else {
            return;
        };
        life.stops_at = Some(now + patience);
        let epoch = life.epoch;
        self.set_draining(node, true);
        if let Some(life) = &mut self.nodes[node].life {
            // From now on new connections go past the process.
            life.is_released = true;
        }
        self.look_for_end(node, epoch, lasts);
    }

    /// Whether anything still lives.
    pub fn look_for_end(&mut self, node: usize, epoch: Epoch, lasts: u64) {
        let now = self.now;
        let Some(life) = self.nodes[node].life.as_ref().filter(|life| life.epoch == epoch) else { return };
        let is_due = life.stops_at.is_some_and(|at| at <= now) || life.engine.live() == 0;
        if life.hung.is_some() || !is_due {
            return self.post(STOP_INTERVAL.as_micros() as u64, Event::MayEnd { node, epoch, lasts });
        }
        let cut = life.engine.live() as u64;
        *self.odd.entry("stops").or_default() += 1;
        *self.odd.entry("connections cut by stops").or_default() += cut;
        self.trace.say(now, || format!("{}: stops, {cut} connections are cut", NAMES[node]));
        let instant = self.instant();
        if let Some(life) = &mut self.nodes[node].life {
            life.engine.reset_all(instant);
        }
        self.drain(node);
        // What the resets make the kernel say still goes through the process.
        self.run_kernel(node);
        self.collect_counters(node);
        let its = &mut self.nodes[node];
        its.life = None;
        its.guards.clear();
        let policy = std::rc::Rc::clone(&its.policy);
        its.kernel.destroy_all(|local| policy.is_alias(local.address));
        its.is_dirty = true;
        self.see(&Seen::Life { node });
        for session in self.sessions.alive_of(node) {
            let after = self.facts.plan.control_delay;
            self.break_session(session, [after, after]);
        }
        self.post(lasts, Event::Start { node });
    }
}
