//! Front-end addresses that several nodes have: a connection's packets may arrive at a node that has not seen its SYN.
//!
//! Before such a packet is given to this node's kernel, which would answer it with a RST, the owner is looked for: this node's
//! kernel is asked, then whoever the policy would choose everywhere alike is taken for it, and if that is nobody (or the
//! wrong one) all peers are asked. What is found is remembered for a while; it is a cache, and every wrong entry is denied by
//! the node it names.
//!
//! A packet goes over one hop at most: a node that is taken for the owner serves it or denies it.

use super::*;
use crate::policy::Policy;

/// A connection whose owner is being looked for.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    packets: Vec<Vec<u8>>,
    bytes: usize,
    /// What the first of them acknowledges: a node that has only answered the SYN knows by it whether it was meant.
    ack: Option<Seq<Wire>>,
    /// What the local kernel, which no longer has it, would say to the client: if nobody else has it either.
    reset: Option<Vec<u8>>,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    /// The kernel is asked; the packets came from this peer, which takes this node for the owner.
    Kernel { for_peer: Option<NodeId> },
    /// These peers have not answered.
    Peers(BTreeSet<NodeId>),
}

impl Btcp {
    /// Whether anything is known here of a connection to a shared address.
    pub fn knows(&self, flow: &FlowKey) -> bool {
        let has_begun = self.slot_of(flow).is_some() || self.openings.get(flow).is_some();
        has_begun || self.known.peek(flow).is_some() || self.known.answered.get(flow).is_some()
    }

    /// A packet of a connection that this node has not seen begin.
    pub(super) fn find_owner(
        &mut self,
        flow: FlowKey,
        segment: &Segment<&mut [u8], ToServerWire>,
        ctx: &mut Context,
        now: Instant,
    ) -> Verdict {
        match self.known.owner(&flow) {
            // Not for the kernel to keep: when this connection is over, one with the same ends may be another node's.
            Some(owner) if owner == ctx.node => Verdict::Write,
            Some(owner) if !is_gone(owner, ctx, now) => Verdict::Forward(owner),
            Some(_) if segment.is_super_segment() => Verdict::Cut,
            Some(_) => {
                // Gone for good, and its connections with it.
                self.known.remove(&flow);
                self.ask_kernel(flow, segment, None, ctx, now)
            }
            None if self.known.is_answer(&flow, acknowledged(segment)) => {
                self.known.insert(flow, ctx.node);
                Verdict::Write
            }
            None if segment.is_super_segment() => Verdict::Cut,
            None => self.ask_kernel(flow, segment, None, ctx, now),
        }
    }

    /// A packet that a peer forwarded because it takes this node for the owner, and that no replay or forwarded SYN explains.
    pub fn handle_relayed(
        &mut self,
        from: NodeId,
        segment: &Segment<&mut [u8], ToServerWire>,
        ctx: &mut Context,
        now: Instant,
    ) -> Verdict {
        let flow = FlowKey { client: segment.source(), frontend: segment.destination() };
        // What is guarded here is another node's, whatever this kernel once answered on the same ends.
        let is_given_away = self.slot_of(&flow).is_some_and(|slot| matches!(self.connections[slot].state, State::HandedOff(_)));
        if is_given_away {
            ctx.say(from, Message::Owner { flow, owns: false });
            return ctx.drop(DropReason::NoConnection);
        }
        if self.known.owner(&flow) == Some(ctx.node) {
            return Verdict::Write;
        }
        if self.known.is_answer(&flow, acknowledged(segment)) {
            self.known.insert(flow, ctx.node);
            return Verdict::Write;
        }
        if let Some(slot) = self.slot_of(&flow) {
            if matches!(self.connections[slot].state, State::Asking(_)) {
                return self.keep_while_asking(slot, segment, ctx);
            }
            ctx.say(from, Message::Owner { flow, owns: false });
            return ctx.drop(DropReason::NoConnection);
        }
        self.ask_kernel(flow, segment, Some(from), ctx, now)
    }

