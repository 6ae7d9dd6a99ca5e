//! What happens when in a world.

use super::super::host::{Client, set_virtual_clock};
use super::packets::{as_given_to_a_device, ask_for_accurate_ecn, destination};
use super::{Event, Node, World};
use baton::control::frame::{Frame, FrameBuffer};
use baton::flow::NodeId;
use baton::rewrite::{Offload, Segment, ToClientWire};

impl World {
    pub(super) fn settle(&mut self) {
        for _ in 0..100 {
            let now = self.now;
            self.client.poll(now);
            for client in &mut self.clients {
                client.run(&mut self.client, now);
            }
            self.client.poll(now);
            let family = self.network.family;
            let mut sent = std::mem::take(&mut self.client.wire.outgoing);
            if let Some(by_hand) = &mut self.by_hand {
                sent = by_hand.poll(now);
            }
            sent.retain(|packet| !self.is_lost() && destination(packet) == family.node(0));
            if self.ecn {
                sent.iter_mut().for_each(|packet| ask_for_accurate_ecn(packet));
            }
            for (packet, offload) in as_given_to_a_device(sent) {
                self.post(self.network.client_delay, Event::ToNode(0, packet, offload));
            }
            let mut is_quiet = true;
            for node in 0..self.nodes.len() {
                let Node { kernel, server, .. } = &mut self.nodes[node];
                kernel.poll(now);
                server.run(kernel);
                kernel.poll(now);
                is_quiet &= kernel.wire.outgoing.is_empty();
                self.route_from_kernel(node);
                is_quiet &= self.nodes[node].kernel.wire.incoming.is_empty();
            }
            if is_quiet {
                return;
            }
        }
        panic!("the hosts do not come to rest");
    }

    /// Runs until `until` (microseconds of virtual time) or until `is_done` says so.
    pub fn run_until(&mut self, until: u64, is_done: impl Fn(&Self) -> bool) {
        loop {
            self.settle();
            if is_done(self) || self.now >= until {
                return;
            }
            let next_event = self.events.keys().next().map(|(at, _)| *at);
            let next_timeout = self
                .nodes
                .iter()
                .filter_map(|node| node.engine.poll_timeout())
                .map(|at| at.saturating_duration_since(self.origin).as_micros() as u64)
                .min();
            let now = self.now;
            let next_poll = self.nodes.iter_mut().filter_map(|node| node.kernel.poll_at(now)).min();
            let next_client = self.client.poll_at(now);
            let next_piece = self.clients.iter().filter_map(Client::next_piece_at).filter(|at| *at > now).min();
            let next_by_hand = self.by_hand.as_ref().and_then(|by_hand| by_hand.poll_at(now));
            let nexts = [next_event, next_timeout, next_poll, next_client, next_piece, next_by_hand];
            let next = nexts.into_iter().flatten().min().unwrap_or(until);
            self.now = next.max(self.now + 1).min(until);
            set_virtual_clock(self.now);
            for node in 0..self.nodes.len() {
                let now = self.instant();
                if self.nodes[node].engine.poll_timeout().is_some_and(|at| at <= now) {
                    self.nodes[node].engine.handle_timeout(now);
                    self.drain(node);
                }
            }
            while let Some(entry) = self.events.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let event = entry.remove();
                self.happen(event);
            }
        }
    }

    pub(super) fn happen(&mut self, event: Event) {
        let now = self.instant();
        match event {
            Event::ToClient(packet) => {
                let segment = Segment::<_, ToClientWire>::parse(packet.clone()).expect("only TCP reaches the client");
                self.trace.push(format!("{} {segment}", self.now));
                self.to_client.push(segment);
                match &mut self.by_hand {
                    Some(by_hand) => by_hand.receive(&packet, self.now),
                    None => self.client.wire.incoming.push_back(packet),
                }
            }
            Event::ToNode(node, packet, offload) => self.tun_to_engine(node, packet, offload),
            Event::Overlay { to, mut datagram } => {
                // Sealed for an earlier life, it is lost.
                let Ok((from, range)) = self.nodes[to].keyring.open(&mut datagram) else { return };
                let mut packet = datagram[range].to_vec();
                let verdict = self.nodes[to].engine.handle_overlay(from, &mut packet, now);
                self.obey(to, verdict, packet, Offload::NONE);
                self.drain(to);
            }
            Event::Control { from, to, octets } => {
                let mut frames = FrameBuffer::default();
                frames.push(&octets);
                let Ok(Some(Frame::Message(message))) = frames.next_frame() else { panic!("what was said cannot be read") };
                self.nodes[to].engine.handle_message(NodeId(from as u16), message, now);
                self.drain(to);
            }
        }
        self.settle();
    }
}
