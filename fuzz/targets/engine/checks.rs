//! The host around the engine, as far as it must answer, and all that must hold.

use super::super::input::Input;
use super::super::sums;
use super::cast::{Cast, Replay};
use super::{LONG, NODE, PEERS};
use baton::control::frame::encode_message;
use baton::control::message::{HandoffId, Message};
use baton::flow::{FlowKey, NodeId};
use baton::handoff::counters::DropReason;
use baton::handoff::{Engine, Output, SocketState, Verdict, Why};
use baton::limits;
use baton::policy::Policy;
use baton::rewrite::{Flags, Offload, Pieces, Segment, ToServerLocal, ToServerWire};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

const MTU: usize = 1_500;
/// What one input may make the engine say: every segment held of one connection, for every connection there can be.
const OUTPUTS_MAX: usize = 20_000;
/// Limits are looked at after so many inputs.
const CHECKED_EVERY: usize = 4;
/// Replays and offers remembered.
const REMEMBERED_MAX: usize = 16;

pub struct Host {
    pub engine: Engine,
    pub now: Instant,
    pub replays: Vec<Replay>,
    /// Handoffs this node offered: to whom, and of which connection.
    pub offers: Vec<(NodeId, HandoffId, FlowKey)>,
    /// Guards in the kernel.
    guards: BTreeSet<FlowKey>,
    /// What the kernel says about every socket from now on.
    pub sockets_are: Option<SocketState>,
    policy: Rc<Policy>,
    orphans: usize,
    /// Packets dropped.
    dropped: BTreeMap<DropReason, u64>,
    drained: usize,
}

impl Host {
    pub fn new(engine: Engine, now: Instant, orphans: Vec<FlowKey>) -> Self {
        let policy = Rc::clone(&super::policies()[0]);
        let (count, guards) = (orphans.len(), orphans.into_iter().collect());
        Self {
            engine,
            now,
            replays: Vec::new(),
            offers: Vec::new(),
            guards,
            sockets_are: None,
            policy,
            orphans: count,
            dropped: BTreeMap::new(),
            drained: 0,
        }
    }

    // ---- In -----------------------------------------------------------------------------------------------------------

    pub fn tun(&mut self, input: &mut Input<'_>, mut packet: Vec<u8>, offload: Offload) {
        let before = packet.clone();
        let verdict = self.engine.handle_tun(&mut packet, offload, self.now);
        if verdict == Verdict::Cut {
            assert_eq!(packet, before, "what is to be cut was touched");
            assert!(offload.segment_bytes.is_some(), "a plain packet cannot be cut");
            let mut pieces = Pieces::of(&packet, &offload, usize::MAX).expect("it was parsed");
            let mut piece = vec![0; packet.len()];
            while let Some(length) = pieces.write_next(&mut piece) {
                self.tun(input, piece[..length].to_vec(), Offload::NONE);
            }
            return;
        }
        self.judge(verdict, &before, &packet, offload);
        self.drain(input);
    }

    pub fn overlay(&mut self, input: &mut Input<'_>, from: NodeId, mut packet: Vec<u8>) {
        let before = packet.clone();
        let verdict = self.engine.handle_overlay(from, &mut packet, self.now);
        assert!(!matches!(verdict, Verdict::Cut | Verdict::Forward(_)), "{verdict:?} for a packet of the overlay");
        self.judge(verdict, &before, &packet, Offload::NONE);
        self.drain(input);
    }

    pub fn replace_policy(&mut self, policy: Rc<Policy>) {
        self.policy = Rc::clone(&policy);
        self.engine.replace_policy(policy, self.now);
    }

    pub fn pass(&mut self, input: &mut Input<'_>, time: Duration) {
        self.now += time;
        self.time_out(input);
    }

    pub fn pass_until_next(&mut self, input: &mut Input<'_>) {
        if let Some(next) = self.engine.poll_timeout() {
            self.now = self.now.max(next);
        }
        self.time_out(input);
    }

    /// Handles what is due; it must be over in a few turns.
    fn time_out(&mut self, input: &mut Input<'_>) {
        for _ in 0..8 {
            self.engine.handle_timeout(self.now);
            assert!(self.engine.poll_timeout().is_none_or(|next| next > self.now), "a deadline in the past");
            self.drain(input);
            if self.engine.poll_timeout().is_none_or(|next| next > self.now) {
                return;
            }
        }
        panic!("deadlines that are due at once, again and again");
    }

