//! Packets between nodes on one link that travel as they are: what may go there, and what came that way.
//!
//! Such a packet proves nothing about who sent it. It may say what a client's packet may say to the front-end itself: what
//! the owner's kernel believes. So it begins nothing (a SYN does not go this way), and a probe of the link is answered
//! through the overlay, where only the peer can have sent the answer.

use crate::flow::{Endpoint, FlowKey, NodeId};
use crate::handoff::context::Context;
use crate::handoff::counters::DropReason;
use crate::handoff::engine::{Engine, Output, Verdict};
use crate::handoff::synthetic::bare;
use crate::rewrite::{Flags, Offload, Segment, Seq, ToServerWire};
use std::time::Instant;

impl Engine {
    /// Whether packets of this family reach the peer over a link, from now on.
    ///
    /// If not any more, whoever learned connections to it must let their packets through to the engine.
    pub fn handle_link(&mut self, peer: NodeId, is_ipv4: bool, usable: bool) {
        if usable {
            self.ctx.links.insert((peer, is_ipv4));
        } else {
            self.ctx.links.remove(&(peer, is_ipv4));
        }
    }

    /// A probe of the link, to be sent over it: it has no client, its ends are both the front-end address. The peer sends it
    /// back through the overlay ([`Output::LinkAnswered`]).
    pub fn link_probe(frontend: Endpoint, number: u32) -> Vec<u8> {
        bare::<ToServerWire>(frontend, frontend, Seq::new(number), Seq::new(0), Flags::ACK)
    }

    /// What came from a peer over a link, for a front-end address of its own.
    pub(super) fn take_linked(&mut self, peer: NodeId, packet: &mut [u8], offload: Offload, now: Instant) -> Verdict {
        let Ok(segment) = Segment::<_, ToServerWire>::parse_offloaded(&mut *packet, offload) else {
            return self.ctx.drop(DropReason::Malformed);
        };
        if segment.source() == segment.destination() {
            return Verdict::Forward(peer);
        }
        if segment.flags().contains(Flags::SYN) {
            return self.ctx.drop(DropReason::NotOurs);
        }
        self.ctx.counters.linked_received += 1;
        self.deliver_to_owner(peer, packet, offload, now)
    }

    /// A probe that a peer has sent back.
    pub(super) fn take_link_answer<B: AsRef<[u8]>>(&mut self, peer: NodeId, segment: &Segment<B, ToServerWire>) -> Verdict {
        let frontend = segment.destination();
        if peer == self.ctx.node || !self.ctx.policy.is_own_frontend(frontend) {
            return self.ctx.drop(DropReason::NoConnection);
        }
        let (is_ipv4, number) = (frontend.address.is_ipv4(), segment.seq().raw());
        self.ctx.outputs.push_back(Output::LinkAnswered { peer, is_ipv4, number });
        Verdict::Consumed
    }
}

impl Context {
    /// Whether packets of a connection can go to this peer over a link.
    pub fn uses_link(&self, to: NodeId, flow: &FlowKey) -> bool {
        self.links.contains(&(to, flow.frontend.address.is_ipv4())) && self.policy_of(flow.frontend).may_use_link(flow.frontend)
    }

    /// The largest MSS a client of this connection may use so that its segments fit the way to whoever will serve it: the
    /// overlay, unless all who may serve can be reached over links.
    pub fn mss_max_of(&self, flow: &FlowKey) -> u16 {
        let service = self.service_of(flow.frontend);
        let all_linked = service.is_some_and(|service| {
            let mut peers = service.servers.iter().map(|(node, _)| *node).filter(|node| *node != self.node);
            service.forward.may_use_link() && peers.all(|peer| self.uses_link(peer, flow))
        });
        let overhead = if all_linked { 0 } else { self.overlay_overhead };
        self.mss_max_below(flow.client.address, overhead)
    }
}
