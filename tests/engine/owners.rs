//! Front-end addresses that several nodes have: whose word on an owner is believed, what is kept and remembered meanwhile, and
//! for how long. (The usual course: `on_syn`.)

use super::driver::*;
use super::noise::too_big;
use super::on_syn::{KERNEL_NEXT, ON_SYN, ack, answered, forwarded, id_of, messages, node, of_both, of_nobody, owned, shared};
use baton::control::message::{Epoch, HandoffId, Message};
use baton::flow::{Endpoint, FlowKey};
use baton::handoff::counters::DropReason;
use baton::handoff::{PeerEvent, SocketState, Verdict};
use baton::limits;
use baton::rewrite::{Flags, Offload, SegmentSpec, Seq, ToClientLocal, ToServerLocal, ToServerWire};

const PORT: u16 = 50_000;

/// A client that no rule is about: nobody would choose a peer for it, so all are asked.
fn nobody() -> SegmentSpec<'static, ToServerWire> {
    of_nobody(ack())
}

fn nobody_flow() -> FlowKey {
    FlowKey { client: nobody().source, frontend: frontend() }
}

fn owner(owns: bool) -> Message {
    Message::Owner { flow: nobody_flow(), owns }
}

#[test]
fn each_peer_answers_once_and_only_those_that_were_asked() {
    let mut node = shared("a");
    assert_eq!(node.verdict(&nobody()), Verdict::Consumed);
    assert_eq!(messages(&node.take()).len(), 2);
    assert_eq!((node.counter("owner_questions_total"), node.counter("owners_asked_for")), (2, 1));
    node.hear(B, owner(false));
    node.hear(B, owner(true));
    assert_eq!((node.take(), node.states()), (vec![], vec![("asking", "inspect")]), "it has said already that it does not");
    node.hear(C, owner(true));
    assert_eq!(forwarded(&node.take()), [(C, nobody().build().into_inner())]);
    assert_eq!((node.counter("owners_found_total"), node.states()), (1, vec![("known", "forward")]));
}

#[test]
fn only_servers_of_the_service_are_asked() {
    let without = [(", c: { port: 80 } }", " }"), ("send_to: [b, c]", "send_to: b")];
    let mut node =
        Node::of_file("a", &[&ON_SYN[..], &[("b: \"10.77.0.2:80\" }", "b: \"10.77.0.1:80\" }")], &without].concat(), &[]);
    node.socket = SocketState::Absent;
    assert_eq!(node.verdict(&nobody()), Verdict::Consumed);
    assert_eq!(messages(&node.take()), [(B, Message::WhoOwns { flow: nobody_flow(), ack: Some(nobody().ack) })]);
}

#[test]
fn who_has_not_answered_in_time_is_waited_for_no_longer_and_no_shorter() {
    let mut node = shared("a");
    assert_eq!(node.verdict(&nobody()), Verdict::Consumed);
    node.wait(limits::OWNER_PATIENCE - milliseconds(1));
    assert_eq!(node.states(), [("asking", "inspect")]);
    node.wait(milliseconds(1));
    assert_eq!((node.states(), node.engine.dropped(DropReason::OwnerUnknown)), (vec![], 1));
}

#[test]
fn what_is_kept_while_an_owner_is_looked_for_is_bounded_in_number_and_size() {
    let kept = |payload: &'static [u8]| {
        let mut node = shared("a");
        let arrives = SegmentSpec { payload, ..nobody() };
        let kept = (0..1_000).take_while(|_| node.verdict(&arrives) == Verdict::Consumed).count();
        assert_eq!(node.engine.dropped(DropReason::HeldFull), 1);
        node.hear(B, owner(true));
        assert_eq!(forwarded(&node.take()).len(), kept, "none is lost");
        kept
    };
    assert_eq!(kept(b""), limits::OVERTAKING_SEGMENTS_MAX);
    static LARGE: [u8; 60_000] = [0; 60_000];
    assert_eq!(kept(&LARGE), limits::OVERTAKING_BYTES_MAX / 60_052);
    // To the octet.
    static EXACT: [u8; (limits::OVERTAKING_BYTES_MAX / 4) - 52] = [0; (limits::OVERTAKING_BYTES_MAX / 4) - 52];
    assert_eq!(kept(&EXACT), 4);
}

