//! The overlay on loopback: datagrams from a to b pass through the test's hands.

use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU16;
use std::time::Duration;

use baton::control::overlay::{Inbox, OVERHEAD_V4, Overlay, Received, SessionKeys, Turn};
use baton::flow::{Endpoint, NodeId};
use baton::limits::{OVERLAY_DATAGRAMS_PER_CALL, OVERLAY_REJECTED_PER_WAKE, PACKETS_PER_WAKE};
use baton::rewrite::{Flags, Offload, Pieces, SegmentSpec, Seq, ToServerWire};

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);

struct Overlays {
    a: Overlay,
    b: Overlay,
    between: UdpSocket,
    b_address: SocketAddr,
    buffer: Vec<u8>,
    inbox: Inbox,
}

fn keys(session: u32, send: u8, receive: u8) -> SessionKeys {
    SessionKeys { session, send: [send; 32], receive: [receive; 32] }
}

impl Overlays {
    fn new() -> Self {
        let between = UdpSocket::bind("127.0.0.1:0").unwrap();
        between.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let address = between.local_addr().unwrap();
        let bind = || Overlay::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (mut a, mut b) = (bind(), bind());
        a.set_keys(B, address, keys(5, 1, 2));
        b.set_keys(A, address, keys(5, 2, 1));
        let b_address = b.source().local_addr().unwrap();
        Self { a, b, between, b_address, buffer: vec![0; 65_536], inbox: Inbox::new() }
    }

    /// What a puts on the wire for `packet`.
    fn sealed(&mut self, packet: &[u8]) -> Vec<u8> {
        self.a.send(B, packet);
        self.a.flush();
        let (length, _) = self.between.recv_from(&mut self.buffer).unwrap();
        self.buffer[..length].to_vec()
    }

    /// What b makes of a datagram.
    fn arrives(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        self.between.send_to(datagram, self.b_address).unwrap();
        match self.b.receive(&mut self.inbox, &mut Turn::new(1)) {
            Received::Packet(peer, packet, offload) => {
                assert_eq!((peer, offload), (A, Offload::NONE));
                Some(self.inbox.packet(packet, 0).to_vec())
            }
            Received::Empty => None,
            Received::TurnIsOver => panic!("one datagram is no flood"),
        }
    }
}

#[test]
fn a_packet_crosses_with_the_overhead_that_is_promised() {
    let mut overlays = Overlays::new();
    for length in [0, 1, 40, 1_400, 9_000] {
        let packet = vec![0x45; length];
        let datagram = overlays.sealed(&packet);
        assert_eq!(20 + 8 + datagram.len(), length + usize::from(OVERHEAD_V4));
        assert_eq!(overlays.arrives(&datagram), Some(packet));
    }
    assert_eq!((overlays.a.counters().sent_packets, overlays.b.counters().received_packets), (5, 5));
    assert_eq!(overlays.a.counters().sent_bytes, overlays.b.counters().received_bytes);
}

#[test]
fn replayed_forged_truncated_and_foreign_datagrams_are_dropped_and_counted() {
    let mut overlays = Overlays::new();
    let datagram = overlays.sealed(b"packet");
    assert!(overlays.arrives(&datagram).is_some());
    assert_eq!(overlays.arrives(&datagram), None);
    let datagram = overlays.sealed(b"packet");
    let mut forged = datagram.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(overlays.arrives(&forged), None);
    assert_eq!(overlays.arrives(&datagram[..datagram.len() - 1]), None);
    assert_eq!(overlays.arrives(&datagram[..20]), None);
    assert_eq!(overlays.arrives(&[]), None);
    let mut foreign = datagram.clone();
    foreign[8] ^= 1;
    assert_eq!(overlays.arrives(&foreign), None);
    assert!(overlays.arrives(&datagram).is_some(), "attempts to forge it do not harm the authentic packet");
    let counters = overlays.b.counters();
    assert_eq!((counters.replayed, counters.forged, counters.unknown, counters.received_packets), (1, 2, 3, 2));
}

#[test]
fn packets_of_the_session_before_still_open_after_a_new_one() {
    let mut overlays = Overlays::new();
    let straggler = overlays.sealed(b"old");
    let address = overlays.between.local_addr().unwrap();
    overlays.b.set_keys(A, address, keys(6, 4, 3));
    assert_eq!(overlays.arrives(&straggler), Some(b"old".to_vec()));
    overlays.a.set_keys(B, address, keys(6, 3, 4));
    let new = overlays.sealed(b"new");
    assert_eq!(overlays.arrives(&new), Some(b"new".to_vec()));
}

#[test]
fn an_authentic_packet_from_elsewhere_does_not_move_its_sender() {
    let mut overlays = Overlays::new();
    let datagram = overlays.sealed(b"packet");
    let elsewhere = UdpSocket::bind("127.0.0.1:0").unwrap();
    elsewhere.send_to(&datagram, overlays.b_address).unwrap();
    let Received::Packet(peer, ..) = overlays.b.receive(&mut overlays.inbox, &mut Turn::new(1)) else { panic!() };
    overlays.b.send(peer, b"answer");
    overlays.b.flush();
    overlays.between.recv_from(&mut overlays.buffer).unwrap();
}

