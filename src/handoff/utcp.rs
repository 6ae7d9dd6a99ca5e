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
//! Where the SYN decides (`inspect: none`) there is neither offer nor replay:
//!
//! ```text
//!  forwarded SYN                SYN-ACK, translated;            kernel sends anything else
//!   --> Opening  .............. client acknowledges: owned -------------------------------> Established
//!          | RST, silence
//!          v
//!       refused
//! ```
//!
//! State comes into being only on an authenticated peer's word, and the kernel judges every segment.

mod course;
mod deadlines;
mod deliver;
mod disagreement;
mod judge;
mod open;
mod packets;
mod peers;
mod replay;

use course::Course;
use open::Opening;

use crate::control::message::{Accept, Epoch, HandoffId, Message, Offer, Refusal};
use crate::flow::{Endpoint, FlowKey, NodeId};
use crate::handoff::context::Context;
use crate::handoff::counters::DropReason;
use crate::handoff::engine::{FlowView, Output, SocketState, Verdict};
use crate::handoff::index::{Index, make_room};
use crate::handoff::notes::Why;
use crate::handoff::synthetic::bare;
use crate::handoff::timers::{Alarm, Deadline, Owner};
use crate::handoff::treatment::Treatment;
use crate::limits;
use crate::rewrite::{
    Client, Flags, Local, Segment, SegmentSpec, Seq, SeqShift, Shifts, Timestamp, TimestampShift, ToClientLocal, ToClientWire,
    ToServerLocal, ToServerWire, WindowRescale, WindowScale, Wire,
};
use hashbrown::HashMap;
use slab::Slab;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

type Map<K, V> = HashMap<K, V, foldhash::quality::FixedState>;

/// A socket of the kernel: its own end (an alias), and the client's.
type Socket = (Endpoint, Endpoint);

/// All connections this node's kernel serves through a replay.
#[derive(Clone, Debug)]
pub struct Utcp {
    connections: Slab<Connection>,
    /// The newest connection of a flow.
    by_flow: Index,
    by_socket: Index,
    by_handoff: Index,
    aliases: Map<Endpoint, Vec<IpAddr>>,
    /// Commits ever applied whose front-end may repeat them, by front-end: a commit is applied once.
    applied: BTreeSet<(NodeId, HandoffId)>,
    /// Connections whose client has not completed the handshake, the oldest first, by slot and serial; and others that were such.
    unfinished: VecDeque<(usize, u64)>,
    /// What was said about peers with another cluster file.
    complaints: BTreeSet<(NodeId, Refusal)>,
}

#[derive(Clone, Debug)]
struct Connection {
    id: HandoffId,
    flow: FlowKey,
    ingress: NodeId,
    alias: Endpoint,
    client_isn: Seq<Client>,
    serial: u64,
    since: Instant,
    alarm: Alarm,
    /// Whether it takes room from others: not what is known by a SYN alone.
    is_counted: bool,
    state: State,
}

impl Connection {
    fn socket(&self) -> Socket {
        (self.alias, self.flow.client)
    }
}

#[derive(Clone, Debug)]
enum State {
    /// The SYN is written; the kernel has not answered.
    Replaying(Box<Replaying>),
    /// The kernel is in SYN-RECV; the front-end was told.
    Prepared(Box<Prepared>),
    /// Committed: the first flight is on its way into the kernel.
    Delivering(Box<Delivering>),
    /// The kernel could not take it; its half is being purged.
    Returning(Box<Delivering>),
    /// Not offered: its SYN was forwarded, and the client has not been served yet.
    Opening(Opening),
    /// The kernel serves it.
    Established(Established),
    /// The kernel says it is over.
    Over(Shifts),
    /// Its ingress gave it up; the socket is destroyed and nothing is sent for it any more.
    Abandoned,
    /// Between two states, inside one transition.
    Moving,
}

