//! Packets between neighbours without the overlay: when they may be sent, what may come that way, and how a client is reset
//! whose packets passed by.

use super::driver::*;
use super::on_syn::{ON_SYN, SHARED, ack as ack_on_syn, opened};
use baton::control::message::Message;
use baton::handoff::counters::DropReason;
use baton::handoff::{Engine, Output, PeerEvent, SocketState, Verdict, Why};
use baton::limits;
use baton::rewrite::{Flags, SegmentSpec, Seq, ToClientWire, ToServerWire};

const PORT: u16 = 50_000;
const LINK: (&str, &str) = ("    servers: {", "    forward: link\n    servers: {");

fn linked(name: &str) -> Node {
    let mut node = Node::of_file(name, &[LINK], &[]);
    for peer in [A, B, C] {
        node.engine.handle_link(peer, true, true);
    }
    node
}

/// A connection that node b has delivered to its application.
fn delivered(node: &mut Node) -> baton::control::message::HandoffId {
    let id = node.handed_off(PORT);
    node.hear(B, Message::Delivered { id });
    id
}

#[test]
fn only_what_its_owner_cannot_return_any_more_goes_over_a_link() {
    let mut node = linked("a");
    let id = node.handed_off(PORT);
    assert_eq!(node.verdict(&ack(PORT)), Verdict::Forward(B), "the owner may return it: what the client says is needed");
    node.hear(B, Message::Delivered { id });
    assert_eq!(node.verdict(&ack(PORT)), Verdict::ForwardOnLink(B));
    assert_eq!(node.states(), [("handed-off", "forward-on-link")]);
    assert_eq!(node.counter("linked_total"), 1);
    assert_eq!(node.verdict(&ack(PORT)), Verdict::ForwardOnLink(B));
    assert_eq!(node.counter("linked_total"), 1, "counted once");
}

#[test]
fn a_syn_never_goes_over_a_link() {
    let mut node = linked("a");
    delivered(&mut node);
    assert_eq!(node.verdict(&ack(PORT)), Verdict::ForwardOnLink(B));
    assert_eq!(node.verdict(&SegmentSpec { seq: Seq::new(9), ..syn(PORT) }), Verdict::Forward(B));
}

#[test]
fn without_a_link_without_leave_or_for_itself_packets_go_as_ever() {
    let mut node = linked("a");
    delivered(&mut node);
    node.engine.handle_link(B, true, false);
    assert_eq!(node.verdict(&ack(PORT)), Verdict::Forward(B), "a link that is lost");
    node.engine.handle_link(B, false, true);
    assert_eq!(node.verdict(&ack(PORT)), Verdict::Forward(B), "of the other family");
    let mut node = Node::new("a");
    node.engine.handle_link(B, true, true);
    delivered(&mut node);
    assert_eq!(node.verdict(&ack(PORT)), Verdict::Forward(B), "forward: overlay");
}

#[test]
fn what_was_learned_is_forgotten_when_the_owner_says_that_it_is_over() {
    for uses in [true, false] {
        let mut node = linked("a");
        let id = delivered(&mut node);
        if uses {
            assert_eq!(node.verdict(&ack(PORT)), Verdict::ForwardOnLink(B));
        }
        node.take();
        node.hear(B, Message::Closed { id });
        assert_eq!(node.take().contains(&Output::Unlink(B, flow(PORT))), uses);
        assert_eq!(node.verdict(&ack(PORT)), Verdict::Forward(B), "late packets are not learned anew");
    }
}

#[test]
fn a_client_whose_packets_passed_by_is_asked_where_its_reset_must_be() {
    let mut node = linked("a");
    delivered(&mut node);
    assert_eq!(node.verdict(&ack(PORT)), Verdict::ForwardOnLink(B));
    node.take();
    node.peer(B, PeerEvent::Up(baton::control::message::Epoch(9_999)));
    let said = node.take();
    assert!(said.contains(&Output::Unlink(B, flow(PORT))));
    let [question] = written(&said, Why::Question).try_into().expect("one");
    let question = segment::<ToClientWire>(&question);
    assert_eq!((question.flags(), question.seq()), (Flags::ACK, Seq::new(FRONTEND_ISN)), "before what it has acknowledged");
    // What it answers says how far it has got.
    let answer = SegmentSpec { ack: Seq::new(FRONTEND_ISN).plus(5_000_000), ..ack(PORT) };
    assert_eq!(node.verdict(&answer), Verdict::Drop(DropReason::OwnerLost));
    let [reset] = written(&node.take(), Why::Reset).try_into().expect("one");
    assert_eq!(segment::<ToClientWire>(&reset).seq(), Seq::new(FRONTEND_ISN).plus(5_000_000));
    node.wait(limits::RESET_QUESTION_INTERVAL);
    assert_eq!(written(&node.take(), Why::Question), Vec::<Vec<u8>>::new(), "it has answered");
}

