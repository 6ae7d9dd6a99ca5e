//! BTCP, the ingress side: connections that clients open to this node's front-end addresses.
//!
//! Watches the handshake from below, keeps it from completing while the request is inspected, and then either lets go of
//! the connection (the local server answers, untouched) or hands it off. Must not know how a replay works: that is
//! [`crate::handoff::utcp`], on whichever node.
//!
//! ```text
//!  SYN            SYN-ACK              ACK                  decided: peer             accept
//!   --> SynTable --------> Handshake --------> Undecided ------------------> Offered --------> Securing
//!                                               |  ^   \                     |  ^               | guard written, and the
//!                                               |  |    held too long,       |  |               | kernel's half is still
//!                                               |  |    to be acknowledged   |  |               | a request: commit sent
//!                                               |  '-- parked -- Securing <--'  |               v
//!                     released: local server <--+------ refuse, deadline, ------+---returned- HandedOff
//!                                               |       nobody left                             | closed by owner
//!                     (parked: replay to self)  '                                               v
//!                                                forgotten <--------- linger -------------- Lingering
//! ```
//!
//! Until the commit is sent the connection can be taken back for any reason; from then on only its owner can return it.

use crate::control::message::{Accept, HandoffId, Message, Refusal};
use crate::flow::{Endpoint, FlowKey, NodeId};
use crate::handoff::context::Context;
use crate::handoff::counters::{DropReason, Fallback};
use crate::handoff::engine::{FlowView, Output, SocketState, Verdict};
use crate::handoff::flight::{Arrival, FirstFlight};
use crate::handoff::holds::Holds;
use crate::handoff::initial::{ClientView, InitialState, OPTIONS_SIGNED, OPTIONS_TAKEN_OUT, SynRecord, SynTable};
use crate::handoff::timers::{Alarm, Deadline, Owner};
use crate::handoff::treatment::Treatment;
use crate::limits;
use crate::policy::{Decision, Examination, Target};
use crate::rewrite::{Flags, Segment, SegmentSpec, Seq, Timestamp, ToClientWire, ToServerWire, Wire};
use hashbrown::HashMap;
use slab::Slab;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

type Map<K, V> = HashMap<K, V, foldhash::quality::FixedState>;

/// All connections that arrive at this node.
#[derive(Debug)]
pub struct Btcp {
    syns: SynTable,
    connections: Slab<Connection>,
    by_flow: Map<FlowKey, usize>,
    by_handoff: Map<HandoffId, usize>,
    holds: Holds,
    /// Guarded in an earlier life; waiting for the owner to claim them.
    orphans: BTreeMap<FlowKey, Instant>,
}

#[derive(Debug)]
struct Connection {
    flow: FlowKey,
    serial: u64,
    rule: Option<Rc<str>>,
    guard: Guard,
    since: Instant,
    alarm: Alarm,
    state: State,
}

impl Connection {
    /// Asks for the guard; what follows waits for it.
    fn secure(&mut self, then: Securing, ctx: &mut Context) {
        self.guard = Guard::Asked;
        self.state = State::Securing(then);
        ctx.outputs.push_back(Output::Guard(self.flow));
    }
}

/// Whether the kernel is kept from answering for this connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Guard {
    None,
    /// Asked for; the answer comes before any other input.
    Asked,
    Written,
}

#[derive(Debug)]
enum State {
    /// The kernel has answered the SYN; the client has not acknowledged that yet.
    Handshake(InitialState),
    /// The client believes it is connected; nobody is decided to serve it.
    Undecided(Undecided),
    /// A candidate was asked.
    Offered(Offered),
    /// The kernel's half is about to be purged: the guard is being written, then the kernel is asked whether its half is
    /// still what we think. Nothing is given away before both have answered.
    Securing(Securing),
    /// The owner serves it.
    HandedOff(HandedOff),
    /// It is over; late packets still go to the owner.
    Lingering(NodeId),
    /// The owner is lost and the client was reset.
    Lost,
    /// Between two states, inside one transition.
    Moving,
}

impl State {
    const fn label(&self) -> &'static str {
        match self {
            Self::Handshake(_) => "handshake",
            Self::Undecided(Undecided { kernel: KernelHalf::SynReceived, .. }) => "undecided",
            Self::Undecided(Undecided { kernel: KernelHalf::Purged, .. }) => "parked",
            Self::Offered(_) => "offered",
            Self::Securing(_) => "securing",
            Self::HandedOff(_) => "handed-off",
            Self::Lingering(_) => "lingering",
            Self::Lost => "lost",
            Self::Moving => "moving",
        }
    }
}

/// What the local kernel knows of a connection that is not decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum KernelHalf {
    /// A request in SYN-RECV; the application has seen nothing.
    SynReceived,
    /// Nothing: it was purged, and BTCP alone remembers the connection (it is parked).
    Purged,
}

/// A connection nobody serves yet.
#[derive(Debug)]
struct Undecided {
    initial: InitialState,
    client: ClientView,
    kernel: KernelHalf,
    flight: FirstFlight,
    round_trip: Duration,
    entered: Instant,
    first_byte: Option<Instant>,
    /// The client is to be acknowledged as soon as the kernel's half is gone.
    acknowledge_when_parked: bool,
}

/// Who may still be asked.
#[derive(Debug)]
struct Pending {
    undecided: Undecided,
    targets: Vec<Target>,
    next: usize,
    deadline: Instant,
}

/// What follows once the guard is written and the kernel's half is known to be what we think.
#[derive(Debug)]
enum Securing {
    Park(Undecided),
    Commit(Offered),
}

#[derive(Debug)]
struct Offered {
    pending: Pending,
    id: HandoffId,
    to: NodeId,
    /// How much of the first flight the offer carried.
    offered_bytes: usize,
}

#[derive(Debug)]
struct HandedOff {
    to: NodeId,
    id: HandoffId,
    client: Option<ClientView>,
    /// What is needed should the owner return the connection; gone once it has delivered.
    pending: Option<Pending>,
    /// How much of the first flight the offer carried.
    offered_bytes: usize,
    /// The session in which the owner was last heard to own it.
    confirmed_in: u64,
    /// A SYN that came while the connection was not known to be over, and when.
    kept_syn: Option<(Instant, Vec<u8>)>,
}

/// How long the client may take to acknowledge a SYN-ACK and still be followed.
const HANDSHAKE_LIFETIME: Duration = Duration::from_secs(10);

impl Btcp {
    pub fn new(seed: u64, orphans: &[FlowKey], now: Instant) -> Self {
        let hasher = foldhash::quality::FixedState::with_seed(seed);
        Self {
            syns: SynTable::new(seed),
            connections: Slab::new(),
            by_flow: HashMap::with_hasher(hasher.clone()),
            by_handoff: HashMap::with_hasher(hasher.clone()),
            holds: Holds::default(),
            orphans: orphans.iter().map(|flow| (*flow, now + limits::ORPHAN_LIFETIME)).collect(),
        }
    }

