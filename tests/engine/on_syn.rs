//! Services that decide on the SYN: what a front-end does with it, and what its owner's kernel is given.

use super::driver::*;
use baton::control::message::{HandoffId, Message, Refusal};
use baton::flow::{Endpoint, NodeId};
use baton::handoff::chronicle::{End, Outcome};
use baton::handoff::counters::DropReason;
use baton::handoff::{Output, PeerEvent, SocketState, Verdict, Why};
use baton::limits;
use baton::rewrite::{Flags, SegmentSpec, Seq, ToClientLocal, ToClientWire, ToServerLocal, ToServerWire};

pub const PORT: u16 = 50_000;
pub const KERNEL_NEXT: u32 = BACKEND_ISN + 1;

/// The usual file, but that its service decides on the SYN.
pub const ON_SYN: [(&str, &str); 3] = [
    ("    rules:", "    inspect: none\n    rules:"),
    ("path: \"/images/*\"", "client: 192.0.2.0/28"),
    ("path: \"/both/*\"", "client: 192.0.2.16/28"),
];
/// The same, and node b has the address of node a too.
pub const SHARED: (&str, &str) = ("b: \"10.77.0.2:80\" }", "b: \"10.77.0.1:80\" }");

pub fn node(name: &str) -> Node {
    let mut node = Node::of_file(name, &ON_SYN, &[]);
    node.socket = SocketState::Absent;
    node
}

pub fn shared(name: &str) -> Node {
    let mut node = Node::of_file(name, &[&ON_SYN[..], &[SHARED]].concat(), &[]);
    node.socket = SocketState::Absent;
    node
}

/// A client that `both` is said of: first b, then c.
pub fn of_both(spec: SegmentSpec<'static, ToServerWire>) -> SegmentSpec<'static, ToServerWire> {
    SegmentSpec { source: Endpoint::new([192, 0, 2, 17].into(), PORT), ..spec }
}

/// A client that no rule is about.
pub fn of_nobody(spec: SegmentSpec<'static, ToServerWire>) -> SegmentSpec<'static, ToServerWire> {
    SegmentSpec { source: Endpoint::new([203, 0, 113, 1].into(), PORT), ..spec }
}

/// The client's acknowledgement of the owner kernel's SYN-ACK.
pub fn ack() -> SegmentSpec<'static, ToServerWire> {
    SegmentSpec { ack: Seq::new(KERNEL_NEXT), ..super::driver::ack(PORT) }
}

pub fn forwarded(said: &[Output]) -> Vec<(NodeId, Vec<u8>)> {
    let forward = |output: &Output| match output {
        Output::Forward(to, packet, _) => Some((*to, packet.clone())),
        _ => None,
    };
    said.iter().filter_map(forward).collect()
}

pub fn messages(said: &[Output]) -> Vec<(NodeId, Message)> {
    let message = |output: &Output| match output {
        Output::Message(to, message) => Some((*to, message.clone())),
        _ => None,
    };
    said.iter().filter_map(message).collect()
}

pub fn id_of(peer: NodeId, serial: u64) -> HandoffId {
    HandoffId { epoch: epoch_of(peer), serial }
}

/// At front-end a: the SYN was forwarded to b, and b has named itself the owner.
pub fn opened(node: &mut Node) -> HandoffId {
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Consumed);
    assert_eq!(forwarded(&node.take()).len(), 1);
    let id = id_of(B, 7);
    node.hear(B, Message::Owned { id, flow: flow(PORT) });
    assert_eq!(node.take(), [Output::Guard(flow(PORT))]);
    id
}

/// At owner b: the SYN that came from a is with the kernel, which answers; the alias.
pub fn answered(node: &mut Node) -> Endpoint {
    let (verdict, packet) = node.overlay(A, &syn(PORT));
    assert_eq!(verdict, Verdict::Write);
    let alias = segment::<ToServerLocal>(&packet).destination();
    assert_eq!(node.verdict(&kernel_syn_ack(alias)), Verdict::Write);
    assert_eq!(node.take(), []);
    alias
}

/// The same, and its client completes the handshake.
pub fn owned(node: &mut Node) -> Endpoint {
    let alias = answered(node);
    assert_eq!(node.overlay(A, &ack()).0, Verdict::Write);
    assert!(matches!(node.take()[..], [Output::Message(A, Message::Owned { .. })]));
    alias
}

// ---- The front-end ------------------------------------------------------------------------------------------------------

