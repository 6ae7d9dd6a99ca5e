//! A node at work: where packets go on its host, what its process takes in, and what becomes of what the engine says.

use super::super::offload;
use super::application::Event as ApplicationEvent;
use super::bytes::NAMES;
use super::control;
use super::node::{Input, Life, MTU};
use super::on_syn::is_shared;
use super::plan::Kind;
use super::rules::Seen;
use super::sabotage::Sabotage;
use super::trace::Place;
use super::world::{Event, World, destination, is_alias};
use super::{ecn, errors, fragments};
use baton::control::frame::Frame;
use baton::control::message::Message;
use baton::control::seal::{HEADER_BYTES, TAG_BYTES};
use baton::flow::{Endpoint, FlowKey, NodeId};
use baton::handoff::{Output, PeerEvent, Verdict};
use baton::limits::STALL;
use baton::rewrite::{Flags, Offload, Segment, ToClientWire, ToServerWire};
use std::net::IpAddr;

/// Without a sign of life for so long, capture ends.
const ALIVE: u64 = 1_000_000;

impl World {
    // ---- The host's ways --------------------------------------------------------------------------------------------

    /// A packet from the network.
    pub fn arrive(&mut self, node: usize, packet: Vec<u8>) {
        let Ok(segment) = Segment::<_, ToServerWire>::parse(packet.as_slice()) else {
            return self.arrive_other(node, packet);
        };
        if !self.has_address(node, segment.destination().address) {
            return;
        }
        let flow = FlowKey { client: segment.source(), frontend: segment.destination() };
        let its = &self.nodes[node];
        if its.guards.contains(&flow) && self.sabotage != Some(Sabotage::NoGuards) {
            return self.give(node, Input::Tun(packet, Offload::NONE));
        }
        if its.policy.is_own_frontend(flow.frontend) && self.captures(node) {
            return self.give(node, Input::Tun(packet, Offload::NONE));
        }
        self.write_to_kernel(node, packet);
    }

    /// No whole TCP segment.
    fn arrive_other(&mut self, node: usize, packet: Vec<u8>) {
        if errors::is_icmp(&packet) {
            return match self.has_address(node, destination(&packet)) {
                // Also when nothing new is captured any more.
                true if self.is_beating(node) => self.give(node, Input::Tun(packet, Offload::NONE)),
                true => self.write_to_kernel(node, packet),
                false => {}
            };
        }
        if !fragments::is_fragment(&packet) {
            // Damaged: a host drops what is no IP packet, and captures what looks like TCP.
            return self.give_if_captured(node, packet);
        }
        if !self.has_address(node, destination(&packet)) || packet[9] != 6 {
            return;
        }
        // Fragments are the local stack's, but a guard knows the first one by its ports.
        if fragments::is_first(&packet) && packet.len() >= 24 {
            let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
            let source = IpAddr::from([packet[12], packet[13], packet[14], packet[15]]);
            let flow =
                FlowKey { client: Endpoint::new(source, port(20)), frontend: Endpoint::new(destination(&packet), port(22)) };
            if self.nodes[node].guards.contains(&flow) {
                return self.give(node, Input::Tun(packet, Offload::NONE));
            }
        }
        if let Some(whole) = self.nodes[node].reassembly.take(packet, self.now) {
            *self.odd.entry("packets put together").or_default() += 1;
            self.write(node, whole, true);
        }
    }

    fn give_if_captured(&mut self, node: usize, packet: Vec<u8>) {
        if self.nodes[node].is_awake() {
            self.give(node, Input::Tun(packet, Offload::NONE));
        }
    }

    /// The process lives, and has shown it lately.
    fn captures(&self, node: usize) -> bool {
        self.is_beating(node) && self.nodes[node].life.as_ref().is_some_and(|life| !life.is_released)
    }

    fn is_beating(&self, node: usize) -> bool {
        let now = self.now;
        self.nodes[node].life.as_ref().is_some_and(|life| life.hung.as_ref().is_none_or(|(since, _)| now < since + ALIVE))
    }

    fn write_to_kernel(&mut self, node: usize, packet: Vec<u8>) {
        self.write(node, packet, false);
    }

