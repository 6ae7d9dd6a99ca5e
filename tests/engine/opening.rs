//! Services that decide on the SYN, where something is amiss: who is passed over, whose word opens a connection, and what of
//! the owner's kernel and of the client is believed while it opens. (The usual course: `on_syn`.)

use super::driver::*;
use super::on_syn::{KERNEL_NEXT, ON_SYN, ack, answered, forwarded, id_of, messages, node, of_both, opened, owned, shared};
use baton::control::message::{Message, Refusal};
use baton::control::report::Told;
use baton::flow::FlowKey;
use baton::handoff::counters::DropReason;
use baton::handoff::{Output, PeerEvent, SocketState, Verdict, Why};
use baton::limits;
use baton::rewrite::{Flags, SegmentSpec, Seq, ToClientWire, ToServerLocal, ToServerWire};

const PORT: u16 = 50_000;

/// The usual file with these changes.
fn node_of(changes: &[(&str, &str)]) -> Node {
    let mut node = Node::of_file("a", &[&ON_SYN[..], changes].concat(), &[]);
    node.socket = SocketState::Absent;
    node
}

/// The ends of a client that `both` is said of.
fn both_flow() -> FlowKey {
    FlowKey { client: of_both(syn(PORT)).source, frontend: frontend() }
}

fn fallbacks(node: &Node, reason: &str) -> u64 {
    node.counter(&format!("fallbacks_total{{reason=\"{reason}\"}}"))
}

fn asks(said: &[Output]) -> usize {
    said.iter().filter(|output| matches!(output, Output::AskSocket { .. })).count()
}

// ---- The front-end ------------------------------------------------------------------------------------------------------

#[test]
fn every_syn_is_counted_once_by_what_became_of_it() {
    let mut node = node("a");
    let counts = |node: &Node| ["syns_total", "syns_forwarded_total", "local_on_syn_total"].map(|name| node.counter(name));
    assert_eq!(node.verdict(&of_both(syn(PORT))), Verdict::Consumed);
    assert_eq!(counts(&node), [1, 1, 0]);
    for (peer, expected) in [(B, [1, 2, 0]), (C, [1, 2, 1])] {
        node.hear(peer, Message::SynRefused { flow: both_flow(), isn: Seq::new(CLIENT_ISN), reason: Refusal::Full });
        assert_eq!(counts(&node), expected, "refused by {peer:?}");
    }
}

#[test]
fn on_an_address_that_is_retired_nothing_new_is_forwarded() {
    let mut node = node("a");
    opened(&mut node);
    node.replace_policy("a", &[&ON_SYN[..], &[("10.77.0.1:80", "10.77.0.1:81")]].concat());
    assert_eq!(node.verdict(&SegmentSpec { source: client(1), ..syn(1) }), Verdict::Write);
    assert_eq!(node.verdict(&ack()), Verdict::Forward(B), "what was opened goes on");
}

#[test]
fn a_draining_node_decides_nothing() {
    let mut node = node("a");
    node.drain_node();
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Write);
    assert_eq!((node.counter("decisions_local_total"), fallbacks(&node, "draining")), (0, 0));
}

#[test]
fn the_local_server_that_is_down_is_passed_over_while_another_may_be_asked() {
    for (order, first) in [("[local, c]", Some(C)), ("[c, local]", None)] {
        let mut node =
            node_of(&[("send_to: [b, c]", &format!("send_to: {order}")), ("rules:", "health: { tcp: true }\n    rules:")]);
        node.engine.handle_own_health("web", Told::Down, 0, node.instant());
        if first.is_none() {
            node.peer(C, PeerEvent::Down);
        }
        let verdict = node.verdict(&of_both(syn(PORT)));
        let to = forwarded(&node.take()).first().map(|(to, _)| *to);
        assert_eq!((verdict == Verdict::Write, to), (first.is_none(), first), "{order}");
        assert_eq!(fallbacks(&node, "local_unhealthy"), u64::from(first.is_some()), "{order}: the last one is asked as it is");
    }
}

#[test]
fn nobody_who_is_away_is_given_a_syn() {
    let mut node = node("a");
    node.peer(B, PeerEvent::Down);
    node.peer(C, PeerEvent::Down);
    assert_eq!(node.verdict(&of_both(syn(PORT))), Verdict::Write);
    assert_eq!((fallbacks(&node, "peer_down"), node.take()), (2, vec![]));
    let decided = "chosen_total{service=\"web\",rule=\"both\",node=\"a\"}";
    assert_eq!(node.counter(decided), 1, "for the local server");
}

