//! Commit and delivery: the first flight enters the kernel, again and again until it is there.

use super::*;

impl Utcp {
    /// The connection is this node's now. Applied once, answered always.
    pub fn handle_commit(&mut self, from: NodeId, id: HandoffId, more: &[u8], ctx: &mut Context, now: Instant) {
        let slot = self.slot_of_handoff(id).filter(|slot| self.connections[*slot].ingress == from);
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
                let Prepared { mut offer, overtaking, learned, .. } = *prepared;
                offer.first_flight.extend_from_slice(more);
                self.applied.insert((from, id));
                if offer.probe {
                    ctx.counters.probes_accepted += 1;
                } else if from != ctx.node {
                    ctx.counters.handoffs_accepted += 1;
                }
                let course = Course::new(offer.frontend_isn.plus(1));
                connection.since = now;
                connection.state = State::Delivering(Box::new(Delivering {
                    offer,
                    overtaking,
                    learned,
                    acknowledged: 0,
                    began: now,
                    has_left_syn_received: false,
                    course,
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
    pub(super) fn deliver(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        self.write_flight(slot, ctx, now);
        if let State::Delivering(delivering) = &self.connections[slot].state
            && delivering.offer.first_flight.is_empty()
        {
            // Nothing to acknowledge: the socket itself tells whether the handshake is complete.
            self.ask(slot, ctx);
        }
    }

    /// The same, without a question: for what follows an answer.
    pub(super) fn deliver_again(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        ctx.counters.redeliveries += 1;
        self.write_flight(slot, ctx, now);
    }

    /// What the client has added to the flight, alone: a kernel answers what it has already with duplicate acknowledgements,
    /// which reach the client (RFC 2883), and a client takes three of them for a loss (RFC 5681, section 3.2).
    pub(super) fn deliver_more(&self, slot: usize, from: usize, ctx: &mut Context) {
        let connection = &self.connections[slot];
        let State::Delivering(delivering) = &connection.state else { return };
        for packet in delivering.segments(connection.flow.client, connection.alias, from) {
            ctx.write(packet, Why::FirstFlight);
        }
    }

    fn write_flight(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let connection = &self.connections[slot];
        let State::Delivering(delivering) = &connection.state else { return };
        self.deliver_more(slot, delivering.acknowledged, ctx);
        // Ever more slowly. A kernel that has the connection, but no room yet, takes the rest when it has; one that has
        // taken nothing waits for a place in the accept queue, which others want too.
        let slowest =
            if delivering.has_left_syn_received { Duration::from_secs(1) } else { limits::DELIVERY_INTERVAL_OF_NOTHING_TAKEN };
        let again = (now.saturating_duration_since(delivering.began) / 2).clamp(limits::DELIVERY_INTERVAL, slowest);
        self.set_alarm(slot, now + again, ctx);
    }

    pub(super) fn establish(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let delivering = match connection.state.take() {
            State::Delivering(delivering) => delivering,
            other => {
                connection.state = other;
                return;
            }
        };
        connection.since = now;
        connection.state = State::Established(Established {
            shifts: delivering.learned.shifts,
            course: delivering.course,
            syn: None,
            asked: 0,
            asked_at: now,
        });
        ctx.say(connection.ingress, Message::Delivered { id: connection.id });
        if delivering.course.looks_over() {
            self.ask(slot, ctx);
        }
        self.set_alarm(slot, now + limits::IDLE_CHECK_INTERVAL, ctx);
        for mut packet in delivering.overtaking.packets {
            if let Ok(segment) = Segment::parse(packet.as_mut_slice())
                && self.translate_to_kernel(slot, segment, ctx, now) == Verdict::Write
            {
                ctx.write(packet, Why::Overtook);
            }
        }
    }
}