    /// If the connection of a packet that was put together is guarded by now, its first fragment came before that.
    fn write(&mut self, node: usize, mut packet: Vec<u8>, is_put_together: bool) {
        if let Ok(segment) = Segment::<_, ToServerWire>::parse(packet.as_slice()) {
            let flow = FlowKey { client: segment.source(), frontend: segment.destination() };
            let ends = (segment.destination(), segment.source());
            let is_guarded = self.nodes[node].guards.contains(&flow) && !is_put_together;
            self.trace.packet(self.now, Place::Kernel(node), false, &packet);
            self.trace.say(self.now, || format!("kernel {} < {segment}", NAMES[node]));
            self.see(&Seen::Written { node, packet: &packet, is_guarded });
            if let Some(relabel) = &mut self.relabel {
                relabel[node].inward(ends, &mut packet);
            }
        }
        if let (Some(relabel), Some(error)) = (&self.relabel, errors::read(&packet, |_| true)) {
            relabel[node].inward_error((error.source, error.destination), &mut packet);
        }
        self.nodes[node].kernel.receive(packet, self.now);
        self.nodes[node].is_dirty = true;
    }

    /// What baton writes: to its own kernel, or out to a client.
    fn write_to_tun(&mut self, node: usize, packet: Vec<u8>) {
        let to = destination(&packet);
        if self.client_of(to).is_some() {
            return self.leave(node, packet, false);
        }
        if self.has_address(node, to) || is_alias(to) {
            return self.write_to_kernel(node, packet);
        }
        // Somebody flipped a bit of an address: no route.
        if !self.facts.plan.kinds.contains(&Kind::Corruption) {
            self.blame(format!("node {} writes a packet to nowhere: {to}", NAMES[node]));
        }
    }

    fn leave(&mut self, node: usize, mut packet: Vec<u8>, is_direct: bool) {
        let now = self.now;
        if let Some(sabotage) = self.sabotage {
            sabotage.change(&mut packet);
        }
        if let Ok(segment) = Segment::<_, ToClientWire>::parse(packet.as_slice()) {
            let flow = FlowKey { client: segment.destination(), frontend: segment.source() };
            let is_guarded = self.nodes[node].guards.contains(&flow);
            self.trace.say(now, || format!("{} > {segment}{}", NAMES[node], if is_direct { " (its kernel)" } else { "" }));
            if segment.flags().contains(Flags::SYN) {
                let tsval = segment.timestamps().map_or(0, |(tsval, _)| tsval.raw());
                self.syn_acks.insert(flow, (segment.seq().raw(), tsval, now));
            }
            let is_other = self.sabotage == Some(Sabotage::OtherNodeSends) && segment.seq().raw() % 3 == 0;
            let from = if is_other { (node + 1) % self.nodes.len() } else { node };
            self.see(&Seen::Left { node: from, packet: &packet, is_direct, is_guarded });
        }
        let Some(client) = self.client_of(destination(&packet)) else {
            return self.blame(format!("node {} sends a packet to nobody", NAMES[node]));
        };
        if packet.len() > MTU {
            return self.blame(format!("node {} sends a packet of {} octets", NAMES[node], packet.len()));
        }
        if self.sabotage == Some(Sabotage::AnswersLost) {
            return;
        }
        for packet in self.pass_router(client, false, packet) {
            for (at, packet) in self.clients[client].down.carry(packet, now, &mut self.random) {
                self.post_at(at, Event::ToClient { client, packet });
            }
        }
    }