    fn ask_kernel(
        &mut self,
        flow: FlowKey,
        segment: &Segment<&mut [u8], ToServerWire>,
        for_peer: Option<NodeId>,
        ctx: &mut Context,
        now: Instant,
    ) -> Verdict {
        let is_handshake = self.known.answered.get(&flow).is_some() || self.openings.get(&flow).is_some();
        let may_ask = match for_peer {
            Some(peer) => self.known.may_be_asked(peer),
            None => self.known.may_ask(is_handshake),
        };
        if !may_ask || !ctx.has_room() {
            return ctx.drop(DropReason::OwnerNotAsked);
        }
        let ack = acknowledged(segment);
        let asking = Asking { packets: Vec::new(), bytes: 0, ack, reset: None, stage: Stage::Kernel { for_peer } };
        let slot = self.insert(flow, State::Asking(asking), Guard::None, ctx, now);
        ctx.outputs.push_back(Output::AskSocket { local: flow.frontend, remote: flow.client });
        self.keep_while_asking(slot, segment, ctx)
    }

    pub(super) fn keep_while_asking(
        &mut self,
        slot: usize,
        segment: &Segment<&mut [u8], ToServerWire>,
        ctx: &mut Context,
    ) -> Verdict {
        let State::Asking(asking) = &mut self.connections[slot].state else { return ctx.drop(DropReason::UnexpectedFromKernel) };
        let packet = segment.completed();
        let bytes = asking.bytes.saturating_add(packet.len());
        if asking.packets.len() >= limits::OVERTAKING_SEGMENTS_MAX || bytes > limits::OVERTAKING_BYTES_MAX {
            return ctx.drop(DropReason::HeldFull);
        }
        asking.bytes = bytes;
        asking.packets.push(packet);
        Verdict::Consumed
    }

    /// The kernel said what it has of a connection whose owner is looked for.
    pub(super) fn judge_asking(&mut self, slot: usize, asking: Asking, socket: SocketState, ctx: &mut Context, now: Instant) {
        let flow = self.connections[slot].flow;
        if self.known.kernel_serves(&flow, socket, asking.ack) {
            return self.found(slot, asking, ctx.node, ctx);
        }
        if let Stage::Kernel { for_peer: Some(peer) } = asking.stage {
            ctx.say(peer, Message::Owner { flow, owns: false });
            drop_all(&asking, ctx);
            return self.forget(slot, ctx);
        }
        let policy = Rc::clone(ctx.policy_of(flow.frontend));
        if self.known.denied.get(&flow).is_none()
            && let Some(owner) = chosen_everywhere(&policy, &flow, ctx, now)
        {
            return self.found(slot, asking, owner, ctx);
        }
        self.ask_peers(slot, asking, ctx, now);
    }

    fn ask_peers(&mut self, slot: usize, asking: Asking, ctx: &mut Context, now: Instant) {
        let flow = self.connections[slot].flow;
        let policy = Rc::clone(ctx.policy_of(flow.frontend));
        let former = self.former_owners.get(&flow.frontend).into_iter().flatten().copied();
        let asked: BTreeSet<NodeId> =
            who_may_own(&policy, flow.frontend).chain(former).filter(|node| is_up(*node, ctx)).collect();
        if asked.is_empty() {
            return self.found_nobody(slot, asking, ctx, now);
        }
        for peer in &asked {
            ctx.counters.owner_questions += 1;
            ctx.say(*peer, Message::WhoOwns { flow, ack: asking.ack });
        }
        self.connections[slot].state = State::Asking(Asking { stage: Stage::Peers(asked), ..asking });
        self.set_alarm(slot, now + limits::OWNER_PATIENCE, ctx);
    }

