//! UTCP, the owner's side: connections that this node's kernel serves for whichever node they arrived at.
//!
//! Replays a handshake into the kernel so that the application sees a connection only when it is really its own, and
//! translates both directions from then on. Must not know requests, rules or how a connection came to be offered.
//!
//! ```text
//!  offer              SYN-ACK            commit              kernel acknowledged the first flight
//!   --> Replaying --accept--> Prepared --------> Delivering -------------------------> Established
//!          |                     |                   |  nothing acknowledged, still SYN-RECV    | both FINs, or RST,
//!          | RST, silence,       | abort, expired    v                                         v and the kernel agrees
//!          v promise not kept    v                Returning --> forgotten, returned           Over --linger--> forgotten
//!        refused               purged
//! ```
//!
//! State comes into being only on an authenticated peer's word, and the kernel judges every segment.

use crate::control::message::{Accept, Epoch, HandoffId, Message, Offer, Refusal};
use crate::flow::{Endpoint, FlowKey, NodeId};
use crate::handoff::btcp::bare;
use crate::handoff::context::Context;
use crate::handoff::counters::DropReason;
use crate::handoff::engine::{FlowView, Output, SocketState, Verdict};
use crate::handoff::timers::{Alarm, Deadline, Owner};
use crate::handoff::treatment::Treatment;
use crate::limits;
use crate::rewrite::{
    Client, Flags, Local, Segment, SegmentSpec, Seq, SeqShift, Shifts, Timestamp, TimestampShift, ToClientLocal, ToClientWire,
    ToServerLocal, ToServerWire, WindowRescale, WindowScale, Wire,
};
use hashbrown::HashMap;
use slab::Slab;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

type Map<K, V> = HashMap<K, V, foldhash::quality::FixedState>;

/// A socket of the kernel: its own end (an alias), and the client's.
type Socket = (Endpoint, Endpoint);

/// All connections this node's kernel serves through a replay.
#[derive(Debug)]
pub struct Utcp {
    connections: Slab<Connection>,
    /// The newest connection of a flow.
    by_flow: Map<FlowKey, usize>,
    by_socket: Map<Socket, usize>,
    by_handoff: Map<HandoffId, usize>,
    aliases: Map<Endpoint, Vec<IpAddr>>,
    /// Commits ever applied whose front-end may repeat them, by front-end: a commit is applied once.
    applied: BTreeSet<(NodeId, HandoffId)>,
}

#[derive(Debug)]
struct Connection {
    id: HandoffId,
    flow: FlowKey,
    ingress: NodeId,
    alias: Endpoint,
    client_isn: Seq<Client>,
    serial: u64,
    since: Instant,
    alarm: Alarm,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The SYN is written; the kernel has not answered.
    Replaying(Box<Replaying>),
    /// The kernel is in SYN-RECV; the front-end was told.
    Prepared(Box<Prepared>),
    /// Committed: the first flight is on its way into the kernel.
    Delivering(Box<Delivering>),
    /// The kernel could not take it; its half is being purged.
    Returning(Box<Delivering>),
    /// The kernel serves it.
    Established(Established),
    /// The kernel says it is over.
    Over(Shifts),
    /// Its ingress gave it up; the socket is destroyed and nothing is sent for it any more.
    Abandoned,
    /// Between two states, inside one transition.
    Moving,
}

#[derive(Debug)]
struct Replaying {
    offer: Box<Offer>,
    deadline: Instant,
    overtaking: Overtaking,
}

#[derive(Debug)]
struct Prepared {
    offer: Box<Offer>,
    overtaking: Overtaking,
    learned: Learned,
}

/// The second initial TCP state.
#[derive(Clone, Copy, Debug)]
struct Learned {
    shifts: Shifts,
    isn: Seq<Local>,
    tsval: Option<Timestamp<Local>>,
    /// Largest segment the kernel takes.
    mss: u16,
}

#[derive(Debug)]
struct Delivering {
    offer: Box<Offer>,
    overtaking: Overtaking,
    learned: Learned,
    /// Octets of the first flight that the kernel has acknowledged.
    acknowledged: usize,
    began: Instant,
    /// The kernel has sent anything but a SYN-ACK: it has left SYN-RECV.
    has_left_syn_received: bool,
    /// The client's latest acknowledgement, to reset it if all fails.
    client_acknowledged: Seq<Wire>,
}

#[derive(Debug)]
struct Established {
    shifts: Shifts,
    closing: Closing,
    /// What the client acknowledged last, and sent last: to reset either end.
    client_acknowledged: Seq<Wire>,
    client_next: Seq<Client>,
    /// A SYN waits for the kernel's word on whether this connection is over.
    syn: Option<Vec<u8>>,
    /// How often the kernel was asked in vain whether it is over.
    asked: u32,
    /// When it was, or will be, asked because of a RST.
    asked_at: Instant,
}

/// Who has said FIN, and whose FIN was acknowledged.
#[derive(Clone, Copy, Default, Debug)]
struct Closing {
    /// After the kernel's FIN.
    server: Option<Seq<Wire>>,
    server_acknowledged: bool,
    /// After the client's FIN.
    client: Option<Seq<Client>>,
    client_acknowledged: bool,
    /// Either side sent a RST.
    reset: bool,
}

impl Closing {
    const fn looks_over(&self) -> bool {
        self.reset || (self.server_acknowledged && self.client_acknowledged)
    }
}

