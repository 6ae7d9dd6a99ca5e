//! Services that decide on the SYN: it goes, as it is, to the node that is chosen, whose kernel shakes hands with the client.
//! What is chosen for this node itself goes to its kernel, and nothing is kept.
//!
//! Until the owner names itself, nothing is known of a connection but what a SYN said, in a bounded table. A node names
//! itself when the client has acknowledged its kernel's SYN-ACK; from then on the connection is like one handed off.

use super::*;
use crate::policy::Service;
use crate::rewrite::options;

/// A SYN that was forwarded, or is about to be.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    isn: Seq<Client>,
    rule: Rc<str>,
    /// When the SYN came.
    began: Instant,
    pub(super) to: NodeId,
    /// Who may still be asked, and what follows.
    order: Order,
    next: usize,
    finally: Finally,
    /// As it was forwarded, to be forwarded to somebody else.
    syn: Vec<u8>,
    /// The kernel is being asked whether it has this connection.
    asks_kernel: bool,
    /// Its candidate was given something that acknowledges another kernel's SYN-ACK, or nobody's: the owner is asked for until a SYN
    /// follows.
    pub(super) is_denied: bool,
}

/// Whether a segment begins a connection. With RST or FIN as well it begins none.
pub(super) fn begins<B: AsRef<[u8]>>(segment: &Segment<B, ToServerWire>) -> bool {
    let flags = segment.flags();
    flags.contains(Flags::SYN) && !flags.intersects(Flags::ACK.with(Flags::RST).with(Flags::FIN))
}

impl Btcp {
    /// A packet of no connection we follow, to a service that decides on the SYN.
    pub(super) fn handle_unopened(
        &mut self,
        flow: FlowKey,
        mut segment: Segment<&mut [u8], ToServerWire>,
        ctx: &mut Context,
        now: Instant,
    ) -> Verdict {
        if !begins(&segment) {
            return match self.openings.get(&flow) {
                Some(opening) if !opening.is_denied => Verdict::Forward(opening.to),
                _ if ctx.policy.is_shared_frontend(flow.frontend) => self.find_owner(flow, &segment, ctx, now),
                None => self.pass_to_local(&flow, &segment, ctx),
                Some(_) => Verdict::Write,
            };
        }
        if !segment.checksums_are_right() {
            return Verdict::Write;
        }
        ctx.counters.syns += 1;
        if let Some(opening) = self.openings.get_mut(&flow)
            && ctx.peer(opening.to).is_some_and(|peer| peer.up)
        {
            // Whatever it says, and whatever is said here of new ones: its candidate may be shaking hands with the client, and
            // that kernel judges it. If it is refused, this one is what others are asked to take.
            let to = opening.to;
            make_forwardable(&mut segment);
            if opening.isn != segment.seq() {
                opening.isn = segment.seq();
                opening.syn = syn_alone(&segment);
                opening.is_denied = false;
                opening.began = now;
            }
            return Verdict::Forward(to);
        }
        let is_retired = ctx.retired.contains_key(&flow.frontend);
        if ctx.draining || is_retired || OPTIONS_SIGNED.iter().any(|kind| segment.has_option(*kind)) {
            return self.keep_local(&flow);
        }
        let Some((rule, order, finally)) = decide_on_syn(&flow, ctx, now) else { return self.keep_local(&flow) };
        let mut next = 0;
        let to = match next_step(&flow, &order, &mut next, finally, ctx, now) {
            Step::Forward(to) if ctx.has_room() => to,
            Step::Forward(_) => {
                // Its owner would name itself in vain.
                ctx.counters.fall_back(Fallback::Full);
                tell_local(flow, rule, now, ctx);
                return self.keep_local(&flow);
            }
            Step::Local => {
                ctx.counters.local_on_syn += 1;
                tell_local(flow, rule, now, ctx);
                return self.keep_local(&flow);
            }
            Step::Reset => {
                self.openings.remove(&flow);
                refuse(&flow, segment.seq(), ctx);
                return Verdict::Consumed;
            }
        };
        make_forwardable(&mut segment);
        let syn = syn_alone(&segment);
        let opening =
            Opening { isn: segment.seq(), rule, to, order, next, finally, syn, asks_kernel: true, is_denied: false, began: now };
        ctx.counters.syns_evicted += self.openings.insert(flow, opening, now);
        // A SYN for a connection that the local kernel has is its own to judge (RFC 5961, section 4).
        ctx.outputs.push_back(Output::AskSocket { local: flow.frontend, remote: flow.client });
        Verdict::Consumed
    }

