//! Connections whose SYN a front-end forwarded: nothing is replayed. The kernel shakes hands with the client itself, and
//! only addresses are translated.
//!
//! The front-end is told when the client has acknowledged this kernel's ISN. A client acknowledges one ISN, so of several
//! kernels that were given its SYN at most one gets that far: it owns the connection. What acknowledges anything else is
//! kept from the kernel, whose RST would end the connection that the client has elsewhere.

use super::*;
use crate::handoff::counters::Fallback;

/// The SYN is with the kernel, and perhaps the SYN-ACK with the client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) shifts: Shifts,
    answered: Option<Answered>,
}

/// The kernel has answered the SYN.
#[derive(Clone, Copy, Debug)]
struct Answered {
    isn: Seq<Local>,
    course: Course,
    /// The client has acknowledged that, and the front-end was told.
    is_completed: bool,
}

impl Opening {
    /// Whether the client has completed the handshake, as far as this process can see.
    pub(super) fn is_completed(&self) -> bool {
        self.answered.is_some_and(|answered| answered.is_completed)
    }
}

impl Opening {
    /// Whether what the client acknowledges is this kernel's SYN-ACK. (A client that acknowledges nothing resets.)
    pub(super) fn expects(&self, ack: Option<Seq<Wire>>) -> bool {
        self.answered.is_some_and(|answered| ack.is_none_or(|ack| ack == self.shifts.seq.to_wire(answered.isn.plus(1))))
    }
}

impl Utcp {
    /// A client's SYN, forwarded by the node that chose this one to serve it.
    pub(super) fn open(
        &mut self,
        from: NodeId,
        syn: Segment<&mut [u8], ToServerWire>,
        ctx: &mut Context,
        now: Instant,
    ) -> Verdict {
        let flow = FlowKey { client: syn.source(), frontend: syn.destination() };
        let isn = syn.seq();
        let alias = match self.admit_syn(from, &flow, ctx) {
            Ok(alias) => alias,
            Err(reason) => {
                ctx.counters.offers_refused += 1;
                ctx.say(from, Message::SynRefused { flow, isn, reason });
                return Verdict::Consumed;
            }
        };
        let shifts = Shifts::of_address(flow.frontend, alias);
        let opening = State::Opening(Opening { shifts, answered: None });
        // Never used for a handoff of the front-end's: those are numbered by its own epoch.
        let id = ctx.handoff_id();
        self.make_room_for_opening(ctx);
        let slot = self.insert(id, flow, from, alias, isn, opening, ctx, now);
        self.unfinished.push_back((slot, self.connections[slot].serial));
        self.set_alarm(slot, now + limits::REPLAY_DEADLINE, ctx);
        let _: Segment<_, ToServerLocal> = shifts.to_server(syn);
        Verdict::Write
    }

    /// What a SYN alone makes known is bounded: the oldest whose client has not come back goes, here and in the kernel.
    fn make_room_for_opening(&mut self, ctx: &mut Context) {
        while self.unfinished.len() >= limits::OPENINGS_UNFINISHED_MAX
            && let Some((slot, serial)) = self.unfinished.pop_front()
        {
            let is_unfinished = |connection: &&Connection| {
                connection.serial == serial && matches!(&connection.state, State::Opening(opening) if !opening.is_completed())
            };
            if self.connections.get(slot).filter(is_unfinished).is_some() {
                ctx.counters.syns_evicted += 1;
                self.purge_and_forget(slot, ctx);
            }
        }
    }

    fn admit_syn(&mut self, from: NodeId, flow: &FlowKey, ctx: &mut Context) -> Result<Endpoint, Refusal> {
        if ctx.draining {
            return Err(Refusal::Draining);
        }
        if !ctx.has_room() {
            return Err(Refusal::Full);
        }
        let policy = std::rc::Rc::clone(&ctx.policy);
        let service = policy.service_of(flow.frontend).filter(|service| service.decides_on_syn());
        let name = service.map_or("", |service| service.name.as_str());
        let port = Self::server_port(&policy, ctx.node, from, name, flow.frontend);
        let port = port.inspect_err(|reason| self.complain(from, name, flow.frontend, *reason, ctx))?;
        self.free_alias(&policy, flow, port, ctx)
    }

