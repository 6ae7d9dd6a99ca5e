//! From any moment, with no more faults: the connection ends, and nothing is left of it.

use crate::client::Sends;
use crate::kernel::Tcp;
use crate::world::World;
use baton::handoff::Engine;
use std::time::Duration;

/// Inputs until everything on its way has arrived; far more than there ever are.
const INPUTS_MAX: usize = 1_000;
/// How long the connection may take to end once nothing fails any more: a silent owner is waited for 30 s, orphans 10 s,
/// and a held client is decided by default after 60 s.
const END_WITHIN: Duration = Duration::from_secs(120);
/// And how long both nodes may remember it: two lingers, one behind the other, and the idle checks before.
const FORGET_WITHIN: Duration = Duration::from_secs(600);

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum End {
    ServedByA,
    ServedByB,
    Reset,
}

impl World {
    /// Runs without faults until the client has its answer or a reset; with `to_the_last`, until both nodes have forgotten.
    pub fn finish(&mut self, to_the_last: bool) -> Result<End, String> {
        self.heal();
        let (mut passed, mut end) = (Duration::ZERO, None);
        loop {
            self.come_to_rest()?;
            for sends in self.client.may_send() {
                if self.nodes[0].is_hung {
                    break;
                }
                let packet = self.client.packet(sends);
                self.arrive(packet);
                self.come_to_rest()?;
            }
            for node in 0..2 {
                let owing: Vec<_> = self.nodes[node].kernel.owing().collect();
                for socket in owing {
                    // An earlier one may have ended the connection.
                    if self.nodes[node].kernel.owing().any(|owing| owing == socket) {
                        let packet = self.nodes[node].kernel.resend(socket);
                        self.route_from_kernel(node, packet);
                        self.come_to_rest()?;
                    }
                }
            }
            if let Some(broken) = &self.seen.broken {
                return Err(broken.clone());
            }
            let is_over = self.client.is_over();
            if is_over {
                let end = *end.get_or_insert(match self.client.stream.first() {
                    _ if self.client.is_reset => End::Reset,
                    Some(b'A') => End::ServedByA,
                    _ => End::ServedByB,
                });
                if !to_the_last || self.is_forgotten() {
                    return Ok(end);
                }
            }
            let bound = if is_over { FORGET_WITHIN } else { END_WITHIN };
            if passed > bound {
                let states = (self.labels(0), self.labels(1));
                return Err(if is_over {
                    let guarded = [self.nodes[0].is_guarded, self.nodes[1].is_guarded];
                    format!("remembered for ever: {states:?}, guarded: {guarded:?}")
                } else {
                    format!("neither served nor reset after {END_WITHIN:?} without faults: {states:?}")
                });
            }
            passed += self.next_deadline();
            if is_over {
                self.nodes.iter_mut().for_each(|node| node.kernel.sockets.retain(|socket| socket.tcp == Tcp::Open));
            }
        }
    }

    fn is_forgotten(&self) -> bool {
        let is_empty = |node: usize| self.labels(node).is_empty() && !self.nodes[node].is_guarded;
        let has_orphans =
            self.nodes[0].engine.iter().flat_map(Engine::counters).any(|(name, count)| name == "orphans" && count > 0);
        is_empty(0) && is_empty(1) && !has_orphans
    }

    /// All faults are over.
    fn heal(&mut self) {
        (self.loses_next, self.armed) = (false, None);
        for node in 0..2 {
            self.nodes[node].kernel.is_full = false;
            if !self.is_alive(node) {
                self.restart(node);
            }
            if self.nodes[node].is_hung {
                self.resume(node);
            }
        }
    }

    /// Everything on its way arrives, and everyone does what there is to do at once.
    fn come_to_rest(&mut self) -> Result<(), String> {
        for _ in 0..INPUTS_MAX {
            if !self.do_something() {
                return Ok(());
            }
            self.check();
        }
        Err("the nodes do not come to rest".to_owned())
    }

    fn do_something(&mut self) -> bool {
        for node in 0..2 {
            if let Some(packet) = self.nodes[node].tun.pop_front() {
                self.read_packet(node, packet);
                return true;
            }
            let waiting = self.nodes[node].kernel.waiting().next();
            if let Some(socket) = waiting {
                let packet = self.nodes[node].kernel.answer(socket);
                self.route_from_kernel(node, packet);
                return true;
            }
            if !self.session.is_intact && self.session.is_up[node] {
                self.notice_break(node);
                return true;
            }
        }
        if !self.session.is_intact {
            self.session.is_intact = true;
            self.session.to = Default::default();
            return true;
        }
        for node in 0..2 {
            if !self.session.is_up[node] {
                self.up(node);
                return true;
            }
            if !self.session.to[node].is_empty() {
                self.hear(node, false);
                return true;
            }
        }
        if !self.overlay.is_empty() {
            self.take_from_overlay(0);
            return true;
        }
        if self.client.is_reset && !self.client.may_send().is_empty() {
            let packet = self.client.packet(Sends::Reset);
            self.arrive(packet);
            return true;
        }
        false
    }

    /// Both clocks move on to the first deadline of either node.
    fn next_deadline(&mut self) -> Duration {
        let left = |node: &crate::world::Node| {
            let at = node.engine.as_ref().and_then(Engine::poll_timeout);
            at.map(|at| at.saturating_duration_since(node.now))
        };
        let step = self.nodes.iter().filter_map(left).min().unwrap_or_default();
        for node in 0..2 {
            self.nodes[node].now += step;
            self.with_engine(node, Engine::handle_timeout);
        }
        self.check();
        step
    }
}
