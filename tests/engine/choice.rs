//! Choosing one of several nodes, and what follows when it cannot.

use super::driver::*;
use baton::control::message::{HandoffId, Message, Refusal};
use baton::flow::NodeId;
use baton::handoff::counters::DropReason;
use baton::handoff::{Output, PeerEvent, SocketState, Verdict, Why};
use baton::limits;
use baton::policy::{Examination, key_hash};
use baton::rewrite::{Flags, Seq, ToClientWire, ToServerWire};
use std::time::Duration;

const PORT: u16 = 50_000;

/// Node a, where `/both/*` is sent as told.
fn node(send_to: &str) -> Node {
    Node::of_file("a", &[("send_to: [b, c]", &format!("send_to: {send_to}"))], &[])
}

/// Who is offered a connection, if anybody is.
fn offered_to(said: &[Output]) -> Option<(NodeId, HandoffId)> {
    said.iter().find_map(|output| match output {
        Output::Message(peer, Message::Offer(offer)) => Some((*peer, offer.id)),
        _ => None,
    })
}

/// A connection that asks for `/both/...`, up to its first offer.
fn ask(node: &mut Node, port: u16, path: &str) -> Option<(NodeId, HandoffId)> {
    node.handshake_of(port);
    node.take();
    node.ask_of(port, &get(path));
    offered_to(&node.take())
}

/// A connection that whoever is asked takes.
fn take(node: &mut Node, port: u16) -> NodeId {
    match ask(node, port, "/both/x") {
        Some((peer, id)) => {
            node.hear(peer, accept(id));
            peer
        }
        None => A,
    }
}

fn chosen(node: &Node, counter: &str, name: &str) -> u64 {
    let name = format!("{counter}{{service=\"web\",rule=\"both\",node=\"{name}\"}}");
    node.engine.counters().into_iter().find(|(counted, _)| *counted == name).map_or(0, |(_, count)| count)
}

#[test]
fn turns_are_taken_and_counted_by_rule_and_node() {
    let mut node = node("{ nodes: { a: 1, b: 2, c: 1 }, by: round_robin }");
    let turns: Vec<NodeId> = (0..8).map(|number| take(&mut node, PORT + number)).collect();
    assert_eq!(turns, [B, A, C, B, B, A, C, B]);
    assert_eq!(["a", "b", "c"].map(|name| chosen(&node, "chosen_total", name)), [2, 4, 2]);
    assert_eq!(node.counter("decisions_total{service=\"web\",rule=\"both\"}"), 8);
    assert_eq!(node.counter("released_local_total"), 2);
}

#[test]
fn turns_go_on_after_a_reload() {
    let changes = [("send_to: [b, c]", "send_to: { nodes: [b, c], by: round_robin }")];
    let mut node = Node::of_file("a", &changes, &[]);
    assert_eq!(take(&mut node, PORT), B);
    node.replace_policy("a", &[changes[0], ("default: local", "default: b")]);
    assert_eq!(take(&mut node, PORT + 1), C);
}

#[test]
fn a_hash_sends_a_key_to_the_same_node_from_everywhere() {
    let rule = [("send_to: [b, c]", "send_to: { nodes: [a, b, c], by: hash(path) }")];
    let (mut node, at_b) = (Node::of_file("a", &rule, &[]), policy("b", &rule));
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..30_u16 {
        let path = format!("/both/{number}");
        let here = ask(&mut node, PORT + number, &path).map_or(A, |(peer, _)| peer);
        let Examination::Decided(decision) = at_b.services[0].examine(&get(&path), client(1)) else { panic!("{path}") };
        assert_eq!(decision.key, Some(key_hash(path.as_bytes())));
        let there = decision.choice.ranking(decision.key).unwrap()[0].0.target.node().unwrap_or(B);
        assert_eq!(here, there, "{path}");
        seen.insert(here);
    }
    assert_eq!(seen.len(), 3);
}

#[test]
fn a_key_stays_with_a_node_of_which_nothing_is_known_yet_and_a_list_goes_on() {
    // By the hash, /both/... is b's.
    let path = (0..).map(|number| format!("/both/{number}"));
    let mut node = node("{ nodes: [b, c], by: hash(path) }");
    let policy = policy("a", &[("send_to: [b, c]", "send_to: { nodes: [b, c], by: hash(path) }")]);
    let is_b = |path: &String| {
        let Examination::Decided(decision) = policy.services[0].examine(&get(path), client(1)) else { panic!("{path}") };
        decision.choice.ranking(decision.key).unwrap()[0].0.target.node() == Some(B)
    };
    let path = path.into_iter().find(is_b).expect("half of them are");
    node.engine.expect_reports(B);
    assert_eq!(ask(&mut node, PORT, &path).map(|(peer, _)| peer), Some(B));
    let mut listed = Node::new("a");
    listed.engine.expect_reports(B);
    assert_eq!(ask(&mut listed, PORT, &path).map(|(peer, _)| peer), Some(C));
}