    // ---- Packets ----------------------------------------------------------------------------------------------------

    /// A client's packet to one of this node's front-end addresses.
    pub fn handle_client(&mut self, segment: Segment<&mut [u8], ToServerWire>, ctx: &mut Context, now: Instant) -> Verdict {
        let flow = FlowKey { client: segment.source(), frontend: segment.destination() };
        let Some(slot) = self.by_flow.get(&flow).copied() else {
            if self.orphans.contains_key(&flow) {
                return drop(ctx, DropReason::Orphan);
            }
            return self.handle_unknown(flow, segment, ctx, now);
        };
        let is_syn = segment.flags().contains(Flags::SYN) && !segment.flags().contains(Flags::ACK);
        let connection = &mut self.connections[slot];
        match &mut connection.state {
            // What BTCP itself acts on it must judge itself; everything else is judged by the owner's kernel.
            State::Handshake(_) | State::Undecided(_) | State::Offered(_) | State::Securing(_) if !segment.checksums_are_right() => {
                drop(ctx, DropReason::Checksum)
            }
            State::Handshake(_) => self.in_handshake(slot, segment, ctx, now),
            State::Undecided(_) | State::Offered(_) | State::Securing(_) => self.while_undecided(slot, &segment, ctx, now),
            State::HandedOff(handed_off) => {
                if is_syn {
                    handed_off.kept_syn = Some((now, segment.packet().to_vec()));
                } else {
                    if !segment.flags().contains(Flags::RST) {
                        // The client goes on with this connection: that SYN was not its own.
                        handed_off.kept_syn = None;
                    }
                    handed_off.client.get_or_insert_with(|| ClientView::seen(&segment)).update(&segment);
                }
                Verdict::Forward(handed_off.to)
            }
            State::Lingering(_) | State::Lost if is_syn => {
                self.forget(slot, ctx);
                self.handle_unknown(flow, segment, ctx, now)
            }
            State::Lingering(owner) => Verdict::Forward(*owner),
            State::Lost => {
                if !segment.flags().intersects(Flags::RST) {
                    ctx.write(reset(&flow, segment.ack()));
                }
                drop(ctx, DropReason::OwnerLost)
            }
            State::Moving => drop(ctx, DropReason::UnexpectedFromKernel),
        }
    }

    /// A packet of no connection we follow: a SYN, or one of a connection that the local server serves.
    fn handle_unknown(
        &mut self,
        flow: FlowKey,
        mut syn: Segment<&mut [u8], ToServerWire>,
        ctx: &mut Context,
        now: Instant,
    ) -> Verdict {
        let flags = syn.flags();
        if !flags.contains(Flags::SYN) || flags.intersects(Flags::ACK.with(Flags::RST).with(Flags::FIN)) || !syn.checksums_are_right()
        {
            return Verdict::Write;
        }
        ctx.counters.syns += 1;
        if ctx.draining || OPTIONS_SIGNED.iter().any(|kind| syn.has_option(*kind)) {
            return Verdict::Write;
        }
        for kind in OPTIONS_TAKEN_OUT {
            syn.blank_option(kind);
        }
        if syn.accurate_ecn() {
            syn.clear_accurate_ecn();
        }
        ctx.counters.syns_evicted += self.syns.insert(flow, SynRecord::of(&syn, now));
        if syn.payload().is_empty() {
            return Verdict::Write;
        }
        // Data on a SYN (RFC 7413) cannot be handed off; unacknowledged, the client sends it again.
        ctx.write(without_payload(&syn));
        Verdict::Consumed
    }

    fn in_handshake(
        &mut self,
        slot: usize,
        segment: Segment<&mut [u8], ToServerWire>,
        ctx: &mut Context,
        now: Instant,
    ) -> Verdict {
        let connection = &mut self.connections[slot];
        let State::Handshake(initial) = &connection.state else { return drop(ctx, DropReason::UnexpectedFromKernel) };
        let initial = *initial;
        let flow = connection.flow;
        let flags = segment.flags();
        if flags.contains(Flags::SYN) {
            // Sent again, or another connection: the kernel tells which by its SYN-ACK.
            return self.handle_unknown(flow, segment, ctx, now);
        }
        let first = initial.client_isn.plus(1);
        if flags.contains(Flags::RST) {
            // The kernel accepts any RST in its window here; we let through only what RFC 5961 calls exact.
            if segment.seq() != first {
                return drop(ctx, DropReason::ResetNotExact);
            }
            self.forget(slot, ctx);
            return Verdict::Write;
        }
        if segment.seq().is_before(&first) && first.is_before(&segment.seq_end()) {
            // The kernel would trim it, take the rest and complete the handshake behind our back.
            return drop(ctx, DropReason::OutOfWindow);
        }
        if !flags.contains(Flags::ACK) || segment.ack() != initial.frontend_isn.plus(1) || segment.seq().is_before(&first) {
            // The kernel answers this as it should; its half stays as it is.
            return Verdict::Write;
        }
        connection.state = State::Undecided(Undecided {
            initial,
            client: ClientView::new(&initial),
            kernel: KernelHalf::SynReceived,
            flight: FirstFlight::new(initial.client_isn),
            round_trip: now.saturating_duration_since(initial.at),
            entered: now,
            first_byte: None,
            acknowledge_when_parked: false,
        });
        connection.since = now;
        self.holds.enter(flow.frontend, slot, connection.serial);
        let verdict = self.while_undecided(slot, &segment, ctx, now);
        self.set_alarm_of_undecided(slot, ctx, now);
        self.park_excess(flow.frontend, ctx);
        verdict
    }