/// Client packets that came through the overlay before the kernel could take them.
#[derive(Debug, Default)]
struct Overtaking {
    packets: Vec<Vec<u8>>,
    bytes: usize,
}

impl Overtaking {
    fn keep(&mut self, packet: &[u8]) -> bool {
        let bytes = self.bytes.saturating_add(packet.len());
        let has_room = self.packets.len() < limits::OVERTAKING_SEGMENTS_MAX && bytes <= limits::OVERTAKING_BYTES_MAX;
        if has_room {
            self.bytes = bytes;
            self.packets.push(packet.to_vec());
        }
        has_room
    }
}

impl State {
    const fn label(&self) -> &'static str {
        match self {
            Self::Replaying(_) => "replaying",
            Self::Prepared(_) => "prepared",
            Self::Delivering(_) => "delivering",
            Self::Returning(_) => "returning",
            Self::Established(_) => "established",
            Self::Over(_) => "over",
            Self::Abandoned => "abandoned",
            Self::Moving => "moving",
        }
    }
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Moving)
    }
    const fn is_over(&self) -> bool {
        matches!(self, Self::Over(_) | Self::Abandoned)
    }
}

impl Utcp {
    /// None yet.
    pub fn new(seed: u64) -> Self {
        let hasher = foldhash::quality::FixedState::with_seed(seed);
        Self {
            connections: Slab::new(),
            by_flow: HashMap::with_hasher(hasher.clone()),
            by_socket: HashMap::with_hasher(hasher.clone()),
            by_handoff: HashMap::with_hasher(hasher.clone()),
            aliases: HashMap::with_hasher(hasher.clone()),
            applied: BTreeSet::new(),
        }
    }

    // ---- Replay -----------------------------------------------------------------------------------------------------

    /// A front-end asks whether this node would take a connection: replay its handshake and see what the kernel says.
    pub fn handle_offer(&mut self, from: NodeId, offer: Box<Offer>, ctx: &mut Context, now: Instant) {
        let id = offer.id;
        match self.admit(from, &offer, ctx) {
            Ok(alias) => self.replay(from, alias, offer, ctx, now),
            Err(reason) => {
                ctx.counters.offers_refused += 1;
                ctx.say(from, Message::Refuse { id, reason });
            }
        }
    }

    fn admit(&mut self, from: NodeId, offer: &Offer, ctx: &mut Context) -> Result<Endpoint, Refusal> {
        if ctx.draining && from != ctx.node {
            return Err(Refusal::Draining);
        }
        // One's own connection is counted already.
        if from != ctx.node && !ctx.has_room() {
            return Err(Refusal::Full);
        }
        let policy = std::rc::Rc::clone(&ctx.policy);
        let service = policy.service_named(&offer.service).ok_or(Refusal::UnknownService)?;
        let port = service.server_port(ctx.node).ok_or(Refusal::UnknownService)?;
        let is_its_frontend = service.frontends.iter().any(|(node, frontend)| *node == from && *frontend == offer.flow.frontend);
        if !is_its_frontend || self.by_handoff.contains_key(&offer.id) || self.applied.contains(&(from, offer.id)) {
            return Err(Refusal::UnknownService);
        }
        if let Some(slot) = self.by_flow.get(&offer.flow).copied() {
            match &self.connections[slot].state {
                State::Over(_) | State::Abandoned => {}
                State::Replaying(_) | State::Prepared(_) => self.purge_and_forget(slot, ctx),
                State::Delivering(_) | State::Returning(_) | State::Established(_) | State::Moving => {
                    self.ask(slot, ctx);
                    return Err(Refusal::InUse);
                }
            }
        }
        let aliases = self.aliases.entry(offer.flow.frontend).or_insert_with(|| policy.aliases_of(offer.flow.frontend));
        let client = offer.flow.client;
        let free = aliases
            .iter()
            .map(|address| Endpoint::new(*address, port))
            .find(|alias| !self.by_socket.contains_key(&(*alias, client)));
        if let Some(alias) = free {
            return Ok(alias);
        }
        // All in use or lingering: the one that has been over longest. Its kernel accepts a SYN in TIME-WAIT when the
        // client's timestamp or sequence number has moved on (RFC 6191), and otherwise stays silent.
        let (_, slot) = aliases
            .iter()
            .filter_map(|address| self.by_socket.get(&(Endpoint::new(*address, port), client)).copied())
            .filter(|slot| self.connections[*slot].state.is_over())
            .map(|slot| (self.connections[slot].since, slot))
            .min()
            .ok_or(Refusal::Full)?;
        let alias = self.connections[slot].alias;
        self.forget(slot, ctx);
        Ok(alias)
    }

    fn replay(&mut self, from: NodeId, alias: Endpoint, offer: Box<Offer>, ctx: &mut Context, now: Instant) {
        let (id, flow, client_isn) = (offer.id, offer.flow, offer.client_isn);
        ctx.write(replayed_syn(&offer, alias));
        let serial = ctx.serial();
        let deadline = now + limits::REPLAY_DEADLINE;
        let state = State::Replaying(Box::new(Replaying { offer, deadline, overtaking: Overtaking::default() }));
        let slot = self.connections.insert(Connection {
            id,
            flow,
            ingress: from,
            alias,
            client_isn,
            serial,
            since: now,
            alarm: Alarm::default(),
            state,
        });
        ctx.connections += 1;
        self.by_flow.insert(flow, slot);
        self.by_socket.insert((alias, flow.client), slot);
        self.by_handoff.insert(id, slot);
        self.set_alarm(slot, now + limits::REPLAY_DEADLINE / 2, ctx);
    }