#[test]
fn what_is_decided_for_this_node_is_its_kernels_unchanged_and_nothing_is_kept() {
    let mut node = node("a");
    let plain = of_nobody(syn(PORT)).build().into_inner();
    // Fast Open, and data: all of it is between the client and the kernel.
    for before in
        [with_options(&plain, &[34, 2, 1, 1]), of_nobody(SegmentSpec { payload: b"EHLO", ..syn(PORT) }).build().into_inner()]
    {
        let mut packet = before.clone();
        assert_eq!((node.tun(&mut packet), packet), (Verdict::Write, before));
    }
    let to_client = SegmentSpec { destination: of_nobody(syn(PORT)).source, ..syn_ack(PORT) };
    let (verdict, packet) = node.read(&to_client);
    assert_eq!((verdict, segment::<ToClientWire>(&packet).mss()), (Verdict::Write, Some(1_460)));
    assert_eq!(node.verdict(&of_nobody(super::driver::ack(PORT))), Verdict::Local);
    assert_eq!((node.take(), node.states(), node.counter("openings_pending")), (vec![], vec![], 0));
    assert_eq!((node.counter("local_on_syn_total"), node.counter("decisions_local_total")), (2, 2));
}

#[test]
fn a_syn_for_a_peer_is_forwarded_as_it_is_once_the_kernel_has_no_such_connection() {
    let mut node = node("a");
    let spec = SegmentSpec { flags: Flags::SYN.with(Flags::ECE).with(Flags::CWR), ..syn(PORT) };
    assert_eq!(node.verdict(&spec), Verdict::Consumed);
    let said = node.take();
    assert_eq!(said[0], Output::AskSocket { local: frontend(), remote: client(PORT) });
    assert_eq!(forwarded(&said), [(B, spec.build().into_inner())]);
    // Nothing but a bounded table knows it, and that for as long as a kernel repeats its SYN-ACK.
    assert_eq!((node.states(), node.counter("openings_pending")), (vec![], 1));
    assert_eq!(node.verdict(&ack()), Verdict::Forward(B));
    node.wait(limits::OPENING_LIFETIME + milliseconds(2_000));
    assert_eq!(node.counter("openings_pending"), 0);
}

#[test]
fn a_syn_for_a_connection_that_the_local_kernel_has_is_the_kernels_to_judge() {
    for socket in [SocketState::Open, SocketState::SynReceived] {
        let mut node = node("a");
        node.socket = socket;
        assert_eq!(node.verdict(&syn(PORT)), Verdict::Consumed);
        assert_eq!(written(&node.take(), Why::LocalSyn).len(), 1);
        assert_eq!(node.verdict(&ack()), Verdict::Local);
        assert_eq!(node.counter("openings_pending"), 0);
    }
}

#[test]
fn a_syn_that_is_repeated_goes_where_the_first_one_went() {
    let mut node = node("a");
    assert_eq!(node.verdict(&of_both(syn(PORT))), Verdict::Consumed);
    assert_eq!(node.verdict(&of_both(syn(PORT))), Verdict::Forward(B));
    assert_eq!(node.counter("syns_forwarded_total"), 1);
    // But not to a peer that is gone.
    node.peer(B, PeerEvent::Down);
    node.take();
    assert_eq!(node.verdict(&of_both(syn(PORT))), Verdict::Consumed);
    assert_eq!(forwarded(&node.take())[0].0, C);
}

#[test]
fn whoever_refuses_the_next_one_is_asked_and_at_last_the_local_server() {
    let mut node = node("a");
    let flow = baton::flow::FlowKey { client: of_both(syn(PORT)).source, frontend: frontend() };
    let refused = |reason| Message::SynRefused { flow, isn: Seq::new(CLIENT_ISN), reason };
    assert_eq!(node.verdict(&of_both(syn(PORT))), Verdict::Consumed);
    node.take();
    node.hear(C, refused(Refusal::Full));
    node.hear(B, Message::SynRefused { flow, isn: Seq::new(7), reason: Refusal::Full });
    assert_eq!(node.take(), [], "it was not asked; and not for this SYN");
    node.hear(B, refused(Refusal::ApplicationDown));
    assert_eq!(forwarded(&node.take())[0].0, C);
    node.hear(C, refused(Refusal::BacklogFull));
    assert_eq!(written(&node.take(), Why::LocalSyn), [of_both(syn(PORT)).build().into_inner()]);
    assert_eq!(node.counter("fallbacks_total{reason=\"refused_application_down\"}"), 1);
    assert_eq!(node.counter("fallbacks_total{reason=\"refused_backlog_full\"}"), 1);
    assert_eq!(node.verdict(&of_both(ack())), Verdict::Local);
}