    /// A client's segment while nobody serves the connection: BTCP stands in for the kernel (RFC 9293, section 3.10.7.4).
    fn while_undecided(
        &mut self,
        slot: usize,
        segment: &Segment<&mut [u8], ToServerWire>,
        ctx: &mut Context,
        now: Instant,
    ) -> Verdict {
        let connection = &mut self.connections[slot];
        let flow = connection.flow;
        let Some(undecided) = connection.state.undecided_mut() else { return drop(ctx, DropReason::UnexpectedFromKernel) };
        let flags = segment.flags();
        // First, check RST (RFC 5961, section 3.2). A client that was sent a challenge resets at what that acknowledged.
        if flags.contains(Flags::RST) {
            let seq = segment.seq();
            if seq == undecided.flight.next() || seq == undecided.flight.acknowledged() {
                ctx.counters.reset_by_client += 1;
                self.abandon(slot, ctx);
                return Verdict::Consumed;
            }
            let ahead = seq.since(&undecided.flight.acknowledged());
            if (1..=i32::from(u16::MAX)).contains(&ahead) && ctx.may_challenge(now) {
                ctx.write(undecided.acknowledgement(&flow));
            }
            return drop(ctx, DropReason::ResetNotExact);
        }
        // Then SYN (RFC 5961, section 4.2).
        if flags.contains(Flags::SYN) {
            if ctx.may_challenge(now) {
                ctx.write(undecided.acknowledgement(&flow));
            }
            return drop(ctx, DropReason::SynOnConnection);
        }
        if !flags.contains(Flags::ACK) {
            return drop(ctx, DropReason::BadAcknowledgement);
        }
        let acknowledged = segment.ack().since(&undecided.initial.frontend_isn.plus(1));
        if acknowledged > 0 && undecided.kernel == KernelHalf::SynReceived {
            // The client has heard from the local server: something reached the kernel without us. It is the server's.
            self.take_back(slot, Fallback::KernelWentOn, ctx);
            return Verdict::Write;
        }
        if acknowledged != 0 {
            return drop(ctx, DropReason::BadAcknowledgement);
        }
        undecided.client.update(segment);
        let inspect_bytes_max = ctx.policy.service_of(flow.frontend).map_or(0, |service| service.inspect_bytes_max);
        let held_before = undecided.flight.held_bytes();
        let arrival = if ctx.first_flight_bytes.saturating_add(segment.packet().len()) > ctx.policy.limits.first_flight_bytes {
            Arrival::Full
        } else {
            undecided.flight.insert(segment, inspect_bytes_max)
        };
        ctx.first_flight_bytes += undecided.flight.held_bytes() - held_before;
        match arrival {
            Arrival::Progress => {
                undecided.first_byte.get_or_insert(now);
                self.examine(slot, ctx, now);
                Verdict::Consumed
            }
            Arrival::Kept => Verdict::Consumed,
            Arrival::Old => {
                // Parked, there is no kernel to acknowledge what is sent again, or to answer a keep-alive probe.
                if undecided.kernel == KernelHalf::Purged && segment.seq().is_before(&undecided.flight.next()) {
                    undecided.flight.acknowledge_all();
                    ctx.write(undecided.acknowledgement(&flow));
                }
                Verdict::Consumed
            }
            Arrival::Full => {
                self.decide_by_default(slot, ctx, now);
                drop(ctx, DropReason::HeldFull)
            }
            Arrival::OutOfWindow => drop(ctx, DropReason::OutOfWindow),
        }
    }

    /// A SYN-ACK of the local kernel, on its way to a client.
    pub fn handle_syn_ack(&mut self, mut syn_ack: Segment<&mut [u8], ToClientWire>, ctx: &mut Context, now: Instant) -> Verdict {
        let flow = FlowKey { client: syn_ack.destination(), frontend: syn_ack.source() };
        if let Some(slot) = self.by_flow.get(&flow).copied() {
            match &self.connections[slot].state {
                State::Handshake(initial) if initial.frontend_isn == syn_ack.seq() => {
                    syn_ack.clamp_mss(ctx.mss_max(flow.client.address));
                    return Verdict::Write;
                }
                State::Handshake(_) => self.forget(slot, ctx),
                State::Undecided(_) | State::Offered(_) | State::Securing(_) => return drop(ctx, DropReason::SynAckAbsorbed),
                State::HandedOff(_) | State::Lingering(_) | State::Lost | State::Moving => {
                    return drop(ctx, DropReason::UnexpectedFromKernel);
                }
            }
        }
        if ctx.draining {
            return Verdict::Write;
        }
        let Some(syn) = self.syns.take(&flow, &syn_ack) else { return Verdict::Write };
        if !ctx.has_room() {
            ctx.counters.fall_back(Fallback::Full);
            return Verdict::Write;
        }
        let state = State::Handshake(InitialState::learn(&syn, &syn_ack, &flow, now));
        let slot = self.insert(flow, state, Guard::None, ctx, now);
        self.set_alarm(slot, now + HANDSHAKE_LIFETIME, ctx);
        ctx.counters.connections += 1;
        syn_ack.clamp_mss(ctx.mss_max(flow.client.address));
        Verdict::Write
    }

    /// Where an ICMP error about this connection has to go; None if the local kernel serves it.
    pub fn owner_of(&self, flow: &FlowKey) -> Option<NodeId> {
        match &self.connections[*self.by_flow.get(flow)?].state {
            State::HandedOff(handed_off) => Some(handed_off.to),
            State::Lingering(owner) => Some(*owner),
            State::Handshake(_)
            | State::Undecided(_)
            | State::Offered(_)
            | State::Securing(_)
            | State::Lost
            | State::Moving => None,
        }
    }

    // ---- Inspection and decision ------------------------------------------------------------------------------------

    fn examine(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let flow = connection.flow;
        let State::Undecided(undecided) = &mut connection.state else { return };
        let policy = Rc::clone(&ctx.policy);
        let Some(service) = policy.service_of(flow.frontend) else { return self.decide_by_default(slot, ctx, now) };
        match service.examine(undecided.flight.bytes(), flow.client) {
            Examination::Decided(decision) => self.decide(slot, decision, ctx, now),
            Examination::NeedMore => {
                let is_all = undecided.flight.is_finished() || undecided.flight.bytes().len() >= service.inspect_bytes_max;
                if is_all {
                    return self.decide_by_default(slot, ctx, now);
                }
                if undecided.flight.initial_window_is_used_up() {
                    self.acknowledge_early(slot, ctx);
                }
                self.set_alarm_of_undecided(slot, ctx, now);
            }
        }
    }

    fn decide_by_default(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let flow = self.connections[slot].flow;
        let decision = ctx
            .policy
            .service_of(flow.frontend)
            .map_or_else(|| Decision { rule: "default".into(), targets: Vec::new(), note: None }, |service| service.by_default());
        self.decide(slot, decision, ctx, now);
    }

    fn decide(&mut self, slot: usize, decision: Decision, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let undecided = match connection.state.take() {
            State::Undecided(undecided) => undecided,
            other => {
                connection.state = other;
                return;
            }
        };
        let policy = Rc::clone(&ctx.policy);
        let service = policy.service_of(connection.flow.frontend);
        let timeout = service.map_or(Duration::from_secs(1), |service| service.handoff_timeout);
        let service_name: Rc<str> = service.map_or("", |service| service.name.as_str()).into();
        ctx.counters.decide(&service_name, &decision.rule);
        if let Some(ambiguity) = decision.note {
            ctx.counters.note(ambiguity.label());
        }
        log::debug!("decided flow={} rule={:?} targets={:?}", connection.flow, decision.rule, decision.targets);
        connection.rule = Some(decision.rule);
        connection.alarm.clear();
        let pending = Pending { undecided, targets: decision.targets, next: 0, deadline: now + timeout };
        self.try_next(slot, pending, ctx, now);
    }

