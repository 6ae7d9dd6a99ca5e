//! What is bounded, and what is counted.

use super::driver::*;
use baton::handoff::counters::DropReason;
use baton::handoff::{Output, Verdict, Why};
use baton::limits;
use baton::rewrite::{Flags, SegmentSpec};

const PORT: u16 = 50_000;

#[test]
fn a_quarter_of_the_backlog_is_held_and_the_oldest_is_parked_for_more() {
    let mut node = Node::new("a");
    node.engine.handle_backlog(frontend(), 8);
    node.handshake_of(PORT);
    node.handshake_of(PORT + 1);
    assert_eq!(node.counter("parked_total"), 0);
    node.handshake_of(PORT + 2);
    assert_eq!(
        (node.counter("parked_total"), node.counter("connections_parked"), node.counter("connections_undecided")),
        (1, 1, 2)
    );
    assert!(node.take().contains(&Output::Guard(flow(PORT))));
}

#[test]
fn a_table_that_is_full_leaves_connections_to_the_local_server() {
    let mut node = Node::of_file("a", &[("connections: 1000", "connections: 2")], &[]);
    node.handshake_of(PORT);
    node.handshake_of(PORT + 1);
    let fits = |node: &mut Node, port| {
        assert_eq!(node.verdict(&syn(port)), Verdict::Write);
        let (verdict, packet) = node.read(&syn_ack(port));
        assert_eq!(verdict, Verdict::Write);
        segment::<baton::rewrite::ToClientWire>(&packet).mss() != Some(1_460)
    };
    assert!(!fits(&mut node, PORT + 2), "untouched");
    assert_eq!(node.counter("fallbacks_total{reason=\"full\"}"), 1);
    // What ends makes room.
    node.ask_of(PORT, &get("/"));
    assert!(fits(&mut node, PORT + 3));
    assert_eq!(node.counter("connections_total"), 3);
}

#[test]
fn a_full_back_end_refuses() {
    let mut node = Node::of_file("b", &[("connections: 1000", "connections: 1")], &[]);
    node.prepared(&offer(PORT));
    let another = baton::control::message::Offer { id: offer(PORT + 1).id, flow: flow(PORT + 1), ..offer(PORT) };
    node.hear(A, baton::control::message::Message::Offer(Box::new(another)));
    let reason = baton::control::message::Refusal::Full;
    let refused = baton::control::message::Message::Refuse { id: offer(PORT + 1).id, reason };
    assert_eq!(node.take(), [Output::Message(A, refused)]);
    // What ends makes room.
    node.hear(A, baton::control::message::Message::Abort { id: offer(PORT).id });
    node.take();
    node.prepared(&offer(PORT));
}

#[test]
fn each_connection_is_challenged_twice_a_second_whatever_befalls_another() {
    let mut node = Node::new("a");
    node.handshake_of(PORT);
    node.handshake_of(PORT + 1);
    node.take();
    let challenged = |node: &mut Node, port: u16| {
        for _ in 0..200 {
            assert_eq!(node.verdict(&syn(port)), Verdict::Drop(DropReason::SynOnConnection));
        }
        written(&node.take(), Why::Challenge).len()
    };
    assert_eq!(challenged(&mut node, PORT), 1);
    // What somebody else's forged segments have used up is nothing that a stranger could measure.
    assert_eq!(challenged(&mut node, PORT + 1), 1);
    node.now += limits::CHALLENGE_INTERVAL - milliseconds(1);
    assert_eq!(challenged(&mut node, PORT), 0);
    node.now += milliseconds(1);
    assert_eq!((challenged(&mut node, PORT), node.counter("challenge_acks_total")), (1, 3));
}

