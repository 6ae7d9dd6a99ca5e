//! The engine's face: sorts every input to the half it is for, and lets the node talk to itself when it is its own
//! back-end. Must not know TCP states.

use crate::control::message::{Epoch, HandoffId, Message};
use crate::control::report::{Report, Told};
use crate::flow::{Endpoint, FlowKey, NodeId};
use crate::handoff::btcp::Btcp;
use crate::handoff::chronicle::Record;
use crate::handoff::context::{Context, Loopback, slow_starts};
use crate::handoff::counters::DropReason;
use crate::handoff::notes::Why;
use crate::handoff::probe::{ProbeEvent, ProbeSpec, Probes};
use crate::handoff::timers::{Deadline, Owner};
use crate::handoff::utcp::{Serves, Utcp};
use crate::health::NodeState;
use crate::metrics::{Histogram, label_value};
use crate::policy::Policy;
use crate::rewrite::{Flags, Malformed, Offload, Segment, ToClientWire, ToServerWire, icmp};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What becomes of the packet in hand. It was rewritten in place.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Write it to the TUN.
    Write,
    /// Write it to the TUN. The local kernel serves its connection, of which nothing is kept here: what follows need not come
    /// here at all.
    Local,
    /// Send it to this peer through the overlay.
    Forward(NodeId),
    /// Send it to this peer over the link, or through the overlay if that cannot be. Whoever does may forward the
    /// connection's later packets without asking, but never a SYN, until [`Output::Unlink`] or until it forgets.
    ForwardOnLink(NodeId),
    /// A super-segment that the engine may have to keep: it was not touched. Cut it, and hand in the pieces instead, as
    /// packets of their own.
    Cut,
    /// The engine kept or used it.
    Consumed,
    /// Drop it; already counted.
    Drop(DropReason),
}

/// What the engine originates. Drained to empty after every input, in order.
#[allow(missing_docs)] // The variants say it; a field name that needed more would be a wrong one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Write a packet to the TUN. It is plain: what the engine keeps and originates has complete checksums and fits the path.
    Packet(Vec<u8>, Why),
    /// The same, of a connection that is the local server's from now on and whose client waits to hear it: as with
    /// [`Verdict::Local`], nothing is needed of its packets any more.
    Local(Vec<u8>, Why),
    /// Send a packet to a peer through the overlay.
    Forward(NodeId, Vec<u8>, Why),
    /// Send a control message. If there is no session it is lost, and `PeerEvent::Down` has been or will be told.
    Message(NodeId, Message),
    /// Write a guard and tell the result by [`Engine::handle_guard`].
    Guard(FlowKey),
    /// Remove a guard.
    Unguard(FlowKey),
    /// Packets of this connection come to the engine again; see [`Verdict::ForwardOnLink`].
    Unlink(NodeId, FlowKey),
    /// A probe of the link to this peer came back; see [`Engine::link_probe`].
    LinkAnswered { peer: NodeId, is_ipv4: bool, number: u32 },
    /// Ask the kernel about a socket and tell the answer by [`Engine::handle_socket`].
    AskSocket { local: Endpoint, remote: Endpoint },
    /// Destroy a socket whose connection is lost.
    DestroySocket { local: Endpoint, remote: Endpoint },
}

/// What the kernel says about one 4-tuple.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketState {
    /// No socket but perhaps a listener.
    Absent,
    /// A request socket: the handshake is not complete.
    SynReceived,
    /// Any synchronised state but TIME-WAIT.
    Open,
    /// TIME-WAIT.
    TimeWait,
}

/// What happened to the session with a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerEvent {
    /// A session is up; the peer is in this life.
    Up(Epoch),
    /// The session is gone.
    Down,
    /// The peer says it is draining (true) or no longer (false): no new offers to it.
    Draining(bool),
}

/// What an engine must be told at start.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// This node.
    pub node: NodeId,
    /// This life.
    pub epoch: Epoch,
    /// Octets by which the overlay makes a packet longer than the packet it carries, outer IP header included.
    pub overlay_overhead: u16,
    /// MTU of the links to peers.
    pub mtu: u16,
    /// Guards found in the kernel, from an earlier life.
    pub orphans: Vec<FlowKey>,
}

