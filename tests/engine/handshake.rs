//! BTCP: from a client's SYN to the end of its handshake, of which the kernel hears as much as it may.

use super::driver::*;
use baton::control::message::Message;
use baton::handoff::counters::DropReason;
use baton::handoff::{Output, Verdict, Why};
use baton::rewrite::{Flags, SegmentSpec, Seq, ToClientWire, ToServerWire};

const PORT: u16 = 50_000;

#[test]
fn fast_open_and_multipath_are_taken_out_of_a_syn_and_nothing_else_is() {
    let mut node = Node::new("a");
    // TCP Fast Open, Multipath TCP, Fast Open as an experiment (RFC 6994), another experiment; the end of the word.
    let options = [34, 2, 30, 4, 1, 2, 254, 4, 0xf9, 0x89, 254, 4, 1, 2, 1, 1];
    let mut packet = with_options(&syn(PORT).build().into_inner(), &options);
    assert_eq!(node.tun(&mut packet), Verdict::Write);
    let written = segment::<ToServerWire>(&packet);
    assert_eq!(packet[60..], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 254, 4, 1, 2, 1, 1]);
    assert!(written.checksums_are_right());
    assert_eq!((written.mss(), written.sack_permitted()), (Some(1_460), true));
    assert_eq!(written.seq(), Seq::new(CLIENT_ISN));
}

#[test]
fn connections_whose_segments_are_signed_are_the_kernels_from_the_first_packet() {
    for kind in [19, 29] {
        let mut node = Node::new("a");
        let mut packet = with_options(&syn(PORT).build().into_inner(), &[kind, 6, 1, 2, 3, 4, 1, 1]);
        let before = packet.clone();
        assert_eq!(node.tun(&mut packet), Verdict::Write);
        assert_eq!(packet, before);
        let (verdict, syn_ack) = node.read(&syn_ack(PORT));
        assert_eq!((verdict, segment::<ToClientWire>(&syn_ack).mss()), (Verdict::Write, Some(1_460)), "untouched");
        assert_eq!((node.counter("connections_total"), node.counter("syns_pending")), (0, 0));
    }
}

#[test]
fn data_on_a_syn_is_left_for_the_client_to_send_again() {
    let mut node = Node::new("a");
    let (verdict, _) = node.read(&SegmentSpec { payload: b"GET", ..syn(PORT) });
    assert_eq!(verdict, Verdict::Consumed);
    let [syn] = written(&node.take(), Why::WithoutData).try_into().expect("one packet");
    assert_eq!(syn, self::syn(PORT).build().into_inner());
}

#[test]
fn every_syn_ack_leaves_with_an_mss_that_fits_into_the_overlay() {
    let mut node = Node::new("a");
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Write);
    for _repetition in 0..2 {
        let (verdict, packet) = node.read(&syn_ack(PORT));
        let syn_ack = segment::<ToClientWire>(&packet);
        assert_eq!((verdict, syn_ack.mss()), (Verdict::Write, Some(1_500 - OVERHEAD - 40)));
        assert!(syn_ack.checksums_are_right());
    }
}

#[test]
fn a_handshake_is_withheld_and_its_kernel_hears_nothing() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    node.ask_of(PORT, b"GET /im");
    assert!(node.take().iter().all(|output| !matches!(output, Output::Packet(..) | Output::Forward(..))));
    assert_eq!(node.states(), [("undecided", "inspect")]);
}

#[test]
fn in_the_handshake_only_an_exact_reset_reaches_the_kernel() {
    let mut node = Node::new("a");
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Write);
    assert_eq!(node.verdict(&syn_ack(PORT)), Verdict::Write);
    let reset = |offset| SegmentSpec { flags: Flags::RST, timestamps: None, ..octets(PORT, offset, &[]) };
    assert_eq!(node.verdict(&reset(1)), Verdict::Drop(DropReason::ResetNotExact));
    assert_eq!(node.states(), [("handshake", "inspect")]);
    assert_eq!(node.verdict(&reset(0)), Verdict::Write);
    assert_eq!(node.states(), []);
}