#[test]
fn an_owner_that_names_itself_is_remembered_and_guarded() {
    let mut node = node("a");
    let id = opened(&mut node);
    assert_eq!(node.states(), [("handed-off", "forward")]);
    assert_eq!((node.counter("handoffs_committed_total"), node.counter("openings_pending")), (1, 0));
    // Whatever another policy says.
    node.replace_policy("a", &[&ON_SYN[..], &[("send_to: b", "send_to: c")]].concat());
    assert_eq!(node.verdict(&ack()), Verdict::Forward(B));
    node.hear(B, Message::Closed { id });
    assert_eq!(node.states(), [("lingering", "forward")]);
    // Its ends used again: a connection like any other.
    assert_eq!(node.verdict(&SegmentSpec { seq: Seq::new(1), ..syn(PORT) }), Verdict::Consumed);
    assert_eq!(forwarded(&node.take())[0].0, C);
}

#[test]
fn an_owner_that_nobody_has_heard_of_is_believed_unless_the_kernel_has_the_connection() {
    for (socket, believed) in [(SocketState::Absent, true), (SocketState::Open, false), (SocketState::SynReceived, false)] {
        let mut node = node("a");
        node.socket = socket;
        let id = id_of(B, 7);
        node.hear(B, Message::Owned { id, flow: flow(PORT) });
        let disowned = node.take().contains(&Output::Message(B, Message::Disowned { id }));
        assert_eq!((disowned, node.states().len()), (!believed, usize::from(believed)));
    }
}

/// Swarm seed 65339: while the front-end hung, its kernel served the client's next connection from the same port.
#[test]
fn behind_a_pause_an_owner_is_believed_unless_the_kernel_has_a_connection_with_the_same_ends() {
    for (pauses, socket, believed) in [
        (true, SocketState::Open, false),
        (true, SocketState::SynReceived, true),
        (true, SocketState::Absent, true),
        (false, SocketState::Open, true),
    ] {
        let mut node = node("a");
        assert_eq!(node.verdict(&syn(PORT)), Verdict::Consumed);
        node.take();
        if pauses {
            node.stall();
        }
        node.socket = socket;
        let id = id_of(B, 7);
        node.hear(B, Message::Owned { id, flow: flow(PORT) });
        let disowned = messages(&node.take()).contains(&(B, Message::Disowned { id }));
        assert_eq!((disowned, node.states().len()), (!believed, usize::from(believed)), "{pauses} {socket:?}");
        let expected = if believed { Verdict::Forward(B) } else { Verdict::Local };
        assert_eq!(node.verdict(&ack()), expected, "{pauses} {socket:?}");
        // What begins behind the pause is known again.
        node.wait(milliseconds(1));
        node.socket = SocketState::Absent;
        assert_eq!(node.verdict(&syn(PORT + 1)), Verdict::Consumed);
        node.socket = SocketState::Open;
        node.hear(B, Message::Owned { id: id_of(B, 8), flow: flow(PORT + 1) });
        assert_eq!(node.verdict(&SegmentSpec { source: client(PORT + 1), ..ack() }), Verdict::Forward(B));
    }
}

#[test]
fn a_client_has_completed_its_handshake_with_one_node_whoever_else_had_its_syn() {
    let mut node = node("a");
    let flow = baton::flow::FlowKey { client: of_both(syn(PORT)).source, frontend: frontend() };
    assert_eq!(node.verdict(&of_both(syn(PORT))), Verdict::Consumed);
    node.peer(B, PeerEvent::Down);
    assert_eq!(node.verdict(&of_both(syn(PORT))), Verdict::Consumed);
    assert_eq!(node.verdict(&of_both(ack())), Verdict::Forward(C));
    node.peer(B, PeerEvent::Up(epoch_of(B)));
    // b's SYN-ACK was the first to arrive after all.
    node.hear(B, Message::Owned { id: id_of(B, 7), flow });
    assert_eq!(node.verdict(&of_both(ack())), Verdict::Forward(B));
    // Nobody else can claim it from then on.
    node.take();
    node.hear(C, Message::Owned { id: id_of(C, 9), flow });
    assert_eq!(messages(&node.take()), [(C, Message::Disowned { id: id_of(C, 9) })]);
}