    fn keep_local(&mut self, flow: &FlowKey) -> Verdict {
        self.openings.remove(flow);
        self.known.remove(flow);
        Verdict::Write
    }

    /// What the kernel said about a flow whose SYN is about to be forwarded.
    pub(super) fn judge_opening(&mut self, flow: FlowKey, socket: SocketState, ctx: &mut Context) {
        let Some(opening) = self.openings.get_mut(&flow).filter(|opening| opening.asks_kernel) else { return };
        opening.asks_kernel = false;
        match socket {
            SocketState::Open | SocketState::SynReceived => self.open_locally(flow, ctx),
            SocketState::Absent | SocketState::TimeWait => {
                ctx.counters.syns_forwarded += 1;
                ctx.forward(opening.to, opening.syn.clone(), Why::ForwardedSyn);
            }
        }
    }

    /// The local kernel gets the SYN.
    fn open_locally(&mut self, flow: FlowKey, ctx: &mut Context) {
        if let Some(opening) = self.openings.remove(&flow) {
            self.known.remove(&flow);
            ctx.counters.local_on_syn += 1;
            ctx.write(opening.syn, Why::LocalSyn);
        }
    }

    /// The candidate will not take it; the client has heard nothing yet.
    pub fn handle_syn_refused(
        &mut self,
        from: NodeId,
        flow: FlowKey,
        isn: Seq<Client>,
        reason: Refusal,
        ctx: &mut Context,
        now: Instant,
    ) {
        let is_it = |opening: &&mut Opening| opening.to == from && opening.isn == isn;
        let Some(opening) = self.openings.get_mut(&flow).filter(is_it) else { return };
        let reason = Fallback::from(reason);
        ctx.counters.fall_back(reason);
        ctx.remark(from, |name| format!("{name} does not take it: {}", reason.label()));
        log::debug!("fell back flow={flow} candidate={} reason={}", from.0, reason.label());
        match next_step(&flow, &opening.order, &mut opening.next, opening.finally, ctx, now) {
            Step::Forward(to) => {
                opening.to = to;
                opening.is_denied = false;
                ctx.counters.syns_forwarded += 1;
                ctx.forward(to, opening.syn.clone(), Why::ForwardedSyn);
            }
            Step::Local => {
                tell_local(flow, Rc::clone(&opening.rule), opening.began, ctx);
                self.open_locally(flow, ctx);
            }
            Step::Reset => {
                self.openings.remove(&flow);
                refuse(&flow, isn, ctx);
            }
        }
    }

    /// The owner judges a SYN that came before this node knew its connection to be over. If it opens a new one, that is how
    /// it goes on; nobody else is asked unless it refuses.
    pub(super) fn reopened_by(&mut self, owner: NodeId, flow: FlowKey, syn: Vec<u8>, ctx: &mut Context, now: Instant) {
        let Ok(segment) = Segment::<_, ToServerWire>::parse(syn.as_slice()) else { return };
        let isn = segment.seq();
        let Some((rule, order, finally)) = decide_on_syn(&flow, ctx, now) else { return };
        let opening =
            Opening { isn, rule, to: owner, order, next: 0, finally, syn, asks_kernel: false, is_denied: false, began: now };
        ctx.counters.syns_evicted += self.openings.insert(flow, opening, now);
    }

