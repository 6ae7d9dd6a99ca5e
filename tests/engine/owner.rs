//! UTCP: connections that this node's kernel serves for another's front-end.

use super::driver::*;
use baton::control::message::{Message, Offer, Refusal};
use baton::handoff::counters::DropReason;
use baton::handoff::{Output, PeerEvent, SocketState, Verdict, Why};
use baton::limits;
use baton::rewrite::{Flags, SegmentSpec, Seq, Timestamp, ToClientWire, ToServerLocal, WindowScale};

const PORT: u16 = 50_000;

fn messages(said: &[Output]) -> Vec<Message> {
    let message = |output: &Output| match output {
        Output::Message(_, message) => Some(message.clone()),
        _ => None,
    };
    said.iter().filter_map(message).collect()
}

fn flight() -> u32 {
    get("/images/cat").len() as u32
}

#[test]
fn a_replay_carries_the_clients_own_numbers_to_an_alias() {
    let mut node = Node::new("b");
    node.hear(A, Message::Offer(Box::new(offer(PORT))));
    let [replay] = written(&node.take(), Why::Replay).try_into().expect("one");
    let syn = segment::<ToServerLocal>(&replay);
    assert_eq!((syn.source(), syn.flags(), syn.seq()), (client(PORT), Flags::SYN, Seq::new(CLIENT_ISN)));
    assert_eq!(syn.destination().port, 8080, "where this node's application listens");
    assert_eq!((syn.mss(), syn.window_scale()), (Some(1_460), Some(WindowScale::new(9))));
}

#[test]
fn only_a_kernel_that_keeps_a_request_is_an_acceptance_and_its_syn_is_repeated() {
    let mut node = Node::new("b");
    node.hear(A, Message::Offer(Box::new(offer(PORT))));
    let [replay] = written(&node.take(), Why::Replay).try_into().expect("one");
    let alias = segment::<ToServerLocal>(&replay).destination();
    // It answers something else first.
    let other = SegmentSpec { ack: Seq::new(CLIENT_ISN), ..kernel_syn_ack(alias) };
    assert_eq!(node.verdict(&other), Verdict::Drop(DropReason::UnexpectedFromKernel));
    assert_eq!(node.verdict(&from_kernel(alias)), Verdict::Drop(DropReason::UnexpectedFromKernel));
    assert_eq!(node.verdict(&kernel_syn_ack(alias)), Verdict::Consumed);
    let said = node.take();
    assert_eq!(said[0], Output::AskSocket { local: alias, remote: client(PORT) });
    assert_eq!(written(&said, Why::RepeatedSyn), [replay]);
    assert_eq!(messages(&said), [accept(offer(PORT).id)]);
    assert_eq!((node.states(), node.counter("connections_back_end")), (vec![("prepared", "inspect")], 1));
}

#[test]
fn what_the_kernel_cannot_keep_is_refused_and_purged() {
    let lacks = |socket, syn_ack: fn(SegmentSpec<'static, baton::rewrite::ToClientLocal>) -> _, reason| {
        let mut node = Node::new("b");
        node.socket = socket;
        node.hear(A, Message::Offer(Box::new(offer(PORT))));
        let [replay] = written(&node.take(), Why::Replay).try_into().expect("one");
        let alias = segment::<ToServerLocal>(&replay).destination();
        let _verdict = node.verdict(&syn_ack(kernel_syn_ack(alias)));
        let said = node.take();
        assert_eq!(messages(&said), [Message::Refuse { id: offer(PORT).id, reason }]);
        assert_eq!(written(&said, Why::Purge).len(), usize::from(reason != Refusal::ApplicationDown), "{reason:?}");
        assert_eq!((node.counter("offers_refused_total"), node.states()), (1, vec![]));
    };
    lacks(SocketState::SynReceived, |syn_ack| SegmentSpec { sack_permitted: false, ..syn_ack }, Refusal::Promise);
    lacks(SocketState::SynReceived, |syn_ack| SegmentSpec { timestamps: None, ..syn_ack }, Refusal::Promise);
    lacks(SocketState::SynReceived, |syn_ack| SegmentSpec { window_scale: None, ..syn_ack }, Refusal::Promise);
    lacks(SocketState::Absent, |syn_ack| syn_ack, Refusal::BacklogFull);
    lacks(SocketState::Open, |syn_ack| syn_ack, Refusal::InUse);
    lacks(SocketState::Absent, |syn_ack| SegmentSpec { flags: Flags::RST.with(Flags::ACK), ..syn_ack }, Refusal::ApplicationDown);
}