    /// A peer owns a connection, or does not.
    pub fn handle_owner(&mut self, from: NodeId, flow: FlowKey, owns: bool, ctx: &mut Context, now: Instant) {
        if let Some(slot) = self.slot_of(&flow) {
            let connection = &mut self.connections[slot];
            match connection.state.take() {
                State::Asking(Asking { stage: Stage::Peers(mut waiting), packets, bytes, ack, reset })
                    if waiting.contains(&from) =>
                {
                    waiting.remove(&from);
                    let is_last = waiting.is_empty();
                    let asking = Asking { stage: Stage::Peers(waiting), packets, bytes, ack, reset };
                    if owns {
                        self.found(slot, asking, from, ctx);
                    } else if is_last {
                        self.found_nobody(slot, asking, ctx, now);
                    } else {
                        connection.state = State::Asking(asking);
                    }
                }
                // What it had is over, and what comes now is not of that.
                State::Lingering(owner) if owner == from && !owns && ctx.policy.is_shared_frontend(flow.frontend) => {
                    self.forget(slot, ctx);
                    self.known.denied.insert(flow, (), now);
                }
                other => connection.state = other,
            }
            return;
        }
        if owns {
            return;
        }
        // It was taken for the owner. The next packet asks everybody. A SYN still follows the one before: by a forged
        // acknowledgement nobody shall move a handshake to another candidate.
        let is_shared = ctx.policy.is_shared_frontend(flow.frontend);
        if is_shared && let Some(opening) = self.openings.get_mut(&flow).filter(|opening| opening.to == from) {
            opening.is_denied = true;
            self.known.denied.insert(flow, (), now);
        }
        if self.known.peek(&flow) == Some(from) {
            self.known.remove(&flow);
            self.known.denied.insert(flow, (), now);
        }
    }

    /// A peer asks whether this node's kernel owns a connection.
    pub fn handle_question(&mut self, from: NodeId, flow: FlowKey, ack: Option<Seq<Wire>>, ctx: &mut Context) {
        if !ctx.is_own_frontend(flow.frontend) {
            return ctx.say(from, Message::Owner { flow, owns: false });
        }
        if !self.known.may_be_asked(from) {
            ctx.counters.owner_questions_unanswered += 1;
            return;
        }
        self.questions.insert(flow, (from, ack));
        ctx.outputs.push_back(Output::AskSocket { local: flow.frontend, remote: flow.client });
    }

    /// What the kernel said about a flow that a peer asked for.
    pub(super) fn judge_question(&mut self, flow: FlowKey, socket: SocketState, ctx: &mut Context) -> bool {
        let Some((from, ack)) = self.questions.remove(&flow) else { return false };
        let owns = self.known.kernel_serves(&flow, socket, ack);
        ctx.say(from, Message::Owner { flow, owns });
        true
    }

    fn found(&mut self, slot: usize, asking: Asking, owner: NodeId, ctx: &mut Context) {
        let flow = self.connections[slot].flow;
        self.forget(slot, ctx);
        self.known.insert(flow, owner);
        ctx.counters.owners_found += 1;
        log::debug!("owner found flow={flow} owner={}", owner.0);
        if asking.reset.is_some() {
            let _: Verdict = ctx.drop(DropReason::UnexpectedFromKernel);
        }
        for packet in asking.packets {
            if owner == ctx.node { ctx.write(packet, Why::OwnerFound) } else { ctx.forward(owner, packet, Why::OwnerFound) }
        }
    }

    /// Nobody owns it who can be asked. If somebody cannot, the client is left to try again; otherwise this node's kernel
    /// tells it that there is no such connection.
    fn found_nobody(&mut self, slot: usize, asking: Asking, ctx: &mut Context, now: Instant) {
        let flow = self.connections[slot].flow;
        self.forget(slot, ctx);
        let policy = Rc::clone(ctx.policy_of(flow.frontend));
        let may_come_back = |node| !is_up(node, ctx) && !is_gone(node, ctx, now);
        let mut former = self.former_owners.get(&flow.frontend).into_iter().flatten().copied();
        if who_may_own(&policy, flow.frontend).any(may_come_back) || former.any(may_come_back) {
            return drop_all(&asking, ctx);
        }
        // Who is asked about one acknowledgement says nothing of another: a forged one may have come first.
        let (asked_about, others): (Vec<_>, Vec<_>) =
            asking.packets.into_iter().partition(|packet| acknowledged_by(packet) == asking.ack);
        for packet in asking.reset.into_iter().chain(asked_about) {
            ctx.write(packet, Why::NobodyOwns);
        }
        self.ask_about_others(flow, others, ctx, now);
    }