    /// A client's packet while its connection is opened.
    pub(super) fn client_opens(
        &mut self,
        slot: usize,
        from: NodeId,
        segment: Segment<&mut [u8], ToServerWire>,
        ctx: &mut Context,
        now: Instant,
    ) -> Verdict {
        let connection = &mut self.connections[slot];
        let State::Opening(opening) = &mut connection.state else { return ctx.drop(DropReason::UnexpectedFromKernel) };
        let flags = segment.flags();
        let shifts = opening.shifts;
        if flags.contains(Flags::SYN) && !flags.contains(Flags::ACK) {
            // Sent again. With another number it is a new attempt: the kernel says what it thinks of that.
            if opening.answered.is_none() {
                connection.client_isn = segment.seq();
            }
            let _: Segment<_, ToServerLocal> = shifts.to_server(segment);
            return Verdict::Write;
        }
        let Some(answered) = &mut opening.answered else { return ctx.drop(DropReason::BadAcknowledgement) };
        if flags.contains(Flags::RST) {
            // The kernel takes any in its window; we let through only what RFC 5961 calls exact.
            if segment.seq() != connection.client_isn.plus(1) {
                return ctx.drop(DropReason::ResetNotExact);
            }
            if answered.is_completed {
                self.establish_opened(slot, ctx, now);
                return self.translate_to_kernel(slot, segment, ctx, now);
            }
            self.forget(slot, ctx);
            let _: Segment<_, ToServerLocal> = shifts.to_server(segment);
            return Verdict::Write;
        }
        // The kernel has sent nothing yet that could be acknowledged beyond its SYN-ACK.
        let expected: Seq<Wire> = shifts.seq.to_wire(answered.isn.plus(1));
        if !flags.contains(Flags::ACK) || segment.ack() != expected {
            let flow = connection.flow;
            self.deny(from, flow, ctx);
            return ctx.drop(DropReason::BadAcknowledgement);
        }
        if !answered.is_completed && !ctx.has_room() {
            return self.turn_away(slot, expected, ctx);
        }
        answered.course.hear_client(&segment);
        let _: Segment<_, ToServerLocal> = shifts.to_server(segment);
        if !answered.is_completed {
            self.complete(slot, ctx);
        }
        Verdict::Write
    }

    /// The client believes it is connected, and there is no room any more: it hears so, and the kernel never knew better.
    fn turn_away(&mut self, slot: usize, next: Seq<Wire>, ctx: &mut Context) -> Verdict {
        let FlowKey { client, frontend } = self.connections[slot].flow;
        ctx.counters.resets += 1;
        ctx.counters.fall_back(Fallback::Full);
        ctx.write(bare::<ToClientWire>(frontend, client, next, Seq::new(0), Flags::RST), Why::Reset);
        self.purge_and_forget(slot, ctx);
        Verdict::Consumed
    }

    /// The client is one that hears what this kernel says, and the connection this node's.
    fn complete(&mut self, slot: usize, ctx: &mut Context) {
        let connection = &mut self.connections[slot];
        let State::Opening(Opening { answered: Some(answered), .. }) = &mut connection.state else { return };
        answered.is_completed = true;
        connection.is_counted = true;
        ctx.connections += 1;
        ctx.counters.handoffs_accepted += 1;
        log::debug!("opened flow={} id={}", connection.flow, connection.id.serial);
        ctx.remark(connection.ingress, |name| format!("opened for {name}"));
        ctx.say(connection.ingress, Message::Owned { id: connection.id, flow: connection.flow });
    }