#[test]
fn a_kernel_that_is_silent_is_asked_twice_and_then_the_offer_refused() {
    let mut node = Node::new("b");
    node.hear(A, Message::Offer(Box::new(offer(PORT))));
    node.wait(limits::REPLAY_DEADLINE / 2 - milliseconds(1));
    assert_eq!(written(&node.take(), Why::Replay).len(), 1);
    node.wait(milliseconds(1));
    assert_eq!(written(&node.take(), Why::Replay).len(), 1);
    node.wait(limits::REPLAY_DEADLINE / 2 - milliseconds(1));
    assert_eq!(node.take(), []);
    node.wait(milliseconds(1));
    assert_eq!(messages(&node.take()), [Message::Refuse { id: offer(PORT).id, reason: Refusal::BacklogFull }]);
}

#[test]
fn what_is_prepared_and_never_committed_is_purged() {
    let mut node = Node::new("b");
    let offer = offer(PORT);
    node.prepared(&offer);
    node.wait(limits::PREPARED_LIFETIME - milliseconds(1));
    assert_eq!(node.take(), []);
    node.wait(milliseconds(1));
    assert_eq!(written(&node.take(), Why::Purge).len(), 1);
    assert_eq!(node.states(), []);
    node.hear(A, Message::Commit { id: offer.id, more: vec![] });
    assert_eq!(messages(&node.take()), [Message::Returned { id: offer.id }], "never applied, and it never will be");
}

#[test]
fn a_withdrawn_offer_is_purged_but_only_on_the_word_of_its_front_end() {
    let mut node = Node::new("b");
    let offer = offer(PORT);
    node.prepared(&offer);
    node.hear(C, Message::Abort { id: offer.id });
    node.hear(C, Message::Commit { id: offer.id, more: vec![] });
    assert_eq!(node.states(), [("prepared", "inspect")]);
    node.take();
    node.hear(A, Message::Abort { id: offer.id });
    assert_eq!(written(&node.take(), Why::Purge).len(), 1);
    assert_eq!(node.states(), []);
}

#[test]
fn a_commit_delivers_the_first_flight_with_what_came_later_and_once() {
    let mut node = Node::new("b");
    let offer = offer(PORT);
    let alias = node.prepared(&offer);
    node.hear(A, Message::Commit { id: offer.id, more: b"more".to_vec() });
    let [packet] = written(&node.take(), Why::FirstFlight).try_into().expect("one");
    let delivered = segment::<ToServerLocal>(&packet);
    assert_eq!((delivered.source(), delivered.destination()), (client(PORT), alias));
    assert_eq!(delivered.seq(), Seq::new(CLIENT_ISN).plus(1));
    assert_eq!(delivered.ack(), Seq::new(BACKEND_ISN).plus(1));
    assert_eq!(delivered.payload(), [get("/images/cat"), b"more".to_vec()].concat());
    // The round trip is far: an echo that the kernel takes for none.
    assert_eq!(delivered.timestamps(), Some((Timestamp::new(CLIENT_TSVAL), Timestamp::new(0))));
    node.hear(A, Message::Commit { id: offer.id, more: b"more".to_vec() });
    assert_eq!(node.take(), [], "applied once");
    assert_eq!(node.counter("handoffs_accepted_total"), 1);
    assert_eq!(node.counter("commits_unsettled"), 1);
}

#[test]
fn a_client_nearby_is_echoed_what_the_kernel_sent() {
    let mut node = Node::new("b");
    let offer = Offer { round_trip: limits::NEAR_ROUND_TRIP_MAX, ..offer(PORT) };
    node.prepared(&offer);
    node.hear(A, Message::Commit { id: offer.id, more: vec![] });
    let [packet] = written(&node.take(), Why::FirstFlight).try_into().expect("one");
    assert_eq!(segment::<ToServerLocal>(&packet).timestamps().map(|(_, tsecr)| tsecr.raw()), Some(BACKEND_TSVAL));
}

#[test]
fn a_flight_is_delivered_again_ever_more_slowly_until_it_can_be_returned() {
    let mut node = Node::new("b");
    let offer = offer(PORT);
    node.prepared(&offer);
    node.hear(A, Message::Commit { id: offer.id, more: vec![] });
    node.take();
    let mut at = Vec::new();
    while node.now < limits::DELIVERY_DEADLINE - milliseconds(1) {
        node.wait(milliseconds(1));
        if !written(&node.take(), Why::FirstFlight).is_empty() {
            at.push(node.now.as_millis());
        }
    }
    assert_eq!(at, [50, 100, 150, 225, 338], "each after half the time that it has taken so far");
    // The handshake never completed: purged, asked, and when nothing is left, returned.
    node.wait(milliseconds(10));
    let said = node.take();
    assert_eq!(written(&said, Why::Purge).len(), written(&said, Why::Purge).len().max(1));
    assert_eq!(node.states(), [("returning", "inspect")]);
    node.socket = SocketState::Absent;
    node.wait(limits::DELIVERY_INTERVAL);
    assert_eq!(messages(&node.take()), [Message::Returned { id: offer.id }]);
    assert_eq!((node.counter("handoffs_returned_total"), node.counter("commits_unsettled")), (1, 0));
    assert_eq!(node.states(), []);
}