    /// Asks the next candidate; when there is none left the local server answers.
    fn try_next(&mut self, slot: usize, mut pending: Pending, ctx: &mut Context, now: Instant) {
        while let Some(target) = pending.targets.get(pending.next).copied() {
            pending.next += 1;
            let Target::Node(node) = target else { break };
            if node == ctx.node {
                break;
            }
            let passed_over = match ctx.peer(node) {
                _ if ctx.draining => Some(Fallback::Draining),
                Some(peer) if peer.up && peer.draining => Some(Fallback::PeerDraining),
                Some(peer) if peer.up => None,
                _ => Some(Fallback::PeerDown),
            };
            match passed_over {
                Some(reason) => ctx.counters.fall_back(reason),
                None => return self.offer(slot, node, pending, ctx, now),
            }
        }
        self.serve_locally(slot, pending, ctx, now);
    }

    fn serve_locally(&mut self, slot: usize, pending: Pending, ctx: &mut Context, now: Instant) {
        match pending.undecided.kernel {
            KernelHalf::SynReceived => self.release(slot, pending.undecided, ctx),
            KernelHalf::Purged => {
                let node = ctx.node;
                self.offer(slot, node, Pending { next: pending.targets.len(), deadline: now, ..pending }, ctx, now);
            }
        }
    }

    /// Lets go of a connection: the kernel gets what was withheld, and serves it from now on as if we had never been.
    fn release(&mut self, slot: usize, undecided: Undecided, ctx: &mut Context) {
        let flow = self.connections[slot].flow;
        ctx.first_flight_bytes -= undecided.flight.held_bytes();
        ctx.counters.released_local += 1;
        for packet in undecided.flight.into_segments() {
            ctx.write(packet);
        }
        self.holds.leave(flow.frontend);
        self.forget(slot, ctx);
    }

    // ---- Parking ----------------------------------------------------------------------------------------------------

    fn park_excess(&mut self, frontend: Endpoint, ctx: &mut Context) {
        let connections = &self.connections;
        let is_held = |slot: usize, serial: u64| {
            connections.get(slot).is_some_and(|connection| {
                connection.serial == serial
                    && matches!(&connection.state, State::Undecided(undecided) if undecided.kernel == KernelHalf::SynReceived)
            })
        };
        if let Some(slot) = self.holds.excess(frontend, is_held) {
            self.park(slot, ctx);
        }
    }

    /// Takes an undecided connection out of the kernel, for as long as its client likes to be silent. First the guard.
    fn park(&mut self, slot: usize, ctx: &mut Context) {
        let connection = &mut self.connections[slot];
        match connection.state.take() {
            State::Undecided(undecided) if undecided.kernel == KernelHalf::SynReceived => {
                connection.secure(Securing::Park(undecided), ctx);
            }
            other => connection.state = other,
        }
    }

    fn acknowledge_early(&mut self, slot: usize, ctx: &mut Context) {
        let connection = &mut self.connections[slot];
        let flow = connection.flow;
        let State::Undecided(undecided) = &mut connection.state else { return };
        match undecided.kernel {
            KernelHalf::SynReceived => {
                undecided.acknowledge_when_parked = true;
                self.park(slot, ctx);
            }
            KernelHalf::Purged => {
                undecided.flight.acknowledge_all();
                ctx.counters.early_acknowledgements += 1;
                ctx.write(undecided.acknowledgement(&flow));
            }
        }
    }

    /// The guard of a connection was written, or could not be.
    pub fn handle_guard(&mut self, flow: FlowKey, written: bool, ctx: &mut Context) {
        let Some(slot) = self.by_flow.get(&flow).copied() else {
            if written {
                ctx.outputs.push_back(Output::Unguard(flow));
            }
            return;
        };
        let connection = &mut self.connections[slot];
        connection.guard = if written { Guard::Written } else { Guard::None };
        if !matches!(connection.state, State::Securing(_)) {
            return;
        }
        if written {
            // From here on nothing reaches the kernel without us; before, a fragment or a pause of ours may have let
            // something through.
            ctx.outputs.push_back(Output::AskSocket { local: flow.frontend, remote: flow.client });
        } else {
            // What cannot be guarded can be neither parked nor handed off: the local server answers.
            self.take_back(slot, Fallback::GuardFailed, ctx);
        }
    }

    /// What the kernel says of its own half, now that nothing can change it any more.
    pub fn handle_socket(&mut self, flow: FlowKey, socket: SocketState, ctx: &mut Context, now: Instant) {
        let Some(slot) = self.by_flow.get(&flow).copied() else { return };
        if matches!(socket, SocketState::Open | SocketState::TimeWait) {
            if matches!(self.connections[slot].state, State::Securing(_)) {
                self.take_back(slot, Fallback::KernelWentOn, ctx);
            }
            return;
        }
        let connection = &mut self.connections[slot];
        match connection.state.take() {
            State::Securing(Securing::Commit(offered)) => self.commit(slot, offered, ctx, now),
            State::Securing(Securing::Park(mut undecided)) => {
                purge(&flow, &mut undecided, &mut self.holds, ctx);
                ctx.counters.parked += 1;
                let acknowledge = std::mem::take(&mut undecided.acknowledge_when_parked);
                connection.state = State::Undecided(undecided);
                if acknowledge {
                    self.acknowledge_early(slot, ctx);
                }
                self.set_alarm_of_undecided(slot, ctx, now);
            }
            other => connection.state = other,
        }
    }

    /// Takes an undecided connection back for good: whoever was asked is told, and the kernel, which knows it, serves it.
    fn take_back(&mut self, slot: usize, reason: Fallback, ctx: &mut Context) {
        let connection = &mut self.connections[slot];
        let undecided = match connection.state.take() {
            State::Undecided(undecided) | State::Securing(Securing::Park(undecided)) => undecided,
            State::Offered(offered) | State::Securing(Securing::Commit(offered)) => {
                ctx.say(offered.to, Message::Abort { id: offered.id });
                self.by_handoff.remove(&offered.id);
                offered.pending.undecided
            }
            other => {
                connection.state = other;
                return;
            }
        };
        ctx.counters.fall_back(reason);
        self.release(slot, undecided, ctx);
    }

    // ---- Handoff ----------------------------------------------------------------------------------------------------