    /// Kernel and application work; what the kernel sends is captured, or leaves.
    pub fn run_kernel(&mut self, node: usize) {
        let now = self.now;
        let mut events = Vec::new();
        let its = &mut self.nodes[node];
        its.kernel.poll(now);
        its.application.run(&mut its.kernel, now, &mut events);
        its.kernel.poll(now);
        let sent = its.kernel.outgoing(now);
        its.kernel.sweep();
        its.poll_at = [its.kernel.poll_at(now), its.application.poll_at()].into_iter().flatten().min();
        for event in events {
            self.trace.say(now, || match &event {
                ApplicationEvent::Read { serial, octets, .. } => {
                    format!("application {}: {serial} reads {}", NAMES[node], octets.len())
                }
                event => format!("application {}: {event:?}", NAMES[node]),
            });
            self.see(&Seen::Application { node, event: &event });
            if self.sabotage == Some(Sabotage::RequestAgain) {
                let again = matches!(event, ApplicationEvent::Request { .. });
                again.then(|| self.see(&Seen::Application { node: (node + 1) % self.nodes.len(), event: &event }));
            }
        }
        let mut captured = Vec::new();
        for mut packet in sent {
            let segment = Segment::<_, ToClientWire>::parse(packet.as_slice()).expect("kernels send TCP only");
            let (source, ends) = (segment.source(), (segment.source(), segment.destination()));
            let is_syn_ack = segment.flags().contains(Flags::SYN.with(Flags::ACK));
            let is_reset = segment.flags().contains(Flags::RST) && !segment.flags().contains(Flags::ACK);
            if is_alias(source.address) && self.relabel.is_some() {
                self.relabel_outward(node, ends, &mut packet);
            }
            self.trace.packet(now, Place::Kernel(node), true, &packet);
            let is_of_replay = is_alias(source.address) && self.sabotage != Some(Sabotage::AliasLeaves);
            let is_of_frontend =
                (is_syn_ack || is_reset) && self.nodes[node].policy.is_own_frontend(source) && self.captures(node);
            if is_of_replay || is_of_frontend {
                captured.push(packet);
            } else {
                self.leave(node, packet, true);
            }
        }
        let has_offload = self.facts.plan.has_offload;
        let captured = if has_offload {
            offload::joined(captured)
        } else {
            captured.into_iter().map(|packet| (packet, Offload::NONE)).collect()
        };
        for (packet, offload) in captured {
            // Without a process there is a blackhole.
            self.give(node, Input::Tun(packet, offload));
        }
    }

    fn relabel_outward(&mut self, node: usize, ends: (baton::flow::Endpoint, baton::flow::Endpoint), packet: &mut [u8]) {
        let Ok(segment) = Segment::<_, ToClientWire>::parse(&*packet) else { return };
        let kernel = (segment.seq().raw(), segment.timestamps().map_or(0, |(tsval, _)| tsval.raw()));
        let is_syn_ack = segment.flags().contains(Flags::SYN);
        let frontend = self.nodes[node].frontend_of(ends.0);
        let now = self.now;
        let Some(relabel) = &self.relabel else { return };
        if is_syn_ack
            && !relabel[node].knows(ends, kernel.0)
            && let Some(frontend) = frontend
        {
            let flow = FlowKey { client: ends.1, frontend };
            let own = self.syn_acks.get(&flow).map(|(isn, tsval, at)| (*isn, tsval.wrapping_add(((now - at) / 1_000) as u32)));
            let is_own = self.facts.frontends.iter().position(|known| *known == frontend).is_some()
                && self.node_of(frontend.address) == Some(node);
            let promised = if is_own { own } else { self.offered.get(&flow).copied() };
            if let (Some(promised), Some(relabel)) = (promised, &mut self.relabel) {
                relabel[node].learn(ends, kernel, promised);
            }
        }
        if let Some(relabel) = &self.relabel {
            relabel[node].outward(ends, packet);
        }
    }

    // ---- The process ------------------------------------------------------------------------------------------------

    /// Something for a process: taken, or waiting while it stands still, or gone if there is none.
    pub fn give(&mut self, node: usize, input: Input) {
        match &mut self.nodes[node].life {
            None => {}
            Some(Life { hung: Some((_, waiting)), .. }) => waiting.push_back(input),
            Some(_) => self.take(node, input),
        }
    }

    fn take(&mut self, node: usize, input: Input) {
        match input {
            Input::Tun(packet, offload) => self.take_tun(node, packet, offload),
            Input::Overlay(datagram) => self.take_overlay(node, datagram),
            Input::Control(session, octets) => self.take_control(node, session, &octets),
            Input::Broken(session) => self.take_broken(node, session),
        }
    }

    /// It has stood still, and goes on.
    pub fn wake_process(&mut self, node: usize) {
        let (now, instant) = (self.now, self.instant());
        let Some(life) = &mut self.nodes[node].life else { return };
        let Some((since, waiting)) = life.hung.take() else { return };
        // The last beat was up to a quarter of a second before.
        if now - since + 250_000 > STALL.as_micros() as u64 {
            life.engine.handle_stall(instant);
            self.drain(node);
        }
        for input in waiting {
            self.give(node, input);
        }
        self.nodes[node].is_dirty = true;
    }