/// The engine. One mutation, then [`Engine::poll_output`] until it is empty, then the next mutation.
///
/// [`Output::Guard`] and [`Output::AskSocket`] must be answered before the next packet, message or time-out goes in.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(super) ctx: Context,
    pub(super) btcp: Btcp,
    pub(super) utcp: Utcp,
    probes: Probes,
}

/// The protocol number of TCP in an IPv4 header.
const TCP: u8 = 6;

impl Engine {
    /// An engine without connections.
    pub fn new(config: EngineConfig, policy: Rc<Policy>, now: Instant) -> Self {
        let seed = config.epoch.0;
        let mut engine = Self {
            btcp: Btcp::new(seed, &config.orphans, now),
            utcp: Utcp::new(seed.rotate_left(32)),
            probes: Probes::default(),
            ctx: Context::new(&config, policy, now),
        };
        engine.arm_housekeeping(now);
        engine
    }

    // ---- Packets ----------------------------------------------------------------------------------------------------

    /// A packet read from the TUN, and what is left to do for it; that does not change when the packet is rewritten.
    pub fn handle_tun(&mut self, packet: &mut [u8], offload: Offload, now: Instant) -> Verdict {
        let mut verdict = self.sort_out(packet, offload, now);
        if verdict == Verdict::Forward(self.ctx.node) {
            verdict = self.deliver_to_owner(self.ctx.node, packet, offload, now);
        }
        self.settle(now);
        verdict
    }

    /// A plain packet that came from a peer through the overlay.
    pub fn handle_overlay(&mut self, from: NodeId, packet: &mut [u8], now: Instant) -> Verdict {
        self.handle_overlay_offloaded(from, packet, Offload::NONE, now)
    }

    /// The same of one that was joined of several on its arrival.
    pub fn handle_overlay_offloaded(&mut self, from: NodeId, packet: &mut [u8], offload: Offload, now: Instant) -> Verdict {
        let verdict = self.deliver_to_owner(from, packet, offload, now);
        self.settle(now);
        verdict
    }

    /// Tells from its addresses who sent a packet to whom: a client, the kernel for a client, the kernel from an alias.
    fn sort_out(&mut self, packet: &mut [u8], offload: Offload, now: Instant) -> Verdict {
        let segment = match Segment::<_, ToServerWire>::parse_offloaded(&mut *packet, offload) {
            Ok(segment) => segment,
            Err(malformed) => return self.handle_other(packet, malformed),
        };
        let (source, destination) = (segment.source(), segment.destination());
        if self.ctx.policy.is_alias(source.address) {
            // A RST without ACK answers what is of no connection that the kernel has (RFC 9293, section 3.5.2).
            let flags = segment.flags();
            let is_answer = flags.contains(Flags::RST) && !flags.contains(Flags::ACK);
            let flow = self.utcp.flow_of_socket(source, destination);
            let is_over = flow.is_some_and(|flow| self.utcp.serves(&flow) == Some(Serves::NoLonger));
            let verdict = self.utcp.handle_kernel(segment.reinterpret(), &mut self.ctx, now);
            if is_answer
                && is_over
                && verdict == Verdict::Write
                && flow.is_some_and(|flow| self.ctx.policy.is_shared_frontend(flow.frontend))
                && let Ok(reset) = Segment::<_, ToClientWire>::parse_offloaded(&mut *packet, offload)
            {
                return self.btcp.handle_reset_of_former_owner(&reset, &mut self.ctx, now);
            }
            return verdict;
        }
        if self.ctx.policy.is_shared_frontend(destination) && self.takes_itself(&segment) {
            return Verdict::Forward(self.ctx.node);
        }
        if self.is_own_frontend(destination) {
            return self.btcp.handle_client(segment, &mut self.ctx, now);
        }
        if let Some(peer) = self.ctx.policy.linked_from(destination) {
            return self.take_linked(peer, packet, offload, now);
        }
        if self.is_own_frontend(source) {
            if segment.flags().contains(Flags::SYN.with(Flags::ACK)) {
                return self.btcp.handle_syn_ack(segment.reinterpret(), &mut self.ctx, now);
            }
            let is_reset = segment.flags().contains(Flags::RST) && !segment.flags().contains(Flags::ACK);
            if is_reset && self.ctx.policy.is_shared_frontend(source) {
                return self.btcp.handle_kernel_reset(&segment.reinterpret(), &mut self.ctx, now);
            }
            return Verdict::Write;
        }
        self.ctx.drop(DropReason::NotOurs)
    }