    fn offer(&mut self, slot: usize, to: NodeId, mut pending: Pending, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let id = ctx.handoff_id();
        let undecided = &mut pending.undecided;
        let service = ctx.policy.service_of(connection.flow.frontend).map_or_else(String::new, |service| service.name.clone());
        let offer = undecided.initial.offer(
            id,
            connection.flow,
            &service,
            &undecided.client,
            undecided.round_trip,
            undecided.flight.was_acknowledged(),
            undecided.flight.bytes(),
            now,
        );
        let offered_bytes = offer.first_flight.len();
        if to != ctx.node {
            ctx.counters.offers_sent += 1;
        }
        ctx.say(to, Message::Offer(Box::new(offer)));
        // The time left is shared among the peers that can still be asked; the local server's share comes on top.
        let peers_left = 1 + pending.targets.iter().skip(pending.next).filter(|target| matches!(target, Target::Node(_))).count();
        let share = pending.deadline.saturating_duration_since(now) / u32::try_from(peers_left).unwrap_or(u32::MAX);
        let deadline = now + share.max(limits::REPLAY_DEADLINE + limits::REPLAY_DEADLINE / 4);
        self.by_handoff.insert(id, slot);
        connection.since = now;
        connection.state = State::Offered(Offered { pending, id, to, offered_bytes });
        self.set_alarm(slot, deadline, ctx);
    }

    /// The candidate is ready: guard first, then the commit.
    pub fn handle_accept(&mut self, from: NodeId, accept: &Accept, ctx: &mut Context, now: Instant) {
        let Some(slot) = self.by_handoff.get(&accept.id).copied() else {
            return ctx.say(from, Message::Abort { id: accept.id });
        };
        let connection = &mut self.connections[slot];
        match connection.state.take() {
            State::Offered(offered) if offered.to == from => {
                connection.alarm.clear();
                match offered.pending.undecided.kernel {
                    KernelHalf::Purged => self.commit(slot, offered, ctx, now),
                    KernelHalf::SynReceived => connection.secure(Securing::Commit(offered), ctx),
                }
            }
            other => connection.state = other,
        }
    }

    /// The point of no return: from here on only the owner can give the connection back.
    fn commit(&mut self, slot: usize, mut offered: Offered, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let (to, id) = (offered.to, offered.id);
        let undecided = &mut offered.pending.undecided;
        purge(&connection.flow, undecided, &mut self.holds, ctx);
        let more = undecided.flight.bytes().get(offered.offered_bytes..).unwrap_or_default().to_vec();
        ctx.say(to, Message::Commit { id, more });
        for packet in undecided.flight.take_segments_beyond() {
            ctx.forward(to, packet);
        }
        if to == ctx.node {
            ctx.counters.replays_to_self += 1;
        } else {
            ctx.counters.handoffs_committed += 1;
            if let Some(peer) = ctx.peer_mut(to) {
                peer.unsettled = true;
            }
        }
        log::debug!("handed off flow={} id={} to={}", connection.flow, id.serial, to.0);
        connection.since = now;
        connection.alarm.clear();
        connection.state = State::HandedOff(HandedOff {
            to,
            id,
            client: Some(undecided.client),
            pending: Some(offered.pending),
            offered_bytes: offered.offered_bytes,
            confirmed_in: u64::MAX,
            kept_syn: None,
        });
    }

    /// The candidate will not take it.
    pub fn handle_refuse(&mut self, from: NodeId, id: HandoffId, reason: Refusal, ctx: &mut Context, now: Instant) {
        let Some(slot) = self.by_handoff.get(&id).copied() else { return };
        let connection = &mut self.connections[slot];
        match connection.state.take() {
            State::Offered(offered) if offered.to == from => {
                self.by_handoff.remove(&id);
                self.passed_over(slot, from, offered.pending, reason.into(), ctx, now);
            }
            other => connection.state = other,
        }
    }

    /// A candidate failed before or after the commit, provably untouched: the next one, or a reset if even the local
    /// server could not take it.
    fn passed_over(
        &mut self,
        slot: usize,
        candidate: NodeId,
        mut pending: Pending,
        reason: Fallback,
        ctx: &mut Context,
        now: Instant,
    ) {
        ctx.counters.fall_back(reason);
        log::debug!("fell back flow={} candidate={} reason={}", self.connections[slot].flow, candidate.0, reason.label());
        if candidate == ctx.node {
            self.reset_client(slot, Some(pending.undecided.client), ctx, now);
            ctx.first_flight_bytes -= pending.undecided.flight.held_bytes();
            return;
        }
        pending.deadline = pending.deadline.max(now);
        self.try_next(slot, pending, ctx, now);
    }

    /// The owner's kernel has the first flight.
    pub fn handle_delivered(&mut self, from: NodeId, id: HandoffId, ctx: &mut Context) {
        let session = ctx.peer(from).map_or(0, |peer| peer.sessions);
        if let Some(handed_off) = self.handed_off_mut(from, id) {
            handed_off.confirmed_in = session;
            if let Some(pending) = handed_off.pending.take() {
                ctx.first_flight_bytes -= pending.undecided.flight.held_bytes();
            }
        }
    }

    /// The owner gives it back, untouched.
    pub fn handle_returned(&mut self, from: NodeId, id: HandoffId, ctx: &mut Context, now: Instant) {
        let Some(slot) = self.by_handoff.get(&id).copied() else { return };
        let Some(handed_off) = self.handed_off_mut(from, id) else { return };
        let Some(mut pending) = handed_off.pending.take() else { return };
        pending.deadline = now + limits::REPLAY_DEADLINE * 2;
        if let Some(client) = handed_off.client {
            pending.undecided.client = client;
        }
        self.by_handoff.remove(&id);
        self.passed_over(slot, from, pending, Fallback::Returned, ctx, now);
    }

    /// The owner says the connection is over. A SYN that came meanwhile begins the next one.
    pub fn handle_closed(&mut self, from: NodeId, id: HandoffId, ctx: &mut Context, now: Instant) {
        let Some(slot) = self.by_handoff.get(&id).copied() else { return };
        let Some(handed_off) = self.handed_off_mut(from, id) else { return };
        let kept_syn = handed_off.kept_syn.take().filter(|(at, _)| now.saturating_duration_since(*at) <= limits::SYN_LIFETIME);
        if let Some(pending) = handed_off.pending.take() {
            ctx.first_flight_bytes -= pending.undecided.flight.held_bytes();
        }
        self.by_handoff.remove(&id);
        let connection = &mut self.connections[slot];
        let flow = connection.flow;
        connection.state = State::Lingering(from);
        connection.since = now;
        if from != ctx.node {
            ctx.counters.handoffs_closed += 1;
        }
        let linger = ctx.policy.limits.linger;
        self.set_alarm(slot, now + linger, ctx);
        if let Some((_, mut syn)) = kept_syn {
            self.forget(slot, ctx);
            if let Ok(segment) = Segment::parse(syn.as_mut_slice())
                && self.handle_unknown(flow, segment, ctx, now) == Verdict::Write
            {
                ctx.write(syn);
            }
        }
    }

