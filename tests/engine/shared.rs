//! Shared addresses: how a node finds the owner of a connection that it has not seen begin, and what a flood of what nobody has
//! sent cannot do.

use super::driver::*;
use super::on_syn::*;
use baton::control::message::{Message, Refusal};
use baton::flow::{Endpoint, FlowKey};
use baton::handoff::counters::DropReason;
use baton::handoff::{Output, PeerEvent, SocketState, Verdict, Why};
use baton::limits;
use baton::rewrite::{Flags, SegmentSpec, Seq, ToClientWire, ToServerLocal, ToServerWire};

fn ack() -> SegmentSpec<'static, ToServerWire> {
    super::on_syn::ack()
}

#[test]
fn a_packet_from_nowhere_goes_to_whom_every_node_would_choose_until_that_one_denies_it() {
    let mut node = shared("a");
    assert_eq!(node.verdict(&ack()), Verdict::Consumed);
    let said = node.take();
    assert_eq!(said[0], Output::AskSocket { local: frontend(), remote: client(PORT) });
    assert_eq!((forwarded(&said), messages(&said)), (vec![(B, ack().build().into_inner())], vec![]));
    assert_eq!(node.verdict(&ack()), Verdict::Forward(B));
    node.hear(C, Message::Owner { flow: flow(PORT), owns: false });
    assert_eq!(node.verdict(&ack()), Verdict::Forward(B), "c was not meant");
    node.hear(B, Message::Owner { flow: flow(PORT), owns: false });
    assert_eq!(node.verdict(&ack()), Verdict::Consumed);
    let question = Message::WhoOwns { flow: flow(PORT), ack: Some(Seq::new(KERNEL_NEXT)) };
    assert_eq!(messages(&node.take()), [(B, question.clone()), (C, question)]);
    node.hear(B, Message::Owner { flow: flow(PORT), owns: false });
    node.hear(C, Message::Owner { flow: flow(PORT), owns: true });
    assert_eq!(forwarded(&node.take()), [(C, ack().build().into_inner())]);
    assert_eq!(node.verdict(&ack()), Verdict::Forward(C));
}

#[test]
fn what_nobody_owns_the_local_kernel_answers_unless_somebody_cannot_be_asked() {
    let nobody = || of_nobody(ack());
    let flow = FlowKey { client: nobody().source, frontend: frontend() };
    let mut node = shared("a");
    assert_eq!(node.verdict(&nobody()), Verdict::Consumed);
    node.hear(B, Message::Owner { flow, owns: false });
    node.hear(C, Message::Owner { flow, owns: false });
    assert_eq!(written(&node.take(), Why::NobodyOwns), [nobody().build().into_inner()]);
    // c is gone, and may have it.
    node.peer(C, PeerEvent::Down);
    assert_eq!(node.verdict(&nobody()), Verdict::Consumed);
    node.hear(B, Message::Owner { flow, owns: false });
    assert_eq!(written(&node.take(), Why::NobodyOwns).len(), 0);
    assert_eq!(node.engine.dropped(DropReason::OwnerUnknown), 1);
    // Gone for good.
    node.wait(limits::OWNER_LOST_AFTER);
    assert_eq!(node.verdict(&nobody()), Verdict::Consumed);
    node.hear(B, Message::Owner { flow, owns: false });
    assert_eq!(written(&node.take(), Why::NobodyOwns).len(), 1);
    // Nobody answers.
    assert_eq!(node.verdict(&nobody()), Verdict::Consumed);
    node.wait(limits::OWNER_PATIENCE);
    assert_eq!((node.engine.dropped(DropReason::OwnerUnknown), node.states()), (2, vec![]));
}

#[test]
fn a_connection_of_the_local_kernel_is_remembered_for_a_while() {
    let mut node = shared("a");
    node.socket = SocketState::Open;
    assert_eq!(node.verdict(&ack()), Verdict::Consumed);
    assert_eq!(written(&node.take(), Why::OwnerFound).len(), 1);
    node.wait(limits::KNOWN_OWNER_LIFETIME);
    assert_eq!(
        (node.verdict(&ack()), node.take()),
        (Verdict::Write, vec![]),
        "nobody is asked, and the kernel does not keep it from us"
    );
    assert_eq!(node.counter("owners_known"), 1);
    node.wait(limits::KNOWN_OWNER_LIFETIME * 3);
    assert_eq!(node.counter("owners_known"), 0);
}

