//! BTCP: what is offered to whom, what is acknowledged meanwhile, and what an answer leads to.

use super::driver::*;
use baton::control::message::{Message, Refusal};
use baton::handoff::counters::DropReason;
use baton::handoff::{Output, PeerEvent, SocketState, Verdict, Why};
use baton::limits;
use baton::rewrite::{Flags, SegmentSpec, Seq, Timestamp, ToClientWire, ToServerWire};

const PORT: u16 = 50_000;

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