    // ---- Out ----------------------------------------------------------------------------------------------------------

    fn judge(&mut self, verdict: Verdict, before: &[u8], after: &[u8], offload: Offload) {
        assert_eq!(before.len(), after.len());
        match verdict {
            Verdict::Write | Verdict::Local => {
                let was = Segment::<_, ToServerWire>::parse_offloaded(before, offload);
                let is = Segment::<_, ToServerWire>::parse_offloaded(after, offload);
                assert_eq!(was.as_ref().err(), is.as_ref().err());
                if let (Ok(was), Ok(is)) = (was, is) {
                    assert_eq!(was.checksums_are_right(), is.checksums_are_right(), "checksums");
                    assert_eq!(was.payload(), is.payload());
                }
                self.may_be_written(after);
            }
            Verdict::Forward(to) | Verdict::ForwardOnLink(to) => {
                assert!(PEERS.contains(&to), "forwarded to {to:?}");
                assert_eq!(before, after, "forwarded, but rewritten");
            }
            Verdict::Drop(reason) => *self.dropped.entry(reason).or_default() += 1,
            Verdict::Consumed | Verdict::Cut => {}
        }
    }

    /// Does what the engine says, and answers what it asks.
    pub fn drain(&mut self, input: &mut Input<'_>) {
        for _ in 0..OUTPUTS_MAX {
            let Some(output) = self.engine.poll_output() else {
                // Counting everything takes longer than everything else.
                self.drained += 1;
                if self.drained.is_multiple_of(CHECKED_EVERY) {
                    self.within_limits();
                }
                return;
            };
            match output {
                Output::Packet(packet, why) | Output::Local(packet, why) => {
                    // These may be segments of a client that a peer forwarded: its kernel judges them.
                    self.is_plain(&packet, !matches!(why, Why::Overtook | Why::KeptSyn));
                    self.may_be_written(&packet);
                    self.remember_replay(&packet);
                }
                Output::Forward(to, packet, _) => {
                    assert!(PEERS.contains(&to), "forwarded to {to:?}");
                    self.is_plain(&packet, true);
                }
                Output::Message(to, message) => self.said(to, &message),
                Output::Guard(flow) => {
                    let written = self.sockets_are.is_some() || input.u8() < 240;
                    if written {
                        self.guards.insert(flow);
                    }
                    self.engine.handle_guard(flow, written, self.now);
                }
                Output::Unguard(flow) => {
                    self.guards.remove(&flow);
                }
                Output::Unlink(..) | Output::LinkAnswered { .. } => {}
                Output::AskSocket { local, remote } => {
                    let state = self.sockets_are.unwrap_or_else(|| answer(input));
                    self.engine.handle_socket(local, remote, state, self.now);
                }
                Output::DestroySocket { local, .. } => assert!(self.policy.is_alias(local.address), "destroys {local}"),
            }
        }
        panic!("the engine does not stop talking");
    }

    fn is_plain(&self, packet: &[u8], must_be_right: bool) {
        let segment = Segment::<_, ToServerWire>::parse(packet).expect("a whole segment");
        assert!(!must_be_right || segment.checksums_are_right(), "a wrong checksum: {segment}");
        assert_eq!(sums::declared_len(packet), Some(packet.len()));
        assert!(packet.len() <= MTU, "{} octets: {segment}", packet.len());
    }

    /// Nothing untranslated leaves, and nothing reaches a kernel that has given the connection away.
    fn may_be_written(&self, packet: &[u8]) {
        let Ok(segment) = Segment::<_, ToServerWire>::parse(packet)
            .or_else(|_| Segment::parse_offloaded(packet, Offload { segment_bytes: None, ..Offload::NONE }))
        else {
            return;
        };
        let (source, destination) = (segment.source(), segment.destination());
        assert!(!self.policy.is_alias(source.address), "an untranslated packet leaves: {segment}");
        let flow = FlowKey { client: source, frontend: destination };
        if self.guards.contains(&flow) {
            assert!(segment.flags().contains(Flags::RST), "guarded, yet given to the kernel: {segment}");
        }
    }