#[test]
fn how_many_octets_passed_by_nobody_knows() {
    for changes in [&[LINK][..], &[]] {
        let mut node = Node::of_file("a", changes, &[]);
        node.engine.handle_link(B, true, true);
        node.engine.want_records();
        let id = delivered(&mut node);
        let _: Verdict = node.verdict(&ack(PORT));
        node.hear(B, Message::Closed { id });
        let record = node.engine.poll_record().expect("it is over");
        assert_eq!(record.octets().is_some(), changes.is_empty());
    }
}

#[test]
fn a_probe_of_a_link_comes_back_from_a_peer_to_an_address_of_this_node_or_is_nothing() {
    let mut node = linked("a");
    let sent_back = |at| SegmentSpec::<ToServerWire> { source: at, destination: at, ..ack(PORT) };
    let is_answer = |output: &Output| matches!(output, Output::LinkAnswered { peer: B, is_ipv4: true, .. });
    assert_eq!(node.overlay(B, &sent_back(frontend())).0, Verdict::Consumed);
    assert_eq!(node.take().iter().filter(|output| is_answer(output)).count(), 1);
    for (from, at) in [(A, frontend()), (B, client(PORT))] {
        assert_eq!(node.overlay(from, &sent_back(at)).0, Verdict::Drop(DropReason::NoConnection));
        assert_eq!(node.take(), []);
    }
}

#[test]
fn a_client_that_does_not_answer_is_asked_again_and_then_forgotten() {
    let mut node = linked("a");
    delivered(&mut node);
    assert_eq!(node.verdict(&ack(PORT)), Verdict::ForwardOnLink(B));
    node.peer(B, PeerEvent::Up(baton::control::message::Epoch(9_999)));
    node.wait(limits::RESET_QUESTION_INTERVAL * u32::from(limits::RESET_QUESTIONS_MAX - 1));
    assert_eq!(written(&node.take(), Why::Question).len(), usize::from(limits::RESET_QUESTIONS_MAX));
    assert_eq!(node.states(), [("lost", "inspect")]);
    node.wait(limits::RESET_QUESTION_INTERVAL);
    assert_eq!(node.states(), [("lost", "inspect")], "it has as long for its answer to the last one as anybody");
    node.wait(limits::LINGER);
    assert_eq!(node.states(), []);
}

#[test]
fn a_client_whose_packets_all_came_by_is_reset_where_it_is_and_not_asked() {
    let mut node = linked("a");
    delivered(&mut node);
    node.take();
    node.peer(B, PeerEvent::Up(baton::control::message::Epoch(9_999)));
    let said = node.take();
    assert_eq!((written(&said, Why::Reset).len(), written(&said, Why::Question).len()), (1, 0));
}

#[test]
fn an_owner_takes_over_a_link_what_it_takes_through_the_overlay() {
    let mut node = linked("b");
    let alias = node.established(&offer(PORT));
    let (verdict, packet) = node.read(&octets(PORT, 50, b"more"));
    assert_eq!(verdict, Verdict::Write);
    assert_eq!(segment::<ToServerWire>(&packet).destination(), alias);
    assert_eq!(node.counter("linked_received_total"), 1);
    assert_eq!(node.verdict(&ack(PORT + 1)), Verdict::Drop(DropReason::NoConnection), "nobody's goes nowhere");
}

#[test]
fn nothing_begins_over_a_link_and_without_leave_nothing_comes() {
    let mut node = linked("b");
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Drop(DropReason::NotOurs));
    let mut node = Node::new("b");
    node.established(&offer(PORT));
    assert_eq!(node.verdict(&octets(PORT, 50, b"more")), Verdict::Drop(DropReason::NotOurs), "forward: overlay");
}

