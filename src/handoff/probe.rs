//! Probes: connections of a client that this node plays itself, really handed off to a peer, so that the way users depend on
//! is what is tried. The offer goes over the control channel, the peer's kernel learns the connection by a replay, the last
//! octets of the request go through the overlay, and the answer, translated, comes straight back to the client: to an address of
//! this node, where the shell sees it before the kernel does.
//!
//! ```text
//!  offer --accept--> committed --delivered--> the rest of the request --acknowledged--> answer --> verdict, FIN, over
//! ```
//!
//! There is no half in the local kernel, so nothing to guard and nothing to take back: a probe that fails is given up.

use crate::control::message::{HandoffId, Message, Offer, Refusal};
use crate::flow::{FlowKey, NodeId};
use crate::handoff::context::Context;
use crate::handoff::counters::Fallback;
use crate::handoff::notes::Why;
use crate::handoff::timers::{Deadline, Owner};
use crate::health::Exchange;
use crate::limits::{PROBE_CLOSE_TIMEOUT, PROBE_REPEAT_INTERVAL};
use crate::rewrite::{Client, Flags, Segment, SegmentSpec, Seq, ToClientWire, ToServerWire, Wire};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Octets of a request that are kept back from the offer, to go through the overlay: without its last line it is none, so no
/// application answers before they are there.
const KEPT_BACK: usize = 2;
const WINDOW: u16 = u16::MAX;

/// What to probe.
#[derive(Clone, Debug)]
pub struct ProbeSpec {
    /// The service.
    pub service: String,
    /// The peer.
    pub to: NodeId,
    /// The client that this node plays, and a front-end address of this node.
    pub flow: FlowKey,
    /// What is asked.
    pub exchange: Exchange,
    /// How long it may take.
    pub timeout: Duration,
}

/// Where on its way a probe failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Asking the peer, over the control channel.
    Offer,
    /// The peer would not, or could not, take the connection.
    Refused,
    /// Into the peer's kernel.
    Delivery,
    /// From the peer's kernel straight back here.
    WayBack,
    /// From here through the overlay.
    Overlay,
    /// The application itself.
    Application,
}

impl Step {
    /// For people and programs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Refused => "refused",
            Self::Delivery => "delivery",
            Self::WayBack => "way back",
            Self::Overlay => "overlay",
            Self::Application => "application",
        }
    }
}

/// Why a probe failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProbeFailure {
    /// Where.
    pub step: Step,
    /// In words.
    pub why: String,
}

/// What became of a probe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProbeEvent {
    /// How long it took, or why it failed. Once for each probe.
    Verdict(HandoffId, Result<Duration, ProbeFailure>),
    /// Nothing of it will come back any more. Once, after the verdict.
    Over(HandoffId),
}

/// All probes under way.
#[derive(Clone, Debug, Default)]
pub struct Probes {
    running: BTreeMap<HandoffId, Probe>,
    events: VecDeque<ProbeEvent>,
}

#[derive(Clone, Debug)]
struct Probe {
    flow: FlowKey,
    to: NodeId,
    exchange: Exchange,
    client_isn: Seq<Client>,
    began: Instant,
    deadline: Instant,
    /// When what is not acknowledged is sent again.
    repeat: Option<Instant>,
    phase: Phase,
    /// Octets of the request that were in the offer.
    offered: usize,
    /// What is expected next.
    next: Seq<Wire>,
    /// Sequence numbers of ours that the peer's kernel has acknowledged, from ISN + 1.
    acknowledged: u32,
    /// Anything has come back.
    is_heard: bool,
    /// Our FIN is sent.
    is_ending: bool,
    /// Theirs has come.
    has_ended: bool,
    has_verdict: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Offered,
    Committed,
    Delivered,
}

impl Probes {
    /// Begins one.
    pub fn begin(&mut self, spec: ProbeSpec, ctx: &mut Context, now: Instant) -> HandoffId {
        let ProbeSpec { service, to, flow, exchange, timeout } = spec;
        let id = ctx.handoff_id();
        // Only the peer's kernel sees these, and two of them lie far apart.
        let client_isn = Seq::new((id.serial as u32).wrapping_mul(0x9e37_79b9));
        let frontend_isn = Seq::new((id.serial as u32).wrapping_mul(0x85eb_ca6b) ^ ctx.epoch.0 as u32);
        let offered = exchange.request().len().saturating_sub(KEPT_BACK);
        let offer = Offer {
            id,
            flow,
            service,
            client_isn,
            frontend_isn,
            client_mss: ctx.mss_max(flow.client.address),
            window_scales: None,
            sack: false,
            timestamps: None,
            ecn: false,
            syn_window: WINDOW,
            window: WINDOW,
            round_trip: Duration::ZERO,
            acknowledged_early: false,
            probe: true,
            first_flight: exchange.request()[..offered].to_vec(),
        };
        ctx.say(to, Message::Offer(Box::new(offer)));
        ctx.counters.probes_sent += 1;
        let probe = Probe {
            flow,
            to,
            exchange,
            client_isn,
            began: now,
            deadline: now + timeout,
            repeat: None,
            phase: Phase::Offered,
            offered,
            next: frontend_isn.plus(1),
            acknowledged: 0,
            is_heard: false,
            is_ending: false,
            has_ended: false,
            has_verdict: false,
        };
        probe.arm(id, ctx);
        self.running.insert(id, probe);
        id
    }

