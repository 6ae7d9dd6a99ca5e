//! The first flight: the client's first segments, kept while nobody is decided to serve them.
//!
//! Knows how to put bytes in order (holes, duplicates, overlaps, any order) and how to give back the segments as they
//! came. Must not know requests or policy.

use crate::limits;
use crate::rewrite::{Client, Flags, Segment, Seq, ToServerWire};

/// The client's first bytes and the segments they came in.
#[derive(Clone, Debug)]
pub struct FirstFlight {
    /// Sequence number of the first byte: client ISN + 1.
    origin: Seq<Client>,
    /// Bytes that arrived in order.
    bytes: Vec<u8>,
    /// Segments as they came, in order of arrival, to be released or forwarded unchanged.
    segments: Vec<Vec<u8>>,
    /// Indices into `segments` of those beyond a hole.
    beyond_hole: Vec<usize>,
    /// Octets of payload in `segments`.
    payload_bytes: usize,
    /// Octets of memory: in `segments` and in `bytes`.
    held_bytes: usize,
    /// Sequence number after the FIN, once one was seen.
    fin: Option<Seq<Client>>,
    /// What follows the bytes in order is in a segment that says that octets are urgent.
    urgent: bool,
    /// How much of `bytes` the client knows has arrived.
    acknowledged: usize,
    /// Segments with payload since the last acknowledgement.
    unacknowledged_segments: usize,
}

/// What a segment brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// More bytes in order, or the FIN.
    Progress,
    /// Kept, but nothing that is in order.
    Kept,
    /// Kept; what comes before it is missing.
    BeyondHole,
    /// All of it was here already.
    Old,
    /// No room.
    Full,
    /// Too far ahead to be believed.
    OutOfWindow,
}

impl FirstFlight {
    /// Nothing yet, of a client with this ISN.
    pub fn new(client_isn: Seq<Client>) -> Self {
        Self {
            origin: client_isn.plus(1),
            bytes: Vec::new(),
            segments: Vec::new(),
            beyond_hole: Vec::new(),
            payload_bytes: 0,
            held_bytes: 0,
            fin: None,
            urgent: false,
            acknowledged: 0,
            unacknowledged_segments: 0,
        }
    }

    /// Takes a segment of the client.
    pub fn insert<B: AsRef<[u8]>>(&mut self, segment: &Segment<B, ToServerWire>, bytes_max: usize) -> Arrival {
        let behind_origin = self.origin.since(&segment.seq());
        if behind_origin > 1 || segment.seq().since(&self.next()) > crate::limits::OCTETS_AHEAD_MAX {
            return Arrival::OutOfWindow;
        }
        let carries = segment.seq_len() > 0;
        let says_nothing_new = if carries {
            !segment.seq_end().since(&self.next()).is_positive() || self.fin == Some(segment.seq_end())
        } else {
            // One acknowledgement completes the handshake; more of them say nothing.
            !self.segments.is_empty()
        };
        if says_nothing_new {
            return Arrival::Old;
        }
        let room = bytes_max.saturating_add(limits::FIRST_FLIGHT_SLACK_BYTES);
        if self.segments.len() >= limits::HELD_SEGMENTS_MAX
            || self.payload_bytes.saturating_add(segment.payload().len()) > room
            || self.beyond_hole.len() >= crate::limits::SEGMENTS_BEYOND_HOLE_MAX
        {
            return Arrival::Full;
        }
        self.payload_bytes += segment.payload().len();
        self.held_bytes += segment.packet().len() + segment.payload().len();
        self.segments.push(segment.completed());
        if !carries {
            return Arrival::Kept;
        }
        if !segment.payload().is_empty() {
            self.unacknowledged_segments += 1;
        }
        let was_urgent = self.urgent;
        if self.append(self.segments.len() - 1) {
            self.close_holes();
            return Arrival::Progress;
        }
        self.beyond_hole.push(self.segments.len() - 1);
        match segment.seq().since(&self.next()).is_positive() {
            _ if self.urgent && !was_urgent => Arrival::Progress,
            // Behind urgent octets there is none.
            true if !self.urgent => Arrival::BeyondHole,
            _ => Arrival::Kept,
        }
    }