    /// The kernel's answer to the replayed SYN.
    fn learn(&mut self, slot: usize, syn_ack: &Segment<&mut [u8], ToClientLocal>, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let replaying = match connection.state.take() {
            State::Replaying(replaying) => replaying,
            other => {
                connection.state = other;
                return;
            }
        };
        let Replaying { offer, overtaking, .. } = *replaying;
        if !keeps_promises(&offer, syn_ack) {
            return self.refuse(slot, Refusal::Promise, ctx);
        }
        let learned = Learned::of(&offer, connection.alias, syn_ack);
        ctx.say(
            connection.ingress,
            Message::Accept(Accept {
                id: connection.id,
                backend_isn: syn_ack.seq().raw(),
                window_scale: syn_ack.window_scale(),
                tsval: learned.tsval.map(|tsval| tsval.raw()),
            }),
        );
        connection.state = State::Prepared(Box::new(Prepared { offer, overtaking, learned }));
        connection.since = now;
        self.set_alarm(slot, now + limits::PREPARED_LIFETIME, ctx);
    }

    fn refuse(&mut self, slot: usize, reason: Refusal, ctx: &mut Context) {
        let connection = &self.connections[slot];
        ctx.counters.offers_refused += 1;
        ctx.say(connection.ingress, Message::Refuse { id: connection.id, reason });
        log::debug!("refused flow={} id={} reason={reason:?}", connection.flow, connection.id.serial);
        if reason == Refusal::ApplicationDown { self.forget(slot, ctx) } else { self.purge_and_forget(slot, ctx) }
    }

    /// The front-end withdraws its offer.
    pub fn handle_abort(&mut self, from: NodeId, id: HandoffId, ctx: &mut Context) {
        let Some(slot) = self.by_handoff.get(&id).copied() else { return };
        let connection = &self.connections[slot];
        if connection.ingress == from && matches!(connection.state, State::Replaying(_) | State::Prepared(_)) {
            self.purge_and_forget(slot, ctx);
        }
    }

    // ---- Commit and delivery ----------------------------------------------------------------------------------------

    /// The connection is this node's now. Applied once, answered always.
    pub fn handle_commit(&mut self, from: NodeId, id: HandoffId, more: &[u8], ctx: &mut Context, now: Instant) {
        let slot = self.by_handoff.get(&id).copied().filter(|slot| self.connections[*slot].ingress == from);
        let Some(slot) = slot else {
            // Served and forgotten, or never prepared (or given up since): then it never will be applied.
            if self.applied.contains(&(from, id)) {
                ctx.say(from, Message::Delivered { id });
                ctx.say(from, Message::Closed { id });
            } else {
                ctx.say(from, Message::Returned { id });
            }
            return;
        };
        let connection = &mut self.connections[slot];
        if matches!(connection.state, State::Prepared(_)) && now >= connection.since + limits::PREPARED_LIFETIME {
            // Given up already; only the deadline has not been heard yet.
            self.purge_and_forget(slot, ctx);
            return ctx.say(from, Message::Returned { id });
        }
        match connection.state.take() {
            State::Prepared(prepared) => {
                let Prepared { mut offer, overtaking, learned } = *prepared;
                offer.first_flight.extend_from_slice(more);
                self.applied.insert((from, id));
                if from != ctx.node {
                    ctx.counters.handoffs_accepted += 1;
                }
                let client_acknowledged = offer.frontend_isn.plus(1);
                connection.since = now;
                connection.state = State::Delivering(Box::new(Delivering {
                    offer,
                    overtaking,
                    learned,
                    acknowledged: 0,
                    began: now,
                    has_left_syn_received: false,
                    client_acknowledged,
                }));
                self.deliver(slot, ctx, now);
            }
            State::Established(established) => {
                connection.state = State::Established(established);
                ctx.say(from, Message::Delivered { id });
            }
            State::Over(shifts) => {
                connection.state = State::Over(shifts);
                ctx.say(from, Message::Delivered { id });
                ctx.say(from, Message::Closed { id });
            }
            // Still busy with the first copy; or a commit without an accept, which an honest peer never sends.
            other => connection.state = other,
        }
    }

    /// Writes what the kernel has not acknowledged of the first flight. The first segment completes the handshake.
    fn deliver(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let connection = &self.connections[slot];
        let State::Delivering(delivering) = &connection.state else { return };
        for packet in delivering.segments(connection.flow.client, connection.alias) {
            ctx.write(packet);
        }
        if delivering.offer.first_flight.is_empty() {
            // Nothing to acknowledge: the socket itself tells whether the handshake is complete.
            self.ask(slot, ctx);
        }
        // Ever more slowly: a kernel that has the connection, but no room yet, takes the rest when it has.
        let again = (now.saturating_duration_since(delivering.began) / 2).clamp(limits::DELIVERY_INTERVAL, Duration::from_secs(1));
        self.set_alarm(slot, now + again, ctx);
    }

