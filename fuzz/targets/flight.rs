//! The first flight against a plain map of octets.

use super::input::Input;
use baton::flow::Endpoint;
use baton::handoff::flight::{Arrival, FirstFlight};
use baton::limits;
use baton::rewrite::{Client, Flags, Segment, SegmentSpec, Seq, ToServerWire};
use std::collections::BTreeMap;

const SEGMENTS_MAX: usize = 80;

/// Every octet the flight took, by its distance from the first; the first that came is kept where two differ.
#[derive(Default)]
struct Taken {
    octets: BTreeMap<i64, u8>,
    fins: Vec<i64>,
    segments: Vec<Vec<u8>>,
    payload: usize,
    beyond_hole: usize,
}

impl Taken {
    fn contiguous(&self) -> usize {
        (0..).zip(self.octets.range(0..)).take_while(|(expected, (at, _))| expected == *at).count()
    }

    /// What was taken beyond the first `contiguous` octets, a FIN counted as one.
    fn runs_beyond(&self, isn: Seq<Client>, contiguous: usize) -> Vec<(u32, u32)> {
        let mut places: Vec<i64> = self.octets.keys().chain(&self.fins).copied().filter(|at| *at > contiguous as i64).collect();
        places.sort_unstable();
        places.dedup();
        let at = |place: i64| isn.plus(1).plus(place as u32).raw();
        places.chunk_by(|one, next| next - one == 1).map(|run| (at(run[0]), at(run[run.len() - 1] + 1))).collect()
    }
}