#[test]
fn a_kernel_that_has_answered_the_syn_owns_what_acknowledges_that_and_nothing_else() {
    for (socket, acknowledged, owns) in [
        (SocketState::SynReceived, FRONTEND_ISN + 1, true),
        (SocketState::SynReceived, FRONTEND_ISN + 2, false),
        // A SYN cookie.
        (SocketState::Absent, FRONTEND_ISN + 1, true),
        (SocketState::Absent, FRONTEND_ISN + 2, false),
        (SocketState::TimeWait, FRONTEND_ISN + 1, false),
        (SocketState::Open, FRONTEND_ISN + 2, true),
    ] {
        let mut node = shared("a");
        let (_, packet) = node.read(&syn_ack(PORT));
        assert_eq!(
            segment::<ToClientWire>(&packet).mss(),
            Some(1_500 - OVERHEAD - 40),
            "what follows may come through the overlay"
        );
        node.socket = socket;
        node.hear(B, Message::WhoOwns { flow: flow(PORT), ack: Some(Seq::new(acknowledged)) });
        let expected = Message::Owner { flow: flow(PORT), owns };
        assert_eq!(messages(&node.take()), [(B, expected)], "{socket:?} {acknowledged}");
        let relayed = SegmentSpec { ack: Seq::new(acknowledged), ..ack() };
        if acknowledged == FRONTEND_ISN + 1 {
            // Without a question: it is of this kernel's connection, or of none.
            assert_eq!((node.overlay(B, &relayed).0, node.take()), (Verdict::Write, vec![]));
            continue;
        }
        assert_eq!(node.overlay(B, &relayed).0, Verdict::Consumed);
        let said = node.take();
        assert_eq!(written(&said, Why::OwnerFound).len(), usize::from(owns), "{socket:?} {acknowledged}");
        assert_eq!(messages(&said).len(), usize::from(!owns));
    }
}

#[test]
fn an_owner_takes_packets_from_every_node_that_has_the_address_and_denies_what_it_does_not_own() {
    let mut node = shared("c");
    let (_, packet) = node.overlay(A, &syn(PORT));
    let alias = segment::<ToServerLocal>(&packet).destination();
    assert_eq!(node.verdict(&kernel_syn_ack(alias)), Verdict::Write);
    node.take();
    // Of another kernel's SYN-ACK.
    assert_eq!(node.overlay(B, &SegmentSpec { ack: Seq::new(1), ..ack() }).0, Verdict::Drop(DropReason::BadAcknowledgement));
    assert_eq!(messages(&node.take()), [(B, Message::Owner { flow: flow(PORT), owns: false })]);
    assert_eq!(node.overlay(B, &ack()).0, Verdict::Write);
    // Who saw the SYN is told.
    assert!(matches!(messages(&node.take())[..], [(A, Message::Owned { .. })]));
    node.hear(B, Message::WhoOwns { flow: flow(PORT), ack: None });
    assert_eq!(messages(&node.take()), [(B, Message::Owner { flow: flow(PORT), owns: true })]);
    assert_eq!(node.overlay(B, &SegmentSpec { source: client(1), ..ack() }).0, Verdict::Drop(DropReason::NoConnection));
    assert!(matches!(messages(&node.take())[..], [(B, Message::Owner { owns: false, .. })]));
}

#[test]
fn an_owner_that_has_the_address_itself_takes_what_arrives_there() {
    let mut node = shared("b");
    let alias = answered(&mut node);
    let (verdict, packet) = node.read(&ack());
    assert_eq!((verdict, segment::<ToServerLocal>(&packet).destination()), (Verdict::Write, alias));
    assert!(matches!(messages(&node.take())[..], [(A, Message::Owned { .. })]));
    // A SYN for it is its kernel's to judge, wherever it arrives.
    node.socket = SocketState::Open;
    assert_eq!(node.verdict(&SegmentSpec { payload: b"220", ..from_kernel(alias) }), Verdict::Write);
    assert_eq!(node.verdict(&SegmentSpec { seq: Seq::new(5), ..syn(PORT) }), Verdict::Drop(DropReason::SynKept));
    assert_eq!(written(&node.take(), Why::KeptSyn).len(), 1);
}

