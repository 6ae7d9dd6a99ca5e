//! BTCP: connections that arrive at this node.

use super::driver::*;
use baton::control::message::{Message, Refusal};
use baton::handoff::counters::DropReason;
use baton::handoff::{Output, PeerEvent, SocketState, Verdict, Why};
use baton::limits;
use baton::rewrite::{Flags, SegmentSpec, Seq, Timestamp, ToClientWire, ToServerWire};
use std::time::Duration;

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
fn an_offer_tells_the_whole_initial_state() {
    let mut node = Node::new("a");
    assert_eq!(node.verdict(&SegmentSpec { flags: Flags::SYN.with(Flags::ECE).with(Flags::CWR), ..syn(PORT) }), Verdict::Write);
    let granted = SegmentSpec { flags: Flags::SYN.with(Flags::ACK).with(Flags::ECE), ..syn_ack(PORT) };
    assert_eq!(node.verdict(&granted), Verdict::Write);
    node.wait(milliseconds(30));
    assert_eq!(node.verdict(&ack(PORT)), Verdict::Consumed);
    node.wait(milliseconds(10));
    node.ask_of(PORT, &get("/images/cat"));
    let said = node.take();
    let [Output::Message(B, Message::Offer(offer))] = said.as_slice() else { panic!("{said:?}") };
    let mut expected = self::offer(PORT);
    (expected.id, expected.ecn, expected.round_trip) = (offer.id, true, milliseconds(30));
    let timestamps = expected.timestamps.as_mut().expect("both sides use them");
    timestamps.client = Timestamp::new(CLIENT_TSVAL + 1);
    timestamps.frontend = Timestamp::new(FRONTEND_TSVAL + 40);
    assert_eq!(**offer, expected);
}

#[test]
fn before_a_commit_the_guard_is_written_then_the_kernel_asked_then_its_half_purged() {
    let mut node = Node::new("a");
    let id = node.offered(PORT);
    node.hear(B, accept(id));
    let said = node.take();
    let [Output::Guard(guarded), Output::AskSocket { local, remote }, Output::Packet(purge, Why::Purge), commit] =
        said.as_slice()
    else {
        panic!("{said:?}")
    };
    assert_eq!((*guarded, *local, *remote), (flow(PORT), frontend(), client(PORT)));
    let purge = segment::<ToServerWire>(purge);
    assert_eq!((purge.flags(), purge.seq()), (Flags::RST, Seq::new(CLIENT_ISN).plus(1)));
    assert_eq!((purge.source(), purge.destination()), (client(PORT), frontend()));
    assert_eq!(*commit, Output::Message(B, Message::Commit { id, more: vec![] }));
    assert_eq!(node.states(), [("handed-off", "forward")]);
}

#[test]
fn without_a_guard_nothing_is_given_away() {
    let mut node = Node::new("a");
    node.can_guard = false;
    let id = node.offered(PORT);
    node.hear(B, accept(id));
    let said = node.take();
    assert_eq!(commits(&said, B), []);
    assert!(said.contains(&Output::Message(B, Message::Abort { id })));
    assert!(!said.iter().any(|output| matches!(output, Output::Unguard(_) | Output::Packet(_, Why::Purge))));
    assert_eq!(written(&said, Why::Released).len(), 2, "the acknowledgement and the request");
    assert_eq!(node.counter("fallbacks_total{reason=\"guard_failed\"}"), 1);
}

#[test]
fn a_kernel_that_went_on_keeps_its_connection() {
    for socket in [SocketState::Open, SocketState::TimeWait] {
        let mut node = Node::new("a");
        let id = node.offered(PORT);
        node.socket = socket;
        node.hear(B, accept(id));
        let said = node.take();
        assert_eq!(commits(&said, B), []);
        assert!(said.contains(&Output::Unguard(flow(PORT))));
        assert_eq!(node.counter("fallbacks_total{reason=\"kernel_went_on\"}"), 1);
        assert_eq!(node.counter("first_flight_bytes"), 0);
    }
}

#[test]
fn what_arrives_after_the_offer_goes_with_the_commit() {
    let mut node = Node::new("a");
    let id = node.offered(PORT);
    let offered = get("/images/cat").len() as u32;
    assert_eq!(node.verdict(&octets(PORT, offered, b"more")), Verdict::Consumed);
    // Beyond a hole: it follows through the overlay, as it came.
    let beyond = octets(PORT, offered + 100, b"beyond");
    assert_eq!(node.verdict(&beyond), Verdict::Consumed);
    node.hear(B, accept(id));
    let said = node.take();
    assert!(said.contains(&Output::Message(B, Message::Commit { id, more: b"more".to_vec() })));
    let forwarded: Vec<_> = said.iter().filter(|output| matches!(output, Output::Forward(..))).collect();
    assert_eq!(forwarded, [&Output::Forward(B, beyond.build().into_inner(), Why::Follows)]);
}

