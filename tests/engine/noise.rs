//! What is no whole TCP segment: fragments, ICMP, and what is none of ours.

use super::driver::*;
use baton::handoff::Verdict;
use baton::handoff::counters::DropReason;
use baton::rewrite::{Flags, SegmentSpec, checksum};

const PORT: u16 = 50_000;

/// As the first fragment of an IPv4 packet, or one `offset` octets behind it.
fn fragment(mut packet: Vec<u8>, offset: u16) -> Vec<u8> {
    let more = if offset == 0 { 0x2000 } else { 0 };
    packet[6..8].copy_from_slice(&(more | (offset / 8)).to_be_bytes());
    sum_header(packet)
}

fn sum_header(mut packet: Vec<u8>) -> Vec<u8> {
    packet[10..12].fill(0);
    let sum = checksum::of(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A router's "fragmentation needed" about a packet.
pub fn too_big(quoted: &[u8]) -> Vec<u8> {
    let mut message = vec![3, 4, 0, 0, 0, 0, 5, 0];
    message.extend_from_slice(&quoted[..28]);
    let sum = checksum::of(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x45, 0, 0, (20 + message.len()) as u8, 0, 0, 0, 0, 64, 1, 0, 0, 203, 0, 113, 1];
    packet.extend_from_slice(&quoted[12..16]);
    sum_header([packet, message].concat())
}

#[test]
fn a_fragment_of_a_connection_that_was_given_away_never_reaches_the_kernel() {
    let mut node = Node::new("a");
    node.handed_off(PORT);
    let data = octets(PORT, 100, b"0123456789").build().into_inner();
    assert_eq!(node.tun(&mut fragment(data.clone(), 0)), Verdict::Drop(DropReason::Fragment));
    // Which connection a later one is of it does not say; without the first it is nothing.
    assert_eq!(node.tun(&mut fragment(data, 16)), Verdict::Write);
}

#[test]
fn fragments_of_other_connections_are_the_local_stacks() {
    let mut node = Node::new("a");
    node.handed_off(PORT);
    let other = octets(PORT + 1, 100, b"0123456789").build().into_inner();
    assert_eq!(node.tun(&mut fragment(other, 0)), Verdict::Write);
    // Another protocol, on the same numbers.
    let mut datagram = octets(PORT, 100, b"0123456789").build().into_inner();
    datagram[9] = 17;
    assert_eq!(node.tun(&mut fragment(datagram, 0)), Verdict::Write);
}

#[test]
fn an_icmp_error_goes_to_the_owner_and_becomes_one_about_its_kernels_packet() {
    let mut node = Node::new("a");
    node.handed_off(PORT);
    let answer = syn_ack(PORT).build().into_inner();
    assert_eq!(node.tun(&mut too_big(&answer)), Verdict::Forward(B));
    let other = SegmentSpec { destination: client(PORT + 1), ..syn_ack(PORT) }.build().into_inner();
    assert_eq!(node.tun(&mut too_big(&other)), Verdict::Write, "the local server's");

    let mut owner = Node::new("b");
    let alias = owner.established(&offer(PORT));
    let mut error = too_big(&answer);
    let verdict = owner.engine.handle_overlay(A, &mut error, owner.instant());
    assert_eq!(verdict, Verdict::Write);
    assert_eq!(error[16..20], error[40..44], "to the alias, about a packet from the alias");
    assert_eq!(std::net::IpAddr::from(<[u8; 4]>::try_from(&error[16..20]).expect("four octets")), alias.address);
    assert_eq!(error[48 + 4..48 + 8], BACKEND_ISN.to_be_bytes());
    let mut error = too_big(&other);
    let verdict = owner.engine.handle_overlay(A, &mut error, owner.instant());
    assert_eq!(verdict, Verdict::Drop(DropReason::NoConnection));
}

#[test]
fn what_is_none_of_ours_is_dropped_and_counted() {
    let mut node = Node::new("a");
    let elsewhere = |packet: &mut [u8]| packet[16..20].copy_from_slice(&[10, 77, 0, 200]);
    let mut packet = ack(PORT).build().into_inner();
    elsewhere(&mut packet);
    assert_eq!(node.tun(&mut packet), Verdict::Drop(DropReason::NotOurs));
    let mut packet = fragment(ack(PORT).build().into_inner(), 16);
    elsewhere(&mut packet);
    assert_eq!(node.tun(&mut packet), Verdict::Drop(DropReason::NotOurs));
    assert_eq!(node.tun(&mut [0x45, 0, 0]), Verdict::Drop(DropReason::Malformed));
    assert_eq!(node.tun(&mut []), Verdict::Drop(DropReason::Malformed));
    assert_eq!(node.counter("drops_total{reason=\"not_ours\"}"), 2);
    assert_eq!(node.counter("drops_total{reason=\"malformed\"}"), 2);
    // From an alias, without a connection: never onto the wire.
    let mut alias = fragment(ack(PORT).build().into_inner(), 16);
    alias[12..16].copy_from_slice(&[198, 18, 0, 1]);
    assert_eq!(node.tun(&mut alias), Verdict::Drop(DropReason::NoConnection));
    let from_alias = from_kernel(baton::flow::Endpoint::new([198, 18, 0, 1].into(), 80));
    assert_eq!(node.verdict(&from_alias), Verdict::Drop(DropReason::NoConnection));
}

#[test]
fn segments_of_the_local_servers_own_connections_pass() {
    let mut node = Node::new("a");
    let (verdict, packet) = node.read(&ack(PORT));
    assert_eq!((verdict, packet), (Verdict::Local, ack(PORT).build().into_inner()));
    assert_eq!(node.counter("local_packets_total"), 1);
    // What begins or ends a connection is not worth being learned.
    for flags in [Flags::FIN.with(Flags::ACK), Flags::RST.with(Flags::ACK), Flags::RST, Flags::SYN.with(Flags::ACK)] {
        assert_eq!(node.verdict(&SegmentSpec { flags, ..ack(PORT) }), Verdict::Write, "{flags:?}");
    }
    // A late segment while its client opens another connection with the same ends: what follows may be the new one's.
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Write);
    assert_eq!(node.verdict(&ack(PORT)), Verdict::Write);
    // Nothing came of it.
    node.wait(baton::limits::SYN_LIFETIME + 2 * baton::limits::HOUSEKEEPING_INTERVAL);
    assert_eq!(node.verdict(&ack(PORT)), Verdict::Local);
    let answer = SegmentSpec { flags: baton::rewrite::Flags::ACK, ..syn_ack(PORT) };
    let (verdict, packet) = node.read(&answer);
    assert_eq!((verdict, packet), (Verdict::Write, answer.build().into_inner()));
}

#[test]
fn other_packets_over_ipv6_are_the_local_stacks_if_they_are_for_it() {
    let mut node = Node::new("a");
    let echo = |last: u8| {
        let mut packet = vec![0x60, 0, 0, 0, 0, 8, 58, 64];
        packet.extend_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        packet.extend_from_slice(&[0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        packet.extend_from_slice(&[128, 0, 0, 0, 0, 1, 0, 1]);
        packet
    };
    assert_eq!(node.tun(&mut echo(1)), Verdict::Write);
    assert_eq!(node.tun(&mut echo(2)), Verdict::Drop(DropReason::NotOurs));
}