#[test]
fn a_syn_that_comes_before_the_end_is_known_is_the_owners_and_nobody_elses() {
    let mut node = node("a");
    let id = opened(&mut node);
    let next = SegmentSpec { seq: Seq::new(9_000_000), ..syn(PORT) };
    assert_eq!(node.verdict(&next), Verdict::Forward(B));
    node.hear(B, Message::Closed { id });
    assert_eq!(node.take(), [Output::Unguard(flow(PORT))], "b has the SYN already");
    assert_eq!(node.verdict(&SegmentSpec { seq: Seq::new(9_000_001), ..ack() }), Verdict::Forward(B));
    // If b does not want it, it is decided as any other.
    node.hear(B, Message::SynRefused { flow: flow(PORT), isn: Seq::new(9_000_000), reason: Refusal::Draining });
    assert_eq!(forwarded(&node.take()), [(B, next.build().into_inner())]);
    node.hear(B, Message::SynRefused { flow: flow(PORT), isn: Seq::new(9_000_000), reason: Refusal::Draining });
    assert_eq!(written(&node.take(), Why::LocalSyn), [next.build().into_inner()]);
}

#[test]
fn signed_connections_and_those_of_a_draining_node_stay() {
    let mut node = node("a");
    let mut packet = with_options(&syn(PORT).build().into_inner(), &[19, 6, 1, 2, 3, 4, 1, 1]);
    assert_eq!(node.tun(&mut packet), Verdict::Write);
    node.drain_node();
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Write);
    assert_eq!(node.take(), []);
}

#[test]
fn what_cannot_go_on_under_another_address_is_taken_out_of_a_forwarded_syn() {
    let mut node = node("a");
    let options = [34, 2, 30, 4, 1, 2, 254, 4, 0xf9, 0x89, 1, 1];
    let mut packet = with_options(&syn(PORT).build().into_inner(), &options);
    assert_eq!(node.tun(&mut packet), Verdict::Consumed);
    let sent = forwarded(&node.take()).remove(0).1;
    assert_eq!(sent[60..], [1; 12]);
    assert!(segment::<ToServerWire>(&sent).checksums_are_right());
    // Sent again, it is the same.
    let mut again = with_options(&syn(PORT).build().into_inner(), &options);
    assert_eq!((node.tun(&mut again), again), (Verdict::Forward(B), sent));
}

#[test]
fn a_flood_of_syns_pushes_out_only_what_nobody_has_answered() {
    let mut node = node("a");
    let id = opened(&mut node);
    for index in 0..limits::OPENINGS_MAX as u32 + 10 {
        let source = Endpoint::new([192, 0, 2, 10].into(), (index % 60_000) as u16 + 1);
        let source = if index < 60_000 { source } else { Endpoint::new([192, 0, 2, 11].into(), source.port) };
        assert_eq!(node.verdict(&SegmentSpec { source, ..syn(PORT) }), Verdict::Consumed);
        node.take();
    }
    assert_eq!((node.counter("openings_pending"), node.counter("syns_evicted_total")), (limits::OPENINGS_MAX as u64, 10));
    assert_eq!(node.states(), [("handed-off", "forward")]);
    // A connection that goes on with a SYN of its owner's takes a place, too.
    assert_eq!(node.verdict(&SegmentSpec { seq: Seq::new(9_000_000), ..syn(PORT) }), Verdict::Forward(B));
    node.hear(B, Message::Closed { id });
    assert_eq!((node.counter("openings_pending"), node.counter("syns_evicted_total")), (limits::OPENINGS_MAX as u64, 11));
}

#[test]
fn only_a_server_of_the_service_is_believed_and_only_of_what_began_in_its_life_and_finds_room() {
    let mut node = node("a");
    let id = opened(&mut node);
    // A name that is taken is of the connection that has it.
    node.hear(B, Message::Owned { id, flow: flow(PORT + 1) });
    assert_eq!((messages(&node.take()), node.states()), (vec![], vec![("handed-off", "forward")]));
    let foreign = HandoffId { epoch: epoch_of(C), serial: 8 };
    node.hear(B, Message::Owned { id: foreign, flow: flow(PORT + 1) });
    assert_eq!(messages(&node.take()), [(B, Message::Disowned { id: foreign })]);
    assert_eq!(node.verdict(&ack()), Verdict::Forward(B));
    // Two that are served alike may both say so.
    node.hear(B, Message::Owned { id: id_of(B, 8), flow: flow(PORT + 1) });
    assert_eq!(node.states().len(), 2);

    let disowned = |changes: &[(&str, &str)], flows: &[u16], peer: NodeId| {
        let mut node = Node::of_file("a", &[&ON_SYN[..], changes].concat(), &[]);
        node.socket = SocketState::Absent;
        for port in flows {
            node.hear(peer, Message::Owned { id: id_of(peer, u64::from(*port)), flow: flow(*port) });
        }
        let said = messages(&node.take());
        (said.iter().filter(|(_, message)| matches!(message, Message::Disowned { .. })).count(), node.states().len())
    };
    assert_eq!(disowned(&[], &[1, 2], C), (0, 2));
    assert_eq!(disowned(&[(", c: { port: 80 } }", " }"), ("send_to: [b, c]", "send_to: b")], &[1, 2], C), (2, 0));
    assert_eq!(disowned(&[("connections: 1000", "connections: 1")], &[1, 2], C), (1, 1));
}