#[test]
fn a_connection_whose_handshake_completed_after_all_is_cut_and_not_returned() {
    let mut node = Node::new("b");
    let offer = offer(PORT);
    let alias = node.prepared(&offer);
    node.hear(A, Message::Commit { id: offer.id, more: vec![] });
    node.wait(limits::DELIVERY_DEADLINE + milliseconds(60));
    assert_eq!(node.states(), [("returning", "inspect")]);
    node.take();
    node.socket = SocketState::Open;
    node.wait(limits::DELIVERY_INTERVAL);
    let said = node.take();
    assert!(said.contains(&Output::DestroySocket { local: alias, remote: client(PORT) }));
    assert_eq!(messages(&said), [Message::Delivered { id: offer.id }, Message::Closed { id: offer.id }]);
    let [reset] = written(&said, Why::Reset).try_into().expect("one");
    let reset = segment::<ToClientWire>(&reset);
    assert_eq!((reset.source(), reset.seq()), (frontend(), Seq::new(FRONTEND_ISN).plus(1)));
    assert_eq!(node.counter("resets_total"), 1);
}

#[test]
fn a_flight_taken_in_part_is_delivered_from_there_and_established_when_all_is_taken() {
    let mut node = Node::new("b");
    let offer = offer(PORT);
    let alias = node.prepared(&offer);
    node.hear(A, Message::Commit { id: offer.id, more: vec![] });
    node.take();
    // Of exactly ISN + 1 a kernel speaks in SYN-RECV, too.
    assert_eq!(node.verdict(&from_kernel(alias)), Verdict::Write);
    assert_eq!(node.states(), [("delivering", "inspect")]);
    let taken = |octets| SegmentSpec { ack: Seq::new(CLIENT_ISN).plus(1 + octets), ..from_kernel(alias) };
    assert_eq!(node.verdict(&taken(5)), Verdict::Write);
    assert_eq!(node.verdict(&taken(3)), Verdict::Write);
    node.wait(limits::DELIVERY_INTERVAL);
    let [packet] = written(&node.take(), Why::FirstFlight).try_into().expect("one");
    let again = segment::<ToServerLocal>(&packet);
    assert_eq!((again.seq(), again.payload()), (Seq::new(CLIENT_ISN).plus(6), &get("/images/cat")[5..]));
    assert_eq!(node.verdict(&taken(flight() - 1)), Verdict::Write);
    assert_eq!(node.states(), [("delivering", "inspect")]);
    assert_eq!(node.verdict(&taken(flight())), Verdict::Write);
    assert_eq!(messages(&node.take()), [Message::Delivered { id: offer.id }]);
    assert_eq!(node.states(), [("established", "translate")]);
    assert_eq!(node.counter("redeliveries_total"), 1);
}

#[test]
fn an_empty_flight_is_in_when_the_socket_is_open() {
    let mut node = Node::new("b");
    let offer = Offer { first_flight: vec![], ..offer(PORT) };
    node.prepared(&offer);
    node.socket = SocketState::Open;
    node.hear(A, Message::Commit { id: offer.id, more: vec![] });
    assert_eq!(messages(&node.take()), [Message::Delivered { id: offer.id }]);
    assert_eq!(node.states(), [("established", "translate")]);
}

#[test]
fn both_directions_are_translated_for_the_life_of_a_connection() {
    let mut node = Node::new("b");
    let alias = node.established(&offer(PORT));
    let answer = SegmentSpec { payload: b"HTTP/1.1 200 OK", ack: Seq::new(CLIENT_ISN).plus(1 + flight()), ..from_kernel(alias) };
    let (verdict, packet) = node.read(&answer);
    let seen = segment::<ToClientWire>(&packet);
    assert_eq!((verdict, seen.source(), seen.destination()), (Verdict::Write, frontend(), client(PORT)));
    assert_eq!((seen.seq(), seen.ack()), (Seq::new(FRONTEND_ISN).plus(1), Seq::new(CLIENT_ISN).plus(1 + flight())));
    let timestamps = (Timestamp::new(FRONTEND_TSVAL + 10), Timestamp::new(CLIENT_TSVAL));
    assert_eq!((seen.timestamps(), seen.window()), (Some(timestamps), 510));
    assert!(seen.checksums_are_right());

    let told = SegmentSpec {
        ack: Seq::new(FRONTEND_ISN).plus(16),
        timestamps: Some((Timestamp::new(CLIENT_TSVAL + 9), Timestamp::new(FRONTEND_TSVAL + 10))),
        ..octets(PORT, flight(), &[])
    };
    let (verdict, packet) = node.overlay(A, &told);
    let taken = segment::<ToServerLocal>(&packet);
    assert_eq!((verdict, taken.destination(), taken.seq()), (Verdict::Write, alias, told.seq));
    assert_eq!(taken.ack(), Seq::new(BACKEND_ISN).plus(16));
    assert_eq!(taken.timestamps(), Some((Timestamp::new(CLIENT_TSVAL + 9), Timestamp::new(BACKEND_TSVAL + 10))));
    assert!(taken.checksums_are_right());

    assert_eq!(node.overlay(C, &told).0, Verdict::Drop(DropReason::WrongIngress));
}

