//! Packets: the handshake as it is watched, and the client's segments while nobody serves it.

use super::*;
use crate::rewrite::options;

impl Btcp {
    /// A client's packet to one of this node's front-end addresses.
    pub fn handle_client(&mut self, segment: Segment<&mut [u8], ToServerWire>, ctx: &mut Context, now: Instant) -> Verdict {
        let flow = FlowKey { client: segment.source(), frontend: segment.destination() };
        let Some(slot) = self.slot_of(&flow) else {
            if self.orphans.contains_key(&flow) {
                return ctx.drop(DropReason::Orphan);
            }
            return self.handle_unknown(flow, segment, ctx, now);
        };
        // With RST or FIN as well it begins none, and ends nothing that is remembered.
        let is_syn = opening::begins(&segment);
        let connection = &mut self.connections[slot];
        match &mut connection.state {
            // What is kept is plain, and counts as the segments the client sent.
            State::Handshake(_) | State::Undecided(_) | State::Offered(_) | State::Securing(_) | State::Releasing(_)
                if segment.is_super_segment() =>
            {
                Verdict::Cut
            }
            // What BTCP itself acts on it must judge itself; everything else is judged by the owner's kernel.
            State::Handshake(_) | State::Undecided(_) | State::Offered(_) | State::Securing(_) | State::Releasing(_)
                if !segment.checksums_are_right() =>
            {
                ctx.drop(DropReason::Checksum)
            }
            // It would end what is remembered of a connection that is over, and lift its guard.
            State::HandedOff(_) | State::Lingering(_) | State::Lost(_) if is_syn && !segment.checksums_are_right() => {
                ctx.drop(DropReason::Checksum)
            }
            State::Handshake(_) => self.in_handshake(slot, segment, ctx, now),
            State::Undecided(_) | State::Offered(_) | State::Securing(_) | State::Releasing(_) => {
                self.while_undecided(slot, &segment, ctx, now)
            }
            State::HandedOff(handed_off) => {
                if is_syn {
                    handed_off.kept_syn = Some(Box::new((now, segment.completed())));
                } else if segment.checksums_are_right() {
                    // What the owner's kernel will not believe says nothing here either: a TSval that was never the client's
                    // would go into the next offer, should the owner return the connection.
                    if !segment.flags().contains(Flags::RST) {
                        // The client goes on with this connection: that SYN was not its own.
                        handed_off.kept_syn = None;
                    }
                    let client = handed_off.client.get_or_insert_with(|| ClientView::seen(&segment));
                    let (next, acknowledged) = (client.next, client.acknowledged);
                    client.update(&segment);
                    if let Some(story) = &mut connection.story {
                        let flags = segment.flags();
                        story.follow(
                            client.next.since(&next).unsigned_abs(),
                            client.acknowledged.since(&acknowledged).unsigned_abs(),
                            flags.contains(Flags::FIN),
                            flags.contains(Flags::RST),
                            now,
                        );
                    }
                }
                // Until the owner's kernel has the first flight it may return the connection: what the client says is needed.
                if !is_syn && handed_off.pending.is_none() && handed_off.to != ctx.node && ctx.uses_link(handed_off.to, &flow) {
                    if !std::mem::replace(&mut handed_off.is_linked, true) {
                        ctx.counters.linked += 1;
                        if let Some(story) = &mut connection.story {
                            story.lose_sight();
                        }
                    }
                    return Verdict::ForwardOnLink(handed_off.to);
                }
                Verdict::Forward(handed_off.to)
            }
            State::Asking(_) if is_syn => {
                self.stop_asking(slot, ctx);
                self.handle_unknown(flow, segment, ctx, now)
            }
            State::Asking(_) if segment.is_super_segment() => Verdict::Cut,
            State::Asking(_) => self.keep_while_asking(slot, &segment, ctx),
            State::Lingering(_) | State::Lost(_) if is_syn => {
                let syn = segment.completed();
                self.begin_anew(slot, syn, ctx, now);
                Verdict::Consumed
            }
            State::Lingering(owner) => Verdict::Forward(*owner),
            State::Lost(lost) => {
                // It has answered; what follows is asked for by what it sends.
                lost.questions_left = 0;
                if !segment.flags().intersects(Flags::RST) {
                    ctx.write(reset(&flow, segment.ack()), Why::Reset);
                }
                ctx.drop(DropReason::OwnerLost)
            }
            State::Moving => ctx.drop(DropReason::UnexpectedFromKernel),
        }
    }