#[test]
fn a_node_whose_table_is_full_forwards_no_syn() {
    let mut node = Node::of_file("a", &[&ON_SYN[..], &[("connections: 1000", "connections: 1")]].concat(), &[]);
    node.socket = SocketState::Absent;
    opened(&mut node);
    assert_eq!(node.verdict(&SegmentSpec { source: client(1), ..syn(PORT) }), Verdict::Write);
    assert_eq!(node.counter("fallbacks_total{reason=\"full\"}"), 1);
    assert!(node.engine.is_full() && !self::node("a").engine.is_full());
}

#[test]
fn a_handshake_under_way_stays_with_its_candidate_whatever_syn_follows() {
    let mut node = node("a");
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Consumed);
    assert_eq!(forwarded(&node.take())[0].0, B);
    node.replace_policy("a", &[&ON_SYN[..], &[("send_to: b", "send_to: c")]].concat());
    // A forged one, with another number; one that is signed; and one after `drain`.
    assert_eq!(node.verdict(&SegmentSpec { seq: Seq::new(77), ..syn(PORT) }), Verdict::Forward(B));
    let mut signed = with_options(&syn(PORT).build().into_inner(), &[19, 6, 1, 2, 3, 4, 1, 1]);
    assert_eq!(node.tun(&mut signed), Verdict::Forward(B));
    node.drain_node();
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Forward(B));
    assert_eq!(node.verdict(&ack()), Verdict::Forward(B));
    assert_eq!((node.take(), node.counter("openings_pending")), (vec![], 1));
    // As long as a kernel repeats its SYN-ACK, however often it is sent again.
    node.wait(limits::OPENING_LIFETIME + milliseconds(2_000));
    assert_eq!((node.verdict(&syn(PORT)), node.counter("openings_pending")), (Verdict::Write, 0));
}

#[test]
fn who_refuses_a_syn_that_followed_is_not_asked_again() {
    let mut node = node("a");
    let next = of_both(SegmentSpec { seq: Seq::new(77), ..syn(PORT) });
    let flow = baton::flow::FlowKey { client: next.source, frontend: frontend() };
    assert_eq!(node.verdict(&of_both(syn(PORT))), Verdict::Consumed);
    assert_eq!(node.verdict(&next), Verdict::Forward(B));
    node.take();
    node.hear(B, Message::SynRefused { flow, isn: Seq::new(77), reason: Refusal::Full });
    assert_eq!(forwarded(&node.take()), [(C, next.build().into_inner())]);
}

// ---- The owner ----------------------------------------------------------------------------------------------------------

#[test]
fn a_forwarded_syn_reaches_the_kernel_with_all_it_says() {
    let mut node = node("b");
    let sent = SegmentSpec { flags: Flags::SYN.with(Flags::ECE).with(Flags::CWR), traffic_class: 8, ..syn(PORT) };
    let (verdict, packet) = node.overlay(A, &sent);
    let syn = segment::<ToServerLocal>(&packet);
    assert_eq!((verdict, syn.destination().port), (Verdict::Write, 8080), "where this node's application listens");
    let expected = SegmentSpec::<ToServerWire> { destination: syn.destination(), ..sent }.build().into_inner();
    assert_eq!(packet, expected, "nothing but the address differs");
}

#[test]
fn a_kernels_numbers_are_the_clients_own() {
    let mut node = node("b");
    let alias = owned(&mut node);
    let sent = SegmentSpec { payload: b"220 hello", ..from_kernel(alias) };
    let (verdict, packet) = node.read(&sent);
    let expected = SegmentSpec::<ToClientLocal> { source: frontend(), ..sent }.build().into_inner();
    assert_eq!((verdict, packet), (Verdict::Write, expected));
    let sent = SegmentSpec { payload: b"EHLO", ack: Seq::new(KERNEL_NEXT + 9), ..ack() };
    let (verdict, packet) = node.overlay(A, &sent);
    let expected = SegmentSpec::<ToServerWire> { destination: alias, ..sent }.build().into_inner();
    assert_eq!((verdict, packet), (Verdict::Write, expected));
    assert_eq!(node.states(), [("established", "translate")]);
}

