//! The initial TCP state of a connection, learned by watching the handshake: from the client's SYN and the kernel's SYN-ACK.

use crate::control::message::{Offer, OfferedTimestamps, WindowScales};
use crate::flow::FlowKey;
use crate::handoff::recent::Recent;
use crate::handoff::syn_acks::SynAcks;
use crate::rewrite::{Client, Flags, Segment, SegmentSpec, Seq, Timestamp, ToClientWire, ToServerWire, Wire};
use crate::{control::message::HandoffId, limits};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// TCP option kinds that a handoff cannot carry, taken out of the SYN: TCP Fast Open (RFC 7413) and Multipath TCP (RFC 8684).
/// A server that does not see them does not answer them, and the client falls back, as both RFCs ask.
pub const OPTIONS_TAKEN_OUT: [u8; 2] = [34, 30];
/// TCP option kinds whose connections are never followed: their segments are signed (MD5, RFC 2385; AO, RFC 5925).
pub const OPTIONS_SIGNED: [u8; 2] = [19, 29];

/// What a client's SYN said.
#[derive(Clone, Copy, Debug)]
pub struct SynRecord {
    isn: Seq<Client>,
    mss: Option<u16>,
    window_scale: Option<crate::rewrite::WindowScale>,
    sack: bool,
    tsval: Option<Timestamp<Client>>,
    ecn: bool,
    window: u16,
    at: Instant,
}

impl SynRecord {
    /// Reads a SYN.
    pub fn of<B: AsRef<[u8]>>(syn: &Segment<B, ToServerWire>, now: Instant) -> Self {
        Self {
            isn: syn.seq(),
            mss: syn.mss(),
            window_scale: syn.window_scale(),
            sack: syn.sack_permitted(),
            tsval: syn.timestamps().map(|(tsval, _)| tsval),
            ecn: syn.flags().contains(Flags::ECE.with(Flags::CWR)),
            window: syn.window(),
            at: now,
        }
    }
}

/// SYNs the kernel has not answered yet. Bounded; the oldest goes first.
#[derive(Clone, Debug)]
pub struct SynTable {
    recent: Recent<SynRecord>,
}

impl SynTable {
    /// An empty table; the seed makes its hash unpredictable from outside.
    pub fn new(seed: u64) -> Self {
        Self { recent: Recent::new(seed, limits::SYNS_MAX, limits::SYN_LIFETIME) }
    }

    /// Remembers a SYN; how many others had to go for it.
    pub fn insert(&mut self, flow: FlowKey, record: SynRecord) -> u64 {
        self.recent.insert(flow, record, record.at)
    }

    /// Takes out the SYN that this SYN-ACK answers.
    pub fn take<B: AsRef<[u8]>>(&mut self, flow: &FlowKey, syn_ack: &Segment<B, ToClientWire>) -> Option<SynRecord> {
        let record = self.recent.get(flow)?;
        if record.isn.plus(1) != syn_ack.ack() {
            return None;
        }
        self.recent.remove(flow)
    }

    /// Whether a SYN of this flow waits for its SYN-ACK.
    pub fn contains(&self, flow: &FlowKey) -> bool {
        self.recent.get(flow).is_some()
    }

    /// Forgets the SYN of a connection that is served: a SYN-ACK that comes late must not be taken for a new one's.
    pub fn remove(&mut self, flow: &FlowKey) {
        self.recent.remove(flow);
    }

    /// Forgets those for these front-end addresses.
    pub fn forget_frontends(&mut self, frontends: &std::collections::BTreeSet<crate::flow::Endpoint>) {
        self.recent.retain(|flow| !frontends.contains(&flow.frontend));
    }

    /// Forgets what no SYN-ACK can follow any more.
    pub fn expire(&mut self, now: Instant) {
        self.recent.expire(now);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.recent.clear();
    }

    /// SYNs remembered.
    pub fn count(&self) -> usize {
        self.recent.count()
    }
}