#[test]
fn a_reset_of_a_handed_off_connection_is_judged_by_its_owner() {
    let mut node = Node::new("a");
    node.handed_off(PORT);
    let reset = SegmentSpec { flags: Flags::RST, timestamps: None, ..octets(PORT, 7, &[]) };
    assert_eq!(node.verdict(&reset), Verdict::Forward(B));
    assert_eq!(node.states(), [("handed-off", "forward")]);
    assert_eq!(node.verdict(&ack(PORT)), Verdict::Forward(B), "nothing is forgotten");
    assert_eq!(node.take(), []);
}

#[test]
fn a_syn_on_a_live_connection_goes_to_its_owner_and_begins_nothing() {
    let mut node = Node::new("a");
    node.handed_off(PORT);
    let syns = node.counter("syns_total");
    assert_eq!(node.verdict(&SegmentSpec { seq: Seq::new(9), ..syn(PORT) }), Verdict::Forward(B));
    assert_eq!((node.counter("syns_total"), node.counter("syns_pending")), (syns, 0));
    assert_eq!(node.states(), [("handed-off", "forward")]);
    assert_eq!(node.take(), []);
}

#[test]
fn only_when_the_owner_says_it_is_over_does_a_kept_syn_begin_the_next() {
    let mut node = Node::new("a");
    let id = node.handed_off(PORT);
    let next = SegmentSpec { seq: Seq::new(9), ..syn(PORT) };
    assert_eq!(node.verdict(&next), Verdict::Forward(B));
    node.wait(limits::SYN_LIFETIME);
    node.take();
    node.hear(B, Message::Closed { id });
    let said = node.take();
    let unguarded = said.iter().position(|output| *output == Output::Unguard(flow(PORT))).expect("unguarded");
    let begun = said.iter().position(|output| matches!(output, Output::Packet(_, Why::KeptSyn))).expect("begun");
    assert!(unguarded < begun, "first the guard goes");
    assert_eq!(written(&said, Why::KeptSyn), [next.build().into_inner()]);
    assert_eq!(node.counter("handoffs_closed_total"), 1);
}

#[test]
fn a_kept_syn_that_is_too_old_or_was_not_the_clients_begins_nothing() {
    for goes_on in [false, true] {
        let mut node = Node::new("a");
        let id = node.handed_off(PORT);
        assert_eq!(node.verdict(&SegmentSpec { seq: Seq::new(9), ..syn(PORT) }), Verdict::Forward(B));
        if goes_on {
            assert_eq!(node.verdict(&ack(PORT)), Verdict::Forward(B));
        } else {
            node.wait(limits::SYN_LIFETIME + milliseconds(1));
        }
        node.take();
        node.hear(B, Message::Closed { id });
        assert_eq!(written(&node.take(), Why::KeptSyn), Vec::<Vec<u8>>::new());
        assert_eq!(node.states(), [("lingering", "forward")]);
    }
}

#[test]
fn a_connection_that_is_over_lingers_and_is_then_forgotten_with_its_guard() {
    let mut node = Node::new("a");
    let id = node.handed_off(PORT);
    assert!(node.counter("first_flight_bytes") > 0, "kept until the owner's kernel has it");
    node.hear(B, Message::Delivered { id });
    assert_eq!(node.counter("first_flight_bytes"), 0);
    node.hear(B, Message::Closed { id });
    node.wait(limits::LINGER - milliseconds(1));
    assert_eq!(node.verdict(&ack(PORT)), Verdict::Forward(B), "late packets still go to the owner");
    node.take();
    node.wait(milliseconds(1));
    assert!(node.take().contains(&Output::Unguard(flow(PORT))));
    assert_eq!(node.states(), []);
}

#[test]
fn an_early_acknowledgement_carries_the_syn_acks_own_timestamp() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    let (first, second) = (b"GET /images", b"/cat");
    node.ask_of(PORT, first);
    node.take();
    node.wait(limits::EARLY_ACKNOWLEDGEMENT_AFTER - milliseconds(1));
    assert_eq!(written(&node.take(), Why::EarlyAcknowledgement), Vec::<Vec<u8>>::new());
    node.wait(milliseconds(1));
    let said = node.take();
    let purged = said.iter().position(|output| matches!(output, Output::Packet(_, Why::Purge))).expect("purged");
    let acknowledged =
        said.iter().position(|output| matches!(output, Output::Packet(_, Why::EarlyAcknowledgement))).expect("acknowledged");
    assert!(purged < acknowledged, "only what no kernel will answer for may be acknowledged");
    let [packet] = written(&said, Why::EarlyAcknowledgement).try_into().expect("one");
    let told = segment::<ToClientWire>(&packet);
    assert_eq!((told.source(), told.destination()), (frontend(), client(PORT)));
    assert_eq!((told.seq().raw(), told.flags()), (FRONTEND_ISN + 1, Flags::ACK));
    assert_eq!(told.ack(), Seq::new(CLIENT_ISN).plus(1 + first.len() as u32));
    assert_eq!(told.timestamps(), Some((Timestamp::new(FRONTEND_TSVAL), Timestamp::new(CLIENT_TSVAL + 1))));
    assert_eq!(told.window(), 65_160 >> 7);
    // Parked now: the next piece is acknowledged in its turn, no sooner than a millisecond later.
    assert_eq!(node.verdict(&octets(PORT, first.len() as u32, second)), Verdict::Consumed);
    node.wait(milliseconds(1));
    let [packet] = written(&node.take(), Why::EarlyAcknowledgement).try_into().expect("one");
    assert_eq!(segment::<ToClientWire>(&packet).ack(), Seq::new(CLIENT_ISN).plus(1 + (first.len() + second.len()) as u32));
    assert_eq!(node.counter("early_acknowledgements_total"), 2);
    assert_eq!(node.counter("parked_total"), 1);
}