#[test]
fn packets_that_overtake_the_commit_wait_for_it() {
    let mut node = Node::new("b");
    let offer = offer(PORT);
    let alias = node.prepared(&offer);
    let later = octets(PORT, flight(), b"POST /");
    assert_eq!(node.overlay(A, &later).0, Verdict::Consumed);
    node.hear(A, Message::Commit { id: offer.id, more: vec![] });
    assert_eq!(written(&node.take(), Why::Overtook), Vec::<Vec<u8>>::new());
    assert_eq!(node.verdict(&SegmentSpec { ack: Seq::new(CLIENT_ISN).plus(1 + flight()), ..from_kernel(alias) }), Verdict::Write);
    let [packet] = written(&node.take(), Why::Overtook).try_into().expect("one");
    let taken = segment::<ToServerLocal>(&packet);
    assert_eq!((taken.destination(), taken.ack(), taken.payload()), (alias, Seq::new(BACKEND_ISN).plus(1), &b"POST /"[..]));
}

#[test]
fn what_follows_a_flight_that_the_kernel_waits_for_becomes_part_of_it() {
    let mut node = Node::new("b");
    let offer = offer(PORT);
    node.prepared(&offer);
    node.hear(A, Message::Commit { id: offer.id, more: vec![] });
    node.take();
    assert_eq!(node.overlay(A, &octets(PORT, flight(), b"more")).0, Verdict::Consumed);
    // Alone: duplicate acknowledgements of what the kernel has already would reach the client.
    let [packet] = written(&node.take(), Why::FirstFlight).try_into().expect("one");
    let more = segment::<ToServerLocal>(&packet);
    assert_eq!((more.seq(), more.payload()), (Seq::new(CLIENT_ISN).plus(1 + flight()), &b"more"[..]));
    node.wait(limits::DELIVERY_INTERVAL);
    let [packet] = written(&node.take(), Why::FirstFlight).try_into().expect("one");
    assert_eq!(segment::<ToServerLocal>(&packet).payload(), [get("/images/cat"), b"more".to_vec()].concat());
    // Neither what leaves a hole, nor what is corrupt, nor an end.
    for (offset, flags) in [(5, Flags::ACK), (4, Flags::ACK.with(Flags::FIN)), (4, Flags::RST)] {
        let other = SegmentSpec { flags, ..octets(PORT, flight() + offset, b"x") };
        assert_eq!(node.overlay(A, &other).0, Verdict::Consumed);
        assert_eq!(written(&node.take(), Why::FirstFlight), Vec::<Vec<u8>>::new(), "{offset} {flags}");
    }
    let mut corrupt = octets(PORT, flight() + 4, b"x").build().into_inner();
    *corrupt.last_mut().expect("octets") ^= 1;
    let _verdict = node.engine.handle_overlay(A, &mut corrupt, node.instant());
    assert_eq!(written(&node.take(), Why::FirstFlight), Vec::<Vec<u8>>::new());
}

#[test]
fn a_syn_on_a_live_connection_is_answered_by_its_kernel_and_only_after_it_said_that_it_lives() {
    let mut node = Node::new("b");
    let alias = node.established(&offer(PORT));
    let syn = SegmentSpec { seq: Seq::new(9), ..syn(PORT) };
    assert_eq!(node.overlay(A, &syn).0, Verdict::Drop(DropReason::SynKept));
    let said = node.take();
    assert_eq!(said[0], Output::AskSocket { local: alias, remote: client(PORT) });
    let [packet] = written(&said, Why::KeptSyn).try_into().expect("one");
    let taken = segment::<ToServerLocal>(&packet);
    assert_eq!((taken.destination(), taken.seq(), taken.flags()), (alias, Seq::new(9), Flags::SYN));
    assert_eq!(node.states(), [("established", "translate")]);
    // In TIME-WAIT it would be a new connection, which nobody decided.
    node.socket = SocketState::TimeWait;
    assert_eq!(node.overlay(A, &syn).0, Verdict::Drop(DropReason::SynKept));
    let said = node.take();
    assert_eq!(written(&said, Why::KeptSyn), Vec::<Vec<u8>>::new());
    assert_eq!(messages(&said), [Message::Closed { id: offer(PORT).id }]);
    // The front-end has not heard it yet.
    assert_eq!(node.overlay(A, &syn).0, Verdict::Drop(DropReason::SynKept));
    assert_eq!(messages(&node.take()), [Message::Closed { id: offer(PORT).id }]);
}