/// What both sides promised each other, and both ISNs.
#[derive(Clone, Copy, Debug)]
pub struct InitialState {
    /// The client's ISN.
    pub client_isn: Seq<Client>,
    /// The front-end kernel's ISN.
    pub frontend_isn: Seq<Wire>,
    /// The client's MSS.
    pub client_mss: u16,
    /// Window scales, if both sent the option.
    pub window_scales: Option<WindowScales>,
    /// Both permitted SACK.
    pub sack: bool,
    /// TSvals of SYN and SYN-ACK, if both sent the option.
    pub timestamps: Option<(Timestamp<Client>, Timestamp<Wire>)>,
    /// ECN was negotiated.
    pub ecn: bool,
    /// Window field of the SYN.
    pub syn_window: u16,
    /// Window field of the SYN-ACK (never scaled).
    pub syn_ack_window: u16,
    /// When the SYN-ACK was seen.
    pub at: Instant,
    /// All SYN-ACKs, also those that the client never saw.
    pub syn_acks: SynAcks,
}

impl InitialState {
    /// Puts SYN and SYN-ACK together.
    pub fn learn<B: AsRef<[u8]>>(syn: &SynRecord, syn_ack: &Segment<B, ToClientWire>, flow: &FlowKey, now: Instant) -> Self {
        Self {
            client_isn: syn.isn,
            frontend_isn: syn_ack.seq(),
            client_mss: syn.mss.unwrap_or(default_mss(flow.client.address)),
            window_scales: syn
                .window_scale
                .zip(syn_ack.window_scale())
                .map(|(client, frontend)| WindowScales { client, frontend }),
            sack: syn.sack && syn_ack.sack_permitted(),
            timestamps: syn.tsval.zip(syn_ack.timestamps().map(|(tsval, _)| tsval)),
            ecn: syn.ecn && syn_ack.flags().contains(Flags::ECE),
            syn_window: syn.window,
            syn_ack_window: syn_ack.window(),
            at: now,
            syn_acks: SynAcks::new(syn_ack.timestamps().map(|(tsval, _)| tsval), now),
        }
    }

    /// The kernel repeats its SYN-ACK, with a newer TSval: the client goes on from whichever reaches it, and takes nothing
    /// older afterwards.
    pub fn hear_again<B: AsRef<[u8]>>(&mut self, syn_ack: &Segment<B, ToClientWire>, now: Instant) {
        if let (Some((_, heard)), Some((tsval, _))) = (&mut self.timestamps, syn_ack.timestamps()) {
            *heard = tsval;
        }
        self.at = now;
        self.syn_acks.hear(syn_ack.timestamps().map(|(tsval, _)| tsval), now);
    }

    /// The client's SYN once more, as far as the kernel reads a repeated one.
    pub fn syn(&self, flow: &FlowKey) -> Vec<u8> {
        SegmentSpec::<ToServerWire> {
            source: flow.client,
            destination: flow.frontend,
            seq: self.client_isn,
            ack: Seq::new(0),
            flags: Flags::SYN,
            window: self.syn_window,
            mss: Some(self.client_mss),
            window_scale: self.window_scales.map(|scales| scales.client),
            sack_permitted: self.sack,
            timestamps: self.timestamps.map(|(tsval, _)| (tsval, Timestamp::new(0))),
            traffic_class: 0,
            payload: &[],
        }
        .build()
        .into_inner()
    }

    /// The window field BTCP may put on a segment of its own: the SYN-ACK's window, in the promised scale.
    pub fn initial_window(&self) -> u16 {
        let shift = self.window_scales.map_or(0, |scales| scales.frontend.shift());
        (self.syn_ack_window >> shift).max(1)
    }