#[test]
fn a_first_flight_that_fills_the_initial_window_is_acknowledged_at_once() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    node.take();
    let mut offset = 0;
    for piece in get("/images/cat").chunks(3).take(limits::INITIAL_WINDOW_SEGMENTS - 2) {
        assert_eq!(node.counter("early_acknowledgements_total"), 0, "after {offset} octets");
        assert_eq!(node.verdict(&octets(PORT, offset, piece)), Verdict::Consumed);
        offset += piece.len() as u32;
    }
    assert_eq!(node.counter("early_acknowledgements_total"), 1);
}

#[test]
fn a_corrupt_segment_is_judged_where_btcp_stands_in_for_the_kernel() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    let request = get("/images/cat");
    let mut packet = octets(PORT, 0, &request).build().into_inner();
    *packet.last_mut().expect("octets") ^= 1;
    assert_eq!(node.tun(&mut packet), Verdict::Drop(DropReason::Checksum));
    assert_eq!(node.counter("first_flight_bytes"), u64::from(ack(PORT).build().packet().len() as u16));
}

#[test]
fn a_candidate_that_refuses_is_followed_by_the_next_and_then_by_the_local_server() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    node.take();
    node.ask_of(PORT, &get("/both/1"));
    let asked = |said: &[Output]| {
        let offer = |output: &Output| match output {
            Output::Message(peer, Message::Offer(offer)) => Some((*peer, offer.id)),
            _ => None,
        };
        said.iter().find_map(offer)
    };
    let (first, id) = asked(&node.take()).expect("an offer");
    node.hear(first, Message::Refuse { id, reason: Refusal::Full });
    let (second, next_id) = asked(&node.take()).expect("another offer");
    assert_eq!([first, second], [B, C]);
    assert_ne!(id, next_id);
    // Somebody else's word does not count.
    node.hear(first, Message::Refuse { id: next_id, reason: Refusal::Full });
    node.hear(first, accept(next_id));
    assert_eq!(node.take(), []);
    node.hear(second, Message::Refuse { id: next_id, reason: Refusal::Promise });
    assert_eq!(written(&node.take(), Why::Released).len(), 2);
    assert_eq!(node.counter("fallbacks_total{reason=\"refused_full\"}"), 1);
    assert_eq!(node.counter("fallbacks_total{reason=\"refused_promise\"}"), 1);
    assert_eq!((node.counter("released_local_total"), node.counter("offers_sent_total")), (1, 2));
}

#[test]
fn an_offer_that_nobody_answers_is_withdrawn_in_time_for_the_next_candidate() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    node.take();
    node.ask_of(PORT, &get("/both/1"));
    // Half of the second that a handoff may take.
    node.wait(milliseconds(499));
    assert_eq!(node.take().len(), 1, "the first offer");
    node.wait(milliseconds(1));
    let said = node.take();
    assert!(matches!(said[0], Output::Message(B, Message::Abort { .. })), "{said:?}");
    assert!(matches!(said[1], Output::Message(C, Message::Offer(_))), "{said:?}");
    node.wait(milliseconds(499));
    assert_eq!(node.take(), []);
    node.wait(milliseconds(1));
    let said = node.take();
    assert!(matches!(said[0], Output::Message(C, Message::Abort { .. })), "{said:?}");
    // After so long a hold the kernel is made to repeat its SYN-ACK first; this one does not.
    assert_eq!(written(&said, Why::RepeatedSyn), [syn(PORT).build().into_inner()]);
    node.wait(limits::RELEASE_PATIENCE);
    assert_eq!(written(&node.take(), Why::Released).len(), 2);
    assert_eq!(node.counter("fallbacks_total{reason=\"deadline\"}"), 2);
}

#[test]
fn the_syn_ack_that_was_asked_for_is_kept_from_the_client_even_if_it_comes_late() {
    // How long after the connection was let go of without it; whether it is still taken for the one that was asked for.
    let patience = limits::LATE_SYN_ACK_LIFETIME;
    for (after, seq, absorbed) in [
        (Duration::ZERO, FRONTEND_ISN, true),
        (patience, FRONTEND_ISN, true),
        (patience + milliseconds(1), FRONTEND_ISN, false),
        (Duration::ZERO, FRONTEND_ISN + 1, false),
    ] {
        let mut node = Node::new("a");
        node.handshake_of(PORT);
        node.wait(limits::HOLD_TIMED_MAX + milliseconds(1));
        node.take();
        node.ask_of(PORT, &get("/"));
        assert_eq!(written(&node.take(), Why::RepeatedSyn).len(), 1);
        node.wait(limits::RELEASE_PATIENCE);
        assert_eq!(written(&node.take(), Why::Released).len(), 2);
        node.wait(after);
        let late = SegmentSpec { seq: Seq::new(seq), ..syn_ack(PORT) };
        let expected = if absorbed { Verdict::Drop(DropReason::SynAckAbsorbed) } else { Verdict::Write };
        assert_eq!(node.verdict(&late), expected, "{after:?} later");
        // One was asked for. More are the kernel's own, whose accept queue is full: the client acknowledges them.
        assert_eq!(node.verdict(&late), Verdict::Write);
        assert_eq!(node.states(), []);
    }
}

