//! The SYN-ACKs that the local kernel makes for one connection: what they tell of the client's round trip, and what the
//! acknowledgement that completes the handshake must echo so that the kernel learns that round trip and no other.

use crate::flow::FlowKey;
use crate::limits;
use crate::rewrite::{Segment, Seq, Timestamp, ToServerWire, Wire};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// The SYN-ACKs of one connection so far.
#[derive(Clone, Copy, Debug)]
pub struct SynAcks {
    first: SynAck,
    newest: SynAck,
    is_repeated: bool,
}

#[derive(Clone, Copy, Debug)]
struct SynAck {
    at: Instant,
    tsval: Option<Timestamp<Wire>>,
}

impl SynAcks {
    /// The first one.
    pub const fn new(tsval: Option<Timestamp<Wire>>, at: Instant) -> Self {
        let first = SynAck { at, tsval };
        Self { first, newest: first, is_repeated: false }
    }

    /// One more.
    pub const fn hear(&mut self, tsval: Option<Timestamp<Wire>>, at: Instant) {
        self.newest = SynAck { at, tsval };
        self.is_repeated = true;
    }

    /// Whether there was more than one: the kernel then does not time the handshake, but for an echoed timestamp.
    pub const fn is_repeated(&self) -> bool {
        self.is_repeated
    }

    /// The client's round trip when its acknowledgement arrives. Which of several SYN-ACKs it answers only its echo tells
    /// (Karn's algorithm); in doubt it is the first, and the round trip may then be shorter than this.
    pub fn round_trip(&self, echoed: Option<Timestamp<Wire>>, now: Instant) -> Duration {
        let answers_newest = !self.is_repeated || (echoed.is_some() && echoed == self.newest.tsval);
        now.saturating_duration_since(if answers_newest { self.newest.at } else { self.first.at })
    }

    /// Whether this echoes a clock later than that of all of them: the client has heard more of the local kernel. Zero is what
    /// is echoed by those who know no better.
    pub fn are_surpassed_by<B: AsRef<[u8]>>(&self, segment: &Segment<B, ToServerWire>) -> bool {
        let (Some(newest), Some((_, echoed))) = (self.newest.tsval, segment.timestamps()) else { return false };
        echoed.raw() != 0 && echoed.since(&newest) > 0
    }

    /// What an acknowledgement that completes the handshake now has to echo, if it is to have taken `round_trip`: what the
    /// kernel's clock showed that long ago. The kernel believes only echoes from its first to its newest SYN-ACK; if the
    /// newest is older than that, nothing is echoed, and nothing learned. None without timestamps.
    pub fn echo(&self, round_trip: Duration, now: Instant) -> Option<Timestamp<Wire>> {
        let (first, newest) = (self.first.tsval?, self.newest.tsval?);
        let since_newest = now.saturating_duration_since(self.newest.at);
        let Some(before_newest) = round_trip.checked_sub(since_newest) else { return Some(Timestamp::new(0)) };
        let range = u32::try_from(newest.since(&first)).unwrap_or(0);
        // To the nearest tick of the clock: a millisecond (RFC 7323, section 5.4, and Linux), or a microsecond, if the route to
        // the client has that feature (`tcp_usec_ts`).
        let tick_in_microseconds = if range > limits::MILLISECONDS_BETWEEN_SYN_ACKS_MAX { 1 } else { 1_000 };
        let ticks = before_newest.as_micros() + tick_in_microseconds / 2;
        let ticks = u32::try_from(ticks / tick_in_microseconds).unwrap_or(u32::MAX);
        Some(newest.plus(ticks.min(range).wrapping_neg()))
    }
}

/// SYN-ACKs that were asked for by repeating a SYN and have not come yet, of connections that are the local server's by now.
/// The client, whose connection is established for long, must not see them. Bounded; the oldest goes first.
#[derive(Clone, Debug, Default)]
pub struct LateSynAcks {
    by_flow: BTreeMap<FlowKey, (Seq<Wire>, Instant)>,
    by_age: VecDeque<(FlowKey, Instant)>,
}

impl LateSynAcks {
    /// One with this sequence number may still come.
    pub fn expect(&mut self, flow: FlowKey, seq: Seq<Wire>, now: Instant) {
        while let Some((oldest, at)) = self.by_age.front().copied() {
            let is_over = now.saturating_duration_since(at) > limits::LATE_SYN_ACK_LIFETIME;
            if !is_over && self.by_age.len() < limits::LATE_SYN_ACKS_MAX {
                break;
            }
            self.by_age.pop_front();
            if self.by_flow.get(&oldest).is_some_and(|(_, kept)| *kept == at) {
                self.by_flow.remove(&oldest);
            }
        }
        self.by_flow.insert(flow, (seq, now));
        self.by_age.push_back((flow, now));
    }