#[test]
fn owners_are_looked_for_at_a_bounded_rate() {
    let mut node = shared("a");
    for index in 0..limits::OWNER_QUESTIONS_PER_SECOND as u32 {
        let source = Endpoint::new([203, 0, (index >> 8) as u8, index as u8].into(), PORT);
        let verdict = node.verdict(&SegmentSpec { source, ..ack() });
        // The table is full long before.
        assert!(matches!(verdict, Verdict::Consumed | Verdict::Drop(DropReason::OwnerNotAsked)));
        if verdict == Verdict::Consumed {
            let flow = FlowKey { client: source, frontend: frontend() };
            node.hear(B, Message::Owner { flow, owns: true });
        }
    }
    node.take();
    assert_eq!(node.verdict(&of_nobody(ack())), Verdict::Drop(DropReason::OwnerNotAsked));
    node.wait(limits::HOUSEKEEPING_INTERVAL);
    assert_eq!(node.verdict(&of_nobody(ack())), Verdict::Consumed);
}

// ---- What a flood cannot do -----------------------------------------------------------------------------------------------

/// Packets of nobody, until this node asks about none of them any more.
fn flood(node: &mut Node) {
    for index in 0..limits::OWNER_QUESTIONS_PER_SECOND as u32 {
        let source = Endpoint::new([203, 0, (index >> 8) as u8, index as u8].into(), PORT);
        if node.verdict(&SegmentSpec { source, ..ack() }) == Verdict::Consumed {
            node.hear(B, Message::Owner { flow: FlowKey { client: source, frontend: frontend() }, owns: true });
        }
    }
    assert_eq!(node.verdict(&of_nobody(ack())), Verdict::Drop(DropReason::OwnerNotAsked));
    node.take();
}

#[test]
fn whose_syn_the_local_kernel_has_answered_is_its_own_without_a_question() {
    let mut node = shared("a");
    flood(&mut node);
    let of = |port: u16, acknowledged: u32| {
        let source = Endpoint::new(of_nobody(ack()).source.address, port);
        SegmentSpec { source, ack: Seq::new(acknowledged), ..ack() }
    };
    for port in [1, 2] {
        assert_eq!(node.verdict(&SegmentSpec { destination: of(port, 0).source, ..syn_ack(PORT) }), Verdict::Write);
    }
    assert_eq!(node.verdict(&of(3, FRONTEND_ISN + 1)), Verdict::Drop(DropReason::OwnerNotAsked), "nobody answered that one");
    assert_eq!(node.verdict(&of(1, FRONTEND_ISN + 1)), Verdict::Write);
    assert_eq!(node.overlay(B, &of(2, FRONTEND_ISN + 1)).0, Verdict::Write, "wherever it arrives");
    assert_eq!(node.verdict(&of(1, FRONTEND_ISN + 2)), Verdict::Write, "and what follows");
    assert_eq!(node.overlay(B, &of(2, FRONTEND_ISN + 2)).0, Verdict::Write);
    assert_eq!(node.take(), [], "nobody was asked");
}

#[test]
fn what_is_of_a_handshake_is_asked_about_also_when_too_much_is_of_nothing() {
    let mut node = shared("a");
    flood(&mut node);
    // Somebody else got the first of what acknowledges this kernel's SYN-ACK, or it was lost.
    assert_eq!(node.verdict(&syn_ack(PORT)), Verdict::Write);
    node.socket = SocketState::Open;
    let later = SegmentSpec { ack: Seq::new(FRONTEND_ISN + 100), ..ack() };
    assert_eq!(node.verdict(&later), Verdict::Consumed);
    assert_eq!(written(&node.take(), Why::OwnerFound).len(), 1);
    // The candidate for a SYN that was forwarded says that this is not its own.
    node.socket = SocketState::Absent;
    assert_eq!(node.verdict(&of_both(syn(PORT))), Verdict::Consumed);
    let flow = FlowKey { client: of_both(syn(PORT)).source, frontend: frontend() };
    node.hear(B, Message::Owner { flow, owns: false });
    node.take();
    assert_eq!(node.verdict(&of_both(ack())), Verdict::Consumed);
    assert_eq!(messages(&node.take()).len(), 2);
    // That has its bound, too.
    let mut node = shared("a");
    for port in 1..=limits::HANDSHAKE_QUESTIONS_PER_SECOND as u16 + 1 {
        assert_eq!(node.verdict(&SegmentSpec { destination: client(port), ..syn_ack(port) }), Verdict::Write);
        let last = node.verdict(&SegmentSpec { source: client(port), ..later.clone() });
        let expected = port <= limits::HANDSHAKE_QUESTIONS_PER_SECOND as u16;
        assert_eq!(last == Verdict::Consumed, expected, "{port} {last:?}");
    }
    assert_eq!(node.verdict(&of_nobody(ack())), Verdict::Consumed, "nor does it keep others from being asked about");
}