#[derive(Clone, Debug)]
struct Replaying {
    offer: Box<Offer>,
    deadline: Instant,
    overtaking: Overtaking,
}

#[derive(Clone, Debug)]
struct Prepared {
    offer: Box<Offer>,
    overtaking: Overtaking,
    learned: Learned,
    /// To be sent when the kernel has said that it keeps a request.
    accept: Option<Accept>,
}

/// The second initial TCP state.
#[derive(Clone, Copy, Debug)]
struct Learned {
    shifts: Shifts,
    isn: Seq<Local>,
    /// What completes the handshake echoes: the SYN-ACK's TSval, or nothing (0).
    echo: Option<Timestamp<Local>>,
    /// Largest segment the kernel takes.
    mss: u16,
}

#[derive(Clone, Debug)]
struct Delivering {
    offer: Box<Offer>,
    overtaking: Overtaking,
    learned: Learned,
    /// Octets of the first flight that the kernel has acknowledged.
    acknowledged: usize,
    began: Instant,
    /// The kernel has sent anything but a SYN-ACK: it has left SYN-RECV.
    has_left_syn_received: bool,
    course: Course,
}

#[derive(Clone, Debug)]
struct Established {
    shifts: Shifts,
    course: Course,
    /// A SYN waits for the kernel's word on whether this connection is over.
    syn: Option<Vec<u8>>,
    /// How often the kernel was asked in vain whether it is over.
    asked: u32,
    /// When it was, or will be, asked because of a RST.
    asked_at: Instant,
}

/// Client packets that came through the overlay before the kernel could take them.
#[derive(Clone, Debug, Default)]
struct Overtaking {
    packets: Vec<Vec<u8>>,
    bytes: usize,
}

impl Overtaking {
    fn keep(&mut self, packet: Vec<u8>) -> bool {
        let bytes = self.bytes.saturating_add(packet.len());
        let has_room = self.packets.len() < limits::OVERTAKING_SEGMENTS_MAX && bytes <= limits::OVERTAKING_BYTES_MAX;
        if has_room {
            self.bytes = bytes;
            self.packets.push(packet);
        }
        has_room
    }
}

/// How far a connection is the kernel's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Serves {
    /// Its client has not completed the handshake.
    NotYet,
    /// It is.
    Yes,
    /// It is over.
    NoLonger,
}

