//! What goes wrong, and how it is put right again.

use super::bytes::NAMES;
use super::cluster::read;
use super::errors;
use super::node::Input;
use super::plan::{Fault, Forgery};
use super::rules::Seen;
use super::world::{Event, World};
use baton::flow::Endpoint;
use baton::handoff::Engine;
use baton::rewrite::{Flags, Offload, Segment, SegmentSpec, Seq, ToClientWire, ToServerWire};
use drill::random::Random;
use smoltcp::socket::tcp::State;
use std::collections::VecDeque;
use std::rc::Rc;

impl World {
    pub fn apply(&mut self, index: usize, fault: &Fault, is_over: bool) {
        let now = self.now;
        match *fault {
            Fault::PartClient { client, up, down, lasts } => {
                let host = &mut self.clients[client];
                if up {
                    host.up.parted_until = host.up.parted_until.max(now + lasts);
                }
                if down {
                    host.down.parted_until = host.down.parted_until.max(now + lasts);
                }
            }
            Fault::PartOverlay { from, to, lasts } => {
                let link = self.overlay.get_mut(&(from, to)).expect("a path between any two nodes");
                link.parted_until = link.parted_until.max(now + lasts);
            }
            Fault::StallControl { a, b, lasts } => self.sessions.stall(a, b, now + lasts),
            Fault::BreakControl { a, b, noticed } => {
                if let Some(session) = self.sessions.between(a, b) {
                    self.break_session(session, noticed);
                }
            }
            Fault::Crash { node, lasts, is_silent } => {
                if is_over {
                    self.start(node);
                } else if self.nodes[node].life.is_some() {
                    self.crash(node, is_silent);
                    self.fault_over(index, lasts);
                }
            }
            Fault::Hang { node, lasts } => self.hang(node, index, lasts, is_over),
            Fault::StopApplication { node, lasts } => {
                let its = &mut self.nodes[node];
                if is_over {
                    its.application.start(&mut its.kernel);
                } else if its.application.is_running {
                    its.application.stop(&mut its.kernel);
                    self.fault_over(index, lasts);
                }
                self.nodes[node].is_dirty = true;
            }
            Fault::Drain { node, lasts } => {
                if !is_over {
                    self.fault_over(index, lasts);
                }
                self.set_draining(node, !is_over);
            }
            Fault::Reload { node, variant } => self.reload(node, variant),
            Fault::FailGuards { node, lasts } => {
                let its = &mut self.nodes[node];
                its.guards_fail_until = its.guards_fail_until.max(now + lasts);
            }
            Fault::FillQueue { node, lasts } => {
                if !is_over {
                    self.fault_over(index, lasts);
                }
                let fills = |fault: &Fault| match fault {
                    Fault::FillQueue { node: other, lasts } if *other == node => Some(*lasts),
                    _ => None,
                };
                self.nodes[node].kernel.queue_is_full = !is_over || self.still(index, fills);
            }
            Fault::Forge { forgery, pick } => self.forge(forgery, pick),
            Fault::Stop { node, patience, lasts } => self.begin_stop(node, patience, lasts),
            Fault::Narrow { client, up, mtu, lasts } => {
                let least = if self.facts.plan.clients[client].is_v6 { 1_280 } else { 0 };
                let host = &mut self.clients[client];
                let link = if up { &mut host.up } else { &mut host.down };
                link.mtu = if is_over { usize::MAX } else { mtu.max(least) };
                if !is_over {
                    self.fault_over(index, lasts);
                }
            }
            Fault::Fragment { client, permille, lasts } => {
                self.clients[client].up.fragment_permille = if is_over { 0 } else { permille };
                if !is_over {
                    self.fault_over(index, lasts);
                }
            }
        }
    }

    fn crash(&mut self, node: usize, is_silent: bool) {
        self.collect_counters(node);
        self.nodes[node].life = None;
        self.see(&Seen::Life { node });
        for session in self.sessions.alive_of(node) {
            // The kernel closes its connections, or nobody hears from it until the silence is too long.
            let after = if is_silent { 2_000_000 } else { self.facts.plan.control_delay };
            self.break_session(session, [after, after]);
        }
        self.nodes[node].is_dirty = true;
    }