#[test]
fn errors_of_nobodys_packets_keep_no_owner_from_being_found_and_are_few_themselves() {
    let mut node = shared("a");
    for _error in 0..limits::ERRORS_TOLD_PER_SECOND + 10 {
        let sent = SegmentSpec { seq: Seq::new(5), ..syn_ack(PORT) }.build().into_inner();
        assert_eq!(node.tun(&mut super::noise::too_big(&sent)), Verdict::Write, "this node's kernel may have it");
    }
    assert_eq!(forwarded(&node.take()).len(), 2 * limits::ERRORS_TOLD_PER_SECOND);
    assert_eq!(node.verdict(&of_nobody(ack())), Verdict::Consumed);
    node.wait(limits::HOUSEKEEPING_INTERVAL);
    node.take();
    let sent = SegmentSpec { seq: Seq::new(5), ..syn_ack(PORT) }.build().into_inner();
    assert_eq!(node.tun(&mut super::noise::too_big(&sent)), Verdict::Write);
    assert_eq!(forwarded(&node.take()).len(), 2);
}

#[test]
fn a_peer_that_asks_more_than_an_honest_one_does_is_not_answered() {
    let mut node = shared("a");
    let asked = |index: u32| {
        let client = Endpoint::new([203, (index >> 16) as u8, (index >> 8) as u8, index as u8].into(), PORT);
        Message::WhoOwns { flow: FlowKey { client, frontend: frontend() }, ack: None }
    };
    for index in 0..limits::PEER_QUESTIONS_PER_SECOND as u32 {
        node.hear(B, asked(index));
    }
    assert_eq!(messages(&node.take()).len(), limits::PEER_QUESTIONS_PER_SECOND);
    node.hear(B, asked(0));
    assert_eq!(node.overlay(B, &of_nobody(ack())).0, Verdict::Drop(DropReason::OwnerNotAsked), "a packet is a question, too");
    assert_eq!(node.take(), []);
    // Nobody else has to suffer for it.
    node.hear(C, asked(0));
    assert_eq!(node.verdict(&of_nobody(ack())), Verdict::Consumed);
    assert_eq!(messages(&node.take()).len(), 3);
    node.wait(limits::HOUSEKEEPING_INTERVAL);
    node.take();
    node.hear(B, asked(0));
    assert_eq!(messages(&node.take()).len(), 1);
}

#[test]
fn a_forged_acknowledgement_moves_no_handshake() {
    let mut node = shared("a");
    let flow = FlowKey { client: of_both(syn(PORT)).source, frontend: frontend() };
    assert_eq!(node.verdict(&of_both(syn(PORT))), Verdict::Consumed);
    assert_eq!(forwarded(&node.take())[0].0, B);
    let forged = SegmentSpec { ack: Seq::new(1), ..of_both(ack()) };
    assert_eq!(node.verdict(&forged), Verdict::Forward(B));
    node.hear(B, Message::Owner { flow, owns: false });
    // Its SYN, sent again, goes where it went, whatever would be chosen now.
    node.replace_policy("a", &[&ON_SYN[..], &[SHARED, ("send_to: [b, c]", "send_to: c")]].concat());
    assert_eq!(node.verdict(&of_both(syn(PORT))), Verdict::Forward(B));
    // Whoever's SYN-ACK the client acknowledges says so.
    assert_eq!(node.verdict(&of_both(ack())), Verdict::Consumed);
    let question = Message::WhoOwns { flow, ack: Some(Seq::new(KERNEL_NEXT)) };
    assert_eq!(messages(&node.take()), [(B, question.clone()), (C, question)]);
    node.hear(B, Message::Owner { flow, owns: true });
    assert_eq!(forwarded(&node.take()), [(B, of_both(ack()).build().into_inner())]);
    assert_eq!(node.verdict(&of_both(ack())), Verdict::Forward(B));
    node.hear(B, Message::Owned { id: id_of(B, 7), flow });
    assert_eq!((node.states(), node.counter("openings_pending")), (vec![("handed-off", "forward")], 0));
}

