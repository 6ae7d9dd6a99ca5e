//! The overlay on loopback: datagrams from a to b pass through the test's hands.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use baton::control::overlay::{OVERHEAD_V4, Overlay, Received, SessionKeys, Turn};
use baton::flow::NodeId;
use baton::limits::{OVERLAY_REJECTED_PER_WAKE, PACKETS_PER_WAKE};

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);

struct Overlays {
    a: Overlay,
    b: Overlay,
    between: UdpSocket,
    b_address: SocketAddr,
    buffer: Vec<u8>,
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
        Self { a, b, between, b_address, buffer: vec![0; 65_536] }
    }

    /// What a puts on the wire for `packet`.
    fn sealed(&mut self, packet: &[u8]) -> Vec<u8> {
        self.a.send(B, packet);
        let (length, _) = self.between.recv_from(&mut self.buffer).unwrap();
        self.buffer[..length].to_vec()
    }

    /// What b makes of a datagram.
    fn arrives(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        self.between.send_to(datagram, self.b_address).unwrap();
        match self.b.receive(&mut self.buffer, &mut Turn::new(1)) {
            Received::Packet(peer, packet) => {
                assert_eq!(peer, A);
                Some(self.buffer[packet].to_vec())
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
    let Received::Packet(peer, _) = overlays.b.receive(&mut overlays.buffer, &mut Turn::new(1)) else { panic!() };
    overlays.b.send(peer, b"answer");
    overlays.between.recv_from(&mut overlays.buffer).unwrap();
}

#[test]
fn what_cannot_be_sent_is_counted() {
    let mut overlays = Overlays::new();
    overlays.a.send(NodeId(7), b"packet");
    overlays.a.send(B, &[0; 65_500]);
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
            match overlays.b.receive(&mut overlays.buffer, &mut turn) {
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
        assert!(matches!(overlays.b.receive(&mut overlays.buffer, &mut turn), Received::Packet(..)));
        overlays.between.send_to(b"rubbish", overlays.b_address).unwrap();
        let _ = overlays.b.receive(&mut overlays.buffer, &mut turn);
    }
    assert_eq!(overlays.b.receive(&mut overlays.buffer, &mut turn), Received::TurnIsOver);
    assert_eq!(overlays.b.receive(&mut overlays.buffer, &mut Turn::new(0)), Received::TurnIsOver);
    assert_eq!(overlays.b.receive(&mut overlays.buffer, &mut Turn::new(1)), Received::Empty);
}
