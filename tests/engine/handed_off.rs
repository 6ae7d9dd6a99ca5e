//! BTCP: connections that another node owns, for as long as they live and their guards stay.

use super::driver::*;
use baton::control::message::Message;
use baton::handoff::counters::DropReason;
use baton::handoff::{Output, PeerEvent, Verdict, Why};
use baton::limits;
use baton::rewrite::{Flags, SegmentSpec, Seq, Timestamp, ToClientWire, ToServerWire};

const PORT: u16 = 50_000;

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