    fn take_tun(&mut self, node: usize, mut packet: Vec<u8>, offload: Offload) {
        let instant = self.instant();
        let Some(life) = &mut self.nodes[node].life else { return };
        let before = ecn::bits(&packet);
        let verdict = life.engine.handle_tun(&mut packet, offload, instant);
        self.keeps_bits(verdict, before, &packet);
        if self.sabotage != Some(Sabotage::DroppedUncounted) {
            self.see(&Seen::Verdict { node, verdict });
        }
        if verdict == Verdict::Cut {
            for piece in offload::plain(&packet, &offload) {
                self.take_tun(node, piece, Offload::NONE);
            }
            return;
        }
        self.obey(node, verdict, packet, offload);
        self.drain(node);
    }

    /// Whatever is passed on has the marks it came with.
    fn keeps_bits(&mut self, verdict: Verdict, before: u8, packet: &[u8]) {
        if matches!(verdict, Verdict::Write | Verdict::Local | Verdict::Forward(_)) && ecn::bits(packet) != before {
            self.blame(format!("rule 11 congestion marks: a packet's mark changed from {before}: {packet:02x?}"));
        }
    }

    fn obey(&mut self, node: usize, verdict: Verdict, packet: Vec<u8>, offload: Offload) {
        let is_forward = matches!(verdict, Verdict::Forward(_));
        let is_missent = self.sabotage == Some(Sabotage::AnyKernelAnswers) && is_forward && is_shared(destination(&packet));
        let verdict = if is_missent { Verdict::Write } else { verdict };
        let plain = |packet: Vec<u8>| if offload == Offload::NONE { vec![packet] } else { offload::plain(&packet, &offload) };
        match verdict {
            Verdict::Write | Verdict::Local => plain(packet).into_iter().for_each(|packet| self.write_to_tun(node, packet)),
            Verdict::Forward(to) | Verdict::ForwardOnLink(to) => {
                plain(packet).into_iter().for_each(|packet| self.send_overlay(node, to, &packet))
            }
            Verdict::Cut => self.blame("a plain packet cannot be cut".to_owned()),
            Verdict::Consumed | Verdict::Drop(_) => {
                if let Verdict::Drop(reason) = verdict {
                    self.trace.say(self.now, || format!("{} drops: {}", NAMES[node], reason.label()));
                }
            }
        }
    }

    fn send_overlay(&mut self, node: usize, to: NodeId, packet: &[u8]) {
        let (now, peer) = (self.now, usize::from(to.0));
        let Some(life) = &mut self.nodes[node].life else { return };
        let mut datagram = vec![0; HEADER_BYTES + packet.len() + TAG_BYTES];
        // Without a key it is lost, as over any network.
        if life.keyring.seal(to, packet, &mut datagram).is_err() {
            return;
        }
        // A SYN-ACK that left past the process promised a larger MSS: such a datagram is sent in fragments.
        let may_be_large =
            self.facts.plan.has_any(&[Kind::Crash, Kind::Hang, Kind::Drain, Kind::Reload, Kind::SmallTables, Kind::Stop]);
        if datagram.len() + 28 > MTU && !may_be_large {
            return self.blame(format!("node {} sends a datagram of {} octets", NAMES[node], datagram.len() + 28));
        }
        self.overheard_overlay.push((peer, datagram.clone()));
        let link = self.overlay.get_mut(&(node, peer)).expect("a path between any two nodes");
        for (at, datagram) in link.carry(datagram, now, &mut self.random) {
            self.post_at(at, Event::ToProcess { node: peer, input: Input::Overlay(datagram) });
        }
    }

    fn take_overlay(&mut self, node: usize, mut datagram: Vec<u8>) {
        let instant = self.instant();
        let Some(life) = &mut self.nodes[node].life else { return };
        let Ok((from, range)) = life.keyring.open(&mut datagram) else { return };
        let mut packet = datagram[range].to_vec();
        let before = ecn::bits(&packet);
        let verdict = life.engine.handle_overlay(from, &mut packet, instant);
        self.keeps_bits(verdict, before, &packet);
        self.see(&Seen::Verdict { node, verdict });
        self.obey(node, verdict, packet, Offload::NONE);
        self.drain(node);
    }