    /// The state as it goes into an offer.
    #[allow(clippy::too_many_arguments)] // One call, and each is a field of the message.
    pub fn offer(
        &self,
        id: HandoffId,
        flow: FlowKey,
        service: &str,
        client: &ClientView,
        round_trip: Duration,
        acknowledged_early: bool,
        first_flight: &[u8],
        now: Instant,
    ) -> Offer {
        let since_syn_ack = now.saturating_duration_since(self.at).as_millis() as u32;
        Offer {
            id,
            flow,
            service: service.to_owned(),
            client_isn: self.client_isn,
            frontend_isn: self.frontend_isn,
            client_mss: self.client_mss,
            window_scales: self.window_scales,
            sack: self.sack,
            timestamps: self.timestamps.map(|(syn, syn_ack)| OfferedTimestamps {
                client: client.tsval.unwrap_or(syn),
                frontend: syn_ack.plus(since_syn_ack),
            }),
            ecn: self.ecn,
            syn_window: self.syn_window,
            window: client.window,
            round_trip,
            acknowledged_early,
            probe: false,
            first_flight: first_flight.to_vec(),
        }
    }
}

/// The MSS of a peer that sends no MSS option (RFC 9293, section 3.7.1; RFC 8200 for IPv6).
const fn default_mss(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(_) => 536,
        IpAddr::V6(_) => 1_220,
    }
}

/// The latest a client has shown of itself.
#[derive(Clone, Copy, Debug)]
pub struct ClientView {
    /// Window field.
    pub window: u16,
    /// Newest TSval.
    pub tsval: Option<Timestamp<Client>>,
    /// Highest sequence number after a segment.
    pub next: Seq<Client>,
    /// Highest acknowledgement.
    pub acknowledged: Seq<Wire>,
}

impl ClientView {
    /// After the handshake.
    pub fn new(initial: &InitialState) -> Self {
        Self {
            window: initial.syn_window,
            tsval: initial.timestamps.map(|(syn, _)| syn),
            next: initial.client_isn.plus(1),
            acknowledged: initial.frontend_isn.plus(1),
        }
    }

    /// From a segment of a connection whose handshake nobody here saw.
    pub fn seen<B: AsRef<[u8]>>(segment: &Segment<B, ToServerWire>) -> Self {
        Self {
            window: segment.window(),
            tsval: segment.timestamps().map(|(tsval, _)| tsval),
            next: segment.seq_end(),
            acknowledged: segment.ack(),
        }
    }