#[test]
fn a_probe_of_a_link_comes_back_through_the_overlay_and_is_believed_only_there() {
    let mut probe = Engine::link_probe(frontend(), 77);
    assert_eq!(linked("b").tun(&mut probe), Verdict::Forward(A));
    let mut node = linked("a");
    let back = SegmentSpec { source: frontend(), destination: frontend(), seq: Seq::new(77), timestamps: None, ..ack(PORT) };
    assert_eq!(node.overlay(B, &back).0, Verdict::Consumed);
    assert_eq!(node.take(), [Output::LinkAnswered { peer: B, is_ipv4: true, number: 77 }]);
    assert_ne!(node.verdict(&back), Verdict::Consumed, "anybody can send this one");
    assert!(!node.take().iter().any(|output| matches!(output, Output::LinkAnswered { .. })));
}

#[test]
fn only_where_all_who_may_serve_are_on_links_is_the_mss_what_a_link_takes() {
    for (links, expected) in [(vec![B, C], 1_460), (vec![B], 1_500 - OVERHEAD - 40), (vec![], 1_500 - OVERHEAD - 40)] {
        let mut node = Node::of_file("a", &[LINK], &[]);
        links.into_iter().for_each(|peer| node.engine.handle_link(peer, true, true));
        assert_eq!(node.verdict(&syn(PORT)), Verdict::Write);
        let (_, packet) = node.read(&syn_ack(PORT));
        assert_eq!(segment::<ToClientWire>(&packet).mss(), Some(expected));
    }
}

/// Node a, whose service decides on the SYN, with more changes to its file.
fn linked_on_syn(more: &[(&str, &str)]) -> Node {
    let mut node = Node::of_file("a", &[&ON_SYN[..], &[LINK], more].concat(), &[]);
    node.socket = SocketState::Absent;
    [B, C].into_iter().for_each(|peer| node.engine.handle_link(peer, true, true));
    node
}

#[test]
fn what_was_decided_on_the_syn_goes_over_a_link_once_its_owner_is_known_but_of_a_shared_address_never() {
    let mut node = linked_on_syn(&[]);
    opened(&mut node);
    assert_eq!(node.verdict(&ack_on_syn()), Verdict::ForwardOnLink(B));
    let mut node = linked_on_syn(&[SHARED]);
    opened(&mut node);
    assert_eq!(node.verdict(&ack_on_syn()), Verdict::Forward(B));
}

#[test]
fn what_was_learned_before_the_link_was_lost_is_forgotten_at_the_end() {
    let mut node = linked("a");
    let id = delivered(&mut node);
    assert_eq!(node.verdict(&ack(PORT)), Verdict::ForwardOnLink(B));
    node.engine.handle_link(B, true, false);
    assert_eq!(node.verdict(&ack(PORT)), Verdict::Forward(B));
    node.take();
    node.hear(B, Message::Closed { id });
    assert!(node.take().contains(&Output::Unlink(B, flow(PORT))));
}

#[test]
fn a_syn_on_a_linked_connection_is_kept_until_its_owner_says_that_it_is_over() {
    let mut node = linked("a");
    let id = delivered(&mut node);
    assert_eq!(node.verdict(&ack(PORT)), Verdict::ForwardOnLink(B));
    assert_eq!(node.verdict(&SegmentSpec { seq: Seq::new(9), ..syn(PORT) }), Verdict::Forward(B), "the owner's kernel judges it");
    node.take();
    node.hear(B, Message::Closed { id });
    let said = node.take();
    assert!(said.contains(&Output::Unlink(B, flow(PORT))));
    assert_eq!(written(&said, Why::KeptSyn).len(), 1, "the next one begins here");
}

#[test]
fn what_the_kernel_must_not_answer_for_is_known_at_any_time() {
    let guarded = |node: &Node| node.engine.guarded().collect::<Vec<_>>();
    let mut node = Node::of_file("a", &[], &[flow(PORT + 1)]);
    assert_eq!(guarded(&node), [flow(PORT + 1)], "found at the start");
    node.handshake_of(PORT);
    assert_eq!(guarded(&node), [flow(PORT + 1)], "the kernel's own");
    node.take();
    let mut node = linked("a");
    let id = delivered(&mut node);
    assert_eq!(guarded(&node), [flow(PORT)]);
    node.hear(B, Message::Closed { id });
    assert_eq!(guarded(&node), [flow(PORT)], "late packets");
    node.wait(limits::LINGER);
    assert_eq!(guarded(&node), []);
}