#[test]
fn connections_are_counted_from_the_offer_to_the_end_so_the_idlest_is_found() {
    let mut node = node("{ nodes: [b, c], by: least_connections }");
    let (first, id) = ask(&mut node, PORT, "/both/1").expect("an offer");
    let other = if first == B { C } else { B };
    // An offer counts, ...
    assert_eq!(ask(&mut node, PORT + 1, "/both/2").map(|(peer, _)| peer), Some(other));
    // ... and so does a connection, until it is over.
    node.hear(first, accept(id));
    let (third, third_id) = ask(&mut node, PORT + 2, "/both/3").expect("an offer");
    node.hear(third, Message::Refuse { id: third_id, reason: Refusal::Full });
    let (fourth, fourth_id) = offered_to(&node.take()).expect("the other one");
    assert_ne!(third, fourth);
    node.hear(fourth, accept(fourth_id));
    // The refused offer counts no more: two and one.
    assert_eq!(take(&mut node, PORT + 3), third);
}

#[test]
fn a_connection_that_is_over_counts_no_more() {
    let mut node = node("{ nodes: [b, c], by: least_connections }");
    let mut ids = Vec::new();
    for number in 0..6 {
        let (peer, id) = ask(&mut node, PORT + number, "/both/x").expect("an offer");
        node.hear(peer, accept(id));
        node.hear(peer, Message::Delivered { id });
        ids.push((peer, id));
    }
    assert_eq!(ids.iter().filter(|(peer, _)| *peer == B).count(), 3, "evenly");
    for (_, id) in ids.iter().filter(|(peer, _)| *peer == C) {
        node.hear(C, Message::Closed { id: *id });
    }
    // c has none and b three: the next three are c's.
    let next: Vec<NodeId> = (10..13).map(|number| take(&mut node, PORT + number)).collect();
    assert_eq!(next, [C; 3]);
    // What is lost with its owner counts no more either.
    node.peer(C, PeerEvent::Down);
    node.peer(C, PeerEvent::Up(baton::control::message::Epoch(77)));
    let next: Vec<NodeId> = (20..23).map(|number| take(&mut node, PORT + number)).collect();
    assert_eq!(next, [C; 3]);
}

#[test]
fn turns_of_a_peer_that_is_down_or_drains_are_others() {
    let mut node = node("{ nodes: [b, c], by: round_robin }");
    node.peer(B, PeerEvent::Down);
    assert_eq!([take(&mut node, PORT), take(&mut node, PORT + 1)], [C, C]);
    node.peer(C, PeerEvent::Draining(true));
    assert_eq!(take(&mut node, PORT + 2), A, "nobody can: the local server");
    assert_eq!(node.counter("fallbacks_total{reason=\"peer_down\"}"), 0, "nobody was chosen that could not");
}

#[test]
fn otherwise_local_asks_nobody_else() {
    let mut node = node("{ nodes: [b, c], by: round_robin, otherwise: local }");
    let (peer, id) = ask(&mut node, PORT, "/both/1").expect("an offer");
    node.hear(peer, Message::Refuse { id, reason: Refusal::Full });
    let said = node.take();
    assert_eq!((offered_to(&said), written(&said, Why::Released).len()), (None, 2));
}

#[test]
fn otherwise_reset_tells_the_client_and_purges_the_kernel() {
    let mut node = node("{ nodes: [b, c], by: round_robin, otherwise: reset }");
    let (peer, id) = ask(&mut node, PORT, "/both/1").expect("an offer");
    node.hear(peer, Message::Refuse { id, reason: Refusal::Full });
    let said = node.take();
    assert_eq!(offered_to(&said), None);
    // The kernel is asked whether it knows no more than it should, its half goes, and only then the client is told.
    let [Output::AskSocket { .. }, Output::Packet(purge, Why::Purge), Output::Packet(reset, Why::Reset)] = said.as_slice() else {
        panic!("{said:?}")
    };
    let (purge, reset) = (segment::<ToServerWire>(purge), segment::<ToClientWire>(reset));
    assert_eq!((purge.flags(), purge.seq()), (Flags::RST, Seq::new(CLIENT_ISN).plus(1)));
    assert_eq!((reset.flags(), reset.seq()), (Flags::RST, Seq::new(FRONTEND_ISN).plus(1)));
    assert_eq!((reset.source(), reset.destination()), (frontend(), client(PORT)));
    assert_eq!(node.states(), [("lost", "inspect")]);
    let counted = ["resets_by_policy_total", "resets_total", "first_flight_bytes", "released_local_total"];
    assert_eq!(counted.map(|name| node.counter(name)), [1, 1, 0, 0]);
    // Nothing of the connection reaches the kernel any more, and whoever speaks on is told again.
    assert_eq!(node.verdict(&octets(PORT, 0, b"GET")), Verdict::Drop(DropReason::OwnerLost));
    assert_eq!(written(&node.take(), Why::Reset).len(), 1);
    // The same ends can begin anew.
    node.wait(Duration::from_secs(1));
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Consumed);
    assert_eq!(written(&node.take(), Why::KeptSyn).len(), 1);
}

