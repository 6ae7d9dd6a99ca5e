//! What the kernel says about its sockets, and what follows from it.

use super::*;

impl Utcp {
    pub(super) fn ask(&self, slot: usize, ctx: &mut Context) {
        let connection = &self.connections[slot];
        ctx.outputs.push_back(Output::AskSocket { local: connection.alias, remote: connection.flow.client });
    }

    /// What the kernel said about a socket.
    pub fn handle_socket(&mut self, local: Endpoint, remote: Endpoint, socket: SocketState, ctx: &mut Context, now: Instant) {
        let Some(slot) = self.slot_of_socket((local, remote)) else { return };
        let connection = &mut self.connections[slot];
        match connection.state.take() {
            State::Established(established) => self.judge(slot, established, socket, ctx, now),
            State::Opening(opening) => self.judge_opening(slot, opening, socket, ctx, now),
            State::Prepared(prepared) => self.judge_replay(slot, prepared, socket, ctx),
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

    pub(super) fn judge(
        &mut self,
        slot: usize,
        mut established: Established,
        socket: SocketState,
        ctx: &mut Context,
        now: Instant,
    ) {
        let connection = &mut self.connections[slot];
        let is_over = matches!(socket, SocketState::Absent | SocketState::TimeWait);
        if is_over {
            connection.state = State::Over(established.shifts);
            let ingress = connection.ingress;
            self.finish(slot, ctx, now);
            if let Some(mut syn) = established.syn
                && let Ok(segment) = Segment::parse(syn.as_mut_slice())
                && self.opens_on(&segment, ctx)
                && self.open(ingress, segment, ctx, now) == Verdict::Write
            {
                ctx.write(syn, Why::KeptSyn);
            }
            return;
        }
        if let Some(mut syn) = established.syn.take()
            && let Ok(segment) = Segment::parse(syn.as_mut_slice())
        {
            // A live connection: the kernel answers a SYN with a challenge ACK (RFC 5961, section 4.2).
            let _: Segment<_, ToServerLocal> = established.shifts.to_server::<&mut [u8]>(segment);
            ctx.write(syn, Why::KeptSyn);
        }
        let looks_over = established.course.looks_over();
        established.course.go_on();
        established.asked = if looks_over { (established.asked + 1).min(12) } else { 0 };
        let age = now.saturating_duration_since(connection.since);
        let idle = match established.course.server_has_finished() {
            true => limits::IDLE_CHECK_INTERVAL,
            false => age.clamp(limits::IDLE_CHECK_INTERVAL, limits::IDLE_CHECK_INTERVAL_MAX),
        };
        let again = now + if looks_over { Duration::from_millis(1 << established.asked) } else { idle };
        // A question because of a RST may be due before that.
        let again = if established.asked_at > now { again.min(established.asked_at) } else { again };
        connection.state = State::Established(established);
        self.set_alarm(slot, again, ctx);
    }

    pub(super) fn judge_delivery(&mut self, slot: usize, socket: SocketState, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let State::Delivering(delivering) = &connection.state else { return };
        let is_late = now >= delivering.began + limits::DELIVERY_DEADLINE;
        // A replay to self has nowhere else to go. Under SYN cookies its kernel keeps no request, and refuses in silence
        // while the accept queue is full; a listener that defers takes an empty flight only after its own delay. Both take
        // the connection later, as from a client that repeats.
        let may_wait = connection.ingress == ctx.node
            && !delivering.has_left_syn_received
            && now < delivering.began + limits::DELIVERY_PATIENCE;
        match socket {
            SocketState::Open if delivering.offer.first_flight.is_empty() => self.establish(slot, ctx, now),
            SocketState::Absent | SocketState::SynReceived if is_late && may_wait => self.deliver_again(slot, ctx, now),
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
                self.deliver_again(slot, ctx, now);
            }
            SocketState::Open | SocketState::SynReceived | SocketState::Absent | SocketState::TimeWait => {}
        }
    }

    /// Nobody can say any more whether an application saw the request: the client is reset rather than served twice.
    pub(super) fn cut(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let (shifts, next) = match &connection.state {
            State::Delivering(delivering) => (delivering.learned.shifts, delivering.course.client_acknowledged),
            State::Established(established) => (established.shifts, established.course.client_acknowledged),
            _ => return,
        };
        ctx.counters.resets += 1;
        ctx.write(
            bare::<ToClientWire>(connection.flow.frontend, connection.flow.client, next, Seq::new(0), Flags::RST),
            Why::Reset,
        );
        ctx.outputs.push_back(Output::DestroySocket { local: connection.alias, remote: connection.flow.client });
        connection.state = State::Over(shifts);
        ctx.say(connection.ingress, Message::Delivered { id: connection.id });
        self.finish(slot, ctx, now);
    }

    /// The connection is over: tell its ingress, and linger.
    pub(super) fn finish(&mut self, slot: usize, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        connection.since = now;
        ctx.say(connection.ingress, Message::Closed { id: connection.id });
        ctx.remarks.say(|| "the connection is over".to_owned());
        log::debug!("closed flow={} id={}", connection.flow, connection.id.serial);
        let linger = ctx.policy.limits.linger;
        self.set_alarm(slot, now + linger, ctx);
    }

    /// Takes the request out of the kernel's SYN-RECV: a RST at the client's ISN + 1.
    pub(super) fn purge(&self, slot: usize, ctx: &mut Context) {
        let connection = &self.connections[slot];
        let seq = connection.client_isn.plus(1);
        ctx.write(bare::<ToServerLocal>(connection.flow.client, connection.alias, seq, Seq::new(0), Flags::RST), Why::Purge);
    }

    pub(super) fn purge_and_forget(&mut self, slot: usize, ctx: &mut Context) {
        self.purge(slot, ctx);
        self.forget(slot, ctx);
    }
}