    pub fn start(&mut self, node: usize) {
        if self.nodes[node].life.is_some() {
            return;
        }
        let now = self.instant();
        if self.sabotage == Some(super::sabotage::Sabotage::StartDestroysAll) {
            let its = &mut self.nodes[node];
            its.application.stop(&mut its.kernel);
            its.application.start(&mut its.kernel);
        }
        self.nodes[node].start(node, &self.facts.plan, now);
        self.see(&Seen::Life { node });
        self.drain(node);
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.dial(node, peer);
        }
    }

    fn hang(&mut self, node: usize, index: usize, lasts: u64, is_over: bool) {
        if is_over {
            let began = self.facts.plan.faults[index].0;
            let is_this = |life: &super::node::Life| life.hung.as_ref().is_some_and(|(since, _)| *since == began);
            if self.nodes[node].life.as_ref().is_some_and(is_this) {
                self.wake_process(node);
                for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
                    self.dial(node, peer);
                }
            }
            return;
        }
        let now = self.now;
        let Some(life) = &mut self.nodes[node].life else { return };
        if life.hung.is_some() {
            return;
        }
        life.hung = Some((now, VecDeque::new()));
        self.fault_over(index, lasts);
        if lasts > 2_000_000 {
            // Its peers have heard nothing for too long; it finds the sessions closed when it goes on.
            for session in self.sessions.alive_of(node) {
                let ends = self.sessions.get(session).ends;
                for end in ends {
                    self.post(2_000_000, Event::ToProcess { node: end, input: Input::Broken(session) });
                }
                self.sessions.get(session).is_alive = false;
            }
        }
    }

    pub fn set_draining(&mut self, node: usize, draining: bool) {
        let now = self.instant();
        let Some(life) = &mut self.nodes[node].life else { return };
        // What stops goes on stopping.
        let is_stopping = life.stops_at.is_some() && !draining;
        if life.hung.is_some() || life.is_draining == draining || is_stopping {
            return;
        }
        if draining {
            life.engine.drain(now);
        } else {
            life.engine.undrain();
        }
        self.drain(node);
        self.say_draining(node, draining);
    }

    fn reload(&mut self, node: usize, variant: usize) {
        let now = self.instant();
        let policy = read(&self.facts.plan, variant).compile(NAMES[node]).expect("the node is in the file");
        let its = &mut self.nodes[node];
        its.variant = variant;
        let Some(life) = its.life.as_mut().filter(|life| life.hung.is_none()) else { return };
        its.policy = Rc::new(policy);
        life.engine.replace_policy(Rc::clone(&its.policy), now);
        self.drain(node);
    }

    // ---- Strangers --------------------------------------------------------------------------------------------------

    fn forge(&mut self, forgery: Forgery, pick: u64) {
        let mut random = Random::new(pick);
        match forgery {
            Forgery::OverlayNoise | Forgery::OverlayAgain | Forgery::OverlayCorrupt => {
                if self.overheard_overlay.is_empty() {
                    return;
                }
                let index = random.below(self.overheard_overlay.len() as u64) as usize;
                let (node, mut datagram) = self.overheard_overlay[index].clone();
                match forgery {
                    Forgery::OverlayNoise => datagram.iter_mut().skip(1).for_each(|octet| *octet = random.next() as u8),
                    Forgery::OverlayCorrupt => {
                        let at = random.below(datagram.len() as u64) as usize;
                        datagram[at] ^= 1 << random.below(8);
                    }
                    // Once more what is certain to have been there.
                    _ if self.facts.plan.is_only_forged() => {}
                    _ => return,
                }
                if forgery == Forgery::OverlayAgain {
                    // It may still be on its way: then it is the later one that is nothing.
                    return self.post(random.below(2_000_000), Event::ToProcess { node, input: Input::Overlay(datagram) });
                }
                self.give_forged(node, Input::Overlay(datagram));
            }
            Forgery::Error => self.forge_error(&mut random),
            _ => self.forge_segment(forgery, &mut random),
        }
    }

    /// That a packet was too big, of which its maker knows the ends only.
    fn forge_error(&mut self, random: &mut Random) {
        let recent = self.overheard.len().min(40);
        if recent == 0 {
            return;
        }
        let index = self.overheard.len() - 1 - random.below(recent as u64) as usize;
        let Ok(model) = Segment::<_, ToServerWire>::parse(self.overheard[index].clone()) else { return };
        let Some(node) = self.way(&self.overheard[index].clone()) else { return };
        let quoted = SegmentSpec::<ToClientWire> {
            source: model.destination(),
            destination: model.source(),
            seq: Seq::new(model.ack().raw().wrapping_add(0x2000_0000).wrapping_add(random.next() as u32 >> 2)),
            ack: model.seq(),
            flags: Flags::ACK,
            window: 0,
            mss: None,
            window_scale: None,
            sack_permitted: false,
            timestamps: None,
            traffic_class: 0,
            payload: &[0x58; 200],
        };
        let error = errors::too_big(&quoted.build().into_inner(), *random.pick(&[68, 552, 600, 1_280]));
        *self.odd.entry("forged errors").or_default() += 1;
        if self.nodes[node].is_awake() {
            self.give_forged(node, Input::Tun(error, Offload::NONE));
        } else {
            self.arrive(node, error);
        }
    }

    fn forge_segment(&mut self, forgery: Forgery, random: &mut Random) {
        if self.overheard.is_empty() {
            return;
        }
        // Most connections are over soon: the latest packets are of those that live.
        let recent = self.overheard.len().min(40) as u64;
        let index = self.overheard.len() - 1 - random.below(recent) as usize;
        let mut packet = self.overheard[index].clone();
        let Ok(model) = Segment::<_, ToServerWire>::parse(packet.clone()) else { return };
        let Some(node) = self.way(&packet) else { return };
        if forgery == Forgery::CorruptCopy {
            let payload = model.payload().len();
            if payload == 0 {
                return;
            }
            let at = packet.len() - 1 - random.below(payload as u64) as usize;
            packet[at] ^= 1 << random.below(8);
        } else {
            let octets = vec![0x58; random.between(1, 1_000) as usize];
            let is_exact = self.sabotage == Some(super::sabotage::Sabotage::ResetOfTheClient);
            let (flags, payload) = match forgery {
                Forgery::Reset => (Flags::RST, &[][..]),
                Forgery::Syn => (Flags::SYN, &[][..]),
                Forgery::Data => (Flags::ACK, octets.as_slice()),
                _ => (Flags::ACK, &[][..]),
            };
            // Far from any window: a stranger guesses one in ten thousands.
            let far =
                |seq: u32, random: &mut Random| Seq::new(seq.wrapping_add(0x2000_0000).wrapping_add(random.next() as u32 >> 2));
            if forgery == Forgery::Syn && !self.is_served(node, model.destination(), model.source()) {
                return;
            }
            let spec = SegmentSpec::<ToServerWire> {
                source: model.source(),
                destination: model.destination(),
                seq: if is_exact { model.seq_end() } else { far(model.seq().raw(), random) },
                ack: Seq::new(far(model.ack().raw(), random).raw()),
                flags,
                window: random.next() as u16,
                mss: None,
                window_scale: None,
                sack_permitted: false,
                timestamps: model.timestamps().filter(|_| forgery != Forgery::Reset),
                traffic_class: 0,
                payload,
            };
            packet = spec.build().into_inner();
        }
        // Nothing of this client's to this address is meant to be new.
        let flow = baton::flow::FlowKey { client: model.source(), frontend: model.destination() };
        let its = &self.nodes[node];
        let is_captured = its.guards.contains(&flow) || its.policy.is_own_frontend(flow.frontend);
        if self.nodes[node].is_awake() && is_captured {
            self.give_forged(node, Input::Tun(packet, Offload::NONE));
        } else {
            self.arrive(node, packet);
        }
    }

    /// Somebody has the connection: a SYN would not begin another.
    fn is_served(&self, node: usize, frontend: Endpoint, client: Endpoint) -> bool {
        let now = self.instant();
        let kernel = &self.nodes[node].kernel;
        let is_live =
            |state: &str| matches!(state, "handshake" | "undecided" | "parked" | "offered" | "releasing" | "handed-off");
        if self.nodes[node].life.as_ref().is_some_and(|life| life.hung.is_some()) {
            // It would be heard when something else is.
            return false;
        }
        let mut flows = self.nodes[node].life.iter().flat_map(|life| Engine::flows(&life.engine, now));
        // What its owner's kernel does not have any more may begin anew.
        let is_there = |state: &str| state != "handed-off" || self.nodes.iter().any(|node| node.kernel.serves(client));
        let is_known = flows.any(|view| {
            (view.flow.client, view.flow.frontend) == (client, frontend) && is_live(view.state) && is_there(view.state)
        });
        let has_connection = |index| matches!(kernel.state(index), State::Established | State::CloseWait);
        !kernel.gives_cookies && (is_known || kernel.find(frontend, client).is_some_and(has_connection))
    }

    fn give_forged(&mut self, node: usize, input: Input) {
        if !self.nodes[node].is_awake() {
            return;
        }
        let before = self.shown(node);
        self.trace.say(self.now, || format!("FORGED for {}: {input:?}", NAMES[node]));
        self.give(node, input);
        let after = self.shown(node);
        self.see(&Seen::Forged { node, before: &before, after: &after });
    }

    /// What the engine shows of connections that live.
    fn shown(&self, node: usize) -> String {
        let now = self.instant();
        let flows = self.nodes[node].life.iter().flat_map(|life| Engine::flows(&life.engine, now));
        // What is over may give way to what is new.
        let flows = flows.filter(|view| !matches!(view.state, "lingering" | "lost" | "over" | "abandoned" | "asking" | "known"));
        let shown = flows.map(|view| format!("{} {} {} {:?} {:?}", view.flow, view.role, view.state, view.peer, view.socket));
        shown.collect::<Vec<_>>().join("; ")
    }
}