    pub fn hear_deadlines(&mut self, node: usize) {
        let instant = self.instant();
        if let Some(life) = &mut self.nodes[node].life {
            life.engine.handle_timeout(instant);
        }
        self.drain(node);
    }

    /// Does everything the engine says, and then lets all rules look.
    pub fn drain(&mut self, node: usize) {
        loop {
            let (now, instant) = (self.now, self.instant());
            let Some(life) = &mut self.nodes[node].life else { return };
            let Some(output) = life.engine.poll_output() else { break };
            match output {
                Output::Packet(packet, _) | Output::Local(packet, _) => {
                    let packet = self.plain(packet);
                    self.write_to_tun(node, packet);
                }
                Output::Forward(to, packet, _) => {
                    let packet = self.plain(packet);
                    self.send_overlay(node, to, &packet);
                }
                Output::Message(to, message) => self.say(node, usize::from(to.0), &message),
                Output::Guard(flow) => {
                    let its = &mut self.nodes[node];
                    let written = now >= its.guards_fail_until;
                    if written {
                        its.guards.insert(flow);
                    }
                    if let Some(life) = &mut its.life {
                        life.engine.handle_guard(flow, written, instant);
                    }
                }
                Output::Unguard(flow) => {
                    self.nodes[node].guards.remove(&flow);
                }
                Output::Unlink(..) | Output::LinkAnswered { .. } => {}
                Output::AskSocket { local, remote } => {
                    let its = &mut self.nodes[node];
                    let state = its.kernel.socket_state(local, remote, now);
                    its.is_dirty = true;
                    if let Some(life) = &mut its.life {
                        life.engine.handle_socket(local, remote, state, instant);
                    }
                }
                Output::DestroySocket { local, remote } => {
                    self.nodes[node].kernel.destroy(local, remote);
                    self.nodes[node].is_dirty = true;
                }
            }
        }
        self.steps += 1;
        if let Some(life) = self.nodes[node].life.take() {
            let now = self.instant();
            self.see(&Seen::Step { node, engine: &life.engine, now });
            self.nodes[node].life = Some(life);
        }
    }

    /// What the engine keeps or makes leaves nothing to do for anybody.
    fn plain(&mut self, packet: Vec<u8>) -> Vec<u8> {
        let is_right = Segment::<_, ToServerWire>::parse(packet.as_slice()).is_ok_and(|segment| segment.checksums_are_right());
        // An error about a connection of a shared address is told to all who may have it.
        let is_right = is_right || errors::is_icmp(&packet);
        // What is only passed on, later, is judged by the kernel.
        let may_be_damaged = self.facts.plan.has_any(&[Kind::Corruption, Kind::Forgery]);
        if !(is_right || may_be_damaged) || packet.len() > MTU {
            self.blame(format!("the engine made a packet that is none: {packet:02x?}"));
        }
        packet
    }

    // ---- Control ----------------------------------------------------------------------------------------------------

    fn send_control(&mut self, session: u64, to: usize, octets: Vec<u8>) {
        if !self.sessions.get(session).is_alive {
            return;
        }
        let at = self.now + self.facts.plan.control_delay;
        let at = self.sessions.arrival(session, to, at);
        self.post_at(at, Event::ToProcess { node: to, input: Input::Control(session, octets) });
    }

    fn say(&mut self, node: usize, peer: usize, message: &Message) {
        self.trace.say(self.now, || format!("{} to {}: {message:?}", NAMES[node], NAMES[peer]));
        if let Message::Offer(offer) = message {
            let tsval = offer.timestamps.map_or(0, |timestamps| timestamps.frontend.raw());
            self.offered.insert(offer.flow, (offer.frontend_isn.raw(), tsval));
        }
        if let (Message::Accept(accept), true) = (message, self.relabel.is_some()) {
            let is_zero = self
                .offered
                .values()
                .any(|(isn, tsval)| *isn == accept.backend_isn && accept.tsval.is_none_or(|its| its == *tsval));
            if is_zero {
                self.zero_shifts += 1;
            } else {
                self.blame(format!("a relabelled kernel is not what was promised: {accept:?}"));
            }
        }
        let Some(session) = self.nodes[node].life.as_ref().and_then(|life| life.sessions.get(&peer).copied()) else { return };
        self.send_control(session, peer, control::message(message));
    }

