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
//!        released: local server <-- Releasing <--+------ refuse, deadline, ------+---returned- HandedOff
//!                                               |       nobody left                             | closed by owner
//!                     (parked: replay to self)  '                                               v
//!                                                forgotten <--------- linger -------------- Lingering
//! ```
//!
//! (Releasing: only after a long hold, see `release`; otherwise at once.)
//!
//! Until the commit is sent the connection can be taken back for any reason; from then on only its owner can return it.

mod conclude;
mod deadlines;
mod decide;
mod ends;
mod handoff;
mod known;
mod opening;
mod owners;
mod packets;
mod peers;
mod policy;
mod release;
mod secure;
#[cfg(test)]
mod tests;

use known::Known;
use opening::Opening;
use owners::Asking;
use release::Releasing;

use crate::control::message::{Accept, HandoffId, Message, Refusal};
use crate::flow::{Endpoint, FlowKey, NodeId};
use crate::handoff::chronicle::{End, Outcome, Story};
use crate::handoff::context::Context;
use crate::handoff::counters::{DropReason, Fallback};
use crate::handoff::engine::{FlowView, Output, SocketState, Verdict};
use crate::handoff::flight::{Arrival, FirstFlight};
use crate::handoff::holds::Holds;
use crate::handoff::index::{Index, make_room};
use crate::handoff::initial::{ClientView, InitialState, OPTIONS_SIGNED, OPTIONS_TAKEN_OUT, SynRecord, SynTable};
use crate::handoff::notes::Why;
use crate::handoff::recent::Recent;
use crate::handoff::syn_acks::LateSynAcks;
use crate::handoff::synthetic::{bare, bare_reset, reset, reset_of_client, without_payload};
use crate::handoff::timers::{Alarm, Deadline, Owner};
use crate::handoff::treatment::Treatment;
use crate::limits;
use crate::policy::{Decision, Examination, Finally, Looks, Mode, Order};
use crate::rewrite::{Client, Flags, Segment, SegmentSpec, Seq, Timestamp, ToClientWire, ToServerWire, Wire};
use hashbrown::HashMap;
use slab::Slab;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

type Map<K, V> = HashMap<K, V, foldhash::quality::FixedState>;

/// All connections that arrive at this node.
#[derive(Clone, Debug)]
pub struct Btcp {
    syns: SynTable,
    /// SYNs that were forwarded and whose owner has not named itself.
    openings: Recent<Opening>,
    /// When this process last found that it had stood still: its kernel may have begun what it likes meanwhile.
    stood_still: Option<Instant>,
    /// Connections that peers say they own, while the kernel is asked whether it does.
    claims: BTreeMap<FlowKey, (NodeId, HandoffId)>,
    /// Connections that peers ask for, likewise.
    questions: BTreeMap<FlowKey, (NodeId, Option<Seq<Wire>>)>,
    /// Who owns connections to shared addresses that did not begin here.
    known: Known,
    /// Who may own connections to shared addresses by policies that were in force before.
    former_owners: BTreeMap<Endpoint, BTreeSet<NodeId>>,
    late_syn_acks: LateSynAcks,
    connections: Slab<Connection>,
    by_flow: Index,
    by_handoff: Map<HandoffId, usize>,
    holds: Holds,
    /// Offers made to each peer, in their order, since the first that its commit may yet be repeated of.
    offered_to: BTreeMap<NodeId, VecDeque<u64>>,
    /// Guarded in an earlier life; waiting for the owner to claim them.
    orphans: BTreeMap<FlowKey, Instant>,
    /// Peers that have named what they own, in this life of ours.
    heard_from: BTreeSet<NodeId>,
}