    /// Appends what segment `index` adds in order; false when a hole lies before it, or it says that octets are urgent.
    fn append(&mut self, index: usize) -> bool {
        let Ok(segment) = Segment::<_, ToServerWire>::parse(self.segments[index].as_slice()) else {
            return true;
        };
        let known = i64::try_from(self.bytes.len()).unwrap_or(i64::MAX);
        let offset = i64::from(segment.seq().since(&self.origin));
        if offset > known {
            return false;
        }
        if segment.flags().contains(Flags::URG) {
            // An urgent octet is out of the stream for most applications (RFC 6093, section 2): it reaches a kernel only in
            // the client's own segment, and what follows it likewise.
            self.urgent |= segment.seq_end().since(&self.next()).is_positive();
            return false;
        }
        let skip = usize::try_from(known - offset).unwrap_or(0);
        self.bytes.extend_from_slice(segment.payload().get(skip..).unwrap_or_default());
        if segment.flags().contains(Flags::FIN) {
            self.fin = Some(segment.seq_end());
        }
        true
    }

    fn close_holes(&mut self) {
        let mut index = 0;
        while index < self.beyond_hole.len() {
            if self.append(self.beyond_hole[index]) {
                self.beyond_hole.swap_remove(index);
                index = 0;
            } else {
                index += 1;
            }
        }
    }

    /// Bytes in order.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The next sequence number expected, not counting a FIN.
    pub fn next(&self) -> Seq<Client> {
        self.origin.plus(self.bytes.len() as u32)
    }

    /// Whether there is more that can be inspected: no FIN, and nothing urgent.
    pub fn may_grow(&self) -> bool {
        self.fin.is_none() && !self.urgent
    }

    /// Whether this is exactly where a RST has to be (RFC 5961, section 3.2), or where the client was told it would have to be.
    pub fn is_exact_reset(&self, seq: Seq<Client>) -> bool {
        seq == self.received() || seq == self.next() || seq == self.acknowledged()
    }

    /// What a kernel would expect next: after the FIN, or after urgent octets and what followed them without a hole.
    fn received(&self) -> Seq<Client> {
        let mut received = self.fin.unwrap_or_else(|| self.next());
        let beyond: Vec<_> = (self.beyond_hole.iter())
            .filter_map(|index| Segment::<_, ToServerWire>::parse(self.segments.get(*index)?.as_slice()).ok())
            .map(|segment| (segment.seq(), segment.seq_end()))
            .collect();
        let follows = |received: Seq<Client>| {
            beyond.iter().find(|(seq, end)| !received.is_before(seq) && received.is_before(end)).map(|(_, end)| *end)
        };
        while let Some(end) = follows(received) {
            received = end;
        }
        received
    }

    /// What is here beyond a hole, as a receiver reports it (RFC 2018, section 4): neighbours joined, what was received last
    /// first.
    pub fn sack_blocks(&self) -> Vec<(Seq<Client>, Seq<Client>)> {
        let next = self.next();
        let mut pieces: Vec<_> = (self.beyond_hole.iter())
            .filter_map(|&index| {
                let segment = Segment::<_, ToServerWire>::parse(self.segments.get(index)?.as_slice()).ok()?;
                Some((segment.seq().since(&next), segment.seq_end().since(&next), index))
            })
            .collect();
        pieces.sort_unstable();
        pieces.dedup_by(|later, earlier| {
            let touches = later.0 <= earlier.1;
            if touches {
                *earlier = (earlier.0, earlier.1.max(later.1), earlier.2.max(later.2));
            }
            touches
        });
        // What follows the octets in order without a hole is urgent: not received beyond anything.
        pieces.retain(|(start, ..)| *start > 0);
        pieces.sort_unstable_by_key(|(_, _, received)| std::cmp::Reverse(*received));
        pieces.iter().map(|(start, end, _)| (next.plus(*start as u32), next.plus(*end as u32))).collect()
    }

