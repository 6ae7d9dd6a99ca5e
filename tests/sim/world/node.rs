//! One node of a world: what its engine is given and says, and the host around it.

use super::super::host::{destroy_socket, socket_state};
use super::super::offload;
use super::super::swarm::control;
use super::packets::{as_given_to_a_device, assert_plain, destination, is_alias, name_of, source};
use super::{Event, NAMES, Node, World};
use baton::control::seal::{HEADER_BYTES, TAG_BYTES};
use baton::flow::{Endpoint, FlowKey, NodeId};
use baton::handoff::{Output, SocketState, Verdict};
use baton::rewrite::{Flags, Offload, Segment, ToClientWire, ToServerLocal, ToServerWire};

impl World {
    /// A packet for the TUN of a node, read by its engine.
    pub(super) fn tun_to_engine(&mut self, node: usize, mut packet: Vec<u8>, offload: Offload) {
        self.super_segments.0 += usize::from(offload.segment_bytes.is_some());
        let now = self.instant();
        let before = packet.clone();
        let verdict = self.nodes[node].engine.handle_tun(&mut packet, offload, now);
        if verdict == Verdict::Cut {
            assert_eq!(packet, before, "what is to be cut was touched");
            for piece in offload::plain(&packet, &offload) {
                self.tun_to_engine(node, piece, Offload::NONE);
            }
            return;
        }
        self.obey(node, verdict, packet, offload);
        self.drain(node);
    }

    pub(super) fn obey(&mut self, node: usize, verdict: Verdict, packet: Vec<u8>, offload: Offload) {
        match verdict {
            Verdict::Write | Verdict::Local => {
                self.super_segments.1 += usize::from(offload.segment_bytes.is_some());
                // Where its packets go the host cuts what no device cuts for it.
                for packet in self.plain(packet, offload) {
                    self.write_to_tun(node, packet);
                }
            }
            Verdict::Forward(to) | Verdict::ForwardOnLink(to) => {
                for packet in self.plain(packet, offload) {
                    self.send_overlay(node, usize::from(to.0), packet);
                }
            }
            Verdict::Cut => panic!("a plain packet cannot be cut"),
            Verdict::Consumed | Verdict::Drop(_) => {}
        }
    }

    pub(super) fn plain(&self, packet: Vec<u8>, offload: Offload) -> Vec<Vec<u8>> {
        if offload == Offload::NONE { vec![packet] } else { offload::plain(&packet, &offload) }
    }

    pub(super) fn send_overlay(&mut self, from: usize, to: usize, packet: Vec<u8>) {
        let mut datagram = vec![0; HEADER_BYTES + packet.len() + TAG_BYTES];
        let sealed = self.nodes[from].keyring.seal(NodeId(to as u16), &packet, &mut datagram);
        if sealed.is_ok() && !self.is_lost() {
            self.post(self.network.node_delay, Event::Overlay { to, datagram });
        }
    }