#[derive(Clone, Debug)]
struct Connection {
    flow: FlowKey,
    serial: u64,
    rule: Option<Rc<str>>,
    /// Who was asked to serve it, or does.
    asked: Option<NodeId>,
    /// What is noted for the connection log, if there is one.
    story: Option<Box<Story>>,
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

/// What is large and does not last has a box of its own: most connections there are have been handed off.
#[derive(Clone, Debug)]
enum State {
    /// The kernel has answered the SYN; the client has not acknowledged that yet.
    Handshake(Box<InitialState>),
    /// The client believes it is connected; nobody is decided to serve it.
    Undecided(Box<Undecided>),
    /// A candidate was asked.
    Offered(Box<Offered>),
    /// The kernel's half is about to be purged: the guard is being written, then the kernel is asked whether its half is
    /// still what we think. Nothing is given away before both have answered.
    Securing(Securing),
    /// The local server serves it; the kernel is about to get what was withheld.
    Releasing(Releasing),
    /// The owner serves it.
    HandedOff(HandedOff),
    /// It did not begin here; its owner is being looked for.
    Asking(Asking),
    /// It is over; late packets still go to the owner.
    Lingering(NodeId),
    /// The owner is lost and the client was reset.
    Lost(Lost),
    /// Between two states, inside one transition.
    Moving,
}

impl State {
    fn label(&self) -> &'static str {
        match self {
            Self::Handshake(_) => "handshake",
            Self::Undecided(undecided) => match undecided.kernel {
                KernelHalf::SynReceived => "undecided",
                KernelHalf::Purged => "parked",
            },
            Self::Offered(_) => "offered",
            Self::Securing(_) => "securing",
            Self::Releasing(_) => "releasing",
            Self::HandedOff(_) => "handed-off",
            Self::Asking(_) => "asking",
            Self::Lingering(_) => "lingering",
            Self::Lost(_) => "lost",
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
#[derive(Clone, Debug)]
struct Undecided {
    initial: InitialState,
    client: ClientView,
    kernel: KernelHalf,
    flight: FirstFlight,
    /// TS.Recent (RFC 7323, section 4.3): what an acknowledgement echoes.
    ts_recent: Timestamp<Client>,
    round_trip: Duration,
    entered: Instant,
    first_byte: Option<Instant>,
    looks: Looks,
    /// Since when all that came is whole, and not enough to decide by: the client may be waiting for the server.
    awaits_server: Option<Instant>,
    /// The client is to be acknowledged as soon as the kernel's half is gone.
    acknowledge_when_parked: bool,
    /// When the client was last challenged.
    challenged: Option<Instant>,
}

/// Who may still be asked.
#[derive(Clone, Debug)]
struct Pending {
    undecided: Box<Undecided>,
    order: Order,
    next: usize,
    finally: Finally,
    deadline: Instant,
    /// When the policy decided.
    decided: Instant,
}

/// What follows once the guard is written and the kernel's half is known to be what we think.
#[derive(Clone, Debug)]
enum Securing {
    Park(Box<Undecided>),
    Commit(Box<Offered>),
    /// Nobody may serve it: the kernel's half goes without a guard, since the client is told that it is over.
    Reset(Box<Undecided>),
}

#[derive(Clone, Debug)]
struct Offered {
    pending: Pending,
    id: HandoffId,
    to: NodeId,
    /// How much of the first flight the offer carried.
    offered_bytes: usize,
}

#[derive(Clone, Debug)]
struct HandedOff {
    to: NodeId,
    id: HandoffId,
    client: Option<ClientView>,
    /// What is needed should the owner return the connection; gone once it has delivered.
    pending: Option<Box<Pending>>,
    /// How much of the first flight the offer carried.
    offered_bytes: usize,
    /// The session in which the owner was last heard to own it.
    confirmed_in: u64,
    /// A SYN that came while the connection was not known to be over, and when.
    kept_syn: Option<Box<(Instant, Vec<u8>)>>,
    /// Packets have been sent over the link: since then they may pass by here, and what is known of the client be old.
    is_linked: bool,
}

/// A client that was reset.
#[derive(Clone, Copy, Debug, Default)]
struct Lost {
    /// What the client had last been seen to send, if it has gone on since: a reset by that would not be believed. It is
    /// asked instead, and what it answers says where the reset must be.
    seen: Option<(Seq<Client>, Seq<Wire>)>,
    questions_left: u8,
}

impl Btcp {
    pub fn new(seed: u64, orphans: &[FlowKey], now: Instant) -> Self {
        let hasher = foldhash::quality::FixedState::with_seed(seed);
        Self {
            syns: SynTable::new(seed),
            openings: Recent::new(seed, limits::OPENINGS_MAX, limits::OPENING_LIFETIME),
            stood_still: None,
            claims: BTreeMap::new(),
            questions: BTreeMap::new(),
            known: Known::new(seed, now),
            former_owners: BTreeMap::new(),
            late_syn_acks: LateSynAcks::default(),
            connections: Slab::new(),
            by_flow: Index::new(hasher.clone()),
            by_handoff: HashMap::with_hasher(hasher),
            holds: Holds::default(),
            offered_to: BTreeMap::new(),
            orphans: orphans.iter().map(|flow| (*flow, now + limits::ORPHAN_LIFETIME)).collect(),
            heard_from: BTreeSet::new(),
        }
    }

    fn insert(&mut self, flow: FlowKey, state: State, guard: Guard, ctx: &mut Context, now: Instant) -> usize {
        let serial = ctx.serial();
        ctx.connections += 1;
        make_room(&mut self.connections);
        let slot = self.connections.insert(Connection {
            flow,
            serial,
            rule: None,
            asked: None,
            story: None,
            guard,
            since: now,
            alarm: Alarm::default(),
            state,
        });
        self.by_flow.insert(slot, |slot| self.connections[slot].flow);
        slot
    }

    /// The connections that the kernel must not answer for.
    pub fn guarded(&self) -> impl Iterator<Item = FlowKey> {
        let connections = self.connections.iter().map(|(_, connection)| connection);
        let guarded = connections.filter(|connection| connection.guard != Guard::None).map(|connection| connection.flow);
        guarded.chain(self.orphans.keys().copied())
    }

    fn slot_of(&self, flow: &FlowKey) -> Option<usize> {
        self.by_flow.get(flow, |slot| self.connections[slot].flow)
    }

    /// Notes who was asked to serve a connection, or that nobody is: nodes are compared by how many they have.
    fn assign(&mut self, slot: usize, to: Option<NodeId>, ctx: &mut Context) {
        let before = std::mem::replace(&mut self.connections[slot].asked, to);
        if let Some(peer) = before.and_then(|node| ctx.peer_mut(node)) {
            peer.connections = peer.connections.saturating_sub(1);
        }
        if let Some(peer) = to.and_then(|node| ctx.peer_mut(node)) {
            peer.connections = peer.connections.saturating_add(1);
        }
    }

    /// Whether every node counts as many connections as were assigned to it.
    pub fn assignments_are_counted(&self, ctx: &Context) -> bool {
        let mut counts = vec![0_u32; ctx.peers.len()];
        for node in self.connections.iter().filter_map(|(_, connection)| connection.asked) {
            if let Some(count) = counts.get_mut(usize::from(node.0)) {
                *count += 1;
            }
        }
        let is_of_use = |connection: &Connection| match &connection.state {
            State::Offered(_) | State::HandedOff(_) | State::Securing(Securing::Commit(_)) => connection.asked.is_some(),
            _ => connection.asked.is_none(),
        };
        ctx.peers.iter().map(|peer| peer.connections).eq(counts) && self.connections.iter().all(|(_, it)| is_of_use(it))
    }

    fn forget(&mut self, slot: usize, ctx: &mut Context) {
        self.assign(slot, None, ctx);
        let mut connection = self.connections.remove(slot);
        connection.alarm.unqueue(Owner::Btcp, slot, connection.serial, &mut ctx.timers);
        ctx.connections -= 1;
        self.by_flow.remove(&connection.flow, slot);
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
        let mut counts = Counts {
            syns: self.syns.count(),
            openings: self.openings.count(),
            known: self.known.count(),
            orphans: self.orphans.len(),
            ..Counts::default()
        };
        for (_, connection) in &self.connections {
            match &connection.state {
                State::Handshake(_) => counts.handshakes += 1,
                State::Undecided(undecided) => match undecided.kernel {
                    KernelHalf::SynReceived => counts.undecided += 1,
                    KernelHalf::Purged => counts.parked += 1,
                },
                State::Offered(_) | State::Securing(_) => counts.offered += 1,
                State::Releasing(_) => counts.undecided += 1,
                State::HandedOff(_) => counts.handed_off += 1,
                State::Asking(_) => counts.asking += 1,
                State::Lingering(_) | State::Lost(_) | State::Moving => counts.lingering += 1,
            }
        }
        counts
    }

    /// The state of a connection.
    pub fn state_of(&self, flow: &FlowKey) -> Option<&'static str> {
        match self.slot_of(flow) {
            Some(slot) => Some(self.connections[slot].state.label()),
            None => self.openings.get(flow).map(|_| "opening"),
        }
    }

    /// For `baton flows`.
    pub fn flows(&self, now: Instant) -> impl Iterator<Item = FlowView> + '_ {
        let known = self.known.list().map(|(flow, owner)| FlowView {
            flow: *flow,
            role: "front-end",
            state: "known",
            peer: Some(*owner),
            socket: None,
            rule: None,
            treatment: Treatment::Forward(*owner).label(),
            age: Duration::ZERO,
        });
        self.connections
            .iter()
            .map(move |(_, connection)| {
                let (peer, treatment) = match &connection.state {
                    State::Offered(offered) | State::Securing(Securing::Commit(offered)) => {
                        (Some(offered.to), Treatment::Inspect)
                    }
                    State::HandedOff(HandedOff { to, is_linked: true, .. }) => (Some(*to), Treatment::ForwardOnLink(*to)),
                    State::HandedOff(handed_off) => (Some(handed_off.to), Treatment::Forward(handed_off.to)),
                    State::Lingering(owner) => (Some(*owner), Treatment::Forward(*owner)),
                    State::Handshake(_)
                    | State::Undecided(_)
                    | State::Securing(Securing::Park(_) | Securing::Reset(_))
                    | State::Releasing(_)
                    | State::Asking(_)
                    | State::Lost(_)
                    | State::Moving => (None, Treatment::Inspect),
                };
                FlowView {
                    flow: connection.flow,
                    role: "front-end",
                    state: connection.state.label(),
                    peer,
                    socket: None,
                    rule: connection.rule.as_ref().map(|rule| rule.to_string()),
                    treatment: treatment.label(),
                    age: now.saturating_duration_since(connection.since),
                }
            })
            .chain(known)
    }
}

/// How many connections are in which state.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // The names are the states'.
pub struct Counts {
    pub syns: usize,
    pub openings: usize,
    pub known: usize,
    pub asking: usize,
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
            Self::Securing(Securing::Park(undecided) | Securing::Reset(undecided))
            | Self::Releasing(Releasing { undecided, .. }) => Some(undecided),
            Self::Handshake(_) | Self::HandedOff(_) | Self::Asking(_) | Self::Lingering(_) | Self::Lost(_) | Self::Moving => None,
        }
    }
}