    /// Octets of memory kept.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether the client may be waiting for an acknowledgement before it can send more.
    pub fn initial_window_is_used_up(&self) -> bool {
        self.unacknowledged_segments + 2 >= limits::INITIAL_WINDOW_SEGMENTS
    }

    /// Whether there are bytes in order that the client does not know arrived.
    pub fn owes_acknowledgement(&self) -> bool {
        self.acknowledged < self.bytes.len()
    }

    /// Up to where the client has been told that its bytes arrived.
    pub fn acknowledged(&self) -> Seq<Client> {
        self.origin.plus(self.acknowledged as u32)
    }

    /// The client is told now of everything in order.
    pub fn acknowledge_all(&mut self) {
        self.acknowledged = self.bytes.len();
        self.unacknowledged_segments = 0;
    }

    /// Whether the client was told of any byte.
    pub fn was_acknowledged(&self) -> bool {
        self.acknowledged > 0
    }

    /// The segments as they came.
    pub fn into_segments(self) -> Vec<Vec<u8>> {
        self.segments
    }

    /// Takes out the segments that say more than the bytes in order: beyond a hole, or with the FIN.
    pub fn take_segments_beyond(&mut self) -> Vec<Vec<u8>> {
        let next = self.next();
        std::mem::take(&mut self.segments)
            .into_iter()
            .filter(|packet| {
                Segment::<_, ToServerWire>::parse(packet.as_slice())
                    .is_ok_and(|segment| segment.seq_len() > 0 && segment.seq_end().since(&next).is_positive())
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Endpoint;
    use crate::rewrite::SegmentSpec;
    use proptest::prelude::*;

    const ISN: u32 = u32::MAX - 10;
    const ROOM: usize = 16 << 10;

    fn segment(offset: u32, payload: &[u8], flags: Flags) -> Segment<Vec<u8>, ToServerWire> {
        SegmentSpec {
            source: Endpoint::new([192, 0, 2, 1].into(), 50_000),
            destination: Endpoint::new([192, 0, 2, 2].into(), 80),
            seq: Seq::new(ISN).plus(1).plus(offset),
            ack: Seq::new(1),
            flags: flags.with(Flags::ACK),
            window: 1_000,
            mss: None,
            window_scale: None,
            sack_permitted: false,
            timestamps: None,
            traffic_class: 0,
            payload,
        }
        .build()
    }

    fn data(offset: u32, payload: &[u8]) -> Segment<Vec<u8>, ToServerWire> {
        segment(offset, payload, Flags(0))
    }

    #[test]
    fn bytes_come_out_in_order_across_the_wrap_of_sequence_numbers() {
        let mut flight = FirstFlight::new(Seq::new(ISN));
        assert_eq!(flight.insert(&data(8, b"ijkl"), ROOM), Arrival::BeyondHole);
        assert_eq!(flight.insert(&data(4, b"efgh"), ROOM), Arrival::BeyondHole);
        assert_eq!(flight.insert(&data(0, b"abcdef"), ROOM), Arrival::Progress);
        assert_eq!(flight.bytes(), b"abcdefghijkl");
        assert_eq!(flight.insert(&data(2, b"cd"), ROOM), Arrival::Old);
    }

    #[test]
    fn only_the_first_bare_acknowledgement_is_kept() {
        let mut flight = FirstFlight::new(Seq::new(ISN));
        assert_eq!(flight.insert(&data(0, b""), ROOM), Arrival::Kept);
        assert_eq!(flight.insert(&data(0, b""), ROOM), Arrival::Old);
        assert_eq!(flight.into_segments().len(), 1);
    }

    #[test]
    fn a_fin_finishes_the_flight_only_when_everything_before_it_is_here() {
        let mut flight = FirstFlight::new(Seq::new(ISN));
        assert_eq!(flight.insert(&segment(3, b"def", Flags::FIN), ROOM), Arrival::BeyondHole);
        assert!(flight.may_grow());
        assert_eq!(flight.insert(&data(0, b"abc"), ROOM), Arrival::Progress);
        assert!(!flight.may_grow());
        assert_eq!(flight.insert(&segment(3, b"def", Flags::FIN), ROOM), Arrival::Old, "a FIN sent again says nothing new");
    }

    #[test]
    fn urgent_octets_are_no_bytes_to_inspect_and_go_on_in_the_clients_own_segments() {
        let mut flight = FirstFlight::new(Seq::new(ISN));
        assert_eq!(flight.insert(&data(0, b"abc"), ROOM), Arrival::Progress);
        assert!(flight.may_grow());
        let urgent = segment(3, b"!", Flags::URG);
        assert_eq!(flight.insert(&urgent, ROOM), Arrival::Progress);
        assert_eq!(flight.insert(&data(4, b"def"), ROOM), Arrival::Kept);
        assert_eq!(flight.bytes(), b"abc");
        assert!(!flight.may_grow());
        assert_eq!(flight.take_segments_beyond(), [urgent.packet().to_vec(), data(4, b"def").packet().to_vec()]);
    }

    #[test]
    fn urgent_octets_beyond_a_hole_end_nothing_until_it_is_closed() {
        let mut flight = FirstFlight::new(Seq::new(ISN));
        assert_eq!(flight.insert(&segment(3, b"!", Flags::URG), ROOM), Arrival::BeyondHole);
        assert!(flight.may_grow(), "what is missing may be a whole request");
        assert_eq!(flight.insert(&data(4, b"def"), ROOM), Arrival::BeyondHole);
        assert_eq!(flight.insert(&data(0, b"abc"), ROOM), Arrival::Progress);
        assert_eq!(flight.bytes(), b"abc");
        assert!(!flight.may_grow());
        assert_eq!(flight.insert(&segment(3, b"!", Flags::URG), ROOM), Arrival::Kept, "sent again");
    }

    #[test]
    fn what_lies_beyond_holes_is_reported_joined_and_the_latest_first() {
        let after = |offset: u32| Seq::new(ISN).plus(1 + offset);
        let blocks = |flight: &FirstFlight, expected: &[(u32, u32)]| {
            let expected: Vec<_> = expected.iter().map(|(left, right)| (after(*left), after(*right))).collect();
            assert_eq!(flight.sack_blocks(), expected);
        };
        let mut flight = FirstFlight::new(Seq::new(ISN));
        flight.insert(&data(0, b"ab"), ROOM);
        blocks(&flight, &[]);
        flight.insert(&data(4, b"ef"), ROOM);
        flight.insert(&data(20, b"uv"), ROOM);
        blocks(&flight, &[(20, 22), (4, 6)]);
        flight.insert(&data(12, b"mn"), ROOM);
        blocks(&flight, &[(12, 14), (20, 22), (4, 6)]);
        flight.insert(&data(6, b"gh"), ROOM);
        blocks(&flight, &[(4, 8), (12, 14), (20, 22)]);
        flight.insert(&data(7, b"hijklmnop"), ROOM);
        blocks(&flight, &[(4, 16), (20, 22)]);
        flight.insert(&data(2, b"cd"), ROOM);
        blocks(&flight, &[(20, 22)]);
        flight.insert(&segment(22, b"", Flags::FIN), ROOM);
        blocks(&flight, &[(20, 23)]);
    }

    #[test]
    fn urgent_octets_without_a_hole_are_not_reported_as_beyond_one() {
        let mut flight = FirstFlight::new(Seq::new(ISN));
        flight.insert(&segment(0, b"!", Flags::URG), ROOM);
        assert_eq!(flight.sack_blocks(), []);
    }

    #[test]
    fn a_reset_is_exact_after_urgent_octets_and_what_follows_them() {
        let mut flight = FirstFlight::new(Seq::new(ISN));
        let after = |offset: u32| Seq::new(ISN).plus(1 + offset);
        flight.insert(&data(0, b"abc"), ROOM);
        flight.insert(&segment(3, b"!", Flags::URG), ROOM);
        assert!(flight.is_exact_reset(after(4)) && !flight.is_exact_reset(after(5)));
        flight.insert(&segment(6, b"fgh", Flags::FIN), ROOM);
        assert!(flight.is_exact_reset(after(4)) && !flight.is_exact_reset(after(10)), "a hole");
        flight.insert(&data(4, b"de"), ROOM);
        assert!(flight.is_exact_reset(after(10)) && !flight.is_exact_reset(after(4)) && !flight.is_exact_reset(after(11)));
    }

    #[test]
    fn a_reset_is_exact_after_the_last_octet_and_after_the_fin() {
        let mut flight = FirstFlight::new(Seq::new(ISN));
        flight.insert(&data(0, b"abc"), ROOM);
        let after = |offset: u32| Seq::new(ISN).plus(1 + offset);
        assert!(flight.is_exact_reset(after(3)) && !flight.is_exact_reset(after(4)) && !flight.is_exact_reset(after(2)));
        flight.insert(&segment(3, b"", Flags::FIN), ROOM);
        assert!(flight.is_exact_reset(after(4)) && !flight.is_exact_reset(after(5)));
        flight.acknowledge_all();
        assert!(flight.is_exact_reset(after(3)) && !flight.is_exact_reset(after(0)));
    }

    #[test]
    fn what_is_too_far_ahead_or_too_much_is_refused() {
        let mut flight = FirstFlight::new(Seq::new(ISN));
        assert_eq!(flight.insert(&data(70_000, b"x"), ROOM), Arrival::OutOfWindow);
        assert_eq!(flight.insert(&data(u32::MAX - 5, b"x"), ROOM), Arrival::OutOfWindow);
        for index in 0..crate::limits::SEGMENTS_BEYOND_HOLE_MAX as u32 {
            assert_eq!(flight.insert(&data(10 + index * 2, b"x"), ROOM), Arrival::BeyondHole);
        }
        assert_eq!(flight.insert(&data(10_000, b"x"), ROOM), Arrival::Full);
        let mut flight = FirstFlight::new(Seq::new(ISN));
        assert_eq!(flight.insert(&data(0, &[0; 40_000]), 0), Arrival::Progress);
        assert_eq!(flight.insert(&data(40_000, &[0; 40_000]), 0), Arrival::Full);
    }

    #[test]
    fn the_farthest_and_the_most_that_is_taken() {
        let ahead = crate::limits::OCTETS_AHEAD_MAX as u32;
        let mut flight = FirstFlight::new(Seq::new(ISN));
        assert_eq!(flight.insert(&data(ahead + 1, b"x"), ROOM), Arrival::OutOfWindow);
        assert_eq!(flight.insert(&data(ahead, b"x"), ROOM), Arrival::BeyondHole);
        // A keep-alive probe begins one octet early; nothing honest begins two.
        assert_eq!(flight.insert(&data(u32::MAX, b""), ROOM), Arrival::Old);
        assert_eq!(flight.insert(&data(u32::MAX - 1, b""), ROOM), Arrival::OutOfWindow);
        let slack = crate::limits::FIRST_FLIGHT_SLACK_BYTES;
        let mut flight = FirstFlight::new(Seq::new(ISN));
        assert_eq!(flight.insert(&data(0, &vec![0; slack / 2]), 10), Arrival::Progress);
        assert_eq!(flight.insert(&data((slack / 2) as u32, &vec![0; slack / 2 + 11]), 10), Arrival::Full);
        assert_eq!(flight.insert(&data((slack / 2) as u32, &vec![0; slack / 2 + 10]), 10), Arrival::Progress);
    }

    #[test]
    fn memory_is_counted_twice_for_octets_that_may_be_in_order_and_as_segments() {
        let mut flight = FirstFlight::new(Seq::new(ISN));
        flight.insert(&data(0, b""), ROOM);
        assert_eq!(flight.held_bytes(), 40);
        flight.insert(&data(0, b"abc"), ROOM);
        flight.insert(&data(10, b"klmno"), ROOM);
        assert_eq!(flight.held_bytes(), 40 + (40 + 3 + 3) + (40 + 5 + 5));
        flight.insert(&data(0, b"abc"), ROOM);
        assert_eq!(flight.held_bytes(), 136, "what is old is not kept");
    }

    #[test]
    fn only_octets_use_up_the_initial_window() {
        let mut flight = FirstFlight::new(Seq::new(ISN));
        flight.insert(&data(0, b""), ROOM);
        for offset in 0..crate::limits::INITIAL_WINDOW_SEGMENTS as u32 - 2 {
            assert!(!flight.initial_window_is_used_up(), "after {offset}");
            flight.insert(&data(offset, b"x"), ROOM);
        }
        assert!(flight.initial_window_is_used_up());
        flight.acknowledge_all();
        assert!(!flight.initial_window_is_used_up());
        let mut ended = FirstFlight::new(Seq::new(ISN));
        ended.insert(&segment(0, b"", Flags::FIN), ROOM);
        assert_eq!(ended.unacknowledged_segments, 0);
    }

    #[test]
    fn what_the_client_knows_is_counted_apart_from_what_arrived() {
        let mut flight = FirstFlight::new(Seq::new(ISN));
        flight.insert(&data(0, b"abc"), ROOM);
        assert_eq!((flight.acknowledged(), flight.next()), (Seq::new(ISN).plus(1), Seq::new(ISN).plus(4)));
        assert!(flight.owes_acknowledgement() && !flight.was_acknowledged());
        flight.acknowledge_all();
        assert_eq!(flight.acknowledged(), flight.next());
        assert!(!flight.owes_acknowledgement() && flight.was_acknowledged());
    }

    #[test]
    fn only_what_says_more_than_the_bytes_in_order_is_taken_out_to_be_forwarded() {
        let mut flight = FirstFlight::new(Seq::new(ISN));
        flight.insert(&data(0, b""), ROOM);
        flight.insert(&data(0, b"abc"), ROOM);
        flight.insert(&data(5, b"fgh"), ROOM);
        let mut bare = FirstFlight::new(Seq::new(ISN));
        assert_eq!(bare.insert(&data(5, b""), ROOM), Arrival::Kept);
        assert_eq!(bare.take_segments_beyond(), Vec::<Vec<u8>>::new(), "nothing to forward in it");
        let beyond = flight.take_segments_beyond();
        assert_eq!(beyond, [data(5, b"fgh").packet().to_vec()]);
    }

    proptest! {
        #[test]
        fn any_cutting_order_and_repetition_gives_the_same_bytes(
            stream in proptest::collection::vec(any::<u8>(), 1..400),
            cuts in proptest::collection::vec((any::<prop::sample::Index>(), 1usize..40), 0..60),
        ) {
            let mut flight = FirstFlight::new(Seq::new(ISN));
            for (index, length) in cuts {
                let start = index.index(stream.len());
                let end = (start + length).min(stream.len());
                flight.insert(&data(start as u32, &stream[start..end]), ROOM);
            }
            prop_assert!(stream.starts_with(flight.bytes()));
            // Whatever was missing comes at last.
            let have = flight.bytes().len();
            flight.insert(&data(have as u32, &stream[have..]), ROOM);
            prop_assert_eq!(flight.bytes(), &stream[..]);
        }
    }
}