    /// What became of probes, until None.
    pub fn poll_event(&mut self) -> Option<ProbeEvent> {
        self.events.pop_front()
    }

    /// Whether this is a probe's, and not a client's connection.
    pub fn owns(&self, from: NodeId, id: HandoffId) -> bool {
        self.running.get(&id).is_some_and(|probe| probe.to == from)
    }

    /// What the peer says about it.
    pub fn handle_message(&mut self, id: HandoffId, message: &Message, ctx: &mut Context, now: Instant) {
        let Some(probe) = self.running.get_mut(&id) else { return };
        match message {
            Message::Accept(_) if probe.phase == Phase::Offered => {
                probe.phase = Phase::Committed;
                ctx.say(probe.to, Message::Commit { id, more: Vec::new() });
                if let Some(peer) = ctx.peer_mut(probe.to) {
                    peer.unsettled = true;
                }
            }
            Message::Refuse { reason, .. } => self.refused(id, *reason, now),
            Message::Delivered { .. } if probe.phase == Phase::Committed => {
                probe.phase = Phase::Delivered;
                probe.is_ending |= probe.exchange.asks_nothing();
                probe.send(ctx, now);
                probe.arm(id, ctx);
            }
            Message::Returned { .. } => {
                self.fail(id, Step::Delivery, "the peer could not deliver the request, and gave the connection back", now)
            }
            Message::Closed { .. } => {
                let failure = probe.failure();
                self.end(id, failure, now);
            }
            _ => {}
        }
    }

    fn refused(&mut self, id: HandoffId, reason: Refusal, now: Instant) {
        self.fail(id, Step::Refused, Fallback::from(reason).label(), now);
    }

    /// The session with a peer is gone.
    pub fn handle_peer_down(&mut self, peer: NodeId, now: Instant) {
        let lost: Vec<HandoffId> = self.running.iter().filter(|(_, probe)| probe.to == peer).map(|(id, _)| *id).collect();
        for id in lost {
            self.fail(id, Step::Offer, "the session with the peer broke", now);
        }
    }

    /// A packet that came for one of these clients; whether it was one.
    pub fn handle_answer(&mut self, segment: &Segment<&mut [u8], ToClientWire>, ctx: &mut Context, now: Instant) -> bool {
        let flow = FlowKey { client: segment.destination(), frontend: segment.source() };
        let found = self.running.iter_mut().find(|(_, probe)| probe.flow == flow);
        let Some((id, probe)) = found.map(|(id, probe)| (*id, probe)) else { return false };
        probe.is_heard = true;
        if segment.flags().contains(Flags::RST) {
            if segment.seq() == probe.next {
                let step = if probe.phase == Phase::Delivered { Step::Application } else { Step::Delivery };
                self.end(id, ProbeFailure { step, why: "the peer's kernel reset the connection".into() }, now);
            }
            return true;
        }
        let acknowledged = segment.ack().since(&probe.client_isn.plus(1));
        if let Ok(acknowledged) = u32::try_from(acknowledged)
            && acknowledged <= probe.sent()
        {
            probe.acknowledged = probe.acknowledged.max(acknowledged);
        }
        let verdict = probe.receive(segment);
        if segment.seq_len() > 0 {
            probe.send(ctx, now);
        }
        if let Some(verdict) = verdict.or_else(|| probe.is_ended_well().then_some(Ok(()))) {
            let took = now.saturating_duration_since(probe.began);
            let verdict =
                verdict.map(|()| took).map_err(|failure| ProbeFailure { step: Step::Application, why: failure.to_string() });
            self.conclude(id, verdict);
            self.close(id, ctx, now);
        }
        let is_over =
            self.running.get(&id).is_some_and(|probe| probe.has_verdict && probe.has_ended && probe.has_all_acknowledged());
        if is_over {
            self.forget(id);
        }
        true
    }

    /// The time of a probe is over, or what it sent is to be sent again.
    pub fn handle_deadline(&mut self, deadline: Deadline, ctx: &mut Context, now: Instant) {
        let id = HandoffId { epoch: ctx.epoch, serial: deadline.serial };
        let Some(probe) = self.running.get_mut(&id) else { return };
        if now >= probe.deadline {
            if probe.phase == Phase::Offered {
                ctx.say(probe.to, Message::Abort { id });
            } else {
                probe.reset(ctx);
            }
            let failure = probe.failure();
            return self.end(id, failure, now);
        }
        if probe.repeat.is_some_and(|at| now >= at) {
            probe.send(ctx, now);
        }
        probe.arm(id, ctx);
    }

    /// Says that this side has no more to say, and waits a moment for the other one, however much that still says.
    fn close(&mut self, id: HandoffId, ctx: &mut Context, now: Instant) {
        let Some(probe) = self.running.get_mut(&id) else { return };
        if !probe.is_ending {
            probe.is_ending = true;
            probe.deadline = now + PROBE_CLOSE_TIMEOUT;
            probe.send(ctx, now);
        }
        probe.arm(id, ctx);
    }