#[test]
fn whom_nobody_may_serve_is_told_so_as_by_a_kernel_where_nothing_listens() {
    let otherwise = ("send_to: [b, c]", "send_to: { nodes: [b, c], otherwise: [next, reset] }");
    let refused = |said: &[Output]| {
        let [packet] = written(said, Why::Reset).try_into().expect("one");
        let reset = segment::<ToClientWire>(&packet);
        assert_eq!((reset.source(), reset.destination()), (frontend(), both_flow().client));
        assert_eq!((reset.flags(), reset.seq().raw()), (Flags::RST.with(Flags::ACK), 0));
        assert_eq!(reset.ack(), Seq::new(CLIENT_ISN).plus(1));
    };
    // Both refuse.
    let mut node = node_of(&[otherwise]);
    assert_eq!(node.verdict(&of_both(syn(PORT))), Verdict::Consumed);
    for peer in [B, C] {
        node.take();
        node.hear(peer, Message::SynRefused { flow: both_flow(), isn: Seq::new(CLIENT_ISN), reason: Refusal::Full });
    }
    refused(&node.take());
    // Neither can be asked.
    let (peers, decided) = ([B, C], "chosen_total{service=\"web\",rule=\"both\",node=\"\"}");
    for peer in peers {
        node.peer(peer, PeerEvent::Down);
    }
    node.take();
    assert_eq!(node.verdict(&of_both(syn(PORT))), Verdict::Consumed);
    refused(&node.take());
    assert_eq!(node.counter(decided), 1, "for nobody");
    assert_eq!(["resets_total", "resets_by_policy_total", "openings_pending"].map(|name| node.counter(name)), [2, 2, 0]);
}

#[test]
fn a_new_owner_takes_the_place_of_a_connection_that_is_over() {
    let mut node = node("a");
    let id = opened(&mut node);
    node.hear(B, Message::Closed { id });
    node.take();
    // Its SYN came to the new owner without this node.
    node.hear(C, Message::Owned { id: id_of(C, 1), flow: flow(PORT) });
    assert_eq!(messages(&node.take()), []);
    assert_eq!((node.verdict(&ack()), node.states()), (Verdict::Forward(C), vec![("handed-off", "forward")]));
}

#[test]
fn an_owner_that_opens_the_next_on_the_same_ends_has_closed_the_one_before() {
    let mut node = node("a");
    opened(&mut node);
    node.hear(B, Message::Owned { id: id_of(B, 8), flow: flow(PORT) });
    assert_eq!(messages(&node.take()), []);
    assert_eq!((node.counter("handoffs_closed_total"), node.states()), (1, vec![("handed-off", "forward")]));
    node.hear(B, Message::Closed { id: id_of(B, 8) });
    assert_eq!(node.states(), [("lingering", "forward")], "it is known by its new name");
}

#[test]
fn who_was_given_a_syn_may_open_it_though_the_service_has_another_server_by_now() {
    let others = [(", c: { port: 80 } }", " }"), ("send_to: [b, c]", "send_to: b")];
    for (given, disowned) in [(C, false), (B, true)] {
        let mut node = node_of(&[]);
        if given == C {
            node.peer(B, PeerEvent::Down);
        }
        assert_eq!(node.verdict(&of_both(syn(PORT))), Verdict::Consumed);
        node.replace_policy("a", &[&ON_SYN[..], &others].concat());
        node.take();
        node.hear(C, Message::Owned { id: id_of(C, 1), flow: both_flow() });
        let said = messages(&node.take());
        assert_eq!(said.contains(&(C, Message::Disowned { id: id_of(C, 1) })), disowned, "given to {given:?}");
        assert_eq!(node.states().len(), usize::from(!disowned));
    }
}

// ---- The owner ----------------------------------------------------------------------------------------------------------

/// At owner b: the SYN that came from a is with the kernel, which is silent; the alias.
fn given(node: &mut Node) -> baton::flow::Endpoint {
    let (verdict, packet) = node.overlay(A, &syn(PORT));
    assert_eq!(verdict, Verdict::Write);
    segment::<ToServerLocal>(&packet).destination()
}