impl State {
    const fn label(&self) -> &'static str {
        match self {
            Self::Replaying(_) => "replaying",
            Self::Prepared(_) => "prepared",
            Self::Delivering(_) => "delivering",
            Self::Returning(_) => "returning",
            Self::Opening(_) => "opening",
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
            by_flow: Index::new(hasher.clone()),
            by_socket: Index::new(hasher.clone()),
            by_handoff: Index::new(hasher.clone()),
            aliases: HashMap::with_hasher(hasher),
            applied: BTreeSet::new(),
            unfinished: VecDeque::new(),
            complaints: BTreeSet::new(),
        }
    }

    /// Another policy may give a front-end address other aliases (those in use stay in use), and peers another reason to be
    /// complained about.
    pub fn forget_policy(&mut self) {
        self.aliases.clear();
        self.complaints.clear();
    }

    /// Resets every connection that only this process keeps alive, at both ends.
    pub fn reset_all(&mut self, ctx: &mut Context, now: Instant) {
        let slots: Vec<_> = self.connections.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            match &self.connections[slot].state {
                State::Replaying(_) | State::Prepared(_) => self.refuse(slot, Refusal::Draining, ctx),
                State::Opening(opening) if opening.is_completed() => {
                    self.establish_opened(slot, ctx, now);
                    self.cut(slot, ctx, now);
                }
                State::Opening(_) => self.refuse_syn(slot, Refusal::Draining, ctx),
                State::Delivering(_) | State::Established(_) => self.cut(slot, ctx, now),
                State::Returning(_) | State::Over(_) | State::Abandoned | State::Moving => {}
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // Each is a field.
    fn insert(
        &mut self,
        id: HandoffId,
        flow: FlowKey,
        ingress: NodeId,
        alias: Endpoint,
        client_isn: Seq<Client>,
        state: State,
        ctx: &mut Context,
        now: Instant,
    ) -> usize {
        let serial = ctx.serial();
        let alarm = Alarm::default();
        let is_counted = !matches!(state, State::Opening(_));
        let connection = Connection { id, flow, ingress, alias, client_isn, serial, since: now, alarm, is_counted, state };
        make_room(&mut self.connections);
        let slot = self.connections.insert(connection);
        ctx.connections += usize::from(is_counted);
        self.by_flow.insert(slot, |slot| self.connections[slot].flow);
        self.by_socket.insert(slot, |slot| self.connections[slot].socket());
        self.by_handoff.insert(slot, |slot| self.connections[slot].id);
        slot
    }

    fn forget(&mut self, slot: usize, ctx: &mut Context) {
        let mut connection = self.connections.remove(slot);
        connection.alarm.unqueue(Owner::Utcp, slot, connection.serial, &mut ctx.timers);
        ctx.connections -= usize::from(connection.is_counted);
        self.by_flow.remove(&connection.flow, slot);
        self.by_socket.remove(&connection.socket(), slot);
        self.by_handoff.remove(&connection.id, slot);
        if connection.ingress == ctx.node {
            self.applied.remove(&(connection.ingress, connection.id));
        }
    }

    /// The newest connection of a flow.
    fn slot_of(&self, flow: &FlowKey) -> Option<usize> {
        self.by_flow.get(flow, |slot| self.connections[slot].flow)
    }

    fn slot_of_socket(&self, socket: Socket) -> Option<usize> {
        self.by_socket.get(&socket, |slot| self.connections[slot].socket())
    }

    fn slot_of_handoff(&self, id: HandoffId) -> Option<usize> {
        self.by_handoff.get(&id, |slot| self.connections[slot].id)
    }

    /// Connections served, by the front-end address they came to.
    pub fn served(&self) -> BTreeMap<Endpoint, u32> {
        let mut served = BTreeMap::new();
        for (_, connection) in &self.connections {
            let is_served = match &connection.state {
                State::Opening(opening) => opening.is_completed(),
                State::Delivering(_) | State::Established(_) => true,
                _ => false,
            };
            if is_served {
                *served.entry(connection.flow.frontend).or_default() += 1;
            }
        }
        served
    }

    /// Whether the kernel serves this connection, or has until lately.
    pub fn serves(&self, flow: &FlowKey) -> Option<Serves> {
        match &self.connections[self.slot_of(flow)?].state {
            State::Over(_) => Some(Serves::NoLonger),
            State::Opening(opening) if !opening.is_completed() => Some(Serves::NotYet),
            State::Abandoned | State::Moving => None,
            _ => Some(Serves::Yes),
        }
    }

    /// Whether the kernel serves this connection, whose client acknowledges this.
    pub fn owns(&self, flow: &FlowKey, ack: Option<Seq<Wire>>) -> bool {
        let Some(slot) = self.slot_of(flow) else { return false };
        match &self.connections[slot].state {
            State::Opening(opening) if !opening.is_completed() => opening.expects(ack),
            _ => self.serves(flow) == Some(Serves::Yes),
        }
    }

    /// Connections served, and lingering ones.
    pub fn count(&self) -> Counts {
        let mut counts = Counts { applied: self.applied.len(), ..Counts::default() };
        for (_, connection) in &self.connections {
            match &connection.state {
                State::Opening(opening) if opening.is_completed() => counts.serving += 1,
                State::Opening(_) => {
                    counts.prepared += 1;
                    counts.unfinished += 1;
                }
                State::Replaying(_) | State::Prepared(_) => counts.prepared += 1,
                State::Delivering(_) | State::Returning(_) | State::Established(_) => counts.serving += 1,
                State::Over(_) | State::Abandoned | State::Moving => counts.lingering += 1,
            }
        }
        counts
    }

    /// The state of the newest connection of a flow.
    pub fn state_of(&self, flow: &FlowKey) -> Option<&'static str> {
        Some(self.connections[self.slot_of(flow)?].state.label())
    }

    /// The state of the connection of one of the kernel's sockets.
    pub fn state_of_socket(&self, local: Endpoint, remote: Endpoint) -> Option<&'static str> {
        Some(self.connections[self.slot_of_socket((local, remote))?].state.label())
    }

    /// The flow of the connection of one of the kernel's sockets.
    pub fn flow_of_socket(&self, local: Endpoint, remote: Endpoint) -> Option<FlowKey> {
        Some(self.connections[self.slot_of_socket((local, remote))?].flow)
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
                | State::Opening(_)
                | State::Abandoned
                | State::Moving => Treatment::Inspect,
            };
            FlowView {
                flow: connection.flow,
                role: "back-end",
                state: connection.state.label(),
                peer: Some(connection.ingress),
                socket: Some(connection.alias),
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
    pub unfinished: usize,
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
        Self { shifts, isn: syn_ack.seq(), echo: tsval, mss }
    }
}