#[test]
fn the_ends_of_a_connection_whose_syn_ack_is_late_can_be_used_again_at_once() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    node.wait(limits::HOLD_TIMED_MAX + milliseconds(1));
    node.ask_of(PORT, &get("/"));
    node.wait(limits::RELEASE_PATIENCE);
    assert_eq!(written(&node.take(), Why::Released).len(), 2);
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Write);
    let (verdict, packet) = node.read(&SegmentSpec { seq: Seq::new(FRONTEND_ISN + 1_000), ..syn_ack(PORT) });
    assert_eq!((verdict, segment::<ToClientWire>(&packet).mss()), (Verdict::Write, Some(1_460 - OVERHEAD)));
    assert_eq!(node.states().len(), 1, "followed from its handshake on");
}

#[test]
fn a_peer_that_drains_or_is_down_is_not_asked() {
    let mut node = Node::new("a");
    node.peer(B, PeerEvent::Draining(true));
    node.peer(C, PeerEvent::Down);
    node.handshake_of(PORT);
    node.take();
    node.ask_of(PORT, &get("/both/1"));
    assert_eq!(written(&node.take(), Why::Released).len(), 2);
    assert_eq!(node.counter("fallbacks_total{reason=\"peer_draining\"}"), 1);
    assert_eq!(node.counter("fallbacks_total{reason=\"peer_down\"}"), 1);
    node.peer(B, PeerEvent::Draining(false));
    node.offered(PORT + 1);
}

#[test]
fn a_client_resets_an_undecided_connection_only_with_the_exact_number() {
    let mut node = Node::new("a");
    let id = node.offered(PORT);
    let next = get("/images/cat").len() as u32;
    let reset = |offset| SegmentSpec { flags: Flags::RST, timestamps: None, ..octets(PORT, offset, &[]) };
    assert_eq!(node.verdict(&reset(next + 1)), Verdict::Drop(DropReason::ResetNotExact));
    assert_eq!(written(&node.take(), Why::Challenge).len(), 1, "ahead of what was acknowledged, in the window");
    assert_eq!(node.verdict(&reset(0x1_0000)), Verdict::Drop(DropReason::ResetNotExact));
    assert_eq!(node.take(), [], "far outside");
    assert_eq!(node.verdict(&reset(next)), Verdict::Consumed);
    let said = node.take();
    assert!(said.contains(&Output::Message(B, Message::Abort { id })));
    assert_eq!(written(&said, Why::Purge).len(), 1);
    assert_eq!((node.counter("reset_by_client_total"), node.counter("first_flight_bytes")), (1, 0));
    assert_eq!(node.states(), []);
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
fn a_loop_that_stood_still_leaves_undecided_connections_to_the_kernel() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    node.ask_of(PORT, b"GET /im");
    let id = node.offered(PORT + 1);
    assert_eq!(node.verdict(&syn(PORT + 2)), Verdict::Write);
    node.take();
    node.stall();
    let said = node.take();
    assert!(said.contains(&Output::Message(B, Message::Abort { id })));
    assert_eq!(written(&said, Why::Released).len(), 4);
    assert_eq!(node.counter("fallbacks_total{reason=\"stalled\"}"), 1);
    assert_eq!(node.verdict(&syn_ack(PORT + 2)), Verdict::Write);
    assert_eq!(node.states(), [], "the SYN, too, the kernel may have answered unseen");
}

#[test]
fn a_node_that_drains_leaves_all_that_the_kernel_knows_to_it() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    node.ask_of(PORT, b"GET /im");
    let id = node.offered(PORT + 1);
    assert_eq!(node.verdict(&syn(PORT + 2)), Verdict::Write);
    node.take();
    node.drain_node();
    let said = node.take();
    assert!(said.contains(&Output::Message(B, Message::Abort { id })));
    assert_eq!(written(&said, Why::Released).len(), 4);
    assert_eq!(node.counter("fallbacks_total{reason=\"draining\"}"), 1);
    node.engine.undrain();
    assert_eq!(node.verdict(&syn_ack(PORT + 2)), Verdict::Write);
    assert_eq!(node.states(), []);
}