#[test]
fn a_candidate_that_denied_once_is_asked_like_others_until_it_has_a_syn_again() {
    let mut node = shared("a");
    let flow = FlowKey { client: of_both(syn(PORT)).source, frontend: frontend() };
    assert_eq!(node.verdict(&of_both(syn(PORT))), Verdict::Consumed);
    node.hear(B, Message::Owner { flow, owns: false });
    node.take();
    assert_eq!(node.verdict(&of_both(ack())), Verdict::Consumed);
    for peer in [B, C] {
        node.hear(peer, Message::Owner { flow, owns: false });
    }
    assert_eq!(written(&node.take(), Why::NobodyOwns).len(), 1);
    // Of a number that nobody has sent: what this node's kernel says to it is no harm to a client that has another.
    let reset = SegmentSpec { destination: flow.client, flags: Flags::RST, seq: Seq::new(KERNEL_NEXT), ..syn_ack(PORT) };
    assert_eq!(node.verdict(&reset), Verdict::Write);
    assert_eq!(node.verdict(&of_both(SegmentSpec { seq: Seq::new(77), ..syn(PORT) })), Verdict::Forward(B));
    assert_eq!(node.verdict(&of_both(ack())), Verdict::Forward(B));
    // Refused, it is the next one's.
    node.hear(B, Message::SynRefused { flow, isn: Seq::new(77), reason: Refusal::Full });
    assert_eq!(forwarded(&node.take())[0].0, C);
}

// ---- What a connection that is over cannot do ---------------------------------------------------------------------------

/// The local kernel's, to a segment of a connection that it does not have.
fn reset_of_kernel() -> SegmentSpec<'static, ToClientWire> {
    SegmentSpec { flags: Flags::RST, seq: Seq::new(KERNEL_NEXT), ack: Seq::new(0), ..syn_ack(PORT) }
}

#[test]
fn a_connection_of_the_local_kernel_that_is_over_resets_none_that_another_node_has() {
    let mut node = shared("a");
    node.socket = SocketState::Open;
    assert_eq!(node.verdict(&ack()), Verdict::Consumed);
    assert_eq!(node.verdict(&ack()), Verdict::Write);
    let aborted = SegmentSpec { flags: Flags::RST.with(Flags::ACK), ..reset_of_kernel() };
    assert_eq!(node.verdict(&aborted), Verdict::Write, "of an application that gives up");
    node.take();
    // Over; now c has one with the same ends. The kernel, which has none, answers with the number that was acknowledged.
    node.socket = SocketState::Absent;
    assert_eq!(node.verdict(&reset_of_kernel()), Verdict::Consumed);
    let question = Message::WhoOwns { flow: flow(PORT), ack: Some(Seq::new(KERNEL_NEXT)) };
    assert_eq!(messages(&node.take()), [(B, question.clone()), (C, question)]);
    // What comes meanwhile waits, too.
    assert_eq!(node.verdict(&ack()), Verdict::Consumed);
    node.hear(B, Message::Owner { flow: flow(PORT), owns: false });
    node.hear(C, Message::Owner { flow: flow(PORT), owns: true });
    assert_eq!(node.take(), [Output::Forward(C, ack().build().into_inner(), Why::OwnerFound)]);
    assert_eq!(node.engine.dropped(DropReason::UnexpectedFromKernel), 1);
    assert_eq!(node.verdict(&ack()), Verdict::Forward(C));
    assert_eq!(node.verdict(&reset_of_kernel()), Verdict::Drop(DropReason::UnexpectedFromKernel), "of c's connection");
}

