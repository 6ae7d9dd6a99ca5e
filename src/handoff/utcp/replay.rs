//! Replay: the handshake once more, for this node's kernel alone.

use super::*;

impl Utcp {
    /// A front-end asks whether this node would take a connection: replay its handshake and see what the kernel says.
    pub fn handle_offer(&mut self, from: NodeId, offer: Box<Offer>, ctx: &mut Context, now: Instant) {
        let id = offer.id;
        match self.admit(from, &offer, ctx) {
            Ok(alias) => self.replay(from, alias, offer, ctx, now),
            Err(reason) => {
                ctx.counters.offers_refused += 1;
                self.complain(from, &offer.service, offer.flow.frontend, reason, ctx);
                ctx.say(from, Message::Refuse { id, reason });
            }
        }
    }

    pub(super) fn admit(&mut self, from: NodeId, offer: &Offer, ctx: &mut Context) -> Result<Endpoint, Refusal> {
        if ctx.draining && from != ctx.node {
            return Err(Refusal::Draining);
        }
        // One's own connection is counted already.
        if from != ctx.node && !ctx.has_room() {
            return Err(Refusal::Full);
        }
        let policy = if from == ctx.node { ctx.policy_of(offer.flow.frontend) } else { &ctx.policy };
        let policy = std::rc::Rc::clone(policy);
        let port = Self::server_port(&policy, ctx.node, from, &offer.service, offer.flow.frontend)?;
        if self.slot_of_handoff(offer.id).is_some() || self.applied.contains(&(from, offer.id)) {
            // No honest peer numbers two handoffs alike.
            return Err(Refusal::InUse);
        }
        self.free_alias(&policy, &offer.flow, port, ctx)
    }

    /// An alias whose socket with this client is free.
    pub(super) fn free_alias(
        &mut self,
        policy: &crate::policy::Policy,
        flow: &FlowKey,
        port: u16,
        ctx: &mut Context,
    ) -> Result<Endpoint, Refusal> {
        if let Some(slot) = self.slot_of(flow) {
            match &self.connections[slot].state {
                State::Over(_) | State::Abandoned => {}
                State::Opening(opening) if !opening.is_completed() => self.purge_and_forget(slot, ctx),
                State::Opening(_) => {
                    self.ask(slot, ctx);
                    return Err(Refusal::InUse);
                }
                State::Replaying(_) | State::Prepared(_) => self.purge_and_forget(slot, ctx),
                State::Delivering(_) | State::Returning(_) | State::Established(_) | State::Moving => {
                    self.ask(slot, ctx);
                    return Err(Refusal::InUse);
                }
            }
        }
        self.aliases.entry(flow.frontend).or_insert_with(|| policy.aliases_of(flow.frontend));
        let aliases = &self.aliases[&flow.frontend];
        let client = flow.client;
        let free = aliases
            .iter()
            .map(|address| Endpoint::new(*address, port))
            .find(|alias| self.slot_of_socket((*alias, client)).is_none());
        if let Some(alias) = free {
            return Ok(alias);
        }
        // All in use or lingering: the one that has been over longest. Its kernel accepts a SYN in TIME-WAIT when the
        // client's timestamp or sequence number has moved on (RFC 6191), and otherwise stays silent.
        let (_, slot) = aliases
            .iter()
            .filter_map(|address| self.slot_of_socket((Endpoint::new(*address, port), client)))
            .filter(|slot| self.connections[*slot].state.is_over())
            .map(|slot| (self.connections[slot].since, slot))
            .min()
            .ok_or(Refusal::Full)?;
        let alias = self.connections[slot].alias;
        self.forget(slot, ctx);
        Ok(alias)
    }

    pub(super) fn replay(&mut self, from: NodeId, alias: Endpoint, offer: Box<Offer>, ctx: &mut Context, now: Instant) {
        let (id, flow, client_isn) = (offer.id, offer.flow, offer.client_isn);
        ctx.write(replayed_syn(&offer, alias), Why::Replay);
        // A peer has another candidate to try; this node's own kernel has not, so it is asked again as a client would.
        let patience = if from == ctx.node { limits::DELIVERY_PATIENCE } else { limits::REPLAY_DEADLINE };
        let deadline = now + patience;
        let state = State::Replaying(Box::new(Replaying { offer, deadline, overtaking: Overtaking::default() }));
        let slot = self.insert(id, flow, from, alias, client_isn, state, ctx, now);
        self.set_alarm(slot, now + limits::REPLAY_DEADLINE / 2, ctx);
    }