#[test]
fn what_cannot_be_sent_is_counted() {
    let mut overlays = Overlays::new();
    overlays.a.send(NodeId(7), b"packet");
    overlays.a.send(B, &[0; 65_500]);
    overlays.a.flush();
    let counters = overlays.a.counters();
    assert_eq!((counters.no_key, counters.send_failed, counters.sent_packets), (1, 1, 0));
}

/// The loop sleeps after `Empty` until something new comes: a packet that it left behind would wait with it.
#[test]
fn a_packet_behind_a_flood_of_rubbish_is_not_left_in_the_socket() {
    let mut overlays = Overlays::new();
    let rubbish = OVERLAY_REJECTED_PER_WAKE + 44;
    for _ in 0..rubbish {
        overlays.between.send_to(b"rubbish", overlays.b_address).unwrap();
    }
    let datagram = overlays.sealed(b"packet");
    overlays.between.send_to(&datagram, overlays.b_address).unwrap();

    let mut turns = vec![];
    let mut packets = 0;
    loop {
        let mut turn = Turn::new(PACKETS_PER_WAKE);
        let ended = loop {
            match overlays.b.receive(&mut overlays.inbox, &mut turn) {
                Received::Packet(..) => packets += 1,
                ended => break ended,
            }
        };
        turns.push(overlays.b.counters().unknown);
        if ended == Received::Empty {
            break;
        }
    }
    assert_eq!(packets, 1);
    assert_eq!(turns, [OVERLAY_REJECTED_PER_WAKE as u64, rubbish as u64], "what a turn rejects is bounded");
}

#[test]
fn what_is_rejected_between_packets_is_bounded_too() {
    let mut overlays = Overlays::new();
    let mut turn = Turn::new(usize::MAX);
    for _ in 0..OVERLAY_REJECTED_PER_WAKE {
        let datagram = overlays.sealed(b"packet");
        overlays.between.send_to(&datagram, overlays.b_address).unwrap();
        assert!(matches!(overlays.b.receive(&mut overlays.inbox, &mut turn), Received::Packet(..)));
        overlays.between.send_to(b"rubbish", overlays.b_address).unwrap();
        let _ = overlays.b.receive(&mut overlays.inbox, &mut turn);
    }
    assert_eq!(overlays.b.receive(&mut overlays.inbox, &mut turn), Received::TurnIsOver);
    assert_eq!(overlays.b.receive(&mut overlays.inbox, &mut Turn::new(0)), Received::TurnIsOver);
    assert_eq!(overlays.b.receive(&mut overlays.inbox, &mut Turn::new(1)), Received::Empty);
}

/// A client's segment of an upload.
fn segment(offset: u32, payload: &[u8]) -> Vec<u8> {
    let spec = SegmentSpec::<ToServerWire> {
        source: Endpoint::new([192, 0, 2, 1].into(), 50_000),
        destination: Endpoint::new([192, 0, 2, 2].into(), 80),
        seq: Seq::new(u32::MAX - 5_000).plus(offset),
        ack: Seq::new(1),
        flags: Flags::ACK,
        window: 1_000,
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        traffic_class: 0,
        payload,
    };
    spec.build().into_inner()
}

fn cut(packet: &[u8], offload: &Offload) -> Vec<Vec<u8>> {
    let mut pieces = Pieces::of(packet, offload, usize::MAX).unwrap();
    let mut out = vec![0; packet.len()];
    std::iter::from_fn(|| pieces.write_next(&mut out).map(|length| out[..length].to_vec())).collect()
}

impl Overlays {
    /// Lets both speak to each other directly.
    fn connected() -> Self {
        let mut overlays = Self::new();
        let address = overlays.b_address;
        overlays.a.set_keys(B, address, keys(9, 1, 2));
        overlays.b.set_keys(A, address, keys(9, 2, 1));
        overlays
    }

    /// What b receives in one turn, and in how many calls; the last of them finds nothing.
    fn received(&mut self) -> (Vec<(Vec<u8>, Offload)>, u64) {
        let before = self.b.counters().receive_calls;
        let mut turn = Turn::new(PACKETS_PER_WAKE);
        let mut packets = Vec::new();
        loop {
            match self.b.receive(&mut self.inbox, &mut turn) {
                Received::Packet(_, packet, offload) => packets.push((self.inbox.packet(packet, 0).to_vec(), offload)),
                Received::Empty => return (packets, self.b.counters().receive_calls - before),
                Received::TurnIsOver => turn = Turn::new(PACKETS_PER_WAKE),
            }
        }
    }
}