#[test]
fn every_connection_is_counted_once_in_the_state_it_is_in() {
    let mut node = Node::new("a");
    let gauges = |node: &Node| {
        ["handshake", "undecided", "parked", "offered", "handed_off", "lingering", "front_end"]
            .map(|state| node.counter(&format!("connections_{state}")))
    };
    // Two of each, so that a count that forgets or multiplies is another one.
    for port in [1, 2] {
        assert_eq!(node.verdict(&syn(port)), Verdict::Write);
        assert_eq!(node.verdict(&syn_ack(port)), Verdict::Write);
    }
    for port in [3, 4] {
        assert_eq!(node.verdict(&syn(port)), Verdict::Write);
    }
    assert_eq!(node.counter("syns_pending"), 2);
    for port in [5, 6] {
        node.handshake_of(port);
    }
    assert_eq!(gauges(&node), [2, 2, 0, 0, 0, 0, 4]);
    node.wait(limits::HOLD_MAX);
    assert_eq!(gauges(&node), [2, 0, 2, 0, 0, 0, 4]);
    for port in [7, 8, 13] {
        node.offered(port);
    }
    assert_eq!(gauges(&node), [2, 0, 2, 3, 0, 0, 7]);
    let first = node.handed_off(9);
    let second = node.handed_off(10);
    node.handed_off(11);
    node.handed_off(12);
    assert_eq!(gauges(&node), [2, 0, 2, 3, 4, 0, 11]);
    for id in [first, second] {
        node.hear(B, baton::control::message::Message::Closed { id });
    }
    assert_eq!(gauges(&node), [2, 0, 2, 3, 2, 2, 9]);
    assert_eq!(node.engine.live(), 7, "what would be cut: not what the kernel knows, nor what is over");
    let states: Vec<_> = node.states().into_iter().map(|(state, _)| state).collect();
    for (state, count) in [("handshake", 2), ("parked", 2), ("offered", 3), ("handed-off", 2), ("lingering", 2)] {
        assert_eq!(states.iter().filter(|shown| **shown == state).count(), count, "{state}");
    }
}

#[test]
fn connections_at_their_owner_are_counted_too() {
    let mut node = Node::new("b");
    node.established(&offer(PORT));
    let second = baton::control::message::Offer { flow: flow(PORT + 1), id: offer(PORT + 1).id, ..offer(PORT) };
    node.hear(A, baton::control::message::Message::Offer(Box::new(second)));
    assert_eq!((node.counter("connections_back_end"), node.engine.live()), (2, 1));
    node.socket = baton::handoff::SocketState::Absent;
    node.wait(limits::IDLE_CHECK_INTERVAL);
    assert_eq!((node.counter("connections_back_end"), node.counter("connections_lingering")), (0, 1));
}

#[test]
fn decisions_are_counted_by_rule() {
    let mut node = Node::new("a");
    for port in 1..=3 {
        node.handed_off(port);
    }
    for port in [4, 5] {
        node.handshake_of(port);
        node.ask_of(port, &get("/"));
    }
    assert_eq!(node.counter("decisions_total{service=\"web\",rule=\"images\"}"), 3);
    assert_eq!(node.counter("decisions_total{service=\"web\",rule=\"default\"}"), 2);
    // Once parked, the local server's are replayed to it: both ways are local decisions.
    node.handshake_of(6);
    node.wait(limits::HOLD_MAX);
    node.ask_of(6, &get("/"));
    let [replay] = written(&node.take(), Why::Replay).try_into().expect("one");
    let alias = segment::<baton::rewrite::ToServerLocal>(&replay).destination();
    let syn_ack = SegmentSpec { destination: client(6), ..kernel_syn_ack(alias) };
    assert_eq!(node.verdict(&SegmentSpec { flags: Flags::SYN.with(Flags::ACK), ..syn_ack }), Verdict::Consumed);
    assert_eq!((node.counter("released_local_total"), node.counter("replays_to_self_total")), (2, 1));
    assert_eq!(node.counter("decisions_local_total"), 3);
}