#[test]
fn what_would_complete_the_handshake_behind_our_back_does_not_reach_the_kernel() {
    let mut node = Node::new("a");
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Write);
    assert_eq!(node.verdict(&syn_ack(PORT)), Verdict::Write);
    // It begins with the SYN's own number, and goes beyond it.
    let overlapping = SegmentSpec { seq: Seq::new(CLIENT_ISN), payload: b"GET", ..ack(PORT) };
    assert_eq!(node.verdict(&overlapping), Verdict::Drop(DropReason::OutOfWindow));
    // These the kernel answers itself, and its half stays.
    let wrong = SegmentSpec { ack: Seq::new(FRONTEND_ISN).plus(2), ..ack(PORT) };
    assert_eq!(node.verdict(&wrong), Verdict::Write);
    let old = SegmentSpec { seq: Seq::new(CLIENT_ISN), ..ack(PORT) };
    assert_eq!(node.verdict(&old), Verdict::Write);
    assert_eq!(node.verdict(&SegmentSpec { flags: Flags::FIN, ..ack(PORT) }), Verdict::Write);
    assert_eq!(node.states(), [("handshake", "inspect")]);
}

#[test]
fn a_syn_ack_that_comes_late_begins_nothing() {
    let mut node = Node::new("a");
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Write);
    assert_eq!(node.verdict(&syn_ack(PORT)), Verdict::Write);
    // The client has sent its SYN again meanwhile; the kernel will answer that one, too.
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Write);
    assert_eq!(node.verdict(&ack(PORT)), Verdict::Consumed);
    node.ask_of(PORT, &get("/"));
    assert_eq!(node.counter("released_local_total"), 1);
    let (verdict, packet) = node.read(&syn_ack(PORT));
    assert_eq!((verdict, segment::<ToClientWire>(&packet).mss()), (Verdict::Write, Some(1_460)));
    assert_eq!((node.states(), node.counter("syns_pending")), (vec![], 0));
}

#[test]
fn a_front_end_address_that_is_removed_takes_its_syns_with_it_and_no_others() {
    for (change, states) in [(("[fd77::1]:80", "[fd77::2]:80"), 1), (("10.77.0.1:80", "10.77.0.1:81"), 0)] {
        let mut node = Node::new("a");
        assert_eq!(node.verdict(&syn(PORT)), Verdict::Write);
        node.replace_policy("a", &[change]);
        assert_eq!(node.verdict(&syn_ack(PORT)), Verdict::Write);
        assert_eq!(node.states().len(), states, "{change:?}");
    }
}

#[test]
fn a_client_that_says_no_mss_has_the_least() {
    let mut node = Node::new("a");
    assert_eq!(node.verdict(&SegmentSpec { mss: None, ..syn(PORT) }), Verdict::Write);
    assert_eq!(node.verdict(&syn_ack(PORT)), Verdict::Write);
    assert_eq!(node.verdict(&ack(PORT)), Verdict::Consumed);
    node.ask_of(PORT, &get("/images/cat"));
    let said = node.take();
    let [Output::Message(B, Message::Offer(offer))] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(offer.client_mss, 536);
}

#[test]
fn what_is_no_sound_syn_is_passed_on_and_not_remembered() {
    let mut node = Node::new("a");
    for more in [Flags::FIN, Flags::RST] {
        assert_eq!(node.verdict(&SegmentSpec { flags: Flags::SYN.with(more), ..syn(PORT) }), Verdict::Write);
    }
    let mut corrupt = syn(PORT).build().into_inner();
    corrupt[35] ^= 1;
    assert_eq!(node.tun(&mut corrupt), Verdict::Write);
    assert_eq!((node.counter("syns_total"), node.counter("syns_pending")), (0, 0));
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Write);
    assert_eq!((node.counter("syns_total"), node.counter("syns_pending")), (1, 1));
}

#[test]
fn another_connection_on_the_same_ends_is_told_by_the_kernels_answer() {
    let mut node = Node::new("a");
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Write);
    assert_eq!(node.verdict(&syn_ack(PORT)), Verdict::Write);
    assert_eq!(node.verdict(&SegmentSpec { seq: Seq::new(77_000), ..syn(PORT) }), Verdict::Write);
    let (seq, ack) = (Seq::new(99_000), Seq::new(77_001));
    assert_eq!(node.verdict(&SegmentSpec { seq, ack, ..syn_ack(PORT) }), Verdict::Write);
    let request = get("/images/cat");
    let asks = SegmentSpec { seq: Seq::new(77_001), ack: Seq::new(99_001), payload: &request, ..self::ack(PORT) };
    assert_eq!(node.verdict(&asks), Verdict::Consumed);
    let said = node.take();
    let [Output::Message(B, Message::Offer(offer))] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!((offer.client_isn, offer.frontend_isn), (Seq::new(77_000), Seq::new(99_000)));
}