#[test]
fn a_super_segment_crosses_in_one_call_and_arrives_as_one() {
    let mut overlays = Overlays::connected();
    overlays.inbox.set_joins(true);
    let payload: Vec<u8> = (0..60_000_u32).map(|octet| octet as u8).collect();
    let packet = segment(0, &payload);
    let offload = Offload { segment_bytes: NonZeroU16::new(1_400), ..Offload::NONE };
    overlays.a.send_offloaded(B, &packet, &offload);
    overlays.a.flush();
    let (received, calls) = overlays.received();
    let pieces: Vec<_> = received.iter().flat_map(|(packet, offload)| cut(packet, offload)).collect();
    assert_eq!(pieces, cut(&packet, &offload));
    let counters = overlays.a.counters();
    assert_eq!((counters.sent_packets, counters.cut), (43, 1));
    // As far as this kernel goes: loopback has both.
    assert!(overlays.a.offload().sends && overlays.b.offload().receives);
    assert_eq!((counters.send_calls, calls, received.len()), (1, 2, 1));
    assert_eq!(overlays.b.counters().joined, 42);
}

#[test]
fn without_help_of_the_kernel_every_datagram_has_its_call() {
    let mut overlays = Overlays::connected();
    overlays.a.send_one_by_one();
    let packet = segment(0, &[7; 14_000]);
    let offload = Offload { segment_bytes: NonZeroU16::new(1_400), ..Offload::NONE };
    overlays.a.send_offloaded(B, &packet, &offload);
    assert_eq!((overlays.a.counters().send_calls, overlays.a.counters().sent_packets), (10, 10));
    let (received, _) = overlays.received();
    assert_eq!(received.iter().map(|(packet, _)| packet.clone()).collect::<Vec<_>>(), cut(&packet, &offload));
}

#[test]
fn packets_of_any_length_for_any_peer_keep_their_order() {
    let mut overlays = Overlays::connected();
    let lengths = [40, 40, 40, 52, 52, 40, 1_400, 1_400, 9_000, 60_000, 60_000, 100, 0, 0, 41];
    for (index, length) in lengths.iter().enumerate() {
        overlays.a.send(B, &vec![index as u8; *length]);
        if index == 7 {
            // Between them, one for somebody else.
            overlays.a.send(NodeId(7), b"nobody");
        }
    }
    for index in 0..OVERLAY_DATAGRAMS_PER_CALL as u8 + 3 {
        overlays.a.send(B, &[index; 40]);
    }
    overlays.a.flush();
    overlays.a.flush();
    let (received, _) = overlays.received();
    let received: Vec<_> = received.into_iter().map(|(packet, _)| packet).collect();
    let mut expected: Vec<_> = lengths.iter().enumerate().map(|(index, length)| vec![index as u8; *length]).collect();
    expected.extend((0..OVERLAY_DATAGRAMS_PER_CALL as u8 + 3).map(|index| vec![index; 40]));
    assert_eq!(received, expected);
    let counters = overlays.a.counters();
    assert_eq!((counters.no_key, counters.send_failed, counters.sent_packets), (1, 0, expected.len() as u64));
    assert_eq!(counters.sent_bytes, overlays.b.counters().received_bytes);
    assert!(counters.send_calls < 14, "{}", counters.send_calls);
}

#[test]
fn a_datagram_that_is_damaged_or_repeated_among_others_costs_only_itself() {
    let mut overlays = Overlays::new();
    overlays.inbox.set_joins(true);
    let sealed: Vec<_> = (0..6).map(|index| overlays.sealed(&segment(index * 1_000, &[index as u8; 1_000]))).collect();
    let mut datagrams = sealed.clone();
    *datagrams[2].last_mut().unwrap() ^= 1;
    datagrams.insert(1, sealed[0].clone());
    let one = datagrams.concat();
    let address = overlays.b_address;
    let sender = mio::net::UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    baton::control::socket::send_datagrams(&sender, &one, sealed[0].len() as u16, address).unwrap();
    let (received, calls) = overlays.received();
    assert_eq!((overlays.b.counters().forged, overlays.b.counters().replayed, calls), (1, 1, 2));
    let pieces: Vec<_> =
        received.iter().flat_map(|(packet, offload)| cut(packet, offload)).map(|piece| piece[40..].to_vec()).collect();
    assert_eq!(pieces, [0, 1, 3, 4, 5].map(|octet| vec![octet; 1_000]));
    assert_eq!(received.len(), 2, "a hole is not joined over");
}

#[test]
fn a_turn_that_ends_among_datagrams_of_one_call_loses_none() {
    let mut overlays = Overlays::connected();
    for index in 0..10 {
        overlays.a.send(B, &[index; 40]);
    }
    overlays.a.flush();
    let mut got = Vec::new();
    for _ in 0..10 {
        let mut turn = Turn::new(1);
        let Received::Packet(_, packet, _) = overlays.b.receive(&mut overlays.inbox, &mut turn) else { panic!() };
        got.push(overlays.inbox.packet(packet, 0)[0]);
        assert_eq!(overlays.b.receive(&mut overlays.inbox, &mut turn), Received::TurnIsOver);
    }
    assert_eq!(got, (0..10).collect::<Vec<u8>>());
    assert_eq!(overlays.b.receive(&mut overlays.inbox, &mut Turn::new(1)), Received::Empty);
}