    fn establish(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let delivering = match connection.state.take() {
            State::Delivering(delivering) => delivering,
            other => {
                connection.state = other;
                return;
            }
        };
        let flight_end = connection.client_isn.plus(1 + delivering.offer.first_flight.len() as u32);
        connection.since = now;
        connection.state = State::Established(Established {
            shifts: delivering.learned.shifts,
            closing: Closing::default(),
            client_acknowledged: delivering.client_acknowledged,
            client_next: flight_end,
            syn: None,
            asked: 0,
            asked_at: now,
        });
        ctx.say(connection.ingress, Message::Delivered { id: connection.id });
        self.set_alarm(slot, now + limits::IDLE_CHECK_INTERVAL, ctx);
        for mut packet in delivering.overtaking.packets {
            if let Ok(segment) = Segment::parse(packet.as_mut_slice())
                && self.to_kernel(slot, segment, ctx, now) == Verdict::Write
            {
                ctx.write(packet);
            }
        }
    }

    // ---- Packets ----------------------------------------------------------------------------------------------------

    /// A packet that this node's kernel sent from an alias.
    pub fn handle_kernel(&mut self, segment: Segment<&mut [u8], ToClientLocal>, ctx: &mut Context, now: Instant) -> Verdict {
        let socket = (segment.source(), segment.destination());
        let Some(slot) = self.by_socket.get(&socket).copied() else { return drop(ctx, DropReason::NoConnection) };
        let connection = &mut self.connections[slot];
        let flags = segment.flags();
        let is_syn_ack = flags.contains(Flags::SYN.with(Flags::ACK));
        match &mut connection.state {
            State::Replaying(_) => {
                let answers_our_syn = segment.ack() == connection.client_isn.plus(1);
                if is_syn_ack && answers_our_syn {
                    self.learn(slot, &segment, ctx, now);
                    return Verdict::Consumed;
                }
                if flags.contains(Flags::RST) {
                    self.refuse(slot, Refusal::ApplicationDown, ctx);
                    return Verdict::Consumed;
                }
                drop(ctx, DropReason::UnexpectedFromKernel)
            }
            State::Prepared(_) | State::Returning(_) => drop(ctx, DropReason::SynAckAbsorbed),
            State::Delivering(_) if is_syn_ack => drop(ctx, DropReason::SynAckAbsorbed),
            State::Delivering(delivering) => {
                // In SYN-RECV a kernel may answer what it cannot take with an ACK of exactly ISN + 1; anything else shows
                // that the handshake is complete.
                let taken = segment.ack().since(&connection.client_isn.plus(1));
                let has_left = taken > 0 || segment.seq_len() > 0 || flags.contains(Flags::RST);
                delivering.has_left_syn_received |= has_left;
                let flight = delivering.offer.first_flight.len();
                delivering.acknowledged = delivering.acknowledged.max(usize::try_from(taken).unwrap_or(0).min(flight));
                let has_all = delivering.acknowledged == flight && has_left;
                if has_all || flags.intersects(Flags::RST.with(Flags::FIN)) {
                    // A kernel that ends before it has taken the whole flight will not take the rest.
                    self.establish(slot, ctx, now);
                    return self.to_client(slot, segment, ctx);
                }
                let shifts = delivering.learned.shifts;
                let _: Segment<_, ToClientWire> = shifts.to_client(segment);
                Verdict::Write
            }
            State::Established(_) => self.to_client(slot, segment, ctx),
            State::Over(shifts) => {
                let _: Segment<_, ToClientWire> = shifts.to_client(segment);
                Verdict::Write
            }
            State::Abandoned => drop(ctx, DropReason::NoConnection),
            State::Moving => drop(ctx, DropReason::UnexpectedFromKernel),
        }
    }

    /// Translates towards the client, and notes how the connection ends.
    fn to_client(&mut self, slot: usize, segment: Segment<&mut [u8], ToClientLocal>, ctx: &mut Context) -> Verdict {
        let connection = &mut self.connections[slot];
        let State::Established(established) = &mut connection.state else { return drop(ctx, DropReason::UnexpectedFromKernel) };
        let segment = established.shifts.to_client(segment);
        let flags = segment.flags();
        let closing = &mut established.closing;
        if flags.contains(Flags::FIN) {
            closing.server = Some(segment.seq_end());
        }
        if let Some(after_fin) = closing.client
            && flags.contains(Flags::ACK)
            && !segment.ack().is_before(&after_fin)
        {
            closing.client_acknowledged = true;
        }
        closing.reset |= flags.contains(Flags::RST);
        if closing.looks_over() {
            self.ask(slot, ctx);
        }
        Verdict::Write
    }