    /// Takes in a segment.
    pub fn update<B: AsRef<[u8]>>(&mut self, segment: &Segment<B, ToServerWire>) {
        if !segment.flags().contains(Flags::ACK) || segment.flags().intersects(Flags::SYN.with(Flags::RST)) {
            return;
        }
        if self.next.is_before(&segment.seq_end()) {
            self.next = segment.seq_end();
        }
        if !segment.ack().is_before(&self.acknowledged) {
            self.acknowledged = segment.ack();
            self.window = segment.window();
        }
        if let (Some(newest), Some((tsval, _))) = (self.tsval, segment.timestamps())
            && tsval.since(&newest) > 0
        {
            self.tsval = Some(tsval);
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Only differences to the moment are used.
mod tests {
    use super::*;
    use crate::control::message::Epoch;
    use crate::flow::Endpoint;

    fn flow(port: u16) -> FlowKey {
        FlowKey { client: Endpoint::new([192, 0, 2, 1].into(), port), frontend: Endpoint::new([192, 0, 2, 2].into(), 80) }
    }

    fn syn() -> SegmentSpec<'static, ToServerWire> {
        SegmentSpec {
            source: flow(1).client,
            destination: flow(1).frontend,
            seq: Seq::new(1_000),
            ack: Seq::new(0),
            flags: Flags::SYN.with(Flags::ECE).with(Flags::CWR),
            window: 64_240,
            mss: Some(1_400),
            window_scale: Some(crate::rewrite::WindowScale::new(9)),
            sack_permitted: true,
            timestamps: Some((Timestamp::new(10), Timestamp::new(0))),
            traffic_class: 0,
            payload: &[],
        }
    }

    fn syn_ack() -> SegmentSpec<'static, ToClientWire> {
        SegmentSpec {
            source: flow(1).frontend,
            destination: flow(1).client,
            seq: Seq::new(77),
            ack: Seq::new(1_001),
            flags: Flags::SYN.with(Flags::ACK).with(Flags::ECE),
            window: 65_160,
            mss: Some(1_460),
            window_scale: Some(crate::rewrite::WindowScale::new(7)),
            sack_permitted: true,
            timestamps: Some((Timestamp::new(5_000), Timestamp::new(10))),
            traffic_class: 0,
            payload: &[],
        }
    }

    fn learn(syn_ack: &SegmentSpec<'_, ToClientWire>, now: Instant) -> InitialState {
        InitialState::learn(&SynRecord::of(&syn().build(), now), &syn_ack.build(), &flow(1), now)
    }

    #[test]
    fn only_what_both_sides_said_is_promised() {
        let now = Instant::now();
        let all = learn(&syn_ack(), now);
        assert!(all.sack && all.ecn && all.timestamps.is_some() && all.window_scales.is_some());
        let plain = SegmentSpec {
            window_scale: None,
            sack_permitted: false,
            timestamps: None,
            flags: Flags::SYN.with(Flags::ACK),
            ..syn_ack()
        };
        let none = learn(&plain, now);
        assert!(!none.sack && !none.ecn && none.timestamps.is_none() && none.window_scales.is_none());
        assert_eq!((none.client_mss, none.syn_window), (1_400, 64_240));
    }

    #[test]
    fn an_offer_carries_the_front_ends_clock_as_it_would_stand_now() {
        let now = Instant::now();
        let initial = learn(&syn_ack(), now);
        let id = HandoffId { epoch: Epoch(1), serial: 1 };
        let later = now + Duration::from_millis(1_250);
        let offer = initial.offer(id, flow(1), "web", &ClientView::new(&initial), Duration::ZERO, false, b"GET", later);
        let timestamps = offer.timestamps.expect("both sides use them");
        assert_eq!((timestamps.client, timestamps.frontend), (Timestamp::new(10), Timestamp::new(6_250)));
    }

    #[test]
    fn btcp_promises_the_window_of_the_syn_ack_in_the_promised_scale() {
        assert_eq!(learn(&syn_ack(), Instant::now()).initial_window(), 65_160 >> 7);
    }

    #[test]
    fn a_client_that_says_no_mss_has_the_least_of_its_family() {
        assert_eq!((default_mss([192, 0, 2, 1].into()), default_mss([0xfd77, 0, 0, 0, 0, 0, 0, 1].into())), (536, 1_220));
    }

    #[test]
    fn a_syn_is_taken_only_by_the_syn_ack_that_answers_it() {
        let now = Instant::now();
        let mut table = SynTable::new(1);
        table.insert(flow(1), SynRecord::of(&syn().build(), now));
        assert!(table.take(&flow(1), &SegmentSpec { ack: Seq::new(9), ..syn_ack() }.build()).is_none());
        assert!(table.take(&flow(1), &syn_ack().build()).is_some());
        assert!(table.take(&flow(1), &syn_ack().build()).is_none(), "once");
    }

    #[test]
    fn a_flood_of_syns_pushes_out_the_oldest_and_is_counted() {
        let now = Instant::now();
        let mut table = SynTable::new(1);
        let record = SynRecord::of(&syn().build(), now);
        let mut evicted = 0;
        for index in 0..limits::SYNS_MAX + 10 {
            let client = Endpoint::new([10, 0, (index >> 16) as u8, 1].into(), index as u16);
            evicted += table.insert(FlowKey { client, ..flow(1) }, record);
        }
        assert_eq!((evicted, table.count()), (10, limits::SYNS_MAX));
        let last = SynRecord { at: now + limits::SYN_LIFETIME, ..record };
        assert_eq!(table.insert(flow(8), last), 1, "none has expired yet");
        let later = SynRecord { at: now + limits::SYN_LIFETIME * 3, ..record };
        assert_eq!(table.insert(flow(9), later), 0, "what had expired was not evicted");
        assert_eq!(table.count(), 1);
    }
}