    /// Whether a packet to a shared address, which need not have come through the node that saw the SYN, is of a connection that
    /// this node's kernel serves under an alias.
    fn takes_itself<B: AsRef<[u8]>>(&self, segment: &Segment<B, ToServerWire>) -> bool {
        let flow = FlowKey { client: segment.source(), frontend: segment.destination() };
        let is_syn = segment.flags().contains(Flags::SYN);
        let ack = segment.flags().contains(Flags::ACK).then(|| segment.ack());
        match self.utcp.serves(&flow) {
            Some(Serves::Yes) => true,
            Some(Serves::NotYet) => !is_syn && self.utcp.owns(&flow, ack),
            Some(Serves::NoLonger) => !is_syn && !self.btcp.knows(&flow),
            None => false,
        }
    }

    /// Neither a whole TCP segment nor from one: an ICMP error about a connection, a fragment, or noise.
    fn handle_other(&mut self, packet: &mut [u8], malformed: Malformed) -> Verdict {
        if let Ok(flow) = icmp::quoted_flow(packet) {
            let is_shared = self.ctx.policy.is_shared_frontend(flow.frontend);
            if is_shared && self.utcp.shifts_of(&flow).is_some() {
                return Verdict::Forward(self.ctx.node);
            }
            match self.btcp.owner_of(&flow) {
                Some(owner) if is_shared && owner == self.ctx.node => return Verdict::Write,
                Some(owner) => return Verdict::Forward(owner),
                None if is_shared => self.btcp.tell_all_of_error(&flow, packet, &mut self.ctx),
                None => {}
            }
        }
        if malformed == Malformed::Fragment
            && let Some(flow) = ends_of_first_fragment(packet)
            && self.btcp.owner_of(&flow).is_some()
        {
            // Put together, it would reach a kernel that has given this connection away, and be answered with a RST.
            return self.ctx.drop(DropReason::Fragment);
        }
        match (malformed, addresses(packet)) {
            (_, Some((source, _))) if self.ctx.policy.is_alias(source) => self.ctx.drop(DropReason::NoConnection),
            // Fragments, and errors about connections of other services: the local stack's.
            (Malformed::Fragment | Malformed::Protocol, Some((_, destination))) if self.is_own_address(destination) => {
                Verdict::Write
            }
            (Malformed::Truncated | Malformed::Options | Malformed::Version | Malformed::Offload, _) => {
                self.ctx.drop(DropReason::Malformed)
            }
            (Malformed::Protocol | Malformed::Fragment, _) => self.ctx.drop(DropReason::NotOurs),
        }
    }

    /// A client's packet, or an ICMP error, for a connection that this node owns.
    pub(super) fn deliver_to_owner(&mut self, from: NodeId, packet: &mut [u8], offload: Offload, now: Instant) -> Verdict {
        if let Ok(segment) = Segment::<_, ToServerWire>::parse_offloaded(&mut *packet, offload) {
            if segment.source() == segment.destination() {
                return self.take_link_answer(from, &segment);
            }
            let begins = segment.flags().contains(Flags::SYN);
            let is_missent = from != self.ctx.node
                && !begins
                && self.ctx.policy.is_shared_frontend(segment.destination())
                && !self.takes_itself(&segment);
            if is_missent && !self.ctx.policy.is_own_frontend(segment.destination()) {
                let flow = FlowKey { client: segment.source(), frontend: segment.destination() };
                if self.utcp.serves(&flow) == Some(Serves::NoLonger) {
                    // Another has the next connection with the same ends.
                    self.ctx.say(from, Message::Owner { flow, owns: false });
                    return self.ctx.drop(DropReason::NoConnection);
                }
            } else if is_missent {
                if segment.is_super_segment() {
                    // It may be kept, or counted.
                    return Verdict::Cut;
                }
                return self.btcp.handle_relayed(from, &segment, &mut self.ctx, now);
            }
            return self.utcp.handle_client(from, segment, &mut self.ctx, now);
        }
        let Ok(flow) = icmp::quoted_flow(packet) else { return self.ctx.drop(DropReason::Malformed) };
        let Some(shifts) = self.utcp.shifts_of(&flow) else {
            let policy = &self.ctx.policy;
            if from != self.ctx.node && policy.is_shared_frontend(flow.frontend) && policy.is_own_frontend(flow.frontend) {
                // The kernel knows whether it is about a connection that it serves without us.
                return Verdict::Write;
            }
            return self.ctx.drop(DropReason::NoConnection);
        };
        match icmp::translate_quoted(packet, &shifts) {
            Ok(()) => Verdict::Write,
            Err(_) => self.ctx.drop(DropReason::Malformed),
        }
    }