    /// A client's packet, from the node it arrived at.
    pub fn handle_client(
        &mut self,
        from: NodeId,
        segment: Segment<&mut [u8], ToServerWire>,
        ctx: &mut Context,
        now: Instant,
    ) -> Verdict {
        let flow = FlowKey { client: segment.source(), frontend: segment.destination() };
        let Some(slot) = self.by_flow.get(&flow).copied() else { return drop(ctx, DropReason::NoConnection) };
        let connection = &mut self.connections[slot];
        if connection.ingress != from {
            return drop(ctx, DropReason::WrongIngress);
        }
        let overtaking = match &mut connection.state {
            State::Replaying(replaying) => &mut replaying.overtaking,
            State::Prepared(prepared) => &mut prepared.overtaking,
            State::Delivering(delivering) if delivering.has_left_syn_received && !segment.flags().contains(Flags::SYN) => {
                // The kernel can judge it. Its acknowledgements free what the kernel needs to take the rest of the flight.
                let _: Segment<_, ToServerLocal> = delivering.learned.shifts.to_server(segment);
                return Verdict::Write;
            }
            State::Delivering(delivering) if delivering.takes_as_flight(connection.client_isn, &segment) => {
                // More of the flight: a listener that defers (TCP_DEFER_ACCEPT) completes the handshake only on data.
                delivering.offer.first_flight.extend_from_slice(segment.payload());
                self.deliver(slot, ctx, now);
                return Verdict::Consumed;
            }
            State::Delivering(delivering) => &mut delivering.overtaking,
            State::Established(_) | State::Over(_) => return self.to_kernel(slot, segment, ctx, now),
            State::Abandoned => return drop(ctx, DropReason::NoConnection),
            State::Returning(_) | State::Moving => return drop(ctx, DropReason::UnexpectedFromKernel),
        };
        if overtaking.keep(segment.packet()) { Verdict::Consumed } else { drop(ctx, DropReason::HeldFull) }
    }

    /// Translates towards the kernel, and notes how the connection ends.
    fn to_kernel(&mut self, slot: usize, segment: Segment<&mut [u8], ToServerWire>, ctx: &mut Context, now: Instant) -> Verdict {
        let connection = &mut self.connections[slot];
        let flags = segment.flags();
        let is_syn = flags.contains(Flags::SYN) && !flags.contains(Flags::ACK);
        let established = match &mut connection.state {
            State::Established(established) => established,
            State::Over(_) if is_syn => {
                // The front-end does not know yet that this connection is over; told again, it begins the next one.
                ctx.say(connection.ingress, Message::Closed { id: connection.id });
                return drop(ctx, DropReason::SynKept);
            }
            State::Over(shifts) => {
                let _: Segment<_, ToServerLocal> = shifts.to_server(segment);
                return Verdict::Write;
            }
            _ => return drop(ctx, DropReason::UnexpectedFromKernel),
        };
        if is_syn {
            // In TIME-WAIT the kernel would take it as a new connection, which nobody decided. So it is asked first.
            established.syn = Some(segment.packet().to_vec());
            self.ask(slot, ctx);
            return drop(ctx, DropReason::SynKept);
        }
        let closing = &mut established.closing;
        if flags.contains(Flags::ACK) {
            if !segment.ack().is_before(&established.client_acknowledged) {
                established.client_acknowledged = segment.ack();
            }
            if closing.server.is_some_and(|after_fin| !segment.ack().is_before(&after_fin)) {
                closing.server_acknowledged = true;
            }
        }
        if established.client_next.is_before(&segment.seq_end()) {
            established.client_next = segment.seq_end();
        }
        if flags.contains(Flags::FIN) {
            closing.client = Some(segment.seq_end());
        }
        let is_reset = flags.contains(Flags::RST);
        let looks_over = closing.looks_over();
        let _: Segment<_, ToServerLocal> = established.shifts.to_server(segment);
        if looks_over {
            self.ask(slot, ctx);
        } else if is_reset {
            // Whether it was exact is the kernel's to judge; it is asked soon, but not once for every forged one.
            let at = (established.asked_at + limits::RESET_QUESTIONS_INTERVAL).max(now + Duration::from_millis(1));
            established.asked_at = at;
            self.set_alarm(slot, at, ctx);
        }
        Verdict::Write
    }

    /// The shifts of a connection that this kernel serves, for translating an ICMP error about it.
    pub fn shifts_of(&self, flow: &FlowKey) -> Option<Shifts> {
        match &self.connections[*self.by_flow.get(flow)?].state {
            State::Delivering(delivering) => Some(delivering.learned.shifts),
            State::Established(established) => Some(established.shifts),
            State::Over(shifts) => Some(*shifts),
            State::Replaying(_) | State::Prepared(_) | State::Returning(_) | State::Abandoned | State::Moving => None,
        }
    }

    // ---- What the kernel says ---------------------------------------------------------------------------------------

    fn ask(&self, slot: usize, ctx: &mut Context) {
        let connection = &self.connections[slot];
        ctx.outputs.push_back(Output::AskSocket { local: connection.alias, remote: connection.flow.client });
    }

    /// What the kernel said about a socket.
    pub fn handle_socket(&mut self, local: Endpoint, remote: Endpoint, socket: SocketState, ctx: &mut Context, now: Instant) {
        let Some(slot) = self.by_socket.get(&(local, remote)).copied() else { return };
        let connection = &mut self.connections[slot];
        match connection.state.take() {
            State::Established(established) => self.judge(slot, established, socket, ctx, now),
            State::Delivering(delivering) => {
                connection.state = State::Delivering(delivering);
                self.judge_delivery(slot, socket, ctx, now);
            }
            State::Returning(delivering) => match socket {
                SocketState::Absent => {
                    ctx.counters.handoffs_returned += 1;
                    let (ingress, id) = (connection.ingress, connection.id);
                    self.applied.remove(&(ingress, id));
                    ctx.say(ingress, Message::Returned { id });
                    self.forget(slot, ctx);
                }
                SocketState::SynReceived => {
                    connection.state = State::Returning(delivering);
                    self.purge(slot, ctx);
                    self.set_alarm(slot, now + Duration::from_millis(5), ctx);
                }
                SocketState::Open | SocketState::TimeWait => {
                    connection.state = State::Delivering(delivering);
                    self.cut(slot, ctx, now);
                }
            },
            other => connection.state = other,
        }
    }

