//! Shared addresses: what a node must not believe, give away or forget.

use super::driver::*;
use super::on_syn::{
    KERNEL_NEXT, ON_SYN, SHARED, ack, forwarded, id_of, messages, node as node_of_its_own, of_nobody, opened, owned, shared,
};
use baton::control::message::Message;
use baton::flow::{Endpoint, FlowKey};
use baton::handoff::counters::DropReason;
use baton::handoff::{Output, PeerEvent, SocketState, Verdict, Why};
use baton::limits;
use baton::rewrite::{Flags, Offload, SegmentSpec, Seq, ToClientLocal, ToClientWire, ToServerWire};
use std::time::Duration;

const PORT: u16 = super::on_syn::PORT;

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
fn what_was_kept_behind_a_forged_acknowledgement_is_asked_about_for_itself() {
    let mut node = shared("a");
    let forged = SegmentSpec { ack: Seq::new(1), ..nobody() };
    assert_eq!(node.verdict(&forged), Verdict::Consumed);
    let asked = |ack: u32| Message::WhoOwns { flow: nobody_flow(), ack: Some(Seq::new(ack)) };
    assert_eq!(messages(&node.take()), [(B, asked(1)), (C, asked(1))]);
    // The client's own, which completes its handshake with c.
    assert_eq!(node.verdict(&nobody()), Verdict::Consumed);
    node.hear(B, owner(false));
    node.hear(C, owner(false));
    let said = node.take();
    assert_eq!(written(&said, Why::NobodyOwns), [forged.build().into_inner()], "this node's kernel would reset the client");
    assert_eq!(messages(&said), [(B, asked(KERNEL_NEXT)), (C, asked(KERNEL_NEXT))]);
    node.hear(B, owner(false));
    node.hear(C, owner(true));
    assert_eq!(forwarded(&node.take()), [(C, nobody().build().into_inner())]);
}

#[test]
fn an_owner_that_is_gone_for_good_is_no_owner() {
    let mut node = shared("a");
    assert_eq!(node.verdict(&nobody()), Verdict::Consumed);
    node.hear(C, owner(true));
    assert_eq!(node.verdict(&nobody()), Verdict::Forward(C));
    node.peer(C, PeerEvent::Down);
    for _ in 0..30 {
        node.wait(Duration::from_secs(10));
        let verdict = node.verdict(&nobody());
        if verdict != Verdict::Forward(C) {
            node.hear(B, owner(false));
            assert_eq!(written(&node.take(), Why::NobodyOwns).len(), 1);
            assert!(node.now <= limits::OWNER_LOST_AFTER + Duration::from_secs(10), "{:?}", node.now);
            return;
        }
    }
    panic!("{:?} after it is gone packets still go to it", node.now);
}

fn over(node: &mut Node) -> Endpoint {
    let alias = owned(node);
    node.socket = SocketState::Absent;
    assert_eq!(node.verdict(&SegmentSpec::<ToClientLocal> { flags: Flags::RST, ..from_kernel(alias) }), Verdict::Write);
    node.take();
    assert_eq!(node.states(), [("over", "translate")]);
    alias
}

/// What another connection on the same ends acknowledges.
const NEW_NEXT: u32 = 0x0abc_def0;

/// Of another connection on the same ends.
fn new() -> SegmentSpec<'static, ToServerWire> {
    SegmentSpec { seq: Seq::new(0x1234_5678), ack: Seq::new(NEW_NEXT), ..ack() }
}

/// What the kernel, which has no such socket, says to that.
fn reset_of_new(alias: Endpoint) -> SegmentSpec<'static, ToClientLocal> {
    SegmentSpec { flags: Flags::RST, seq: Seq::new(NEW_NEXT), ack: Seq::new(0), ..from_kernel(alias) }
}