#[test]
fn a_reset_reaches_the_kernel_and_only_the_kernel_ends_the_connection() {
    let mut node = Node::new("b");
    let alias = node.established(&offer(PORT));
    let reset = SegmentSpec { flags: Flags::RST, timestamps: None, ..octets(PORT, flight(), &[]) };
    let (verdict, packet) = node.overlay(A, &reset);
    assert_eq!((verdict, segment::<ToServerLocal>(&packet).destination()), (Verdict::Write, alias));
    assert_eq!(node.take(), []);
    // It is asked soon, however many there are, and not once for each.
    for _ in 0..10 {
        assert_eq!(node.overlay(A, &reset).0, Verdict::Write);
    }
    node.wait(milliseconds(49));
    let asked = node.take();
    node.wait(milliseconds(1));
    let asked = [asked, node.take()].concat();
    assert_eq!(asked, [Output::AskSocket { local: alias, remote: client(PORT) }]);
    assert_eq!(node.states(), [("established", "translate")], "forged");
    node.socket = SocketState::Absent;
    assert_eq!(node.overlay(A, &reset).0, Verdict::Write);
    node.wait(limits::RESET_QUESTIONS_INTERVAL);
    assert_eq!(messages(&node.take()), [Message::Closed { id: offer(PORT).id }]);
    assert_eq!(node.states(), [("over", "translate")]);
    node.wait(limits::LINGER - milliseconds(1));
    assert_eq!(node.counter("connections_lingering"), 1);
    node.wait(milliseconds(1));
    assert_eq!(node.counter("connections_lingering"), 0);
}

#[test]
fn an_idle_connection_is_looked_after_ever_more_seldom_but_once_a_minute_when_its_server_has_finished() {
    let mut node = Node::new("b");
    let alias = node.established(&offer(PORT));
    let is_asked_after = |node: &mut Node, seconds: u64| {
        node.wait(milliseconds(seconds * 1_000 - 1));
        assert_eq!(node.take(), [], "{seconds}");
        node.wait(milliseconds(1));
        assert_eq!(node.take(), [Output::AskSocket { local: alias, remote: client(PORT) }], "{seconds}");
    };
    for seconds in [60, 60, 120, 240, 480, 900, 900] {
        is_asked_after(&mut node, seconds);
    }
    let end = Seq::new(CLIENT_ISN).plus(1 + flight());
    let fin = SegmentSpec { flags: Flags::FIN.with(Flags::ACK), ack: end, ..from_kernel(alias) };
    assert_eq!(node.verdict(&fin), Verdict::Write);
    is_asked_after(&mut node, 900);
    is_asked_after(&mut node, 60);
    is_asked_after(&mut node, 60);
}

#[test]
fn a_connection_that_looks_over_is_asked_about_ever_more_slowly() {
    let mut node = Node::new("b");
    let alias = node.established(&offer(PORT));
    let end = Seq::new(CLIENT_ISN).plus(1 + flight());
    let fin = SegmentSpec { flags: Flags::FIN.with(Flags::ACK), ack: end, ..from_kernel(alias) };
    assert_eq!(node.verdict(&fin), Verdict::Write);
    let fin =
        SegmentSpec { flags: Flags::FIN.with(Flags::ACK), ack: Seq::new(FRONTEND_ISN).plus(2), ..octets(PORT, flight(), &[]) };
    assert_eq!(node.overlay(A, &fin).0, Verdict::Write);
    assert_eq!(node.take(), []);
    let last = SegmentSpec { seq: Seq::new(BACKEND_ISN).plus(2), ack: end.plus(1), ..from_kernel(alias) };
    assert_eq!(node.verdict(&last), Verdict::Write);
    assert_eq!(node.take(), [Output::AskSocket { local: alias, remote: client(PORT) }]);
    let began = node.now;
    let mut at = Vec::new();
    while at.len() < 13 {
        node.wait(milliseconds(1));
        at.extend(node.take().iter().map(|_| (node.now - began).as_millis()));
    }
    assert_eq!(at, [2, 6, 14, 30, 62, 126, 254, 510, 1_022, 2_046, 4_094, 8_190, 12_286]);
}

#[test]
fn a_front_end_that_comes_back_is_told_what_is_owned_and_what_is_over() {
    let mut node = Node::new("b");
    node.established(&offer(PORT));
    node.peer(A, PeerEvent::Down);
    node.take();
    node.peer(A, PeerEvent::Up(epoch_of(A)));
    let id = offer(PORT).id;
    assert_eq!(messages(&node.take()), [Message::Owned { id, flow: flow(PORT) }, Message::OwnedEnd]);
    node.socket = SocketState::Absent;
    node.wait(limits::IDLE_CHECK_INTERVAL);
    node.take();
    node.peer(A, PeerEvent::Up(epoch_of(A)));
    assert_eq!(messages(&node.take()), [Message::Closed { id }, Message::OwnedEnd]);
    node.peer(C, PeerEvent::Up(epoch_of(C)));
    assert_eq!(messages(&node.take()), [Message::OwnedEnd]);
}