    /// What waited behind something else, and may be another's.
    fn ask_about_others(&mut self, flow: FlowKey, packets: Vec<Vec<u8>>, ctx: &mut Context, now: Instant) {
        let Some(first) = packets.first() else { return };
        let (ack, bytes) = (acknowledged_by(first), packets.iter().map(Vec::len).sum());
        if !self.known.may_ask(false) {
            for _packet in packets {
                let _: Verdict = ctx.drop(DropReason::OwnerNotAsked);
            }
            return;
        }
        let asking = Asking { packets, bytes, ack, reset: None, stage: Stage::Kernel { for_peer: None } };
        self.insert(flow, State::Asking(asking), Guard::None, ctx, now);
        ctx.outputs.push_back(Output::AskSocket { local: flow.frontend, remote: flow.client });
    }

    /// Not everybody has answered in time.
    pub(super) fn give_up_asking(&mut self, slot: usize, asking: &Asking, ctx: &mut Context) {
        self.forget(slot, ctx);
        drop_all(asking, ctx);
    }

    /// A new policy is in force: what nodes had under the one before they go on with.
    pub fn note_former_owners(&mut self, before: &Policy) {
        for frontend in before.own_frontends().into_iter().filter(|frontend| before.is_shared_frontend(*frontend)) {
            self.former_owners.entry(frontend).or_default().extend(who_may_own(before, frontend));
        }
    }

    /// A connection begins on these ends: what was kept of the one before is of no use.
    pub(super) fn stop_asking(&mut self, slot: usize, ctx: &mut Context) {
        if let State::Asking(asking) = self.connections[slot].state.take() {
            drop_all(&asking, ctx);
        }
        self.forget(slot, ctx);
    }

    /// A RST of the local kernel's that answers a segment of a connection which it does not have (RFC 9293, section 3.5.2), on its
    /// way to a client. If that was given to it because it had one with the same ends, another node may have this one.
    pub fn handle_kernel_reset(&mut self, reset: &Segment<&mut [u8], ToClientWire>, ctx: &mut Context, now: Instant) -> Verdict {
        let flow = FlowKey { client: reset.destination(), frontend: reset.source() };
        let seq = reset.seq();
        if self.known.is_answer(&flow, Some(seq)) {
            return Verdict::Write;
        }
        let is_elsewhere = self.slot_of(&flow).is_some() || self.openings.get(&flow).is_some_and(|opening| !opening.is_denied);
        match self.known.peek(&flow) {
            _ if is_elsewhere => ctx.drop(DropReason::UnexpectedFromKernel),
            None => Verdict::Write,
            Some(owner) if owner != ctx.node => ctx.drop(DropReason::UnexpectedFromKernel),
            Some(_) => self.ask_about_reset(flow, reset, ctx, now),
        }
    }

    /// The same of one that had it under an alias, where nothing is left but what lingers.
    pub fn handle_reset_of_former_owner(
        &mut self,
        reset: &Segment<&mut [u8], ToClientWire>,
        ctx: &mut Context,
        now: Instant,
    ) -> Verdict {
        let flow = FlowKey { client: reset.destination(), frontend: reset.source() };
        if self.slot_of(&flow).is_some() || self.openings.get(&flow).is_some_and(|opening| !opening.is_denied) {
            return ctx.drop(DropReason::UnexpectedFromKernel);
        }
        self.ask_about_reset(flow, reset, ctx, now)
    }

    fn ask_about_reset(
        &mut self,
        flow: FlowKey,
        reset: &Segment<&mut [u8], ToClientWire>,
        ctx: &mut Context,
        now: Instant,
    ) -> Verdict {
        self.known.remove(&flow);
        if !self.known.may_ask(true) || !ctx.has_room() {
            return ctx.drop(DropReason::OwnerNotAsked);
        }
        let (packets, stage) = (Vec::new(), Stage::Peers(BTreeSet::new()));
        let asking = Asking { packets, bytes: 0, ack: Some(reset.seq()), reset: Some(reset.completed()), stage };
        let slot = self.insert(flow, State::Moving, Guard::None, ctx, now);
        self.ask_peers(slot, asking, ctx, now);
        Verdict::Consumed
    }