#[test]
fn a_silent_kernel_has_the_time_of_a_replay_and_what_is_refused_is_counted() {
    let mut node = node("b");
    given(&mut node);
    node.wait(limits::REPLAY_DEADLINE - milliseconds(1));
    assert_eq!((messages(&node.take()), node.counter("offers_refused_total")), (vec![], 0));
    node.wait(milliseconds(1));
    assert_eq!((messages(&node.take()).len(), node.counter("offers_refused_total")), (1, 1));
    node.drain_node();
    assert_eq!(node.overlay(A, &syn(PORT)).0, Verdict::Consumed);
    assert_eq!(node.counter("offers_refused_total"), 2);
}

#[test]
fn only_a_reset_of_this_very_syn_says_that_nothing_listens() {
    let mut node = node("b");
    let alias = given(&mut node);
    let reset = SegmentSpec { flags: Flags::RST.with(Flags::ACK), seq: Seq::new(0), ..from_kernel(alias) };
    let ignored = [SegmentSpec { ack: Seq::new(CLIENT_ISN).plus(2), ..reset.clone() }, from_kernel(alias)];
    for packet in ignored {
        assert_eq!(node.verdict(&packet), Verdict::Drop(DropReason::UnexpectedFromKernel));
    }
    let stale = SegmentSpec { ack: Seq::new(CLIENT_ISN).plus(2), ..kernel_syn_ack(alias) };
    assert_eq!(node.verdict(&stale), Verdict::Drop(DropReason::UnexpectedFromKernel));
    assert_eq!(node.states(), [("opening", "inspect")]);
    assert_eq!(node.verdict(&reset), Verdict::Consumed);
    assert_eq!(node.states(), []);
}

#[test]
fn until_the_client_has_acknowledged_one_the_latest_syn_ack_counts_and_then_no_other() {
    let mut node = node("b");
    let alias = answered(&mut node);
    let latest = SegmentSpec { seq: Seq::new(BACKEND_ISN + 1_000), ..kernel_syn_ack(alias) };
    assert_eq!(node.verdict(&latest), Verdict::Write);
    assert_eq!(node.overlay(A, &ack()).0, Verdict::Drop(DropReason::BadAcknowledgement), "of the one before");
    assert_eq!(node.overlay(A, &SegmentSpec { ack: Seq::new(KERNEL_NEXT + 1_000), ..ack() }).0, Verdict::Write);
    assert_eq!(messages(&node.take()).len(), 1);
    // The kernel has not heard that acknowledgement, say: it repeats itself. Another number would be another connection's.
    assert_eq!(node.verdict(&latest), Verdict::Write);
    assert_eq!(node.verdict(&kernel_syn_ack(alias)), Verdict::Drop(DropReason::UnexpectedFromKernel));
    assert_eq!(node.overlay(A, &SegmentSpec { ack: Seq::new(KERNEL_NEXT + 1_000), ..ack() }).0, Verdict::Write);
    assert_eq!((messages(&node.take()), node.counter("handoffs_accepted_total")), (vec![], 1), "it is said once");
}

#[test]
fn a_handshake_is_complete_for_its_owner_when_the_kernel_shows_it() {
    for (shown, state) in [
        (SegmentSpec { ..from_kernel(from_nowhere()) }, "opening"),
        (SegmentSpec { ack: Seq::new(CLIENT_ISN).plus(5), ..from_kernel(from_nowhere()) }, "established"),
        (SegmentSpec { payload: b"220", ..from_kernel(from_nowhere()) }, "established"),
        (SegmentSpec { flags: Flags::ACK.with(Flags::FIN), ..from_kernel(from_nowhere()) }, "established"),
    ] {
        let mut node = node("b");
        let alias = owned(&mut node);
        let (verdict, packet) = node.read(&SegmentSpec { source: alias, ..shown });
        assert_eq!((verdict, segment::<ToClientWire>(&packet).source()), (Verdict::Write, frontend()));
        assert_eq!(node.states()[0].0, state);
    }
}

fn from_nowhere() -> baton::flow::Endpoint {
    frontend()
}