    pub(super) fn is_own_frontend(&self, endpoint: Endpoint) -> bool {
        self.ctx.is_own_frontend(endpoint)
    }

    fn is_own_address(&self, address: IpAddr) -> bool {
        self.ctx.frontend_addresses.contains(&address)
    }

    // ---- Messages and answers ---------------------------------------------------------------------------------------

    /// A control message.
    pub fn handle_message(&mut self, from: NodeId, message: Message, now: Instant) {
        self.dispatch(from, message, now);
        self.settle(now);
    }

    fn dispatch(&mut self, from: NodeId, message: Message, now: Instant) {
        let ctx = &mut self.ctx;
        if let Some(id) = message.handoff_of_mine()
            && self.probes.owns(from, id)
        {
            return self.probes.handle_message(id, &message, ctx, now);
        }
        match message {
            Message::Offer(offer) => self.utcp.handle_offer(from, offer, ctx, now),
            Message::Commit { id, more } => self.utcp.handle_commit(from, id, &more, ctx, now),
            Message::Abort { id } => self.utcp.handle_abort(from, id, ctx),
            Message::Settled { below } => {
                if let Some(epoch) = ctx.peer(from).and_then(|peer| peer.epoch) {
                    self.utcp.handle_settled(from, epoch, below);
                }
            }
            Message::Accept(accept) => self.btcp.handle_accept(from, &accept, ctx, now),
            Message::Refuse { id, reason } => self.btcp.handle_refuse(from, id, reason, ctx, now),
            Message::Delivered { id } => self.btcp.handle_delivered(from, id, ctx),
            Message::Returned { id } => self.btcp.handle_returned(from, id, ctx, now),
            Message::Closed { id } => self.btcp.handle_closed(from, id, ctx, now),
            Message::Disowned { id } => self.utcp.handle_disowned(from, id, ctx, now),
            Message::Owned { id, flow } => self.btcp.handle_owned(from, id, flow, ctx, now),
            Message::OwnedEnd => self.btcp.handle_owned_end(from, ctx, now),
            Message::SynRefused { flow, isn, reason } => self.btcp.handle_syn_refused(from, flow, isn, reason, ctx, now),
            Message::WhoOwns { flow, ack } => {
                if self.utcp.owns(&flow, ack) {
                    ctx.say(from, Message::Owner { flow, owns: true });
                } else {
                    self.btcp.handle_question(from, flow, ack, ctx);
                }
            }
            Message::Owner { flow, owns } => self.btcp.handle_owner(from, flow, owns, ctx, now),
        }
    }

    /// Lets this node hear what it said to itself, until it has nothing more to say.
    fn settle(&mut self, now: Instant) {
        while let Some(said) = self.ctx.loopback.pop_front() {
            let node = self.ctx.node;
            match said {
                Loopback::Message(message) => self.dispatch(node, message, now),
                Loopback::Packet(mut packet, why) => {
                    if self.deliver_to_owner(node, &mut packet, Offload::NONE, now) == Verdict::Write {
                        self.ctx.write(packet, why);
                    }
                }
            }
        }
    }

    /// A session came or went.
    pub fn handle_peer(&mut self, peer: NodeId, event: PeerEvent, now: Instant) {
        let Some(state) = self.ctx.peer_mut(peer) else { return };
        match event {
            PeerEvent::Up(epoch) => {
                self.ctx.loads.come_up(peer, false);
                let Some(state) = self.ctx.peer_mut(peer) else { return };
                let born_anew = state.epoch.is_some_and(|before| before != epoch);
                state.up = true;
                state.since = Some(now);
                state.epoch = Some(epoch);
                state.draining = false;
                state.sessions += 1;
                state.unsettled = true;
                self.btcp.handle_peer_up(peer, born_anew, &mut self.ctx, now);
                self.utcp.handle_peer_up(peer, epoch, born_anew, &mut self.ctx);
            }
            PeerEvent::Down => {
                state.up = false;
                state.since = Some(now);
                self.ctx.loads.go_down(peer, now);
                self.probes.handle_peer_down(peer, now);
                self.btcp.handle_peer_down(peer, &mut self.ctx, now);
            }
            PeerEvent::Draining(draining) => state.draining = draining,
        }
        self.settle(now);
    }