#[test]
fn every_syn_ack_that_leaves_has_an_mss_that_fits_into_the_overlay() {
    let mut node = node("b");
    let alias = answered(&mut node);
    for _repetition in 0..2 {
        let (verdict, packet) = node.read(&kernel_syn_ack(alias));
        let syn_ack = segment::<ToClientWire>(&packet);
        assert_eq!((verdict, syn_ack.mss()), (Verdict::Write, Some(1_500 - OVERHEAD - 40)));
        assert_eq!((syn_ack.seq(), syn_ack.source()), (Seq::new(BACKEND_ISN), frontend()));
        assert!(syn_ack.checksums_are_right());
    }
}

#[test]
fn only_a_client_that_acknowledges_this_kernel_is_its_own() {
    let mut node = node("b");
    answered(&mut node);
    // A RST of the kernel's would end the connection that the client has elsewhere: the kernel is given nothing to answer.
    for acknowledged in [BACKEND_ISN, KERNEL_NEXT + 1, FRONTEND_ISN + 1] {
        let other = SegmentSpec { ack: Seq::new(acknowledged), ..ack() };
        assert_eq!(node.overlay(A, &other).0, Verdict::Drop(DropReason::BadAcknowledgement));
    }
    assert_eq!(node.take(), []);
    assert_eq!(node.overlay(A, &ack()).0, Verdict::Write);
    let said = node.take();
    let [Output::Message(A, Message::Owned { flow: named, .. })] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(*named, flow(PORT));
    assert_eq!(node.overlay(A, &ack()).0, Verdict::Write);
    assert_eq!(node.take(), [], "said once");
    assert_eq!(node.counter("handoffs_accepted_total"), 1);
}

#[test]
fn a_kernel_that_refuses_or_is_silent_is_an_answer_to_the_front_end_not_to_the_client() {
    let refused = |reason| [(A, Message::SynRefused { flow: flow(PORT), isn: Seq::new(CLIENT_ISN), reason })];
    let mut node = node("b");
    let (_, packet) = node.overlay(A, &syn(PORT));
    let alias = segment::<ToServerLocal>(&packet).destination();
    let reset = SegmentSpec { flags: Flags::RST.with(Flags::ACK), seq: Seq::new(0), ..from_kernel(alias) };
    assert_eq!(node.verdict(&reset), Verdict::Consumed);
    assert_eq!(messages(&node.take()), refused(Refusal::ApplicationDown));
    assert_eq!(node.overlay(A, &syn(PORT)).0, Verdict::Write);
    node.wait(limits::REPLAY_DEADLINE);
    let said = node.take();
    assert_eq!((messages(&said), written(&said, Why::Purge).len()), (refused(Refusal::BacklogFull).to_vec(), 1));
    assert_eq!(node.states(), []);
}

#[test]
fn what_a_node_cannot_take_it_refuses_at_once() {
    let refusal = |node: &mut Node, from: NodeId| {
        assert_eq!(node.overlay(from, &syn(PORT)).0, Verdict::Consumed);
        match messages(&node.take())[..] {
            [(_, Message::SynRefused { reason, .. })] => reason,
            ref other => panic!("{other:?}"),
        }
    };
    assert_eq!(refusal(&mut node("b"), C), Refusal::UnknownFrontend);
    let mut draining = node("b");
    draining.drain_node();
    assert_eq!(refusal(&mut draining, A), Refusal::Draining);
    let mut full = Node::of_file("b", &[&ON_SYN[..], &[("connections: 1000", "connections: 1")]].concat(), &[]);
    owned(&mut full);
    assert_eq!(full.overlay(A, &SegmentSpec { source: client(1), ..syn(PORT) }).0, Verdict::Consumed);
    assert!(matches!(messages(&full.take())[..], [(A, Message::SynRefused { reason: Refusal::Full, .. })]));
    // A node whose file says that the request decides.
    let mut other = Node::new("b");
    assert_eq!(other.overlay(A, &syn(PORT)).0, Verdict::Drop(DropReason::NoConnection));
}