#[test]
fn a_repeated_commit_is_answered_for_as_long_as_it_may_come() {
    let mut node = Node::new("b");
    let offer = offer(PORT);
    node.established(&offer);
    let commit = Message::Commit { id: offer.id, more: vec![] };
    node.hear(A, commit.clone());
    assert_eq!(node.take(), [Output::Message(A, Message::Delivered { id: offer.id })]);
    node.socket = SocketState::Absent;
    node.wait(limits::IDLE_CHECK_INTERVAL);
    let over = [Message::Delivered { id: offer.id }, Message::Closed { id: offer.id }];
    node.take();
    node.hear(A, commit.clone());
    assert_eq!(messages(&node.take()), over);
    node.wait(limits::LINGER);
    assert_eq!(node.states(), []);
    node.hear(A, commit.clone());
    assert_eq!(messages(&node.take()), over, "forgotten, but not that it was applied");
    // Another's word, another life's, and what lies below.
    node.hear(C, Message::Settled { below: u64::MAX });
    node.hear(A, Message::Settled { below: offer.id.serial });
    assert_eq!(node.counter("commits_unsettled"), 1);
    node.hear(A, Message::Settled { below: offer.id.serial + 1 });
    assert_eq!(node.counter("commits_unsettled"), 0);
    node.hear(A, commit);
    assert_eq!(messages(&node.take()), [Message::Returned { id: offer.id }]);
}

#[test]
fn commits_of_a_front_ends_earlier_life_cannot_be_repeated() {
    let mut node = Node::new("b");
    node.established(&offer(PORT));
    node.peer(A, PeerEvent::Down);
    node.peer(A, PeerEvent::Up(epoch_of(A)));
    node.peer(C, PeerEvent::Up(baton::control::message::Epoch(5)));
    assert_eq!(node.counter("commits_unsettled"), 1);
    node.peer(A, PeerEvent::Up(baton::control::message::Epoch(5)));
    assert_eq!(node.counter("commits_unsettled"), 0);
}

#[test]
fn a_packet_of_no_connection_that_a_peer_forwarded_is_dropped_without_a_word() {
    let mut node = Node::new("b");
    for from in [A, C] {
        assert_eq!(node.overlay(from, &ack(PORT)).0, Verdict::Drop(DropReason::NoConnection));
        assert_eq!(node.take(), [], "no other node can have a connection that was handed off");
    }
}

#[test]
fn what_its_ingress_gave_up_is_destroyed_and_nothing_more_is_sent() {
    let mut node = Node::new("b");
    let offer = offer(PORT);
    let alias = node.established(&offer);
    node.hear(C, Message::Disowned { id: offer.id });
    assert_eq!(node.states(), [("established", "translate")]);
    node.hear(A, Message::Disowned { id: offer.id });
    assert_eq!(node.take(), [Output::DestroySocket { local: alias, remote: client(PORT) }]);
    assert_eq!(node.verdict(&from_kernel(alias)), Verdict::Drop(DropReason::NoConnection));
    assert_eq!(node.overlay(A, &ack(PORT)).0, Verdict::Drop(DropReason::NoConnection));
    assert_eq!(node.counter("disowned_total"), 1);
    node.wait(limits::LINGER - milliseconds(1));
    assert_eq!(node.states(), [("abandoned", "inspect")]);
    node.wait(milliseconds(1));
    assert_eq!(node.states(), []);
}

#[test]
fn a_connection_in_use_is_not_offered_twice() {
    let mut node = Node::new("b");
    let offer = offer(PORT);
    let alias = node.established(&offer);
    node.hear(A, Message::Offer(Box::new(offer.clone())));
    assert_eq!(messages(&node.take()), [Message::Refuse { id: offer.id, reason: Refusal::InUse }]);
    let mut another = offer.clone();
    another.id.serial += 1;
    node.hear(A, Message::Offer(Box::new(another.clone())));
    let said = node.take();
    assert!(said.contains(&Output::AskSocket { local: alias, remote: client(PORT) }));
    assert_eq!(messages(&said), [Message::Refuse { id: another.id, reason: Refusal::InUse }]);
    // When it is over the next one takes another alias: the kernel may still be in TIME-WAIT on that one.
    node.socket = SocketState::TimeWait;
    node.wait(limits::IDLE_CHECK_INTERVAL);
    node.take();
    node.hear(A, Message::Offer(Box::new(another)));
    let [replay] = written(&node.take(), Why::Replay).try_into().expect("one");
    assert_ne!(segment::<ToServerLocal>(&replay).destination(), alias);
}