#[test]
fn a_connection_that_would_be_lost_is_reset_at_both_ends() {
    let mut node = Node::new("a");
    node.handed_off(PORT);
    // The client has acknowledged 1,000 octets of the answer, and sent 7 more of its own.
    let told = SegmentSpec { ack: Seq::new(FRONTEND_ISN).plus(1_001), ..octets(PORT, 50, b"1234567") };
    assert_eq!(node.verdict(&told), Verdict::Forward(B));
    // Of what resets and begins nothing is believed, nor of what acknowledges nothing.
    for flags in [Flags::RST.with(Flags::ACK), Flags::SYN.with(Flags::ACK), Flags::PSH] {
        let other = SegmentSpec { flags, ack: Seq::new(FRONTEND_ISN).plus(3_001), ..octets(PORT, 500, b"x") };
        assert_eq!(node.verdict(&other), Verdict::Forward(B));
    }
    assert_eq!(node.engine.live(), 1);
    node.reset_all();
    let said = node.take();
    let [Output::Forward(B, to_owner, Why::Reset), Output::Packet(to_client, Why::Reset)] = said.as_slice() else {
        panic!("{said:?}")
    };
    let (to_owner, to_client) = (segment::<ToServerWire>(to_owner), segment::<ToClientWire>(to_client));
    assert_eq!((to_owner.flags(), to_owner.seq()), (Flags::RST, Seq::new(CLIENT_ISN).plus(1 + 57)));
    assert_eq!((to_client.flags(), to_client.seq()), (Flags::RST, Seq::new(FRONTEND_ISN).plus(1_001)));
    assert_eq!((node.counter("resets_total"), node.counter("first_flight_bytes"), node.engine.live()), (1, 0, 0));
}

#[test]
fn an_owner_that_stays_away_is_given_up_after_its_time_and_the_client_told() {
    let mut node = Node::new("a");
    node.handed_off(PORT);
    node.peer(B, PeerEvent::Down);
    node.take();
    node.wait(limits::OWNER_LOST_AFTER - milliseconds(1));
    assert_eq!(node.states(), [("handed-off", "forward")]);
    assert_eq!(node.counter("resets_total"), 0);
    node.wait(milliseconds(1));
    let [reset] = written(&node.take(), Why::Reset).try_into().expect("one");
    assert_eq!(segment::<ToClientWire>(&reset).seq(), Seq::new(FRONTEND_ISN).plus(1));
    assert_eq!(node.states(), [("lost", "inspect")]);
    // Whoever speaks on is told again, but a RST is never answered by one.
    assert_eq!(node.verdict(&ack(PORT)), Verdict::Drop(DropReason::OwnerLost));
    assert_eq!(written(&node.take(), Why::Reset).len(), 1);
    let reset = SegmentSpec { flags: Flags::RST, ..ack(PORT) };
    assert_eq!(node.verdict(&reset), Verdict::Drop(DropReason::OwnerLost));
    assert_eq!(node.take(), []);
}

#[test]
fn an_owner_that_comes_back_in_time_keeps_its_connections_and_hears_the_commit_again() {
    let mut node = Node::new("a");
    let id = node.handed_off(PORT);
    node.peer(B, PeerEvent::Down);
    node.wait(limits::OWNER_LOST_AFTER - milliseconds(1));
    node.take();
    node.peer(B, PeerEvent::Up(epoch_of(B)));
    assert_eq!(commits(&node.take(), B), [id]);
    node.hear(B, Message::Owned { id, flow: flow(PORT) });
    node.hear(B, Message::OwnedEnd);
    node.wait(limits::OWNER_LOST_AFTER);
    assert_eq!(node.states(), [("handed-off", "forward")]);
}

#[test]
fn an_owner_born_anew_has_lost_its_connections() {
    let mut node = Node::new("a");
    node.handed_off(PORT);
    node.peer(B, PeerEvent::Down);
    node.peer(B, PeerEvent::Up(baton::control::message::Epoch(77)));
    assert_eq!(node.states(), [("lost", "inspect")]);
    assert_eq!((node.counter("resets_total"), node.counter("first_flight_bytes")), (1, 0));
}

#[test]
fn what_an_owner_confirmed_once_and_does_not_name_again_is_over() {
    let mut node = Node::new("a");
    let (named, unnamed) = (node.handed_off(PORT), node.handed_off(PORT + 1));
    for id in [named, unnamed] {
        node.hear(B, Message::Delivered { id });
    }
    node.peer(B, PeerEvent::Down);
    node.peer(B, PeerEvent::Up(epoch_of(B)));
    node.hear(B, Message::Owned { id: named, flow: flow(PORT) });
    assert_eq!(node.counter("handoffs_closed_total"), 0);
    node.hear(B, Message::OwnedEnd);
    assert_eq!(node.states(), [("handed-off", "forward"), ("lingering", "forward")]);
    assert_eq!(node.counter("handoffs_closed_total"), 1);
}

#[test]
fn a_connection_owned_for_nobody_is_disowned() {
    let mut node = Node::new("a");
    let id = offer(PORT).id;
    node.hear(B, Message::Owned { id, flow: flow(PORT) });
    assert_eq!(node.take(), [Output::Message(B, Message::Disowned { id })]);
}