#[test]
fn a_super_segment_whose_owner_is_looked_for_is_cut_first() {
    let mut node = shared("a");
    let payload = [b'x'; 5_000];
    let mut packet = SegmentSpec { payload: &payload, ..nobody() }.build().into_inner();
    let offload = Offload { segment_bytes: std::num::NonZeroU16::new(1_400), ..Offload::NONE };
    assert_eq!(node.engine.handle_tun(&mut packet, offload, node.instant()), Verdict::Cut);
    // While somebody is being asked, too.
    assert_eq!(node.verdict(&nobody()), Verdict::Consumed);
    assert_eq!(node.engine.handle_tun(&mut packet, offload, node.instant()), Verdict::Cut);
}

#[test]
fn a_syn_ends_the_search_for_the_owner_of_what_was_before() {
    let mut node = shared("a");
    assert_eq!(node.verdict(&nobody()), Verdict::Consumed);
    assert_eq!(node.verdict(&nobody()), Verdict::Consumed, "an acknowledgement does not");
    assert_eq!(node.states(), [("asking", "inspect")]);
    assert_eq!(node.verdict(&of_nobody(syn(PORT))), Verdict::Write);
    assert_eq!(node.states(), []);
}

#[test]
fn what_is_for_another_kernel_than_the_one_that_has_only_answered_is_looked_for() {
    let mut node = shared("b");
    answered(&mut node);
    // A SYN-ACK of another node was the first to arrive, say.
    assert_eq!(node.verdict(&SegmentSpec { ack: Seq::new(KERNEL_NEXT + 1), ..ack() }), Verdict::Consumed);
    assert_eq!(node.counter("owners_asked_for"), 1);
    assert_eq!(node.engine.dropped(DropReason::BadAcknowledgement), 0);
}

#[test]
fn what_this_node_serves_no_longer_for_an_ingress_that_gave_it_up_is_looked_for() {
    let mut node = shared("b");
    owned(&mut node);
    let id = match node.engine.flows(node.instant()).as_slice() {
        [_] => HandoffId { epoch: Epoch(11), serial: 1 },
        flows => panic!("{flows:?}"),
    };
    node.hear(A, Message::Disowned { id });
    assert_eq!(node.states(), [("abandoned", "inspect")]);
    assert_eq!(node.verdict(&ack()), Verdict::Consumed);
    assert_eq!(node.counter("owners_asked_for"), 1);
}

#[test]
fn an_owner_that_names_itself_ends_the_search_and_gets_what_was_kept() {
    let mut node = shared("a");
    assert_eq!(node.verdict(&nobody()), Verdict::Consumed);
    node.take();
    node.hear(C, Message::Owned { id: id_of(C, 1), flow: nobody_flow() });
    let said = node.take();
    assert_eq!(forwarded(&said), [(C, nobody().build().into_inner())]);
    assert_eq!((messages(&said), node.states()), (vec![], vec![("handed-off", "forward")]));
    assert_eq!(node.verdict(&nobody()), Verdict::Forward(C));
}

#[test]
fn all_owners_that_were_found_are_remembered_and_none_longer_than_two_lifetimes() {
    let mut node = shared("a");
    let of = |index: u8| SegmentSpec { source: Endpoint::new([203, 0, 113, index].into(), PORT), ..ack() };
    let find = |node: &mut Node, index| {
        assert_eq!(node.verdict(&of(index)), Verdict::Consumed);
        node.hear(C, Message::Owner { flow: FlowKey { client: of(index).source, frontend: frontend() }, owns: true });
        node.take();
    };
    (1..=3).for_each(|index| find(&mut node, index));
    assert_eq!(node.counter("owners_known"), 3);
    node.wait(limits::KNOWN_OWNER_LIFETIME);
    find(&mut node, 4);
    assert_eq!(node.counter("owners_known"), 4, "three of the time before");
    assert_eq!([1, 2, 3, 4].map(|index| node.verdict(&of(index))), [Verdict::Forward(C); 4]);
    node.wait(limits::KNOWN_OWNER_LIFETIME * 3);
    assert_eq!(node.counter("owners_known"), 0);
}