#[test]
fn a_node_that_drains_refuses_and_takes_again_when_it_does_not() {
    let mut node = Node::new("b");
    node.drain_node();
    node.hear(A, Message::Offer(Box::new(offer(PORT))));
    assert_eq!(messages(&node.take()), [Message::Refuse { id: offer(PORT).id, reason: Refusal::Draining }]);
    node.engine.undrain();
    node.prepared(&offer(PORT));
}

#[test]
fn an_owner_that_ends_resets_both_ends_of_what_it_serves() {
    let mut node = Node::new("b");
    let alias = node.established(&offer(PORT));
    let answer = SegmentSpec { payload: &[b'x'; 1_000], ack: Seq::new(CLIENT_ISN).plus(1 + flight()), ..from_kernel(alias) };
    assert_eq!(node.verdict(&answer), Verdict::Write);
    let told = SegmentSpec { ack: Seq::new(FRONTEND_ISN).plus(601), ..octets(PORT, flight(), &[]) };
    assert_eq!(node.overlay(A, &told).0, Verdict::Write);
    assert_eq!(node.engine.live(), 1);
    node.reset_all();
    let said = node.take();
    let [reset] = written(&said, Why::Reset).try_into().expect("one");
    assert_eq!(segment::<ToClientWire>(&reset).seq(), Seq::new(FRONTEND_ISN).plus(601), "exact for the client");
    assert!(said.contains(&Output::DestroySocket { local: alias, remote: client(PORT) }));
    assert_eq!(node.engine.live(), 0);
}

#[test]
fn when_all_aliases_linger_the_one_that_has_been_over_longest_is_taken_again() {
    let mut node = Node::new("b");
    let mut used = Vec::new();
    for serial in 0..limits::ALIASES_PER_FRONTEND as u64 {
        let mut offer = offer(PORT);
        offer.id.serial = serial;
        node.socket = SocketState::SynReceived;
        used.push(node.established(&offer));
        node.socket = SocketState::TimeWait;
        assert_eq!(node.overlay(A, &syn(PORT)).0, Verdict::Drop(DropReason::SynKept));
        assert_eq!(messages(&node.take()), [Message::Closed { id: offer.id }]);
        node.wait(milliseconds(1));
    }
    let different: std::collections::BTreeSet<_> = used.iter().map(|alias| alias.address).collect();
    assert_eq!(different.len(), limits::ALIASES_PER_FRONTEND);
    node.hear(A, Message::Offer(Box::new(offer(PORT))));
    let [replay] = written(&node.take(), Why::Replay).try_into().expect("one");
    assert_eq!(segment::<ToServerLocal>(&replay).destination(), used[0]);
}

#[test]
fn a_connection_that_is_forgotten_takes_nothing_of_the_next_one_with_it() {
    let mut node = Node::new("b");
    node.established(&offer(PORT));
    node.socket = SocketState::TimeWait;
    assert_eq!(node.overlay(A, &syn(PORT)).0, Verdict::Drop(DropReason::SynKept));
    let mut next = offer(PORT);
    next.id.serial += 1;
    node.socket = SocketState::SynReceived;
    node.take();
    let alias = node.established(&next);
    node.wait(limits::LINGER);
    assert_eq!(node.states(), [("established", "translate")]);
    let (verdict, packet) = node.overlay(A, &ack(PORT));
    assert_eq!((verdict, segment::<ToServerLocal>(&packet).destination()), (Verdict::Write, alias));
    node.socket = SocketState::Absent;
    node.wait(limits::IDLE_CHECK_INTERVAL + limits::LINGER);
    assert_eq!(node.overlay(A, &ack(PORT)).0, Verdict::Drop(DropReason::NoConnection));
}

#[test]
fn an_empty_flight_waits_for_its_kernel_until_it_is_late() {
    for (socket, ends) in [(SocketState::SynReceived, "returning"), (SocketState::Absent, "over")] {
        let mut node = Node::new("b");
        let offer = Offer { first_flight: vec![], ..offer(PORT) };
        node.prepared(&offer);
        node.socket = socket;
        node.hear(A, Message::Commit { id: offer.id, more: vec![] });
        node.wait(limits::DELIVERY_DEADLINE - milliseconds(1));
        assert_eq!(node.states(), [("delivering", "inspect")]);
        node.wait(milliseconds(100));
        assert_eq!(node.states()[0].0, ends);
    }
}

#[test]
fn a_flight_whose_socket_is_gone_ends_the_connection_once_it_is_late() {
    let mut node = Node::new("b");
    let offer = offer(PORT);
    let alias = node.prepared(&offer);
    node.hear(A, Message::Commit { id: offer.id, more: vec![] });
    node.socket = SocketState::Absent;
    node.wait(limits::DELIVERY_DEADLINE + milliseconds(100));
    let said = node.take();
    assert!(said.contains(&Output::DestroySocket { local: alias, remote: client(PORT) }));
    assert_eq!(written(&said, Why::Reset).len(), 1);
    assert_eq!(messages(&said), [Message::Delivered { id: offer.id }, Message::Closed { id: offer.id }]);
}