#[test]
fn a_connection_under_an_alias_that_is_over_resets_none_that_another_node_has() {
    // b has the address itself, c has not.
    for (name, others) in [("b", [A, C]), ("c", [A, B])] {
        let mut node = shared(name);
        let alias = over(&mut node);
        // The client has a new one; its SYN went elsewhere. a still remembers who had the one before.
        assert_eq!(node.overlay(A, &new()).0, Verdict::Write);
        assert_eq!(node.verdict(&reset_of_new(alias)), Verdict::Consumed, "{name}: the client's new connection is reset");
        let question = Message::WhoOwns { flow: flow(PORT), ack: Some(new().ack) };
        assert_eq!(messages(&node.take()), others.map(|peer| (peer, question.clone())));
        node.hear(others[0], Message::Owner { flow: flow(PORT), owns: false });
        node.hear(others[1], Message::Owner { flow: flow(PORT), owns: true });
        assert_eq!((node.take(), node.engine.dropped(DropReason::UnexpectedFromKernel)), (vec![], 1));
        // From now on it says so.
        assert_ne!(node.overlay(A, &new()).0, Verdict::Write);
        assert_eq!(messages(&node.take()), [(A, Message::Owner { flow: flow(PORT), owns: false })]);
    }
}

#[test]
fn a_reset_of_what_is_over_under_an_alias_reaches_the_client_when_nobody_has_it() {
    let mut node = shared("c");
    let alias = over(&mut node);
    assert_eq!(node.overlay(A, &new()).0, Verdict::Write);
    assert_eq!(node.verdict(&reset_of_new(alias)), Verdict::Consumed);
    node.take();
    for peer in [A, B] {
        node.hear(peer, Message::Owner { flow: flow(PORT), owns: false });
    }
    let said = written(&node.take(), Why::NobodyOwns);
    let [reset] = said.as_slice() else { panic!("{said:?}") };
    let reset = segment::<ToClientWire>(reset);
    assert_eq!((reset.source(), reset.destination(), reset.seq()), (frontend(), client(PORT), new().ack));
    // A service that is inspected, or whose address is one node's own: as ever.
    let mut node = node_of_its_own("b");
    let alias = over(&mut node);
    assert_eq!(node.overlay(A, &new()).0, Verdict::Write);
    assert_eq!(node.verdict(&reset_of_new(alias)), Verdict::Write);
}

#[test]
fn what_else_comes_from_what_is_over_under_an_alias_reaches_the_client_at_once() {
    let mut node = shared("c");
    let alias = over(&mut node);
    for flags in [Flags::RST.with(Flags::ACK), Flags::ACK] {
        assert_eq!(node.verdict(&SegmentSpec { flags, ..reset_of_new(alias) }), Verdict::Write, "{flags}");
    }
}

#[test]
fn a_kernel_that_had_a_connection_under_an_alias_does_not_reset_the_one_that_was_given_away_since() {
    let changes = [&ON_SYN[..], &[SHARED]].concat();
    let mut node = shared("b");
    let alias = over(&mut node);
    node.replace_policy("b", &[&changes[..], &[("send_to: b", "send_to: c")]].concat());
    assert_eq!(node.verdict(&SegmentSpec { seq: Seq::new(0x1234_5677), ..syn(PORT) }), Verdict::Consumed);
    assert_eq!(forwarded(&node.take()).len(), 1);
    assert_eq!(node.verdict(&reset_of_new(alias)), Verdict::Drop(DropReason::UnexpectedFromKernel));
}

#[test]
fn a_super_segment_whose_owner_is_gone_for_good_is_cut_first() {
    let mut node = shared("a");
    assert_eq!(node.verdict(&nobody()), Verdict::Consumed);
    node.hear(C, owner(true));
    node.peer(C, PeerEvent::Down);
    node.take();
    let offload = Offload { segment_bytes: std::num::NonZeroU16::new(1_400), ..Offload::NONE };
    let mut packet = SegmentSpec { payload: &[b'x'; 5_000], ..nobody() }.build().into_inner();
    for _ in 0..30 {
        node.wait(Duration::from_secs(10));
        match node.engine.handle_tun(&mut packet, offload, node.instant()) {
            Verdict::Forward(C) => {}
            verdict => return assert_eq!(verdict, Verdict::Cut),
        }
    }
    panic!("{:?} after it is gone packets still go to it", node.now);
}