    /// The kernel's answer to the replayed SYN.
    pub(super) fn learn(&mut self, slot: usize, syn_ack: &Segment<&mut [u8], ToClientLocal>, ctx: &mut Context, now: Instant) {
        let connection = &mut self.connections[slot];
        let replaying = match connection.state.take() {
            State::Replaying(replaying) => replaying,
            other => {
                connection.state = other;
                return;
            }
        };
        let Replaying { offer, overtaking, .. } = *replaying;
        if let Some(setting) = broken_promise(&offer, syn_ack) {
            log::debug!("promise not kept flow={} setting=net.ipv4.{setting}", connection.flow);
            return self.refuse(slot, Refusal::Promise, ctx);
        }
        let learned = Learned::of(&offer, connection.alias, syn_ack);
        let accept = Accept {
            id: connection.id,
            backend_isn: syn_ack.seq().raw(),
            window_scale: syn_ack.window_scale(),
            tsval: learned.echo.map(|tsval| tsval.raw()),
        };
        connection.since = now;
        // A SYN cookie (RFC 4987, section 3.6) looks the same but leaves no request behind: nobody could tell then whether a
        // connection can still be returned, and what the cookie keeps in its timestamp must be echoed as it is.
        connection.state = State::Prepared(Box::new(Prepared { offer, overtaking, learned, accept: Some(accept) }));
        self.ask(slot, ctx);
        self.set_alarm(slot, now + limits::PREPARED_LIFETIME, ctx);
    }

    /// The kernel said what it keeps of a replayed handshake.
    pub(super) fn judge_replay(&mut self, slot: usize, mut prepared: Box<Prepared>, socket: SocketState, ctx: &mut Context) {
        let connection = &mut self.connections[slot];
        let accept = prepared.accept.take();
        if accept.is_some() && socket == SocketState::SynReceived {
            prepared.learned.echo = untimed_echo(&prepared.offer, prepared.learned.echo);
            ctx.write(replayed_syn(&prepared.offer, connection.alias), Why::RepeatedSyn);
        }
        connection.state = State::Prepared(prepared);
        let Some(accept) = accept else { return };
        match socket {
            SocketState::SynReceived => ctx.say(connection.ingress, Message::Accept(accept)),
            // A replay to self has nowhere else to go, and cannot be returned.
            SocketState::Absent if connection.ingress == ctx.node => ctx.say(ctx.node, Message::Accept(accept)),
            // Cookies are what a full backlog makes.
            SocketState::Absent => self.refuse(slot, Refusal::BacklogFull, ctx),
            SocketState::Open | SocketState::TimeWait => self.refuse(slot, Refusal::InUse, ctx),
        }
    }

    pub(super) fn refuse(&mut self, slot: usize, reason: Refusal, ctx: &mut Context) {
        let connection = &self.connections[slot];
        ctx.counters.offers_refused += 1;
        ctx.say(connection.ingress, Message::Refuse { id: connection.id, reason });
        ctx.remark(connection.ingress, |name| format!("refused to {name}: {reason:?}"));
        log::debug!("refused flow={} id={} reason={reason:?}", connection.flow, connection.id.serial);
        if reason == Refusal::ApplicationDown { self.forget(slot, ctx) } else { self.purge_and_forget(slot, ctx) }
    }

    /// The front-end withdraws its offer.
    pub fn handle_abort(&mut self, from: NodeId, id: HandoffId, ctx: &mut Context) {
        let Some(slot) = self.slot_of_handoff(id) else { return };
        let connection = &self.connections[slot];
        if connection.ingress == from && matches!(connection.state, State::Replaying(_) | State::Prepared(_)) {
            self.purge_and_forget(slot, ctx);
        }
    }
}

/// What the segment that completes a replayed handshake echoes, once the SYN was repeated.
///
/// The handshake takes some 100 us, whatever the client's round trip is. A kernel that learned that would probe for losses and
/// retransmit long before the client's first acknowledgement can be there, and one that models the path by its least round
/// trip (BBR) would send at a crawl. But no handshake with a repeated SYN-ACK is timed (Karn's algorithm, RFC 6298, section 3)
/// other than by the echo, and an echo of 0 is none to Linux. So it has no sample until the client acknowledges its first
/// data, and that one is true. An echo that is timed says at least a millisecond, which is right for a client nearby.
fn untimed_echo(offer: &Offer, syn_ack: Option<Timestamp<Local>>) -> Option<Timestamp<Local>> {
    syn_ack.map(|tsval| if offer.round_trip > limits::NEAR_ROUND_TRIP_MAX { Timestamp::new(0) } else { tsval })
}