#[test]
fn a_syn_that_is_repeated_reaches_the_same_socket_and_an_exact_reset_ends_it() {
    let mut node = node("b");
    let alias = answered(&mut node);
    let (verdict, packet) = node.overlay(A, &syn(PORT));
    assert_eq!((verdict, segment::<ToServerLocal>(&packet).destination()), (Verdict::Write, alias));
    let reset = |seq: u32| SegmentSpec { flags: Flags::RST, seq: Seq::new(CLIENT_ISN).plus(seq), ..ack() };
    assert_eq!(node.overlay(A, &reset(2)).0, Verdict::Drop(DropReason::ResetNotExact));
    assert_eq!(node.overlay(A, &reset(1)).0, Verdict::Write);
    assert_eq!(node.states(), []);
}

#[test]
fn a_connection_whose_client_never_comes_back_is_forgotten_when_the_kernel_has() {
    let mut node = node("b");
    answered(&mut node);
    node.socket = SocketState::SynReceived;
    node.wait(limits::HANDSHAKE_LIFETIME * 3);
    assert_eq!(node.states(), [("opening", "inspect")]);
    node.socket = SocketState::Absent;
    node.wait(limits::HANDSHAKE_LIFETIME);
    assert_eq!(node.states(), []);
    assert!(messages(&node.take()).is_empty());
}

#[test]
fn the_end_is_the_kernels_to_say_and_the_front_end_is_told() {
    let mut node = node("b");
    let alias = owned(&mut node);
    node.socket = SocketState::Absent;
    let reset = SegmentSpec { flags: Flags::RST, ..from_kernel(alias) };
    assert_eq!(node.verdict(&reset), Verdict::Write);
    assert!(matches!(messages(&node.take())[..], [(A, Message::Closed { .. })]));
    assert_eq!(node.states(), [("over", "translate")]);
    // Used again: the kernel gets it on another alias.
    let (verdict, packet) = node.overlay(A, &SegmentSpec { seq: Seq::new(5), ..syn(PORT) });
    assert_eq!(verdict, Verdict::Write);
    assert_ne!(segment::<ToServerLocal>(&packet).destination(), alias);
}

#[test]
fn a_syn_on_a_live_connection_is_the_kernels_to_judge_and_on_one_that_is_over_a_new_one() {
    let mut node = node("b");
    let alias = owned(&mut node);
    assert_eq!(node.verdict(&SegmentSpec { payload: b"220", ..from_kernel(alias) }), Verdict::Write);
    let next = SegmentSpec { seq: Seq::new(5), ..syn(PORT) };
    node.socket = SocketState::Open;
    assert_eq!(node.overlay(A, &next).0, Verdict::Drop(DropReason::SynKept));
    let [packet] = written(&node.take(), Why::KeptSyn).try_into().expect("one");
    assert_eq!(segment::<ToServerLocal>(&packet).destination(), alias);
    node.socket = SocketState::TimeWait;
    assert_eq!(node.overlay(A, &next).0, Verdict::Drop(DropReason::SynKept));
    let said = node.take();
    let [packet] = written(&said, Why::KeptSyn).try_into().expect("one");
    assert_ne!(segment::<ToServerLocal>(&packet).destination(), alias);
    assert!(matches!(messages(&said)[..], [(A, Message::Closed { .. })]));
}

#[test]
fn an_owner_names_itself_again_in_every_session() {
    let mut node = node("b");
    owned(&mut node);
    node.peer(A, PeerEvent::Down);
    node.peer(A, PeerEvent::Up(epoch_of(A)));
    assert!(matches!(messages(&node.take())[..], [(A, Message::Owned { .. }), (A, Message::OwnedEnd)]));
}

#[test]
fn a_kernel_that_resets_a_handshake_under_way_owns_nothing() {
    let mut node = node("b");
    let alias = answered(&mut node);
    // A second SYN, in the window of the first one's request, makes Linux reset that.
    assert_eq!(node.overlay(A, &SegmentSpec { seq: Seq::new(CLIENT_ISN).plus(100), ..syn(PORT) }).0, Verdict::Write);
    let ack = Seq::new(CLIENT_ISN).plus(101);
    let reset = SegmentSpec { flags: Flags::RST.with(Flags::ACK), seq: Seq::new(0), ack, ..from_kernel(alias) };
    let (verdict, packet) = node.read(&reset);
    assert_eq!((verdict, segment::<ToClientWire>(&packet).source()), (Verdict::Write, frontend()));
    assert_eq!((messages(&node.take()), node.states()), (vec![], vec![]));
    assert_eq!(node.counter("handoffs_accepted_total"), 0);
    // Who meant it begins anew.
    answered(&mut node);
}