    /// The session with a peer, which is up, has reports. Until the first nothing is known of its applications.
    pub fn expect_reports(&mut self, peer: NodeId) {
        self.ctx.loads.come_up(peer, true);
    }

    /// What a peer says about itself.
    pub fn handle_report(&mut self, peer: NodeId, report: &Report, now: Instant) {
        self.ctx.loads.hear(peer, report, now);
    }

    /// What this node's own checks say about its application, and how many connections that serves.
    pub fn handle_own_health(&mut self, service: &str, told: Told, connections: u32, now: Instant) {
        self.ctx.loads.hear_own(service, told, connections, now);
    }

    /// Whether probes through a peer fail and this counts.
    pub fn handle_probe_verdict(&mut self, service: &str, peer: NodeId, failed: bool) {
        self.ctx.loads.set_probe_failed(service, peer, failed);
    }

    /// What a choice knows about a node in a service.
    pub fn node_state(&self, service: &str, node: NodeId, now: Instant) -> NodeState {
        self.ctx.node_state(service, node, now)
    }

    /// Begins a probe. What comes back for its client goes to [`Engine::handle_probe_answer`] until it is over.
    pub fn begin_probe(&mut self, spec: ProbeSpec, now: Instant) -> HandoffId {
        let id = self.probes.begin(spec, &mut self.ctx, now);
        self.settle(now);
        id
    }

    /// A packet that came for a probe's client; whether it was one.
    pub fn handle_probe_answer(&mut self, packet: &mut [u8], now: Instant) -> bool {
        let is_one = match Segment::<_, ToClientWire>::parse(packet) {
            Ok(segment) => self.probes.handle_answer(&segment, &mut self.ctx, now),
            Err(_) => false,
        };
        self.settle(now);
        is_one
    }

    /// What became of probes, until None.
    pub fn poll_probe(&mut self) -> Option<ProbeEvent> {
        self.probes.poll_event()
    }

    /// Connections that this node's kernel serves after a handoff, by service.
    pub fn served(&self) -> BTreeMap<&str, u32> {
        let mut served = BTreeMap::new();
        for (frontend, count) in self.utcp.served() {
            let service = self.ctx.service_of(frontend).map_or("", |service| service.name.as_str());
            *served.entry(service).or_default() += count;
        }
        served
    }

    /// Whether the table of connections is full.
    pub fn is_full(&self) -> bool {
        !self.ctx.has_room()
    }

    /// The result of [`Output::Guard`].
    pub fn handle_guard(&mut self, flow: FlowKey, written: bool, now: Instant) {
        self.btcp.handle_guard(flow, written, &mut self.ctx);
        self.settle(now);
    }

    /// The answer to [`Output::AskSocket`].
    pub fn handle_socket(&mut self, local: Endpoint, remote: Endpoint, state: SocketState, now: Instant) {
        if self.is_own_frontend(local) {
            self.btcp.handle_socket(FlowKey { client: remote, frontend: local }, state, &mut self.ctx, now);
        } else {
            self.utcp.handle_socket(local, remote, state, &mut self.ctx, now);
        }
        self.settle(now);
    }

    /// The backlog of the listener behind a front-end address, whenever the shell has asked the kernel.
    pub fn handle_backlog(&mut self, frontend: Endpoint, backlog: u32) {
        self.btcp.set_backlog(frontend, backlog);
    }

    /// The loop did not run for longer than `limits::STALL`: the kernel may have served held connections meanwhile.
    pub fn handle_stall(&mut self, now: Instant) {
        self.btcp.handle_stall(&mut self.ctx, now);
        self.settle(now);
    }

    // ---- Policy -----------------------------------------------------------------------------------------------------