    pub fn dial(&mut self, a: usize, b: usize) {
        let (a, b) = (a.min(b), a.max(b));
        if self.sessions.between(a, b).is_some() || self.nodes[a].life.as_ref().is_none_or(|life| life.sessions.contains_key(&b))
        {
            return;
        }
        if !(self.nodes[a].is_awake() && self.nodes[b].is_awake()) {
            return self.post(300_000, Event::Dial { a, b });
        }
        let session = self.sessions.dial(a, b);
        for (node, peer) in [(a, b), (b, a)] {
            let Some(life) = &self.nodes[node].life else { continue };
            let mut octets = control::hello(NAMES[node], life.epoch);
            if life.is_draining {
                octets.extend(control::heartbeat(true));
            }
            self.send_control(session, peer, octets);
        }
    }

    fn take_control(&mut self, node: usize, session: u64, octets: &[u8]) {
        if !self.sessions.get(session).is_alive {
            return;
        }
        let peer = self.sessions.get(session).other(node);
        for frame in self.sessions.get(session).receive(node, octets) {
            let instant = self.instant();
            let seed = self.facts.plan.seed;
            match frame {
                Frame::Hello(hello) => {
                    if self.nodes[node].life.as_ref().is_some_and(|life| life.sessions.contains_key(&peer)) {
                        // The session before has not been missed yet.
                        self.lose_session(node, peer);
                    }
                    self.trace.say(self.now, || format!("{}: session {session} with {} is up", NAMES[node], NAMES[peer]));
                    let Some(life) = &mut self.nodes[node].life else { return };
                    life.sessions.insert(peer, session);
                    life.keyring.set_keys(NodeId(peer as u16), &control::keys(session, seed, node < peer));
                    life.engine.handle_peer(NodeId(peer as u16), PeerEvent::Up(hello.epoch), instant);
                    self.drain(node);
                }
                Frame::Heartbeat(heartbeat) => {
                    let Some(life) = &mut self.nodes[node].life else { return };
                    life.engine.handle_peer(NodeId(peer as u16), PeerEvent::Draining(heartbeat.draining), instant);
                    self.drain(node);
                }
                Frame::Message(message) => {
                    let is_twice = self.facts.plan.twice_permille > 0 && self.random.permille(self.facts.plan.twice_permille);
                    for _ in 0..=u8::from(is_twice) {
                        let Some(life) = &mut self.nodes[node].life else { return };
                        life.engine.handle_message(NodeId(peer as u16), message.clone(), instant);
                        self.drain(node);
                    }
                }
                Frame::Settings(_) | Frame::Report(_) | Frame::Goodbye(_) => {}
            }
        }
    }

    /// A node learns that a session is gone.
    fn take_broken(&mut self, node: usize, session: u64) {
        let peer = self.sessions.get(session).other(node);
        let is_current = |life: &Life| life.sessions.get(&peer) == Some(&session);
        if self.nodes[node].life.as_ref().is_some_and(is_current) {
            self.lose_session(node, peer);
        }
        if node < peer {
            self.post(100_000, Event::Dial { a: node, b: peer });
        }
    }

    fn lose_session(&mut self, node: usize, peer: usize) {
        let instant = self.instant();
        self.trace.say(self.now, || format!("{}: the session with {} is gone", NAMES[node], NAMES[peer]));
        let Some(life) = &mut self.nodes[node].life else { return };
        life.sessions.remove(&peer);
        life.engine.handle_peer(NodeId(peer as u16), PeerEvent::Down, instant);
        self.drain(node);
    }

    /// What is on its way is lost; each end notices after its own time.
    pub fn break_session(&mut self, session: u64, noticed: [u64; 2]) {
        self.sessions.get(session).is_alive = false;
        let ends = self.sessions.get(session).ends;
        for (node, after) in ends.into_iter().zip(noticed) {
            self.post(after, Event::ToProcess { node, input: Input::Broken(session) });
        }
    }

    /// Tells all peers whether this node drains.
    pub fn say_draining(&mut self, node: usize, draining: bool) {
        let Some(life) = &mut self.nodes[node].life else { return };
        life.is_draining = draining;
        let sessions: Vec<(usize, u64)> = life.sessions.iter().map(|(peer, session)| (*peer, *session)).collect();
        for (peer, session) in sessions {
            self.send_control(session, peer, control::heartbeat(draining));
        }
    }
}