#[test]
fn a_reset_of_the_local_kernel_reaches_the_client_when_nobody_has_the_connection() {
    let mut node = shared("a");
    node.socket = SocketState::Open;
    assert_eq!(node.verdict(&ack()), Verdict::Consumed);
    node.take();
    node.socket = SocketState::Absent;
    assert_eq!(node.verdict(&reset_of_kernel()), Verdict::Consumed);
    for peer in [B, C] {
        node.hear(peer, Message::Owner { flow: flow(PORT), owns: false });
    }
    let said = node.take();
    assert_eq!(written(&said, Why::NobodyOwns), [reset_of_kernel().build().into_inner()]);
    assert_eq!(node.verdict(&reset_of_kernel()), Verdict::Write, "of what nobody has at all");
    // Somebody cannot be asked, and does not come back for long.
    node.socket = SocketState::Open;
    assert_eq!(node.verdict(&of_nobody(ack())), Verdict::Consumed);
    let reset = || SegmentSpec { destination: of_nobody(ack()).source, ..reset_of_kernel() };
    node.peer(C, PeerEvent::Down);
    assert_eq!(node.verdict(&reset()), Verdict::Consumed);
    node.take();
    node.hear(B, Message::Owner { flow: FlowKey { client: of_nobody(ack()).source, frontend: frontend() }, owns: false });
    assert_eq!((node.take(), node.engine.dropped(DropReason::OwnerUnknown)), (vec![], 1));
    // Nobody is left to be asked.
    node.wait(limits::OWNER_LOST_AFTER);
    node.peer(B, PeerEvent::Down);
    node.wait(limits::OWNER_LOST_AFTER);
    node.socket = SocketState::Open;
    assert_eq!(node.verdict(&of_nobody(ack())), Verdict::Consumed);
    assert_eq!(node.verdict(&reset()), Verdict::Consumed);
    assert_eq!(written(&node.take(), Why::NobodyOwns).len(), 1);
}

#[test]
fn a_reset_that_answers_what_acknowledges_the_local_kernels_own_syn_ack_is_the_clients() {
    let mut node = shared("a");
    assert_eq!(node.verdict(&syn_ack(PORT)), Verdict::Write);
    assert_eq!(node.verdict(&super::driver::ack(PORT)), Verdict::Write);
    let reset = SegmentSpec { seq: Seq::new(FRONTEND_ISN + 1), ..reset_of_kernel() };
    assert_eq!((node.verdict(&reset), node.take()), (Verdict::Write, vec![]));
    assert_eq!(node.verdict(&reset_of_kernel()), Verdict::Consumed);
}

#[test]
fn a_reset_is_not_the_local_kernels_while_another_has_the_syn_or_the_connection() {
    let mut node = shared("a");
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Consumed);
    assert_eq!(node.verdict(&reset_of_kernel()), Verdict::Drop(DropReason::UnexpectedFromKernel));
    node.hear(B, Message::Owned { id: id_of(B, 7), flow: flow(PORT) });
    assert_eq!(node.verdict(&reset_of_kernel()), Verdict::Drop(DropReason::UnexpectedFromKernel));
    // An address that is one node's own is not looked at.
    let mut node = super::on_syn::node("a");
    assert_eq!(node.verdict(&syn(PORT)), Verdict::Consumed);
    assert_eq!(node.verdict(&reset_of_kernel()), Verdict::Write);
}

#[test]
fn who_denied_it_is_not_taken_for_the_owner_again_by_a_client_that_speaks_seldom() {
    let mut node = shared("a");
    assert_eq!(node.verdict(&ack()), Verdict::Consumed);
    assert_eq!(forwarded(&node.take())[0].0, B);
    node.hear(B, Message::Owner { flow: flow(PORT), owns: false });
    // A keep-alive probe; nobody has the connection, and the client must come to know.
    node.wait(milliseconds(75_000));
    node.take();
    assert_eq!(node.verdict(&ack()), Verdict::Consumed);
    assert_eq!(messages(&node.take()).len(), 2, "all are asked");
}

#[test]
fn a_node_with_another_cluster_file_refuses_a_syn_and_denies_what_follows() {
    let files: [&[(&str, &str)]; 2] = [
        // It does not have the address under anybody's name, or under one node's only.
        &[("a: [\"10.77.0.1:80\", \"[fd77::1]:80\"], b: \"10.77.0.2:80\"", "b: \"10.77.0.2:80\"")],
        &[],
    ];
    for (changes, is_known) in files.into_iter().zip([false, true]) {
        let mut node = Node::of_file("b", &[&ON_SYN[..], changes].concat(), &[]);
        if !is_known {
            assert_eq!(node.overlay(A, &syn(PORT)).0, Verdict::Drop(DropReason::NoConnection));
            let refused = Message::SynRefused { flow: flow(PORT), isn: Seq::new(CLIENT_ISN), reason: Refusal::UnknownFrontend };
            assert_eq!(messages(&node.take()), [(A, refused)]);
        }
        assert_eq!(node.overlay(A, &ack()).0, Verdict::Drop(DropReason::NoConnection));
        assert_eq!(messages(&node.take()), [(A, Message::Owner { flow: flow(PORT), owns: false })]);
    }
}