    fn fail(&mut self, id: HandoffId, step: Step, why: &str, now: Instant) {
        self.end(id, ProbeFailure { step, why: why.to_owned() }, now);
    }

    /// It is over; the failure counts if there was no verdict before.
    fn end(&mut self, id: HandoffId, failure: ProbeFailure, _now: Instant) {
        self.conclude(id, Err(failure));
        self.forget(id);
    }

    fn conclude(&mut self, id: HandoffId, verdict: Result<Duration, ProbeFailure>) {
        let Some(probe) = self.running.get_mut(&id) else { return };
        if !std::mem::replace(&mut probe.has_verdict, true) {
            self.events.push_back(ProbeEvent::Verdict(id, verdict));
        }
    }

    fn forget(&mut self, id: HandoffId) {
        if self.running.remove(&id).is_some() {
            self.events.push_back(ProbeEvent::Over(id));
        }
    }
}

impl Probe {
    fn arm(&self, id: HandoffId, ctx: &mut Context) {
        let at = self.repeat.map_or(self.deadline, |repeat| repeat.min(self.deadline));
        ctx.timers.push(Deadline { at, owner: Owner::Probe, slot: 0, serial: id.serial });
    }

    /// Sequence numbers of ours, FIN included, that the peer's kernel may have by now.
    fn sent(&self) -> u32 {
        let octets = if self.phase == Phase::Delivered { self.exchange.request().len() } else { self.offered };
        octets as u32 + u32::from(self.is_ending)
    }

    fn has_all_acknowledged(&self) -> bool {
        self.phase == Phase::Delivered && self.acknowledged == self.sent()
    }

    /// A question that is only whether there is a connection: its end was acknowledged.
    fn is_ended_well(&self) -> bool {
        self.exchange.asks_nothing() && self.is_ending && self.has_all_acknowledged()
    }

    /// Takes what comes next; the rest will be sent again.
    fn receive(&mut self, segment: &Segment<&mut [u8], ToClientWire>) -> Option<Result<(), crate::health::Failure>> {
        let known = usize::try_from(self.next.since(&segment.seq())).ok()?;
        let payload = segment.payload();
        if self.has_ended || known > payload.len() {
            return None;
        }
        let new = &payload[known..];
        self.next = self.next.plus(new.len() as u32);
        let verdict = self.exchange.receive(new);
        if !segment.flags().contains(Flags::FIN) {
            return verdict;
        }
        self.has_ended = true;
        self.next = self.next.plus(1);
        let asks_nothing = self.exchange.asks_nothing();
        verdict.or_else(|| (!asks_nothing).then(|| self.exchange.end()))
    }

    /// Sends, through the overlay, what is not acknowledged and was not in the offer, and an acknowledgement in any case.
    fn send(&mut self, ctx: &mut Context, now: Instant) {
        if self.phase != Phase::Delivered {
            return;
        }
        let from = (self.acknowledged as usize).clamp(self.offered, self.exchange.request().len());
        let has_fin = self.is_ending && self.acknowledged < self.sent();
        let flags = if has_fin { Flags::ACK.with(Flags::FIN) } else { Flags::ACK };
        let seq = if self.is_ending && !has_fin { self.sent() } else { from as u32 };
        let packet = self.segment(seq, flags, &self.exchange.request()[from..]);
        self.repeat = (self.acknowledged < self.sent()).then_some(now + PROBE_REPEAT_INTERVAL);
        ctx.forward(self.to, packet, Why::Probe);
    }

    fn reset(&self, ctx: &mut Context) {
        ctx.forward(self.to, self.segment(self.acknowledged, Flags::RST.with(Flags::ACK), &[]), Why::Probe);
    }

    fn segment(&self, seq: u32, flags: Flags, payload: &[u8]) -> Vec<u8> {
        SegmentSpec::<ToServerWire> {
            source: self.flow.client,
            destination: self.flow.frontend,
            seq: self.client_isn.plus(1 + seq),
            ack: self.next,
            flags,
            window: WINDOW,
            mss: None,
            window_scale: None,
            sack_permitted: false,
            timestamps: None,
            traffic_class: 0,
            payload,
        }
        .build()
        .into_inner()
    }

    /// What it waits for in vain.
    fn failure(&self) -> ProbeFailure {
        let failure = |step, why: &str| ProbeFailure { step, why: why.to_owned() };
        match self.phase {
            Phase::Offered => failure(Step::Offer, "the peer did not answer the offer in time"),
            Phase::Committed => failure(Step::Delivery, "the peer's kernel has not acknowledged the request"),
            Phase::Delivered if !self.is_heard => {
                failure(Step::WayBack, "the peer's kernel has the connection, but nothing of it has come straight back")
            }
            Phase::Delivered if !self.has_all_acknowledged() => {
                failure(Step::Overlay, "what went through the overlay was not acknowledged")
            }
            Phase::Delivered => failure(Step::Application, &self.exchange.too_slow().to_string()),
        }
    }
}