    /// A peer has named itself the owner meanwhile.
    pub(super) fn end_asking(&mut self, slot: usize, owner: NodeId, ctx: &mut Context) {
        if let State::Asking(asking) = self.connections[slot].state.take() {
            self.found(slot, asking, owner, ctx);
        }
    }

    /// An ICMP error about a connection of a shared address that nothing is known of: routers on the path send it to whichever
    /// node. Whoever owns the connection takes it.
    pub fn tell_all_of_error(&mut self, flow: &FlowKey, packet: &[u8], ctx: &mut Context) {
        if !self.known.may_tell_of_error() {
            return;
        }
        let policy = Rc::clone(&ctx.policy);
        for peer in who_may_own(&policy, flow.frontend) {
            if is_up(peer, ctx) {
                ctx.forward(peer, packet.to_vec(), Why::OwnerFound);
            }
        }
    }

    /// The local kernel answers a SYN to a shared address: what it says may come back through another node.
    pub(super) fn note_shared_syn_ack(
        &mut self,
        flow: FlowKey,
        syn_ack: &mut Segment<&mut [u8], ToClientWire>,
        ctx: &Context,
        now: Instant,
    ) {
        syn_ack.clamp_mss(ctx.mss_max(flow.client.address));
        self.known.answered.insert(flow, syn_ack.seq(), now);
    }
}

/// What a segment acknowledges.
fn acknowledged(segment: &Segment<&mut [u8], ToServerWire>) -> Option<Seq<Wire>> {
    segment.flags().contains(Flags::ACK).then(|| segment.ack())
}

/// The same of a packet that was kept.
fn acknowledged_by(packet: &[u8]) -> Option<Seq<Wire>> {
    let segment = Segment::<_, ToServerWire>::parse(packet).ok()?;
    segment.flags().contains(Flags::ACK).then(|| segment.ack())
}

/// Whoever sent them tries again.
fn drop_all(asking: &Asking, ctx: &mut Context) {
    for _packet in asking.packets.iter().chain(&asking.reset) {
        let _: Verdict = ctx.drop(DropReason::OwnerUnknown);
    }
}

fn is_up(node: NodeId, ctx: &Context) -> bool {
    ctx.peer(node).is_some_and(|peer| peer.up)
}

/// Whether a peer has been away for so long that what it owned is lost.
fn is_gone(node: NodeId, ctx: &Context, now: Instant) -> bool {
    ctx.peer(node).is_none_or(|peer| {
        !peer.up && peer.since.is_none_or(|since| now.saturating_duration_since(since) >= limits::OWNER_LOST_AFTER)
    })
}

/// Other nodes that may own connections to this address: those that have it, and the service's servers.
fn who_may_own(policy: &Policy, frontend: Endpoint) -> impl Iterator<Item = NodeId> {
    let service = policy.service_of(frontend);
    let owners = service.into_iter().flat_map(|service| &service.frontends);
    let owners = owners.filter(|(_, endpoint)| *endpoint == frontend).map(|(node, _)| *node);
    let servers = service.into_iter().flat_map(|service| &service.servers).map(|(node, _)| *node);
    let all: BTreeSet<NodeId> = owners.chain(servers).filter(|node| *node != policy.node).collect();
    all.into_iter()
}

/// The peer that every node would choose, whichever the SYN came to, if it is the first that can be asked.
fn chosen_everywhere(policy: &Policy, flow: &FlowKey, ctx: &mut Context, now: Instant) -> Option<NodeId> {
    let service = policy.service_of(flow.frontend).filter(|service| service.mode() == Mode::Route)?;
    let decision = opening::decision_on_syn(service, flow);
    if decision.choice.depends_on().is_some() {
        return None;
    }
    let order = ctx.choose(&service.name, &decision, now);
    order
        .as_slice()
        .iter()
        .copied()
        .find(|node| ctx.passed_over(&service.name, *node, now).is_none())
        .filter(|node| *node != ctx.node)
}