#[test]
fn who_is_given_a_syn_may_deny_that_it_owns_what_came_of_it_and_nobody_else() {
    let denied = Message::Owner { flow: flow(PORT), owns: false };
    let mut node = shared("a");
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Consumed);
    node.hear(C, denied.clone());
    assert_eq!((node.counter("openings_pending"), node.verdict(&ack())), (1, Verdict::Forward(B)));
    node.hear(B, denied.clone());
    node.take();
    assert_eq!(node.verdict(&ack()), Verdict::Consumed);
    assert_eq!(messages(&node.take()).len(), 2, "all are asked");
    // Where an address is one node's, nobody is to say so.
    let mut node = self::node("a");
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Consumed);
    node.hear(B, denied);
    assert_eq!((node.counter("openings_pending"), node.verdict(&ack())), (1, Verdict::Forward(B)));
}

#[test]
fn of_a_handshake_that_began_in_an_earlier_life_the_kernels_word_is_enough() {
    // This process has not seen the SYN-ACK, or the packet acknowledges nothing.
    for (is_seen, acknowledged) in [(false, Some(Seq::new(77))), (true, None)] {
        let mut node = shared("a");
        if is_seen {
            assert_eq!(node.verdict(&syn_ack(PORT)), Verdict::Write);
        }
        node.socket = SocketState::SynReceived;
        node.hear(B, Message::WhoOwns { flow: flow(PORT), ack: acknowledged });
        assert_eq!(messages(&node.take()), [(B, Message::Owner { flow: flow(PORT), owns: true })]);
    }
}

/// Shared node b, where a connection that its kernel served under an alias is over.
fn over(node: &mut Node) -> Endpoint {
    let alias = owned(node);
    node.socket = SocketState::Absent;
    assert_eq!(node.verdict(&SegmentSpec::<ToClientLocal> { flags: Flags::RST, ..from_kernel(alias) }), Verdict::Write);
    node.take();
    assert_eq!(node.states(), [("over", "translate")]);
    alias
}

#[test]
fn what_follows_a_connection_that_is_over_is_its_kernels_unless_the_ends_are_in_use_again() {
    let mut node = shared("b");
    let alias = over(&mut node);
    let (verdict, packet) = node.read(&ack());
    assert_eq!((verdict, segment::<ToServerLocal>(&packet).destination()), (Verdict::Write, alias));

    // A new connection from here, whose SYN went to c.
    node.replace_policy(
        "b",
        &[&ON_SYN[..], &[("b: \"10.77.0.2:80\" }", "b: \"10.77.0.1:80\" }"), ("send_to: b", "send_to: c")]].concat(),
    );
    assert_eq!(node.verdict(&SegmentSpec { seq: Seq::new(5), ..syn(PORT) }), Verdict::Consumed);
    assert_eq!(forwarded(&node.take())[0].0, C);
    assert_eq!(node.verdict(&ack()), Verdict::Forward(C));
}