    /// A packet of this node's kernel while a connection is opened.
    pub(super) fn kernel_opens(
        &mut self,
        slot: usize,
        segment: Segment<&mut [u8], ToClientLocal>,
        ctx: &mut Context,
        now: Instant,
    ) -> Verdict {
        let connection = &mut self.connections[slot];
        let State::Opening(opening) = &mut connection.state else { return ctx.drop(DropReason::UnexpectedFromKernel) };
        let flags = segment.flags();
        let first = connection.client_isn.plus(1);
        let shifts = opening.shifts;
        if flags.contains(Flags::SYN.with(Flags::ACK)) {
            if segment.ack() != first || opening.is_completed() && opening.answered.is_some_and(|had| had.isn != segment.seq()) {
                return ctx.drop(DropReason::UnexpectedFromKernel);
            }
            let isn = segment.seq();
            let is_first = opening.answered.is_none();
            if opening.answered.is_none_or(|had| had.isn != isn) {
                let course = Course::new(shifts.seq.to_wire(isn.plus(1)));
                opening.answered = Some(Answered { isn, course, is_completed: false });
            }
            let mut syn_ack = shifts.to_client(segment);
            // What the client sends comes through the overlay.
            syn_ack.clamp_mss(ctx.mss_max(connection.flow.client.address));
            if is_first {
                self.set_alarm(slot, now + limits::HANDSHAKE_LIFETIME, ctx);
            }
            return Verdict::Write;
        }
        if opening.answered.is_none() {
            if flags.contains(Flags::RST) && segment.ack() == first {
                // Nothing listens. The client has heard nothing yet, so somebody else may answer it.
                self.refuse_syn(slot, Refusal::ApplicationDown, ctx);
                return Verdict::Consumed;
            }
            return ctx.drop(DropReason::UnexpectedFromKernel);
        }
        if !opening.is_completed() {
            // Nothing completes the handshake that did not come this way. A SYN in its window makes Linux reset a request, and
            // that may be anybody's: nobody owns anything by it.
            if flags.contains(Flags::RST) {
                self.forget(slot, ctx);
            }
            let _: Segment<_, ToClientWire> = shifts.to_client(segment);
            return Verdict::Write;
        }
        // In SYN-RECV a kernel may answer what it cannot take with an ACK of exactly ISN + 1; anything else shows that the
        // handshake is complete.
        if segment.ack() != first || segment.seq_len() > 0 || flags.contains(Flags::RST) {
            self.establish_opened(slot, ctx, now);
            return self.translate_to_client(slot, segment, ctx);
        }
        let _: Segment<_, ToClientWire> = shifts.to_client(segment);
        Verdict::Write
    }

    /// From here on it is a connection like those that were replayed.
    pub(super) fn establish_opened(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let State::Opening(Opening { shifts, answered: Some(Answered { course, is_completed, .. }) }) = connection.state else {
            return;
        };
        if !is_completed {
            self.complete(slot, ctx);
        }
        let connection = &mut self.connections[slot];
        connection.since = now;
        connection.state = State::Established(Established { shifts, course, syn: None, asked: 0, asked_at: now });
        self.set_alarm(slot, now + limits::IDLE_CHECK_INTERVAL, ctx);
    }

    /// Nothing has happened for a while.
    pub(super) fn handle_deadline_of_opening(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let State::Opening(opening) = &self.connections[slot].state else { return };
        if opening.answered.is_none() {
            return self.refuse_syn(slot, Refusal::BacklogFull, ctx);
        }
        self.ask(slot, ctx);
        self.set_alarm(slot, now + limits::HANDSHAKE_LIFETIME, ctx);
    }

    /// The kernel said what it has of a connection that is being opened.
    pub(super) fn judge_opening(&mut self, slot: usize, opening: Opening, socket: SocketState, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        connection.state = State::Opening(opening);
        match socket {
            // The kernel repeats its SYN-ACK until it gives up.
            SocketState::SynReceived => {}
            SocketState::Open => self.establish_opened(slot, ctx, now),
            SocketState::Absent | SocketState::TimeWait if opening.is_completed() => {
                connection.state = State::Over(opening.shifts);
                self.finish(slot, ctx, now);
            }
            // The client never came back. (Or the kernel gave a SYN cookie, and it comes too late.)
            SocketState::Absent | SocketState::TimeWait => self.forget(slot, ctx),
        }
    }

    /// No connection comes of a forwarded SYN.
    pub(super) fn refuse_syn(&mut self, slot: usize, reason: Refusal, ctx: &mut Context) {
        let connection = &self.connections[slot];
        ctx.counters.offers_refused += 1;
        let (flow, isn) = (connection.flow, connection.client_isn);
        ctx.say(connection.ingress, Message::SynRefused { flow, isn, reason });
        ctx.remark(connection.ingress, |name| format!("refused to {name}: {reason:?}"));
        log::debug!("refused flow={flow} reason={reason:?}");
        if reason == Refusal::ApplicationDown { self.forget(slot, ctx) } else { self.purge_and_forget(slot, ctx) }
    }

    /// Another node took this one for the owner of a connection whose packets may arrive anywhere: it shall ask.
    pub(super) fn deny(&self, from: NodeId, flow: FlowKey, ctx: &mut Context) {
        if from != ctx.node && ctx.policy.is_shared_frontend(flow.frontend) {
            ctx.say(from, Message::Owner { flow, owns: false });
        }
    }
}