    /// Puts a new policy in force. Its nodes, and which of them this one is, must be those of the policy before; so must
    /// the alias prefixes, and the overlay's port.
    ///
    /// Connections go on under the decision they have, wherever they are. Undecided ones are decided by the new policy;
    /// those of a front-end address that is this node's no longer are the local server's.
    pub fn replace_policy(&mut self, policy: Rc<Policy>, now: Instant) {
        debug_assert_eq!(
            (&policy.nodes, policy.node, &policy.aliases),
            (&self.ctx.policy.nodes, self.ctx.node, &self.ctx.policy.aliases)
        );
        let before = std::mem::replace(&mut self.ctx.policy, policy);
        self.ctx.loads.replace(slow_starts(&self.ctx.policy));
        let own = self.ctx.policy.own_frontends();
        self.ctx.frontend_addresses.extend(own.iter().map(|frontend| frontend.address));
        self.ctx.retired.retain(|frontend, _| !own.contains(frontend));
        let removed: BTreeSet<Endpoint> = before.own_frontends().into_iter().filter(|frontend| !own.contains(frontend)).collect();
        self.ctx.retired.extend(removed.iter().map(|frontend| (*frontend, (Rc::clone(&before), now))));
        self.utcp.forget_policy();
        self.btcp.note_former_owners(&before);
        self.ctx.chooser.keep(self.ctx.policy.services.iter().flat_map(|service| service.choices()));
        self.btcp.retire(&removed, &mut self.ctx, now);
        self.settle(now);
        self.btcp.reconsider(&mut self.ctx, now);
        self.settle(now);
    }

    // ---- Time -------------------------------------------------------------------------------------------------------

    /// A deadline passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(deadline) = self.ctx.timers.pop(now) {
            match deadline.owner {
                Owner::Btcp => self.btcp.handle_deadline(deadline, &mut self.ctx, now),
                Owner::Utcp => self.utcp.handle_deadline(deadline, &mut self.ctx, now),
                Owner::Engine => self.keep_house(now),
                Owner::Probe => self.probes.handle_deadline(deadline, &mut self.ctx, now),
            }
            self.settle(now);
        }
    }

    /// When to call [`Engine::handle_timeout`]; changes after every input.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ctx.timers.next()
    }

    fn keep_house(&mut self, now: Instant) {
        debug_assert!(self.btcp.assignments_are_counted(&self.ctx));
        self.btcp.expire_orphans(&mut self.ctx, now);
        self.btcp.expire_openings(now);
        let btcp = &self.btcp;
        self.ctx.retired.retain(|frontend, (_, since)| {
            now.saturating_duration_since(*since) < crate::limits::RETIRED_FRONTEND_MIN || btcp.knows_frontend(*frontend)
        });
        for index in 0..self.ctx.peers.len() {
            let peer = NodeId(index as u16);
            if self.ctx.peers[index].up && std::mem::take(&mut self.ctx.peers[index].unsettled) {
                let below = self.btcp.settled_below(peer, &self.ctx);
                // Commits on their way now are told next time.
                self.ctx.peers[index].unsettled = below < self.ctx.next_serial;
                self.ctx.say(peer, Message::Settled { below });
            }
        }
        self.arm_housekeeping(now);
    }

    fn arm_housekeeping(&mut self, now: Instant) {
        self.ctx.timers.push(Deadline {
            at: now + crate::limits::HOUSEKEEPING_INTERVAL,
            owner: Owner::Engine,
            slot: 0,
            serial: 0,
        });
    }

    // ---- The way out ------------------------------------------------------------------------------------------------

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.ctx.outputs.pop_front()
    }

    /// No new handoffs from or to here; undecided connections are released to the local server.
    pub fn drain(&mut self, now: Instant) {
        self.ctx.draining = true;
        self.btcp.drain(&mut self.ctx);
        self.settle(now);
    }

    /// Takes new handoffs again.
    pub fn undrain(&mut self) {
        self.ctx.draining = false;
    }

    /// Connections that would be cut if the process ended now (lingering ones do not count).
    pub fn live(&self) -> usize {
        let (front, back) = (self.btcp.count(), self.utcp.count());
        front.parked + front.offered + front.handed_off + back.serving
    }

    /// Resets every connection that would be cut, both ends: the last thing before the process ends.
    pub fn reset_all(&mut self, now: Instant) {
        self.ctx.stopping = true;
        self.btcp.reset_all(&mut self.ctx, now);
        self.settle(now);
        self.utcp.reset_all(&mut self.ctx, now);
        self.settle(now);
    }

    // ---- Views ------------------------------------------------------------------------------------------------------

    /// All counters and gauges, for `baton stats`: flat, stable names such as `handoffs_committed_total`.
    pub fn counters(&self) -> Vec<(String, u64)> {
        let (front, back) = (self.btcp.count(), self.utcp.count());
        let gauges = [
            ("connections_front_end", front.handshakes + front.undecided + front.parked + front.offered + front.handed_off),
            ("connections_handshake", front.handshakes),
            ("connections_undecided", front.undecided),
            ("connections_parked", front.parked),
            ("connections_offered", front.offered),
            ("connections_handed_off", front.handed_off),
            ("connections_back_end", back.prepared + back.serving),
            ("connections_lingering", front.lingering + back.lingering),
            ("syns_pending", front.syns),
            ("openings_pending", front.openings),
            ("openings_unfinished", back.unfinished),
            ("owners_known", front.known),
            ("owners_asked_for", front.asking),
            ("orphans", front.orphans),
            ("commits_unsettled", back.applied),
            ("first_flight_bytes", self.ctx.first_flight_bytes),
        ];
        let mut list = self.ctx.counters.list(&self.ctx.policy.nodes);
        list.extend(self.ctx.chronicle.outcomes().map(|((service, rule, server, outcome), count)| {
            let node = server.and_then(|server| self.ctx.policy.nodes.get(usize::from(server.0)));
            let node = node.map_or("", |node| node.name.as_str());
            let (service, rule, outcome) = (label_value(service), label_value(rule), outcome.label());
            (format!("outcomes_total{{service=\"{service}\",rule=\"{rule}\",node=\"{node}\",outcome=\"{outcome}\"}}"), count)
        }));
        list.extend(gauges.iter().map(|(name, value)| ((*name).to_owned(), *value as u64)));
        list
    }

    /// Names and histograms of times.
    pub fn histograms(&self) -> [(&'static str, &Histogram); 2] {
        [("decision_seconds", &self.ctx.chronicle.decision), ("handoff_seconds", &self.ctx.chronicle.handoff)]
    }

    /// From now on somebody takes the records of connections that are over, after every input.
    pub fn want_records(&mut self) {
        self.ctx.chronicle.want();
    }

    /// A connection that is over.
    pub fn poll_record(&mut self) -> Option<Record> {
        self.ctx.chronicle.poll()
    }

    /// Packets dropped for this reason.
    pub const fn dropped(&self, reason: DropReason) -> u64 {
        self.ctx.counters.dropped(reason)
    }

    /// The connections that guards were asked for and not removed: all that should be there.
    pub fn guarded(&self) -> impl Iterator<Item = FlowKey> {
        self.btcp.guarded()
    }

    /// All connections, for `baton flows`.
    pub fn flows(&self, now: Instant) -> Vec<FlowView> {
        self.btcp.flows(now).chain(self.utcp.flows(now)).collect()
    }
}