    fn judge(&mut self, slot: usize, mut established: Established, socket: SocketState, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let is_over = matches!(socket, SocketState::Absent | SocketState::TimeWait);
        if is_over {
            connection.state = State::Over(established.shifts);
            return self.finish(slot, ctx, now);
        }
        if let Some(mut syn) = established.syn.take()
            && let Ok(segment) = Segment::parse(syn.as_mut_slice())
        {
            // A live connection: the kernel answers a SYN with a challenge ACK (RFC 5961, section 4.2).
            let _: Segment<_, ToServerLocal> = established.shifts.to_server::<&mut [u8]>(segment);
            ctx.write(syn);
        }
        let looks_over = established.closing.looks_over();
        established.closing.reset = false;
        established.asked = if looks_over { (established.asked + 1).min(12) } else { 0 };
        let again = if looks_over { Duration::from_millis(1 << established.asked) } else { limits::IDLE_CHECK_INTERVAL };
        connection.state = State::Established(established);
        self.set_alarm(slot, now + again, ctx);
    }

    fn judge_delivery(&mut self, slot: usize, socket: SocketState, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let State::Delivering(delivering) = &connection.state else { return };
        let is_late = now >= delivering.began + limits::DELIVERY_DEADLINE;
        match socket {
            SocketState::Open if delivering.offer.first_flight.is_empty() => self.establish(slot, ctx, now),
            SocketState::SynReceived if is_late && !delivering.has_left_syn_received => {
                // The handshake never completed, so no application can have seen it. Once the request is purged none will.
                if let State::Delivering(delivering) = connection.state.take() {
                    connection.state = State::Returning(delivering);
                }
                self.purge(slot, ctx);
                self.ask(slot, ctx);
            }
            SocketState::Absent | SocketState::TimeWait if is_late => self.cut(slot, ctx, now),
            SocketState::Open if is_late => {
                // The kernel has the connection but not the whole flight: it lacks room, or a segment was lost.
                ctx.counters.redeliveries += 1;
                self.deliver(slot, ctx, now);
            }
            SocketState::Open | SocketState::SynReceived | SocketState::Absent | SocketState::TimeWait => {}
        }
    }

    /// Nobody can say any more whether an application saw the request: the client is reset rather than served twice.
    fn cut(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let (shifts, next) = match &connection.state {
            State::Delivering(delivering) => (delivering.learned.shifts, delivering.client_acknowledged),
            State::Established(established) => (established.shifts, established.client_acknowledged),
            _ => return,
        };
        ctx.counters.resets += 1;
        ctx.write(bare::<ToClientWire>(connection.flow.frontend, connection.flow.client, next, Seq::new(0), Flags::RST));
        ctx.outputs.push_back(Output::DestroySocket { local: connection.alias, remote: connection.flow.client });
        connection.state = State::Over(shifts);
        ctx.say(connection.ingress, Message::Delivered { id: connection.id });
        self.finish(slot, ctx, now);
    }

    /// The connection is over: tell its ingress, and linger.
    fn finish(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        connection.since = now;
        ctx.say(connection.ingress, Message::Closed { id: connection.id });
        log::debug!("closed flow={} id={}", connection.flow, connection.id.serial);
        let linger = ctx.policy.limits.linger;
        self.set_alarm(slot, now + linger, ctx);
    }

    /// Takes the request out of the kernel's SYN-RECV: a RST at the client's ISN + 1.
    fn purge(&self, slot: usize, ctx: &mut Context) {
        let connection = &self.connections[slot];
        let seq = connection.client_isn.plus(1);
        ctx.write(bare::<ToServerLocal>(connection.flow.client, connection.alias, seq, Seq::new(0), Flags::RST));
    }

    fn purge_and_forget(&mut self, slot: usize, ctx: &mut Context) {
        self.purge(slot, ctx);
        self.forget(slot, ctx);
    }

    // ---- Timers -----------------------------------------------------------------------------------------------------

    /// A deadline of one of these connections passed.
    pub fn handle_deadline(&mut self, deadline: Deadline, ctx: &mut Context, now: Instant) {
        let slot = deadline.slot;
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if connection.serial != deadline.serial || !connection.alarm.fires(deadline, now, &mut ctx.timers) {
            return;
        }
        match &connection.state {
            State::Replaying(replaying) if now >= replaying.deadline => self.refuse(slot, Refusal::BacklogFull, ctx),
            State::Replaying(replaying) => {
                ctx.write(replayed_syn(&replaying.offer, connection.alias));
                let deadline = replaying.deadline;
                self.set_alarm(slot, deadline, ctx);
            }
            State::Prepared(_) => self.purge_and_forget(slot, ctx),
            State::Delivering(delivering) => {
                if now >= delivering.began + limits::DELIVERY_DEADLINE {
                    // First see whether it can still be returned; deliver again only if the answer is no.
                    self.ask(slot, ctx);
                    self.set_alarm(slot, now + limits::DELIVERY_INTERVAL, ctx);
                } else {
                    ctx.counters.redeliveries += 1;
                    self.deliver(slot, ctx, now);
                }
            }
            State::Returning(_) => {
                self.ask(slot, ctx);
                self.set_alarm(slot, now + limits::DELIVERY_INTERVAL, ctx);
            }
            State::Established(_) => {
                self.ask(slot, ctx);
                self.set_alarm(slot, now + limits::IDLE_CHECK_INTERVAL, ctx);
            }
            State::Over(_) | State::Abandoned => self.forget(slot, ctx),
            State::Moving => {}
        }
    }