#[test]
fn guards_found_at_a_start_wait_for_their_owner_and_then_for_a_linger() {
    let mut node = Node::of_file("a", &[], &[flow(PORT), flow(PORT + 1)]);
    assert_eq!(node.counter("orphans"), 2);
    assert_eq!(node.verdict(&ack(PORT)), Verdict::Drop(DropReason::Orphan));
    node.peer(B, PeerEvent::Up(epoch_of(B)));
    node.hear(B, Message::Owned { id: offer(PORT).id, flow: flow(PORT) });
    assert_eq!((node.counter("adopted_total"), node.counter("orphans")), (1, 1));
    assert_eq!(node.verdict(&ack(PORT)), Verdict::Forward(B));
    node.wait(limits::ORPHAN_LIFETIME - milliseconds(1));
    assert_eq!(node.verdict(&ack(PORT + 1)), Verdict::Drop(DropReason::Orphan));
    // Looked at once a second.
    node.wait(milliseconds(1_000));
    assert_eq!(node.counter("orphans"), 0);
    assert_eq!(node.verdict(&ack(PORT + 1)), Verdict::Drop(DropReason::OwnerLost));
    node.take();
    node.wait(limits::LINGER);
    assert!(node.take().contains(&Output::Unguard(flow(PORT + 1))));
}

#[test]
fn when_all_peers_have_spoken_nobody_waits_for_an_owner_any_longer() {
    let mut node = Node::of_file("a", &[], &[flow(PORT)]);
    for (peer, orphans) in [(B, 1), (B, 1), (C, 0)] {
        node.peer(peer, PeerEvent::Up(epoch_of(peer)));
        node.hear(peer, Message::OwnedEnd);
        assert_eq!(node.counter("orphans"), orphans);
    }
}

#[test]
fn a_peer_is_told_once_a_second_which_commits_cannot_be_repeated_and_only_while_that_is_news() {
    let mut node = Node::new("a");
    let settled = |node: &mut Node| {
        let told = |output: &Output| match output {
            Output::Message(peer, Message::Settled { below }) => Some((*peer, *below)),
            _ => None,
        };
        node.wait(limits::HOUSEKEEPING_INTERVAL);
        node.take_all().iter().filter_map(told).collect::<Vec<_>>()
    };
    assert_eq!(settled(&mut node), [(B, 1), (C, 1)], "of an earlier session");
    assert_eq!(settled(&mut node), []);
    let id = node.handed_off(PORT);
    assert_eq!(settled(&mut node), [(B, id.serial)]);
    assert_eq!(settled(&mut node), [(B, id.serial)], "not settled yet");
    node.hear(B, Message::Delivered { id });
    assert_eq!(settled(&mut node), [(B, id.serial + 1)]);
    assert_eq!(settled(&mut node), []);
    node.handed_off(PORT + 1);
    node.peer(B, PeerEvent::Down);
    assert_eq!(settled(&mut node), [], "nobody hears it");
}

#[test]
fn a_replay_to_self_takes_along_what_came_beyond_a_hole() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    node.wait(limits::HOLD_MAX);
    let request = get("/");
    let beyond = octets(PORT, request.len() as u32 + 10, b"beyond");
    assert_eq!(node.verdict(&beyond), Verdict::Consumed);
    node.take();
    node.ask_of(PORT, &request);
    let [replay] = written(&node.take(), Why::Replay).try_into().expect("one");
    let alias = segment::<ToServerWire>(&replay).destination();
    assert_eq!(node.verdict(&kernel_syn_ack(alias)), Verdict::Consumed);
    let [flight] = written(&node.take(), Why::FirstFlight).try_into().expect("one");
    assert_eq!(segment::<ToServerWire>(&flight).payload(), request);
    node.socket = SocketState::Open;
    let acknowledged = SegmentSpec { ack: Seq::new(CLIENT_ISN).plus(1 + request.len() as u32), ..from_kernel(alias) };
    assert_eq!(node.verdict(&acknowledged), Verdict::Write);
    let [packet] = written(&node.take(), Why::Overtook).try_into().expect("one");
    let followed = segment::<ToServerWire>(&packet);
    assert_eq!((followed.destination(), followed.seq(), followed.payload()), (alias, beyond.seq, &b"beyond"[..]));
    assert_eq!(node.counter("replays_to_self_total"), 1);
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
fn a_request_that_ends_before_it_is_whole_is_the_local_servers_at_once() {
    let fin = SegmentSpec { flags: Flags::ACK.with(Flags::FIN), ..octets(PORT, 0, b"GET /im") };
    let long = vec![b'x'; 16 << 10];
    for last in [fin, octets(PORT, 0, &long)] {
        let mut node = Node::new("a");
        node.handshake_of(PORT);
        node.take();
        assert_eq!(node.verdict(&last), Verdict::Consumed);
        assert_eq!(written(&node.take(), Why::Released), [ack(PORT), last].map(|spec| spec.build().into_inner()));
    }
}

#[test]
fn an_offer_has_the_time_that_a_replay_takes_however_little_a_handoff_may() {
    let mut node = Node::of_file("a", &[("    default: local", "    handoff_timeout: 10ms\n    default: local")], &[]);
    let id = node.offered(PORT);
    node.wait(limits::REPLAY_DEADLINE * 5 / 4 - milliseconds(1));
    assert_eq!(node.take(), []);
    node.wait(milliseconds(1));
    assert!(node.take().contains(&Output::Message(B, Message::Abort { id })));
}