pub fn run(octets: &[u8]) {
    let mut input = Input::new(octets);
    let isn = Seq::new(input.u32());
    let bytes_max = usize::from(input.u16());
    // Real clients repeat what they said; others say something else the second time.
    let is_consistent = input.bool();
    let (mut flight, mut taken) = (FirstFlight::new(isn), Taken::default());
    for _ in 0..SEGMENTS_MAX {
        if input.is_empty() {
            break;
        }
        let choice = input.u8();
        if choice == 0xff {
            flight.acknowledge_all();
            assert!(!flight.owes_acknowledgement());
            continue;
        }
        let next = flight.bytes().len() as i64;
        let at = match choice & 3 {
            0 => next,
            1 => next + i64::from(input.u8()) - 128,
            2 => i64::from(input.u16()),
            _ => i64::from(input.u32() as i32),
        };
        let payload: Vec<u8> = match choice >> 2 & 3 {
            0 => Vec::new(),
            1 => input.octets(usize::from(choice >> 4)).to_vec(),
            2 => input.short().to_vec(),
            _ => vec![choice; usize::from(input.u16() % 1_500)],
        };
        let said = |index: usize| ((at + index as i64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0];
        let payload = if is_consistent { (0..payload.len()).map(said).collect() } else { payload };
        let fin = choice & 0x50 == 0x50;
        insert(&mut flight, &mut taken, isn, at, &payload, fin, bytes_max);
        check(&flight, &taken, isn, is_consistent, bytes_max);
    }
    assert_eq!(reported(&flight), taken.runs_beyond(isn, flight.bytes().len()));
    let next = flight.next();
    let (mut beyond, bytes) = (flight.clone(), flight.bytes().len());
    let (beyond, whole) = (beyond.take_segments_beyond(), flight.into_segments());
    assert_eq!(whole, taken.segments, "not as they came");
    let mut expected = taken.segments;
    expected.retain(|packet| {
        let segment = Segment::<_, ToServerWire>::parse(packet.as_slice()).expect("a segment");
        segment.seq_len() > 0 && segment.seq_end().since(&next) > 0
    });
    assert_eq!(beyond, expected);
    assert!(bytes <= bytes_max + limits::FIRST_FLIGHT_SLACK_BYTES);
}

/// What the flight would report, in the order of the stream.
fn reported(flight: &FirstFlight) -> Vec<(u32, u32)> {
    let mut blocks = flight.sack_blocks();
    blocks.sort_unstable_by_key(|(left, _)| left.since(&flight.next()));
    blocks.iter().map(|(left, right)| (left.raw(), right.raw())).collect()
}

fn insert(flight: &mut FirstFlight, taken: &mut Taken, isn: Seq<Client>, at: i64, payload: &[u8], fin: bool, bytes_max: usize) {
    let segment = SegmentSpec::<ToServerWire> {
        source: Endpoint::new([192, 0, 2, 1].into(), 50_000),
        destination: Endpoint::new([192, 0, 2, 2].into(), 80),
        seq: isn.plus(1).plus(at as u32),
        ack: Seq::new(1),
        flags: if fin { Flags::ACK.with(Flags::FIN) } else { Flags::ACK },
        window: 1_000,
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        traffic_class: 0,
        payload,
    }
    .build();
    let before = (flight.bytes().len(), !flight.may_grow());
    let room = bytes_max + limits::FIRST_FLIGHT_SLACK_BYTES;
    match flight.insert(&segment, bytes_max) {
        arrival @ (Arrival::Progress | Arrival::Kept | Arrival::BeyondHole) => {
            assert!(taken.segments.len() < limits::HELD_SEGMENTS_MAX && taken.payload + payload.len() <= room);
            taken.segments.push(segment.packet().to_vec());
            taken.payload += payload.len();
            for (index, octet) in payload.iter().enumerate() {
                taken.octets.entry(at + index as i64).or_insert(*octet);
            }
            if fin {
                taken.fins.push(at + payload.len() as i64);
            }
            if at > before.0 as i64 && segment.seq_len() > 0 {
                taken.beyond_hole += 1;
            }
            assert_eq!(arrival == Arrival::BeyondHole, at > before.0 as i64 && segment.seq_len() > 0);
            assert!(at >= -1 && at - before.0 as i64 <= i64::from(limits::OCTETS_AHEAD_MAX), "believed at {at}");
        }
        // All of it was here: octets before the end of what is in order, or a FIN that was seen.
        Arrival::Old => {
            let end = at + i64::from(segment.seq_len());
            assert!(segment.seq_len() == 0 || end <= before.0 as i64 || (before.1 && taken.fins.contains(&(end - 1))));
            assert_eq!((flight.bytes().len(), !flight.may_grow()), before);
        }
        Arrival::Full => {
            let is_full = taken.segments.len() >= limits::HELD_SEGMENTS_MAX
                || taken.payload + payload.len() > room
                || taken.beyond_hole >= limits::SEGMENTS_BEYOND_HOLE_MAX;
            assert!(is_full, "refused with room left");
            assert_eq!((flight.bytes().len(), !flight.may_grow()), before);
        }
        Arrival::OutOfWindow => {
            assert!(at < -1 || at > before.0 as i64 + i64::from(limits::OCTETS_AHEAD_MAX));
            assert_eq!((flight.bytes().len(), !flight.may_grow()), before);
        }
    }
}

fn check(flight: &FirstFlight, taken: &Taken, isn: Seq<Client>, is_consistent: bool, bytes_max: usize) {
    let contiguous = taken.contiguous();
    assert_eq!(flight.bytes().len(), contiguous, "octets that are here are not in order");
    assert_eq!(flight.next(), isn.plus(1).plus(contiguous as u32));
    if is_consistent {
        assert!(flight.bytes().iter().eq(taken.octets.range(0..).take(contiguous).map(|(_, octet)| octet)));
    }
    assert!(taken.payload <= bytes_max + limits::FIRST_FLIGHT_SLACK_BYTES);
    assert!(flight.held_bytes() >= taken.payload);
    let finished = taken.fins.iter().any(|fin| *fin <= contiguous as i64);
    assert!(flight.may_grow() || finished, "finished before its end");
    assert!(flight.acknowledged().since(&flight.next()) <= 0);
}