    fn handed_off_mut(&mut self, from: NodeId, id: HandoffId) -> Option<&mut HandedOff> {
        let slot = *self.by_handoff.get(&id)?;
        match &mut self.connections.get_mut(slot)?.state {
            State::HandedOff(handed_off) if handed_off.to == from && handed_off.id == id => Some(handed_off),
            _ => None,
        }
    }

    // ---- Peers ------------------------------------------------------------------------------------------------------

    /// A session with the peer is up. If the peer was born anew, whatever it owned is lost.
    pub fn handle_peer_up(&mut self, peer: NodeId, born_anew: bool, ctx: &mut Context, now: Instant) {
        for slot in self.slots_at(peer) {
            let State::HandedOff(handed_off) = &self.connections[slot].state else { continue };
            if born_anew {
                self.lose(slot, ctx, now);
            } else if let Some(pending) = &handed_off.pending {
                let more = pending.undecided.flight.bytes().get(handed_off.offered_bytes..).unwrap_or_default().to_vec();
                ctx.say(peer, Message::Commit { id: handed_off.id, more });
            }
        }
    }

    /// The session is gone: whatever was only offered is taken back.
    pub fn handle_peer_down(&mut self, peer: NodeId, ctx: &mut Context, now: Instant) {
        for slot in self.slots_at(peer) {
            match self.connections[slot].state.take() {
                State::Offered(offered) => {
                    self.by_handoff.remove(&offered.id);
                    self.passed_over(slot, peer, offered.pending, Fallback::PeerDown, ctx, now);
                }
                State::HandedOff(handed_off) => {
                    self.connections[slot].state = State::HandedOff(handed_off);
                    self.set_alarm(slot, now + limits::OWNER_LOST_AFTER, ctx);
                }
                other => self.connections[slot].state = other,
            }
        }
    }

    /// The peer owns this connection: one we know, or one guarded in an earlier life.
    pub fn handle_owned(&mut self, from: NodeId, id: HandoffId, flow: FlowKey, ctx: &mut Context, now: Instant) {
        let session = ctx.peer(from).map_or(0, |peer| peer.sessions);
        if let Some(handed_off) = self.handed_off_mut(from, id) {
            handed_off.confirmed_in = session;
            return;
        }
        if self.orphans.remove(&flow).is_none() || self.by_flow.contains_key(&flow) {
            // Given up here, its client reset: the owner must not send for it any more.
            return ctx.say(from, Message::Disowned { id });
        }
        let state = State::HandedOff(HandedOff {
            to: from,
            id,
            client: None,
            pending: None,
            offered_bytes: 0,
            confirmed_in: session,
            kept_syn: None,
        });
        let slot = self.insert(flow, state, Guard::Written, ctx, now);
        self.by_handoff.insert(id, slot);
        ctx.counters.adopted += 1;
    }

    /// The peer named all it owns: what it did not name, and had confirmed in an earlier session, is over.
    pub fn handle_owned_end(&mut self, from: NodeId, ctx: &mut Context, now: Instant) {
        let session = ctx.peer(from).map_or(0, |peer| peer.sessions);
        for slot in self.slots_at(from) {
            if let State::HandedOff(handed_off) = &self.connections[slot].state
                && handed_off.confirmed_in < session
            {
                let id = handed_off.id;
                self.handle_closed(from, id, ctx, now);
            }
        }
    }

    /// The lowest serial whose commit to this peer may yet be repeated.
    pub fn settled_below(&self, peer: NodeId, ctx: &Context) -> u64 {
        self.connections
            .iter()
            .filter_map(|(_, connection)| match &connection.state {
                State::HandedOff(handed_off) if handed_off.to == peer && handed_off.pending.is_some() => {
                    Some(handed_off.id.serial)
                }
                State::Offered(offered) | State::Securing(Securing::Commit(offered)) if offered.to == peer => Some(offered.id.serial),
                _ => None,
            })
            .min()
            .unwrap_or(ctx.next_serial)
    }

    fn slots_at(&self, peer: NodeId) -> Vec<usize> {
        self.connections
            .iter()
            .filter(|(_, connection)| match &connection.state {
                State::Offered(offered) | State::Securing(Securing::Commit(offered)) => offered.to == peer,
                State::HandedOff(handed_off) => handed_off.to == peer,
                _ => false,
            })
            .map(|(slot, _)| slot)
            .collect()
    }

    // ---- Ends -------------------------------------------------------------------------------------------------------

    /// The owner is gone for good, and with it what it had not yet sent: the client must know.
    fn lose(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        if let State::HandedOff(handed_off) = self.connections[slot].state.take() {
            self.by_handoff.remove(&handed_off.id);
            if let Some(pending) = handed_off.pending {
                ctx.first_flight_bytes -= pending.undecided.flight.held_bytes();
            }
            self.reset_client(slot, handed_off.client, ctx, now);
        }
    }

    fn reset_client(&mut self, slot: usize, client: Option<ClientView>, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        ctx.counters.resets += 1;
        if let Some(client) = client {
            ctx.write(reset(&connection.flow, client.acknowledged));
        }
        connection.state = State::Lost;
        connection.since = now;
        let linger = ctx.policy.limits.linger;
        self.set_alarm(slot, now + linger, ctx);
    }

    /// The client itself has ended an undecided connection.
    fn abandon(&mut self, slot: usize, ctx: &mut Context) {
        let flow = self.connections[slot].flow;
        let mut undecided = match self.connections[slot].state.take() {
            State::Undecided(undecided) | State::Securing(Securing::Park(undecided)) => undecided,
            State::Offered(offered) | State::Securing(Securing::Commit(offered)) => {
                self.by_handoff.remove(&offered.id);
                ctx.say(offered.to, Message::Abort { id: offered.id });
                offered.pending.undecided
            }
            other => {
                self.connections[slot].state = other;
                return;
            }
        };
        ctx.first_flight_bytes -= undecided.flight.held_bytes();
        purge(&flow, &mut undecided, &mut self.holds, ctx);
        self.forget(slot, ctx);
    }

    /// The kernel may have gone on without us: no undecided connection that it knows may be handed off.
    pub fn handle_stall(&mut self, ctx: &mut Context) {
        self.syns.clear();
        self.release_undecided(Fallback::Stalled, ctx);
    }

    /// No new handoffs: what the kernel still knows goes to the local server.
    pub fn drain(&mut self, ctx: &mut Context) {
        self.syns.clear();
        self.release_undecided(Fallback::Draining, ctx);
    }