    fn set_alarm(&mut self, slot: usize, at: Instant, ctx: &mut Context) {
        let connection = &mut self.connections[slot];
        connection.alarm.set(at, Owner::Utcp, slot, connection.serial, &mut ctx.timers);
    }

    // ---- Peers ------------------------------------------------------------------------------------------------------

    /// A session with an ingress is up: it is told what this node owns of what arrives there, and what is over.
    pub fn handle_peer_up(&mut self, peer: NodeId, epoch: Epoch, born_anew: bool, ctx: &mut Context) {
        if born_anew {
            // Nobody is left who could repeat a commit of an earlier life.
            self.applied.retain(|(from, id)| *from != peer || id.epoch == epoch);
        }
        for (_, connection) in self.connections.iter().filter(|(_, connection)| connection.ingress == peer) {
            let id = connection.id;
            match &connection.state {
                State::Delivering(_) | State::Returning(_) | State::Established(_) => {
                    ctx.say(peer, Message::Owned { id, flow: connection.flow });
                }
                State::Over(_) => ctx.say(peer, Message::Closed { id }),
                State::Replaying(_) | State::Prepared(_) | State::Abandoned | State::Moving => {}
            }
        }
        ctx.say(peer, Message::OwnedEnd);
    }

    /// The ingress has given this connection up and reset its client: nothing may be sent for it any more. (The client may
    /// use its port again already, so it is not reset from here.)
    pub fn handle_disowned(&mut self, from: NodeId, id: HandoffId, ctx: &mut Context, now: Instant) {
        let Some(slot) = self.by_handoff.get(&id).copied() else { return };
        let connection = &mut self.connections[slot];
        if connection.ingress != from {
            return;
        }
        if !matches!(connection.state, State::Delivering(_) | State::Returning(_) | State::Established(_)) {
            return;
        }
        ctx.counters.disowned += 1;
        ctx.outputs.push_back(Output::DestroySocket { local: connection.alias, remote: connection.flow.client });
        connection.state = State::Abandoned;
        connection.since = now;
        let linger = ctx.policy.limits.linger;
        self.set_alarm(slot, now + linger, ctx);
    }

    /// The ingress will not repeat these commits any more.
    pub fn handle_settled(&mut self, from: NodeId, epoch: Epoch, below: u64) {
        self.applied.retain(|(front_end, id)| *front_end != from || id.epoch != epoch || id.serial >= below);
    }

    // ---- Ends -------------------------------------------------------------------------------------------------------

    /// Resets every connection that only this process keeps alive, at both ends.
    pub fn reset_all(&mut self, ctx: &mut Context, now: Instant) {
        let slots: Vec<_> = self.connections.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            match &self.connections[slot].state {
                State::Replaying(_) | State::Prepared(_) => self.refuse(slot, Refusal::Draining, ctx),
                State::Delivering(_) | State::Established(_) => self.cut(slot, ctx, now),
                State::Returning(_) | State::Over(_) | State::Abandoned | State::Moving => {}
            }
        }
    }

    fn forget(&mut self, slot: usize, ctx: &mut Context) {
        let connection = self.connections.remove(slot);
        ctx.connections -= 1;
        if self.by_flow.get(&connection.flow) == Some(&slot) {
            self.by_flow.remove(&connection.flow);
        }
        self.by_socket.remove(&(connection.alias, connection.flow.client));
        self.by_handoff.remove(&connection.id);
        if connection.ingress == ctx.node {
            self.applied.remove(&(connection.ingress, connection.id));
        }
    }

    /// Connections served, and lingering ones.
    pub fn count(&self) -> Counts {
        let mut counts = Counts { applied: self.applied.len(), ..Counts::default() };
        for (_, connection) in &self.connections {
            match &connection.state {
                State::Replaying(_) | State::Prepared(_) => counts.prepared += 1,
                State::Delivering(_) | State::Returning(_) | State::Established(_) => counts.serving += 1,
                State::Over(_) | State::Abandoned | State::Moving => counts.lingering += 1,
            }
        }
        counts
    }

    /// For `baton flows`.
    pub fn flows(&self, now: Instant) -> impl Iterator<Item = FlowView> + '_ {
        self.connections.iter().map(move |(_, connection)| {
            let treatment = match &connection.state {
                State::Established(established) => Treatment::Translate(established.shifts),
                State::Over(shifts) => Treatment::Translate(*shifts),
                State::Replaying(_)
                | State::Prepared(_)
                | State::Delivering(_)
                | State::Returning(_)
                | State::Abandoned
                | State::Moving => Treatment::Inspect,
            };
            FlowView {
                flow: connection.flow,
                role: "back-end",
                state: connection.state.label(),
                peer: Some(connection.ingress),
                rule: None,
                treatment: treatment.label(),
                age: now.saturating_duration_since(connection.since),
            }
        })
    }
}