    /// Whether this SYN-ACK is one of them. Another of the same connection is the kernel's own.
    pub fn take(&mut self, flow: &FlowKey, seq: Seq<Wire>, now: Instant) -> bool {
        let Some((expected, at)) = self.by_flow.get(flow).copied() else { return false };
        let is_it = expected == seq && now.saturating_duration_since(at) <= limits::LATE_SYN_ACK_LIFETIME;
        self.by_flow.remove(flow);
        is_it
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Only differences to the moment are used.
mod tests {
    use super::*;

    const FIRST: u32 = u32::MAX - 100;

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn tsval(after: u32) -> Option<Timestamp<Wire>> {
        Some(Timestamp::new(FIRST).plus(after))
    }

    #[test]
    fn a_fresh_syn_ack_lets_the_echo_say_the_true_round_trip() {
        let origin = Instant::now();
        let mut heard = SynAcks::new(tsval(0), origin);
        assert_eq!(heard.round_trip(tsval(0), origin + milliseconds(100)), milliseconds(100));
        let later = origin + milliseconds(800);
        heard.hear(tsval(800), later);
        assert_eq!(heard.echo(milliseconds(100), later), tsval(700), "across the wrap of the clock");
        assert_eq!(heard.echo(Duration::from_micros(100), later), tsval(800));
    }

    #[test]
    fn an_echo_never_lies_before_the_first_syn_ack_nor_after_the_newest() {
        let origin = Instant::now();
        let mut heard = SynAcks::new(tsval(0), origin);
        let later = origin + milliseconds(50);
        heard.hear(tsval(50), later);
        assert_eq!(heard.echo(milliseconds(51), later), tsval(0), "a tick more than there was");
        assert_eq!(heard.echo(milliseconds(20), later + milliseconds(15)), tsval(45));
        let mut heard = SynAcks::new(tsval(0), origin);
        let later = origin + milliseconds(15_000);
        heard.hear(tsval(limits::MILLISECONDS_BETWEEN_SYN_ACKS_MAX), later);
        assert_eq!(heard.echo(milliseconds(100), later), tsval(14_900), "still a clock of milliseconds");
    }

    #[test]
    fn what_cannot_be_said_is_left_unsaid() {
        let origin = Instant::now();
        let mut heard = SynAcks::new(tsval(0), origin);
        heard.hear(tsval(1_000), origin + milliseconds(1_000));
        let silent = heard.echo(milliseconds(100), origin + milliseconds(1_500));
        assert_eq!(silent, Some(Timestamp::new(0)), "the newest SYN-ACK is older than the round trip");
        assert_eq!(SynAcks::new(None, origin).echo(milliseconds(1), origin), None, "no timestamps");
    }

    #[test]
    fn a_clock_of_microseconds_is_echoed_in_microseconds() {
        let origin = Instant::now();
        for (hold, across) in [(21, 100), (700, 100), (2_500, 300)] {
            let mut heard = SynAcks::new(tsval(0), origin);
            let later = origin + milliseconds(across + hold);
            let newest = 1_000 * (across + hold) as u32;
            heard.hear(tsval(newest), later);
            assert_eq!(heard.echo(milliseconds(across), later), tsval(newest - 1_000 * across as u32), "held for {hold} ms");
            assert_eq!(heard.echo(Duration::from_micros(150), later), tsval(newest - 150));
        }
    }

    #[test]
    fn which_syn_ack_a_client_answers_only_its_echo_tells() {
        let origin = Instant::now();
        let mut heard = SynAcks::new(tsval(0), origin);
        heard.hear(tsval(1_000), origin + milliseconds(1_000));
        let now = origin + milliseconds(1_100);
        assert_eq!(heard.round_trip(tsval(1_000), now), milliseconds(100));
        assert_eq!(heard.round_trip(tsval(0), now), milliseconds(1_100));
        let mut unmarked = SynAcks::new(None, origin);
        unmarked.hear(None, origin + milliseconds(1_000));
        assert_eq!(unmarked.round_trip(None, now), milliseconds(1_100), "in doubt the client is far");
    }

    #[test]
    fn of_late_syn_acks_the_oldest_go_first_by_number_and_by_age() {
        use crate::flow::Endpoint;
        let flow = |port: usize| FlowKey {
            client: Endpoint::new([192, 0, 2, (port >> 16) as u8].into(), port as u16),
            frontend: Endpoint::new([10, 0, 0, 1].into(), 80),
        };
        let (origin, seq) = (Instant::now(), Seq::new(7));
        let mut late = LateSynAcks::default();
        for port in 0..limits::LATE_SYN_ACKS_MAX {
            late.expect(flow(port), seq, origin);
        }
        assert_eq!(late.by_flow.len(), limits::LATE_SYN_ACKS_MAX);
        // Expected anew, it is not forgotten with what was expected before.
        late.expect(flow(1), seq, origin + milliseconds(1));
        assert_eq!((late.by_age.len(), late.by_flow.len()), (limits::LATE_SYN_ACKS_MAX, limits::LATE_SYN_ACKS_MAX - 1));
        late.expect(flow(70_000), seq, origin + milliseconds(1));
        assert!(!late.by_flow.contains_key(&flow(0)) && late.take(&flow(1), seq, origin + milliseconds(1)));
        // To the moment.
        late.expect(flow(70_001), seq, origin + limits::LATE_SYN_ACK_LIFETIME);
        assert_eq!(late.by_age.len(), limits::LATE_SYN_ACKS_MAX);
        late.expect(flow(70_002), seq, origin + limits::LATE_SYN_ACK_LIFETIME + milliseconds(1));
        assert_eq!((late.by_age.len(), late.by_flow.len()), (4, 3), "the oldest only");
    }
}