    /// A client uses the ends of a connection that is over again. First the guard goes, then the SYN: were this process to
    /// die in between, the other way round, the guard would cut a connection that the local kernel serves.
    pub(super) fn begin_anew(&mut self, slot: usize, mut syn: Vec<u8>, ctx: &mut Context, now: Instant) {
        let flow = self.connections[slot].flow;
        self.forget(slot, ctx);
        let Ok(segment) = Segment::parse(syn.as_mut_slice()) else { return };
        match self.handle_unknown(flow, segment, ctx, now) {
            Verdict::Write | Verdict::Local => ctx.write(syn, Why::KeptSyn),
            Verdict::Forward(to) => ctx.forward(to, syn, Why::KeptSyn),
            Verdict::ForwardOnLink(_) | Verdict::Cut | Verdict::Consumed | Verdict::Drop(_) => {}
        }
    }

    /// A packet of no connection we follow: a SYN, or one of a connection that the local server serves.
    pub(super) fn handle_unknown(
        &mut self,
        flow: FlowKey,
        mut syn: Segment<&mut [u8], ToServerWire>,
        ctx: &mut Context,
        now: Instant,
    ) -> Verdict {
        if ctx.service_of(flow.frontend).is_some_and(|service| service.decides_on_syn()) {
            return self.handle_unopened(flow, syn, ctx, now);
        }
        if !opening::begins(&syn) {
            return self.pass_to_local(&flow, &syn, ctx);
        }
        if !syn.checksums_are_right() {
            return Verdict::Write;
        }
        ctx.counters.syns += 1;
        let is_retired = ctx.retired.contains_key(&flow.frontend);
        if ctx.draining || is_retired || OPTIONS_SIGNED.iter().any(|kind| syn.has_option(*kind)) {
            return Verdict::Write;
        }
        for kind in OPTIONS_TAKEN_OUT {
            syn.blank_option(kind);
        }
        // Fast Open as it began: Linux clients ask so when the RFC's option is not answered, and Linux servers open a connection
        // for such a cookie, even without data: the application would have it before anything is decided.
        syn.blank_options(options::kind::EXPERIMENT, &options::FAST_OPEN_EXPERIMENT);
        if syn.accurate_ecn() {
            syn.clear_accurate_ecn();
        }
        ctx.counters.syns_evicted += self.syns.insert(flow, SynRecord::of(&syn, now));
        if syn.payload().is_empty() {
            return Verdict::Write;
        }
        // Data on a SYN (RFC 7413) cannot be handed off; unacknowledged, the client sends it again.
        ctx.write(without_payload(&syn), Why::WithoutData);
        Verdict::Consumed
    }

    /// A packet of a connection that nothing is known of here. It is for the local kernel to judge, and so is all that follows,
    /// unless the client is opening a connection with the same ends just now: then the next thing that comes may be the new one's.
    pub(super) fn pass_to_local(
        &mut self,
        flow: &FlowKey,
        segment: &Segment<&mut [u8], ToServerWire>,
        ctx: &mut Context,
    ) -> Verdict {
        ctx.counters.local_packets += 1;
        let flags = segment.flags();
        let goes_on = flags.contains(Flags::ACK) && !flags.intersects(Flags::SYN.with(Flags::FIN).with(Flags::RST));
        if goes_on && !self.syns.contains(flow) { Verdict::Local } else { Verdict::Write }
    }