#[test]
fn otherwise_next_then_reset_asks_all_of_them_first() {
    let mut node = node("{ nodes: [b, c], otherwise: [next, reset] }");
    let (first, id) = ask(&mut node, PORT, "/both/1").expect("an offer");
    node.hear(first, Message::Refuse { id, reason: Refusal::Full });
    let (second, id) = offered_to(&node.take()).expect("another offer");
    assert_eq!([first, second], [B, C]);
    node.hear(second, Message::Refuse { id, reason: Refusal::Full });
    assert_eq!(written(&node.take(), Why::Reset).len(), 1);
    // With nobody there at all it is decided at once, and counted as nobody's.
    node.peer(B, PeerEvent::Down);
    node.peer(C, PeerEvent::Down);
    assert_eq!(ask(&mut node, PORT + 1, "/both/2"), None);
    assert_eq!((node.counter("resets_by_policy_total"), chosen(&node, "chosen_total", "")), (2, 1));
}

#[test]
fn a_parked_connection_is_reset_as_well() {
    let mut node = node("{ nodes: [b, c], by: hash(path), otherwise: reset }");
    node.peer(B, PeerEvent::Down);
    node.peer(C, PeerEvent::Down);
    node.handshake_of(PORT);
    node.wait(limits::HOLD_MAX);
    node.take();
    node.ask_of(PORT, &get("/both/1"));
    let said = node.take();
    assert_eq!((written(&said, Why::Purge).len(), written(&said, Why::Reset).len()), (0, 1), "purged when it was parked");
    assert_eq!(node.states(), [("lost", "inspect")]);
}

#[test]
fn what_the_kernel_has_gone_on_with_is_not_reset() {
    let mut node = node("{ nodes: [b, c], by: hash(path), otherwise: reset }");
    node.peer(B, PeerEvent::Down);
    node.peer(C, PeerEvent::Down);
    node.socket = SocketState::Open;
    assert_eq!(ask(&mut node, PORT, "/both/1"), None);
    assert_eq!(node.counter("resets_total"), 0);
    assert_eq!(node.counter("fallbacks_total{reason=\"kernel_went_on\"}"), 1);
    assert_eq!(node.counter("released_local_total"), 1);
}

#[test]
fn a_node_that_drains_resets_nobody() {
    let mut node = node("{ nodes: [b, c], by: hash(path), otherwise: reset }");
    node.handshake_of(PORT);
    node.wait(limits::HOLD_MAX);
    node.drain_node();
    node.take();
    node.ask_of(PORT, &get("/both/1"));
    assert_eq!(written(&node.take(), Why::Replay).len(), 1, "a replay to its own kernel");
}

#[test]
fn a_service_that_observes_hands_nothing_off_and_counts_what_it_would_have_done() {
    let changes = [
        ("send_to: [b, c]", "send_to: { nodes: [b, c], by: round_robin, otherwise: reset }"),
        ("    rules:", "    mode: observe\n    rules:"),
    ];
    let mut node = Node::of_file("a", &changes, &[]);
    for number in 0..3 {
        assert_eq!(take(&mut node, PORT + number), A);
    }
    node.peer(B, PeerEvent::Down);
    node.peer(C, PeerEvent::Down);
    assert_eq!(take(&mut node, PORT + 3), A, "where it would have been reset");
    assert_eq!(["a", "b", "c", ""].map(|name| chosen(&node, "observed_total", name)), [0, 2, 1, 1]);
    assert_eq!(["a", "b", "c", ""].map(|name| chosen(&node, "chosen_total", name)), [0, 0, 0, 0]);
    let counted = ["offers_sent_total", "resets_total", "released_local_total", "connections_front_end"];
    assert_eq!(counted.map(|name| node.counter(name)), [0, 0, 4, 0]);
}

#[test]
fn a_service_that_observes_takes_nothing_out_of_the_kernel() {
    let mut node = Node::of_file("a", &[("    rules:", "    mode: observe\n    rules:")], &[]);
    node.handshake_of(PORT);
    node.wait(limits::HOLD_MAX);
    assert_eq!(written(&node.take(), Why::Purge).len(), 0);
    // Nor when a client waits for an acknowledgement.
    node.handshake_of(PORT + 1);
    node.ask_of(PORT + 1, b"GET /im");
    node.wait(limits::EARLY_ACKNOWLEDGEMENT_AFTER + milliseconds(1));
    assert_eq!(node.states(), []);
    assert_eq!((node.counter("parked_total"), node.counter("observed_undecided_total")), (0, 2));
    assert_eq!((node.counter("released_local_total"), node.counter("first_flight_bytes")), (2, 0));
}