impl Undecided {
    /// When a client that may be waiting for the server is answered by the default's.
    fn gives_up_waiting(&self) -> Option<Instant> {
        Some(self.awaits_server? + limits::AWAITS_SERVER_MAX + 2 * self.round_trip)
    }

    /// Octets the client allows its server to send, by its latest segment.
    fn window_of_client(&self) -> i64 {
        let shift = self.initial.window_scales.map_or(0, |scales| scales.client.shift());
        // That of a SYN is never scaled (RFC 7323, section 2.2).
        (i64::from(self.client.window) << shift).max(self.initial.syn_window.into())
    }

    /// Sends a challenge ACK (RFC 5961), unless one was sent just now.
    fn challenge(&mut self, flow: &FlowKey, ctx: &mut Context, now: Instant) {
        if self.challenged.is_none_or(|at| now.saturating_duration_since(at) >= limits::CHALLENGE_INTERVAL) {
            self.challenged = Some(now);
            ctx.counters.challenge_acks += 1;
            ctx.write(self.acknowledgement(flow), Why::Challenge);
        }
    }

    /// A segment beyond a hole does not change what is echoed, and neither does one behind what is not acknowledged yet.
    fn note_timestamp<B: AsRef<[u8]>>(&mut self, segment: &Segment<B, ToServerWire>) {
        let Some((tsval, _)) = segment.timestamps() else { return };
        if tsval.since(&self.ts_recent) > 0 && !self.flight.acknowledged().is_before(&segment.seq()) {
            self.ts_recent = tsval;
        }
    }

    /// An acknowledgement on the kernel's behalf, of what BTCP has taken responsibility for. It carries the SYN-ACK's own TSval: a newer one
    /// would make the client discard an owner's answer that started its clock earlier (PAWS, RFC 7323, section 5).
    fn acknowledgement(&self, flow: &FlowKey) -> Vec<u8> {
        let sack = if self.initial.sack { self.flight.sack_blocks() } else { Vec::new() };
        let timestamps = self.initial.timestamps.map(|(_, syn_ack)| (syn_ack, self.ts_recent));
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
        .build_with_sack(&sack)
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
    ctx.write(bare_reset(flow.client, flow.frontend, undecided.initial.client_isn.plus(1)), Why::Purge);
}