/// The ends of the TCP segment whose first IPv4 fragment this is (RFC 791, section 3.1); later ones do not say.
fn ends_of_first_fragment(packet: &[u8]) -> Option<FlowKey> {
    let (source, destination) = addresses(packet)?;
    let is_first = source.is_ipv4() && u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x1fff == 0;
    if !is_first || *packet.get(9)? != TCP {
        return None;
    }
    let ports = packet.get(usize::from(*packet.first()? & 0x0f) * 4..)?;
    let port = |at: usize| Some(u16::from_be_bytes([*ports.get(at)?, *ports.get(at + 1)?]));
    Some(FlowKey { client: Endpoint::new(source, port(0)?), frontend: Endpoint::new(destination, port(2)?) })
}

/// Source and destination of an IP packet whose payload need not be TCP.
fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 => {
            let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            Some((source.into(), destination.into()))
        }
        6 => {
            let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            let destination: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            Some((source.into(), destination.into()))
        }
        _ => None,
    }
}

/// One connection as `baton flows` shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowView {
    /// Client and front-end address.
    pub flow: FlowKey,
    /// `front-end` or `back-end`.
    pub role: &'static str,
    /// The state's name.
    pub state: &'static str,
    /// The other node of the handoff, if any.
    pub peer: Option<NodeId>,
    /// The local end of the connection in this node's kernel: an alias, and the port its application listens on.
    pub socket: Option<Endpoint>,
    /// The rule that decided, if known here.
    pub rule: Option<String>,
    /// What its packets need from now on.
    pub treatment: &'static str,
    /// Since when in this state.
    pub age: Duration,
}