#[test]
fn a_kernel_that_has_the_connection_gets_the_rest_for_as_long_as_that_takes() {
    let mut node = Node::new("b");
    let offer = offer(PORT);
    let alias = node.prepared(&offer);
    node.hear(A, Message::Commit { id: offer.id, more: vec![] });
    node.socket = SocketState::Open;
    assert_eq!(node.verdict(&SegmentSpec { ack: Seq::new(CLIENT_ISN).plus(6), ..from_kernel(alias) }), Verdict::Write);
    node.wait(milliseconds(5_000));
    assert_eq!(node.states(), [("delivering", "inspect")]);
    let delivered = written(&node.take(), Why::FirstFlight).len() as u64;
    assert!(delivered > 9, "{delivered}");
    assert_eq!(node.counter("redeliveries_total"), delivered - 1);
}

#[test]
fn a_client_is_heard_at_once_when_its_kernel_has_left_the_handshake_and_not_before() {
    let later = octets(PORT, flight() + 100, b"later");
    let server_speaks = |alias| SegmentSpec { payload: b"220 hello", ..from_kernel(alias) };
    let mut node = Node::new("b");
    let offer = offer(PORT);
    let alias = node.prepared(&offer);
    node.hear(A, Message::Commit { id: offer.id, more: vec![] });
    // Of exactly ISN + 1 a kernel speaks in SYN-RECV, too.
    assert_eq!(node.verdict(&from_kernel(alias)), Verdict::Write);
    assert_eq!(node.overlay(A, &later).0, Verdict::Consumed);
    assert_eq!(node.verdict(&server_speaks(alias)), Verdict::Write);
    assert_eq!(node.verdict(&from_kernel(alias)), Verdict::Write);
    let (verdict, packet) = node.overlay(A, &later);
    assert_eq!((verdict, segment::<ToServerLocal>(&packet).destination()), (Verdict::Write, alias));
    assert_eq!(node.overlay(A, &syn(PORT)).0, Verdict::Consumed, "a SYN waits until the kernel can be asked");
    assert_eq!(node.states(), [("delivering", "inspect")]);
}

#[test]
fn a_syn_ack_for_what_nobody_has_decided_never_leaves() {
    let mut node = Node::new("b");
    let alias = node.established(&offer(PORT));
    assert_eq!(node.verdict(&kernel_syn_ack(alias)), Verdict::Drop(DropReason::SynAckAbsorbed));
    assert_eq!(node.states(), [("established", "translate")]);
}

#[test]
fn late_packets_of_a_connection_that_is_over_are_still_translated() {
    let mut node = Node::new("b");
    let alias = node.established(&offer(PORT));
    node.socket = SocketState::TimeWait;
    node.wait(limits::IDLE_CHECK_INTERVAL);
    assert_eq!(node.states(), [("over", "translate")]);
    let (verdict, packet) = node.overlay(A, &ack(PORT));
    assert_eq!((verdict, segment::<ToServerLocal>(&packet).destination()), (Verdict::Write, alias));
    let (verdict, packet) = node.read(&from_kernel(alias));
    assert_eq!((verdict, segment::<ToClientWire>(&packet).source()), (Verdict::Write, frontend()));
}

#[test]
fn no_two_handoffs_have_one_number() {
    let mut node = Node::new("b");
    let offer = offer(PORT);
    node.prepared(&offer);
    let again = [Message::Refuse { id: offer.id, reason: Refusal::InUse }];
    node.hear(A, Message::Offer(Box::new(offer.clone())));
    assert_eq!(messages(&node.take()), again);
    node.hear(A, Message::Commit { id: offer.id, more: vec![] });
    node.socket = SocketState::Absent;
    node.wait(limits::DELIVERY_DEADLINE + limits::LINGER * 2);
    assert_eq!((node.states(), node.counter("commits_unsettled")), (vec![], 1));
    node.take();
    node.hear(A, Message::Offer(Box::new(offer)));
    assert_eq!(messages(&node.take()), again);
}

#[test]
fn another_policy_may_give_a_front_end_other_aliases() {
    let mut node = Node::new("b");
    let before = node.established(&offer(PORT));
    // One more address in front of it, and it is no longer the first.
    node.replace_policy("b", &[("b: \"10.77.0.2:80\"", "b: \"10.77.0.0:80\"")]);
    node.socket = SocketState::SynReceived;
    let other = Offer { flow: flow(PORT + 1), id: offer(PORT + 1).id, ..offer(PORT) };
    node.hear(A, Message::Offer(Box::new(other)));
    let [replay] = written(&node.take(), Why::Replay).try_into().expect("one");
    assert_ne!(segment::<ToServerLocal>(&replay).destination(), before);
    assert_eq!(node.overlay(A, &ack(PORT)).0, Verdict::Write, "those in use stay in use");
}