#[test]
fn a_returned_connection_is_offered_on_at_once_and_in_time() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    node.ask_of(PORT, &get("/both/1"));
    let offer = |said: &[Output]| {
        said.iter().find_map(|output| match output {
            Output::Message(peer, Message::Offer(offer)) => Some((*peer, offer.clone())),
            _ => None,
        })
    };
    let (_, first) = offer(&node.take()).expect("offered");
    node.hear(B, accept(first.id));
    // The client goes on meanwhile.
    let timestamps = Some((Timestamp::new(CLIENT_TSVAL + 700), Timestamp::new(FRONTEND_TSVAL)));
    assert_eq!(node.verdict(&SegmentSpec { timestamps, ..ack(PORT) }), Verdict::Forward(B));
    node.take();
    node.hear(C, Message::Returned { id: first.id });
    assert_eq!(node.take(), [], "only its owner can return it");
    node.hear(B, Message::Returned { id: first.id });
    let (next, second) = offer(&node.take()).expect("offered on");
    assert_eq!((next, &second.first_flight), (C, &first.first_flight));
    assert_eq!(second.timestamps.map(|timestamps| timestamps.client), Some(Timestamp::new(CLIENT_TSVAL + 700)));
    node.wait(limits::REPLAY_DEADLINE * 2 - milliseconds(1));
    assert_eq!(node.take(), []);
    node.wait(milliseconds(1));
    assert!(node.take().contains(&Output::Message(C, Message::Abort { id: second.id })));
    assert_eq!(node.counter("fallbacks_total{reason=\"returned\"}"), 1);
}

#[test]
fn what_a_corrupt_segment_says_of_a_client_is_forwarded_and_not_believed() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    node.ask_of(PORT, &get("/both/1"));
    let offer = |said: &[Output]| {
        said.iter().find_map(|output| match output {
            Output::Message(_, Message::Offer(offer)) => Some(offer.clone()),
            _ => None,
        })
    };
    let first = offer(&node.take()).expect("offered");
    node.hear(B, accept(first.id));
    node.take();
    let sound = SegmentSpec { ack: Seq::new(FRONTEND_ISN).plus(11), ..octets(PORT, 50, b"1234567") };
    assert_eq!(node.verdict(&sound), Verdict::Forward(B));
    // One bit each: in the acknowledgement number, in the sequence number, in the timestamp.
    for at in [28, 24, 44] {
        let mut packet = sound.clone().build().into_inner();
        packet[at] ^= 0x40;
        let arrived = packet.clone();
        assert_eq!(node.tun(&mut packet), Verdict::Forward(B));
        assert_eq!(packet, arrived, "the owner's kernel judges it");
    }
    // A TSval that was never the client's would make a kernel discard all that the client sends (RFC 7323, section 5.3).
    node.hear(B, Message::Returned { id: first.id });
    let second = offer(&node.take()).expect("offered on");
    assert_eq!(second.timestamps.map(|timestamps| timestamps.client), Some(Timestamp::new(CLIENT_TSVAL + 1)));
    node.hear(C, accept(second.id));
    node.take();
    node.reset_all();
    let said = node.take();
    let [Output::Forward(C, to_owner, Why::Reset), Output::Packet(to_client, Why::Reset)] = said.as_slice() else {
        panic!("{said:?}")
    };
    assert_eq!(segment::<ToServerWire>(to_owner).seq(), Seq::new(CLIENT_ISN).plus(1 + 57));
    assert_eq!(segment::<ToClientWire>(to_client).seq(), Seq::new(FRONTEND_ISN).plus(11));
}

#[test]
fn only_its_owner_ends_a_connection_and_then_nothing_of_it_is_held() {
    let mut node = Node::new("a");
    let id = node.handed_off(PORT);
    node.hear(C, Message::Closed { id });
    node.hear(C, Message::Delivered { id });
    assert_eq!(node.states(), [("handed-off", "forward")]);
    assert!(node.counter("first_flight_bytes") > 0);
    node.hear(B, Message::Closed { id });
    assert_eq!((node.states(), node.counter("first_flight_bytes")), (vec![("lingering", "forward")], 0));
}

