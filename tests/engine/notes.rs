//! What is said about packets, for `--pcap`: whose they are, what became of them and why.

use super::driver::*;
use baton::handoff::counters::DropReason;
use baton::handoff::{Verdict, Why};
use baton::rewrite::{SegmentSpec, WindowScale};

const PORT: u16 = 50_000;

#[test]
fn a_packet_is_described_by_whose_it_is_and_the_state_of_its_connection() {
    let mut node = Node::new("a");
    let tun = |node: &Node, packet: Vec<u8>| node.engine.describe_tun(&packet);
    assert_eq!(node.engine.describe_tun(&[0x45]), "not a TCP segment");
    assert_eq!(tun(&node, syn(PORT).build().into_inner()), "client, a new connection");
    assert_eq!(tun(&node, ack(PORT).build().into_inner()), "client, a connection of the local server");
    assert_eq!(tun(&node, syn_ack(PORT).build().into_inner()), "local kernel, to a client");
    let elsewhere = SegmentSpec { source: baton::flow::Endpoint::new([10, 77, 0, 9].into(), 80), ..syn_ack(PORT) };
    assert_eq!(tun(&node, elsewhere.build().into_inner()), "a packet of no service");
    node.handshake_of(PORT);
    assert_eq!(tun(&node, ack(PORT).build().into_inner()), "client (undecided)");
    assert_eq!(tun(&node, syn_ack(PORT).build().into_inner()), "local kernel, to a client (undecided)");

    let mut owner = Node::new("b");
    let through = ack(PORT).build().into_inner();
    assert_eq!(owner.engine.describe_overlay(&through), "client, through the front-end 10.77.0.1:80 (unknown)");
    assert_eq!(owner.engine.describe_overlay(&[0x45]), "not a TCP segment");
    let alias = owner.established(&offer(PORT));
    assert_eq!(owner.engine.describe_overlay(&through), "client, through the front-end 10.77.0.1:80 (established)");
    let sent = from_kernel(alias).build().into_inner();
    assert_eq!(owner.engine.describe_tun(&sent), "local kernel, a connection served for a front-end (established)");
    let other = SegmentSpec { destination: client(PORT + 1), ..from_kernel(alias) }.build().into_inner();
    assert_eq!(owner.engine.describe_tun(&other), "local kernel, a connection served for a front-end (unknown)");
}

#[test]
fn a_verdict_is_described_with_the_shifts_if_it_was_translated() {
    let mut owner = Node::new("b");
    let alias = owner.established(&offer(PORT));
    let (verdict, packet) = owner.read(&from_kernel(alias));
    let (seq, clock) = (FRONTEND_ISN - BACKEND_ISN, FRONTEND_TSVAL - BACKEND_TSVAL);
    let shifts = format!(
        "translated: {alias} at the local kernel is 10.77.0.1:80 to the client, sequence numbers +{seq}, timestamps +{clock}"
    );
    assert_eq!(owner.engine.describe_verdict(verdict, &packet), shifts);
    let (verdict, packet) = owner.overlay(A, &ack(PORT));
    assert_eq!(owner.engine.describe_verdict(verdict, &packet), shifts);
    let mut scaled = offer(PORT);
    scaled.window_scales.as_mut().expect("both sides scale").frontend = WindowScale::new(9);
    let mut owner = Node::new("b");
    let alias = owner.established(&scaled);
    let (verdict, packet) = owner.read(&from_kernel(alias));
    assert_eq!(owner.engine.describe_verdict(verdict, &packet), format!("{shifts}, window scale 9 instead of 7"));

    let node = Node::new("a");
    let described = |verdict| node.engine.describe_verdict(verdict, &ack(PORT).build().into_inner());
    assert_eq!(described(Verdict::Write), "passed on");
    assert_eq!(described(Verdict::Forward(B)), "forwarded to b");
    assert_eq!(described(Verdict::Cut), "a super-segment, taken piece by piece");
    assert_eq!(described(Verdict::Consumed), "kept");
    assert_eq!(described(Verdict::Drop(DropReason::Checksum)), "dropped: checksum");
}

#[test]
fn remarks_tell_the_course_of_a_handoff_to_whoever_listens() {
    let mut node = Node::new("a");
    node.handed_off(PORT);
    assert_eq!(node.engine.take_remarks(), Vec::<String>::new(), "nobody listens");
    node.engine.listen_to_remarks();
    node.handed_off(PORT + 1);
    assert_eq!(node.engine.take_remarks(), ["decided by rule \"images\"", "offered to b", "handed off to b"]);
    assert_eq!(node.engine.take_remarks(), Vec::<String>::new());
}

#[test]
fn every_reason_has_words_of_its_own() {
    let all = [
        Why::Replay,
        Why::RepeatedSyn,
        Why::Purge,
        Why::FirstFlight,
        Why::Released,
        Why::ReleasedWithEcho,
        Why::Follows,
        Why::Overtook,
        Why::KeptSyn,
        Why::WithoutData,
        Why::EarlyAcknowledgement,
        Why::Challenge,
        Why::Repeated,
        Why::Reset,
    ];
    let texts: std::collections::BTreeSet<_> = all.iter().map(|why| why.text()).collect();
    assert_eq!(texts.len(), all.len());
    assert!(texts.iter().all(|text| text.len() > 10));
}