#[test]
fn an_error_about_a_connection_that_nothing_is_known_of_is_told_to_all_who_may_own_it() {
    let mut node = shared("a");
    let mut error = too_big(&syn_ack(PORT).build().into_inner());
    let before = error.clone();
    node.peer(B, PeerEvent::Down);
    assert_eq!(node.tun(&mut error), Verdict::Write, "this node's kernel may serve it");
    assert_eq!(forwarded(&node.take()), [(C, before.clone())], "b is away");
    node.peer(B, PeerEvent::Up(epoch_of(B)));
    let _: Verdict = node.tun(&mut error);
    let to: Vec<_> = forwarded(&node.take()).into_iter().map(|(to, _)| to).collect();
    assert_eq!(to, [B, C]);
    for _ in 2..limits::ERRORS_TOLD_PER_SECOND {
        let _: Verdict = node.tun(&mut error);
    }
    assert_eq!(forwarded(&node.take()).len(), 2 * (limits::ERRORS_TOLD_PER_SECOND - 2));
    let _: Verdict = node.tun(&mut error);
    assert_eq!((forwarded(&node.take()), node.verdict(&nobody())), (vec![], Verdict::Consumed), "questions are counted apart");
}

#[test]
fn an_error_about_an_unknown_connection_to_an_address_of_this_node_alone_is_told_to_nobody() {
    let mut node = Node::new("a");
    assert_eq!(node.tun(&mut too_big(&syn_ack(PORT).build().into_inner())), Verdict::Write);
    assert_eq!(node.take(), []);
}

#[test]
fn an_error_about_a_syn_that_was_forwarded_goes_where_that_went() {
    let mut node = shared("a");
    assert_eq!(node.verdict(&of_both(syn(PORT))), Verdict::Consumed);
    let about = SegmentSpec { destination: of_both(syn(PORT)).source, ..syn_ack(PORT) };
    assert_eq!(node.tun(&mut too_big(&about.build().into_inner())), Verdict::Forward(B));
}

#[test]
fn an_error_about_what_the_local_kernel_serves_is_its_own() {
    let mut node = shared("a");
    node.socket = SocketState::Open;
    assert_eq!(node.verdict(&ack()), Verdict::Consumed);
    node.take();
    assert_eq!(node.tun(&mut too_big(&syn_ack(PORT).build().into_inner())), Verdict::Write);
    assert_eq!(node.take(), [], "nobody is told");
}

#[test]
fn an_error_that_a_peer_passes_on_reaches_the_kernel_only_where_that_may_serve_the_connection() {
    for (mut node, expected) in [
        (shared("a"), Verdict::Write),
        (shared("c"), Verdict::Drop(DropReason::NoConnection)),
        (node("a"), Verdict::Drop(DropReason::NoConnection)),
    ] {
        let mut error = too_big(&syn_ack(PORT).build().into_inner());
        assert_eq!(node.engine.handle_overlay(B, &mut error, node.instant()), expected);
    }
}

#[test]
fn what_a_peer_asks_beyond_its_share_is_not_answered_and_counted() {
    let mut node = shared("a");
    let question = Message::WhoOwns { flow: flow(PORT), ack: None };
    for _ in 0..limits::PEER_QUESTIONS_PER_SECOND + 2 {
        node.hear(B, question.clone());
    }
    assert_eq!(messages(&node.take()).len(), limits::PEER_QUESTIONS_PER_SECOND);
    assert_eq!(node.counter("owner_questions_unanswered_total"), 2);
}

#[test]
fn in_a_full_table_nobody_is_asked_about_a_reset_of_the_local_kernel() {
    let mut node = Node::of_file(
        "a",
        &[&ON_SYN[..], &[("b: \"10.77.0.2:80\" }", "b: \"10.77.0.1:80\" }"), ("connections: 1000", "connections: 1")]].concat(),
        &[],
    );
    node.socket = SocketState::Open;
    assert_eq!(node.verdict(&ack()), Verdict::Consumed);
    node.socket = SocketState::Absent;
    node.hear(B, Message::Owned { id: id_of(B, 1), flow: flow(1) });
    node.take();
    assert!(node.engine.is_full());
    let reset = SegmentSpec { flags: Flags::RST, seq: Seq::new(77), ..syn_ack(PORT) };
    assert_eq!(node.verdict(&reset), Verdict::Drop(DropReason::OwnerNotAsked));
    assert_eq!(messages(&node.take()), []);
}
