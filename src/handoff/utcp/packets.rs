//! Packets: translation in both directions, and the signs of an end.

use super::*;

impl Utcp {
    /// A packet that this node's kernel sent from an alias.
    pub fn handle_kernel(&mut self, segment: Segment<&mut [u8], ToClientLocal>, ctx: &mut Context, now: Instant) -> Verdict {
        let socket = (segment.source(), segment.destination());
        let Some(slot) = self.slot_of_socket(socket) else { return ctx.drop(DropReason::NoConnection) };
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
                ctx.drop(DropReason::UnexpectedFromKernel)
            }
            State::Prepared(_) | State::Returning(_) => ctx.drop(DropReason::SynAckAbsorbed),
            // Also of a kernel whose socket vanished just before a client's SYN for it came: nobody has decided that one.
            State::Delivering(_) | State::Established(_) | State::Over(_) if is_syn_ack => ctx.drop(DropReason::SynAckAbsorbed),
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
                    return self.translate_to_client(slot, segment, ctx);
                }
                let segment = delivering.learned.shifts.to_client(segment);
                delivering.course.hear_server(&segment);
                Verdict::Write
            }
            State::Opening(_) => self.kernel_opens(slot, segment, ctx, now),
            State::Established(_) => self.translate_to_client(slot, segment, ctx),
            State::Over(shifts) => {
                let _: Segment<_, ToClientWire> = shifts.to_client(segment);
                Verdict::Write
            }
            State::Abandoned => ctx.drop(DropReason::NoConnection),
            State::Moving => ctx.drop(DropReason::UnexpectedFromKernel),
        }
    }

    /// Translates towards the client, and notes how the connection ends.
    pub(super) fn translate_to_client(
        &mut self,
        slot: usize,
        segment: Segment<&mut [u8], ToClientLocal>,
        ctx: &mut Context,
    ) -> Verdict {
        let connection = &mut self.connections[slot];
        let State::Established(established) = &mut connection.state else { return ctx.drop(DropReason::UnexpectedFromKernel) };
        let segment = established.shifts.to_client(segment);
        established.course.hear_server(&segment);
        if established.course.looks_over() {
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
        let Some(slot) = self.slot_of(&flow) else {
            if self.opens_on(&segment, ctx) {
                return self.open(from, segment, ctx, now);
            }
            if segment.flags().contains(Flags::SYN) && from != ctx.node {
                // Whoever forwarded it has another cluster file. Others may take it, and the client must not wait for ever.
                ctx.say(from, Message::SynRefused { flow, isn: segment.seq(), reason: Refusal::UnknownFrontend });
                return ctx.drop(DropReason::NoConnection);
            }
            // The other's file may say that the address is shared where this node's does not any more.
            let may_be_shared = ctx.policy.service_of(flow.frontend).is_none_or(|service| service.decides_on_syn());
            if from != ctx.node && may_be_shared {
                ctx.say(from, Message::Owner { flow, owns: false });
            }
            return ctx.drop(DropReason::NoConnection);
        };
        let connection = &mut self.connections[slot];
        if connection.ingress != from && !may_arrive_at(from, flow.frontend, ctx) {
            return ctx.drop(DropReason::WrongIngress);
        }
        if connection.state.is_over() && self.opens_on(&segment, ctx) {
            // Whoever forwarded it may not know yet that the connection before is over; nobody else was asked.
            return self.open(from, segment, ctx, now);
        }
        let connection = &mut self.connections[slot];
        let keeps = match &connection.state {
            State::Replaying(_) | State::Prepared(_) => true,
            State::Delivering(delivering) => !delivering.has_left_syn_received,
            State::Opening(_)
            | State::Established(_)
            | State::Over(_)
            | State::Returning(_)
            | State::Abandoned
            | State::Moving => false,
        };
        if keeps && segment.is_super_segment() {
            return Verdict::Cut;
        }
        let overtaking = match &mut connection.state {
            State::Replaying(replaying) => &mut replaying.overtaking,
            State::Prepared(prepared) => &mut prepared.overtaking,
            State::Delivering(delivering) if delivering.has_left_syn_received && !segment.flags().contains(Flags::SYN) => {
                // The kernel can judge it. Its acknowledgements free what the kernel needs to take the rest of the flight.
                delivering.course.hear_client(&segment);
                let _: Segment<_, ToServerLocal> = delivering.learned.shifts.to_server(segment);
                return Verdict::Write;
            }
            State::Delivering(delivering) if delivering.takes_as_flight(connection.client_isn, &segment) => {
                // More of the flight: a listener that defers (TCP_DEFER_ACCEPT) completes the handshake only on data.
                let before = delivering.offer.first_flight.len();
                delivering.offer.first_flight.extend_from_slice(segment.payload());
                self.deliver_more(slot, before, ctx);
                return Verdict::Consumed;
            }
            State::Delivering(delivering) => &mut delivering.overtaking,
            State::Opening(_) => return self.client_opens(slot, from, segment, ctx, now),
            State::Established(_) | State::Over(_) => return self.translate_to_kernel(slot, segment, ctx, now),
            State::Abandoned => return ctx.drop(DropReason::NoConnection),
            State::Returning(_) | State::Moving => return ctx.drop(DropReason::UnexpectedFromKernel),
        };
        if overtaking.keep(segment.completed()) { Verdict::Consumed } else { ctx.drop(DropReason::HeldFull) }
    }

    /// Translates towards the kernel, and notes how the connection ends.
    pub(super) fn translate_to_kernel(
        &mut self,
        slot: usize,
        segment: Segment<&mut [u8], ToServerWire>,
        ctx: &mut Context,
        now: Instant,
    ) -> Verdict {
        let connection = &mut self.connections[slot];
        let flags = segment.flags();
        let is_syn = flags.contains(Flags::SYN) && !flags.contains(Flags::ACK);
        let established = match &mut connection.state {
            State::Established(established) => established,
            State::Over(_) if is_syn => {
                // The front-end does not know yet that this connection is over; told again, it begins the next one.
                ctx.say(connection.ingress, Message::Closed { id: connection.id });
                return ctx.drop(DropReason::SynKept);
            }
            State::Over(shifts) => {
                let _: Segment<_, ToServerLocal> = shifts.to_server(segment);
                return Verdict::Write;
            }
            _ => return ctx.drop(DropReason::UnexpectedFromKernel),
        };
        if is_syn {
            // In TIME-WAIT the kernel would take it as a new connection, which nobody decided. So it is asked first.
            established.syn = Some(segment.completed());
            self.ask(slot, ctx);
            return ctx.drop(DropReason::SynKept);
        }
        established.course.hear_client(&segment);
        let is_reset = flags.contains(Flags::RST);
        let looks_over = established.course.looks_over();
        let _: Segment<_, ToServerLocal> = established.shifts.to_server(segment);
        if looks_over {
            self.ask(slot, ctx);
        } else if is_reset && established.asked_at <= now {
            // Whether it was exact is the kernel's to judge; it is asked soon, but not once for every forged one. A client
            // that is gone answers everything still on its way to it with one: they must not put the question off.
            let at = (established.asked_at + limits::RESET_QUESTIONS_INTERVAL).max(now + Duration::from_millis(1));
            established.asked_at = at;
            self.set_alarm(slot, at, ctx);
        }
        Verdict::Write
    }

    /// Whether this segment begins a connection that nobody offers: the front-end's choice falls on the SYN.
    pub(super) fn opens_on<B: AsRef<[u8]>>(&self, segment: &Segment<B, ToServerWire>, ctx: &Context) -> bool {
        let flags = segment.flags();
        flags.contains(Flags::SYN)
            && !flags.intersects(Flags::ACK.with(Flags::RST).with(Flags::FIN))
            && ctx.policy.service_of(segment.destination()).is_some_and(|service| service.decides_on_syn())
    }

    /// The shifts of a connection that this kernel serves, for translating an ICMP error about it.
    pub fn shifts_of(&self, flow: &FlowKey) -> Option<Shifts> {
        match &self.connections[self.slot_of(flow)?].state {
            State::Delivering(delivering) => Some(delivering.learned.shifts),
            State::Opening(opening) => Some(opening.shifts),
            State::Established(established) => Some(established.shifts),
            State::Over(shifts) => Some(*shifts),
            State::Replaying(_) | State::Prepared(_) | State::Returning(_) | State::Abandoned | State::Moving => None,
        }
    }
}

/// Whether packets for this address may come from this node, whoever forwarded the connection's SYN.
fn may_arrive_at(from: NodeId, frontend: Endpoint, ctx: &Context) -> bool {
    let has_it = |service: &crate::policy::Service| service.frontends.contains(&(from, frontend));
    ctx.policy.is_shared_frontend(frontend) && ctx.policy.service_of(frontend).is_some_and(has_it)
}