    fn remember_replay(&mut self, packet: &[u8]) {
        let segment = Segment::<_, ToServerLocal>::parse(packet).expect("a whole segment");
        let alias = segment.destination();
        if segment.flags().contains(Flags::SYN) && self.policy.is_alias(alias.address) {
            self.replays.push(Replay { alias, client: segment.source(), isn: segment.seq().raw() });
            if self.replays.len() > REMEMBERED_MAX {
                self.replays.remove(0);
            }
        }
    }

    fn said(&mut self, to: NodeId, message: &Message) {
        assert!(PEERS.contains(&to) && to != NODE, "said to {to:?}");
        encode_message(message, &mut Vec::new()).expect("what is said can be written");
        match message {
            Message::Offer(offer) => {
                self.offers.push((to, offer.id, offer.flow));
                if self.offers.len() > REMEMBERED_MAX {
                    self.offers.remove(0);
                }
            }
            Message::Commit { id, .. } => {
                if let Some((asked, _, flow)) = self.offers.iter().find(|(_, offered, _)| offered == id) {
                    assert_eq!(to, *asked, "given to another than was asked");
                    assert!(self.guards.contains(flow), "given away unguarded");
                }
            }
            _ => {}
        }
    }

    // ---- Always -------------------------------------------------------------------------------------------------------

    fn within_limits(&self) {
        let limits = &self.policy.limits;
        let counters: BTreeMap<String, u64> = self.engine.counters().into_iter().collect();
        let gauge = |name: &str| counters[name] as usize;
        // A connection that this node serves itself has both roles, and orphans were there before.
        let all = ["connections_front_end", "connections_back_end", "connections_lingering"].map(gauge);
        assert!(all.iter().sum::<usize>() <= 2 * limits.connections + self.orphans, "{all:?}");
        assert!(gauge("syns_pending") <= limits::SYNS_MAX);
        // A segment takes up to twice its length, and is let in when its length fits.
        assert!(gauge("first_flight_bytes") <= limits.first_flight_bytes + MTU);
        for (reason, dropped) in &self.dropped {
            let counted = counters[&format!("drops_total{{reason=\"{}\"}}", reason.label())];
            assert!(counted >= *dropped, "{reason:?}: {dropped} dropped, {counted} counted");
        }
        let flows = self.engine.flows(self.now);
        assert!(flows.iter().all(|flow| flow.state != "moving"), "between two states");
        let front = flows.iter().filter(|flow| flow.role == "front-end").map(|flow| flow.flow);
        assert_eq!(front.clone().collect::<BTreeSet<_>>().len(), front.count(), "one connection twice");
    }

    /// Whether no connection is known, nor an orphan.
    pub fn is_empty(&self) -> bool {
        let has_orphans = || self.engine.counters().iter().any(|(name, value)| name == "orphans" && *value > 0);
        self.engine.flows(self.now).is_empty() && !has_orphans()
    }

    /// Nothing is left of anything but the latest SYN.
    pub fn has_forgotten(&mut self, cast: &mut Cast) {
        // SYNs that nobody answered go when the next one comes.
        let (mut syn, offload) = cast.syn(&mut Input::new(&[]));
        self.now += LONG;
        let _ = self.engine.handle_tun(&mut syn, offload, self.now);
        assert!(self.engine.poll_output().is_none());
        self.within_limits();
        const GAUGES: [&str; 11] = [
            "connections_front_end",
            "connections_handshake",
            "connections_undecided",
            "connections_parked",
            "connections_offered",
            "connections_handed_off",
            "connections_back_end",
            "connections_lingering",
            "orphans",
            "commits_unsettled",
            "first_flight_bytes",
        ];
        let counters: BTreeMap<String, u64> = self.engine.counters().into_iter().collect();
        assert!(counters["syns_pending"] <= 1);
        for name in GAUGES {
            assert_eq!(counters[name], 0, "{name}: {:?}", self.engine.flows(self.now));
        }
        assert_eq!((self.engine.live(), self.engine.flows(self.now).len()), (0, 0));
        assert_eq!(self.guards, BTreeSet::new(), "guards nobody needs");
    }
}

fn answer(input: &mut Input<'_>) -> SocketState {
    match input.u8() {
        0..=159 => SocketState::SynReceived,
        160..=199 => SocketState::Absent,
        200..=239 => SocketState::Open,
        _ => SocketState::TimeWait,
    }
}