    /// A client has completed the handshake with this peer. It could with one only, so whatever was known here of another
    /// that was given its SYN is out of date.
    pub(super) fn handle_opened(&mut self, from: NodeId, id: HandoffId, flow: FlowKey, ctx: &mut Context, now: Instant) {
        if !self.may_open(from, id, &flow, ctx) {
            return ctx.say(from, Message::Disowned { id });
        }
        if let Some(slot) = self.slot_of(&flow) {
            match &self.connections[slot].state {
                State::Lingering(_) | State::Lost(_) => {}
                State::Asking(_) => self.end_asking(slot, from, ctx),
                State::HandedOff(handed_off) if handed_off.to == from => {
                    let before = handed_off.id;
                    self.handle_closed(from, before, ctx, now);
                }
                _ => return ctx.say(from, Message::Disowned { id }),
            }
            if let Some(slot) = self.slot_of(&flow) {
                self.forget(slot, ctx);
            }
        } else if self.openings.get(&flow).is_none_or(|opening| self.stood_still.is_some_and(|then| opening.began <= then)) {
            // Nothing is known of it, or what is known is older than a pause of this process. So the kernel may have it: the
            // connection of a SYN that was not forwarded.
            self.claims.insert(flow, (from, id));
            return ctx.outputs.push_back(Output::AskSocket { local: flow.frontend, remote: flow.client });
        }
        self.adopt_opened(from, id, flow, ctx, now);
    }

    /// Whether a peer can own what it says: it was given the SYN or serves there, numbers its connections by its own life, has
    /// given this number to no other, and there is room for one more.
    fn may_open(&self, from: NodeId, id: HandoffId, flow: &FlowKey, ctx: &Context) -> bool {
        let was_given_it = self.openings.get(flow).is_some_and(|opening| opening.to == from);
        let serves = |service: &Service| service.servers.iter().any(|(node, _)| *node == from);
        let epoch = if from == ctx.node { Some(ctx.epoch) } else { ctx.peer(from).and_then(|peer| peer.epoch) };
        (was_given_it || ctx.service_of(flow.frontend).is_some_and(serves))
            && epoch == Some(id.epoch)
            && !self.by_handoff.contains_key(&id)
            && (ctx.has_room() || self.slot_of(flow).is_some())
    }

    /// What the kernel said about a flow that a peer claims.
    pub(super) fn judge_claim(&mut self, flow: FlowKey, socket: SocketState, ctx: &mut Context, now: Instant) -> bool {
        let Some((from, id)) = self.claims.remove(&flow) else { return false };
        let was_forwarded = self.openings.get(&flow).is_some();
        match socket {
            // A repeated SYN of the same connection, during a pause, leaves a request in the kernel that nobody completes.
            SocketState::SynReceived if was_forwarded => self.adopt_opened(from, id, flow, ctx, now),
            SocketState::Open | SocketState::SynReceived => {
                self.openings.remove(&flow);
                ctx.say(from, Message::Disowned { id });
            }
            SocketState::Absent | SocketState::TimeWait => self.adopt_opened(from, id, flow, ctx, now),
        }
        true
    }

    fn adopt_opened(&mut self, from: NodeId, id: HandoffId, flow: FlowKey, ctx: &mut Context, now: Instant) {
        let (rule, began) = self.openings.remove(&flow).map(|opening| (opening.rule, opening.began)).unzip();
        self.known.remove(&flow);
        let state = State::HandedOff(HandedOff {
            to: from,
            id,
            client: None,
            pending: None,
            offered_bytes: 0,
            confirmed_in: ctx.peer(from).map_or(0, |peer| peer.sessions),
            kept_syn: None,
            is_linked: false,
        });
        let slot = self.insert(flow, state, Guard::Asked, ctx, now);
        self.connections[slot].rule = rule;
        self.connections[slot].story = ctx.chronicle.open(began, now);
        self.by_handoff.insert(id, slot);
        self.assign(slot, Some(from), ctx);
        self.count_outcome(slot, Some(from), Outcome::HandedOff, ctx);
        ctx.counters.handoffs_committed += 1;
        log::debug!("opened flow={flow} id={} to={}", id.serial, from.0);
        // So that the kernel answers nothing of it if this process dies. Without one it goes on, but not over a restart.
        ctx.outputs.push_back(Output::Guard(flow));
    }
}