#[test]
fn who_had_a_connection_that_is_over_may_say_that_the_next_one_is_anothers() {
    let mut node = shared("a");
    let id = opened(&mut node);
    node.hear(B, Message::Closed { id });
    node.take();
    assert_eq!(node.verdict(&new()), Verdict::Forward(B));
    node.hear(C, Message::Owner { flow: flow(PORT), owns: false });
    assert_eq!(node.verdict(&new()), Verdict::Forward(B), "c was not meant");
    node.hear(B, Message::Owner { flow: flow(PORT), owns: false });
    node.take();
    assert_eq!(node.verdict(&new()), Verdict::Consumed);
    assert_eq!(messages(&node.take()).len(), 2, "all are asked");
}

#[test]
fn a_server_that_a_new_file_leaves_out_is_still_asked_for_what_it_has() {
    let mut node = shared("a");
    assert_eq!(node.verdict(&nobody()), Verdict::Consumed);
    node.hear(C, owner(true));
    node.take();
    node.replace_policy(
        "a",
        &[&ON_SYN[..], &[SHARED, (", c: { port: 80 } }", " }"), ("send_to: [b, c]", "send_to: b")]].concat(),
    );
    assert_eq!(node.verdict(&nobody()), Verdict::Forward(C));
    node.wait(limits::KNOWN_OWNER_LIFETIME * 3);
    node.take();
    assert_eq!(node.verdict(&nobody()), Verdict::Consumed);
    assert_eq!(messages(&node.take()).len(), 2, "c is asked, too");
}

#[test]
fn what_was_kept_and_is_let_go_of_is_counted() {
    let dropped = |node: &Node| -> u64 {
        [DropReason::OwnerUnknown, DropReason::HeldFull, DropReason::NoConnection, DropReason::UnexpectedFromKernel]
            .iter()
            .map(|reason| node.engine.dropped(*reason))
            .sum()
    };
    let mut node = shared("a");
    assert_eq!(node.verdict(&nobody()), Verdict::Consumed);
    assert_eq!(node.verdict(&of_nobody(syn(PORT))), Verdict::Write);
    assert_eq!(dropped(&node), 1, "a SYN");
    let mut node = shared("a");
    assert_eq!(node.verdict(&nobody()), Verdict::Consumed);
    assert_eq!(node.verdict(&SegmentSpec { destination: nobody().source, ..syn_ack(PORT) }), Verdict::Write);
    assert_eq!(dropped(&node), 1, "a SYN-ACK");
    let mut node = shared("a");
    assert_eq!(node.overlay(B, &nobody()).0, Verdict::Consumed);
    assert_eq!(dropped(&node), 1, "relayed and denied");
}

#[test]
fn a_syn_ack_for_what_another_node_serves_stays_here_until_the_client_begins_anew() {
    let syn_ack = || SegmentSpec { destination: nobody().source, ..syn_ack(PORT) };
    let mut node = shared("a");
    assert_eq!(node.verdict(&nobody()), Verdict::Consumed);
    node.hear(C, owner(true));
    node.take();
    assert_eq!(node.verdict(&syn_ack()), Verdict::Drop(DropReason::UnexpectedFromKernel));
    assert_eq!(node.verdict(&of_nobody(syn(PORT))), Verdict::Write);
    assert_eq!(node.verdict(&syn_ack()), Verdict::Write);
}

#[test]
fn what_is_guarded_for_another_is_not_this_kernels_for_having_answered_once() {
    let mut node = shared("a");
    // A connection that this node's kernel had, and that is over but for its TIME-WAIT.
    assert_eq!(node.read(&syn_ack(PORT)).0, Verdict::Write);
    node.take();
    node.socket = SocketState::TimeWait;
    // The next one on the same ends, whose SYN another node got.
    node.hear(B, Message::Owned { id: id_of(B, 7), flow: flow(PORT) });
    assert!(node.take().contains(&Output::Guard(flow(PORT))));
    // Of the first one, and late.
    let late = SegmentSpec { ack: Seq::new(FRONTEND_ISN + 1), ..ack() };
    assert_eq!(node.overlay(B, &late).0, Verdict::Drop(DropReason::NoConnection));
    assert_eq!(messages(&node.take()), [(B, Message::Owner { flow: flow(PORT), owns: false })]);
}