/// How many connections are in which state.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // The names say it.
pub struct Counts {
    pub prepared: usize,
    pub serving: usize,
    pub lingering: usize,
    pub applied: usize,
}

impl Learned {
    fn of(offer: &Offer, alias: Endpoint, syn_ack: &Segment<&mut [u8], ToClientLocal>) -> Self {
        let tsval = syn_ack.timestamps().map(|(tsval, _)| tsval);
        let mss = syn_ack.mss().unwrap_or(536);
        let shifts = Shifts {
            frontend: offer.flow.frontend,
            alias,
            seq: SeqShift::between(offer.frontend_isn, syn_ack.seq()),
            timestamps: offer.timestamps.zip(tsval).map(|(offered, tsval)| TimestampShift::between(offered.frontend, tsval)),
            window: WindowRescale {
                kernel: syn_ack.window_scale().unwrap_or(WindowScale::NONE),
                promised: offer.window_scales.map_or(WindowScale::NONE, |scales| scales.frontend),
                mss: offer.client_mss.min(mss),
            },
        };
        Self { shifts, isn: syn_ack.seq(), tsval, mss }
    }
}

impl Delivering {
    /// Whether a client's segment continues the first flight, which is not in the kernel yet.
    fn takes_as_flight<B: AsRef<[u8]>>(&self, client_isn: Seq<Client>, segment: &Segment<B, ToServerWire>) -> bool {
        let end = client_isn.plus(1 + self.offer.first_flight.len() as u32);
        segment.seq() == end
            && !segment.payload().is_empty()
            && !segment.flags().intersects(Flags::SYN.with(Flags::FIN).with(Flags::RST))
            && segment.checksums_are_right()
            && self.offer.first_flight.len() < limits::OVERTAKING_BYTES_MAX
    }

    /// The rest of the first flight, as segments of the client. All are built, none translated: until the kernel leaves
    /// SYN-RECV it wants exactly its own SYN-ACK's TSval echoed.
    fn segments(&self, client: Endpoint, alias: Endpoint) -> Vec<Vec<u8>> {
        let rest = self.offer.first_flight.get(self.acknowledged..).unwrap_or_default();
        let timestamps = self.offer.timestamps.zip(self.learned.tsval).map(|(offered, tsval)| (offered.client, tsval));
        let options = if timestamps.is_some() { 12 } else { 0 };
        let segment_bytes = usize::from(self.learned.mss.min(self.offer.client_mss.max(536)).saturating_sub(options).max(256));
        let first = self.offer.client_isn.plus(1 + self.acknowledged as u32);
        let spec = SegmentSpec::<ToServerLocal> {
            source: client,
            destination: alias,
            seq: first,
            ack: self.learned.isn.plus(1),
            flags: Flags::ACK,
            window: self.offer.window,
            mss: None,
            window_scale: None,
            sack_permitted: false,
            timestamps,
            traffic_class: 0,
            payload: &[],
        };
        if rest.is_empty() {
            return vec![spec.build().into_inner()];
        }
        let count = rest.len().div_ceil(segment_bytes);
        rest.chunks(segment_bytes)
            .enumerate()
            .map(|(index, payload)| {
                let flags = if index + 1 == count { Flags::ACK.with(Flags::PSH) } else { Flags::ACK };
                let seq = first.plus((index * segment_bytes) as u32);
                SegmentSpec { seq, flags, payload, ..spec.clone() }.build().into_inner()
            })
            .collect()
    }
}

/// The client's SYN as the back-end's kernel must see it: with the client's own numbers, and of its options exactly those
/// that the front-end's SYN-ACK granted.
fn replayed_syn(offer: &Offer, alias: Endpoint) -> Vec<u8> {
    let ecn = if offer.ecn { Flags::ECE.with(Flags::CWR) } else { Flags(0) };
    SegmentSpec::<ToServerLocal> {
        source: offer.flow.client,
        destination: alias,
        seq: offer.client_isn,
        ack: Seq::new(0),
        flags: Flags::SYN.with(ecn),
        window: offer.syn_window,
        mss: Some(offer.client_mss),
        window_scale: offer.window_scales.map(|scales| scales.client),
        sack_permitted: offer.sack,
        timestamps: offer.timestamps.map(|timestamps| (timestamps.client, Timestamp::new(0))),
        traffic_class: 0,
        payload: &[],
    }
    .build()
    .into_inner()
}

/// Whether the kernel grants everything the client was promised, in units the client's view can express.
fn keeps_promises(offer: &Offer, syn_ack: &Segment<&mut [u8], ToClientLocal>) -> bool {
    let scale_is_kept = match offer.window_scales {
        None => true,
        Some(scales) => {
            let unit = 1u32 << scales.frontend.shift();
            syn_ack.window_scale().is_some() && unit <= u32::from(syn_ack.window()) / 8
        }
    };
    scale_is_kept
        && (!offer.sack || syn_ack.sack_permitted())
        && (offer.timestamps.is_none() || syn_ack.timestamps().is_some())
        && (!offer.ecn || syn_ack.flags().contains(Flags::ECE))
}

fn drop(ctx: &mut Context, reason: DropReason) -> Verdict {
    ctx.counters.drop(reason);
    Verdict::Drop(reason)
}