#[test]
fn a_kernel_is_asked_about_a_handshake_and_about_a_silent_connection_no_sooner_than_it_need_be() {
    let mut node = node("b");
    let alias = answered(&mut node);
    node.socket = SocketState::SynReceived;
    let patience = |node: &mut Node, time| {
        node.take();
        node.wait(time - milliseconds(1));
        assert_eq!(asks(&node.take()), 0);
        node.wait(milliseconds(1));
        assert_eq!(asks(&node.take()), 1);
    };
    patience(&mut node, limits::HANDSHAKE_LIFETIME);
    patience(&mut node, limits::HANDSHAKE_LIFETIME);
    assert_eq!(node.overlay(A, &ack()).0, Verdict::Write);
    assert_eq!(node.verdict(&SegmentSpec { payload: b"220", ..from_kernel(alias) }), Verdict::Write);
    node.socket = SocketState::Open;
    patience(&mut node, limits::IDLE_CHECK_INTERVAL);
}

#[test]
fn an_owner_whose_kernel_has_lost_the_connection_says_that_it_is_over() {
    let mut node = node("b");
    owned(&mut node);
    node.socket = SocketState::Absent;
    node.wait(limits::HANDSHAKE_LIFETIME);
    assert!(matches!(messages(&node.take())[..], [(A, Message::Closed { .. })]));
    assert_eq!(node.states(), [("over", "translate")]);
}

#[test]
fn an_owner_that_has_only_answered_the_syn_owns_what_acknowledges_that() {
    let mut node = shared("c");
    answered(&mut node);
    for (acknowledged, owns) in [(KERNEL_NEXT + 1, false), (KERNEL_NEXT, true)] {
        node.hear(B, Message::WhoOwns { flow: flow(PORT), ack: Some(Seq::new(acknowledged)) });
        assert_eq!(messages(&node.take()), [(B, Message::Owner { flow: flow(PORT), owns })]);
    }
    assert_eq!((node.engine.served().get("web"), node.engine.live()), (None, 0));
    // One that acknowledges nothing is a RST, which its kernel judges.
    let reset = SegmentSpec::<ToServerWire> { flags: Flags::RST, ..ack() };
    assert_eq!(node.overlay(B, &reset).0, Verdict::Write);
}

#[test]
fn an_owner_that_was_acknowledged_owns_whatever_follows() {
    let mut node = shared("c");
    owned(&mut node);
    node.hear(B, Message::WhoOwns { flow: flow(PORT), ack: Some(Seq::new(KERNEL_NEXT + 100)) });
    assert_eq!(messages(&node.take()), [(B, Message::Owner { flow: flow(PORT), owns: true })]);
    assert_eq!((node.engine.served().get("web"), node.engine.live()), (Some(&1), 1));
    assert_eq!(node.counter("connections_back_end"), 1);
}

#[test]
fn at_the_end_of_the_process_what_is_open_is_cut_and_what_opens_is_refused() {
    let mut node = node("b");
    owned(&mut node);
    node.reset_all();
    let said = node.take();
    let [packet] = written(&said, Why::Reset).try_into().expect("one");
    let reset = segment::<ToClientWire>(&packet);
    assert_eq!((reset.flags(), reset.seq()), (Flags::RST, Seq::new(KERNEL_NEXT)));
    assert!(said.iter().any(|output| matches!(output, Output::DestroySocket { .. })));
    assert!(messages(&said).iter().any(|(to, message)| *to == A && matches!(message, Message::Closed { .. })));

    let mut node = self::node("b");
    answered(&mut node);
    node.reset_all();
    let reason = Refusal::Draining;
    assert_eq!(messages(&node.take()), [(A, Message::SynRefused { flow: flow(PORT), isn: Seq::new(CLIENT_ISN), reason })]);
}

#[test]
fn guards_of_an_earlier_life_are_their_owners_also_where_the_syn_decides() {
    let mut node = Node::of_file("a", &ON_SYN, &[flow(PORT)]);
    node.socket = SocketState::Absent;
    node.peer(B, PeerEvent::Up(epoch_of(B)));
    node.take();
    node.hear(B, Message::Owned { id: id_of(B, 7), flow: flow(PORT) });
    assert_eq!((node.counter("adopted_total"), messages(&node.take())), (1, vec![]));
    // It is guarded already, and no new handoff.
    assert_eq!(node.counter("handoffs_committed_total"), 0);
}

#[test]
fn where_the_request_decides_nobody_opens_anything() {
    let mut node = Node::new("a");
    node.hear(B, Message::Owned { id: id_of(B, 7), flow: flow(PORT) });
    assert_eq!((messages(&node.take()), node.states()), (vec![(B, Message::Disowned { id: id_of(B, 7) })], vec![]));
}