/// What the policy says of a client before it has said anything: the rule, and whom to ask.
fn decide_on_syn(flow: &FlowKey, ctx: &mut Context, now: Instant) -> Option<(Rc<str>, Order, Finally)> {
    let policy = Rc::clone(ctx.policy_of(flow.frontend));
    let service = policy.service_of(flow.frontend)?;
    let decision = decision_on_syn(service, flow);
    let order = ctx.choose(&service.name, &decision, now);
    let first = order.as_slice().iter().copied().find(|node| ctx.passed_over(&service.name, *node, now).is_none());
    let finally = if ctx.draining { Finally::Local } else { decision.choice.finally() };
    let first = first.or(if finally == Finally::Local { Some(ctx.node) } else { None });
    ctx.counters.decide(&service.name, &decision.rule, first, service.mode());
    log::debug!("decided flow={flow} rule={:?} order={:?} mode={}", decision.rule, order.as_slice(), service.mode().word());
    ctx.remarks.say(|| format!("decided by rule {:?}", decision.rule));
    match service.mode() {
        Mode::Route => Some((decision.rule, order, finally)),
        Mode::Observe => Some((decision.rule, Order::EMPTY, Finally::Local)),
    }
}

/// The decision on a SYN, which needs nothing more.
pub(super) fn decision_on_syn(service: &Service, flow: &FlowKey) -> Decision {
    match service.examine(&[], *flow) {
        Examination::Decided(decision) => decision,
        Examination::NeedMore => service.by_default(*flow),
    }
}

/// What is done next for a connection that is decided.
enum Step {
    Forward(NodeId),
    Local,
    Reset,
}

/// The next candidate that can be asked, counted up in `next`.
fn next_step(flow: &FlowKey, order: &Order, next: &mut usize, finally: Finally, ctx: &mut Context, now: Instant) -> Step {
    let service = ctx.service_name(flow.frontend);
    while let Some(node) = order.as_slice().get(*next).copied() {
        *next += 1;
        // Down as it is the local server answers when nobody else does: it is passed over only for others.
        let is_last = node == ctx.node && order.as_slice().len() == *next;
        match ctx.passed_over(&service, node, now).filter(|_| !is_last) {
            Some(reason) => {
                ctx.remark(node, |name| format!("{name} passed over: {}", reason.label()));
                ctx.counters.fall_back(reason);
            }
            None if node == ctx.node => return Step::Local,
            None => return Step::Forward(node),
        }
    }
    match finally {
        Finally::Local => Step::Local,
        Finally::Reset => Step::Reset,
    }
}

/// The local kernel gets it, and nothing more is known: all there is to tell is told now.
fn tell_local(flow: FlowKey, rule: Rc<str>, began: Instant, ctx: &mut Context) {
    let service = ctx.service_name(flow.frontend);
    ctx.chronicle.count(&service, Some(&rule), Some(ctx.node), Outcome::Local);
    let mut story = ctx.chronicle.begin(began);
    if let Some(story) = &mut story {
        story.decide(began);
    }
    ctx.chronicle.tell(story, flow, service, Some(rule), Some(ctx.node), Outcome::Local, End::Released);
}

/// Nobody may serve it, as the policy says: what a kernel says where nothing listens (RFC 9293, section 3.10.7.1).
fn refuse(flow: &FlowKey, isn: Seq<Client>, ctx: &mut Context) {
    ctx.counters.resets_by_policy += 1;
    ctx.counters.resets += 1;
    let flags = Flags::RST.with(Flags::ACK);
    ctx.write(bare::<ToClientWire>(flow.frontend, flow.client, Seq::new(0), isn.plus(1), flags), Why::Reset);
}

/// As a kernel without Fast Open takes it: it takes no data from a SYN.
fn syn_alone(syn: &Segment<&mut [u8], ToServerWire>) -> Vec<u8> {
    if syn.payload().is_empty() { syn.completed() } else { without_payload(syn) }
}

/// Takes out what cannot go on under another address: Multipath TCP names addresses (RFC 8684), and Fast Open (RFC 7413, and
/// as it began) would let an application have the connection before the client has said with whom it is connected.
fn make_forwardable(syn: &mut Segment<&mut [u8], ToServerWire>) {
    for kind in OPTIONS_TAKEN_OUT {
        syn.blank_option(kind);
    }
    syn.blank_options(options::kind::EXPERIMENT, &options::FAST_OPEN_EXPERIMENT);
}
