//! A packet of a connection that is decided asks for no memory, anywhere on its way through the process: not at the front-end,
//! which seals it for its owner, not at the owner, which opens and translates it, and not on its way back; nor does one of a
//! connection that the local server serves. Counted by the allocator itself.

#[allow(dead_code)]
#[path = "../benches/policy/allocations.rs"]
mod allocations;
#[allow(dead_code)]
#[path = "../benches/engine/cluster.rs"]
mod cluster;

use allocations::{Counting, allocations};
use baton::control::overlay::{Inbox, Overlay, Received, SessionKeys, Turn};
use baton::flow::NodeId;
use baton::handoff::Verdict;
use baton::rewrite::Offload;
use cluster::{BEHIND_REQUEST, Cluster, from_client, from_kernel};
use std::num::NonZeroU16;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FRONT: NodeId = NodeId(0);
const BACK: NodeId = NodeId(1);
const SUPER_SEGMENT: Offload = Offload { partial_checksum: None, segment_bytes: NonZeroU16::new(1_388), ecn: false };

/// The overlay from the front-end to the back-end, on loopback.
struct Path {
    front: Overlay,
    back: Overlay,
    inbox: Inbox,
}

impl Path {
    fn new(joins: bool) -> Self {
        let bind = || Overlay::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (mut front, mut back) = (bind(), bind());
        let (here, there) = (front.source().local_addr().unwrap(), back.source().local_addr().unwrap());
        front.set_keys(BACK, there, SessionKeys { session: 1, send: [1; 32], receive: [2; 32] });
        back.set_keys(FRONT, here, SessionKeys { session: 1, send: [2; 32], receive: [1; 32] });
        let mut inbox = Inbox::new();
        inbox.set_joins(joins);
        Self { front, back, inbox }
    }
}

/// A client's packet from the front-end's TUN to the back-end's; how many packets came out.
fn forward(cluster: &mut Cluster, path: &mut Path, packet: &mut [u8], offload: Offload) -> usize {
    let verdict = cluster.front.handle_tun(packet, offload, cluster.now);
    assert_eq!(verdict, Verdict::Forward(BACK));
    path.front.send_offloaded(BACK, packet, &offload);
    path.front.flush();
    let (mut turn, mut count) = (Turn::new(256), 0);
    while let Received::Packet(from, range, offload) = path.back.receive(&mut path.inbox, &mut turn) {
        let packet = path.inbox.packet(range, 0);
        assert_eq!(cluster.back.handle_overlay_offloaded(from, packet, offload, cluster.now), Verdict::Write);
        count += 1;
    }
    assert!(cluster.front.poll_output().is_none() && cluster.back.poll_output().is_none());
    count
}

#[test]
fn a_packet_of_a_handed_off_connection_asks_for_no_memory_in_either_direction() {
    let mut cluster = Cluster::new(1, 10);
    let aliases: Vec<_> = (0..100).map(|index| cluster.hand_off(index)).collect();
    let mut path = Path::new(true);
    let mut uploads: Vec<_> =
        (0..100).map(|index| from_client(index, BEHIND_REQUEST, &[7; 1_388]).build().into_inner()).collect();
    let mut acknowledgements: Vec<_> =
        (0..100).map(|index| from_client(index, BEHIND_REQUEST, &[]).build().into_inner()).collect();
    let mut large: Vec<_> = (0..100).map(|index| from_client(index, BEHIND_REQUEST, &[7; 60_000]).build().into_inner()).collect();
    let mut answers: Vec<_> =
        (0..100).map(|index| from_kernel(index, aliases[index as usize], 0, &[8; 60_000]).build().into_inner()).collect();
    // What is made once, for the first packet.
    let warm_up = forward(&mut cluster, &mut path, &mut uploads[0].clone(), Offload::NONE);
    assert_eq!(warm_up, 1);

    let mut came_out = 0;
    let count = allocations(|| {
        for packet in uploads.iter_mut().chain(&mut acknowledgements) {
            came_out += forward(&mut cluster, &mut path, packet, Offload::NONE);
        }
        for packet in &mut large {
            came_out += forward(&mut cluster, &mut path, packet, SUPER_SEGMENT);
        }
        for packet in &mut answers {
            assert_eq!(cluster.back.handle_tun(packet, SUPER_SEGMENT, cluster.now), Verdict::Write);
        }
    });
    assert_eq!(count, 0);
    // The large ones went in one call and were joined again.
    assert_eq!(came_out, 300);
    assert_eq!(path.back.counters().received_packets, 1 + 200 + 100 * 44);
}

#[test]
fn a_packet_that_is_sent_in_a_call_of_its_own_and_not_joined_asks_for_none_either() {
    let mut cluster = Cluster::new(1, 10);
    cluster.hand_off(0);
    let mut path = Path::new(false);
    path.front.send_one_by_one();
    let mut large = from_client(0, BEHIND_REQUEST, &[7; 60_000]).build().into_inner();
    forward(&mut cluster, &mut path, &mut large.clone(), SUPER_SEGMENT);
    let mut came_out = 0;
    assert_eq!(allocations(|| came_out = forward(&mut cluster, &mut path, &mut large, SUPER_SEGMENT)), 0);
    assert_eq!(came_out, 44);
}

#[test]
fn a_packet_of_a_connection_that_the_local_server_has_asks_for_no_memory() {
    let mut cluster = Cluster::new(1, 10);
    cluster.serve_locally(0);
    let mut packets: Vec<_> = (0..100).map(|offset| from_client(0, 50 + offset, b"more").build().into_inner()).collect();
    let count = allocations(|| {
        for packet in &mut packets {
            assert_eq!(cluster.front.handle_tun(packet, Offload::NONE, cluster.now), Verdict::Local);
        }
    });
    assert_eq!(count, 0);
    // The same counter does count.
    assert!(allocations(|| cluster.hand_off(1)) > 0);
}