#[test]
fn a_session_that_breaks_takes_back_what_was_only_offered_to_that_peer() {
    let mut node = Node::new("a");
    node.offered(PORT);
    node.peer(C, PeerEvent::Down);
    assert_eq!(node.take(), []);
    node.peer(B, PeerEvent::Down);
    assert_eq!(written(&node.take(), Why::Released).len(), 2);
    assert_eq!(node.counter("fallbacks_total{reason=\"peer_down\"}"), 1);
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
fn a_client_that_heard_from_the_local_server_is_the_local_servers() {
    let mut node = Node::new("a");
    let id = node.offered(PORT);
    let early = SegmentSpec { ack: Seq::new(FRONTEND_ISN), ..ack(PORT) };
    assert_eq!(node.verdict(&early), Verdict::Drop(DropReason::BadAcknowledgement));
    assert_eq!(node.take(), []);
    let heard = SegmentSpec { ack: Seq::new(FRONTEND_ISN).plus(2), ..octets(PORT, 40, &[]) };
    assert_eq!(node.verdict(&heard), Verdict::Consumed);
    let said = node.take();
    assert!(said.contains(&Output::Message(B, Message::Abort { id })));
    assert_eq!(written(&said, Why::Released).last(), Some(&heard.build().into_inner()));
    assert_eq!(node.counter("fallbacks_total{reason=\"kernel_went_on\"}"), 1);
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

#[test]
fn what_is_settled_with_one_peer_says_nothing_of_another() {
    let mut node = Node::new("a");
    node.wait(limits::HOUSEKEEPING_INTERVAL + milliseconds(500));
    let first = node.handed_off(PORT);
    node.hear(B, Message::Delivered { id: first });
    let pending = node.offered(PORT + 1);
    // Of a new session everything may be news.
    node.peer(C, PeerEvent::Up(epoch_of(C)));
    node.take_all();
    node.wait(milliseconds(200));
    let id = node.handed_off(PORT + 2);
    node.take_all();
    node.wait(milliseconds(300));
    let told: Vec<_> =
        node.take_all().into_iter().filter(|output| matches!(output, Output::Message(_, Message::Settled { .. }))).collect();
    let [Output::Message(B, Message::Settled { below: of_b }), Output::Message(C, Message::Settled { below: of_c })] =
        told.as_slice()
    else {
        panic!("{told:?}")
    };
    assert_eq!(*of_b, pending.serial, "an offer may yet become a commit");
    assert!(*of_c > id.serial, "{of_c}");
}

#[test]
fn a_kept_syn_begins_anew_also_when_the_owner_is_lost() {
    let mut node = Node::new("a");
    node.handed_off(PORT);
    let next = SegmentSpec { seq: Seq::new(9), ..syn(PORT) };
    assert_eq!(node.verdict(&next), Verdict::Forward(B));
    node.take();
    node.peer(B, PeerEvent::Up(baton::control::message::Epoch(77)));
    assert_eq!(written(&node.take(), Why::KeptSyn), [next.build().into_inner()]);
    assert_eq!(node.states(), []);
}

#[test]
fn what_was_handed_off_stays_so_for_as_long_as_it_lives_when_its_address_is_removed() {
    let mut node = Node::new("a");
    let id = node.handed_off(PORT);
    node.replace_policy("a", &[("10.77.0.1:80", "10.77.0.1:81")]);
    node.wait(limits::RETIRED_FRONTEND_MIN + milliseconds(2_000));
    assert_eq!(node.verdict(&ack(PORT)), Verdict::Forward(B));
    node.hear(B, Message::Closed { id });
    node.wait(limits::LINGER + milliseconds(2_000));
    assert_eq!(node.verdict(&ack(PORT)), Verdict::Drop(DropReason::NotOurs));
}

#[test]
fn without_timestamps_only_a_hold_that_looks_like_a_long_way_is_hidden_from_the_kernel() {
    let bare = |spec: SegmentSpec<'static, ToServerWire>| SegmentSpec { timestamps: None, ..spec };
    let released = |hold, repeats: bool| {
        let mut node = Node::new("a");
        assert_eq!(node.verdict(&bare(syn(PORT))), Verdict::Write);
        for _ in 0..=u8::from(repeats) {
            assert_eq!(node.verdict(&SegmentSpec { timestamps: None, ..syn_ack(PORT) }), Verdict::Write);
        }
        assert_eq!(node.verdict(&bare(ack(PORT))), Verdict::Consumed);
        node.wait(hold);
        let request = get("/");
        assert_eq!(node.verdict(&SegmentSpec { payload: &request, ..bare(ack(PORT)) }), Verdict::Consumed);
        written(&node.take(), Why::Released).len() == 2
    };
    assert!(released(limits::UNTIMED_AFTER, false));
    assert!(!released(limits::UNTIMED_AFTER + milliseconds(1), false));
    assert!(released(limits::UNTIMED_AFTER + milliseconds(1), true), "a repeated SYN-ACK is not timed anyway");
}

#[test]
fn only_an_acknowledgement_that_could_be_the_clients_tells_that_the_kernel_went_on() {
    // The window its client gave, in the scale it gave.
    let window = 502 << 9;
    let ahead = limits::OCTETS_AHEAD_MAX as u32;
    let cases = [
        (1, 0, true),
        (window, 0, true),
        (window + 1, 0, false),
        (1, u32::MAX, true),
        (1, u32::MAX - 1, false),
        (1, ahead, true),
        (1, ahead + 1, false),
    ];
    for (acknowledged, offset, believed) in cases {
        let mut node = Node::new("a");
        node.handshake_of(PORT);
        let heard = SegmentSpec {
            seq: Seq::new(CLIENT_ISN).plus(1).plus(offset),
            ack: Seq::new(FRONTEND_ISN).plus(1 + acknowledged),
            ..ack(PORT)
        };
        let verdict = if believed { Verdict::Consumed } else { Verdict::Drop(DropReason::BadAcknowledgement) };
        assert_eq!(node.verdict(&heard), verdict, "{acknowledged} {offset}");
    }
}