impl Delivering {
    /// Whether a client's segment continues the first flight, which is not in the kernel yet.
    fn takes_as_flight<B: AsRef<[u8]>>(&self, client_isn: Seq<Client>, segment: &Segment<B, ToServerWire>) -> bool {
        let end = client_isn.plus(1 + self.offer.first_flight.len() as u32);
        segment.seq() == end
            && !segment.payload().is_empty()
            && !segment.flags().intersects(Flags::SYN.with(Flags::FIN).with(Flags::RST).with(Flags::URG))
            && segment.checksums_are_right()
            && self.offer.first_flight.len() < limits::OVERTAKING_BYTES_MAX
    }

    /// The first flight from this octet on, as segments of the client. All are built, none translated: until the kernel leaves
    /// SYN-RECV it wants its own SYN-ACK's TSval echoed, or nothing.
    fn segments(&self, client: Endpoint, alias: Endpoint, from: usize) -> Vec<Vec<u8>> {
        let rest = self.offer.first_flight.get(from..).unwrap_or_default();
        let timestamps = self.offer.timestamps.zip(self.learned.echo).map(|(offered, echo)| (offered.client, echo));
        let options = if timestamps.is_some() { 12 } else { 0 };
        let segment_bytes = usize::from(self.learned.mss.min(self.offer.client_mss.max(536)).saturating_sub(options).max(256));
        let first = self.offer.client_isn.plus(1 + from as u32);
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

/// What the kernel does not grant of what the client was promised; the first of several, by the setting that decides it.
fn broken_promise(offer: &Offer, syn_ack: &Segment<&mut [u8], ToClientLocal>) -> Option<&'static str> {
    let kernel = syn_ack.window_scale();
    if offer.window_scales.is_some() && kernel.is_none() {
        return Some("tcp_window_scaling");
    }
    if offer.sack && !syn_ack.sack_permitted() {
        return Some("tcp_sack");
    }
    if offer.timestamps.is_some() && syn_ack.timestamps().is_none() {
        return Some("tcp_timestamps");
    }
    if offer.ecn && !syn_ack.flags().contains(Flags::ECE) {
        return Some("tcp_ecn");
    }
    // Windows are rounded down to the promised unit only where the kernel counts in a finer one.
    let promised = offer.window_scales.map_or(0, |scales| scales.frontend.shift());
    let is_coarser = promised > kernel.unwrap_or(WindowScale::NONE).shift();
    (is_coarser && 1u32 << promised > u32::from(syn_ack.window()) / limits::PROMISED_UNITS_MIN).then_some("tcp_rmem")
}

#[cfg(test)]
mod tests;