    fn release_undecided(&mut self, reason: Fallback, ctx: &mut Context) {
        let slots: Vec<_> = self.connections.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            match self.connections[slot].state.take() {
                State::Handshake(_) => self.forget(slot, ctx),
                State::Undecided(undecided) if undecided.kernel == KernelHalf::SynReceived => self.release(slot, undecided, ctx),
                State::Offered(offered) if offered.pending.undecided.kernel == KernelHalf::SynReceived => {
                    ctx.counters.fall_back(reason);
                    ctx.say(offered.to, Message::Abort { id: offered.id });
                    self.by_handoff.remove(&offered.id);
                    self.release(slot, offered.pending.undecided, ctx);
                }
                other => self.connections[slot].state = other,
            }
        }
    }

    /// Resets every connection that only this process keeps alive.
    pub fn reset_all(&mut self, ctx: &mut Context, now: Instant) {
        let slots: Vec<_> = self.connections.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let flow = self.connections[slot].flow;
            match self.connections[slot].state.take() {
                State::HandedOff(handed_off) => {
                    if let Some(client) = &handed_off.client {
                        ctx.forward(handed_off.to, reset_of_client(&flow, client));
                    }
                    self.connections[slot].state = State::HandedOff(handed_off);
                    self.lose(slot, ctx, now);
                }
                State::Undecided(undecided) if undecided.kernel == KernelHalf::SynReceived => self.release(slot, undecided, ctx),
                State::Offered(Offered { pending, id, to, .. }) | State::Securing(Securing::Commit(Offered { pending, id, to, .. })) => {
                    ctx.say(to, Message::Abort { id });
                    self.by_handoff.remove(&id);
                    if pending.undecided.kernel == KernelHalf::SynReceived {
                        self.release(slot, pending.undecided, ctx);
                    } else {
                        ctx.first_flight_bytes -= pending.undecided.flight.held_bytes();
                        self.reset_client(slot, Some(pending.undecided.client), ctx, now);
                    }
                }
                State::Undecided(undecided) => {
                    ctx.first_flight_bytes -= undecided.flight.held_bytes();
                    self.reset_client(slot, Some(undecided.client), ctx, now);
                }
                other => self.connections[slot].state = other,
            }
        }
    }

    // ---- Timers -----------------------------------------------------------------------------------------------------

    /// A deadline of one of these connections passed.
    pub fn handle_deadline(&mut self, deadline: Deadline, ctx: &mut Context, now: Instant) {
        let slot = deadline.slot;
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if connection.serial != deadline.serial || !connection.alarm.fires(deadline, now, &mut ctx.timers) {
            return;
        }
        match connection.state.take() {
            State::Handshake(_) | State::Lingering(_) | State::Lost => self.forget(slot, ctx),
            State::Undecided(undecided) => {
                connection.state = State::Undecided(undecided);
                self.handle_deadline_of_undecided(slot, ctx, now);
            }
            State::Offered(offered) => {
                self.by_handoff.remove(&offered.id);
                ctx.say(offered.to, Message::Abort { id: offered.id });
                self.passed_over(slot, offered.to, offered.pending, Fallback::Deadline, ctx, now);
            }
            State::HandedOff(handed_off) => {
                let is_down = handed_off.to != ctx.node && ctx.peer(handed_off.to).is_none_or(|peer| !peer.up);
                connection.state = State::HandedOff(handed_off);
                if is_down {
                    self.lose(slot, ctx, now);
                }
            }
            other => connection.state = other,
        }
    }

    fn handle_deadline_of_undecided(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let connection = &self.connections[slot];
        let State::Undecided(undecided) = &connection.state else { return };
        let service = ctx.policy.service_of(connection.flow.frontend);
        let is_late = match (undecided.first_byte, service) {
            (_, None) => true,
            (Some(first_byte), Some(service)) => now >= first_byte + service.inspect_timeout,
            (None, Some(service)) => now >= undecided.entered + service.silence_timeout,
        };
        if is_late {
            return self.decide_by_default(slot, ctx, now);
        }
        let owes = undecided.flight.owes_acknowledgement()
            && undecided.first_byte.is_some_and(|first_byte| now >= first_byte + limits::EARLY_ACKNOWLEDGEMENT_AFTER);
        if owes {
            self.acknowledge_early(slot, ctx);
        } else if undecided.kernel == KernelHalf::SynReceived && now >= undecided.entered + limits::HOLD_MAX {
            self.park(slot, ctx);
        }
        self.set_alarm_of_undecided(slot, ctx, now);
    }

    fn set_alarm_of_undecided(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let Some(connection) = self.connections.get(slot) else { return };
        let State::Undecided(undecided) = &connection.state else { return };
        let Some(service) = ctx.policy.service_of(connection.flow.frontend) else { return };
        let mut at = match undecided.first_byte {
            Some(first_byte) => first_byte + service.inspect_timeout,
            None => undecided.entered + service.silence_timeout,
        };
        if undecided.kernel == KernelHalf::SynReceived {
            at = at.min(undecided.entered + limits::HOLD_MAX);
        }
        if undecided.flight.owes_acknowledgement()
            && let Some(first_byte) = undecided.first_byte
        {
            at = at.min((first_byte + limits::EARLY_ACKNOWLEDGEMENT_AFTER).max(now + Duration::from_millis(1)));
        }
        self.set_alarm(slot, at, ctx);
    }

    fn set_alarm(&mut self, slot: usize, at: Instant, ctx: &mut Context) {
        let connection = &mut self.connections[slot];
        connection.alarm.set(at, Owner::Btcp, slot, connection.serial, &mut ctx.timers);
    }

    /// Guards of an earlier life that no owner has claimed in time: their clients are reset when they next speak. Only when
    /// both have been silent for a linger may the kernel answer again.
    pub fn expire_orphans(&mut self, ctx: &mut Context, now: Instant) {
        let expired: Vec<_> = self.orphans.iter().filter(|(_, at)| **at <= now).map(|(flow, _)| *flow).collect();
        for flow in expired {
            self.orphans.remove(&flow);
            let slot = self.insert(flow, State::Lost, Guard::Written, ctx, now);
            let linger = ctx.policy.limits.linger;
            self.set_alarm(slot, now + linger, ctx);
        }
    }

    // ---- The table --------------------------------------------------------------------------------------------------

    fn insert(&mut self, flow: FlowKey, state: State, guard: Guard, ctx: &mut Context, now: Instant) -> usize {
        let serial = ctx.serial();
        ctx.connections += 1;
        let slot =
            self.connections.insert(Connection { flow, serial, rule: None, guard, since: now, alarm: Alarm::default(), state });
        self.by_flow.insert(flow, slot);
        slot
    }

    fn forget(&mut self, slot: usize, ctx: &mut Context) {
        let connection = self.connections.remove(slot);
        ctx.connections -= 1;
        self.by_flow.remove(&connection.flow);
        if connection.guard != Guard::None {
            ctx.outputs.push_back(Output::Unguard(connection.flow));
        }
    }

    /// What the kernel says about a front-end's listener.
    pub fn set_backlog(&mut self, frontend: Endpoint, backlog: u32) {
        self.holds.set_backlog(frontend, backlog);
    }

    /// Connections that end with this process, and all.
    pub fn count(&self) -> Counts {
        let mut counts = Counts { syns: self.syns.count(), orphans: self.orphans.len(), ..Counts::default() };
        for (_, connection) in &self.connections {
            match &connection.state {
                State::Handshake(_) => counts.handshakes += 1,
                State::Undecided(undecided) => match undecided.kernel {
                    KernelHalf::SynReceived => counts.undecided += 1,
                    KernelHalf::Purged => counts.parked += 1,
                },
                State::Offered(_) | State::Securing(_) => counts.offered += 1,
                State::HandedOff(_) => counts.handed_off += 1,
                State::Lingering(_) | State::Lost | State::Moving => counts.lingering += 1,
            }
        }
        counts
    }

    /// For `baton flows`.
    pub fn flows(&self, now: Instant) -> impl Iterator<Item = FlowView> + '_ {
        self.connections.iter().map(move |(_, connection)| {
            let (peer, treatment) = match &connection.state {
                State::Offered(offered) | State::Securing(Securing::Commit(offered)) => (Some(offered.to), Treatment::Inspect),
                State::HandedOff(handed_off) => (Some(handed_off.to), Treatment::Forward(handed_off.to)),
                State::Lingering(owner) => (Some(*owner), Treatment::Forward(*owner)),
                State::Handshake(_) | State::Undecided(_) | State::Securing(Securing::Park(_)) | State::Lost | State::Moving => {
                    (None, Treatment::Inspect)
                }
            };
            FlowView {
                flow: connection.flow,
                role: "front-end",
                state: connection.state.label(),
                peer,
                rule: connection.rule.as_ref().map(|rule| rule.to_string()),
                treatment: treatment.label(),
                age: now.saturating_duration_since(connection.since),
            }
        })
    }
}