    pub(super) fn in_handshake(
        &mut self,
        slot: usize,
        segment: Segment<&mut [u8], ToServerWire>,
        ctx: &mut Context,
        now: Instant,
    ) -> Verdict {
        let connection = &mut self.connections[slot];
        let State::Handshake(initial) = &connection.state else { return ctx.drop(DropReason::UnexpectedFromKernel) };
        let initial = **initial;
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
                return ctx.drop(DropReason::ResetNotExact);
            }
            self.forget(slot, ctx);
            return Verdict::Write;
        }
        if segment.seq().is_before(&first) && first.is_before(&segment.seq_end()) {
            // The kernel would trim it, take the rest and complete the handshake behind our back.
            return ctx.drop(DropReason::OutOfWindow);
        }
        if !flags.contains(Flags::ACK) || segment.ack() != initial.frontend_isn.plus(1) || segment.seq().is_before(&first) {
            // The kernel answers this as it should; its half stays as it is.
            return Verdict::Write;
        }
        connection.state = State::Undecided(Box::new(Undecided {
            initial,
            client: ClientView::new(&initial),
            kernel: KernelHalf::SynReceived,
            flight: FirstFlight::new(initial.client_isn),
            ts_recent: initial.timestamps.map_or(Timestamp::new(0), |(syn, _)| syn),
            round_trip: initial.syn_acks.round_trip(segment.timestamps().map(|(_, tsecr)| tsecr), now),
            entered: now,
            first_byte: None,
            looks: Looks::default(),
            awaits_server: None,
            acknowledge_when_parked: false,
            challenged: None,
        }));
        connection.since = now;
        connection.story = ctx.chronicle.begin(now);
        self.holds.enter(flow.frontend, slot, connection.serial);
        let verdict = self.while_undecided(slot, &segment, ctx, now);
        self.set_alarm_of_undecided(slot, ctx, now);
        self.park_excess(flow.frontend, ctx);
        verdict
    }

    /// A client's segment while nobody serves the connection: BTCP stands in for the kernel (RFC 9293, section 3.10.7.4).
    pub(super) fn while_undecided(
        &mut self,
        slot: usize,
        segment: &Segment<&mut [u8], ToServerWire>,
        ctx: &mut Context,
        now: Instant,
    ) -> Verdict {
        let connection = &mut self.connections[slot];
        let flow = connection.flow;
        let Some(undecided) = connection.state.undecided_mut() else { return ctx.drop(DropReason::UnexpectedFromKernel) };
        let flags = segment.flags();
        // First, check RST (RFC 5961, section 3.2). A client that was sent a challenge resets at what that acknowledged.
        if flags.contains(Flags::RST) {
            let seq = segment.seq();
            if undecided.flight.is_exact_reset(seq) {
                ctx.counters.reset_by_client += 1;
                self.abandon(slot, ctx);
                return Verdict::Consumed;
            }
            let ahead = seq.since(&undecided.flight.acknowledged());
            if (1..=i32::from(u16::MAX)).contains(&ahead) {
                undecided.challenge(&flow, ctx, now);
            }
            return ctx.drop(DropReason::ResetNotExact);
        }
        // Then SYN (RFC 5961, section 4.2).
        if flags.contains(Flags::SYN) {
            undecided.challenge(&flow, ctx, now);
            return ctx.drop(DropReason::SynOnConnection);
        }
        if !flags.contains(Flags::ACK) {
            return ctx.drop(DropReason::BadAcknowledgement);
        }
        let acknowledged = segment.ack().since(&undecided.initial.frontend_isn.plus(1));
        if acknowledged > 0 && undecided.kernel == KernelHalf::SynReceived {
            // Nobody who is not on the path shall decide here: what it acknowledges must fit the window its client gave, and
            // lie where the client may send (RFC 5961, section 5). If it is the client's all the same, the kernel is asked
            // before its half is purged.
            let ahead = segment.seq().since(&undecided.flight.acknowledged());
            let is_in_window = (-1..=limits::OCTETS_AHEAD_MAX).contains(&ahead);
            if !is_in_window || i64::from(acknowledged) > undecided.window_of_client() {
                return ctx.drop(DropReason::BadAcknowledgement);
            }
            // The client has heard from the local server: something reached the kernel without us. It is the server's.
            self.take_back(slot, Fallback::KernelWentOn, ctx);
            ctx.write(segment.completed(), Why::Released);
            return Verdict::Consumed;
        }
        if acknowledged != 0 {
            return ctx.drop(DropReason::BadAcknowledgement);
        }
        if undecided.kernel == KernelHalf::SynReceived && undecided.initial.syn_acks.are_surpassed_by(segment) {
            // It echoes what the local server said after its SYN-ACKs, while this process hung, for example.
            self.take_back(slot, Fallback::KernelWentOn, ctx);
            ctx.write(segment.completed(), Why::Released);
            return Verdict::Consumed;
        }
        undecided.client.update(segment);
        undecided.note_timestamp(segment);
        let inspect_bytes_max = ctx.service_of(flow.frontend).map_or(0, |service| service.inspect_bytes_max);
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
            Arrival::BeyondHole => {
                // As a kernel would at once (RFC 5681, section 3.2), unless it would acknowledge something as well.
                if !undecided.flight.owes_acknowledgement() {
                    ctx.write(undecided.acknowledgement(&flow), Why::Hole);
                }
                Verdict::Consumed
            }
            Arrival::Old => {
                if undecided.kernel == KernelHalf::Purged && segment.seq().is_before(&undecided.flight.next()) {
                    // Parked, there is no kernel to acknowledge what is sent again, or to answer a keep-alive probe.
                    undecided.flight.acknowledge_all();
                    ctx.write(undecided.acknowledgement(&flow), Why::Repeated);
                } else if segment.seq().is_before(&undecided.flight.acknowledged()) {
                    // A keep-alive probe (RFC 1122, section 4.2.3.6), which a kernel in SYN-RECV would not get to see.
                    ctx.write(undecided.acknowledgement(&flow), Why::Repeated);
                }
                Verdict::Consumed
            }
            Arrival::Full => {
                self.decide_by_default(slot, ctx, now);
                ctx.drop(DropReason::HeldFull)
            }
            Arrival::OutOfWindow => ctx.drop(DropReason::OutOfWindow),
        }
    }

    /// A SYN-ACK of the local kernel, on its way to a client.
    pub fn handle_syn_ack(&mut self, mut syn_ack: Segment<&mut [u8], ToClientWire>, ctx: &mut Context, now: Instant) -> Verdict {
        let flow = FlowKey { client: syn_ack.destination(), frontend: syn_ack.source() };
        if let Some(slot) = self.slot_of(&flow) {
            match &mut self.connections[slot].state {
                State::Handshake(initial) if initial.frontend_isn == syn_ack.seq() => {
                    initial.hear_again(&syn_ack, now);
                    syn_ack.clamp_mss(ctx.mss_max_of(&flow));
                    return Verdict::Write;
                }
                State::Handshake(_) => self.forget(slot, ctx),
                State::Undecided(_) | State::Offered(_) | State::Securing(_) | State::Releasing(_) => {
                    return self.absorb_syn_ack(slot, &syn_ack, ctx, now);
                }
                State::Asking(_) => self.stop_asking(slot, ctx),
                State::HandedOff(_) | State::Lingering(_) | State::Lost(_) | State::Moving => {
                    return ctx.drop(DropReason::UnexpectedFromKernel);
                }
            }
        }
        if self.late_syn_acks.take(&flow, syn_ack.seq(), now) {
            return ctx.drop(DropReason::SynAckAbsorbed);
        }
        if ctx.policy.is_shared_frontend(flow.frontend) {
            if self.known.peek(&flow).is_some_and(|owner| owner != ctx.node) {
                // Of a SYN that reached this node as well. The client took another's answer, and a client that reads the
                // timestamp of this one would discard all that its server says (PAWS, RFC 7323, section 5).
                return ctx.drop(DropReason::UnexpectedFromKernel);
            }
            self.note_shared_syn_ack(flow, &mut syn_ack, ctx, now);
        }
        if ctx.draining {
            return Verdict::Write;
        }
        let Some(syn) = self.syns.take(&flow, &syn_ack) else { return Verdict::Write };
        if !ctx.has_room() {
            ctx.counters.fall_back(Fallback::Full);
            return Verdict::Write;
        }
        let state = State::Handshake(Box::new(InitialState::learn(&syn, &syn_ack, &flow, now)));
        let slot = self.insert(flow, state, Guard::None, ctx, now);
        self.set_alarm(slot, now + crate::limits::HANDSHAKE_LIFETIME, ctx);
        ctx.counters.connections += 1;
        syn_ack.clamp_mss(ctx.mss_max_of(&flow));
        Verdict::Write
    }

    /// Where an ICMP error about this connection has to go; None if the local kernel serves it.
    pub fn owner_of(&self, flow: &FlowKey) -> Option<NodeId> {
        let Some(slot) = self.slot_of(flow) else {
            return self.openings.get(flow).map(|opening| opening.to).or_else(|| self.known.peek(flow));
        };
        match &self.connections[slot].state {
            State::HandedOff(handed_off) => Some(handed_off.to),
            State::Lingering(owner) => Some(*owner),
            State::Handshake(_)
            | State::Undecided(_)
            | State::Offered(_)
            | State::Securing(_)
            | State::Releasing(_)
            | State::Asking(_)
            | State::Lost(_)
            | State::Moving => None,
        }
    }
}
