//! Letting go of what the local server shall answer, without leaving the kernel with a false round trip.
//!
//! The kernel would time the handshake from its SYN-ACK to the acknowledgement that was withheld, hold included: a client
//! that connects and asks a second later would get a retransmission time-out of seconds. Released at once, what was withheld
//! stays as it is. After a longer hold the kernel is first made to repeat its SYN-ACK, by repeating the client's SYN; then
//! it believes an echo of any moment in between (see [`crate::handoff::syn_acks`]). The repeated SYN-ACK is absorbed.

use super::*;

/// A connection that is being let go of.
#[derive(Clone, Debug)]
pub(super) struct Releasing {
    pub(super) undecided: Box<Undecided>,
    /// The client's SYN was repeated.
    repeated_syn: bool,
}

impl Btcp {
    pub(super) fn serve_locally(&mut self, slot: usize, pending: Pending, ctx: &mut Context, now: Instant) {
        let undecided = pending.undecided;
        let connection = &mut self.connections[slot];
        let flow = connection.flow;
        match undecided.kernel {
            // (The SYN-ACKs of an address that is a front-end no longer do not come through here any more.)
            KernelHalf::SynReceived if undecided.hold_would_be_timed(now) && ctx.policy.is_own_frontend(flow.frontend) => {
                connection.state = State::Releasing(Releasing { undecided, repeated_syn: false });
                // A SYN cookie (RFC 4987, section 3.6) keeps what was negotiated in its timestamp: without a request in the
                // kernel no echo may be changed.
                ctx.outputs.push_back(Output::AskSocket { local: flow.frontend, remote: flow.client });
                self.set_alarm(slot, now + limits::RELEASE_PATIENCE, ctx);
            }
            KernelHalf::SynReceived => self.release(slot, undecided, ctx),
            KernelHalf::Purged => {
                let node = ctx.node;
                let pending = Pending { undecided, order: Order::EMPTY, deadline: now, ..pending };
                self.offer(slot, node, pending, ctx, now);
            }
        }
    }

    /// The kernel said what it has of a connection that is being let go of.
    pub(super) fn judge_release(
        &mut self,
        slot: usize,
        releasing: Releasing,
        socket: SocketState,
        ctx: &mut Context,
        now: Instant,
    ) {
        let undecided = &releasing.undecided;
        match socket {
            // Once repeated by the kernel's own timer, another repetition would count as a loss, and the kernel begin with
            // one segment (RFC 5681, section 3.1). There is no sample then but for an echo.
            SocketState::SynReceived if undecided.initial.syn_acks.is_repeated() => {
                self.release_timed(slot, releasing.undecided, ctx, now);
            }
            SocketState::SynReceived => {
                let connection = &mut self.connections[slot];
                ctx.write(undecided.initial.syn(&connection.flow), Why::RepeatedSyn);
                connection.state = State::Releasing(Releasing { repeated_syn: true, ..releasing });
            }
            SocketState::Absent | SocketState::Open | SocketState::TimeWait => self.release(slot, releasing.undecided, ctx),
        }
    }

    /// The kernel repeats its SYN-ACK while the client's acknowledgement is withheld.
    pub(super) fn absorb_syn_ack(
        &mut self,
        slot: usize,
        syn_ack: &Segment<&mut [u8], ToClientWire>,
        ctx: &mut Context,
        now: Instant,
    ) -> Verdict {
        let connection = &mut self.connections[slot];
        if let Some(undecided) = connection.state.undecided_mut()
            && undecided.initial.frontend_isn == syn_ack.seq()
        {
            undecided.initial.syn_acks.hear(syn_ack.timestamps().map(|(tsval, _)| tsval), now);
        }
        match connection.state.take() {
            State::Releasing(Releasing { undecided, repeated_syn: true }) => self.release_timed(slot, undecided, ctx, now),
            other => connection.state = other,
        }
        ctx.drop(DropReason::SynAckAbsorbed)
    }

    /// Lets go of a connection whose kernel keeps a request, so that it learns the client's round trip without the hold.
    fn release_timed(&mut self, slot: usize, undecided: Box<Undecided>, ctx: &mut Context, now: Instant) {
        let echo = undecided.initial.timestamps.and(undecided.initial.syn_acks.echo(undecided.round_trip, now));
        self.let_go(slot, undecided, echo, ctx);
    }

    /// The kernel did not answer the repeated SYN: it gets what was withheld as it is. If its answer only was not read yet, the
    /// client must not see that either.
    pub(super) fn release_untimed(&mut self, slot: usize, releasing: Releasing, ctx: &mut Context, now: Instant) {
        if releasing.repeated_syn {
            self.late_syn_acks.expect(self.connections[slot].flow, releasing.undecided.initial.frontend_isn, now);
        }
        self.release(slot, releasing.undecided, ctx);
    }

    /// Lets go of a connection: the kernel gets what was withheld, and serves it from now on as if we had never been.
    pub(super) fn release(&mut self, slot: usize, undecided: Box<Undecided>, ctx: &mut Context) {
        self.let_go(slot, undecided, None, ctx);
    }

    /// A guard goes first, so that none can outlive us there.
    fn let_go(&mut self, slot: usize, undecided: Box<Undecided>, echo: Option<Timestamp<Wire>>, ctx: &mut Context) {
        let flow = self.connections[slot].flow;
        self.count_outcome(slot, Some(ctx.node), Outcome::Local, ctx);
        self.tell(slot, Some(ctx.node), Outcome::Local, End::Released, ctx);
        ctx.first_flight_bytes -= undecided.flight.held_bytes();
        ctx.counters.released_local += 1;
        self.holds.leave(flow.frontend);
        self.syns.remove(&flow);
        self.forget(slot, ctx);
        let why = if echo.is_some() { Why::ReleasedWithEcho } else { Why::Released };
        let is_whole = ctx.service_of(flow.frontend).is_some_and(|service| service.is_whole(undecided.flight.bytes(), flow));
        let mut segments = undecided.flight.into_segments();
        let last = if is_whole { segments.pop() } else { None };
        let with_echo = |mut packet: Vec<u8>| {
            if let Some(echo) = echo
                && let Ok(mut segment) = Segment::<_, ToServerWire>::parse(packet.as_mut_slice())
                && let Some((tsval, _)) = segment.timestamps()
            {
                segment.set_timestamps(tsval, echo);
            }
            packet
        };
        for packet in segments {
            ctx.write(with_echo(packet), why);
        }
        if let Some(packet) = last {
            ctx.outputs.push_back(Output::Local(with_echo(packet), why));
        }
    }
}

impl Undecided {
    /// Whether the hold is so long that the kernel must not take it for a part of the round trip.
    fn hold_would_be_timed(&self, now: Instant) -> bool {
        let hold = now.saturating_duration_since(self.entered);
        if self.initial.timestamps.is_some() {
            hold > limits::HOLD_TIMED_MAX
        } else {
            !self.initial.syn_acks.is_repeated() && self.round_trip + hold > limits::UNTIMED_AFTER
        }
    }
}