    pub(super) fn drain(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].engine.poll_output() {
            let now = self.instant();
            match output {
                Output::Packet(packet, _) | Output::Local(packet, _) => {
                    assert_plain(&packet);
                    self.write_to_tun(node, packet);
                }
                Output::Forward(to, packet, _) => {
                    assert_plain(&packet);
                    self.send_overlay(node, usize::from(to.0), packet);
                }
                Output::Message(to, message) => {
                    self.said.push(format!("{} {}", NAMES[node], name_of(&message)));
                    let is_swallowed = self.swallow.is_some_and(|swallow| swallow(&message));
                    if self.control_is_up && !is_swallowed {
                        let delay = self.network.node_delay;
                        let octets = control::message(&message);
                        self.post(delay, Event::Control { from: node, to: usize::from(to.0), octets });
                    }
                }
                Output::Guard(flow) => {
                    let written = !self.nodes[node].guards_fail;
                    if written {
                        self.nodes[node].guards.insert(flow);
                    }
                    self.nodes[node].engine.handle_guard(flow, written, now);
                }
                Output::Unguard(flow) => {
                    self.nodes[node].guards.remove(&flow);
                }
                Output::Unlink(..) | Output::LinkAnswered { .. } => {}
                Output::AskSocket { local, remote } => {
                    self.nodes[node].kernel.poll(self.now);
                    let mut state = socket_state(&self.nodes[node].kernel, local.into(), remote.into());
                    if self.requests_are_cookies && state == SocketState::SynReceived {
                        state = SocketState::Absent;
                    }
                    self.nodes[node].engine.handle_socket(local, remote, state, now);
                }
                Output::DestroySocket { local, remote } => {
                    destroy_socket(&mut self.nodes[node].kernel, local.into(), remote.into())
                }
            }
        }
    }

    /// The host's routing of what baton writes: to its own kernel, or out to the client.
    pub(super) fn write_to_tun(&mut self, node: usize, packet: Vec<u8>) {
        let destination = destination(&packet);
        if destination == self.network.family.client() {
            return self.leave(node, packet);
        }
        assert!(destination == self.network.family.node(node) || is_alias(destination), "a packet to nowhere: {destination}");
        let segment = Segment::<_, ToServerWire>::parse(packet.as_slice());
        assert!(!segment.is_ok_and(|segment| segment.accurate_ecn()), "a kernel is asked for accurate ECN");
        if destination == self.network.family.node(node)
            && let Ok(segment) = Segment::<_, ToServerWire>::parse(packet.as_slice())
            && segment.flags().contains(Flags::RST)
        {
            // Anything but the one number the kernel still expects is a purge by luck (RFC 5961, section 3.2).
            let ends = (segment.destination().port, segment.source().port);
            let mut syn_acks = self.to_client.iter().rev().filter(|heard| heard.flags().contains(Flags::SYN));
            let expected = syn_acks.find(|heard| (heard.source().port, heard.destination().port) == ends).map(Segment::ack);
            assert_eq!(Some(segment.seq()), expected, "a purge at a wrong number");
        }
        if is_alias(destination)
            && self.accept_queues_are_full
            && let Ok(segment) = Segment::<_, ToServerLocal>::parse(packet.as_slice())
            && !segment.flags().intersects(Flags::SYN.with(Flags::RST))
        {
            return;
        }
        if is_alias(destination)
            && self.now < self.lose_rest_of_flight_until
            && let Ok(segment) = Segment::<_, ToServerLocal>::parse(packet.as_slice())
            && let Some(syn_ack) = self.to_client.first()
            && !segment.payload().is_empty()
            && segment.seq() != syn_ack.ack()
        {
            return;
        }
        if destination == self.network.family.node(node)
            && let Ok(segment) = Segment::<_, ToServerWire>::parse(packet.as_slice())
            && !segment.flags().contains(Flags::RST)
        {
            // Were the process to die now, the guard would stay, and cut a connection that the local kernel serves.
            let flow = FlowKey { client: segment.source(), frontend: segment.destination() };
            assert!(!self.nodes[node].guards.contains(&flow), "{flow} reaches the kernel while it is guarded");
        }
        if self.is_answered_by_request(node, &packet) {
            return;
        }
        self.nodes[node].kernel.wire.incoming.push_back(packet);
    }

    /// What Linux does with a segment for a request of its, and smoltcp does not.
    pub(super) fn is_answered_by_request(&mut self, node: usize, packet: &[u8]) -> bool {
        let Ok(segment) = Segment::<_, ToServerWire>::parse(packet) else { return false };
        self.nodes[node].kernel.poll(self.now);
        let (local, remote) = (segment.destination(), segment.source());
        if socket_state(&self.nodes[node].kernel, local.into(), remote.into()) != SocketState::SynReceived {
            return false;
        }
        let Node { requests, kernel, .. } = &mut self.nodes[node];
        if segment.flags().contains(Flags::SYN) {
            if !self.ignore_repeated_syns {
                kernel.wire.outgoing.extend(requests.answer_again(&segment, self.now));
            }
            return true;
        }
        if let Some(sample) = requests.complete(&segment, self.now, self.requests_are_cookies) {
            self.samples.push(sample);
        }
        false
    }

    /// A packet leaves a node for the client: only with the address the client connected to.
    pub(super) fn leave(&mut self, node: usize, packet: Vec<u8>) {
        let source = source(&packet);
        assert_eq!(source, self.network.family.node(0), "an untranslated packet left node {}", NAMES[node]);
        let segment = Segment::<_, ToClientWire>::parse(packet.as_slice()).expect("only TCP leaves");
        let is_frontend = |frontend: &(NodeId, Endpoint)| *frontend == (NodeId(0), segment.source());
        let policy = self.files[node].compile(NAMES[0]).expect("the node is in the file");
        assert!(policy.services[0].frontends.iter().any(is_frontend), "port {} left node {node}", segment.source().port);
        assert!(segment.checksums_are_right(), "wrong checksum left node {}", NAMES[node]);
        self.nodes[node].payload_sent += segment.payload().len() as u64;
        let is_lost = std::mem::take(&mut self.lose_first_to_client) || self.is_lost();
        if !is_lost {
            self.post(self.network.client_delay, Event::ToClient(packet));
        }
    }

    /// What a kernel emits: captured if it comes from an alias, or is a SYN-ACK of the service; else it simply leaves.
    pub(super) fn route_from_kernel(&mut self, node: usize) {
        let mut to_engine = Vec::new();
        for mut packet in std::mem::take(&mut self.nodes[node].kernel.wire.outgoing) {
            let source = source(&packet);
            let mut segment = Segment::<_, ToClientWire>::parse(packet.as_mut_slice()).ok();
            let syn_ack = segment.as_mut().filter(|segment| segment.flags().contains(Flags::SYN.with(Flags::ACK)));
            let is_syn_ack = syn_ack.is_some();
            if let Some(syn_ack) = syn_ack {
                if self.ecn {
                    syn_ack.set_flags(syn_ack.flags().with(Flags::ECE));
                }
                if let Some(lack) = self.lacks[node] {
                    lack(syn_ack);
                }
            }
            if is_syn_ack {
                self.nodes[node].requests.hear(&packet, self.now);
            }
            if is_alias(source) && is_syn_ack && self.now < self.swallow_syn_acks_from_alias_until {
                continue;
            }
            if is_alias(source) || is_syn_ack {
                to_engine.push(packet);
            } else {
                self.leave(node, packet);
            }
        }
        for (packet, offload) in as_given_to_a_device(to_engine) {
            self.tun_to_engine(node, packet, offload);
        }
    }
}