/// How many connections are in which state.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // The names are the states'.
pub struct Counts {
    pub syns: usize,
    pub orphans: usize,
    pub handshakes: usize,
    pub undecided: usize,
    pub parked: usize,
    pub offered: usize,
    pub handed_off: usize,
    pub lingering: usize,
}

impl State {
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Moving)
    }

    fn undecided_mut(&mut self) -> Option<&mut Undecided> {
        match self {
            Self::Undecided(undecided) => Some(undecided),
            Self::Offered(offered) | Self::Securing(Securing::Commit(offered)) => Some(&mut offered.pending.undecided),
            Self::Securing(Securing::Park(undecided)) => Some(undecided),
            Self::Handshake(_) | Self::HandedOff(_) | Self::Lingering(_) | Self::Lost | Self::Moving => None,
        }
    }
}

impl Undecided {
    /// An acknowledgement on the kernel's behalf, of what BTCP has taken responsibility for. It carries the SYN-ACK's own TSval: a newer one
    /// would make the client discard an owner's answer that started its clock earlier (PAWS, RFC 7323, section 5).
    fn acknowledgement(&self, flow: &FlowKey) -> Vec<u8> {
        let timestamps = self.initial.timestamps.map(|(syn, syn_ack)| (syn_ack, self.client.tsval.unwrap_or(syn)));
        SegmentSpec::<ToClientWire> {
            source: flow.frontend,
            destination: flow.client,
            seq: self.initial.frontend_isn.plus(1),
            ack: self.flight.acknowledged(),
            flags: Flags::ACK,
            window: self.initial.initial_window(),
            mss: None,
            window_scale: None,
            sack_permitted: false,
            timestamps,
            traffic_class: 0,
            payload: &[],
        }
        .build()
        .into_inner()
    }
}

/// Purges the kernel's half: a RST at the one sequence number the kernel still expects, ISN + 1.
fn purge(flow: &FlowKey, undecided: &mut Undecided, holds: &mut Holds, ctx: &mut Context) {
    if undecided.kernel == KernelHalf::Purged {
        return;
    }
    undecided.kernel = KernelHalf::Purged;
    holds.leave(flow.frontend);
    ctx.write(bare_reset(flow.client, flow.frontend, undecided.initial.client_isn.plus(1)));
}

/// A RST to the client, at the sequence number it expects next.
fn reset(flow: &FlowKey, next: Seq<Wire>) -> Vec<u8> {
    bare::<ToClientWire>(flow.frontend, flow.client, next, Seq::new(0), Flags::RST)
}

/// A RST from the client, at the sequence number its server expects next.
fn reset_of_client(flow: &FlowKey, client: &ClientView) -> Vec<u8> {
    bare::<ToServerWire>(flow.client, flow.frontend, client.next, Seq::new(0), Flags::RST)
}

fn bare_reset(source: Endpoint, destination: Endpoint, seq: Seq<crate::rewrite::Client>) -> Vec<u8> {
    bare::<ToServerWire>(source, destination, seq, Seq::new(0), Flags::RST)
}

/// A segment with nothing but flags.
pub fn bare<L: crate::rewrite::Leg>(
    source: Endpoint,
    destination: Endpoint,
    seq: Seq<L::Sender>,
    ack: Seq<L::Receiver>,
    flags: Flags,
) -> Vec<u8> {
    SegmentSpec::<L> {
        source,
        destination,
        seq,
        ack,
        flags,
        window: 0,
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        traffic_class: 0,
        payload: &[],
    }
    .build()
    .into_inner()
}

/// The same SYN without its data.
fn without_payload(syn: &Segment<&mut [u8], ToServerWire>) -> Vec<u8> {
    SegmentSpec::<ToServerWire> {
        source: syn.source(),
        destination: syn.destination(),
        seq: syn.seq(),
        ack: Seq::new(0),
        flags: syn.flags(),
        window: syn.window(),
        mss: syn.mss(),
        window_scale: syn.window_scale(),
        sack_permitted: syn.sack_permitted(),
        timestamps: syn.timestamps().map(|(tsval, _)| (tsval, Timestamp::new(0))),
        traffic_class: syn.traffic_class(),
        payload: &[],
    }
    .build()
    .into_inner()
}

fn drop(ctx: &mut Context, reason: DropReason) -> Verdict {
    ctx.counters.drop(reason);
    Verdict::Drop(reason)
}