#[test]
fn what_is_being_released_is_still_undecided() {
    let mut node = Node::new("a");
    for port in [1, 2] {
        node.handshake_of(port);
        node.wait(limits::HOLD_TIMED_MAX + milliseconds(1));
        node.ask_of(port, &get("/"));
        assert_eq!(written(&node.take(), Why::RepeatedSyn).len(), 1);
        assert_eq!((node.states().last(), node.counter("connections_undecided")), (Some(&("releasing", "inspect")), 1));
        assert_eq!(node.verdict(&syn_ack(port)), Verdict::Drop(DropReason::SynAckAbsorbed));
        assert_eq!(written(&node.take(), Why::ReleasedWithEcho).len(), 2);
    }
    for port in [3, 4] {
        node.handshake_of(port);
    }
    node.wait(limits::HOLD_TIMED_MAX + milliseconds(1));
    for port in [3, 4] {
        node.ask_of(port, &get("/"));
    }
    assert_eq!(node.counter("connections_undecided"), 2);
    assert_eq!(node.counter("connections_front_end"), 2);
}

#[test]
fn a_kernel_that_holds_fewer_again_parks_nobody() {
    let mut node = Node::new("a");
    node.engine.handle_backlog(frontend(), 8);
    for port in 1..=6 {
        node.handshake_of(port);
        node.handshake_of(port + 100);
        node.ask_of(port, &get("/"));
        node.ask_of(port + 100, &get("/"));
    }
    assert_eq!((node.counter("parked_total"), node.counter("released_local_total")), (0, 12));
}

#[test]
fn syns_beyond_the_table_push_out_the_oldest_and_are_counted() {
    let mut node = Node::new("a");
    let mut packet = syn(1).build().into_inner();
    for number in 0..limits::SYNS_MAX as u32 + 3 {
        // The checksum stays right: what one word gains, another loses.
        let (high, low) = ((number >> 12) as u16, (number & 0xfff) as u16);
        packet[20..22].copy_from_slice(&(1 + high + low).to_be_bytes());
        packet[34..36].copy_from_slice(&64_240_u16.to_be_bytes());
        let spec = SegmentSpec { source: baton::flow::Endpoint::new([192, 0, high as u8, 9].into(), 1 + low), ..syn(1) };
        assert_eq!(node.verdict(&spec), Verdict::Write);
    }
    assert_eq!((node.counter("syns_pending"), node.counter("syns_evicted_total")), (limits::SYNS_MAX as u64, 3));
}

#[test]
fn first_flights_take_no_more_memory_together_than_they_may() {
    const MOST: u64 = 256 << 10;
    let mut node = Node::of_file("a", &[("connections: 1000", "first_flight_bytes: 256KiB")], &[]);
    let held = |node: &Node| node.counter("first_flight_bytes");
    for port in 1.. {
        node.handshake_of(port);
        // Octets in order are there twice.
        let left = MOST - held(&node);
        if left < 12_000 {
            let headers = ack(port).build().packet().len() as u64;
            let exact = vec![b'x'; (left - headers) as usize];
            assert_eq!(node.verdict(&octets(port, 0, &exact)), Verdict::Consumed, "to the last octet");
            break;
        }
        assert_eq!(node.verdict(&octets(port, 0, &[b'x'; 10_000])), Verdict::Consumed);
    }
    let port = 10_000;
    assert_eq!(node.verdict(&syn(port)), Verdict::Write);
    assert_eq!(node.verdict(&syn_ack(port)), Verdict::Write);
    node.take();
    assert_eq!(node.verdict(&ack(port)), Verdict::Drop(DropReason::HeldFull));
    assert_eq!(node.counter("drops_total{reason=\"held_full\"}"), 1);
}

#[test]
fn what_was_remembered_of_a_request_is_about_one_policy() {
    let rule = ("- name: images", "- { name: model, when: { json: { /model: x } }, send_to: c }\n      - name: images");
    let mut node = Node::of_file("a", &[rule], &[]);
    node.handshake_of(1);
    let head = b"POST /images/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{";
    assert_eq!(node.verdict(&octets(1, 0, head)), Verdict::Consumed);
    assert_eq!(node.states(), [("undecided", "inspect")], "the body decides");
    // Nobody asks for the body any more.
    node.replace_policy("a", &[]);
    assert_eq!(node.counter("decisions_total{service=\"web\",rule=\"images\"}"), 1);
}