#[test]
fn a_flood_of_syns_takes_no_room_from_connections_and_the_oldest_unanswered_goes_first() {
    let mut node = Node::of_file("b", &[&ON_SYN[..], &[("connections: 1000", "connections: 2")]].concat(), &[]);
    node.socket = SocketState::SynReceived;
    let alias = owned(&mut node);
    let of = |index: u32| Endpoint::new([203, 0, 113, (index >> 12) as u8].into(), (index & 0xfff) as u16 + 1);
    let syn_of = |index: u32| SegmentSpec { source: of(index), ..syn(PORT) };
    for index in 0..limits::OPENINGS_MAX as u32 + 10 {
        assert_eq!(node.overlay(A, &syn_of(index)).0, Verdict::Write, "{index}");
        if index >= 10 {
            node.take();
        }
    }
    assert_eq!(node.counter("openings_unfinished"), limits::OPENINGS_MAX as u64);
    assert_eq!(node.counter("syns_evicted_total"), 10);
    assert_eq!(node.counter("connections_back_end"), 1 + limits::OPENINGS_MAX as u64);
    // The one that was there before is, and the newest can be completed.
    assert_eq!(node.overlay(A, &ack()).0, Verdict::Write);
    let last = limits::OPENINGS_MAX as u32 + 9;
    let complete = |node: &mut Node, index: u32| {
        let alias = Endpoint::new(alias.address, alias.port);
        assert_eq!(node.verdict(&SegmentSpec { destination: of(index), ..kernel_syn_ack(alias) }), Verdict::Write);
        node.take();
        node.overlay(A, &SegmentSpec { source: of(index), ..ack() }).0
    };
    assert_eq!(complete(&mut node, last), Verdict::Write);
    assert!(matches!(messages(&node.take())[..], [(A, Message::Owned { .. })]));
    assert_eq!(node.counter("openings_unfinished"), limits::OPENINGS_MAX as u64 - 1);
    // Now the table is full: its client is told, and the kernel forgets it.
    assert_eq!(complete(&mut node, last - 1), Verdict::Consumed);
    let said = node.take();
    let [reset] = written(&said, Why::Reset).try_into().expect("one");
    let reset = segment::<ToClientWire>(&reset);
    assert_eq!((reset.flags(), reset.seq(), reset.destination()), (Flags::RST, Seq::new(KERNEL_NEXT), of(last - 1)));
    assert_eq!(written(&said, Why::Purge).len(), 1);
    assert_eq!(messages(&said), []);
    // And no SYN more is taken.
    assert_eq!(node.overlay(A, &syn_of(last + 1)).0, Verdict::Consumed);
    assert!(matches!(messages(&node.take())[..], [(A, Message::SynRefused { reason: Refusal::Full, .. })]));
}

#[test]
fn what_is_decided_on_the_syn_is_told_with_its_times_and_what_stays_at_once() {
    let mut node = node("a");
    node.engine.want_records();
    assert_eq!(node.verdict(&of_nobody(syn(PORT))), Verdict::Write);
    let record = node.engine.poll_record().expect("nothing more will be known");
    assert_eq!((record.outcome, record.end, record.server), (Outcome::Local, End::Released, Some(A)));
    assert_eq!((record.until_decided(), record.until_committed(), record.octets()), (Some(milliseconds(0)), None, None));
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Consumed);
    node.wait(milliseconds(30));
    let id = id_of(B, 7);
    node.hear(B, Message::Owned { id, flow: flow(PORT) });
    assert_eq!(node.verdict(&ack()), Verdict::Forward(B));
    node.wait(milliseconds(50));
    node.hear(B, Message::Closed { id });
    let record = node.engine.poll_record().expect("it is over");
    assert_eq!((record.outcome, record.server, record.rule.as_deref()), (Outcome::HandedOff, Some(B), Some("images")));
    assert_eq!((record.until_decided(), record.until_committed()), (Some(milliseconds(0)), Some(milliseconds(30))));
    assert_eq!(record.duration(node.instant()), Some(milliseconds(80)));
    // Refused by all, it is the local server's after all.
    assert_eq!(node.verdict(&SegmentSpec { source: client(9), ..syn(PORT) }), Verdict::Consumed);
    node.hear(B, Message::SynRefused { flow: flow(9), isn: Seq::new(CLIENT_ISN), reason: Refusal::Full });
    assert_eq!(node.engine.poll_record().map(|record| record.outcome), Some(Outcome::Local));
}
